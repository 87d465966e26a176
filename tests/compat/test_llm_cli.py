"""The command `llm`, with Trunkline's models in its own file of OpenAI-compatible ones."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from compat_kit import TEXT, UNKNOWN, Done, Served, finished, python
from upstream import Upstream

pytest_plugins = ["engine"]
pytestmark = pytest.mark.compat

Llm = Callable[..., Awaitable[Done]]
MODELS = ("tiny", "cut", "flaky", "none")
FUNCTION = '''
def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny in " + city
'''


@pytest.fixture
def llm(served: Served, tmp_path: Path) -> Llm:
    """Runs `llm` as somebody who wrote down our models there."""
    models = [
        {
            "model_id": f"trunkline/{name}",
            "model_name": name,
            "api_base": f"{served.url}/v1",
            "api_key_name": "trunkline",
            "supports_tools": True,
            "supports_schema": True,
        }
        for name in MODELS
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))

    async def run(*arguments: str, key: str = served.key) -> Done:
        (tmp_path / "keys.json").write_text(json.dumps({"trunkline": key}))
        return await finished(python("llm"), *arguments, cwd=tmp_path, environ={"LLM_USER_PATH": str(tmp_path)})

    return run


async def test_it_answers_plain_and_streamed_with_usage(llm: Llm) -> None:
    for more in ((), ("--no-stream",)):
        done = await llm("-m", "trunkline/tiny", "hi", "--usage", *more)
        assert (done.code, done.out.strip()) == (0, TEXT), done
        assert "Token usage" in done.err
    logged = json.loads((await llm("logs", "--json")).out)
    assert len(logged) == 2
    assert {one["response"].strip() for one in logged} == {TEXT}
    assert all(one["input_tokens"] > 0 and one["output_tokens"] > 0 for one in logged)


async def test_a_tool_is_run_and_its_result_answered(llm: Llm) -> None:
    done = await llm("-m", "trunkline/tiny", "hi", "--functions", FUNCTION, "--tools-debug")
    assert (done.code, done.out.strip()) == (0, TEXT), done
    assert "sunny in Paris" in done.err


async def test_a_schema_is_obeyed(llm: Llm) -> None:
    schema = {"type": "object", "properties": {"old": {"type": "boolean"}}, "required": ["old"]}
    done = await llm("-m", "trunkline/tiny", "hi", "--schema", json.dumps(schema))
    assert isinstance(json.loads(done.out)["old"], bool), done


async def test_errors_are_told(llm: Llm, refusals: Callable[[], Awaitable[int]], poor: str) -> None:
    missing = await llm("-m", "trunkline/none", "hi")
    assert missing.code == 1
    assert "no model" in missing.err
    refused = await llm("-m", "trunkline/tiny", "hi", key=UNKNOWN)
    assert refused.code == 1
    assert "401" in refused.err
    before = await refusals()
    over = await llm("-m", "trunkline/tiny", "hi", key=poor)
    assert over.code == 1
    assert "of the budget" in over.err
    assert await refusals() == before + 1


async def test_it_asks_again_by_itself(llm: Llm, flaky: Upstream) -> None:
    assert (await llm("-m", "trunkline/flaky", "hi")).out.strip() == "again"
    assert len(flaky.requests) == 2


async def test_a_stream_that_breaks_off_is_an_error(llm: Llm) -> None:
    done = await llm("-m", "trunkline/cut", "hi")
    assert (done.code, done.out.strip()) == (1, "w1 w2 w3")
    assert "broke off" in done.err
