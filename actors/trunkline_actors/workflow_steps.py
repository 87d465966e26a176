"""Does one attempt at a step: asks the model, or calls the function, inside whatever stands around it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from trunkline_actors.workflow import Spent
from trunkline_actors.workflow_code import Ask, Caller, CodeBook, Middleware, Said, StepContext, StepError
from trunkline_actors.workflow_model import Code, Llm
from trunkline_actors.workflow_schemas import validator
from trunkline_actors.workflow_templates import NoValue, render, value_of
from trunkline_actors.workflow_threads import in_thread
from trunkline_actors.workflow_walk import Ready, Variables

log = structlog.get_logger()

DEFAULT_S = 120.0
"""Seconds that an attempt may take whose step says nothing about it."""


class Attempting(Struct, kw_only=True):
    """One attempt. `request` begins the ids of its chats; `spent` grows with each of them."""

    run: str
    workflow: str
    thread: str
    key: str
    attempt: int
    request: str
    traceparent: str | None = None
    spent: Spent = Spent()
    asking: str | None = None
    """The chat under way, if any: it is to be aborted where the attempt is."""


async def perform(ready: Ready, attempting: Attempting, book: CodeBook, caller: Caller) -> Any:
    """The output of a step, as JSON has it. Raises StepError."""
    step = ready.step
    context = StepContext(
        run=attempting.run,
        workflow=attempting.workflow,
        step=ready.path,
        kind="llm" if isinstance(step, Llm) else "code",
        attempt=attempting.attempt,
        variables=ready.variables,
    )

    async def do() -> Any:
        if isinstance(step, Llm):
            return await _ask(step, ready, attempting, book, caller)
        assert isinstance(step, Code), step
        return await _call(step, ready.variables, book)

    async def inner() -> Any:
        return await around_step(book.middleware, context, do)

    try:
        async with asyncio.timeout(step.timeout_s or DEFAULT_S if isinstance(step, Llm | Code) else None):
            output = await inner()
    except TimeoutError:
        if attempting.asking is not None:
            await caller.abort(attempting.asking)
        raise StepError("timeout", f"it took more than {getattr(step, 'timeout_s', None) or DEFAULT_S:g} s") from None
    except StepError:
        raise
    except asyncio.CancelledError as error:
        if _are_cancelled():
            raise
        raise StepError("internal", "something that it waited for was cancelled") from error  # else it ends unseen
    except Exception as error:  # whatever it was, it counts as an attempt: else it would be tried forever
        log.exception("workflow.step_broke", run=attempting.run, step=ready.path)
        raise StepError("internal", f"{type(error).__name__}: {error}") from error
    try:
        return msgspec.json.decode(msgspec.json.encode(output))
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        message = f"its output can't be written as JSON ({error}); return texts, numbers, lists and dicts"
        raise StepError("invalid_output", message, retryable=False) from error


def _are_cancelled() -> bool:
    """Whether it is we who are cancelled, and not only something that we wait for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


# -- what stands around ------------------------------------------------------------------------------------------------


async def around_step(middleware: Sequence[Middleware], context: StepContext, do: Callable[[], Awaitable[Any]]) -> Any:
    """Do a step inside all of these, the first outermost."""
    if not middleware:
        return await do()
    first, rest = middleware[0], middleware[1:]
    inner = _Inner(lambda: around_step(rest, context, do))
    return await inner.guard(first, first.on_step(context, inner.proceed))


async def around_call(middleware: Sequence[Middleware], ask: Ask, do: Callable[[Ask], Awaitable[Said]]) -> Said:
    """Ask inside all of these, the first outermost."""
    if not middleware:
        return await do(ask)
    first, rest = middleware[0], middleware[1:]
    inner = _Inner(lambda given=ask: around_call(rest, given, do))
    said: Said = await inner.guard(first, first.on_call(ask, inner.proceed))
    return said


