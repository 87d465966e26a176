"""The page about workflows: its programs, as they stand there, do what the page says."""

import asyncio
import re
import shlex
import sys
from pathlib import Path

import pytest
from cli_kit import Trunkline, environment
from trunkline.workflows import BadWorkflow, LLMStep, Workflow

pytest_plugins = ["gateway", "console"]

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text(encoding="utf-8")
TWEET, PROGRAM, *PARTS = re.findall(r"^```python\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tweet.py").write_text(TWEET)
    return tmp_path


async def test_the_first_workflow_runs_with_the_command_of_the_page(folder: Path, trunkline: Trunkline) -> None:
    command = re.search(r"^trunkline (workflows run tweet.py --input '{.+)$", PAGE, re.MULTILINE)
    assert command
    done = await trunkline(*shlex.split(command[1]))
    assert (done.code, done.out) == (0, "Write about foxes.\n"), done


async def test_the_program_of_the_page_runs(folder: Path, bus_url: str, trunkline: Trunkline) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM), cwd=folder, env=environment(TRUNKLINE_NATS=bus_url), stdout=-1
    )
    out, _ = await program.communicate()
    assert out.startswith(b"Write about foxes. 0.00"), out


@pytest.mark.parametrize("part", PARTS, ids=["form", "middleware"])
def test_its_other_parts_are_python(part: str) -> None:
    exec(compile(part, "docs/workflows.md", "exec"), {"LLMStep": LLMStep, "__name__": "page"})


def test_a_workflow_that_makes_no_sense_is_told_in_the_words_of_the_page() -> None:
    with pytest.raises(BadWorkflow) as bad:
        Workflow("w", [LLMStep("draft", "x"), LLMStep("next", "{draf}")], input={"properties": {}})
    assert str(bad.value) in PAGE
