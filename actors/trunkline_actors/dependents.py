"""Who depends on a model: the policy, an override, threads whose configuration names it, and runs whose chats do.

Runs under way are found in the log: whatever was begun before somebody asks is there.

Threads are found by an index: a key `<model>.<thread>` in a bucket, written before the configuration is appended, so
that whatever a configuration names is in it; an entry says that a thread may depend, never that it does. Each is
checked against the thread's own configuration, and dropped where that says otherwise, once it is so old that nobody
can be about to append what it was written for.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Literal

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.log import LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.subjects import DEPENDENTS_BUCKET, decode_id, encode_id
from trunkline_projections.folds import WORKFLOWS
from trunkline_projections.runner import View

from trunkline_actors.bucket import open_bucket
from trunkline_actors.policies import models_named as models_of_policy
from trunkline_actors.requests import models_named
from trunkline_actors.runtime import Runtime
from trunkline_actors.thread_settings import Settings

log = structlog.get_logger()

MOST_NAMED = 20
"""Threads that a refusal names, and runs; that there are more is said, not how many."""
MOST_CHECKED = 20_000
"""Entries that one refusal looks at: some four seconds."""
_MANY = ("thread", "workflow")
AT_ONCE = 16
SETTLED = 600.0
"""Seconds after which what an entry was written for is in the log or never will be, clocks that differ included."""

_KEYS = f"$KV.{DEPENDENTS_BUCKET}."
_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)


class Dependent(Struct, frozen=True):
    """What counts on a model: the id of a thread or of a run, the place in the policy; empty for an override."""

    kind: Literal["policy", "override", "thread", "workflow"]
    id: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "policy":
                return f"the routing policy ({self.id})"
            case "override":
                return "the routing override"
            case _:
                return f"{self.kind}{' run' if self.kind == 'workflow' else ''} {self.id!r}"


async def settings_at(runtime: Runtime, sequence: int) -> Settings:
    """What the configuration at a sequence says, 0 being none. Raises LogUnavailable."""
    configured = await runtime.configurations.at(sequence)
    routing = configured.routing
    if routing.sequence != sequence:  # taken for empty, the next change would wipe out what it says
        raise LogUnavailable(f"the configuration at event {sequence} can't be read by this process; upgrade it")
    return Settings(model=routing.model, parameters=configured.parameters, preferences=routing.preferences)


class _Entry(Struct, frozen=True):
    """A key of the bucket, the thread in it, its revision, and the time of that in Unix time."""

    key: str
    thread: str
    revision: int
    noted: float


def _entry(message: Msg) -> _Entry:
    key = message.subject.removeprefix(_KEYS)
    told = message.metadata
    return _Entry(key, decode_id(key.rpartition(".")[2]), told.sequence.stream, told.timestamp.timestamp())


def _reading() -> api.ConsumerConfig:
    return api.ConsumerConfig(
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=10.0,  # nobody may remove a consumer, its own included: see deploy/nats
        mem_storage=True,
        num_replicas=1,
    )


class Dependents:
    """The index of threads, and who else depends."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bucket: KeyValue | None = None

    async def note(self, thread: str, models: Iterable[str]) -> None:
        """A configuration that names these models is about to be appended. Raises LogUnavailable."""
        keys = [f"{encode_id(model)}.{encode_id(thread)}" for model in models]
        if not keys:
            return
        bucket = await self._opened()
        try:
            await asyncio.gather(*(bucket.put(key, b"1") for key in keys))
        except _TROUBLE as error:
            raise LogUnavailable("the index of threads by model could not be written; send it again") from error

    async def problem(self, model: str, verb: str) -> Refused | None:
        """Why a model can't be disabled, retired or removed just so: who depends on it. Raises LogUnavailable."""
        found = self._routing(model) + await self._runs(model)
        others, asked = len(found), 0
        async with aclosing(self._threads(model)) as batches:
            async for threads in batches:
                found += [one for thread in threads if (one := Dependent("thread", thread)) not in found]
                asked += AT_ONCE
                if len(found) - others > MOST_NAMED or asked >= MOST_CHECKED:
                    break
        if not found and asked >= MOST_CHECKED:
            return _too_many(model, verb)
        return refusal(model, verb, found) if found else None

    def _routing(self, model: str) -> list[Dependent]:
        gateway = self._runtime.gateway.state
        found: list[Dependent] = []
        places = models_of_policy(gateway.routing.policy, gateway.registry).get(model, ())
        found += [Dependent("policy", place) for place in places]
        if model in (self._runtime.forced, gateway.routing.forced(self._runtime.clock())):
            found.append(Dependent("override"))
        return found

    async def _runs(self, model: str) -> list[Dependent]:
        """The runs under way whose chats name a model, by the log as it is now."""
        view = View(self._runtime.log, WORKFLOWS, self._runtime.snapshots)
        try:
            await view.start()
            return [Dependent("workflow", run_id) for run_id, run in view.state.items() if model in run.models]
        finally:
            await view.stop()

    async def _threads(self, model: str) -> AsyncGenerator[list[str], None]:
        """The threads whose configuration names a model, in the order in which they were noted: a few entries' each."""
        async with aclosing(self._entries(model)) as noted:
            async for entries in noted:
                yield await self._checked(entries, model)

    async def _entries(self, model: str) -> AsyncGenerator[list[_Entry], None]:
        """What the bucket has for a model, `AT_ONCE` at a time.

        Pulled, because what is pushed may still be under way as the server already says that nothing is left: who
        takes that for the end (as `KeyValue.watch` does) overlooks entries.
        """
        try:
            await self._opened()
            js = self._runtime.connection.nats.jetstream(timeout=5)
            matching = f"{_KEYS}{encode_id(model)}.*"
            pulled = await js.pull_subscribe(matching, stream=f"KV_{DEPENDENTS_BUCKET}", config=_reading())
            try:
                left = (await pulled.consumer_info()).num_pending
                while left > 0:  # what is written anew meanwhile comes once more, at the end, and is not waited for
                    messages = await pulled.fetch(min(left, AT_ONCE), timeout=5)
                    yield [_entry(message) for message in messages if message.data]  # where dropped, there is none
                    left -= len(messages)
            finally:
                await pulled.unsubscribe()
        except _TROUBLE as error:
            raise LogUnavailable("the index of threads by model could not be read") from error

    async def _checked(self, entries: list[_Entry], model: str) -> list[str]:
        """The threads of these entries that name the model indeed."""
        names = await asyncio.gather(*(self._names(entry.thread) for entry in entries))
        for entry, named in zip(entries, names, strict=True):
            if model not in named:
                await self._drop(entry)
        return [entry.thread for entry, named in zip(entries, names, strict=True) if model in named]

    async def _names(self, thread: str) -> list[str]:
        """The models that a thread's configuration names now."""
        books, _, _ = await self._runtime.ledger.load(thread, fresh=True)
        settings = await settings_at(self._runtime, books.config_seq)
        return models_named(settings.model, settings.preferences)

    async def _drop(self, entry: _Entry) -> None:
        """Forget an entry, if it is old and nobody has written it anew. Never raises: the next check may."""
        if self._runtime.clock() - entry.noted < SETTLED:
            return
        try:
            await (await self._opened()).delete(entry.key, last=entry.revision)
        except _TROUBLE as error:
            log.warning("dependents.not_dropped", key=entry.key, error=type(error).__name__)

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            js = self._runtime.connection.nats.jetstream(timeout=5)
            config = api.KeyValueConfig(bucket=DEPENDENTS_BUCKET, history=1, replicas=self._runtime.replicas)
            try:
                self._bucket = await open_bucket(js, config)
            except _TROUBLE as error:
                raise LogUnavailable("the index of threads by model could not be opened") from error
        return self._bucket


