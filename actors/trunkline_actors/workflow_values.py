"""What is kept beside the events of a run, read once: its definition, its input, outputs of steps, signals."""

from typing import Any

import msgspec

from trunkline_actors.workflow import Run
from trunkline_actors.workflow_blobs import MISSING, Blobs, or_none
from trunkline_actors.workflow_model import Definition
from trunkline_actors.workflow_walk import Failure, Walked, walk


class Values:
    """The values of one run. `known` is its definition and its input, where they are at hand."""

    def __init__(self, blobs: Blobs, known: tuple[Definition, Any] | None) -> None:
        self._blobs = blobs
        self._definition: Definition | None = known[0] if known else None
        self._given: Any = known[1] if known else None
        self._outputs: dict[str, Any] = {}
        self._signals: dict[str, Any] = {}  # by the names of their values: one may be sent again, with another

    def keep(self, step: str, output: Any) -> None:
        """The output of a step that was done here."""
        self._outputs[step] = output

    async def where(self, run: Run) -> Walked | None:
        """How far the run is, by what the log says of it. None: its definition is lost. Raises LogUnavailable."""
        if self._definition is None:
            told = await self._blobs.get(run.id, run.definition)
            if told is MISSING:
                return None
            self._definition = msgspec.convert(told, Definition)
            self._given = or_none(await self._blobs.get(run.id, run.input))
        outcomes: dict[str, Any] = {}
        for path, done in run.done.items():
            if done.code:
                outcomes[path] = Failure(done.code, done.detail)
                continue
            if path not in self._outputs:
                value = None if done.skipped else await self._blobs.get(run.id, done.output)
                if value is MISSING:  # whoever did it was gone before it was kept
                    continue
                self._outputs[path] = value
            outcomes[path] = self._outputs[path]
        for value in run.signals.values():
            if value not in self._signals:
                self._signals[value] = or_none(await self._blobs.get(run.id, value))
        signals = {name: self._signals[value] for name, value in run.signals.items()}
        return walk(self._definition, self._given, outcomes, signals)
