"""Paths that ask one command of the bus: what they take becomes its arguments, its reply is their answer.

No rule is made here: what makes sense, who may, and what happens is for the actor to say that serves the command.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, UnsetType, inspect
from trunkline_actors.keys import needed
from trunkline_actors.shapes import mistyped

from trunkline import errors
from trunkline.gateway.access import Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Access, Handler, Route

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

A = TypeVar("A", bound=Struct)

Arguments = dict[str, Any]
Shape = Callable[[Arguments], Arguments]
"""Makes the arguments of a command out of what came with a request."""


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query without fields."""


class Reason(Struct, frozen=True, kw_only=True):
    """Why it is done: recorded, with who asked."""

    reason: str | None = None


def on_bus(
    method: str,
    path: str,
    noun: str,
    verb: str,
    *,
    summary: str,
    tag: str,
    gives: Any,
    asks: type[Struct] = Nothing,
    takes: Any = None,
    status: int = 200,
    named: dict[str, str] = {},  # noqa: B006
    shape: Shape = dict,
) -> Route:
    """The route that asks `trunkline.<noun>.<verb>`.

    Its arguments are those of the query (`asks`), of the body (`takes`) and of the path, where `named` says what a part
    is called on the bus. Who may is what the command takes.
    """

    async def handler(edge: "Edge", request: HttpRequest, principal: Principal) -> None:
        arguments = {**given_in_query(request, asks), **(await given_in_body(request) if takes is not None else {})}
        for part, value in request.params.items():
            name = named.get(part, part)
            if arguments.get(name, value) != value:
                raise invalid(f"the path names {value!r}, the rest {arguments[name]!r}; leave {name} out", name)
            arguments[name] = value
        reply = await getattr(getattr(edge.gateway, noun), verb)(**shape(arguments))
        await request.json(reply, status)

    access = needed(f"trunkline.{noun}.{verb}")
    return Route(
        method=method, path=path, handler=handler, access=access, summary=summary, tag=tag,
        takes=takes, gives=gives, asks=asks, status=status,
    )  # fmt: skip


def composed(
    method: str,
    path: str,
    answer: Callable[["Edge", HttpRequest, A], Awaitable[Any]],
    *,
    asks: type[A],
    access: Access,
    summary: str,
    tag: str,
    gives: Any,
) -> Route:
    """The route that answers with what a function makes of several commands, or of the log."""

    async def handler(edge: "Edge", request: HttpRequest, principal: Principal) -> None:
        await request.json(await answer(edge, request, query_of(request, asks)))

    found: Handler = handler
    return Route(
        method=method, path=path, handler=found, access=access, summary=summary, tag=tag, gives=gives, asks=asks
    )


def given_in_query(request: HttpRequest, asks: type[Struct]) -> Arguments:
    """The fields of the query that were given, each of its type. Raises InvalidRequest."""
    read = query_of(request, asks)
    fields = dict(zip(asks.__struct_encode_fields__, asks.__struct_fields__, strict=True))
    return {name: getattr(read, fields[name]) for name in request.query()}


def query_of(request: HttpRequest, asks: type[A]) -> A:
    """The query as a struct; lists are separated by commas. Raises InvalidRequest."""
    lists = lists_of(asks)
    found: Arguments = {}
    for name, text in request.query().items():
        found[name] = [part for part in text.split(",") if part] if name in lists else text
    unknown = sorted(set(found) - set(asks.__struct_encode_fields__))
    if unknown:
        known = ", ".join(asks.__struct_encode_fields__) or "none"
        raise invalid(f"{unknown[0]!r} is no field of this query; there are: {known}", unknown[0])
    try:
        return msgspec.convert(found, asks, strict=False)
    except msgspec.ValidationError as error:
        message, path = mistyped(error)
        raise invalid(message, path.lstrip(".") or None) from None


def lists_of(asks: type[Struct]) -> frozenset[str]:
    """The fields of a query that are lists."""
    about = inspect.type_info(asks)
    assert isinstance(about, inspect.StructType)
    return frozenset(field.name for field in about.fields if _is_list(field.type))


def _is_list(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_list(kind.type)
    return isinstance(kind, inspect.ListType)


async def given_in_body(request: HttpRequest) -> Arguments:
    """The body's fields: a JSON object, or nothing at all. Raises InvalidRequest."""
    body = await request.body()
    try:
        fields: Arguments = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the body must be a JSON object: {error}", None) from None
    return fields


def without(
    name: str, doc: str, kind: type[Struct], *left_out: str, optional: bool = False, more: dict[str, Any] | None = None
) -> type[Struct]:
    """A struct with the fields of another but for some; `optional`: none of them must be given. `more` are others."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.name in left_out:
            continue
        if optional:
            fields.append((field.name, field.type | UnsetType, UNSET))
        elif field.required:
            fields.append((field.name, field.type))
        else:
            default = field.default if field.default is not NODEFAULT else msgspec.field(
                default_factory=field.default_factory
            )  # fmt: skip
            fields.append((field.name, field.type, default))
    for other, type_ in (more or {}).items():
        fields.append((other, type_) if isinstance(type_, type) else (other, type_, None))
    made = msgspec.defstruct(name, fields, frozen=True, kw_only=True, namespace={"__doc__": doc})
    made.__doc__ = doc
    return made


def invalid(message: str, param: str | None) -> errors.InvalidRequest:
    """A request that makes no sense."""
    return errors.InvalidRequest(message, code="invalid_request", status=400, param=param)
