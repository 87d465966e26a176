"""Which attempts a keeper worries about, and for how long nobody has told of them. Pure."""

from collections.abc import Iterable, Mapping

from msgspec import Struct


class Watched(Struct, kw_only=True):
    """An attempt that may need rescue: it is open, or it has ended and its caller may not know.

    `sequence` is where it was decided, `ended` where it ended; `answered` says that
    its caller has heard, whatever became of it since; `unseen` counts seconds; `router` is where the router
    that waits for it wants to hear how it went.
    """

    attempt_id: str
    aggregate: str
    sequence: int
    deadline: float
    ended: int | None = None
    answered: bool = False
    router: str = ""
    unseen: float = 0.0


class Watch:
    """All attempts that are not known to be done with."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def decided(self, attempt_id: str, aggregate: str, sequence: int, deadline: float) -> None:
        """An attempt began, which is the end of worrying about the one before it. Told twice, it counts once."""
        request, _, number = attempt_id.rpartition("-")
        if number.isdigit():
            self._watched.pop(f"{request}-{int(number) - 1}", None)
        if attempt_id not in self._watched:
            self._watched[attempt_id] = Watched(
                attempt_id=attempt_id, aggregate=aggregate, sequence=sequence, deadline=deadline
            )

    def ended(self, attempt_id: str, sequence: int) -> None:
        """It ended in the log. Its process has a lease's time to say that the caller knows."""
        watched = self._watched.get(attempt_id)
        if watched is None or watched.ended is not None:
            return
        watched.ended = sequence
        watched.unseen = 0.0
        if watched.answered:
            del self._watched[attempt_id]

    def seen(self, attempt_ids: Iterable[str]) -> None:
        """A living process has these under way."""
        for attempt_id in attempt_ids:
            watched = self._watched.get(attempt_id)
            if watched is not None:
                watched.unseen = 0.0

    def waited_for(self, attempts: Mapping[str, str]) -> None:
        """A router waits for these, whether or not anybody runs them, and wants to hear how they went."""
        for attempt_id, router in attempts.items():
            watched = self._watched.get(attempt_id)
            if watched is not None:
                watched.router = router

    def answered(self, attempt_ids: Iterable[str]) -> None:
        """The callers of these have heard. What is still open is watched on, since its money is held."""
        for attempt_id in attempt_ids:
            watched = self._watched.get(attempt_id)
            if watched is None:
                continue
            watched.answered = True
            if watched.ended is not None:
                del self._watched[attempt_id]

    def forget_before(self, deadline: float) -> None:
        """Ended attempts whose deadline is past: nobody waits for them."""
        self._watched = {
            name: one for name, one in self._watched.items() if one.ended is None or one.deadline >= deadline
        }

    def pass_time(self, seconds: float, lease: float) -> list[Watched]:
        """Let time pass; what has gone unseen for a lease is given back, to be ended and answered.

        It is watched on until it is, and given back again after another lease: the log may have gone away meanwhile.
        """
        self.wait(seconds)
        lost = [watched for watched in self._watched.values() if watched.unseen >= lease]
        for watched in lost:
            watched.unseen = 0.0
        return lost

    def wait(self, seconds: float) -> None:
        """Let time pass while somebody else leads; what is lost then is given back when we do."""
        for watched in self._watched.values():
            watched.unseen += seconds
