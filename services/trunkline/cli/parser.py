"""Every command and flag. Imports nothing but argparse, so that --help and --version cost next to nothing."""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from trunkline import __version__
from trunkline.health.promises import DEFAULT, PROMISES, promise

_EPILOG = """exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 budget,
6 unavailable or timed out, 7 audit mismatch

settings: a flag, else TRUNKLINE_NATS, TRUNKLINE_KEY, TRUNKLINE_DATA, …, else ./trunkline.yaml, else the default"""

Verbs = Any
"""argparse's own type for a group of verbs is private."""


class _Parser(argparse.ArgumentParser):
    """argparse's parser, with whole flag names only, so that adding a flag breaks no script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        print(f"trunkline: {message}\n  next: see `{self.prog} --help`", file=sys.stderr)
        self.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. What it parses names its code in `run`, as `module:function`."""
    parser = _Parser(
        prog="trunkline",
        description="An LLM gateway whose every decision is an event.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trunkline {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_up(verbs)
    _add_run(verbs)
    _add_chat(verbs)
    _add_models(verbs)
    _add_providers(verbs)
    _add_threads(verbs)
    _add_events(verbs)
    _add_audit(verbs)
    _add_projections(verbs)
    _add_demo(verbs)
    _add_doctor(verbs)
    _add_bench(verbs)
    return parser


def _verb(verbs: Verbs, name: str, run: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _client(verbs: Verbs, name: str, run: str, text: str) -> argparse.ArgumentParser:
    """A verb that talks to a gateway."""
    parser = _verb(verbs, name, run, text)
    parser.add_argument("--nats", metavar="URL", help="the bus (default: TRUNKLINE_NATS, else nats://127.0.0.1:4222)")
    _json(parser)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or one a line for a stream")


def _many(parser: argparse.ArgumentParser, flag: str, metavar: str, text: str) -> None:
    parser.add_argument(flag, metavar=metavar, action="append", default=[], help=f"{text}; may be repeated")


def _add_up(verbs: Verbs) -> None:
    up = _verb(verbs, "up", "serve:run_up", "run the whole gateway, with a NATS server of its own, until Ctrl-C")
    where = up.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="where the log lives")
    where.add_argument("--ephemeral", action="store_true", help="keep the log in a temporary folder")
    where.add_argument("--nats", metavar="URL", help="use this NATS server instead of one of our own")
    up.add_argument("--nats-port", metavar="N", help="default 4222; 0 takes a free one")
    up.add_argument("--http-port", metavar="N", help="0 takes a free one")
    up.add_argument(
        "--durability",
        choices=list(PROMISES),
        help="; ".join(promise(name) for name in PROMISES) + f" (default {DEFAULT})",
    )
    up.add_argument("--workers", metavar="N", help="processes for routers and providers (default 0: in this one)")
    up.add_argument(
        "--projector",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep read models up to date in a process beside (default: yes, but not with --nats or --ephemeral)",
    )
    _serving(up)


def _add_run(verbs: Verbs) -> None:
    run = _verb(verbs, "run", "serve:run_roles", "run some roles on a bus that is there already, until Ctrl-C")
    run.add_argument("roles", metavar="ROLE", nargs="+", help="registry, router, provider, keeper, projector")
    run.add_argument("--nats", metavar="URL", help="the bus")
    run.add_argument("--data", metavar="DIR", help="where the projector keeps its tables")
    _many(run, "--provider", "ID", "serve this provider instance only (default: every one, later ones too)")
    _serving(run)


def _serving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings (default: trunkline.yaml, where it is there)")
    parser.add_argument("--ready-file", metavar="FILE", type=Path, help="written when everything serves")


def _add_chat(verbs: Verbs) -> None:
    chat = _client(verbs, "chat", "chat:run", "ask a model; the answer on stdout, what it cost on stderr")
    chat.add_argument("prompt", metavar="PROMPT", help="`-` reads it from stdin")
    chat.add_argument("--model", metavar="M", default="auto", help="a registered model, or auto (default)")
    chat.add_argument("--thread", metavar="T", help="the conversation whose budget pays")
    chat.add_argument("--no-stream", action="store_true", help="print the answer when it is whole")
    chat.add_argument("--max-cost", metavar="USD", help="refuse a model that could cost more")
    _many(chat, "--capability", "C", "what the model must be good at")
    _many(chat, "--image", "FILE", "a PNG, JPEG, GIF or WebP to look at")


def _add_models(verbs: Verbs) -> None:
    models = _group(verbs, "models", "registry", "register, change and list models")
    for verb, text in (
        ("register", "register a model"),
        ("update", "change what is named, leave the rest"),
    ):
        parser = _entry(models, verb, text)
        parser.add_argument("--provider", metavar="P", required=verb == "register", help="the instance that serves it")
        parser.add_argument("--upstream", metavar="U", help="the provider's own name of it (default: ID)")
        parser.add_argument("--version", metavar="V", help="a name for this version of it")
        for name in ("input", "output", "cached-input"):
            parser.add_argument(f"--price-{name}", metavar="USD", help="US dollars a million tokens")
        parser.add_argument("--context-window", metavar="N", type=int, help="tokens")
        parser.add_argument("--max-output", metavar="N", type=int, help="tokens")
        _many(parser, "--capability", "NAME[=SCORE]", "what it is good at, 0 to 1 (default 1)")
        _many(parser, "--feature", "F", "tools, vision, json_schema, thinking, embeddings")
        _many(parser, "--tag", "T", "a tag")
        _reason(parser)
    for verb, text in (
        ("enable", "route to it again"),
        ("disable", "route to it no more, for now"),
        ("retire", "route to it no more, for good"),
        ("remove", "forget it"),
    ):
        _reason(_entry(models, verb, text))
    _entry(models, "get", "show one")
    listing = _page(models)
    for name in ("provider", "status", "capability", "tag"):
        listing.add_argument(f"--{name}", metavar=name[0].upper(), help=f"only those with this {name}")


def _add_providers(verbs: Verbs) -> None:
    providers = _group(verbs, "providers", "registry", "register, change, check and list provider instances")
    for verb, text in (
        ("register", "register a provider instance"),
        ("update", "change what is named, leave the rest"),
    ):
        parser = _entry(providers, verb, text)
        parser.add_argument("--kind", metavar="K", required=verb == "register", help="openai, scripted, …")
        parser.add_argument("--base-url", metavar="U", help="where it answers, where that isn't the kind's own address")
        parser.add_argument(
            "--secret", metavar="env:NAME", help="names the variable with its key; never the key itself"
        )
        parser.add_argument("--local", action=argparse.BooleanOptionalAction, help="costs nothing, keeps data here")
        parser.add_argument("--max-concurrency", metavar="N", type=int, help="calls under way at once")
        parser.add_argument("--timeout", metavar="SECONDS", type=float, help="for one call (default 60)")
        _many(parser, "--header", "NAME=VALUE", "sent with every call; never a secret, since the log keeps it")
        _reason(parser)
    _reason(_entry(providers, "remove", "forget it"))
    _entry(providers, "get", "show one")
    _entry(providers, "check", "ask whether it serves and its upstream answers")
    _page(providers)


def _add_threads(verbs: Verbs) -> None:
    threads = _group(verbs, "threads", "threads", "set and show the budgets of threads")
    configure = _entry(threads, "configure", "set a thread's budget, as a whole: what isn't given is no limit")
    configure.add_argument("--limit", metavar="USD", help="what the thread may cost in each window (default: no limit)")
    configure.add_argument("--window", choices=["none", "day", "month"], help="when spending starts anew")
    _reason(configure)
    _entry(threads, "get", "show its books")
    _page(threads)
    text = "list attempts that were lost with their process, and what they were settled at"
    orphans = _client(threads.verbs, "orphans", "orphans:run", text)
    orphans.add_argument("--since", metavar="TIME", default="7d", help="RFC 3339, or 10m, 2h, 1d ago (default 7d)")
    orphans.add_argument("--thread", metavar="T", help="only those of this thread; - for requests without one")


def _add_events(verbs: Verbs) -> None:
    events = _group(verbs, "events", "events", "read the log")
    for verb, text in (("tail", "events as they happen, until Ctrl-C"), ("replay", "the events there are")):
        parser = _client(events.verbs, verb, "events:run", text)
        start = parser.add_mutually_exclusive_group()
        start.add_argument("--from", dest="start", metavar="SEQ", type=int, help="from this sequence on")
        start.add_argument("--since", metavar="TIME", help="RFC 3339, or 10m, 2h, 1d ago")
        if verb == "replay":
            parser.add_argument("--until", metavar="SEQ|TIME", help="up to this sequence, or what was stored by then")
        _many(parser, "--category", "C", "model, provider, thread, budget, circuit")
        parser.add_argument("--id", metavar="ID", help="only this model, provider, thread …")
        _many(parser, "--type", "T", "an event name, with or without its version")


def _add_audit(verbs: Verbs) -> None:
    audit = _group(verbs, "audit", "audit", "look at what was, from the log alone")
    text = "show the registry, the breakers and the books of threads as they were"
    state = _client(audit.verbs, "state", "audit:run", text)
    state.epilog = "by TIME counts what was stored by then; routing policies will be shown when there are some"
    state.add_argument(
        "--at",
        metavar="SEQ|TIME",
        help="after the event of this sequence, or RFC 3339, or 10m, 2h, 1d ago (default: now)",
    )
    _many(state, "--thread", "T", "the books of this thread and of no others")
    state.add_argument("--limit", metavar="N", type=int, default=100, help="at most so many threads (default 100)")
    state.add_argument("--after", metavar="ID", default="", help="only threads that follow this id")
    text = "what a model's usage would have cost at another price, beside what was booked; changes nothing"
    rerate = _client(audit.verbs, "rerate", "rerate:run", text)
    rerate.epilog = "orphaned attempts have no usage and are told apart; so are those whose usage is a bound"
    rerate.add_argument("--model", metavar="M", required=True, help="a model that is registered, or was")
    rerate.add_argument(
        "--price", metavar="INPUT,OUTPUT[,CACHED]", required=True, help="US dollars a million tokens, like 2,8,0.5"
    )
    rerate.add_argument("--since", metavar="TIME", help="RFC 3339, or 10m, 2h, 1d ago")
    rerate.add_argument("--until", metavar="SEQ|TIME", help="up to this sequence, or what was stored by then")
    rerate.add_argument(
        "--by", action="append", default=[], choices=["thread", "key", "day"], help="may be repeated (default: all)"
    )


def _add_projections(verbs: Verbs) -> None:
    projections = _group(verbs, "projections", "projections", "look at and rebuild the read models in SQL")
    for verb, text in (
        ("list", "the tables: their rows, their position and how far they are behind"),
        ("lag", "how far the read models are behind the log"),
        ("rebuild", "build them anew beside the live ones, compare the two, and switch where they are the same"),
    ):
        parser = _client(projections.verbs, verb, "projections:run", text)
        parser.add_argument("--data", metavar="DIR", help="the gateway's data folder")
        if verb == "rebuild":
            parser.epilog = "exit code 7: they differ; the live ones stay, and the new ones are kept beside them"
            parser.add_argument("--force", action="store_true", help="switch even where they differ")


def _add_demo(verbs: Verbs) -> None:
    demo = _verb(verbs, "demo", "demo:run", "one chat on a gateway of its own: its events, its cost, its explanation")
    _json(demo)


def _add_doctor(verbs: Verbs) -> None:
    _client(verbs, "doctor", "doctor:run", "check this machine, the bus, the log and the actors")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1000 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of events; take 1,000 or more")
    return int(text)


def _add_bench(verbs: Verbs) -> None:
    bench = _verb(verbs, "bench", "serve:run_bench", "what things cost, as ratios against bare NATS")
    bench.add_argument(
        "--only", action="append", default=[], choices=["chats", "log", "readmodels"], help="this part; may be repeated"
    )
    bench.add_argument("--events", metavar="N", type=_count, help="how long a log to read (default 1,000,000)")
    bench.add_argument("--quick", action="store_true", help="a tenth of the work")
    _json(bench)


class _Group(NamedTuple):
    """The verbs about one noun, and the module that runs them."""

    noun: str
    module: str
    verbs: Verbs


def _group(verbs: Verbs, noun: str, module: str, text: str) -> _Group:
    parser = verbs.add_parser(noun, help=text, description=text[0].upper() + text[1:] + ".")
    return _Group(noun, module, parser.add_subparsers(dest="verb", metavar="VERB", required=True))


def _entry(group: _Group, verb: str, text: str) -> argparse.ArgumentParser:
    """A verb about one model, provider or thread."""
    parser = _client(group.verbs, verb, f"{group.module}:run", text)
    parser.add_argument("id", metavar="ID")
    return parser


def _page(group: _Group) -> argparse.ArgumentParser:
    text = f"list {group.noun}: a table on a terminal, else tab-separated lines"
    parser = _client(group.verbs, "list", f"{group.module}:run", text)
    parser.add_argument("--limit", metavar="N", type=int, help="at most so many (default 100, at most 1,000)")
    parser.add_argument("--after", metavar="ID", help="only those that follow this id")
    return parser


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", help="recorded with the change")
