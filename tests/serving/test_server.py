"""A service that listens: OpenAI's client, slow and broken connections, its end, and workers that are killed."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest

from fgclip2.serving import server
from fgclip2.serving.app import create_app
from fgclip2.serving.engine import Engine
from fgclip2.serving.keys import ApiKeys
from fgclip2.serving.limits import Limits
from tests.calibrations import level_calibration

from .conftest import encoded, listening

KEY = "0123456789abcdef"


@pytest.fixture
def serve(embedder, index):
    """Starts a service with these limits and keys; a context manager of its port."""
    pixels = embedder.max_pixels

    def start(keys=(), **limits):
        return listening(create_app(Engine(embedder, Limits(**limits), "tiny", index), ApiKeys(list(keys))))

    yield start
    embedder.max_pixels = pixels


def embed(port, text="一只狗", timeout=30):
    """Ask for a vector; return the status and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/v1/embeddings", json.dumps({"input": text}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_the_client_of_openai(serve, embedder, dog):
    with serve(keys=[KEY]) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)
        for encoding in ({}, {"encoding_format": "float"}):  # without one it asks for base64
            answer = client.embeddings.create(model="tiny", input=["一只狗", "a dog"], **encoding)
            vectors = np.array([one.embedding for one in answer.data])
            assert np.allclose(vectors, embedder.encode_texts(["一只狗", "a dog"]), atol=1e-5)
            assert answer.usage.total_tokens > 0
        images = client.embeddings.create(model="tiny", input=[f"data:image/webp;base64,{encoded(dog)}"])
        assert np.allclose(images.data[0].embedding, embedder.encode_images(dog), atol=1e-5)
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError, match="the model of this service is 'tiny'"):
            client.embeddings.create(model="text-embedding-3-small", input="a dog")
        stranger = client.with_options(api_key="another-key-0123")
        with pytest.raises(openai.AuthenticationError, match="an API key is needed"):
            stranger.embeddings.create(model="tiny", input="a dog")


def test_slow_and_broken_connections_keep_nobody_waiting(serve, monkeypatch):
    """Heads that never end, bodies that never come, what is no HTTP: each is closed, and others are answered."""
    monkeypatch.setattr(server, "SECONDS_FOR_A_HEAD", 0.6)
    with serve(seconds=1.0) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for number, connection in enumerate(slow):
            if number % 4 == 0:
                connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            elif number % 4 == 1:
                connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            elif number % 4 == 2:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        assert embed(port)[0] == 200
        deadline = time.monotonic() + 10
        for number, connection in enumerate(slow):
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            answer = b"".join(iter(lambda connection=connection: connection.recv(65536), b""))
            connection.close()
            expected = (b"", b"HTTP/1.1 408 ", b"HTTP/1.1 400 ", b"")[number % 4]
            assert answer.startswith(expected)
            assert bool(answer) == bool(expected)
        assert embed(port)[0] == 200


def test_a_head_that_drips_is_closed_too(serve, monkeypatch):
    monkeypatch.setattr(server, "SECONDS_FOR_A_HEAD", 0.6)
    with serve() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")  # one that is answered, then another
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        connection.settimeout(0.1)
        start = time.monotonic()
        while time.monotonic() - start < 10:
            try:
                connection.sendall(b"X")
                if connection.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.3 < time.monotonic() - start < 5


def test_who_is_refused_by_the_head_keeps_no_connection(serve):
    with serve([KEY]) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))  # to its end, which comes without the body
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_who_takes_no_answer_is_cut_off(serve, monkeypatch):
    lost, real = threading.Event(), server.PromptClientsProtocol.connection_lost

    def note(protocol, error):
        lost.set()
        real(protocol, error)

    monkeypatch.setattr(server, "SECONDS_TO_TAKE_ANSWERS", 0.6)
    monkeypatch.setattr(server.PromptClientsProtocol, "connection_lost", note)
    with serve(seconds=1.0) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        with contextlib.suppress(OSError):  # once neither side has room for more
            while True:
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lost.wait(15)
        assert embed(port)[0] == 200


def test_what_was_accepted_is_answered_before_the_end(serve, embedder, monkeypatch):
    begun, real = threading.Event(), embedder._text_vectors

    def slowly(model, texts):
        begun.set()
        time.sleep(0.5)
        return real(model, texts)

    monkeypatch.setattr(embedder, "_text_vectors", slowly)
    with ThreadPoolExecutor(4) as pool:
        with serve() as port:
            answers = [pool.submit(embed, port, f"text {number}") for number in range(4)]
            assert begun.wait(10)
            time.sleep(0.2)  # until all are accepted
        assert [answer.result()[0] for answer in answers] == [200] * 4
    with pytest.raises(ConnectionRefusedError):
        embed(port)


