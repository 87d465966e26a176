"""`trunkline models metrics`, as a user has it."""

import pytest
from cli_kit import Trunkline
from processes import until
from trunkline.client import Gateway
from trunkline.host import Host

pytest_plugins = ["gateway", "console"]

HELLO = [{"role": "user", "content": "hello"}]


async def test_metrics_are_a_table_of_what_a_model_did_in_each_step_and_does_now(
    trunkline: Trunkline, gw: Gateway, host: Host
) -> None:
    await gw.chat.create("echo", HELLO)
    await until(lambda: host.runtime.board.versions("echo").get("1") is not None)
    await until(lambda: host.runtime.board.versions("echo")["1"].calls == 1)
    await host.runtime.minutes.write(everything=True)
    done = await trunkline("models", "metrics", "echo", "--since", "2h", "--step", "5m")
    assert done.code == 0
    step, now = (line.split("\t") for line in done.out.splitlines())
    assert step[0].endswith("0:00.000000Z") or step[0].endswith("5:00.000000Z")
    assert step[1:5] == ["1", "1", "0", "1.0"]
    assert now[:3] == ["last 5 min", "1", "1"]


async def test_metrics_as_json_are_the_reply(trunkline: Trunkline) -> None:
    done = await trunkline("models", "metrics", "echo", "--until", "2026-11-20T12:00:00Z", "--since", "400d", "--json")
    assert done.json["series"] == []
    assert (done.json["id"], done.json["step_s"]) == ("echo", 60)


async def test_a_model_that_nobody_called_has_no_metrics(trunkline: Trunkline) -> None:
    done = await trunkline("models", "metrics", "slow")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("slow was not called between ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["nobody"], 3, "trunkline models list", id="no such model"),
        pytest.param(["echo", "--step", "90s"], 2, "--step 90s", id="no whole minutes"),
        pytest.param(["echo", "--since", "soon"], 2, "'soon' is no time", id="no time"),
        pytest.param(["echo", "--until", "1d", "--since", "1h"], 2, "since must be before until", id="no time between"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    trunkline: Trunkline, arguments: list[str], code: int, said: str
) -> None:
    done = await trunkline("models", "metrics", *arguments)
    assert done.code == code
    assert said in done.err
