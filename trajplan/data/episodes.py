"""The record that every source fills and every view reads: all episodes of a dataset as flat arrays.

transition   0    1    2  |  3    4          episode 0 has 3 transitions, episode 1 has 2
offsets      0              3         5
actions      a0   a1   a2   a3   a4
observations o0   o1   o2   o3 | o4   o5   o6     one more per episode: row of transition t is t + its episode
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajplan.data.columns import mean_and_std
from trajplan.data.info import DatasetInfo
from trajplan.data.returns import returns_to_go
from trajplan.errors import ConfigError, DataError


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation (S,) float32 of the observations; the std of a constant dimension is given as 1."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Episodes:
    """N transitions in E episodes.

    Attributes:
        id: the dataset's name.
        observations: (N + E, S) float32; episode e has its T + 1 in rows `offsets[e] + e : offsets[e + 1] + e + 1`.
        actions: (N, A) float32 as recorded, never clipped; Discrete: A is 1 and holds the index minus `start`.
        rewards: (N,) float32.
        terminations: (N,) bool, real ends.
        truncations: (N,) bool, time limits; both may be set, and neither where a recording just stops.
        offsets: (E + 1,) int64; the transitions of episode e are rows `offsets[e] : offsets[e + 1]`.
        info: spaces, environment and reference scores.

    The arrays may be private memory maps of the cache: writing to one never reaches the disk.
    """

    id: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    offsets: np.ndarray
    info: DatasetInfo

    @property
    def num_transitions(self) -> int:
        """N."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.offsets) - 1

    @property
    def observation_dim(self) -> int:
        """S."""
        return self.observations.shape[1]

    @property
    def action_dim(self) -> int:
        """A."""
        return self.actions.shape[1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Transitions of each episode, (E,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode as recorded, (E,) float64."""
        return np.add.reduceat(self.rewards, self.offsets[:-1], dtype=np.float64)

    def rewards_with_penalty(self, termination_penalty: float | None, rows: slice = slice(None)) -> np.ndarray:
        """Rewards float32 of some rows, that of every real end replaced by the penalty; None: as recorded."""
        rewards = self.rewards[rows]
        if termination_penalty is None:
            return rewards
        if not np.isfinite(termination_penalty):
            raise ConfigError(f"The termination penalty must be a finite number or none, not {termination_penalty}.")
        return np.where(self.terminations[rows], np.float32(termination_penalty), rewards)

    def returns_to_go(self, discount: float, termination_penalty: float | None) -> np.ndarray:
        """What is still to come after each transition: `R_t = sum over i > t of discount^(i - t - 1) r_i`.

        Its own reward is left out, so `r_t + discount * R_t` is the value of the step (Janner et al. 2021).

        Args:
            discount: between 0 and 1.
            termination_penalty: takes the place of the reward at real ends; None: as recorded.

        Returns:
            (N,) float64, 0 at the last transition of every episode.

        Raises:
            ConfigError: for a discount or penalty out of range.
        """
        return returns_to_go(self.rewards_with_penalty(termination_penalty), self.offsets, discount)

    def episode_ends(self) -> dict[str, np.ndarray]:
        """Which episodes end in a terminal alone, a timeout alone, both or neither: (E,) bool each."""
        last = self.offsets[1:] - 1
        ended, cut = np.asarray(self.terminations[last]), np.asarray(self.truncations[last])
        return {"terminal": ended & ~cut, "timeout": cut & ~ended, "both": ended & cut, "neither": ~ended & ~cut}

    def statistics(self) -> Statistics:
        """Mean and standard deviation of every observation dimension over all N + E observations (float64 sums)."""
        mean, std = mean_and_std(self.observations)
        # A constant column's mean may be off by rounding; dividing by that would blow up noise.
        constant = std <= 1e-7 * np.abs(mean)
        return Statistics(mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32))

    def chosen(self, episodes: np.ndarray | None) -> np.ndarray:
        """Chosen episode numbers as int64, all of them for None; refuses none at all, and any that are not there."""
        if episodes is None:
            return np.arange(self.num_episodes)
        numbers = np.asarray(episodes, dtype=np.int64).reshape(-1)
        if len(numbers) == 0:
            raise DataError(f"dataset {self.id!r}: no episodes were chosen.")
        strange = numbers[(numbers < 0) | (numbers >= self.num_episodes)]
        if len(strange) > 0:
            raise DataError(
                f"dataset {self.id!r} has episodes 0 to {self.num_episodes - 1}; {strange[0]} is not one of them."
            )
        return numbers
