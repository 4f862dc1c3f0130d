"""OfflineDataset: what users open, save and train on; `Episodes` documents its arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from trajplan.data.episodes import Episodes
from trajplan.data.minari_files import save_minari
from trajplan.data.returns import episode_blocks, returns_to_go
from trajplan.data.scores import ReferenceScores
from trajplan.data.sources.arrays import read_arrays
from trajplan.data.sources.minari import read_minari
from trajplan.data.summary import describe
from trajplan.data.together import describe_together
from trajplan.data.transitions import Transitions
from trajplan.data.windows import Windows
from trajplan.errors import ConfigError, DataError


@dataclass(frozen=True, repr=False)
class OfflineDataset(Episodes):
    """N transitions in E episodes (see `Episodes` for the arrays): opened, saved, split and viewed for training."""

    @classmethod
    def from_minari(cls, id: str | Sequence[str], *, cache_dir: str | Path | None = None) -> "OfflineDataset":
        """Open a Minari dataset, downloading it first when it is not on this machine; or several of them as one.

        The first call converts it into a cache of flat files, under a key of the source's content; later calls map
        those files at once. Several are one entry of the cache, with the episodes of the first in
        front, so they take no more memory than one; `info.sources` tells them apart, and `split` holds out a share of
        each.

        Args:
            id: such as `mujoco/hopper/medium-v0`; or several, of equal spaces and one environment.
            cache_dir: where the cache lives; default `TRAJPLAN_CACHE`, else `~/.cache/trajplan`.

        Raises:
            DataError: for an id that does not exist, a missing network, a damaged file or data that cannot be used,
                naming dataset, episode and field; for several whose spaces, environments or reference scores differ.
        """
        arrays, info = read_minari([id] if isinstance(id, str) else list(id), cache_dir)
        return cls(id=info.id, info=info, **arrays)

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Any],
        *,
        id: str = "episodes",
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        env_spec: EnvSpec | str | gymnasium.Env | None = None,
        reference: ReferenceScores | None = None,
        goal_columns: Sequence[int] | None = None,
    ) -> "OfflineDataset":
        """A dataset in memory from arrays.

        Args:
            episodes: mappings (or objects, such as Minari's EpisodeData) with observations (T + 1, ...), actions
                (T, ...), rewards, terminations and truncations (T,).
            id: a name, for messages and checkpoints.
            observation_space: default: the environment's, without one an unbounded Box of the first episode's shape.
            action_space: likewise. Baselines need bounds, and integers need a Discrete space.
            env_spec: the environment, for evaluation and for its spaces: an id such as `Pendulum-v1`, a specification,
                or a Gymnasium environment (which stays open). To read its spaces it is made once and closed.
            reference: returns that mean 0 and 100; default: the bundled table's for `env_spec`, if it has any.
            goal_columns: the columns of the flat observation that a goal fixes, for goal-conditioned methods and
                models; None: the data know no goals.

        Raises:
            DataError: for data that cannot be used or do not fit the spaces, naming dataset, episode and field; for an
                environment that cannot be made.
        """
        arrays, info = read_arrays(
            episodes,
            id=id,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=env_spec,
            reference=reference,
            goal_columns=goal_columns,
        )
        return cls(id=info.id, info=info, **arrays)

    def save(self, id: str, *, description: str | None = None) -> Path:
        """Write a Minari dataset, to be used as in `trajplan train --dataset ID`.

        `from_minari(id)` then gives the same arrays, spaces, environment and reference scores. An error or an interrupt
        leaves nothing behind.

        Args:
            id: a new Minari id, such as `mine/pendulum-v0`.
            description: a sentence for Minari's metadata; default: one is made.

        Returns:
            The dataset's folder, in `MINARI_DATASETS_PATH` (default `~/.minari/datasets`).

        Raises:
            DataError: for an id that is malformed or taken, an environment whose specification holds Python objects,
                or a disk that is full.
        """
        return save_minari(self, id, description)

    def __repr__(self) -> str:
        # The arrays may be larger than memory, and messages and debuggers ask for this often.
        sizes = f"episodes={self.num_episodes}, transitions={self.num_transitions}"
        return f"OfflineDataset({self.id!r}, {sizes}, observations={self.observation_dim}, actions={self.action_dim})"

    def __str__(self) -> str:
        """What `print` shows: sizes, spaces, returns, how episodes end. Observations and actions are not read."""
        return describe(self)

    def joined(
        self, discount: float = 0.99, termination_penalty: float | None = -100.0, rows: slice | None = None
    ) -> np.ndarray:
        """Transitions as the Trajectory Transformer reads them, (rows, J) float32 with J = S + A + 2.

        Columns: observation, action, reward and return-to-go, both with the termination penalty.

        Args:
            discount, termination_penalty: as for `returns_to_go`.
            rows: a range of transitions without a step; default all. Only the episodes that it touches are read, so
                a dataset larger than memory can be taken in pieces.
        """
        start, stop, step = (rows or slice(None)).indices(self.num_transitions)
        if step != 1:
            raise ConfigError(f"joined() takes a range of rows without a step, not {rows}.")
        stop = max(start, stop)
        joined = np.empty((stop - start, self.observation_dim + self.action_dim + 2), np.float32)
        if stop == start:
            return joined
        first = int(np.searchsorted(self.offsets, start, side="right")) - 1
        last = int(np.searchsorted(self.offsets, stop, side="left"))
        for low, high in episode_blocks(self.offsets, first, last):
            begin, end = int(self.offsets[low]), int(self.offsets[high])
            rewards = self.rewards_with_penalty(termination_penalty, slice(begin, end))
            to_go = returns_to_go(rewards, self.offsets[low : high + 1] - begin, discount)
            # The block holds whole episodes; only its overlap with the wanted rows is written.
            a, b = max(begin, start), min(end, stop)
            episodes = np.repeat(np.arange(low, high), self.lengths[low:high])[a - begin : b - begin]
            out = joined[a - start : b - start]
            out[:, : self.observation_dim] = self.observations[np.arange(a, b) + episodes]
            out[:, self.observation_dim : -2] = self.actions[a:b]
            out[:, -2] = rewards[a - begin : b - begin]
            out[:, -1] = to_go[a - begin : b - begin]
        return joined

    def split(self, held_out: float, seed: int, episodes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Training and held-out episodes: two disjoint sorted index arrays, int64, with at least one episode each.

        A dataset made of several is split source by source, so that both sides have a share of each; a source with a
        single episode is used for training.

        Args:
            held_out: the fraction of episodes to hold out, between 0 and 1, rounded to whole episodes.
            seed: decides which.
            episodes: those to split; None: all.

        Raises:
            ConfigError: for a fraction out of range.
            DataError: when there are fewer than two.
        """
        if not 0.0 < held_out < 1.0:
            raise ConfigError(f"The held-out fraction must be between 0 and 1, not {held_out}.")
        episodes = np.arange(self.num_episodes) if episodes is None else episodes
        if len(episodes) < 2:
            raise DataError(f"dataset {self.id!r}: one episode cannot be split; holding some out needs at least two.")
        ends = np.cumsum([source.num_episodes for source in self.info.sources[:-1]], dtype=np.int64)
        whose = np.searchsorted(ends, episodes, side="right")
        parts = [episodes[whose == source] for source in range(len(ends) + 1)]
        if all(len(part) < 2 for part in parts):
            parts = [episodes]
        rng = np.random.default_rng(seed)
        training, kept = [], []
        for part in parts:
            count = min(max(round(held_out * len(part)), 1), len(part) - 1) if len(part) > 1 else 0
            order = rng.permutation(part)
            training.append(order[count:])
            kept.append(order[:count])
        return np.sort(np.concatenate(training)), np.sort(np.concatenate(kept))

    def hold_out(self, fraction: float, seed: int) -> "tuple[np.ndarray, OfflineDataset, np.ndarray]":
        """Episodes to train on, and those to measure losses on.

        Where the dataset names others that are meant for that (`info.held_out`), all of their episodes, and all of its
        own to train on; else a share of its own, as `split` draws it.

        Args:
            fraction, seed: as `split` takes them.

        Returns:
            The numbers of the training episodes; the dataset of the held-out ones, and their numbers in it.

        Raises:
            ConfigError, DataError: as `split` and `from_minari` do.
        """
        if not self.info.held_out:
            training, kept = self.split(fraction, seed)
            return training, self, kept
        other = OfflineDataset.from_minari(self.info.held_out)
        describe_together([self.info, replace(other.info, held_out=self.info.held_out)])
        return np.arange(self.num_episodes), other, np.arange(other.num_episodes)

    def windows(
        self, length: int, *, stride: int = 1, episodes: np.ndarray | None = None, device: Any = "cpu"
    ) -> Windows:
        """Stretches of `length` transitions, for sequence models; see `Windows`."""
        return Windows(self, length, stride=stride, episodes=episodes, device=device)

    def transitions(
        self, *, episodes: np.ndarray | None = None, device: Any = "cpu", discount: float | None = None
    ) -> Transitions:
        """Single transitions with their true next observation, for value and dynamics methods; see `Transitions`."""
        return Transitions(self, episodes=episodes, device=device, discount=discount)
