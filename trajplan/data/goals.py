"""Goals: what an episode is to reach, and hindsight, which takes what episodes did reach for goals of training."""

from typing import Any

import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError


def checked_goals(info: DatasetInfo, goals: Any) -> np.ndarray:
    """Goals (m, G) float32 as a policy is given them; refused where they do not fit the dataset's goal columns."""
    if info.goal_columns is None:
        raise ConfigError(f"dataset {info.id!r}, which this policy learned from, knows no goals: reset it without one.")
    rows = np.asarray(goals, np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(info.goal_columns):
        raise ConfigError(
            f"a goal of shape {rows.shape[1:]} was given, and goals of dataset {info.id!r} hold "
            f"{len(info.goal_columns)} numbers, of the observation's columns {list(info.goal_columns)}."
        )
    if not np.isfinite(rows).all():
        raise ConfigError(f"a goal must be finite numbers, not {rows[~np.isfinite(rows).all(1)][0].tolist()}.")
    return rows
