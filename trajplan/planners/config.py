"""Settings of the planners."""

from dataclasses import dataclass

from trajplan.config import option, require
from trajplan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BeamSearchConfig:
    """Beam search that maximises reward (Janner, Li, Levine 2021, algorithm 1)."""

    horizon: int = option(15, "transitions to plan ahead")
    beam_width: int = option(128, "partial trajectories kept after each planned transition")
    n_expand: int = option(2, "candidates that each kept trajectory becomes at the next transition")
    context: int = option(5, "past transitions that the plan is conditioned on")
    discount: float = option(0.99, "discount of predicted rewards; the one the model was trained with")
    action_top_k: int | None = option(None, "sample action tokens among the k likeliest (none: all)")
    action_cdf: float | None = option(
        0.4, "sample action tokens among the likeliest up to this mass (none: all); 0.4 is the release's cdf 0.6"
    )
    action_temperature: float = option(1.0, "temperature of the action tokens")
    observation_top_k: int | None = option(1, "sample observation tokens among the k likeliest (1: greedy, none: all)")
    observation_cdf: float | None = option(
        None, "sample observation tokens among the likeliest up to this mass (none: all)"
    )
    observation_temperature: float = option(1.0, "temperature of the observation tokens")
    percentile: float | None = option(
        None, "read reward and return at this percentile of their bins, 0 to 1 (none: their expectation)"
    )
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("horizon", "beam_width", "n_expand", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )
        require(self.percentile is None or 0 <= self.percentile <= 1, "percentile", self.percentile, "be from 0 to 1")
        for kind in ("action", "observation"):
            top_k, cdf = getattr(self, f"{kind}_top_k"), getattr(self, f"{kind}_cdf")
            temperature = getattr(self, f"{kind}_temperature")
            require(top_k is None or top_k >= 1, f"{kind}_top_k", top_k, "be at least 1, or none")
            require(cdf is None or 0 < cdf <= 1, f"{kind}_cdf", cdf, "be above 0 and at most 1, or none")
            require(temperature > 0, f"{kind}_temperature", temperature, "be above 0")


def check_window(config: BeamSearchConfig, window: int) -> None:
    """Refuse settings with which a model cannot plan.

    Args:
        config: the planner's.
        window: transitions that the model sees.

    Raises:
        ConfigError: where the context leaves no room in the window.
    """
    if config.context >= window:
        raise ConfigError(
            f"context is {config.context} transitions, the model's window {window}: choose a larger window, or a "
            "smaller context, so that at least one transition can be planned."
        )
    if window < 2 and config.horizon > 1:
        raise ConfigError("A model with a window of 1 transition can only plan with horizon 1.")
