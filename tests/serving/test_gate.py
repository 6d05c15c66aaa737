"""What stands before the endpoints: keys, hosts, bodies, time, and a log without content."""

import asyncio
import logging
import threading
import time

import pytest

from .conftest import code_of, encoded

KEY = "0123456789abcdef-第"[:16]
TEXT = {"input": "一段不该出现在日志里的话"}


def test_a_key_is_asked_for_where_there_are_any(make_client):
    client = make_client(keys=(KEY,))
    for path in ("/health", "/ready", "/openapi.json"):
        assert client.get(path).status_code == 200
    for headers in ({}, {"Authorization": f"Bearer {KEY}0"}, {"Authorization": f"Basic {KEY}"}):
        answer = client.post("/v1/embeddings", json=TEXT, headers=headers)
        assert code_of(answer) == (401, "key_not_known")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/metrics", "/v1/models", "/nowhere"):
        assert client.get(path).status_code == 401
    assert client.post("/v1/embeddings", json=TEXT, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_other_names_of_the_host_are_refused(make_client):
    client = make_client(hosts=("localhost", "[::1]"))
    for host in ("localhost", "localhost:8000", "[::1]:8000", "LOCALHOST"):
        assert client.get("/health", headers={"Host": host}).status_code == 200
    for host in ("evil.com", "localhost.evil.com:8000", "", "[::2]"):
        assert code_of(client.get("/health", headers={"Host": host})) == (421, "host_not_known")


def test_a_body_has_a_size(make_client):
    client = make_client(body_bytes=1000)
    long = {"input": "猫" * 400}
    assert code_of(client.post("/v1/embeddings", json=long)) == (413, "body_too_large")
    chunks = (b"x" * 100 for _ in range(11))  # without a Content-Length
    assert code_of(client.post("/v1/embeddings", content=chunks)) == (413, "body_too_large")
    for length in ("x", "-1", "9" * 5000):
        answer = client.post("/v1/embeddings", content=b"{}", headers={"Content-Length": length})
        assert code_of(answer) == (413, "body_too_large")


def ask(gate, messages, path="/v1/embeddings", delay=0.0):
    """Send a request of these messages, `delay` seconds apart; return the answer's status and body, or None."""
    answer: list = []

    async def main():
        async def receive():
            await asyncio.sleep(delay)
            return messages.pop(0) if messages else await asyncio.sleep(30)

        async def send(message):
            answer.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        await gate({**scope, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}, receive, send)

    asyncio.run(main())
    return (answer[0]["status"], answer[1]["body"]) if answer else None


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_has_its_time(make_client):
    gate = make_client(seconds=0.3).app
    start = time.monotonic()
    status, body = ask(gate, [part(b" ")] * 100, delay=0.1)
    assert (status, b"body_timeout" in body) == (408, True)
    assert time.monotonic() - start < 2


def test_an_answer_has_its_time(make_client, monkeypatch, embedder):
    gate = make_client(seconds=0.3).app
    may_go = threading.Event()
    monkeypatch.setattr(embedder, "_text_vectors", lambda *arguments: may_go.wait(5))
    try:
        status, body = ask(gate, [part(b'{"input": "a text that takes long"}', more=False)])
    finally:
        may_go.set()
    assert (status, b"timed_out" in body) == (504, True)


def test_a_client_that_goes_gets_no_answer_and_its_work_is_dropped(make_client, monkeypatch, embedder):
    client = make_client(threads=1)
    started, may_go = threading.Event(), threading.Event()
    calls = []

    def slowly(model, texts):
        calls.append([text.text for text in texts])
        started.set()
        assert may_go.wait(10)
        return [[1.0] * embedder.embedding_size] * len(texts)

    monkeypatch.setattr(embedder, "_text_vectors", slowly)
    gone = {"type": "http.disconnect"}

    async def main():
        async def one(text, *rest):
            messages = [part(b'{"input": "%s"}' % text, more=False), *rest]

            async def receive():
                if len(messages) == 1:
                    await asyncio.sleep(0.2)
                return messages.pop(0) if messages else await asyncio.sleep(30)

            answer = []

            async def send(message):
                answer.append(message.get("status"))

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}
            await client.app({**scope, "query_string": b"", "http_version": "1.1"}, receive, send)
            return answer

        busy = [asyncio.ensure_future(one(text)) for text in (b"one", b"two", b"three")]
        while not started.is_set():
            await asyncio.sleep(0.01)
        leaving = asyncio.ensure_future(one(b"four", gone))
        assert await leaving == []
        may_go.set()
        return await asyncio.gather(*busy)

    assert [answer[0] for answer in asyncio.run(main())] == [200] * 3
    assert not any("four" in texts for texts in calls)


def test_bodies_that_are_held_have_a_bound(make_client):
    gate = make_client(body_bytes=1000, held_bytes=1000).app
    answers = []

    async def main():
        async def one(messages, delay):
            async def receive():
                await asyncio.sleep(delay)
                return messages.pop(0) if messages else await asyncio.sleep(30)

            async def send(message):
                answers.append((message.get("status"), dict(message.get("headers", []))))

            scope = {"type": "http", "method": "POST", "path": "/nowhere", "headers": [], "query_string": b""}
            await gate({**scope, "http_version": "1.1"}, receive, send)

        bodies = [[part(b"x" * 400), part(b"x" * 400), part(b"", more=False)] for _ in range(2)]
        await asyncio.gather(*map(one, bodies, (0.05, 0.08)))

    asyncio.run(main())
    statuses = {status: headers for status, headers in answers if status}
    assert statuses.keys() == {404, 429}
    assert statuses[429][b"retry-after"] == b"1"
    assert ask(gate, [part(b"x" * 900, more=False)], "/nowhere")[0] == 404  # all of it was given back


def test_logs_have_no_content(make_client, caplog, monkeypatch, embedder, dog):
    client = make_client(keys=(KEY,))
    caplog.set_level(logging.DEBUG, "fgclip2")
    caplog.set_level(logging.DEBUG, "uvicorn")
    headers = {"Authorization": f"Bearer {KEY}"}
    image = encoded(dog)
    client.post("/v1/embeddings", json=TEXT, headers=headers)
    client.post("/v1/embeddings?一段不该=出现", json={**TEXT, "图": 1}, headers=headers)
    client.post("/v1/classify", json={"images": [image, image[:200]], "labels": ["日志里"]}, headers=headers)
    client.post("/v1/日志里", json=TEXT, headers=headers)

    def fail(model, texts):
        raise RuntimeError(f"can't encode {texts}")

    monkeypatch.setattr(embedder, "_text_vectors", fail)
    answer = client.post("/v1/embeddings", json={"input": "另一段不该出现在日志里的话"}, headers=headers)
    assert code_of(answer) == (500, "internal_error")
    request = answer.headers["X-Request-Id"]
    assert f"request {request} failed by RuntimeError" in caplog.text
    assert "in fail" in caplog.text  # where it happened
    assert f"request {request} POST /v1/embeddings 500" in caplog.text
    for secret in ("不该", "日志里", image[:20], KEY):
        assert secret not in caplog.text
        assert secret not in answer.text
        assert secret not in client.get("/metrics", headers=headers).text


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_page_in_a_browser_can_send_unasked_is_refused(client, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post("/v1/embeddings", content=b'{"input": "a dog"}', headers=headers)
    assert code_of(answer) == (422, "request_not_valid")
