"""The code that a process is told to import: workflows, the functions they need, and what stands around their steps.

A dotted name is found from the working folder on, as `python -m` finds it. A file is imported under its own name, with
its folder on the path, as `python FILE` finds what lies beside. Either way a function goes by the same name in every
process that is told the same, which is how one process goes on with what another one began.
"""

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from msgspec import Struct
from trunkline_actors.workflow_code import CodeBook, Middleware

from trunkline.errors import BadImport
from trunkline.workflows import BadWorkflow, Workflow

MIDDLEWARE = "MIDDLEWARE"
"""The list, at the top of a module, of what stands around steps."""


class Imported(Struct, frozen=True):
    """What a module has at its top: workflows by the names of their variables, and middleware in order."""

    source: str
    workflows: dict[str, Workflow]
    middleware: list[Middleware]


def book_of(sources: Sequence[str]) -> CodeBook:
    """All that these modules have. Raises BadImport."""
    book = CodeBook()
    for source in sources:
        found = imported(source)
        if not found.workflows and not found.middleware:
            raise BadImport(_nothing_in(source))
        add(found, book)
    return book


def add(found: Imported, book: CodeBook) -> None:
    """Make what a module has known. Raises BadImport where another workflow has the name of one of its."""
    for workflow in found.workflows.values():
        known = book.workflows.get(workflow.name, workflow.definition)
        if known != workflow.definition:
            raise BadImport(f"{found.source} has another workflow {workflow.name!r}; rename one of the two")
        workflow.register(book)
    book.middleware += [one for one in found.middleware if one not in book.middleware]


def pick(text: str) -> tuple[Imported, Workflow]:
    """The module, and the workflow in it, that `FILE|MODULE[:NAME]` means. Raises BadImport."""
    source, _, name = (text, "", "") if ":" not in text or Path(text).is_file() else text.rpartition(":")
    found = imported(source)
    if not found.workflows:
        raise BadImport(_nothing_in(source))
    add(found, CodeBook())
    names = {workflow.name: workflow for workflow in found.workflows.values()}
    if name:
        chosen = found.workflows.get(name) or names.get(name)
        if chosen is None:
            raise BadImport(f"{source} has no workflow {name!r}; it has {', '.join(sorted(names))}")
        return found, chosen
    if len(names) > 1:
        raise BadImport(f"{source} has several workflows: {', '.join(sorted(names))}; say which, like {source}:NAME")
    return found, next(iter(names.values()))


def imported(source: str) -> Imported:
    """Import a module, and look at what it has. What it prints goes to stderr. Raises BadImport."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = _from_file(source) if _is_file(source) else _from_name(source)
    except BadImport:
        raise
    except SystemExit as error:
        raise BadImport(
            f"{source} ends the process{_place(error, source)} when it is imported; "
            'keep what runs below `if __name__ == "__main__":`'
        ) from error
    except BadWorkflow as error:
        problems = "".join(f"\n  {problem}" for problem in error.problems)
        raise BadImport(
            f"{source}: a workflow makes no sense{_place(error, source)}; mend these places:{problems}"
        ) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise BadImport(f"{source} can't be imported: {what}{_place(error, source)}; mend that first") from error
    return Imported(source, _workflows_in(module), _middleware_in(module, source))


def _workflows_in(module: ModuleType) -> dict[str, Workflow]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Workflow)}


def _middleware_in(module: ModuleType, source: str) -> list[Middleware]:
    listed = getattr(module, MIDDLEWARE, [])
    if not isinstance(listed, list | tuple) or not all(isinstance(one, Middleware) for one in listed):
        raise BadImport(f"{source}: {MIDDLEWARE} must be a list of objects of kinds of Middleware, like [Audit()]")
    return list(listed)


def _nothing_in(source: str) -> str:
    return f'{source} has no workflow at its top; make one there, like `tweet = Workflow("tweet", [...])`'


# -- finding -----------------------------------------------------------------------------------------------------------


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source or Path(source).is_file()


def _from_name(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadImport(f"{name!r} is no name of a module; write it like flows.tweet, or as a file, flows/tweet.py")
    _look_in(folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and lacks another one
        raise BadImport(
            f"there is no module {name!r} in {folder} nor among what is installed; "
            "start in the folder it lies in, or name its file"
        ) from error


def _from_file(source: str) -> ModuleType:
    path = Path(source).resolve()
    if not path.is_file():
        raise BadImport(f"there is no file {source}; name one, or a module by its dotted name, like flows.tweet")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and _lies_at(getattr(known, "__file__", None), path):
        return known
    other = known if known is not None else (importlib.util.find_spec(name) if name.isidentifier() else None)
    if other is not None and not _lies_at(getattr(other, "origin", None), path):
        raise BadImport(f"{source}: there is a module {name!r} already, which it would hide; rename the file")
    _look_in(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadImport(f"{source} is no Python file; name one that ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _lies_at(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _place(error: BaseException, source: str) -> str:
    """Where in somebody's own code it happened, as far as that is known."""
    if isinstance(error, SyntaxError):
        return ""  # its message says so
    ours = str(Path(__file__).parent)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith((ours, "<"))]
    frames = [one for one in frames if "importlib" not in one.filename]
    if not frames:
        return ""
    file = Path(frames[-1].filename).name
    return f" (line {frames[-1].lineno}{'' if source.endswith(file) else f' of {file}'})"
