"""What kind of dataset one is, by its environment and name: published settings depend on it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

LOCOMOTION = ("hopper", "halfcheetah", "walker2d")
LOCOMOTION_DATA = ("medium", "medium-replay", "medium-expert")


def environment_name(info: "DatasetInfo") -> str:
    """The recorded environment's id, else the dataset's: lower case, without hyphens and underscores."""
    return (info.env_spec.id if info.env_spec is not None else info.id).lower().replace("_", "").replace("-", "")


def dataset_name(info: "DatasetInfo") -> str:
    """The dataset's id in lower case, with hyphens for underscores."""
    return info.id.lower().replace("_", "-")


def of_ogbench(info: "DatasetInfo") -> bool:
    """Whether the environment is OGBench's, whose mazes share their names with D4RL's and not their rewards."""
    return info.env_spec is not None and str(info.env_spec.entry_point).startswith("ogbench.")


def locomotion_body(info: "DatasetInfo") -> str | None:
    """One of `LOCOMOTION`, or None."""
    return next((body for body in LOCOMOTION if body in environment_name(info)), None)


def locomotion_data(info: "DatasetInfo") -> str:
    """One of `LOCOMOTION_DATA`; medium if its name says nothing."""
    return next((kind for kind in LOCOMOTION_DATA[1:] if kind in dataset_name(info)), "medium")
