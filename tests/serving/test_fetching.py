"""Addresses: only allowed ones, only public hosts, the checked address itself, within size and time."""

import asyncio
import socket
import threading

import pytest

from fgclip2.serving.errors import ServiceError
from fgclip2.serving.fetching import UrlFetcher, is_public, parse_address
from fgclip2.serving.held import HeldBytes
from fgclip2.serving.metrics import Metrics


def fetch(url, prefixes, is_allowed=lambda address: True, max_bytes=1000, seconds=5.0):
    return asyncio.run(UrlFetcher(prefixes, max_bytes, seconds, is_allowed).fetch(url))


@pytest.fixture
def server():
    """Answers each connection with the next of `answers`; notes what it was asked for."""

    class Server:
        def __init__(self):
            self.answers, self.requests = [], []
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.port = self.listener.getsockname()[1]
            self.ended = threading.Event()
            threading.Thread(target=self.run, daemon=True).start()

        def run(self):
            for answer in iter(self.next_answer, None):
                connection, _ = self.listener.accept()
                with connection:
                    self.requests.append(connection.recv(65536).decode())
                    for part in answer:
                        connection.sendall(part)
                        if part == b"":
                            self.ended.wait(10)

        def next_answer(self):
            while not self.answers:
                if self.ended.wait(0.01):
                    return None
            return self.answers.pop(0)

    server = Server()
    yield server
    server.ended.set()
    server.listener.close()


def ok(body):
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]


def redirect(target):
    return [f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()]


def test_an_allowed_address_is_fetched_under_its_name(server):
    server.answers = [ok(b"image")]
    prefix = f"http://localhost:{server.port}/图"
    with pytest.raises(ValueError, match="can't be an allowed prefix: its path must be percent-encoded"):
        UrlFetcher([prefix], 1, 1)
    assert fetch(f"http://localhost:{server.port}/a/b%20c.png?x=1", [f"http://localhost:{server.port}/a"]) == b"image"
    head = server.requests[0]
    assert head.startswith("GET /a/b%20c.png?x=1 HTTP/1.1\r\n")
    assert f"Host: localhost:{server.port}\r\n" in head


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.org.evil.com/a/x.png",
        "https://images.example.org@evil.com/a/x.png",
        "https://images.example.org:444/a/x.png",
        "http://images.example.org/a/x.png",
        "https://images.example.org/ab/x.png",
        "https://images.example.org/a/../secret",
        "https://images.example.org/a/%2e%2e/secret",
        "https://images.example.org/a/%252e%252e/secret",
        "https://images.example.org/a/..\\secret",
        "https://images.example.org\\.evil.com/a/x.png",
        "https://images.example.org/a/x\r\nHost: evil",
        "https://images.example.org/a/x y",
        "https://ímages.example.org/a/x",
        "https://[::1/a/x",
        "https://images.example.org:99999/a/x",
        "ftp://images.example.org/a/x.png",
        "file:///a/x",
        "https:///a/x",
    ],
)
def test_others_are_not(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: pytest.fail("it was looked up"))
    with pytest.raises(ServiceError, match="images of this address are not fetched") as refused:
        fetch(url, ["https://images.example.org/a"])
    assert refused.value.code == "image_url_not_allowed"


def test_an_allowed_prefix_covers_what_is_below_it():
    fetcher = UrlFetcher(["https://images.example.org/a"], 1, 1)
    for path in ("/a", "/a/", "/a/b", "/a?b", "/a/b/c.png?x=%2e%2e"):
        assert fetcher._check(f"https://Images.example.org:443{path}").host == "images.example.org"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
        *(
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "fec0::1",
        ),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


def test_addresses_that_are():
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_host_is_not_connected_to_though_its_prefix_is_allowed(server, name):
    url = f"http://{name}:{server.port}/x"
    with pytest.raises(ServiceError, match="no image came from the address"):
        fetch(url, [url], is_public)
    assert server.requests == []


def test_the_address_that_was_checked_is_the_one_that_is_used(server, monkeypatch):
    """A name that means a public address when it is checked, and a private one a moment later, is looked up once."""
    real, looked_up = socket.getaddrinfo, []

    def getaddrinfo(host, port, *arguments, **options):
        if host != "images.example.org":
            return real(host, port, *arguments, **options)
        looked_up.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(looked_up) == 1 else "127.0.0.2", port))
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.answers = [ok(b"image")]
    url = f"http://images.example.org:{server.port}/x"
    assert fetch(url, [url]) == b"image"
    assert looked_up == ["images.example.org"]


def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch):
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: rows)
    with pytest.raises(ServiceError, match="no image came"):
        fetch("http://images.example.org/x", ["http://images.example.org/"], is_public)


def test_a_redirect_is_checked_like_an_address(server):
    inside, outside = f"http://localhost:{server.port}/a/2", f"http://localhost:{server.port}/b"
    server.answers = [redirect("2"), ok(b"image")]
    assert fetch(f"http://localhost:{server.port}/a/1", [f"http://localhost:{server.port}/a/"]) == b"image"
    server.answers = [redirect(outside)]
    with pytest.raises(ServiceError, match="images of this address are not fetched"):
        fetch(inside, [f"http://localhost:{server.port}/a/"])
    server.answers = [redirect(inside)] * 4
    with pytest.raises(ServiceError, match="no image came"):
        fetch(inside, [f"http://localhost:{server.port}/a/"])
    server.answers = [redirect("http://[x")]
    with pytest.raises(ServiceError, match="no image came"):
        fetch(inside, [f"http://localhost:{server.port}/a/"])
    assert len(server.requests) == 2 + 1 + 4 + 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ok(b"x" * 1001), "image_too_large"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n", b"x" * 1024], "image_too_large"),
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], "image_not_fetched"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"12345"], "image_not_fetched"),
        ([b"SSH-2.0-OpenSSH\r\n"], "image_not_fetched"),
        ([b"HTTP/1.1 200 OK\r\nX: ", b"y" * 200_000], "image_not_fetched"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"1", b""], "image_not_fetched"),  # and then nothing
    ],
)
def test_size_and_time_are_bounded(server, answer, code):
    server.answers = [answer]
    url = f"http://localhost:{server.port}/x"
    with pytest.raises(ServiceError) as refused:
        fetch(url, [url], seconds=0.5)
    assert refused.value.code == code


def test_what_is_fetched_is_held_by_its_request(server):
    held, url = HeldBytes(10, Metrics()), f"http://localhost:{server.port}/a/x.png"
    fetcher = UrlFetcher([f"http://localhost:{server.port}/a"], 1000, 5.0, lambda address: True)

    async def request():
        with held.request():
            return await asyncio.create_task(fetcher.fetch(url))  # as endpoints do, in a task of its own

    server.answers = [ok(b"1" * 6), ok(b"1" * 11), ok(b"1" * 10)]
    assert len(asyncio.run(request())) == 6
    with pytest.raises(ServiceError, match="too many bytes of other requests") as refused:
        asyncio.run(request())
    assert (refused.value.status, refused.value.code) == (429, "bodies_full")
    assert len(asyncio.run(request())) == 10  # all of it was given back


def test_prefixes_are_checked():
    for prefix in ("images.example.org", "https://images.example.org/?a=", "https://user:pw@images.example.org/"):
        with pytest.raises(ValueError, match="can't be an allowed prefix"):
            UrlFetcher([prefix], 1, 1)
    assert parse_address("https://images.example.org").path == "/"
