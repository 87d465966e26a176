"""Every command and flag; those of nouns are in `nouns`. Imports next to nothing, so that --help takes no time."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from trunkline import __version__
from trunkline.cli.flags import Verbs, add_client, add_group, add_json, add_many, add_verb
from trunkline.cli.nouns import add_nouns
from trunkline.health.promises import DEFAULT, PROMISES, promise

_EPILOG = """exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 budget,
6 unavailable or timed out, 7 audit mismatch

settings: a flag, else TRUNKLINE_NATS, TRUNKLINE_KEY, TRUNKLINE_DATA, …, else ./trunkline.yaml, else the default"""


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
    add_nouns(verbs)
    _add_events(verbs)
    _add_audit(verbs)
    _add_projections(verbs)
    _add_demo(verbs)
    _add_doctor(verbs)
    _add_bench(verbs)
    _add_completion(verbs)
    return parser


def _add_up(verbs: Verbs) -> None:
    up = add_verb(verbs, "up", "serve:run_up", "run the whole gateway, with a NATS server of its own, until Ctrl-C")
    where = up.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="where the log lives")
    where.add_argument("--ephemeral", action="store_true", help="keep the log in a temporary folder")
    where.add_argument("--nats", metavar="URL", help="use this NATS server instead of one of our own")
    up.add_argument("--nats-port", metavar="N", help="default 4222; 0 takes a free one")
    up.add_argument(
        "--durability",
        choices=list(PROMISES),
        help="; ".join(promise(name) for name in PROMISES) + f" (default {DEFAULT})",
    )
    up.add_argument(
        "--workers", metavar="N", help="processes for routers, providers and workflows (default 0: in this one)"
    )
    up.add_argument(
        "--projector",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep read models up to date in a process beside (default: yes, but not with --nats or --ephemeral)",
    )
    _serving(up)


def _add_run(verbs: Verbs) -> None:
    run = add_verb(verbs, "run", "serve:run_roles", "run some roles on a bus that is there already, until Ctrl-C")
    run.add_argument(
        "roles",
        metavar="ROLE",
        nargs="+",
        help="registry, router, provider, keeper, workflow, projector, gateway",
    )
    run.add_argument("--nats", metavar="URL", help="the bus")
    run.add_argument(
        "--data",
        metavar="DIR",
        help="where the registry is kept for a start without the log, and the projector's tables",
    )
    add_many(run, "--provider", "ID", "serve this provider instance only (default: every one, later ones too)")
    _serving(run)


def _serving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--http-host", metavar="HOST", help="where the HTTP edge listens (default 127.0.0.1)")
    parser.add_argument("--http-port", metavar="N", help="default 4000; 0 takes a free one")
    parser.add_argument(
        "--require-keys",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the bus asks for API keys too (default: only where it is not on this machine)",
    )
    text = "a module with workflows, by its name or as a .py file, for the role workflow; may be repeated"
    parser.add_argument("--import", dest="imports", metavar="MODULE", action="append", help=text)
    parser.add_argument("--config", metavar="FILE", help="settings (default: trunkline.yaml, where it is there)")
    parser.add_argument("--ready-file", metavar="FILE", type=Path, help="written when everything serves")


def _add_chat(verbs: Verbs) -> None:
    chat = add_client(verbs, "chat", "chat:run", "ask a model; the answer on stdout, what it cost on stderr")
    chat.add_argument("prompt", metavar="PROMPT", help="`-` reads it from stdin")
    chat.add_argument("--model", metavar="M", default="auto", help="a registered model, or auto (default)")
    chat.add_argument("--thread", metavar="T", help="the conversation whose budget pays")
    chat.add_argument("--no-stream", action="store_true", help="print the answer when it is whole")
    chat.add_argument("--max-cost", metavar="USD", help="refuse a model that could cost more")
    add_many(chat, "--capability", "C", "what the model must be good at")
    add_many(chat, "--image", "FILE", "a PNG, JPEG, GIF or WebP to look at")


def _add_events(verbs: Verbs) -> None:
    events = add_group(verbs, "events", "events", "read the log")
    for verb, text in (("tail", "events as they happen, until Ctrl-C"), ("replay", "the events there are")):
        parser = add_client(events.verbs, verb, "events:run", text)
        start = parser.add_mutually_exclusive_group()
        start.add_argument("--from", dest="start", metavar="SEQ", type=int, help="from this sequence on")
        start.add_argument("--since", metavar="TIME", help="RFC 3339, or 10m, 2h, 1d ago")
        if verb == "replay":
            parser.add_argument("--until", metavar="SEQ|TIME", help="up to this sequence, or what was stored by then")
        add_many(parser, "--category", "C", "model, provider, thread, budget, circuit")
        parser.add_argument("--id", metavar="ID", help="only this model, provider, thread …")
        add_many(parser, "--type", "T", "an event name, with or without its version")


def _add_audit(verbs: Verbs) -> None:
    audit = add_group(verbs, "audit", "audit", "look at what was, from the log alone")
    text = "show the registry, the breakers, the budgets and the books of threads as they were"
    state = add_client(audit.verbs, "state", "audit:run", text)
    state.epilog = "by TIME counts what was stored by then"
    state.add_argument(
        "--at",
        metavar="SEQ|TIME",
        help="after the event of this sequence, or RFC 3339, or 10m, 2h, 1d ago (default: now)",
    )
    add_many(state, "--thread", "T", "the books of this thread and of no others")
    state.add_argument("--limit", metavar="N", type=int, default=100, help="at most so many threads (default 100)")
    state.add_argument("--after", metavar="ID", default="", help="only threads that follow this id")
    text = "why a request was served as it was: the state, the candidates, the attempts, the cost"
    explain = add_client(audit.verbs, "explain", "explain:run", text)
    explain.epilog = "exit code 7: made again from the log, a decision of it comes out differently"
    explain.add_argument("request", metavar="REQUEST", nargs="?", help="the request's id")
    explain.add_argument("--event", metavar="SEQ", type=int, help="any event of it, such as its receipt: quick")
    explain.add_argument("--thread", metavar="T", help="look in this thread only")
    explain.add_argument("--since", metavar="TIME", help="look from RFC 3339, or 10m, 2h, 1d ago, on")
    text = "make every recorded decision again from the log, and tell which come out differently"
    redecide = add_client(audit.verbs, "redecide", "redecide:run", text)
    redecide.epilog = "exit code 7: some do"
    redecide.add_argument("--since", metavar="TIME", help="those since RFC 3339, or 10m, 2h, 1d ago")
    redecide.add_argument("--until", metavar="SEQ|TIME", help="up to this sequence, or what was stored by then")
    text = "what a model's usage would have cost at another price, beside what was booked; changes nothing"
    rerate = add_client(audit.verbs, "rerate", "rerate:run", text)
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
    projections = add_group(verbs, "projections", "projections", "look at and rebuild the read models in SQL")
    for verb, text in (
        ("list", "the tables: their rows, their position and how far they are behind"),
        ("lag", "how far the read models are behind the log"),
        ("rebuild", "build them anew beside the live ones, compare the two, and switch where they are the same"),
    ):
        parser = add_client(projections.verbs, verb, "projections:run", text)
        parser.add_argument("--data", metavar="DIR", help="the gateway's data folder")
        if verb == "rebuild":
            parser.epilog = "exit code 7: they differ; the live ones stay, and the new ones are kept beside them"
            parser.add_argument("--force", action="store_true", help="switch even where they differ")


def _add_demo(verbs: Verbs) -> None:
    demo = add_verb(
        verbs, "demo", "demo:run", "one chat on a gateway of its own: its events, its cost, its explanation"
    )
    add_json(demo)


def _add_doctor(verbs: Verbs) -> None:
    add_client(verbs, "doctor", "doctor:run", "check this machine, the bus, the log and the actors")


def _add_completion(verbs: Verbs) -> None:
    text = "print what makes a shell complete our verbs, flags and names of models"
    completion = add_verb(verbs, "completion", "completion:run", text)
    completion.add_argument("shell", choices=["bash", "zsh", "fish", "words"], help="words: what may follow LINE")
    completion.add_argument("line", metavar="LINE", nargs="?", help="what was typed so far")
    completion.epilog = 'bash: add `eval "$(trunkline completion bash)"` to .bashrc; zsh the same in .zshrc'


def _count(text: str) -> int:
    if not text.isdecimal() or not 1000 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of events; take 1,000 or more")
    return int(text)


def _add_bench(verbs: Verbs) -> None:
    bench = add_verb(verbs, "bench", "serve:run_bench", "what things cost, as ratios against bare NATS")
    bench.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[
            "adapters",
            "breakers",
            "chats",
            "failover",
            "http",
            "money",
            "log",
            "peers",
            "readmodels",
            "routing",
            "telemetry",
            "workflows",
        ],
        help="this part; may be repeated (default: all but peers, the other gateways of this machine)",
    )
    bench.add_argument("--events", metavar="N", type=_count, help="how long a log to read (default 1,000,000)")
    bench.add_argument("--quick", action="store_true", help="a tenth of the work")
    add_json(bench)
