"""The moment it is now, as one process knows it: what its next decision is made from."""

from collections.abc import Mapping

from trunkline_actors.moment import Moment
from trunkline_actors.runtime import Runtime
from trunkline_actors.shortlist import Shortlists


def moment_of(
    runtime: Runtime,
    now: float,
    draw: float,
    *,
    shortlists: Shortlists,
    busy: Mapping[str, int],
    turns: Mapping[str, int],
) -> Moment:
    """The moment at `now`, Unix time. `busy` counts the calls a router has under way, by model, `turns` by rule."""
    view = runtime.gateway
    return Moment(
        gateway=view.state,
        rates=runtime.rates.at(view.state.registry, now),
        log_seq=view.position,
        now=now,
        draw=draw,
        measured=runtime.board.measured(),
        busy=busy,
        forced=runtime.forced,
        turns=turns,
        shortlists=shortlists,
    )
