"""Published settings by environment, where they differ from a method's defaults."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import GoalConfig
from trajplan.data.kinds import (
    LOCOMOTION,
    LOCOMOTION_DATA,
    dataset_name,
    environment_name,
    locomotion_body,
    locomotion_data,
    of_ogbench,
)
from trajplan.data.scores import reference_for_d4rl

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

# Parts of environments' names by kind; the first that fits counts.
KINDS = {
    "antmaze": ("antmaze",),
    "pointmaze": ("pointmaze", "maze2d"),
    "adroit": ("adroit", "/door/", "/pen/", "/hammer/", "/relocate/"),
    "locomotion": LOCOMOTION,
}

# Published target gaps leave out that the mean of 3 x 10 candidates is taken, not their sum.
SUM_OF_CANDIDATES = math.log(30)

# By method and kind of environment, or body and data of locomotion: changes to the method's settings, and to the run's.
CHANGES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("iql", "hopper medium"): (
        {"tau": 1e-3, "policy": "deterministic"},
        {"reward_transform": "return-range"},
    ),
    ("iql", "hopper medium-replay"): (
        {"tau": 1e-3, "policy": "deterministic"},
        {"reward_transform": "return-range"},
    ),
    ("iql", "hopper medium-expert"): ({"expectile": 0.5, "beta": 6.0}, {}),
    ("iql", "antmaze"): ({"expectile": 0.9, "beta": 10.0}, {"reward_transform": "minus-one"}),
    ("iql", "adroit"): ({"expectile": 0.8, "dropout": 0.1}, {}),
    ("awac", "antmaze"): ({"temperature": 0.1}, {"reward_transform": "minus-one"}),
    ("awac", "pointmaze"): ({"temperature": 0.1}, {}),
    ("awac", "adroit"): ({"temperature": 0.1}, {}),
    ("cql", "hopper medium"): ({}, {"reward_transform": "return-range"}),
    ("cql", "antmaze"): (
        {
            "alpha": 5.0,
            "target_gap": 0.8 - SUM_OF_CANDIDATES,
            "min_penalty": -200.0,
            "target_actions": 10,
            "critic_layers": 5,
            "actor_learning_rate": 1e-4,
            "temperature_learning_rate": 1e-4,
        },
        {"reward_transform": "times-ten-minus-five", "standardize": False},
    ),
    ("cql", "pointmaze"): ({"target_gap": 5.0 - SUM_OF_CANDIDATES}, {}),
    ("cql", "adroit"): ({"alpha": 1.0, "actor_learning_rate": 1e-4, "temperature_learning_rate": 1e-4}, {}),
}

# Of the methods for goals, as OGBench runs them.
GOAL_RUN = {"batch_size": 1024}

# Of the methods with a dynamics model: the weight's name; then rollout length and weight by `LOCOMOTION_DATA`.
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
    """A key of `KINDS`, or `other`, by the recorded environment, else by the dataset's name."""
    name = environment_name(info)
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def row_of(info: "DatasetInfo") -> str:
    """The second part of a key of `CHANGES`: the kind of environment, for hopper medium and its like body and data.

    An antmaze that is not D4RL's is `other`.
    """
    kind, body, data = kind_of(info), locomotion_body(info), locomotion_data(info)
    if kind == "antmaze" and not _of_d4rl(info):
        return "other"
    # Data that its name tells no kind of (expert, random) has no row of its own in the published settings.
    return f"{body} {data}" if body is not None and data in dataset_name(info) else kind


def note_for(name: str, info: "DatasetInfo") -> str | None:
    """A sentence on settings that a user might expect of the dataset's environment and does not get, or None."""
    if kind_of(info) != "antmaze" or _of_d4rl(info) or of_ogbench(info) or (name, "antmaze") not in CHANGES:
        return None
    settings, run = CHANGES[name, "antmaze"]
    flags = [f"--{key.replace('_', '-')} {value:.4g}" for key, value in settings.items()]
    flags += [
        f"--{key.replace('_', '-')} {value}" if isinstance(value, str) else f"--no-{key}" for key, value in run.items()
    ]
    return (
        f"{info.id} is not D4RL's AntMaze: Minari's pays 1 at every step in the goal, and reaching it ends nothing, so "
        f"{name} keeps its defaults; the settings published for D4RL's are {' '.join(flags)}."
    )


def _of_d4rl(info: "DatasetInfo") -> bool:
    """Whether the dataset is named as D4RL names its own, such as `antmaze-umaze-v2` after any namespace."""
    return not of_ogbench(info) and reference_for_d4rl(info.id.rpartition("/")[2]) is not None


def _rollouts(name: str, info: "DatasetInfo") -> dict[str, Any]:
    """Rollout length and weight of a method with a dynamics model; data of no known kind counts as medium."""
    body = locomotion_body(info)
    if body is None or name not in WEIGHTS:
        return {}
    length, weight = ROLLOUTS[name, body][LOCOMOTION_DATA.index(locomotion_data(info))]
    return {"rollout_length": length, WEIGHTS[name]: weight}


def preset_for(name: str, info: "DatasetInfo") -> tuple[Any, RunConfig]:
    """Settings of a method and of its run that suit a dataset."""
    config = method_named(name).config_class()()
    default: tuple[dict[str, Any], dict[str, Any]] = ({}, GOAL_RUN if isinstance(config, GoalConfig) else {})
    settings, run = CHANGES.get((name, row_of(info)), default)
    settings = settings | _rollouts(name, info)
    return replace(config, **settings), replace(RunConfig(), **run)
