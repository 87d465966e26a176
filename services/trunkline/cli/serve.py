"""`trunkline up`, `run` and `bench`: from flags to the composition roots."""

import argparse

from msgspec import structs
from trunkline_actors.workflow_code import CodeBook

from trunkline import settings, up
from trunkline.cli.failures import UsageError
from trunkline.host import ROLES


def run_up(args: argparse.Namespace) -> int:
    """The whole gateway, until a signal."""
    chosen = settings.load(vars(args))
    if args.data is not None or args.ephemeral:  # a flag that is about our own server outweighs TRUNKLINE_NATS
        chosen = structs.replace(chosen, nats=args.nats)
    asked = up.Up(ephemeral=args.ephemeral, ready_file=args.ready_file, config=args.config, code=_code(chosen))
    return up.up(chosen, asked)


def run_roles(args: argparse.Namespace) -> int:
    """Some roles on a bus that is there, until a signal."""
    unknown = [role for role in args.roles if role not in ROLES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a role; there are {', '.join(ROLES)}")
    if args.provider and "provider" not in args.roles:
        raise UsageError("--provider says what the role provider serves; name that role too")
    if args.imports and "workflow" not in args.roles:
        raise UsageError("--import says what the role workflow knows; name that role too")
    only = frozenset(args.provider) if args.provider else None
    chosen = settings.load(vars(args))
    data = chosen.data if args.data is not None or settings.keeps_data(chosen) else None
    code = _code(chosen) if "workflow" in args.roles else None
    return up.run_roles(chosen, list(dict.fromkeys(args.roles)), only, args.ready_file, data, code)


def _code(chosen: settings.Settings) -> CodeBook | None:
    """What the modules to be imported have; read before anything is started, so that what is wrong is said at once."""
    if not chosen.imports:
        return None
    from trunkline.workflow_imports import book_of

    return book_of(chosen.imports)


def run_bench(args: argparse.Namespace) -> int:
    """The benchmarks."""
    from trunkline import benchmark

    return benchmark.main(args.only, events=args.events, as_json=args.json, quick=args.quick)
