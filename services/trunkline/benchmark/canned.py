"""An upstream in a process of its own that says the same to everyone, in each wire format, for a benchmark.

`python -m trunkline.benchmark.canned CHUNKS PAUSE_S [FIRST_S]` prints its port and serves until its standard input is
closed. Streams come after `FIRST_S`, event by event, `PAUSE_S` apart, as models generate them: each is a read of its
own for whoever listens.
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from trunkline.benchmark.load import REPEATED, TEXT

_HEAD = {"id": "chatcmpl-1", "created": 1795262400, "model": "m", "system_fingerprint": "fp_1"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": 50, "total_tokens": 62}


def _event(payload: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(payload).encode() + b"\n\n"


def _openai(count: int) -> tuple[bytes, list[bytes]]:
    message = {"role": "assistant", "content": TEXT * REPEATED}
    whole = {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USAGE,
    }

    def chunk(delta: object, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]})

    usage = _event({**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE})
    tail = chunk({}, "stop") + usage + b"data: [DONE]\n\n"
    return json.dumps(whole).encode(), [*(chunk({"content": TEXT}) for _ in range(count)), tail]


def _anthropic(count: int) -> tuple[bytes, list[bytes]]:
    usage = {"input_tokens": 12, "output_tokens": 50}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    whole = {
        **message,
        "content": [{"type": "text", "text": TEXT * REPEATED}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    begun: dict[str, object] = {**message, "content": [], "stop_reason": None, "usage": usage}
    first = _event({"type": "message_start", "message": begun}, "message_start")
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    first += _event(block, "content_block_start")
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
    tail = _event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
    tail += _event(ended, "message_delta") + _event({"type": "message_stop"}, "message_stop")
    return json.dumps(whole).encode(), [first, *(_event(delta, "content_block_delta") for _ in range(count)), tail]


def _gemini(count: int) -> tuple[bytes, list[bytes]]:
    def piece(text: str, finish: str | None = None) -> dict[str, object]:
        candidate: dict[str, object] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        usage = {"promptTokenCount": 12, "candidatesTokenCount": 50, "totalTokenCount": 62}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}

    pieces = [_event(piece(TEXT)) for _ in range(count)]
    return json.dumps(piece(TEXT * REPEATED, "STOP")).encode(), [*pieces, _event(piece("", "STOP"))]


def _ollama(count: int) -> tuple[bytes, list[bytes]]:
    def piece(text: str, *, done: bool) -> dict[str, object]:
        said: dict[str, object] = {"model": "m", "created_at": "2026-11-28T12:00:00Z", "done": done}
        said["message"] = {"role": "assistant", "content": text}
        ended = {"done_reason": "stop", "total_duration": 1, "prompt_eval_count": 12, "eval_count": 50}
        return said | ended if done else said

    pieces = [json.dumps(piece(TEXT, done=False)).encode() + b"\n" for _ in range(count)]
    return json.dumps(piece(TEXT * REPEATED, done=True)).encode(), [
        *pieces,
        json.dumps(piece("", done=True)).encode() + b"\n",
    ]


class _Server:
    def __init__(self, count: int, pause: float, first: float) -> None:
        self._pause, self._first = pause, first
        # By what the path of a request holds.
        self._said = {
            "/chat/completions": _openai(count),
            "/v1/messages": _anthropic(count),
            "enerateContent": _gemini(count),
            "/api/chat": _ollama(count),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                body = await reader.readexactly(size)
                path = head.split()[1].decode()
                said = next((said for part, said in self._said.items() if part.lower() in path), None)
                if said is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                whole, pieces = said
                if b'"stream":true' in body or "stream" in path:
                    await self._stream(writer, pieces, ndjson="/api/" in path)
                else:
                    length = b"content-length: %d\r\n\r\n" % len(whole)
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length + whole)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, pieces: Sequence[bytes], *, ndjson: bool) -> None:
        kind = b"application/x-ndjson" if ndjson else b"text/event-stream"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        if self._first:
            await asyncio.sleep(self._first)
        for piece in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(self._pause)
        writer.write(b"0\r\n\r\n")


async def _main(count: int, pause: float, first: float) -> None:
    server = await asyncio.start_server(_Server(count, pause, first).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0))
