"""How a run ended, whatever was trained."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        updates: updates done, in all.
        interrupted: whether a signal stopped it early.
        metrics: the last line that it wrote to metrics.jsonl.
    """

    updates: int
    interrupted: bool
    metrics: dict[str, Any] = field(default_factory=dict)
