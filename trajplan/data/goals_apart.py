"""Goal environments whose observation is a dictionary: the goal taken out of it, to be told at reset instead."""

from dataclasses import replace

import numpy as np
from gymnasium import spaces

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import DataError

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
TRANSFORM = "goals-apart"


def goals_apart(dataset: OfflineDataset) -> OfflineDataset:
    """The same episodes without `desired_goal` in the observation; the goal columns become those of `achieved_goal`.

    What is learned from them then depends on no goal, or on one taken in hindsight, and an evaluation tells the policy
    the environment's `desired_goal` at reset. Rewards and ends stay as they were recorded, for the goals of then. The
    transform is recorded as `goals-apart`.

    Raises:
        DataError: where the observation is no dictionary with both, of one size.
    """
    space, layout = dataset.info.observation_space, {part.path: part for part in dataset.info.observation_layout}
    achieved, desired = layout.get((ACHIEVED,)), layout.get((DESIRED,))
    if not isinstance(space, spaces.Dict) or achieved is None or desired is None or achieved.size != desired.size:
        raise DataError(
            f"dataset {dataset.id!r} has no goals to take out of its observation: that needs {ACHIEVED!r} and "
            f"{DESIRED!r} of one size."
        )
    kept = np.delete(np.arange(dataset.observation_dim), desired.columns)
    info = replace(
        dataset.info,
        observation_space=spaces.Dict({key: part for key, part in space.spaces.items() if key != DESIRED}),
        goal_columns=tuple(np.searchsorted(kept, np.arange(achieved.columns.start, achieved.columns.stop)).tolist()),
        transforms=(*dataset.info.transforms, {"name": TRANSFORM, "dataset": dataset.id}),
    )
    return replace(dataset, observations=np.ascontiguousarray(dataset.observations[:, kept]), info=info)
