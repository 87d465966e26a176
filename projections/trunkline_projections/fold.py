"""What a fold is: a name, the categories it reads, and a pure step."""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

import msgspec
from trunkline_events.codec import CODEC
from trunkline_events.envelope import RecordedEvent

S = TypeVar("S")


class Fold(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A pure fold over some categories. `name` identifies its snapshots; `state` is the type of its state.

    `step(state, event)` is total and never objects; it gets only events this version knows. `follows_all`: the whole
    log is followed and the rest passed over, for folds of most of it. The server sends what several filters pass one
    message at a time, which takes twice as long as taking everything.
    """

    name: str
    categories: tuple[str, ...]
    state: type[S]
    initial: Callable[[], S]
    step: Callable[[S, RecordedEvent], S]
    follows_all: bool = False

    def schema(self) -> str:
        """A hash of all that makes the state what it is: a snapshot under another one is no snapshot of this fold.

        It covers the shape of the state, the categories, the names of the events there are in them with the steps that
        bring old ones up to date, and the code of `initial` and `step` with all of ours that they call. Comments,
        docstrings and formatting don't count; another version of Python may count as a change.
        """
        return _schema(self)


@lru_cache(maxsize=64)
def _schema(fold: Fold[Any]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.json.schema(fold.state), order="sorted"))
    read = [name for name in (*CODEC.types, *CODEC.upcasters) if name.partition(".")[0] in fold.categories]
    steps = [CODEC.upcasters[name] for name in sorted(read) if name in CODEC.upcasters]
    for part in _Parts().of((fold.categories, sorted(read), steps, fold.initial, fold.step)):
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()[:16]


_SIMPLE = (str, bytes, int, float, complex, type(None), type(...))
_OURS = "trunkline_"


class _Parts:
    """What a value is made of, as text that is the same in every process: of functions their code, and so on down."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._held: list[Any] = []

    def of(self, value: Any) -> Iterator[str]:
        if isinstance(value, _SIMPLE):
            yield repr(value)
        elif isinstance(value, tuple | list):
            yield f"{len(value)} in order"
            for one in value:
                yield from self.of(one)
        elif isinstance(value, set | frozenset):
            yield from sorted(repr(list(_Parts().of(one))) for one in value)  # their own order differs by process
        elif isinstance(value, dict):
            yield from self.of(list(value.items()))
        elif isinstance(value, msgspec.Struct):
            yield from self.of([type(value).__qualname__, msgspec.structs.asdict(value)])
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            self._held.append(value)  # so that no other value gets its id
            yield from self._definition(value)

    def _definition(self, value: Any) -> Iterator[str]:
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        yield name
        if isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, type) and value.__module__.startswith(_OURS):
            for _, member in sorted(vars(value).items()):
                inner = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
                if isinstance(inner, FunctionType):
                    yield from self.of(inner)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield from self.of([function.__defaults__, function.__kwdefaults__])
        yield from self.of([cell.cell_contents for cell in function.__closure__ or ()])
        names: set[str] = set()
        yield from self._code(function.__code__, function.__doc__, names)
        for name in sorted(names & function.__globals__.keys()):
            value = function.__globals__[name]
            if not isinstance(value, ModuleType):
                yield from self._global(value)
            elif value.__name__.startswith(_OURS):
                for attribute in sorted(names & vars(value).keys()):
                    yield from self._global(vars(value)[attribute])

    def _global(self, value: Any) -> Iterator[str]:
        """A function of somebody else's counts by its name: what it does changes with its own release."""
        home = getattr(value, "__module__", None)
        foreign = isinstance(value, FunctionType) and home is not None and not _is_ours(value)
        yield from (f"{home}.{value.__qualname__}",) if foreign else self.of(value)

    def _code(self, code: CodeType, doc: str | None, names: set[str]) -> Iterator[str]:
        names.update(code.co_names)
        yield repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._code(constant, None, names)
            elif constant is not None and constant != doc:  # without a docstring there is None in its place
                yield from self.of(constant)


def _is_ours(function: FunctionType) -> bool:
    """Whether it is part of this project or of whoever wrote the fold, and not of a library."""
    file = function.__code__.co_filename
    return function.__module__.startswith(_OURS) or not ("site-packages" in file or "/lib/python" in file)
