"""A TCP relay before a server, which can lose what the server says: for acknowledgements that never arrive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from upstream import stop_accepting


class Relay:
    """Passes bytes both ways. While `deaf`, what comes from the server is dropped; `cut` ends every connection."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.deaf = False
        self.passed = asyncio.Event()
        """Set whenever something passed from a client to the server."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            ends.append(back)
            await asyncio.gather(self._pass(reader, back, to_server=True), self._pass(there, writer, to_server=False))
        except (ConnectionError, asyncio.CancelledError):
            pass  # cancelled only when it is cut: streams would log it
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_server: bool) -> None:
        while data := await source.read(65536):
            if to_server or not self.deaf:
                sink.write(data)
                await sink.drain()
            if to_server:
                self.passed.set()
        sink.close()

    def cut(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        await stop_accepting(self._server)
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    relay = Relay(port)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()
