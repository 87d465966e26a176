"""What verbs of the command line have in common: how one is added, and flags that many of them take."""

import argparse
from typing import Any, NamedTuple

Verbs = Any
"""argparse's own type for a group of verbs is private."""


def add_verb(verbs: Verbs, name: str, run: str, text: str) -> argparse.ArgumentParser:
    """A verb, and its code as `module:function`."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def add_client(verbs: Verbs, name: str, run: str, text: str) -> argparse.ArgumentParser:
    """A verb that talks to a gateway."""
    parser = add_verb(verbs, name, run, text)
    parser.add_argument("--nats", metavar="URL", help="the bus (default: TRUNKLINE_NATS, else nats://127.0.0.1:4222)")
    add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, which every verb has that prints data."""
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or one a line for a stream")


def add_many(parser: argparse.ArgumentParser, flag: str, metavar: str, text: str) -> None:
    """A flag that may be given several times."""
    parser.add_argument(flag, metavar=metavar, action="append", default=[], help=f"{text}; may be repeated")


class Group(NamedTuple):
    """The verbs about one noun, and the module that runs them."""

    noun: str
    module: str
    verbs: Verbs


def add_group(verbs: Verbs, noun: str, module: str, text: str) -> Group:
    """A noun, for verbs to be added to."""
    parser = verbs.add_parser(noun, help=text, description=text[0].upper() + text[1:] + ".")
    return Group(noun, module, parser.add_subparsers(dest="verb", metavar="VERB", required=True))


def add_entry(group: Group, verb: str, text: str) -> argparse.ArgumentParser:
    """A verb about one model, provider or thread."""
    parser = add_client(group.verbs, verb, f"{group.module}:run", text)
    parser.add_argument("id", metavar="ID")
    return parser


def add_page(group: Group) -> argparse.ArgumentParser:
    """The verb `list`."""
    text = f"list {group.noun}: a table on a terminal, else tab-separated lines"
    parser = add_client(group.verbs, "list", f"{group.module}:run", text)
    parser.add_argument("--limit", metavar="N", type=int, help="at most so many (default 100, at most 1,000)")
    parser.add_argument("--after", metavar="ID", help="only those that follow this id")
    return parser


def add_reason(parser: argparse.ArgumentParser) -> None:
    """`--reason`, which every change takes."""
    parser.add_argument("--reason", metavar="R", help="recorded with the change")
