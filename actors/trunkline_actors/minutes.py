"""What each model did in each minute, kept in a KV bucket for a week: one entry a minute, process and model.

A minute is written when it is over, so that a crash loses the one that runs. Keys are `<model>.<minute>.<process>`,
each encoded as in subjects, the minute counted from 1970; values are JSON. They are read without a consumer, by batched
direct gets (NATS ADR-31).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events import headers
from trunkline_events.log import LogUnavailable
from trunkline_events.quick import Reply
from trunkline_events.subjects import METRICS_BUCKET, encode_id
from trunkline_events.tasks import end_task

from trunkline_actors.bucket import open_bucket
from trunkline_actors.bus import Bus
from trunkline_actors.series import MINUTE, Kept
from trunkline_actors.tallies import Line, Tally

log = structlog.get_logger()

KEPT_SECONDS = 7 * 86_400.0
MOST_WAITING = 10_000
"""Entries that wait to be written; while the bucket can't be, the oldest minutes go first."""
AT_ONCE = 50
BATCH = 500
BATCH_BYTES = 1024 * 1024
"""One answer comes without flow control, so that it must be small enough to be taken at once."""
ANSWER_WITHIN = 2.0
TRIES = 3
TRY_AGAIN_AFTER = 0.1
CLOCKS_APART = 120.0
"""Seconds that the clock of the server may be ahead of ours."""

_END_OF_BATCH, _NOTHING_FOUND = "204", "404"
_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)

_decoder = msgspec.json.Decoder(list[Kept])
_encode = msgspec.json.Encoder().encode


class Minutes:
    """The minutes of one process. `clock` gives Unix time."""

    def __init__(self, bus: Bus, process: str, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._process = encode_id(process)
        self._clock = clock
        self._running = 0
        self._waiting: dict[int, dict[str, dict[Line, Tally]]] = {}
        self._bucket: KeyValue | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, replicas: int = 1) -> None:
        """Make sure the bucket exists, and write from here on; without one, nothing is kept."""
        config = api.KeyValueConfig(bucket=METRICS_BUCKET, history=1, ttl=KEPT_SECONDS, direct=True, replicas=replicas)
        try:
            self._bucket = await open_bucket(self._bus.nats.jetstream(timeout=5), config)
        except _TROUBLE as error:
            log.warning("metrics.not_kept", error=type(error).__name__)
        self._task = asyncio.create_task(self._writing())

    async def stop(self) -> None:
        """Write what there is, the running minute too."""
        await end_task(self._task)
        await self.write(everything=True)

    def add(self, line: Line, tally: Tally) -> None:
        """These calls ended just now."""
        # Where the clock was set back: a minute that is written already is not begun again.
        self._running = max(self._running, int(self._clock() // MINUTE))
        lines = self._waiting.setdefault(self._running, {}).setdefault(line.model, {})
        lines.setdefault(line, Tally()).merge(tally)

    async def _writing(self) -> None:
        while True:
            # Not all processes at once; and what ended in the minute is counted half a second later.
            await asyncio.sleep(MINUTE - self._clock() % MINUTE + random.uniform(0.6, 2.0))
            try:
                await self.write()
            except Exception as error:  # whatever it was: the next minute is written all the same
                log.exception("metrics.not_written", error=type(error).__name__)

    async def write(self, *, everything: bool = False) -> None:
        """Write the minutes that are over. What can't be written now is tried again with the next one."""
        running = self._clock() // MINUTE
        self._make_room()
        for minute in sorted(self._waiting):
            if self._bucket is None or not self._bus.nats.is_connected or (minute >= running and not everything):
                return
            models = self._waiting.pop(minute)
            self._running = max(self._running, minute + (not everything))
            names = list(models)
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                written = await asyncio.gather(*(self._put(self._bucket, minute, one, models[one]) for one in some))
                left = {one: models[one] for one, well in zip(some, written, strict=True) if not well}
                if left:
                    left |= {one: models[one] for one in names[start + AT_ONCE :]}
                    self._waiting[minute] = left
                    return

    async def _put(self, bucket: KeyValue, minute: int, model: str, lines: dict[Line, Tally]) -> bool:
        kept = [Kept(provider=line.provider, version=line.version, tally=tally) for line, tally in lines.items()]
        try:
            await bucket.put(f"{encode_id(model)}.{minute}.{self._process}", _encode(kept))
        except _TROUBLE as error:
            log.warning("metrics.not_written", model=model, error=type(error).__name__)
            return False
        return True

    def _make_room(self) -> None:
        waiting = sum(map(len, self._waiting.values()))
        for minute in sorted(self._waiting):
            if waiting <= MOST_WAITING:
                return
            lost = len(self._waiting.pop(minute))
            waiting -= lost
            log.warning("metrics.lost", minute=minute, models=lost)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def read(self, model: str, since: int, until: int) -> AsyncGenerator[tuple[int, Kept], None]:
        """What every process kept of one model, in the minutes from `since` up to `until`. Raises LogUnavailable.

        A replica may answer that is a moment behind.
        """
        matching = f"$KV.{METRICS_BUCKET}.{encode_id(model)}.>"
        written = max(0.0, since * MINUTE - CLOCKS_APART)
        begin: dict[str, Any] = {"start_time": datetime.fromtimestamp(written, UTC).isoformat()}
        while True:
            arrived, pending = await self._batch({"next_by_subj": matching, **begin})
            for reply in arrived:
                minute = _minute_of(reply)
                if since <= minute < until:
                    for kept in _read(reply.data):
                        yield minute, kept
            if not arrived or not pending:
                return
            begin = {"seq": int((arrived[-1].headers or {})["Nats-Sequence"]) + 1}

    async def _batch(self, request: dict[str, Any]) -> tuple[list[Reply], int]:
        """Some messages, and how many more there are."""
        body = _encode({**request, "batch": BATCH, "max_bytes": BATCH_BYTES})
        for _ in range(TRIES):
            answer = await self._exchange(body)
            if answer is not None:
                return answer
            await asyncio.sleep(TRY_AGAIN_AFTER)
        raise LogUnavailable("the metrics can't be read")

    async def _exchange(self, body: bytes) -> tuple[list[Reply], int] | None:
        arrived: list[Reply] = []
        ended: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        def take(message: Reply) -> None:
            if message.data or not message.headers or headers.STATUS not in message.headers:
                arrived.append(message)
            elif not ended.done():
                ended.set_result(message.headers)

        reply = self._bus.replies.expect(take)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._bus.nats.publish(f"$JS.API.DIRECT.GET.KV_{METRICS_BUCKET}", body, reply=reply)
                end = await ended
        except (TimeoutError, nats.errors.Error):
            return None
        finally:
            self._bus.replies.forget(reply)
        if end[headers.STATUS] == _NOTHING_FOUND:
            return [], 0
        whole = end[headers.STATUS] == _END_OF_BATCH
        return (arrived, int(end.get("Nats-Num-Pending", 0))) if whole else None


def _minute_of(reply: Reply) -> int:
    token = (reply.headers or {}).get("Nats-Subject", "").split(".")[-2:-1]
    return int(token[0]) if token and token[0].isdecimal() else -1


def _read(data: bytes) -> list[Kept]:
    """What a process kept; nothing where it is unreadable, or was deleted by hand."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
