"""The methods by name: a new one is a file beside this and a line here."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trajplan.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo


@dataclass(frozen=True)
class Entry:
    """Where a method is.

    Attributes:
        summary: a line for `--help` and model cards.
        module, config: its file's module, and the name of its settings there.
        continuous, discrete: the names of the method's classes for Box and for Discrete actions, or None.
        returns: whether its batches hold the data's returns, discounted as its settings say.
    """

    summary: str
    module: str
    config: str
    continuous: str | None
    discrete: str | None
    returns: bool = False

    def config_class(self) -> type:
        """The dataclass of its settings."""
        return getattr(import_module(self.module), self.config)

    def method_class(self, info: "DatasetInfo") -> Any:
        """The class for a dataset's actions."""
        name = self.discrete if info.is_discrete else self.continuous
        if name is None:
            kinds = ("Discrete", "continuous") if info.is_discrete else ("continuous", "Discrete")
            others = [other for other, entry in METHODS.items() if getattr(entry, kinds[0].lower())]
            raise ConfigError(
                f"{self.summary} is for {kinds[1]} actions only, and dataset {info.id!r} has {kinds[0]} ones, which "
                f"{', '.join(others)} take."
            )
        return getattr(import_module(self.module), name)


METHODS = {
    "bc": Entry("Behaviour cloning", "trajplan.baselines.bc", "BCConfig", "BC", "BC"),
    "gcbc": Entry("Goal-conditioned behaviour cloning", "trajplan.baselines.gcbc", "GCBCConfig", "GCBC", "GCBC"),
    "gcivl": Entry(
        "Goal-conditioned implicit value learning", "trajplan.baselines.gcivl", "GCIVLConfig", "GCIVL", "GCIVL"
    ),
    "qrl": Entry("Quasimetric reinforcement learning", "trajplan.baselines.qrl", "QRLConfig", "QRL", "QRL"),
    "iql": Entry("Implicit Q-learning", "trajplan.baselines.iql", "IQLConfig", "IQL", "IQL"),
    "awac": Entry("Advantage-weighted actor-critic", "trajplan.baselines.awac", "AWACConfig", "AWAC", "AWAC"),
    "awr": Entry("Advantage-weighted regression", "trajplan.baselines.awr", "AWRConfig", "AWR", "AWR", returns=True),
    "cql": Entry("Conservative Q-learning", "trajplan.baselines.cql", "CQLConfig", "CQL", "DiscreteCQL"),
    "combo": Entry(
        "Conservative offline model-based policy optimisation", "trajplan.baselines.combo", "COMBOConfig", "COMBO", None
    ),
    "mopo": Entry("Model-based offline policy optimisation", "trajplan.baselines.mopo", "MOPOConfig", "MOPO", None),
    "sac": Entry("Soft actor-critic, unchanged", "trajplan.baselines.sac", "SACConfig", "SAC", "SAC"),
}


def method_named(name: str) -> Entry:
    """The entry of a method."""
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"Unknown method {name!r}; {did_you_mean(name, METHODS) or f'there are {known}.'}")
    return METHODS[name]
