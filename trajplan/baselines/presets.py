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


def kind_of(info: "DatasetInfo") -> str:
    """`locomotion`, `antmaze` or `other`, by the recorded environment, else by the dataset's name."""
    name = (info.env_spec.id if info.env_spec is not None else info.id).lower().replace("_", "").replace("-", "")
    if "antmaze" in name:
        return "antmaze"
    return "locomotion" if any(body in name for body in LOCOMOTION) else "other"


def preset_for(name: str, info: "DatasetInfo") -> tuple[Any, RunConfig]:
    """Settings of a method and of its run that suit a dataset.

    Raises:
        ConfigError: if there is no method of that name.
    """
    settings, run = CHANGES.get((name, kind_of(info)), ({}, {}))
    return replace(method_named(name).config_class()(), **settings), replace(RunConfig(), **run)
