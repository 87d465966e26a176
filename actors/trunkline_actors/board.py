"""What all providers measured of late, as their processes told it: the statistics that routing decides by."""

from collections.abc import Mapping

from trunkline_events.measured import Measured


class Board:
    """The newest word of every process that serves a provider."""

    def measured(self) -> Mapping[str, Measured]:
        """By `served` name (a model's id, or `id@version` for its canary): the calls of the last minutes."""
        return {}
