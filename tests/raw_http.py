"""HTTP as bytes: a connection on which a test writes and reads what it likes."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """One answer, its body whole and no longer chunked."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self, within: float = 15.0) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        async with asyncio.timeout(within):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), fields

    async def answer(self, within: float = 15.0, *, body: bool = True) -> Answer:
        """The next answer."""
        status, fields = await self.head(within)
        async with asyncio.timeout(within):
            if not body or status in (100, 204, 304):
                return Answer(status, fields, b"")
            if fields.get("transfer-encoding") == "chunked":
                data = b""
                while part := await self.chunk():
                    data += part
                return Answer(status, fields, data)
            return Answer(status, fields, await self.reader.readexactly(int(fields["content-length"])))

    async def chunk(self) -> bytes:
        """A chunk of a chunked body; nothing at its end."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def ended(self, within: float = 15.0) -> bytes:
        """What is still sent until the server ends the connection."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def reset(self) -> None:
        """Cut it, as a client does that crashes: with a TCP reset."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def raw(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    """Connect. A small `receive_buffer` makes a reader whose kernel takes little ahead of it."""
    at = urlsplit(url)
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (at.hostname, at.port))
    except OSError:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024 if receive_buffer else 2**20)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def post(body: object, path: str = "/v1/chat/completions", **fields: str) -> bytes:
    """A request with a JSON body. `x_y="z"` is the header `x-y: z`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(data)}", *lines])
    return head.encode("latin-1") + b"\r\n\r\n" + data


def get(path: str, method: str = "GET", **fields: str) -> bytes:
    """A request without a body."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *lines, "", ""]).encode("latin-1")