class _Inner:
    """What a middleware calls to go on: tells its own failures from those that come from within."""

    def __init__(self, go_on: Callable[..., Awaitable[Any]]) -> None:
        self._go_on = go_on
        self._done = False
        self._output: Any = None
        self._raised: BaseException | None = None

    async def proceed(self, *given: Any) -> Any:
        try:
            self._output = await self._go_on(*given)
        except BaseException as error:
            self._raised = error
            raise
        self._done = True
        return self._output

    async def guard(self, middleware: Middleware, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except Exception as error:
            if error is self._raised:
                raise
            name = type(middleware).__name__
            log.warning("workflow.middleware_failed", type=name, error=type(error).__name__)
            if middleware.fails_closed:
                raise StepError(
                    "middleware", f"{name} failed ({type(error).__name__}), and nothing goes past it"
                ) from error
            if self._raised is not None:
                raise self._raised from error
            return self._output if self._done else await self._go_on()


# -- code --------------------------------------------------------------------------------------------------------------


async def _call(step: Code, variables: Variables, book: CodeBook) -> Any:
    function = book.functions.get(step.function)
    if function is None:
        message = (
            f"no function {step.function!r} is known here; start `trunkline run workflow --import` with its module"
        )
        raise StepError("unknown_function", message, retryable=False)
    try:
        given = {name: value_of(variable, variables) for name, variable in step.takes.items()}
    except NoValue as error:
        raise StepError("invalid_input", str(error), retryable=False) from error
    try:
        if inspect.iscoroutinefunction(function):
            return await function(**given)
        output = await in_thread(function, **given)
        return await output if inspect.isawaitable(output) else output
    except StepError:
        raise
    except (Exception, SystemExit) as error:  # the step's end, not that of the process
        raise StepError("code_failed", f"{step.function} raised {type(error).__name__}: {error}") from error


# -- models ------------------------------------------------------------------------------------------------------------


async def _ask(step: Llm, ready: Ready, attempting: Attempting, book: CodeBook, caller: Caller) -> Any:
    messages = _messages(step, ready.variables)
    for repair in range(step.repairs + 1 if step.schema is not None else 1):
        said = await _chat(step, messages, f"{attempting.request}-{repair}", ready, attempting, book, caller)
        if step.schema is None:
            return said.text
        value, problem = _read(said.text, step.schema)
        if problem is None:
            return value
        told = f"That does not fit what was asked for: {problem}. Answer with the JSON value alone, mended."
        messages = [*messages, {"role": "assistant", "content": said.text}, {"role": "user", "content": told}]
    raise StepError("invalid_output", f"the model's answer does not fit the schema: {problem}")


def _messages(step: Llm, variables: Variables) -> list[dict[str, str]]:
    try:
        system = [{"role": "system", "content": render(step.system, variables)}] if step.system else []
        given = step.messages or [{"role": "user", "content": step.prompt}]
        return [*system, *({**one, "content": render(one["content"], variables)} for one in given)]
    except NoValue as error:
        raise StepError("invalid_input", str(error), retryable=False) from error


async def _chat(
    step: Llm,
    messages: list[dict[str, str]],
    request_id: str,
    ready: Ready,
    attempting: Attempting,
    book: CodeBook,
    caller: Caller,
) -> Said:
    seconds = step.timeout_s or DEFAULT_S
    route = {"deadline_ms": int(min(seconds, 3_600.0) * 1000), **step.route}
    if step.budget_usd is not None:
        route["max_cost_usd"] = step.budget_usd
    body: dict[str, Any] = {**step.parameters, "model": step.model, "messages": messages, "route": route}
    if step.schema is not None:
        schema = {"name": step.name.replace(".", "-"), "schema": step.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    ask = Ask(
        run=attempting.run,
        step=ready.path,
        request_id=request_id,
        body=body,
        thread=attempting.thread,
        key=attempting.key,
        seconds=seconds,
        traceparent=attempting.traceparent,
    )

    async def do(given: Ask) -> Said:
        attempting.asking = given.request_id
        said = await caller.chat(given)
        attempting.asking = None
        attempting.spent += Spent(usage=said.usage, cost_nanos=said.cost_nanos, chats=1)
        return said

    return await around_call(book.middleware, ask, do)


def _read(text: str, schema: dict[str, Any]) -> tuple[Any, str | None]:
    """The JSON value of an answer, or what is wrong with it. A fence around it is taken off."""
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").partition("\n")[2].strip() if "\n" in stripped else stripped.strip("`")
    try:
        value = msgspec.json.decode(stripped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"it is no JSON ({error})"
    found = next(validator(schema).iter_errors(value), None)
    if found is None:
        return value, None
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found.absolute_path)
    return value, f"{found.message[:300]}{f' (at {place})' if place else ''}"
