"""Reference returns for score normalisation: from the dataset, the user or the table of D4RL's constants."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trajplan.errors import DataError

# The source of those that a user gives to an evaluation, in place of the dataset's.
GIVEN = "command line"


@dataclass(frozen=True)
class ReferenceScores:
    """Returns that stand for 0 and 100 on the normalised scale (a random policy's and an expert's).

    Raises:
        DataError: when they are not finite or `max` is not above `min`.
    """

    min: float
    max: float
    source: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.min) and np.isfinite(self.max) and self.min < self.max):
            raise DataError(
                f"Reference scores need a finite minimum below a finite maximum, not {self.min} and {self.max} "
                f"(from {self.source})."
            )

    def normalize(self, returns: ArrayLike) -> np.ndarray:
        """`100 (return - min) / (max - min)`, any shape, float64."""
        return 100.0 * (np.asarray(returns, dtype=np.float64) - self.min) / (self.max - self.min)

    def normalize_std(self, std: ArrayLike) -> np.ndarray:
        """A standard deviation of returns on the normalised scale: scaled, never shifted."""
        return 100.0 * np.asarray(std, dtype=np.float64) / (self.max - self.min)


# Fu et al. 2020, D4RL's infos.py; the versions of an environment share their constants.
D4RL_SCORES = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
    "AdroitHandDoor": (-56.512833, 2880.5693087298737),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "antmaze": (0.0, 1.0),
}
# D4RL's dataset names, whose files write antmaze as Ant_maze. The maze2d constants are those of the sparse v1 tasks.
# Gymnasium's PointMaze and AntMaze differ from D4RL's (episode length, goals), so only D4RL's names lead to them.
_D4RL_NAMES = {
    r"hopper-": "Hopper",
    r"halfcheetah-": "HalfCheetah",
    r"walker2d-": "Walker2d",
    r"ant-(?!maze)": "Ant",
    r"ant-?maze-": "antmaze",
    r"door-": "AdroitHandDoor",
    r"maze2d-umaze(-sparse)?-v1": "maze2d-umaze",
    r"maze2d-medium(-sparse)?-v1": "maze2d-medium",
    r"maze2d-large(-sparse)?-v1": "maze2d-large",
}


def reference_for_environment(env_id: str) -> ReferenceScores | None:
    """The bundled scores of a Gymnasium environment id such as `Hopper-v5`, or None."""
    name = env_id.rsplit("/", 1)[-1].rsplit("-v", 1)[0]
    if name not in D4RL_SCORES:
        return None
    return ReferenceScores(*D4RL_SCORES[name], source=f"D4RL's constants for {name}")


def reference_for_d4rl(name: str) -> ReferenceScores | None:
    """The bundled scores of a D4RL dataset name such as `hopper-medium-v2` or `maze2d-umaze-v1`, or None."""
    name = name.lower().replace("_", "-")
    for pattern, key in _D4RL_NAMES.items():
        if re.match(pattern, name):
            return ReferenceScores(*D4RL_SCORES[key], source=f"D4RL's constants for {key}")
    return None
