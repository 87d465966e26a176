"""Modules with workflows: what is found in them, and what is said of those that can't be used."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from trunkline.errors import BadImport
from trunkline.workflow_imports import book_of, pick

GOOD = """
from trunkline.workflows import Middleware, TransformStep, WaitStep, Workflow

print("hello")

def shout(word):
    return word

class Around(Middleware):
    pass

MIDDLEWARE = [Around()]
one = other_name = Workflow("one", [TransformStep("s", shout)])
two = Workflow("two", [WaitStep("w", "w")])
"""
FILES = {
    "good.py": GOOD,
    "folder/deep.py": "import beside\nfrom trunkline.workflows import *\nw = Workflow('w', [WaitStep('a', 'a')])\n",
    "folder/beside.py": "",
    "senseless.py": "from trunkline.workflows import *\n"
    "w = Workflow('w', [LLMStep('a', '{b}'), LLMStep('b', '{c}')], input={'properties': {}})\n",
    "ends.py": "import sys\nsys.exit(0)\n",
    "raises.py": "x = 1\ny = x / 0\n",
    "syntax.py": "def f(:\n",
    "needs.py": "import nowhere_to_be_found\n",
    "empty.py": "x = 1\n",
    "around.py": "from trunkline.workflows import Middleware\nMIDDLEWARE = [Middleware]\n",
    "json.py": "x = 1\n",
    "twice.py": "from trunkline.workflows import *\n"
    "a = Workflow('w', [WaitStep('a', 'a')])\nb = Workflow('w', [WaitStep('b', 'b')])\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with all these files in it; what is imported from it is forgotten."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("source", ["good", "good.py", "./good.py"])
def test_all_that_a_module_has_is_known_and_what_it_prints_goes_to_stderr(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book = book_of([source, source])
    assert (sorted(book.workflows), list(book.functions)) == (["one", "two"], ["good:shout"])
    assert [type(one).__name__ for one in book.middleware] == ["Around"]
    assert capsys.readouterr() == ("", "hello\n")


def test_a_file_finds_what_lies_beside_it_as_a_program_would(folder: Path) -> None:
    with pytest.raises(BadImport, match="No module named 'beside'"):
        pick("folder.deep")
    assert pick("folder/deep.py")[1].name == "w"


def test_a_workflow_is_picked_by_its_own_name_or_that_of_its_variable() -> None:
    assert {pick(f"good:{name}")[1].name for name in ("one", "other_name")} == {"one"}
    with pytest.raises(BadImport, match="several workflows: one, two; say which, like good:NAME"):
        pick("good")
    with pytest.raises(BadImport, match="no workflow 'three'; it has one, two"):
        pick("good:three")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("senseless.py", "a workflow makes no sense (line 2); mend these places:\n  steps[0].prompt: 'b' is"),
        ("ends", "ends ends the process (line 2 of ends.py) when it is imported; keep what runs below `if __name__"),
        ("raises.py", "raises.py can't be imported: ZeroDivisionError: division by zero (line 2); mend that first"),
        ("syntax", "SyntaxError: "),
        ("needs", "No module named 'nowhere_to_be_found' (line 1 of needs.py)"),
        ("empty.py", "empty.py has no workflow at its top; make one there"),
        ("around.py", "MIDDLEWARE must be a list of objects"),
        ("json.py", "there is a module 'json' already, which it would hide; rename the file"),
        ("twice", "twice has another workflow 'w'; rename one of the two"),
        ("nowhere", "there is no module 'nowhere' in "),
        ("folder.nowhere", "there is no module 'folder.nowhere' in "),
        ("nowhere.py", "there is no file nowhere.py"),
        ("no where", "is no name of a module; write it like flows.tweet"),
    ],
)
def test_what_can_not_be_used_says_why_and_what_to_do(source: str, said: str) -> None:
    with pytest.raises(BadImport) as bad:
        book_of([source])
    assert said in str(bad.value)
