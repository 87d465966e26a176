"""`trunkline policy`: check, publish, show, compare and roll back routing policies; force a model instead."""

import argparse
import json
import re
import sys
from typing import Any

from trunkline.cli.documents import STDIN, as_yaml, read_document
from trunkline.cli.failures import USAGE, UsageError
from trunkline.cli.output import emit, plain, say, show, styled, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.errors import InvalidRequest

_COLUMNS = ("version", "published_at", "kind", "rules", "by", "reason")
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def run(args: argparse.Namespace) -> int:
    """Ask one command about the policy and print its reply; exit code 2 for a document that can't be published."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        try:
            reply = await getattr(gateway.policy, args.verb)(**asked)
        except InvalidRequest as error:
            if "problems" not in error.metadata:
                raise
            return _refused(error, as_json=args.json)
        if args.json:
            emit(reply)
        else:
            _PRINT[args.verb](args, reply)
        return USAGE if reply.get("valid") is False else 0

    return with_gateway(args, ask)


# -- arguments ---------------------------------------------------------------------------------------------------------


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The command's arguments: only what was given."""
    match args.verb:
        case "validate" | "publish":
            given = {"policy": read_document(args.file), "base": getattr(args, "base", None)}
        case "diff":
            given = _compared(args.before, args.to)
        case "override":
            if (args.model is None) != args.clear:
                raise UsageError("name the model that is to serve everything, or give --clear")
            given = {"for_s": None if args.duration is None else _seconds(args.duration)}
        case "rollback":
            given = {"to": args.to, "force": args.force or None}
        case "get":
            given = {"version": args.version}
        case _:
            given = {"limit": args.limit, "after": args.after}
    given["reason"] = getattr(args, "reason", None)
    asked = {name: value for name, value in given.items() if value is not None}
    if args.verb == "override":
        asked["model"] = args.model  # null is what clears it
    if args.verb in ("validate", "publish"):
        asked["policy"] = given["policy"]  # also where the file says null: the gateway says what that lacks
    return asked


def _compared(before: str | None, to: str | None) -> dict[str, Any]:
    """`diff`: nothing, one version, two versions, or a file after one version or none."""
    if before is not None and to is None and not before.isdecimal():
        before, to = None, before
    if before is not None and not before.isdecimal():
        raise UsageError(f"{before!r} is no version; a file comes second: diff VERSION FILE")
    start = {} if before is None else {"from": int(before)}
    if to is None:
        return start
    return {**start, "to": int(to)} if to.isdecimal() else {**start, "policy": read_document(to)}


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"--for {text}: write how long as 90s, 10m, 2h or 1d")
    return int(match[1]) * _SECONDS[match[2]]


# -- for readers -------------------------------------------------------------------------------------------------------


def _refused(error: InvalidRequest, *, as_json: bool) -> int:
    """All problems of a document, one a line."""
    problems = error.metadata["problems"]
    for problem in problems:
        say(_line(problem))
    more = error.metadata.get("count", len(problems)) - len(problems)
    if more:
        say(f"and {more:,} more")
    say("trunkline: the policy can't be published as it is\n  next: mend these places and publish it again")
    if as_json:
        facts = {"param": error.param, "metadata": error.metadata}
        emit({"error": {"code": error.code, "message": error.message, **facts}})
    return USAGE


def _line(problem: dict[str, str]) -> str:
    return f"{problem['path']}: {problem['message']}"


def _print_valid(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    for problem in reply["problems"]:
        show(_line(problem))
    _warn(reply)
    name = "stdin" if args.file == STDIN else args.file
    if reply["valid"]:
        show(f"{name} can be published")
    else:
        say(f"trunkline: {name} can't be published as it is\n  next: mend these places and check it again")


def _warn(reply: dict[str, Any]) -> None:
    for warning in reply["warnings"]:
        say(f"{styled('warning:', 'yellow', sys.stderr)} {_line(warning)}")


def _print_published(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    if not reply["changed"]:
        show(f"version {reply['version']} says the same and is in force already")
        return
    _warn(reply)
    what = f"rolled back to {reply['to']}" if "to" in reply else "published"
    show(f"version {reply['version']} {what} (event {reply['seq']})")


def _print_policy(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    """The document alone on stdout, so that it can be changed and published; the rest is a message."""
    version, current, reason = reply["version"], reply["current"], reply["reason"]
    told = f"version {version}" + (f" (in force: {current})" if version != current else ", in force")
    if reply["published_at"] is not None:
        told += f", published {reply['published_at']} by {reply['by']}" + (f": {reason}" if reason else "")
    else:
        told += ": no policy was ever published" if current == 0 else ": what was in force before the first"
    say(told)
    if reply["override"] is not None:
        say(f"overridden: {_overridden(reply['override'])}")
    show(as_yaml(reply["policy"]))


def _overridden(override: dict[str, Any]) -> str:
    until = "until it is cleared" if override["until"] is None else f"until {override['until']}"
    return f"every request goes to {override['model']} {until}" + (
        f" ({override['reason']})" if override["reason"] else ""
    )


def _print_history(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    rows = [[_kind(one) if column == "kind" else one[column] for column in _COLUMNS] for one in reply["versions"]]
    table(_COLUMNS, rows)
    if reply["after"] is not None:
        say(f"there are more; next: --after {reply['after']}")


def _kind(version: dict[str, Any]) -> str:
    return version["kind"] if version["to"] is None else f"{version['kind']} to {version['to']}"


def _print_diff(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    """One line a difference: `+` and `-` a rule, `~` a field, `>` a place."""
    to = "the document" if reply["to"] is None else f"version {reply['to']}"
    say(f"version {reply['from']} → {to}" + (": no difference" if reply["same"] else ""))
    difference = reply["diff"]
    for rule in difference["removed"]:
        _difference("-", "red", f"rule {_json(rule['name'])}")
    for rule in difference["added"]:
        _difference("+", "green", f"rule {_json(rule['name'])}: {_json(_unnamed(rule))}")
    for rule in difference["changed"]:
        for field, change in rule["fields"].items():
            _difference("~", "yellow", f"rule {_json(rule['name'])} {field}: {_change(change)}")
    for rule in difference["moved"]:
        _difference(">", "cyan", f"rule {_json(rule['name'])}: place {rule['from']} → {rule['to']}")
    for field, change in difference["fields"].items():
        _difference("~", "yellow", f"{field}: {_change(change)}")


def _difference(mark: str, style: str, text: str) -> None:
    show(f"{styled(mark, style, sys.stdout)} {plain(text, sys.stdout)}")


def _unnamed(rule: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in rule.items() if field != "name"}


def _change(change: dict[str, Any]) -> str:
    return f"{_json(change['from'])} → {_json(change['to'])}"


def _json(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _print_override(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    if reply["override"] is None:
        show(f"the policy decides again (event {reply['seq']})" if reply["changed"] else "there is no override")
    else:
        already = "" if reply["changed"] else "already: "
        show(f"{already}{_overridden(reply['override'])} (event {reply['seq']})")


_PRINT = {
    "validate": _print_valid,
    "publish": _print_published,
    "rollback": _print_published,
    "get": _print_policy,
    "history": _print_history,
    "diff": _print_diff,
    "override": _print_override,
}
