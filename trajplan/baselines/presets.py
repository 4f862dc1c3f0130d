"""Published settings by environment, where they differ from a method's defaults."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import RunConfig

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

LOCOMOTION = ("hopper", "halfcheetah", "walker2d")

# By method and kind of environment: changes to the method's settings, and to the run's.
CHANGES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("iql", "locomotion"): ({}, {"reward_transform": "return-range"}),
    ("iql", "antmaze"): ({"expectile": 0.9, "beta": 10.0}, {"reward_transform": "minus-one"}),
}

# Of the methods with a dynamics model: the weight's name; then rollout length and weight on medium, medium-replay and
# medium-expert data.
WEIGHTS = {"mopo": "penalty_weight", "combo": "beta"}
ROLLOUTS: dict[tuple[str, str], tuple[tuple[int, float], ...]] = {
    ("mopo", "halfcheetah"): ((5, 0.5), (5, 0.5), (5, 2.5)),
    ("mopo", "hopper"): ((5, 5.0), (5, 2.5), (5, 5.0)),
    ("mopo", "walker2d"): ((5, 0.5), (1, 2.5), (1, 2.5)),
    ("combo", "halfcheetah"): ((5, 0.5), (5, 0.5), (5, 5.0)),
    ("combo", "hopper"): ((5, 5.0), (5, 0.5), (5, 5.0)),
    ("combo", "walker2d"): ((1, 5.0), (1, 0.5), (1, 5.0)),
}


def kind_of(info: "DatasetInfo") -> str:
    """`locomotion`, `antmaze` or `other`, by the recorded environment, else by the dataset's name."""
    name = _environment(info)
    if "antmaze" in name:
        return "antmaze"
    return "locomotion" if any(body in name for body in LOCOMOTION) else "other"


def _environment(info: "DatasetInfo") -> str:
    return (info.env_spec.id if info.env_spec is not None else info.id).lower().replace("_", "").replace("-", "")


def _rollouts(name: str, info: "DatasetInfo") -> dict[str, Any]:
    """Rollout length and weight of a method with a dynamics model; data of no known kind counts as medium."""
    body = next((body for body in LOCOMOTION if body in _environment(info)), "")
    data = info.id.lower().replace("_", "-")
    kind = 1 if "medium-replay" in data else 2 if "medium-expert" in data else 0
    if (name, body) not in ROLLOUTS:
        return {}
    length, weight = ROLLOUTS[name, body][kind]
    return {"rollout_length": length, WEIGHTS[name]: weight}


def preset_for(name: str, info: "DatasetInfo") -> tuple[Any, RunConfig]:
    """Settings of a method and of its run that suit a dataset.

    Raises:
        ConfigError: if there is no method of that name.
    """
    settings, run = CHANGES.get((name, kind_of(info)), ({}, {}))
    settings = settings | _rollouts(name, info)
    return replace(method_named(name).config_class()(), **settings), replace(RunConfig(), **run)
