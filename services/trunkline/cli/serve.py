"""`trunkline up`, `run` and `bench`: from flags to the composition roots."""

import argparse

from msgspec import structs

from trunkline import settings, up
from trunkline.cli.failures import UsageError
from trunkline.host import ROLES


def run_up(args: argparse.Namespace) -> int:
    """The whole gateway, until a signal."""
    chosen = settings.load(vars(args))
    if args.data is not None or args.ephemeral:  # a flag that is about our own server outweighs TRUNKLINE_NATS
        chosen = structs.replace(chosen, nats=args.nats)
    return up.up(chosen, up.Up(ephemeral=args.ephemeral, ready_file=args.ready_file, config=args.config))


def run_roles(args: argparse.Namespace) -> int:
    """Some roles on a bus that is there, until a signal."""
    unknown = [role for role in args.roles if role not in ROLES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a role; there are {', '.join(ROLES)}")
    if args.provider and "provider" not in args.roles:
        raise UsageError("--provider says what the role provider serves; name that role too")
    only = frozenset(args.provider) if args.provider else None
    chosen = settings.load(vars(args))
    data = chosen.data if args.data is not None or settings.keeps_data(chosen) else None
    return up.run_roles(chosen, list(dict.fromkeys(args.roles)), only, args.ready_file, data)


def run_bench(args: argparse.Namespace) -> int:
    """The benchmarks."""
    from trunkline import benchmark

    return benchmark.main(args.only, events=args.events, as_json=args.json, quick=args.quick)
