"""Settings that methods share, and what they check."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from trajplan.config import option, require
from trajplan.data.goal_shares import GoalShares


def check_positive(config: Any, *names: str) -> None:
    """Refuse fields that are not finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, name, value, "be a finite number above 0")


def check_share(config: Any, *names: str) -> None:
    """Refuse fields that do not lie in (0, 1]."""
    for name in names:
        require(0 < getattr(config, name) <= 1, name, getattr(config, name), "lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Settings of every method: sizes of its networks."""

    hidden_layers: int = option(2, "hidden layers of every network")
    hidden_width: int = option(256, "their width")

    def __post_init__(self) -> None:
        for name in ("hidden_layers", "hidden_width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        check_positive(self, *(name for name in vars(self) if name.endswith("learning_rate")))

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return (self.hidden_width,) * self.hidden_layers


@dataclass(frozen=True, kw_only=True)
class GoalConfig(NetworkConfig):
    """Settings of every method that learns to reach goals: which states are goals in hindsight."""

    hidden_layers: int = option(3, "hidden layers of every network")
    hidden_width: int = option(512, "their width")
    actor_current_goals: float = option(0.0, "share of the policy's goals that are the present itself")
    actor_future_goals: float = option(1.0, "share that are a later state of the episode; the rest are any of the data")
    actor_future: Literal["geometric", "uniform", "last"] = option(
        "uniform", "which later state: geometric in the discount, uniform or the last"
    )
    discount: float = option(0.99, "discount, also of geometric goals")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "discount")
        _ = self.actor_goals, self.value_goals

    @property
    def actor_goals(self) -> GoalShares:
        """The goals that a policy learns for."""
        return GoalShares(self.actor_current_goals, self.actor_future_goals, self.actor_future, self.discount)

    @property
    def value_goals(self) -> GoalShares | None:
        """The goals that values are of, for a method that has values."""
        return None

    @property
    def lookahead(self) -> int:
        """Transitions that a batch's next observation lies ahead."""
        return 1

    @property
    def whole_goals(self) -> bool:
        """Whether a goal has to hold all of an observation, in its order."""
        return False


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(NetworkConfig):
    """Settings of every method with a policy, a twin Q and its slow copy."""

    discount: float = option(0.99, "discount")
    tau: float = option(5e-3, "share by which the target critic follows at every update", was="target_rate")
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy")
    critic_learning_rate: float = option(3e-4, "Adam's learning rate for Q")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "discount", "tau")

    @property
    def critic_hidden(self) -> tuple[int, ...]:
        """The widths of Q's hidden layers."""
        return self.hidden
