"""Analyzers of others, installed as any package is: found by name, and kept from doing harm."""

import asyncio
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from trunkline_actors.analyzers import ABANDONED, BUILT_IN, GROUP, Analyzers

BODY = b'{"messages": [{"role": "user", "content": "why secretword"}]}'
CODE = """
import threading
gate = threading.Event()
loaded = True
running = []

def good(body, operation):
    return ["team:a", operation, f"bytes:{len(body)}"]

def raises(body, operation):
    raise ValueError(f"can't make sense of {body!r}")

def exits(body, operation):
    raise SystemExit(1)

def prompts(body, operation):
    return [body.decode()]

def nothing(body, operation):
    return None

def slow(body, operation):
    running.append(threading.current_thread())
    gate.wait(20)
    return ["late"]
"""
PATIENT = 0.4
"""Seconds: those that are quick must not be taken for slow on a busy machine."""
NAMES = ("good", "raises", "exits", "prompts", "nothing", "slow")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with analyzers, as an installer leaves it behind."""
    (tmp_path / "their_analyzers.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "broken_analyzer.py").write_text("raise RuntimeError('secretword')")
    info = tmp_path / "their_analyzers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-analyzers\nVersion: 1.0\n")
    lines = [f"{name} = their_analyzers:{name}" for name in NAMES]
    lines += ["broken = broken_analyzer:analyze", "absent = their_analyzers:absent"]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    if "their_analyzers" in sys.modules:
        sys.modules.pop("their_analyzers").gate.set()


@pytest.fixture
async def analyzers(installed: None) -> AsyncIterator[Analyzers]:
    several = Analyzers(PATIENT)
    yield several
    several.close()


async def test_an_installed_analyzer_is_loaded_when_it_is_named(analyzers: Analyzers) -> None:
    assert "their_analyzers" not in sys.modules
    assert await analyzers.hints(None, BODY, "chat") == []
    assert "short" in await analyzers.hints(BUILT_IN, BODY, "chat")
    assert "their_analyzers" not in sys.modules
    assert await analyzers.hints("good", BODY, "chat") == ["team:a", "chat", f"bytes:{len(BODY)}"]
    assert not analyzers.failed


@pytest.mark.parametrize("name", ["raises", "exits", "prompts", "nothing", "broken", "absent", "never-installed"])
async def test_one_that_fails_gives_no_hints_is_counted_and_told_without_the_prompt(
    analyzers: Analyzers, name: str
) -> None:
    with capture_logs() as logs:
        assert await analyzers.hints(name, BODY, "chat") == []
        assert await analyzers.hints(name, BODY, "chat") == []
    assert analyzers.failed == {name: 2}
    told = [entry["event"] for entry in logs if entry["event"].startswith("analyzer.")]  # others may log meanwhile
    assert told == ["analyzer.failed"], "told once, not at every request"
    assert "secretword" not in str(logs)
    assert await analyzers.hints("good", BODY, "chat") != []


async def test_one_that_takes_too_long_is_left_alone_and_the_loop_goes_on(analyzers: Analyzers) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(ABANDONED):
        before = turns
        assert await analyzers.hints("slow", BODY, "chat") == []
        assert turns > before + 1
    counting.cancel()
    late = sys.modules["their_analyzers"].running
    assert len(late) == ABANDONED
    assert await analyzers.hints("slow", BODY, "chat") == []
    assert len(late) == ABANDONED, "it is not asked any more"
    assert analyzers.failed == {"slow": ABANDONED + 1}
    sys.modules["their_analyzers"].gate.set()
    await asyncio.to_thread(lambda: [thread.join() for thread in late])
    assert await analyzers.hints("slow", BODY, "chat") == ["late"], "it came back"


async def test_requests_at_once_each_get_their_own_hints(analyzers: Analyzers) -> None:
    await analyzers.hints("good", BODY, "chat")
    bodies = [b"x" * size for size in range(20)]
    found = await asyncio.gather(*(analyzers.hints("good", body, "embeddings") for body in bodies))
    assert found == [["team:a", "embeddings", f"bytes:{size}"] for size in range(20)]


async def test_threads_end_with_those_they_work_for(installed: None) -> None:
    several = Analyzers(PATIENT)
    await several.hints("good", BODY, "chat")
    thread = next(one for one in threading.enumerate() if one.name == "analyzer good")
    several.close()
    await asyncio.to_thread(thread.join)