def test_the_loop_answers_while_the_model_works(serve, embedder, monkeypatch):
    def fail(model, texts):
        time.sleep(1)
        raise SystemExit  # which is no Exception, and ends nothing here either

    monkeypatch.setattr(embedder, "_text_vectors", fail)
    with serve() as port, ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(embed, port, f"text {number}") for number in range(4)]
        time.sleep(0.2)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        start = time.monotonic()
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        assert time.monotonic() - start < 0.5
        connection.close()
        assert {one.result()[0] for one in busy} == {500}


def settings(**options):
    return server.ServiceSettings(**options)


def test_what_can_not_be_served_is_said_before_it_listens(drawings, tmp_path, index, monkeypatch):
    monkeypatch.delenv("FGCLIP2_API_KEYS", raising=False)
    with pytest.raises(ValueError, match=r"listening on 0\.0\.0\.0 without API keys would let everyone in"):
        server.make_app(settings(host="0.0.0.0"))
    with pytest.raises(ValueError, match="has no index: make it by"):
        server.make_app(settings(folder=tmp_path))
    foreign = tmp_path / "of_others.json"
    level_calibration("sha256:0", "others", 36).save(foreign)
    with pytest.raises(ValueError, match="the calibration is of the model 'others'"):
        server.make_app(settings(calibration=foreign))
    with pytest.raises(ValueError, match=r"'images\.example\.org' can't be an allowed prefix"):
        server.make_app(settings(prefixes=("images.example.org",)))


def test_settings_reach_the_service(drawings, index, monkeypatch):
    monkeypatch.delenv("FGCLIP2_API_KEYS", raising=False)
    gate = server.make_app(settings(folder=drawings, name="小", limits=Limits(texts=3)))
    status = []

    async def ask(host):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            status.append(message.get("status"))

        scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"host", host)]}
        await gate({**scope, "query_string": b"", "http_version": "1.1"}, receive, send)

    for host in (b"localhost:8000", b"evil.com"):
        asyncio.run(ask(host))
    assert [one for one in status if one] == [200, 421]


# ---------------------------------------------------------------------------------------------------------------------
# As a command, in processes of its own
# ---------------------------------------------------------------------------------------------------------------------


class Command:
    """`fgclip2 serve` in processes of its own, on a free port."""

    def __init__(self, log: Path, *arguments: str):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "fgclip2", "serve", "--port", str(self.port), *arguments]
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(command, stderr=stream, stdout=stream, env=environment)

    def wait_until_all_answer(self, workers, seconds=300):
        """Wait for the last worker, too: until it answers the supervisor, that looks after no other."""
        deadline = time.monotonic() + seconds
        while self.log.read_text().count("Application startup complete") < workers:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def workers(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        names = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
        return {child for child, name in names.items() if b"spawn_main" in name}

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_a_worker_killed_under_load_leaves_the_others_answering(tmp_path):
    command = Command(tmp_path / "log", "--workers", "2", "--threads", "1")
    try:
        command.wait_until_all_answer(2)
        before = command.workers()
        assert len(before) == 2
        stop, answers, failures = threading.Event(), [], []

        def ask(client):
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    answers.append((time.monotonic(), embed(command.port, f"client {client} text {number}", 60)[0]))
                except OSError:  # of the killed worker's connections
                    failures.append(time.monotonic())

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask, client) for client in range(8)]
            time.sleep(2)
            os.kill(min(before), signal.SIGKILL)
            killed = time.monotonic()
            while len(command.workers() - {min(before)}) < 2 and time.monotonic() - killed < 30:
                time.sleep(0.1)
            time.sleep(1)
            stop.set()
            for client in clients:
                client.result()
        assert {status for _, status in answers} == {200}
        assert len([moment for moment, _ in answers if moment > killed]) > 5
        assert len(failures) <= 8  # what the killed worker had under way
        after = command.workers()
        assert len(after) == 2
        assert after != before  # one has taken the place of the killed one
        metrics = http.client.HTTPConnection("127.0.0.1", command.port, timeout=30)
        metrics.request("GET", "/metrics")
        text = metrics.getresponse().read().decode()
        metrics.close()
        counted = float(text.split('fgclip2_requests_total{route="/v1/embeddings",status="200"} ')[1].split("\n")[0])
        assert counted >= len(answers)  # of all workers, the killed one's included
    finally:
        code = command.end()
    assert code == 0, command.log.read_text()


@pytest.mark.slow
def test_workers_that_can_not_start_end_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fgclip2", "serve", "--port", "0", "--workers", "2", "--model", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 1
    assert "a worker can't start: " in done.stderr
    assert done.stderr.splitlines()[-1] == "fgclip2: the workers could not start: the lines above say why"
