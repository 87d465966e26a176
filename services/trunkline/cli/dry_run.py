"""`trunkline policy dry-run`: who would have served recorded requests under another policy, and at what cost."""

import argparse
import time

from trunkline_actors.catalogue import listed
from trunkline_actors.dry_run import shown, summary
from trunkline_actors.policies import read
from trunkline_actors.rates import Rates

from trunkline.cli.documents import read_document
from trunkline.cli.events import read_time
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.dry_run import dry_run


def run(args: argparse.Namespace) -> int:
    """Print what would have moved, what would have been refused, and both costs."""
    if not 1 <= args.last <= 1_000_000:
        raise UsageError("--last takes how many requests, from 1 to 1,000,000")
    since = None if args.since is None else read_time(args.since, time.time())
    document = read_document(args.file)

    async def ask(gateway: Gateway) -> int:
        checked = await gateway.policy.validate(policy=document)
        policy, _ = read(document)
        if not checked["valid"]:
            for problem in checked["problems"]:
                say(f"{problem['path']}: {problem['message']}")
            raise UsageError("the policy could not be published; mend these places")
        log = await gateway.log()
        told = summary(await dry_run(log, policy, Rates(listed), last=args.last, since=since))
        if args.json:
            emit(shown(told))
            return 0
        table(("from", "to", "requests"), [[*pair, count] for pair, count in told.moved.most_common()])
        table(("refused", "", "requests"), [[code, "", count] for code, count in told.refused.most_common()])
        moved = sum(told.moved.values())
        show(
            f"{told.requests:,} requests: {told.same:,} served by the same model, {moved:,} by another, "
            f"{sum(told.refused.values()):,} by none"
        )
        money = shown(told)
        show(f"cost of {told.compared:,} whose tokens are known: ${money['cost_usd']} → ${money['would_cost_usd']}")
        if told.blind:
            say(f"{told.blind:,} have no statistics recorded: models took turns where the policy goes by those")
        if told.unhinted:
            say(f"{told.unhinted:,} were not analyzed when they came: rules that go by hints found none")
        if not told.requests:
            say("no request is recorded there; next: send some, or look further back with --since")
        return 0

    return with_gateway(args, ask)
