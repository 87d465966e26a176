"""`trunkline models` and `trunkline providers`."""

import argparse
from typing import Any

from trunkline.cli import local_models
from trunkline.cli.failures import UNAVAILABLE, UsageError
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_DONE = {
    "register": "registered",
    "update": "updated",
    "enable": "enabled",
    "disable": "disabled",
    "retire": "retired",
    "remove": "removed",
    "deploy": "deployed",
    "promote": "promoted",
}
_MODEL_COLUMNS = ("id", "provider", "upstream", "status", "capabilities", "price", "tags")
_FOUND_COLUMNS = ("id", "match", "scores", "provider", "circuit", "success", "p50_ms", "price")
_KNOWN_COLUMNS = ("name", "kind", "context_window", "max_output", "features", "capabilities", "price", "retires")
_COLUMNS = {"list": _MODEL_COLUMNS, "discover": _FOUND_COLUMNS, "catalogue": _KNOWN_COLUMNS}
_PROVIDER_COLUMNS = ("id", "kind", "base_url", "local", "secret", "max_concurrency")


def run(args: argparse.Namespace) -> int:
    """Ask one command of the registry and print its reply."""
    if getattr(args, "local", None) and args.command == "models":
        return local_models.show_local(args)
    noun, verb = args.command, args.verb
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        family = gateway.models if noun == "models" else gateway.providers
        reply = await getattr(family, verb)(**asked)
        _print(noun, verb, reply, as_json=args.json)
        return _code(verb, reply)

    return with_gateway(args, ask)


def _code(verb: str, reply: dict[str, Any]) -> int:
    if reply.get("drained") is False:
        if reply["running"]:
            say(f"trunkline: its time is over, and calls still run: {reply['running']}\n  next: wait for them to end")
        else:
            say("trunkline: its time was over before it was certain that nothing runs\n  next: give it 3 seconds")
        return UNAVAILABLE
    if verb != "check" or reply["reachable"]:
        return 0
    if not reply["serving"]:
        say("trunkline: no process serves it\n  next: start one with `trunkline run provider`")
        return UNAVAILABLE
    plugin = reply.get("plugin") or {}
    if plugin.get("state") == "failed":
        say(f"trunkline: {reply['problem']}\n  next: see `trunkline plugins get {plugin['name']}`")
        return UNAVAILABLE
    say(f"trunkline: {reply['problem']}\n  next: look at its base URL and its secret with `trunkline providers get`")
    return UNAVAILABLE


