"""`trunkline chat`: the answer on stdout as it comes, the receipt on stderr."""

import argparse
import base64
import contextlib
import sys
from pathlib import Path
from typing import Any

import msgspec

from trunkline.chat import Completion, Messages, Receipt
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, plain, say, styled
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def run(args: argparse.Namespace) -> int:
    """Ask; 0 when the answer is complete."""
    messages = _messages(args.prompt, args.image)
    options = _options(args)

    async def ask(gateway: Gateway) -> int:
        if args.no_stream:
            _print_whole(await gateway.chat.create(args.model, messages, **options), as_json=args.json)
        else:
            await stream(gateway, args.model, messages, options, as_json=args.json)
        return 0

    return with_gateway(args, ask)


async def stream(
    gateway: Gateway, model: str, messages: Messages, options: dict[str, Any], *, as_json: bool = False
) -> Receipt | None:
    """Print an answer as it is generated, and its receipt."""
    printer = _Printer()
    async with gateway.chat.stream(model, messages, **options) as answer:
        with contextlib.nullcontext() if as_json else printer:
            async for chunk in answer:
                if as_json:
                    emit(chunk.data)
                else:
                    printer.add(chunk.reasoning, chunk.text)
        usage = msgspec.to_builtins(answer.usage)
    if as_json:
        emit({"receipt": answer.receipt, "usage": usage})
    elif answer.receipt is not None:
        _print_receipt(answer.receipt, usage or {})
    return answer.receipt


class _Printer:
    """Tokens to stdout, each at once; thinking dimmed to stderr, where that is a terminal. A line feed at the end."""

    def __init__(self) -> None:
        self._open = self._thinking = False

    def add(self, reasoning: str, text: str) -> None:
        """Print what a chunk brought."""
        if reasoning and sys.stderr.isatty():
            self._thinking = True
            print(styled(plain(reasoning, sys.stderr), "dim", sys.stderr), end="", file=sys.stderr, flush=True)
        if text:
            self._end_thinking()
            self._open = not text.endswith("\n")
            print(plain(text, sys.stdout), end="", flush=True)

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            print(file=sys.stderr, flush=True)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_thinking()
        if self._open and kind is not BrokenPipeError:
            print(flush=True)


def _print_whole(answer: Completion, *, as_json: bool) -> None:
    if as_json:
        emit({"completion": answer.data, "receipt": answer.receipt, "usage": _counts(answer.usage)})
        return
    printer = _Printer()
    with printer:
        printer.add(answer.reasoning, answer.text)
    _print_receipt(answer.receipt, _counts(answer.usage))


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's token counts under our names, so that both ways of asking print the same."""
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "cached_input_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        "output_tokens": usage.get("completion_tokens", 0),
        "reasoning_tokens": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0),
    }


def _print_receipt(receipt: Receipt, usage: dict[str, Any]) -> None:
    facts = [f"{receipt.model} at {receipt.provider}", f"${receipt.cost}"]
    if usage:
        facts.append(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out")
    if receipt.attempts > 1:
        facts.append(f"attempt {receipt.attempts}")
    if receipt.finish not in {"stop", ""}:
        facts.append(f"ended by {receipt.finish}")
    facts.append(f"event {receipt.event}")
    say(styled(" · ".join(facts), "dim", sys.stderr))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    route: dict[str, Any] = {}
    if args.capability:
        route["capabilities"] = args.capability
    if args.max_cost is not None:
        route["max_cost_usd"] = args.max_cost
    return {"thread": args.thread, "route": route or None}


def _messages(prompt: str, images: list[str]) -> Messages:
    """What to send. Raises UsageError."""
    text = _stdin() if prompt == "-" else prompt
    if not text.strip():
        raise UsageError("the prompt is empty")
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": _data_url(Path(image))}} for image in images]
    return [{"role": "user", "content": parts}]


def _stdin() -> str:
    if sys.stdin.isatty():
        say("type the prompt, then Ctrl-D")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8: {error}") from error


def _data_url(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"image {path} can't be read: {error.strerror}") from error
    kind = next((kind for magic, kind in _IMAGES if data.startswith(magic)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise UsageError(f"{path} is not an image that models take: PNG, JPEG, GIF or WebP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
