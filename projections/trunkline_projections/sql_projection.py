"""The projection that keeps the read models up to date, as the eventsourcing library runs it.

Events gather in memory and are committed together with their position: as soon as nothing more is at hand, so that
a quiet log is never behind; or when enough have gathered, so that a long one costs a transaction in a thousand events.
"""

from typing import Any

import structlog
from eventsourcing.persistence import ProgrammingError, Tracking
from eventsourcing.projection import Projection
from trunkline_events.envelope import Unknown
from trunkline_events.upstream import Delivered

from trunkline_projections.readmodels import TABLES, changes
from trunkline_projections.sql_tables import Batch
from trunkline_projections.sql_view import SOURCE, View
from trunkline_projections.under_way import OPEN_ATTEMPTS, UnderWay, remembered

log = structlog.get_logger()

BATCH = 2000
"""Events in one transaction at most."""


class ReadModels(Projection[View]):
    """Applies each event to all read models, exactly once. What it hasn't committed when it ends, it comes to again.

    Raises ProgrammingError where the view holds what can't be read.
    """

    name = "readmodels"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.position = view.max_tracking_id(SOURCE) or 0
        """Where the view stands, as far as we know: what we committed last."""
        self.skipped = 0
        """How many events were passed over since this version doesn't know them."""
        self._unknown: set[str] = set()
        self._under_way = _under_way(view)
        self._batch = Batch(TABLES)
        self._gathered = 0

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Take one event in, and commit where it is time to. Raises Overtaken, and what the database does."""
        delivered: Delivered = domain_event
        if isinstance(delivered.event.body, Unknown):
            self._skip(delivered.event.type)
        else:
            self._batch.add(changes(delivered.event, self._under_way))
        self._gathered += 1
        if not delivered.more or self._gathered >= BATCH:
            self.view.apply(self._batch, tracking, self.position)
            self.position = tracking.notification_id
            self._batch.clear()
            self._gathered = 0

    def _skip(self, name: str) -> None:
        self.skipped += 1
        if name not in self._unknown and len(self._unknown) < 100:
            self._unknown.add(name)
            log.warning("projector.unknown_event", type=name, next="upgrade, then `trunkline projections rebuild`")


def _under_way(view: View) -> UnderWay:
    """What was under way where the view stands. It may have moved since we asked: then our first batch is refused."""
    try:
        with view.snapshot() as held:
            return remembered(held.rows(OPEN_ATTEMPTS))
    except ValueError as error:
        raise ProgrammingError(str(error)) from error