def _too_many(model: str, verb: str) -> Refused:
    """Those that were looked at name it no more, and are forgotten as they get old: so asking again helps."""
    text = f"more than {MOST_CHECKED:,} threads named model {model!r} at some time, too many to ask each at once"
    advice = f"ask again in ten minutes, or force it: `trunkline models {verb} --force`"
    return Refused(code="unavailable", message=f"{text}; {advice}")


def refusal(model: str, verb: str, found: list[Dependent]) -> Refused:
    """What a caller is told of these dependents: `MOST_NAMED` threads and runs at most, and whether there are more."""
    shown: dict[str, list[Dependent]] = {}
    for one in found:
        shown.setdefault(one.kind, []).append(one)
    named = [one for kind, all_ in shown.items() for one in all_[: MOST_NAMED if kind in _MANY else None]]
    more = {f"more_{kind}s": len(shown.get(kind, ())) > MOST_NAMED for kind in _MANY}
    users = ", ".join(map(str, named)) + "".join(f" and {key.replace('_', ' ')}" for key in more if more[key])
    forcing = f"`trunkline models {verb} --force`"
    return Refused(
        code="conflict",
        message=f"model {model!r} is in use by {users}; change those first, or force it: {forcing}",
        param="id",
        metadata={"dependents": [{"kind": one.kind, "id": one.id} for one in named], **more},
    )
