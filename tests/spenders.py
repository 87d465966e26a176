"""Many callers who spend one budget, an upstream that keeps a ledger of its own, and the two compared."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from audit import check_books, check_scopes, events, open_attempts
from msgspec import Struct
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline_events.envelope import RecordedEvent
from trunkline_events.thread import AttemptFailed, Metered, Orphaned, RouteDecided
from upstream import SSE, Reply, Request, answer

PRICE = {"input": "1.00", "output": "10.00"}
PROMPT_TOKENS = 20


class Call(Struct, kw_only=True):
    """One call as the upstream saw it: tokens it sent, and whether its last word with the usage went out."""

    prompt: str
    sent: int = 0
    finished: bool = False


class Till:
    """An upstream that answers with up to `max_tokens` tokens, some at once and some by and by, and counts them."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)

    async def handle(self, request: Request) -> Reply:
        asked = json.loads(request.body)
        prompt = asked["messages"][-1]["content"]
        call = Call(prompt=prompt)
        self.calls[prompt].append(call)
        tokens = random.Random(prompt).randint(1, asked["max_tokens"])
        if asked.get("stream"):
            return Reply(status=200, headers=SSE, pieces=self._pieces(call, tokens))
        await asyncio.sleep(random.Random(prompt).uniform(0.0, 0.1))
        call.sent, call.finished = tokens, True
        message = {"role": "assistant", "content": "t " * tokens}
        return answer(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": _usage(tokens),
            }
        )

    async def _pieces(self, call: Call, tokens: int) -> AsyncIterator[bytes]:
        for _ in range(tokens):
            yield _event({"choices": [{"index": 0, "delta": {"content": "t "}, "finish_reason": None}]})
            call.sent += 1
            await asyncio.sleep(0.001)
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield _event({"choices": [], "usage": _usage(tokens)})
        yield b"data: [DONE]\n\n"
        call.finished = True


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


def _event(fields: dict[str, object]) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Spenders:
    """Callers of one thread, half of them streaming, each with a `max_tokens` of its own."""

    def __init__(self, gateway: Gateway, till: Till, thread: str, *, most: int, deadline_ms: int) -> None:
        self._gateway = gateway
        self._till = till
        self._thread = thread
        self._most = most
        self._deadline_ms = deadline_ms
        self._tasks: list[asyncio.Task[TrunklineError | None]] = []

    def call(self, count: int) -> None:
        """So many more callers, all at once."""
        start = len(self._tasks)
        self._tasks += [asyncio.create_task(self._caller(f"p{number}")) for number in range(start, start + count)]

    async def _caller(self, name: str) -> TrunklineError | None:
        chosen: dict[str, Any] = {
            "thread": self._thread,
            "request_id": name,
            "route": {"deadline_ms": self._deadline_ms},
        }
        most = random.Random(f"{name} asks").randint(1, self._most)
        try:
            if int(name[1:]) % 2:
                await self._gateway.chat.create("m", name, max_tokens=most, **chosen)
                return None
            async with self._gateway.chat.stream("m", name, max_tokens=most, **chosen) as stream:
                async for _ in stream:
                    pass
        except TrunklineError as error:
            return error
        return None

    async def heard(self) -> list[TrunklineError | None]:
        """What all of them heard."""
        return await asyncio.gather(*self._tasks)

    async def settled(self, within: float = 30.0) -> list[RecordedEvent]:
        """The log, when everything has ended that was under way."""
        async with asyncio.timeout(within):
            while open_attempts(recorded := await events(self._gateway)):  # noqa: ASYNC110 - others write the log
                await asyncio.sleep(0.1)
        return recorded

    def compare(self, recorded: list[RecordedEvent]) -> None:
        """Our books against the till's: exact where the usage arrived, between bounds where it did not."""
        check_books(recorded)
        check_scopes(recorded)
        decided = {event.body.attempt_id: event.body for event in recorded if isinstance(event.body, RouteDecided)}
        billed: dict[str, int] = defaultdict(int)
        for event in recorded:
            ending = event.body
            if isinstance(ending, Metered | Orphaned):
                billed[ending.request_id] += 1
                calls = self._till.calls[ending.request_id]
                decision = decided[ending.attempt_id]
                assert ending.cost_nanos <= decision.reserve_nanos
                if isinstance(ending, Metered) and not ending.estimated:
                    assert any(call.sent == ending.usage.output_tokens for call in calls)
                    assert ending.cost_nanos == ending.usage.output_tokens * 10_000 + PROMPT_TOKENS * 1_000
                elif isinstance(ending, Metered):
                    least = min(call.sent for call in calls)
                    assert ending.usage.output_tokens >= 1 or least == 0
                else:
                    assert ending.cost_nanos == decision.reserve_nanos
            elif isinstance(ending, AttemptFailed):
                assert not any(call.finished for call in self._till.calls[ending.request_id][:-1]), "a paid call failed"
        assert max(billed.values(), default=0) <= 1, "a request was billed twice"
