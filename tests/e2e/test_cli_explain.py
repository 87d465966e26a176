"""`trunkline audit explain`, `audit redecide` and `policy dry-run`, as a user and a pipe have them."""

from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, on_terminal
from given import new, recorded
from msgspec import structs
from trunkline import errors
from trunkline.client import Gateway
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.thread import RouteDecided

pytest_plugins = ["gateway", "console"]

POLICY = "rules:\n- name: all\n  when: {model: auto}\n  use: [echo]\n"


async def served(gw: Gateway, request_id: str, model: str = "auto", **more: Any) -> int:
    answer = await gw.chat.create(model, "one two", request_id=request_id, **more)
    assert answer.receipt is not None
    return answer.receipt.event


async def test_a_request_is_explained_by_its_id_or_by_its_receipt(
    trunkline: Trunkline, gw: Gateway, bus_url: str, tmp_path: Path
) -> None:
    seq = await served(gw, "r1", "fails", thread="t", route={"fallbacks": ["echo"]})
    told = await trunkline("audit", "explain", "r1")
    assert told.code == 0, told
    assert "request r1, thread t: chat for an answer, model fails" in told.out
    assert "attempt 1: fails at scripted" in told.out
    assert "failed (event" in told.out
    assert "→\techo\tscripted\t1e+15\tfallback\t$0.00001" in told.out
    assert told.err.endswith("decided again from the log: the same\n")
    by_receipt = await trunkline("audit", "explain", "--event", str(seq), "--json")
    assert by_receipt.json["request_id"] == "r1"
    assert [one["model"] for one in by_receipt.json["attempts"]] == ["fails", "echo"]
    assert "would have cost" in await on_terminal("audit", "explain", "r1", "--nats", bus_url, cwd=tmp_path)


async def test_a_refusal_is_explained_with_its_reason(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0.000001"})
    with pytest.raises(errors.BudgetExceeded):
        await served(gw, "r1", "echo", thread="poor")
    told = await trunkline("audit", "explain", "r1", "--thread", "poor")
    assert "refused (event" in told.out
    assert "budget_exceeded" in told.out


async def test_what_can_not_be_found_or_is_asked_wrongly_says_what_to_do(trunkline: Trunkline, gw: Gateway) -> None:
    missing = await trunkline("audit", "explain", "nobody")
    assert (missing.code, "no event of a request 'nobody'" in missing.err) == (3, True)
    assert missing.err.endswith("see `trunkline events replay --category thread`\n")
    assert (await trunkline("audit", "explain")).code == 2
    assert (await trunkline("audit", "explain", "r", "--event", "1")).code == 2


async def test_a_decision_that_was_forged_is_told_with_exit_code_7(
    trunkline: Trunkline, gw: Gateway, log: JetStreamLog
) -> None:
    seq = await served(gw, "r1", "echo", thread="t")
    good = await trunkline("audit", "redecide")
    assert (good.code, good.out) == (0, "")
    assert "1 decisions made again from the log, 0 came out differently" in good.err
    decision = (await log.get(seq - 1) or recorded(None)).body
    assert isinstance(decision, RouteDecided)
    forged = structs.replace(decision, model="tokens", request_id="forged", attempt_id="forged-1")
    await log.append(new(forged, "t2"))
    bad = await trunkline("audit", "redecide")
    assert bad.code == 7
    assert "\tforged\t" in bad.out
    assert "model" in bad.out
    explained = await trunkline("audit", "explain", "forged", "--thread", "t2")
    assert (explained.code, "differs in: " in explained.err) == (7, True)
    told = (await trunkline("audit", "redecide", "--json", "--since", "1h")).json
    assert (told["decisions"], told["differing"][0]["request_id"]) == (2, "forged")
    assert (await trunkline("audit", "redecide", "--until", str(seq))).code == 0


async def test_a_policy_is_tried_before_it_is_published(trunkline: Trunkline, gw: Gateway, tmp_path: Path) -> None:
    for number in range(3):
        await served(gw, f"r{number}")
    await served(gw, "named", "echo")
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    told = await trunkline("policy", "dry-run", str(file))
    assert told.code == 0, told
    assert told.out.splitlines() == [
        "tokens\techo\t3",
        "4 requests: 1 served by the same model, 3 by another, 0 by none",
        "cost of 4 whose tokens are known: $0.00001 → $0.000256",
    ]
    last = await trunkline("policy", "dry-run", str(file), "--last", "1", "--json")
    assert last.json["requests"] == 1
    assert (await trunkline("policy", "get", "--json")).json["version"] == 0, "nothing was published"
    file.write_text("rules:\n- name: all\n  use: [gpt-9]\n")
    bad = await trunkline("policy", "dry-run", str(file))
    assert (bad.code, "rules[0].use[0]" in bad.err) == (2, True)
    assert (await trunkline("policy", "dry-run", str(file), "--last", "0")).code == 2


async def test_a_dry_run_without_requests_says_so(trunkline: Trunkline, gw: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    told = await trunkline("policy", "dry-run", str(file), "--since", "1h")
    assert (told.code, "no request is recorded there" in told.err) == (0, True)
