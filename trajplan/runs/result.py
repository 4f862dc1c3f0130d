"""How a run ended, whatever was trained."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        updates: updates done, in all.
        interrupted: whether a signal stopped it before its end.
        metrics: the last line that it wrote to metrics.jsonl.
        kept: the update whose weights the folder holds: that of the best held-out loss, or else the last.
        held_out_loss: of those weights; None where it was not measured.
        stopped_early: whether the run is over, before its last update, as the held-out loss no longer fell.
    """

    updates: int
    interrupted: bool
    metrics: dict[str, Any] = field(default_factory=dict)
    kept: int | None = None
    held_out_loss: float | None = None
    stopped_early: bool = False

    def __str__(self) -> str:
        early = ", and stopped as the held-out loss no longer fell" if self.stopped_early else ""
        how = "Stopped by a signal after" if self.interrupted else "Trained for"
        best = "" if self.held_out_loss is None else f", of the lowest held-out loss, {self.held_out_loss:.3f}"
        kept = "" if self.kept is None else f"; the weights are those of update {self.kept:,}{best}"
        return f"{how} {self.updates:,} updates{early}{kept}."
