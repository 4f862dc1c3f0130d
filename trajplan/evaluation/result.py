"""What an evaluation came to, for people and for code."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.evaluation.report import format_table


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of `trajplan.evaluate`; `print` shows the table that the command prints.

    Attributes:
        report: what evaluation.json holds, as `trajplan.evaluation.report.EvaluationFile` says.
        path: that file, or None where no output was asked for.
        videos: files that were filmed.
        picture: the drawn plans, or None.
        viewer: the page of an episode's plans, or None.
    """

    report: dict[str, Any]
    path: Path | None = None
    videos: list[Path] = field(default_factory=list)
    picture: Path | None = None
    viewer: Path | None = None

    @property
    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted returns, in order of episodes."""
        return np.array([entry["return"] for entry in self.report["episodes"]], np.float64)

    @property
    def normalized_scores(self) -> np.ndarray | None:
        """(E,) float64 scores, 0 and 100 at the reference returns; None where there are none."""
        if self.report["reference"] is None:
            return None
        return np.array([entry["normalized_score"] for entry in self.report["episodes"]], np.float64)

    @property
    def lengths(self) -> np.ndarray:
        """(E,) int64 steps."""
        return np.array([entry["length"] for entry in self.report["episodes"]], np.int64)

    @property
    def summary(self) -> dict[str, Any]:
        """Means, deviations and 95 % intervals of `return`, `normalized_score` (or None) and `length`, and the ends."""
        return self.report["summary"]

    def __repr__(self) -> str:
        score = self.summary["normalized_score"]
        scored = f", mean normalised score {score['mean']:.1f}" if score else ""
        return f"Evaluation({len(self.returns)} episodes, mean return {self.summary['return']['mean']:.2f}{scored})"

    def __str__(self) -> str:
        return format_table(self.report)
