"""Where the goals of training come from, as settings say it."""

from dataclasses import dataclass
from typing import Literal

from trajplan.config import require

Future = Literal["geometric", "uniform", "last"]


@dataclass(frozen=True)
class GoalShares:
    """Where goals come from: shares of the present and of the episode's future; the rest is any state of the data.

    Attributes:
        current: share of goals that are the present itself.
        future: share of goals that are a later observation of the episode.
        draw: which one: geometric, n steps ahead with probability (1 - discount) discount^(n - 1), held at the
            episode's last; uniform over all later ones; or the last.
        discount: of the geometric draw.
    """

    current: float
    future: float
    draw: Future
    discount: float = 0.99

    def __post_init__(self) -> None:
        for name in ("current", "future"):
            require(0 <= getattr(self, name) <= 1, f"share of {name} goals", getattr(self, name), "lie in [0, 1]")
        total = self.current + self.future
        require(total < 1 + 1e-9, "share of current and future goals", total, "be at most 1")
        bad = self.draw == "geometric" and not 0 <= self.discount < 1
        require(not bad, "discount of goals", self.discount, "be 0 or more and below 1 to draw them geometrically")
