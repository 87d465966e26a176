"""Where a gateway is asked that is measured beside others."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from trunkline.benchmark.asker import PATH, Asker, BadAnswer, body
from trunkline.benchmark.load import CHUNKS, REPEATED, TEXT


class Door(NamedTuple):
    """Where a gateway is asked, and the process that counts, with all it started; `nats_pid` is told apart."""

    port: int
    pid: int
    fields: Mapping[str, str] = {}
    path: str = PATH
    model: str = "m"
    nats_pid: int | None = None

    def asker(self, *, stream: bool) -> Asker:
        """Asks for streams, or for plain answers."""
        return Asker(self.port, body(self.model, stream=stream), self.fields, self.path)


Start = Callable[[str], AbstractAsyncContextManager[Door]]
"""From the address of an upstream to a gateway that serves before it."""


async def check(door: Door) -> None:
    """That a plain answer and a stream arrive whole. Raises BadAnswer."""
    for stream, wanted in ((False, REPEATED), (True, CHUNKS)):
        asker = door.asker(stream=stream)
        try:
            async with asyncio.timeout(60):
                said = await asker.whole()
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise BadAnswer(f"{type(error).__name__} instead of an answer") from error
        finally:
            asker.hang_up()
        texts = said.count(TEXT.encode())
        if texts != wanted:
            raise BadAnswer(f"{texts} pieces of text instead of {wanted}, streamed: {stream}")
