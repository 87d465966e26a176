"""nats-py's client, with short cuts on the path that every chat and every event takes. docs/decisions says why."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import nats.errors
from msgspec import Struct
from nats.aio.client import PERMISSIONS_ERR, Client

from trunkline_events.headers import parse


class Reply(Struct, frozen=True):
    """A message on a shared inbox."""

    data: bytes
    headers: dict[str, str] | None = None


Message = tuple[str, str, dict[str, str], bytes]
"""(subject, reply or "", headers, body)."""

Direct = Callable[[str, Reply], None]
"""(subject, message): called as the message is read off the wire, so it must not wait."""

Raw = Callable[[bytes, bytes, bytes, bytes | None], None]
"""(subject, reply, data, header block): the same, for who parses as little as may be. `headers.parse` reads a block."""


class QuickClient(Client):  # type: ignore[misc]  # nats-py is not typed
    """Writes headers without checking each anew, and hands replies over without a queue and a task between.

    nats-py matches each header name against a pattern and translates each value a character at a time, which was a
    sixth of the gateway's CPU time. Names are checked once here, and values together, for what could end a header line.
    It also queues each message for the task of its subscription, which is needed only where a handler may wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: dict[int, Raw] = {}

    def known_by(self, public_key: str) -> None:
        """Say this public NKey on connecting. `connect` is to be given a `signature_cb` that signs for it."""
        self._public_nkey = public_key

    async def subscribe_raw(self, subject: str, handler: Raw, queue: str = "") -> Any:
        """Subscribe with a handler that does not wait. The subscription survives reconnects like any.

        What the handler raises goes to the connection's error callback, and the next message follows.
        """

        async def never(_message: Any) -> None:
            """nats-py wants a callback; messages don't get this far."""

        subscription = await self.subscribe(subject, queue=queue, cb=never)
        self._raw[subscription._id] = handler  # noqa: SLF001 - nats-py shows the id nowhere else
        return subscription

    async def subscribe_directly(self, subject: str, handler: Direct) -> Any:
        """The same for a handler that wants its headers parsed."""

        def parsed(subject: bytes, _reply: bytes, data: bytes, head: bytes | None) -> None:
            handler(subject.decode(), Reply(data, parse(head) if head else None))

        return await self.subscribe_raw(subject, parsed)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._raw.pop(sid, None)

    async def close(self) -> None:
        """Close; what could not be sent before the server went away is dropped, since there is nobody to send it to."""
        if not self.is_connected:
            # nats-py would write it to a transport that is gone, which Python 3.13 answers with a TypeError.
            self._pending: list[bytes] = []
            self._pending_data_size = 0
        await super().close()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        handler = self._raw.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif sid in self._subs:
            try:
                handler(subject, reply, data, headers)
            except Exception as error:  # noqa: BLE001 - nats-py would stop reading for good
                await self._error_cb(error)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good on whatever the server complains of, such as one message that was too large.
        if self.is_connected and PERMISSIONS_ERR not in err_msg.lower():
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))
        else:
            await super()._process_err(err_msg)

    async def _flusher(self) -> None:
        """Write what waits, once others who are ready have had their turn: what they publish leaves with it.

        nats-py writes at once, a system call for nearly every message.
        """
        queue, transport = self._flush_queue, self._transport
        while self.is_connected and not self.is_connecting:
            flushed = await queue.get()
            try:
                await asyncio.sleep(0)
                if self._pending_data_size > 0:
                    commands, self._pending, self._pending_data_size = self._pending, [], 0
                    transport.write(b"".join(commands))
                    await transport.drain()
            except OSError as error:
                await self._error_cb(error)
                await self._process_op_err(error)
                return
            except (RuntimeError, AttributeError):  # the loop or the connection is closed
                return
            finally:
                if not flushed.done():
                    flushed.set_result(None)

    def publish_together(self, messages: Iterable[Message]) -> None:
        """Write messages at once, without waiting: they leave in this order. For what is small against the buffer.

        Raises ConnectionClosedError, and OutboundBufferLimitError where too much waits for the server already.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        commands = [_command(*message) for message in messages]
        size = sum(map(len, commands))
        # Also while connected: a server that stands still takes nothing, and what is tried again would pile up.
        if size + self._pending_data_size > self._max_pending_size:
            raise nats.errors.OutboundBufferLimitError
        self.stats["out_msgs"] += len(commands)
        self.stats["out_bytes"] += size
        self._pending += commands
        self._pending_data_size += size
        if self.is_connected and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        if not headers or not _GOOD_NAMES.issuperset(headers):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            _GOOD_NAMES.update(headers or ())
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(_command(subject, reply, headers, payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


def _command(subject: str, reply: str, headers: dict[str, Any], payload: bytes) -> bytes:
    """A publish as it goes over the wire. The header names are good; values lose what would end their line."""
    # No f-string: nats-py's own names are enums, which would be written as `Header.…`.
    block = "\r\n".join([name + ": " + value for name, value in headers.items()])
    if block.count("\r") + block.count("\n") != 2 * (len(headers) - 1):
        block = "\r\n".join([name + ": " + value.translate(_NO_LINE_ENDS).strip() for name, value in headers.items()])
    head = f"NATS/1.0\r\n{block}\r\n\r\n".encode()
    size = len(head)
    return f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n".encode() + head + payload + b"\r\n"


_NO_LINE_ENDS = str.maketrans("\r\n", "  ")


_GOOD_NAMES: set[str] = set()
"""Header names that nats-py has checked and written."""