def _print(noun: str, verb: str, reply: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(reply)
    elif verb in _COLUMNS:
        _print_page(noun, verb, reply)
    elif verb == "get":
        fields(reply[noun.removesuffix("s")])
    elif verb == "check":
        fields({name: value for name, value in reply.items() if name != "ok"})
    elif reply.get("changed") is False:
        show(f"{reply['id']} was {_DONE[verb]} already")
    else:
        show(f"{reply['id']} {_DONE[verb]}{_version(verb, reply)} (event {reply['seq']})")
        for warning in reply.get("warnings", ()):
            say(f"warning: {warning}")
        if reply.get("drained"):
            say("nothing runs there any more")
        if reply.get("serving") is False:
            say("no process serves it yet; next: start one with `trunkline run provider`")


def _print_page(noun: str, verb: str, reply: dict[str, Any]) -> None:
    """A table of what was found, and how to see more."""
    columns = _PROVIDER_COLUMNS if noun == "providers" else _COLUMNS[verb]
    if verb == "discover":
        table(columns, [_found(one) for one in reply["models"]])
        if reply["count"] > len(reply["models"]):
            say(f"there are {reply['count']:,}; next: --limit {min(reply['count'], 1000)}")
        return
    table(columns, [[_shown(column, entry[column]) for column in columns] for entry in reply[noun]])
    if reply["after"] is not None:
        say(f"there are more; next: --after {reply['after']}")


def _version(verb: str, reply: dict[str, Any]) -> str:
    """Which version serves after a deployment, and which is tried out."""
    if verb not in {"deploy", "promote"}:
        return ""
    model = reply["model"]
    canary = model["canary"]
    tried = "" if canary is None else f", {canary['version']} for {canary['weight']:g} of the requests"
    return f": version {model['version']}{tried}"


def _found(one: dict[str, Any]) -> list[Any]:
    """A model that was discovered, as a row."""
    model, measured = one["model"], one["measured"] or {}
    shown = {
        "id": model["id"],
        "provider": model["provider"],
        "circuit": one["circuit"],
        "match": f"{one['match']:.2f}",
        "scores": [f"{name}={score:.2g}" for name, score in one["scores"].items()],
        "success": f"{measured['success']:.2f}" if "success" in measured else None,
        "p50_ms": measured.get("p50_ms"),
        "price": _shown("price", model["price"]),
    }
    return [shown[column] for column in _FOUND_COLUMNS]


def _shown(column: str, value: Any) -> Any:
    if column == "price" and value:
        return f"{value['input']}/{value['output']}"
    if column == "capabilities" and value:
        return [name if score == 1 else f"{name}={score:g}" for name, score in value.items()]
    return value


# -- arguments ---------------------------------------------------------------------------------------------------------


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The command's arguments: only what was given."""
    match args.command, args.verb:
        case "models", "register" | "update":
            given = _model(args)
            if args.verb == "register":
                given |= _named(args)
        case "providers", "register" | "update":
            given = _provider(args)
        case "models", "deploy":
            described = ("provider", "upstream", "version", "weight", "reason")
            given = {**{name: getattr(args, name) for name in described}, "price": _price(args)}
        case "models", "discover":
            given = _looked_for(args)
        case "models", "catalogue":
            filters = ("kind", "family", "context_window", "limit", "after")
            given = {name: getattr(args, name) for name in filters} | _able(args)
        case "models", "disable" | "retire" | "remove":
            given = {"reason": args.reason, "force": args.force or None, "drain_s": getattr(args, "drain", None)}
        case _:
            names = ("limit", "after", "provider", "status", "capability", "tag", "reason")
            given = {name: getattr(args, name, None) for name in names}
    if hasattr(args, "id"):
        given["id"] = args.id
    return {name: value for name, value in given.items() if value is not None}


def _model(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "provider": args.provider,
        "upstream": args.upstream,
        "version": args.version,
        "price": _price(args),
        "context_window": args.context_window,
        "max_output": args.max_output,
        "capabilities": _scores(args.capability) or None,
        "features": args.feature or None,
        "tags": args.tag or None,
        "reason": args.reason,
    }


def _named(args: argparse.Namespace) -> dict[str, Any]:
    """Where a new model is described: in the catalogue, or by an id and a provider at least."""
    if args.from_catalogue is None and (args.id is None or args.provider is None):
        raise UsageError("a model needs an ID and its --provider, or a name from the catalogue: --from-catalogue NAME")
    return {"from_catalogue": args.from_catalogue}


def _able(args: argparse.Namespace) -> dict[str, Any]:
    """What a model that is looked for can do at least."""
    return {"capabilities": _scores(args.capability, otherwise=0) or None, "features": args.feature or None}


def _looked_for(args: argparse.Namespace) -> dict[str, Any]:
    return {
        **_able(args),
        "tags": args.tag or None,
        "local_only": args.local_only or None,
        "context_window": args.context_window,
        "limit": args.limit,
    }


def _price(args: argparse.Namespace) -> dict[str, str] | None:
    if args.price_input is None and args.price_output is None and args.price_cached_input is None:
        return None
    if args.price_input is None or args.price_output is None:
        raise UsageError("a price needs both --price-input and --price-output")
    price = {"input": args.price_input, "output": args.price_output}
    return price if args.price_cached_input is None else {**price, "cached_input": args.price_cached_input}


def _scores(given: list[str], otherwise: float = 1) -> dict[str, float]:
    scores: dict[str, float] = {}
    for text in given:
        name, _, score = text.partition("=")
        try:
            scores[name] = float(score or otherwise)
        except ValueError:
            raise UsageError(f"--capability {text}: {score!r} is not a number from 0 to 1") from None
    return scores


def _provider(args: argparse.Namespace) -> dict[str, Any]:
    pairs = [text.partition("=") for text in args.header]
    if any(not separator for _, separator, _ in pairs):
        raise UsageError("--header takes NAME=VALUE")
    return {
        "kind": args.kind,
        "base_url": args.base_url,
        "secret": args.secret,
        "local": args.local,
        "transport": args.transport,
        "max_concurrency": args.max_concurrency,
        "timeout_s": args.timeout,
        "first_token_timeout_s": args.first_token_timeout,
        "stall_timeout_s": args.stall_timeout,
        "queue_timeout_s": args.queue_timeout,
        "breaker_failures": args.breaker_failures,
        "breaker_open_s": args.breaker_open,
        "data": args.data or None,
        "headers": {name: value for name, _, value in pairs} or None,
        "reason": args.reason,
    }
