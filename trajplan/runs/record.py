"""What a run tells of itself on its way: metrics.jsonl, the trackers that mirror it, and the time it took."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajplan.runs.metrics import MetricsFile

if TYPE_CHECKING:
    from accelerate import Accelerator


class Record:
    """The numbers of a run by update, and its clock.

    Attributes:
        last: the last line, of an earlier process if this one has written none.

    Args:
        folder: the run's.
        done, seconds: the updates and the time of earlier processes.
        trackers: of `trajplan.runs.trackers.start_trackers`.
        main: whether this process writes metrics.jsonl.
    """

    def __init__(
        self, folder: Path, done: int, seconds: float, trackers: "Accelerator | None" = None, *, main: bool = True
    ) -> None:
        self._metrics = MetricsFile(folder, done) if main else None
        self._trackers = trackers
        self._started = time.perf_counter() - seconds
        self.last: dict[str, Any] = self._metrics.last if self._metrics else {}

    @property
    def seconds(self) -> float:
        """The time of the run in all processes, so far."""
        return time.perf_counter() - self._started

    def write(self, values: dict[str, Any]) -> None:
        """Append a line, the numbers of an `update`."""
        self.last = values
        if self._metrics:
            self._metrics.write(values)
        if self._trackers:
            self._trackers.log({name: value for name, value in values.items() if name != "update"}, values["update"])

    def sync(self) -> None:
        """Force the lines onto the disk, so that no state is newer than its metrics."""
        if self._metrics:
            self._metrics.sync()

    def close(self) -> None:
        """The run has ended, for now."""
        if self._metrics:
            self._metrics.close()
        if self._trackers:
            self._trackers.end_training()
