"""Many callers at once, through our client library, while something is being killed; and what became of each."""

import asyncio
import time
from collections import Counter

from audit import check_books, check_receipts, events, open_attempts
from msgspec import Struct
from trunkline.chat import Receipt
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline_events.envelope import RecordedEvent

DEADLINE_MS = 8000
LATEST = DEADLINE_MS / 1000 + 5
"""Seconds after which a caller must have heard, whatever died."""
NOISE = 1.0
"""Seconds that two busy cores may add to any time measured here."""
WORDS = " ".join(f"w{number}" for number in range(1, 16))


class Heard(Struct, kw_only=True):
    """What one caller heard, after how many seconds: an answer with its receipt, or an error."""

    request_id: str
    seconds: float
    text: str = ""
    wanted: str = ""
    receipt: Receipt | None = None
    error: TrunklineError | None = None


class Crowd:
    """Callers of one gateway: plain and streamed, with and without a thread, quick and slow."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._number = 0
        self._tasks: list[asyncio.Task[Heard]] = []

    async def prepare(self) -> None:
        """Register what the callers ask for."""
        price = {"input": "1.00", "output": "4.00"}
        await self._gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, script in (("echo", "echo"), ("words", "tokens:15"), ("paced", "tokens:15@50")):
            await self._gateway.models.register(id=name, provider="scripted", upstream=script, price=price)
        for number in range(5):
            await self._gateway.threads.configure(thread_id=f"t{number}", budget={"limit_usd": "1"})

    def call(self, count: int) -> None:
        """So many more callers, all at once."""
        for _ in range(count):
            self._number += 1
            self._tasks.append(asyncio.create_task(self._caller(self._number)))

    async def _caller(self, number: int) -> Heard:
        heard = Heard(request_id=f"c{number}", seconds=0.0)
        began = time.monotonic()
        try:
            await self._ask(number, heard)
        except TrunklineError as error:
            heard.error = error
        heard.seconds = time.monotonic() - began
        return heard

    async def _ask(self, number: int, heard: Heard) -> None:
        model = ("echo", "words", "paced")[number % 3]
        thread = f"t{number % 5}" if number % 4 >= 2 else None
        prompt = f"prompt {number}"
        heard.wanted = prompt if model == "echo" else WORDS
        route = {"deadline_ms": DEADLINE_MS}
        if number % 2:
            whole = await self._gateway.chat.create(
                model, prompt, thread=thread, request_id=heard.request_id, route=route, max_tokens=50
            )
            heard.text, heard.receipt = whole.text, whole.receipt
            return
        async with self._gateway.chat.stream(
            model, prompt, thread=thread, request_id=heard.request_id, route=route, max_tokens=50
        ) as answer:
            async for chunk in answer:
                heard.text += chunk.text
        heard.receipt = answer.receipt

    async def heard(self) -> list[Heard]:
        """What all of them heard, when the last has."""
        return await asyncio.gather(*self._tasks)

    async def settled(self, within: float = 20.0) -> list[RecordedEvent]:
        """The log, when the keeper has ended what the dead left behind."""
        give_up = time.monotonic() + within
        while True:
            recorded = await events(self._gateway)
            left = open_attempts(recorded)
            if not left:
                return recorded
            assert time.monotonic() < give_up, f"still open after {within:g} s: {left}"
            await asyncio.sleep(0.05)

    async def check(self, kills: int) -> None:
        """Nobody was left waiting, nothing acknowledged is lost, nothing is billed twice, nothing stays open."""
        everyone = await self.heard()
        answered = [one for one in everyone if one.error is None]
        slowest = max(one.seconds for one in everyone)
        recorded = await self.settled()
        orphans = sum(event.type == "thread.orphaned.v1" for event in recorded)
        told = Counter(f"{one.error.code}: {one.error.message[:60]}" for one in everyone if one.error)
        print(f"{kills} kills, {len(everyone)} chats, {len(answered)} answered, {orphans} orphaned, told {dict(told)}")
        print(f"slowest {slowest:.1f} s, {len(recorded)} events")
        late = [(one.request_id, one.seconds) for one in everyone if one.seconds > LATEST + NOISE]
        assert not late, f"heard too late: {late}"
        for one in answered:
            assert one.text == one.wanted
            assert one.receipt is not None, f"{one.request_id} has an answer and no receipt"
        check_receipts(recorded, [one.receipt for one in answered if one.receipt])
        check_books(recorded)
        for number in range(5):
            books = await self._gateway.threads.get(thread_id=f"t{number}")
            assert (books["open"], books["reserved_usd"]) == ([], "0")
        assert len(answered) > len(everyone) / 2
