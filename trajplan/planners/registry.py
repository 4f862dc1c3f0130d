"""The planners by name: a new one is a file beside this and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from trajplan.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Entry:
    """Where a planner is.

    Attributes:
        summary: what it does, for `--help` and model cards.
        module: of its file.
        config, planner: the names of its settings and of its class there.
        on: what it plans on, a trained transformer or a dynamics ensemble. A class of the former is made as
            `Class(model, tokenizer, config)`, one of the latter as `Class(dynamics, info, config)`; both get `critic`
            or `ensemble` besides, by keyword, where their settings name such a folder.
    """

    summary: str
    module: str
    config: str
    planner: str
    on: Literal["transformer", "dynamics"] = "transformer"

    def config_class(self) -> Any:
        """The dataclass of its settings, `context` and `replan_every` among them."""
        return getattr(import_module(self.module), self.config)

    def planner_class(self) -> Any:
        """Its class, as `trajplan.planners.controller.Planner` describes it."""
        return getattr(import_module(self.module), self.planner)


DEFAULT = "beam_search"

PLANNERS = {
    DEFAULT: Entry(
        "beam search for the greatest predicted return",
        "trajplan.planners.beam_search",
        "BeamSearchConfig",
        "BeamSearch",
    ),
    "imitation": Entry(
        "the likeliest actions, or by a beam the likeliest trajectory",
        "trajplan.planners.imitation",
        "ImitationConfig",
        "Imitation",
    ),
    "sample_and_select": Entry(
        "of many trajectories drawn from the model, the one of the greatest predicted return",
        "trajplan.planners.sample_and_select",
        "SampleAndSelectConfig",
        "SampleAndSelect",
    ),
    "mcts": Entry("Monte Carlo tree search in the model", "trajplan.planners.mcts", "MCTSConfig", "MCTS"),
    "random_shooting": Entry(
        "of many sequences of actions, drawn uniformly, the best by a dynamics ensemble",
        "trajplan.planners.random_shooting",
        "RandomShootingConfig",
        "RandomShooting",
        on="dynamics",
    ),
    "cem": Entry(
        "sequences of actions from a Gaussian that is fitted to the best of them (CEM, iCEM), by a dynamics ensemble",
        "trajplan.planners.cem",
        "CEMConfig",
        "CEM",
        on="dynamics",
    ),
    "mppi": Entry(
        "the mean of sequences of actions, weighed by what a dynamics ensemble predicts of them (path integrals)",
        "trajplan.planners.mppi",
        "MPPIConfig",
        "MPPI",
        on="dynamics",
    ),
    "mbop": Entry(
        "the mean of sequences of actions of cloned policies, weighed by what a dynamics ensemble predicts (MBOP)",
        "trajplan.planners.mbop",
        "MBOPConfig",
        "MBOP",
        on="dynamics",
    ),
}

# Packages that bring planners of their own name them in this group; each value is an `Entry`.
GROUP = "trajplan.planners"


def planners() -> dict[str, Entry]:
    """All planners by name, those of other installed packages too."""
    found = {point.name: point.load() for point in entry_points(group=GROUP)}
    return {**found, **PLANNERS}


def planner_named(name: str) -> Entry:
    """The entry of a planner."""
    known = PLANNERS if name in PLANNERS else planners()
    if name not in known:
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}."
        raise ConfigError(f"Unknown planner {name!r}; {hint}")
    return known[name]


def typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings with their `type` first; those of before there was a second planner have none."""
    return {"type": DEFAULT} | dict(values)


def registered_name(config: Any) -> str | None:
    """The name of the planner that settings are of, or None if it is not registered."""
    place = (type(config).__module__, type(config).__qualname__)
    for known in (PLANNERS.copy, planners):
        for name, entry in known().items():
            if (entry.module, entry.config) == place:
                return name
    return None


def type_of(config: Any) -> str:
    """The name under which a planner's settings are saved."""
    if isinstance(config, type) or not is_dataclass(config):
        raise ConfigError(f"planner is {config!r}; it must be a planner's settings, such as BeamSearchConfig().")
    name = registered_name(config)
    if name is not None:
        return name
    raise ConfigError(
        f"{type(config).__name__} is no registered planner's settings; an installed package registers one by an entry "
        f"point of the group {GROUP} (CONTRIBUTING.md)."
    )
