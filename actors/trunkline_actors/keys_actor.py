"""The actor of API keys: issues, rotates, revokes and lists them.

A key itself is in one reply only, that to who asked for it. What is kept is its keyed hash.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from trunkline_events import headers, subjects
from trunkline_events.budget import key_scope
from trunkline_events.envelope import Event
from trunkline_events.key import KeyIssued
from trunkline_events.refusal import Refused
from trunkline_events.times import format_time
from trunkline_projections.keys import Key, Keys

from trunkline_actors import keys as rules
from trunkline_actors import staleness
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import ById, Page, Reply, endpoint
from trunkline_actors.keys import Fresh, Issue, Rotate
from trunkline_actors.keys_door import NO_PEPPER
from trunkline_actors.micro import Endpoint
from trunkline_actors.readers import ChangeActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command

log = structlog.get_logger()

BUDGET_SECONDS = 10.0


class _Source:
    """All keys as they stand, and the sequence of one key's last event."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Keys, int | None, bool]:
        last = await self._runtime.log.last("key", aggregate)
        await self._runtime.gateway.catch_up()
        return self._runtime.gateway.state.keys, last.sequence if last else 0, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: the view follows the log."""


class KeysActor(ChangeActor):
    """Issues, rotates, revokes and lists API keys; a change is answered when every process goes by it."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "trunkline-keys")
        self._source = _Source(runtime)

    def endpoints(self) -> list[Endpoint]:
        of = subjects.KEYS
        return [
            endpoint(self.bus, "issue", f"{of}.issue", Issue, self._issue),
            endpoint(self.bus, "rotate", f"{of}.rotate", Rotate, self._rotate),
            endpoint(self.bus, "revoke", f"{of}.revoke", ById, self._revoke),
            endpoint(self.bus, "get", f"{of}.get", ById, self._get),
            endpoint(self.bus, "list", f"{of}.list", Page, self._list),
        ]

    async def _issue(self, given: Issue, delivery: Delivery) -> Reply:
        name = given.id if given.id is not None else f"k{secrets.token_hex(5)}"
        drawn = self._drawn(delivery)
        if isinstance(drawn, Refused):
            return drawn
        text, fresh = drawn
        await self._runtime.gateway.catch_up()
        early = rules.issue(self._runtime.gateway.state.keys, given, name, fresh, self._runtime.clock())
        if isinstance(early, Refused):
            return early
        if problem := await self._budget(name, given, delivery):  # before there is a key that could spend
            return problem
        reply = await self._change(name, delivery, lambda keys, now: rules.issue(keys, given, name, fresh, now))
        return reply if isinstance(reply, Refused) else {**reply, "key": text}

    async def _rotate(self, given: Rotate, delivery: Delivery) -> Reply:
        drawn = self._drawn(delivery)
        if isinstance(drawn, Refused):
            return drawn
        text, fresh = drawn
        reply = await self._change(given.id, delivery, lambda keys, now: rules.rotate(keys, given, fresh, now))
        return reply if isinstance(reply, Refused) else {**reply, "key": text}

    async def _revoke(self, given: ById, delivery: Delivery) -> Reply:
        by = self._who(delivery)
        return await self._change(given.id, delivery, lambda keys, _: rules.revoke(keys, given.id, by, given.reason))

    async def _get(self, given: ById, delivery: Delivery) -> Reply:
        key = (await self._current()).by_id.get(given.id)
        if key is None:
            return Refused(code="not_found", message=f"there is no key {given.id!r}; see `trunkline keys list`")
        return {"seq": self._runtime.gateway.position, **self._shown(key)}

    async def _list(self, given: Page, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        held = sorted((await self._current()).by_id.values(), key=lambda key: key.id)
        behind = [key for key in held if key.id > given.after]
        if given.status is not None:
            behind = [key for key in behind if rules.state_of(key, self._runtime.clock()) == given.status]
        chosen = behind[: given.limit]
        after = chosen[-1].id if len(behind) > len(chosen) else None
        return {"seq": self._runtime.gateway.position, "keys": [self._shown(key) for key in chosen], "after": after}

    # -- both ------------------------------------------------------------------------------------------------------

    async def _current(self) -> Keys:
        return (await staleness.current(self._runtime)).keys

    def _drawn(self, delivery: Delivery) -> tuple[str, Fresh] | Refused:
        """A new key, and what is kept of it."""
        pepper = self._runtime.door.pepper
        if pepper is None:
            return NO_PEPPER
        text = rules.made_of(secrets.token_bytes(rules.SECRET_BYTES))
        digest = rules.digest_of(pepper, text)
        return text, Fresh(digest=digest, pepper=rules.name_of(pepper), by=self._who(delivery))

    def _who(self, delivery: Delivery) -> str:
        return self._runtime.door.who(delivery.header(headers.KEY))

    async def _budget(self, name: str, given: Issue, delivery: Delivery) -> Refused | None:
        """Set the budget of a key that is about to be issued, as who asks for it may; why that can't be."""
        if given.budget is None and given.team is None:
            return None
        asked = {"scope": key_scope(name), "budget": given.budget or {}, "team": given.team, "reason": given.reason}
        body = msgspec.json.encode({field: value for field, value in asked.items() if value is not None})
        key = delivery.headers.get(headers.KEY)
        try:
            reply = await self.bus.nats.request(
                f"{subjects.BUDGETS}.set", body, BUDGET_SECONDS, headers={headers.KEY: key} if key else None
            )
        except (nats.errors.Error, TimeoutError):
            return Refused(
                code="unavailable", message="the key's budget could not be set, so none was issued; try again"
            )
        if headers.ERROR_CODE not in (reply.headers or {}):
            return None
        error: dict[str, Any] = msgspec.json.decode(reply.data)["error"]
        return Refused(code=error["code"], message=error["message"], param=error["param"])

    async def _change(
        self, name: str, delivery: Delivery, decide: Callable[[Keys, float], Event | Refused | None]
    ) -> Reply:
        """Decide and append, and answer when every process has read it."""
        runtime = self._runtime
        request_id = delivery.header(headers.REQUEST) or runtime.new_id()
        by = self._who(delivery)
        command: Command[Keys] = Command(
            category="key",
            aggregate=name,
            # Never the caller's id alone: a key is drawn each time, and what is stored must be what is answered.
            id=f"{delivery.subject}/{subjects.encode_id(name)}/{runtime.new_id()}",
            decide=decide,
            actor=f"key:{by}" if by else runtime.name,
            cause=request_id,
            traceparent=delivery.traceparent,
        )
        if problem := subjects.id_problem(name):
            return Refused(code="invalid_request", message=problem, param="id")
        decided = await runtime.shell.execute(self._source, command)
        if isinstance(decided, Refused):
            return decided
        if decided is None:
            return {"seq": await runtime.log.end(), "id": name, "changed": False}
        await self.read_by_all(decided.sequence)
        log.info("keys.changed", key=name, event_type=type(decided.event).__name__, by=by)
        told = {"seq": decided.sequence, "changed": True}
        known = runtime.gateway.state.keys.by_id.get(name)
        assert known is not None or not isinstance(decided.event, KeyIssued)
        return {**told, "id": name, **(self._shown(known) if known else {})}

    def _shown(self, key: Key) -> dict[str, Any]:
        now = self._runtime.clock()
        until = [secret.until for secret in key.secrets if secret.until is not None and secret.until > now]
        return {
            "id": key.id,
            "name": key.name,
            "state": rules.state_of(key, now),
            "scopes": key.scopes,
            "models": key.models,
            "requests_per_minute": key.requests_per_minute,
            "tokens_per_minute": key.tokens_per_minute,
            "cache_s": key.cache_s,
            "expires_at": None if key.expires_at is None else format_time(key.expires_at),
            "old_until": format_time(until[0]) if until else None,
            "changed_at": format_time(key.changed_at),
        }
