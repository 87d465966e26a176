"""What a process holds on to, and many HTTP clients at once."""

import asyncio
import gc
import json
import resource
from pathlib import Path

from raw_http import Raw, post, raw

PAGE = resource.getpagesize()


def held() -> tuple[int, int]:
    """Resident bytes and open file descriptors of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return resident, len(list(Path("/proc/self/fd").iterdir()))


def words(number: int, count: int) -> str:
    """A prompt of so many words that is no other's."""
    return " ".join(f"w{number}-{part}" for part in range(count))


def streamed(number: int, count: int, model: str = "echo") -> bytes:
    """A chat to be streamed, which `echo` answers with `words`."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": words(number, count)}]}
    return post(body, idempotency_key=f"r{number}")


async def read_stream(client: Raw) -> tuple[int, bytes]:
    """Status and whole body of a stream."""
    answer = await client.answer(120)
    return answer.status, answer.body


def text_of(body: bytes) -> str:
    """What the events of a stream add up to; they must end well."""
    events = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]", events[-1]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])


async def stream_many(url: str, count: int, length: int, first: int = 0) -> list[tuple[int, bytes]]:
    """So many streams at once, each on a connection of its own."""

    async def one(number: int) -> tuple[int, bytes]:
        async with raw(url) as client:
            client.write(streamed(number, length))
            return await read_stream(client)

    return list(await asyncio.gather(*(one(first + number) for number in range(count))))
