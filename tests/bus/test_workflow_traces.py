"""One trace for a run: its steps and their chats, in the trace it was begun in, or in one of its own."""

import msgspec
import pytest
from processes import until
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline.telemetry.wire import encoded
from trunkline.workflow_engine import finished
from trunkline.workflows import LLMStep, ParallelStep, Workflow
from trunkline_actors.spans import Span
from trunkline_actors.tracing import Tracing, sampler
from trunkline_events import headers
from trunkline_events.subjects import WORKFLOWS

pytest_plugins = ["gateway"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CHECKED = Workflow(
    "checked",
    [LLMStep("draft", "a", model="echo"), ParallelStep("both", [LLMStep(n, "b", model="echo") for n in ("x", "y")])],
)


@pytest.mark.parametrize("begun_in", [PARENT, None])
async def test_all_spans_of_a_run_are_in_one_trace(gw: Gateway, host: Host, begun_in: str | None) -> None:
    spans: list[Span] = []

    def keep(span: Span) -> bytes:
        spans.append(span)
        return encoded(span)

    host.runtime.tracing = tracing = Tracing(sampler("parentbased_always_on", 1.0), keep)
    body = msgspec.json.encode({"definition": msgspec.to_builtins(CHECKED.definition), "id": "r"})
    fields = {headers.TRACEPARENT: begun_in} if begun_in else None
    await gw._connection.nats.request(f"{WORKFLOWS}.start", body, headers=fields)
    await finished(gw, "r")

    def told() -> dict[str, list[Span]]:
        tracing.flush()
        named: dict[str, list[Span]] = {}
        for span in spans:
            named.setdefault(span.said[0](*span.said[1:])[0], []).append(span)
        return named

    await until(lambda: "invoke_workflow checked" in told())  # who leads it may hear of its end after us
    named = told()
    assert len({span.trace for span in spans}) == 1
    assert (spans[0].trace == TRACE) == (begun_in is not None)
    (run,) = named["invoke_workflow checked"]
    assert run.parent == ("00f067aa0ba902b7" if begun_in else "")
    steps = named["step llm"]
    assert [step.parent for step in steps] == [run.span] * 3
    assert {span.parent for span in named["route chat"]} == {step.span for step in steps}
