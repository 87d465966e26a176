"""Whether a group of appends is stored sooner one by one or as one batch: two costs, measured all the time.

A server that syncs each append to its disk takes as long for ten as for ten syncs; a batch takes one sync, and a price
of its own (files made and removed, some milliseconds). Which is less depends on the disk, the durability and the
copies, so nothing is configured: both are measured as they are used, and what was not used for a while is believed less
dear than it was, so that it is tried again.
"""

STEADY = 8
"""Appends under way from which on their time is the server's pace and not the way there and back."""

FIRST_GUESS = 0.003
"""Seconds for a batch until one was measured."""

BELIEVED = 5.0
"""Seconds for which a measurement is taken as it is; it halves for each such time more."""

FORGOTTEN = 5
"""Halvings after which it is as doubtful as it gets: a thirty-second of what it was."""


WEIGHT = 0.25
"""How much a new measurement counts."""

STALL = 4.0
"""A measurement so many times the usual is taken for this many times."""


CLOSE = 2.0
"""Costs whose ratio is less than this are a close call."""

TRY_EVERY = 20
"""Of so many close calls one goes the other way: it may cost a twentieth, and keeps both costs known."""


class Cost:
    """A price in seconds, followed as it changes."""

    def __init__(self, guess: float) -> None:
        self._value = guess
        self._at = 0.0

    def learn(self, seconds: float, now: float) -> None:
        """One was measured. The first is believed as it is, later ones by and by: a stall is not the rule."""
        old = self.at(now)
        self._value = old + WEIGHT * (min(seconds, STALL * old) - old) if self._at else seconds
        self._at = now

    def at(self, now: float) -> float:
        """What it costs, as far as we know."""
        idle = (now - self._at) / BELIEVED if self._at else 0.0
        return self._value if idle < 1 else self._value * 0.5 ** min(idle, FORGOTTEN)


class Pace:
    """What one plain append and what one batch cost on this log."""

    def __init__(self) -> None:
        self.plain = Cost(0.0)
        self.batch = Cost(FIRST_GUESS)
        self._close_calls = 0

    def chooses_batch(self, count: int, now: float) -> bool:
        """Whether to send so many as a batch: as `batch_pays`, but close calls are tried the other way at times.

        One bad measurement at the start would otherwise keep us from ever making the one that corrects it.
        """
        pays = self.batch_pays(count, now)
        alone, together = count * self.plain.at(now), self.batch.at(now)
        if count > 1 and together < CLOSE * alone and alone < CLOSE * together:
            self._close_calls += 1
            return pays != (self._close_calls % TRY_EVERY == 0)
        return pays

    def batch_pays(self, count: int, now: float) -> bool:
        """Whether so many appends are stored sooner as a batch."""
        return count > 1 and count * self.plain.at(now) > self.batch.at(now)

    def learn_plain(self, seconds: float, under_way: int, now: float) -> None:
        """An append took so long, with so many under way when it was sent, itself among them."""
        if under_way >= STEADY:
            self.plain.learn(seconds / under_way, now)
