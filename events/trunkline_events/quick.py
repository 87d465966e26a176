"""nats-py's client, with two short cuts on the path that every chat takes. docs/decisions says what they save."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from nats.aio.client import Client


class Reply(Struct, frozen=True):
    """A message on a shared inbox."""

    data: bytes
    headers: dict[str, str] | None = None


Direct = Callable[[str, Reply], None]
"""(subject, message): called as the message is read off the wire, so it must not wait and must not raise."""


class QuickClient(Client):  # type: ignore[misc]  # nats-py is not typed
    """Writes headers without checking each anew, and hands replies over without a queue and a task between.

    nats-py matches each header name against a pattern and translates each value a character at a time, which was a
    sixth of the gateway's CPU time. Names are checked once here, and values together, for what could end a header line.
    It also queues each message for the task of its subscription, which is needed only where a handler may wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._directly: dict[int, Direct] = {}

    async def subscribe_directly(self, subject: str, handler: Direct) -> Any:
        """Subscribe with a handler that neither waits nor raises. The subscription survives reconnects like any."""

        async def never(_message: Any) -> None:
            """nats-py wants a callback; messages don't get this far."""

        subscription = await self.subscribe(subject, cb=never)
        self._directly[subscription._id] = handler  # noqa: SLF001 - nats-py shows the id nowhere else
        return subscription

    async def close(self) -> None:
        """Close; what could not be sent before the server went away is dropped, since there is nobody to send it to."""
        if not self.is_connected:
            # nats-py would write it to a transport that is gone, which Python 3.13 answers with a TypeError.
            self._pending: list[bytes] = []
            self._pending_data_size = 0
        await super().close()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        handler = self._directly.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif sid in self._subs:
            fields = await self._process_headers(headers) if headers else None
            handler(subject.decode(), Reply(data, fields))

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        if headers and _GOOD_NAMES.issuperset(headers):
            # No f-string: nats-py's own names are enums, which would be written as `Header.…`.
            block = "\r\n".join([name + ": " + value for name, value in headers.items()])
            if block.count("\r") + block.count("\n") == 2 * (len(headers) - 1):
                await self._write(subject, reply, f"NATS/1.0\r\n{block}\r\n\r\n".encode(), payload, payload_size)
                return
        await super()._send_publish(subject, reply, payload, payload_size, headers)
        _GOOD_NAMES.update(headers or ())

    async def _write(self, subject: str, reply: str, head: bytes, payload: bytes, payload_size: int) -> None:
        size = len(head)
        command = f"HPUB {subject} {reply} {size} {size + payload_size}\r\n".encode() + head + payload + b"\r\n"
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


_GOOD_NAMES: set[str] = set()
"""Header names that nats-py has checked and written."""
