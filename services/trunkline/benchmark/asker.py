"""Asks chats over HTTP on connections that stay open: as little work for each answer as may be."""

import asyncio
import json
import time
from collections.abc import Mapping

from trunkline.benchmark.load import TEXT

PATH = "/v1/chat/completions"


def body(model: str = "m", *, stream: bool) -> bytes:
    """A chat of 400 bytes or so."""
    said = {"model": model, "messages": [{"role": "user", "content": "Tell me about foxes. " * 20}]}
    return json.dumps(said | ({"stream": True} if stream else {}), separators=(",", ":")).encode()


class BadAnswer(Exception):
    """What came is not an answer, or not the whole of one: see what the server printed."""


class Asker:
    """Asks one thing of one server of this machine, and reads each answer to its end."""

    def __init__(self, port: int, body: bytes, fields: Mapping[str, str], path: str = PATH) -> None:
        self._port = port
        lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body)), **fields}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.first: list[float] = []

    async def ask(self, _number: int) -> None:
        """One answer; `first` has the seconds until the first text of each stream. Raises BadAnswer."""
        await self._ask([])

    async def whole(self) -> bytes:
        """The body of one answer."""
        parts: list[bytes] = []
        chunked = await self._ask(parts)
        return _joined(b"".join(parts)) if chunked else b"".join(parts)

    async def _ask(self, parts: list[bytes]) -> bool:
        began = time.perf_counter()
        reader, writer = await self._connection()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            status = head.partition(b"\r\n")[0].decode()
            raise BadAnswer(f"{status}: {(await reader.read(500)).decode(errors='replace')}")
        chunked = b"transfer-encoding: chunked" in head
        if chunked:
            await self._read_chunks(reader, parts, began)
        else:
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            parts.append(await reader.readexactly(size))
        self._free.append((reader, writer))
        return chunked

    async def _read_chunks(self, reader: asyncio.StreamReader, parts: list[bytes], began: float) -> None:
        end, heard = b"", False
        while not end.endswith(b"0\r\n\r\n"):
            part = await reader.read(65536)
            if not part:
                raise BadAnswer(f"cut after {end!r}")
            parts.append(part)
            if not heard and _TEXT in part:
                heard = True
                self.first.append(time.perf_counter() - began)
            end = (end + part)[-5:]

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # servers hang up on those that are idle
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def hang_up(self) -> None:
        """Close all connections; what is asked next opens new ones."""
        while self._free:
            self._free.pop()[1].close()


_TEXT = TEXT.strip().encode()


def _joined(raw: bytes) -> bytes:
    """The body of an answer in chunks, see RFC 9112, section 7.1."""
    parts = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        parts.append(raw[:length])
        raw = raw[length + 2 :]
    return b"".join(parts)
