"""UrlFetcher: images from the few addresses that an operator has allowed, and from nowhere else.

A service that fetches what its clients name can be made to ask the machines beside it, which trust it. So an address is
fetched only below an allowed prefix, its host is resolved once, every answer must be a public address, and the
connection goes to the address that was checked, whatever the name means a moment later. A redirect is a new address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import h11

from .errors import ServiceError
from .held import hold

MOST_REDIRECTS = 3
BYTES_PER_READ = 2**16
REDIRECTS = (301, 302, 303, 307, 308)
HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
TARGET = re.compile(r"/[!-~]*")  # what may stand in the first line of a request
PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """The parts of an address: `path` is decoded, to be compared; `target`, path and query, is sent as it was given."""

    scheme: str
    host: str
    port: int
    path: str
    target: str


def parse_address(url: str) -> Address:
    """Take an address apart.

    Raises:
        ValueError: It is not http or https with a plain host, or has a user, a fragment of a path such as `..`, or
            characters that no address has.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("it is not a valid address") from error
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
    if parts.scheme not in PORTS or not HOST.fullmatch(host):
        raise ValueError("it must begin with http:// or https:// and the ASCII name of a host")
    if "@" in parts.netloc or "\\" in url:
        raise ValueError("it must not have a user, a password or a backslash")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path = unquote(parts.path or "/")
    if not TARGET.fullmatch(target) or ".." in path.split("/") or "\\" in path or "%" in path:
        raise ValueError("its path must be percent-encoded once, and without '..'")
    return Address(parts.scheme, host, port or PORTS[parts.scheme], path, target)


def is_public(address: str) -> bool:
    """Return whether an IP address is of the public internet, whichever way it is written.

    Those that stand for another address (mapped, 6to4, Teredo, NAT64) are none, for what they lead to is elsewhere.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in ipaddress.ip_network("64:ff9b::/96"):
            return False
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class UrlFetcher:
    """Fetches images below the prefixes that an operator has allowed.

    Args:
        prefixes: E.g. `"https://images.example.org/products/"`; scheme, host and port must be the same, and the path
            must be that or below it.
        max_bytes: Most bytes of an image.
        seconds: Most seconds for one image, redirects included.
        is_allowed: Tells whether an IP address may be connected to.

    Raises:
        ValueError: A prefix is no address, or has a query.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        max_bytes: int,
        seconds: float,
        is_allowed: Callable[[str], bool] = is_public,
    ):
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._is_allowed = is_allowed
        self._context = ssl.create_default_context()  # reads the certificates of the system once
        self._prefixes = []
        for prefix in prefixes:
            try:
                address = parse_address(prefix)
            except ValueError as error:
                raise ValueError(f"{prefix!r} can't be an allowed prefix: {error}") from error
            if "?" in prefix or "#" in prefix:
                raise ValueError(f"{prefix!r} can't be an allowed prefix: leave out what follows the path")
            self._prefixes.append(address)

    async def fetch(self, url: str) -> bytes:
        """Return the body of an address.

        Raises:
            ServiceError: The address is not allowed, or nothing usable came from it in time; the message does not say
                more, for it would tell of machines that a client can't see. Or all requests together hold too much.
        """
        try:
            return await asyncio.wait_for(self._follow(url), self.seconds)
        except (OSError, ValueError, asyncio.TimeoutError, h11.ProtocolError) as error:  # a redirect to no address
            raise ServiceError(
                422, "image_not_fetched", "no image came from the address: check it, or send the image itself"
            ) from error

    async def _follow(self, url: str) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            address = self._check(url)
            status, location, body = await self._get(address, await self._resolve(address))
            if status not in REDIRECTS:
                if status != 200:
                    raise OSError(f"status {status}")
                return body
            url = urljoin(url, location)
        raise OSError("too many redirects")

    def _check(self, url: str) -> Address:
        """Take an address apart if it is below an allowed prefix."""
        refused = ServiceError(
            422, "image_url_not_allowed", "images of this address are not fetched: send the image itself as base64"
        )
        try:
            address = parse_address(url)
        except ValueError as error:
            raise refused from error
        for prefix in self._prefixes:
            folder = prefix.path if prefix.path.endswith("/") else f"{prefix.path}/"
            if address[:3] == prefix[:3] and (address.path == prefix.path or address.path.startswith(folder)):
                return address
        raise refused

    async def _resolve(self, address: Address) -> str:
        """Return an IP address of the host; all that it has must be allowed."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
        addresses = [str(row[4][0]) for row in found]
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise OSError("an address of the host is not public")
        return addresses[0]

    async def _get(self, address: Address, ip: str) -> tuple[int, str, bytes]:
        """Ask one IP address, under the name of the host, and return status, `Location` and body."""
        context = self._context if address.scheme == "https" else None
        name = address.host.strip("[]") if context else None  # whose certificate it must have
        reader, writer = await asyncio.open_connection(ip, address.port, ssl=context, server_hostname=name)
        try:
            connection = h11.Connection(h11.CLIENT)
            host = address.host if address.port == PORTS[address.scheme] else f"{address.host}:{address.port}"
            headers = [("Host", host), ("Accept", "image/*"), ("Accept-Encoding", "identity"), ("Connection", "close")]
            writer.write(connection.send(h11.Request(method="GET", target=address.target, headers=headers)) or b"")
            await writer.drain()
            status, location, body = 0, "", bytearray()
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(BYTES_PER_READ))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    location = dict(event.headers).get(b"location", b"").decode("latin-1")
                elif isinstance(event, h11.Data):
                    if len(body) + len(event.data) > self.max_bytes:
                        raise ServiceError(
                            413, "image_too_large", f"the image at the address has more than {self.max_bytes} bytes"
                        )
                    hold(len(event.data))
                    body += event.data
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    return status, location, bytes(body)
        finally:
            writer.close()
