"""What the documents promise exists: make targets, commands, links, decisions, the event catalogue."""

import argparse
import importlib
import json
import re
from pathlib import Path

import pytest
from test_architecture import tracked_files

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DECISIONS = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")
PAGES = [path.relative_to(ROOT).as_posix() for path in tracked_files() if path.suffix == ".md"]

FENCE = re.compile(r"^ *(```+|~~~+)[^\n]*\n(.*?)^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|<(?:a|img)\b[^>]*?(?:href|src)=\"([^\"]+)\"",
    re.MULTILINE,
)
FOREIGN = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_lines(text: str) -> list[str]:
    """The lines of fenced blocks, and each inline code span as a line: prose may say "make sure" freely."""
    fenced = [line for match in FENCE.finditer(text) for line in match[2].splitlines()]
    return [line.strip() for line in fenced] + [
        span.strip() for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    ]


def make_targets_in(lines: list[str]) -> set[str]:
    return {target for line in lines for target in re.findall(r"(?:^|[$;&|(] ?)make +([a-z][a-z-]*)", line)}


def verbs_in(lines: list[str]) -> set[str]:
    """The word after `trunkline` where it is a command; `models|providers VERB` counts as two."""
    command = re.compile(r"(?:^|[$;&|(] ?|\b(?:run|exec) |/bin/)trunkline +([a-z][a-z-]*(?:\|[a-z][a-z-]*)*)")
    return {verb for line in lines for match in command.finditer(line) for verb in match[1].split("|")}


def targets_of_makefile() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", read(ROOT / "Makefile"), re.MULTILINE))


def test_the_readme_names_only_make_targets_that_exist() -> None:
    named = make_targets_in(code_lines(read(README)))
    assert {"run", "test"} <= named, "the README says how to run and how to test"
    assert named <= targets_of_makefile()


def test_the_makefile_has_the_targets_of_the_contract() -> None:
    assert {"setup", "run", "demo", "test", "check", "bench", "soak", "lock", "clean", "help"} <= targets_of_makefile()


def test_the_readme_names_only_verbs_the_command_line_knows() -> None:
    parser: argparse.ArgumentParser = importlib.import_module("trunkline.cli.main").build_parser()
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    known = {verb for verbs in choices for verb in verbs}
    named = verbs_in(code_lines(read(README)))
    assert named, "the README shows at least one command"
    assert named <= known


def test_there_are_decisions_to_check() -> None:
    assert DECISIONS, "docs/decisions holds one page for each decision"


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_says_context_decision_cost_and_how_to_undo(path: Path) -> None:
    headings = {heading.strip().lower() for heading in re.findall(r"^#+ +(.+)$", read(path), re.MULTILINE)}
    missing = {"context", "decision", "cost", "how to undo"} - headings
    assert not missing, f"{path.name} lacks {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_a_relative_link_leads_to_a_file(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", read(path)))
    targets = ["".join(match.groups(default="")) for match in LINK.finditer(text)]
    files = [target.partition("#")[0] for target in targets if not FOREIGN.match(target)]
    broken = [
        file for file in files if not ((ROOT if file.startswith("/") else path.parent) / file.lstrip("/")).exists()
    ]
    assert not broken, f"{page} links to what isn't there: {broken}"


def test_the_versions_of_clients_are_those_that_make_compat_installs() -> None:
    told = re.findall(r"^\| `([^`]+)`[^|]* \| ([\d.]+) \|", read(ROOT / "docs" / "http.md"), re.MULTILINE)
    packages = json.loads(read(ROOT / "tests" / "compat" / "package.json"))["devDependencies"]
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", read(ROOT / "requirements-compat.lock"), re.MULTILINE))
    assert len(told) == 9
    assert [one for one in told if one[1] not in (packages.get(one[0]), locked.get(one[0]))] == []


def test_the_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## \[?Unreleased\]?$", read(ROOT / "CHANGELOG.md"), re.MULTILINE)


def test_the_event_catalogue_is_the_generated_one() -> None:
    render = importlib.import_module("trunkline.catalogue").render
    assert read(ROOT / "events" / "README.md") == render(), (
        "events/README.md is stale: write trunkline.catalogue.render() to it"
    )
