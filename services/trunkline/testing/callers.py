"""A model that says what the test wants: by the path of the step, or by what is asked."""

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_actors.workflow_code import Ask, Said, StepError
from trunkline_events.money import nanos_from_usd, usd_from_nanos
from trunkline_events.usage import Usage

from trunkline.testing.costs import tell
from trunkline.testing.virtual_time import VirtualTime


class Reply(Struct, frozen=True, kw_only=True):
    """One answer: its text, or the code it fails with; what it costs, and how long it takes by the clock of the run."""

    text: str = ""
    cost_usd: str = "0"
    usage: Usage = Usage(input_tokens=1, output_tokens=1)
    takes_s: float = 0.0
    code: str = ""
    retryable: bool = True


Scripted = str | Mapping[str, Any] | Reply
Script = Scripted | Sequence[Scripted] | Callable[[Ask], Any]


def says(
    value: Any, *, cost_usd: str = "0", input_tokens: int = 1, output_tokens: int = 1, takes_s: float = 0.0
) -> Reply:
    """This text, or this value as JSON."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return Reply(text=text, cost_usd=cost_usd, usage=usage, takes_s=takes_s)


def fails(
    code: str = "provider_error",
    times: int = 1,
    *,
    then: Scripted | None = None,
    message: str = "as the script says",
    retryable: bool = True,
    takes_s: float = 0.0,
) -> list[Scripted]:
    """Fail with this code so many times, then answer; without `then` fail always."""
    failure = Reply(text=message, code=code, retryable=retryable, takes_s=takes_s)
    return [failure] if then is None else [*[failure] * times, then]


def hangs() -> Reply:
    """Never answer: the step runs into its time limit, or into that of its run."""
    return Reply(takes_s=math.inf)


class ScriptedCaller:
    """Answers the chats of steps, in place of a gateway, and keeps what it was asked.

    `script` maps paths of steps, such as `draft`, `checks/tone` or `each/*/say`, to answers; a list is one answer for
    each chat, the last for all that follow. Or it is one answer for all steps, or a function of the `Ask`, which may
    be a coroutine function, and may raise StepError. Asked again under an id that it has answered, it gives the same
    answer, at no cost, as the gateway does.
    """

    def __init__(self, script: Script | Mapping[str, Script] = "ok") -> None:
        self._script = script
        self._left: dict[str, list[Scripted]] = {}
        self._chosen: dict[str, Any] = {}
        self._said: dict[str, Said] = {}
        self.time: VirtualTime | None = None
        """The clock by which answers take their time; `run_workflow` gives its own."""
        self.asks: list[Ask] = []
        """Every chat that was asked for, once."""
        self.aborted: list[str] = []
        """The request ids of those that nobody wanted any more."""

    @property
    def cost_usd(self) -> str:
        """What all answers cost."""
        return usd_from_nanos(sum(said.cost_nanos for said in self._said.values()))

    def asked(self, step: str) -> list[Ask]:
        """The chats of the steps at this path, or of this pattern."""
        return [ask for ask in self.asks if fnmatchcase(ask.step, step)]

    def prompts(self, step: str = "*") -> list[str]:
        """The last message of each chat."""
        return [str(ask.body["messages"][-1]["content"]) for ask in self.asked(step)]

    async def chat(self, ask: Ask) -> Said:
        """Answer as the script says. Raises StepError."""
        if ask.request_id in self._said:
            return self._said[ask.request_id]
        if ask.request_id not in self._chosen:
            self.asks.append(ask)
            self._chosen[ask.request_id] = await self._choose(ask)
        reply = _reply(self._chosen[ask.request_id])
        if isinstance(reply, Said):
            said = reply
        else:
            await self._sleep(min(reply.takes_s, ask.seconds))
            if reply.takes_s > ask.seconds:
                raise StepError("timeout", f"no answer came within {ask.seconds:g} s")
            if reply.code:
                raise StepError(reply.code, reply.text, retryable=reply.retryable)
            said = _said(reply, ask)
        self._said[ask.request_id] = said
        tell(said.cost_nanos)
        return said

    async def abort(self, request_id: str) -> None:
        """Keep that nobody wants this answer."""
        self.aborted.append(request_id)

    async def _choose(self, ask: Ask) -> Any:
        script = self._script
        if isinstance(script, Mapping):
            names = [ask.step] if ask.step in script else [name for name in script if fnmatchcase(ask.step, name)]
            if not names:
                message = f"the script has no answer for step {ask.step!r}, only for {', '.join(script) or 'none'}"
                raise StepError("unscripted", message, retryable=False)
            script = script[names[0]]
        if callable(script):
            answer = script(ask)
            return await answer if inspect.isawaitable(answer) else answer
        if isinstance(script, Sequence) and not isinstance(script, str):
            left = self._left.setdefault(ask.step, list(script))
            return left.pop(0) if len(left) > 1 else left[0]
        return script

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await (self.time.sleep if self.time is not None else asyncio.sleep)(seconds)


def _reply(answer: Any) -> Reply | Said:
    return answer if isinstance(answer, Reply | Said) else says(answer)


def _said(reply: Reply, ask: Ask) -> Said:
    message = {"role": "assistant", "content": reply.text}
    return Said(
        data={
            "id": ask.request_id,
            "object": "chat.completion",
            "model": ask.body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        },
        usage=reply.usage,
        cost_nanos=nanos_from_usd(reply.cost_usd),
        model=ask.body["model"],
        provider="scripted",
    )
