"""Settings that methods share, and what they check."""

import math
from dataclasses import dataclass
from typing import Any

from trajplan.config import option, require


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
