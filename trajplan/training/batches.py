"""Batches of tokens, gathered on the device from the dataset tokenised once; no loader processes.

Shapes: N transitions, J tokens a transition, V bins, T transitions a window, B windows, L = T·J - 1 targets.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trajplan.data.dataset import OfflineDataset
from trajplan.data.windows import Windows
from trajplan.errors import ConfigError
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.training.config import TrainConfig
from trajplan.training.goals import WindowGoals

ROWS_AT_A_TIME = 1 << 17


@dataclass(frozen=True)
class TokenBatch:
    """B windows as inputs and targets.

    Attributes:
        tokens, targets: (B, L) int64.
        valid: (B, L) bool, which targets count.
        counts: (4,) int64, how many of those are observation, action, reward and return tokens.
        goals: (B, G) int64, what stands before the windows; None without goals.
    """

    tokens: Tensor
    targets: Tensor
    valid: Tensor
    counts: Tensor
    goals: Tensor | None = None


class TokenTable:
    """The dataset's tokens, one row a transition, on a device, and how windows become batches.

    Attributes:
        tokens: (N + 1, J) uint8 or int16; the last row is all stop tokens, V.
        terminations: (N,) bool, real ends.
        observation_dim: S.
    """

    def __init__(
        self, dataset: OfflineDataset, tokenizer: Tokenizer, config: TrainConfig, device: torch.device
    ) -> None:
        rows = dataset.num_transitions
        dtype = torch.uint8 if tokenizer.bins <= 255 else torch.int16
        table = torch.full((rows + 1, tokenizer.num_dims), tokenizer.bins, dtype=dtype)
        for start in range(0, rows, ROWS_AT_A_TIME):
            piece = slice(start, min(start + ROWS_AT_A_TIME, rows))
            joined = dataset.joined(config.discount, config.termination_penalty, rows=piece)
            table[piece] = tokenizer.encode(torch.from_numpy(joined)).to(dtype)
        self.observation_dim = dataset.observation_dim
        self.tokens = table.to(device)
        self.terminations = torch.from_numpy(np.array(dataset.terminations)).to(device)

    def fingerprint(self) -> str:
        """SHA-256 of all tokens and ends: changes with the data, the tokenizer, the discount and the penalty."""
        digest = hashlib.sha256(self.tokens.cpu().numpy().data)
        digest.update(self.terminations.cpu().numpy().data)
        return digest.hexdigest()

    def batch(self, rows: Tensor, valid: Tensor) -> TokenBatch:
        """The tokens of windows.

        After an episode's real end comes a row of stop tokens, of which the first alone counts; after a time limit
        padding follows at once, and padding never counts.

        Args:
            rows: (B, T) int64, held at the episode's last row beyond its end (`Windows.gather_rows`).
            valid: (B, T) bool, False on padding.
        """
        stop = stop_rows(rows, valid, self.terminations)
        x = self.tokens[rows.masked_fill(stop, len(self.tokens) - 1)].long()
        counts = valid[..., None].repeat(1, 1, x.shape[-1])
        counts[..., 0] |= stop
        x, counts = x.flatten(1), counts.flatten(1)
        return TokenBatch(x[:, :-1], x[:, 1:], counts[:, 1:], self.count_targets(rows, valid))

    def count_targets(self, rows: Tensor, valid: Tensor) -> Tensor:
        """How many targets of each kind (observation, action, reward, return) windows hold: (4,) int64.

        They sum to `batch(rows, valid).valid.sum()`, without building the batch.
        """
        transitions = valid.sum()
        stops = stop_rows(rows, valid, self.terminations).sum()
        action_dim = self.tokens.shape[1] - self.observation_dim - 2
        # A window's very first token is an input only.
        observation = transitions * self.observation_dim - len(valid) + stops
        return torch.stack([observation, transitions * action_dim, transitions, transitions])


def stop_rows(rows: Tensor, valid: Tensor, terminations: Tensor) -> Tensor:
    """Where the row of stop tokens belongs: the first padding row after a real end, (B, T) bool."""
    stop = torch.zeros_like(valid)
    stop[:, 1:] = ~valid[:, 1:] & valid[:, :-1] & terminations[rows[:, 1:]]
    return stop


class WindowOrder:
    """Which windows each update takes: a pure function of (seed, update), so a resumed run needs no sampler state.

    The windows of epoch e are visited in a permutation drawn from (seed, e), without replacement; the epochs follow
    one another without a gap, and update u takes windows `u * batch_size` to `(u + 1) * batch_size` of that stream.
    """

    def __init__(self, windows: int, batch_size: int, seed: int) -> None:
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self._permutations: dict[int, Tensor] = {}

    def indices(self, update: int) -> Tensor:
        """Window numbers of the global batch of update 0, 1, …: (batch_size,) int64, on the CPU."""
        place, end = update * self.batch_size, (update + 1) * self.batch_size
        parts = []
        while place < end:
            epoch, offset = divmod(place, self.windows)
            parts.append(self._permutation(epoch)[offset : offset + end - place])
            place += len(parts[-1])
        return torch.cat(parts)

    def epoch_of(self, update: int) -> float:
        """Passes over the windows done before an update."""
        return update * self.batch_size / self.windows

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            # Two are enough: a batch that spans an epoch's end reads the old and the new one.
            self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
            state = np.random.SeedSequence([self.seed, epoch]).generate_state(2, np.uint32)
            generator = torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
            self._permutations[epoch] = torch.randperm(self.windows, generator=generator)
        return self._permutations[epoch]


def check_batch(config: TrainConfig, processes: int) -> None:
    """Refuse a batch that so many processes cannot share in equal parts."""
    if config.batch_size % (config.accumulation * processes):
        raise ConfigError(
            f"batch_size is {config.batch_size}, which {processes} processes x {config.accumulation} accumulation "
            "steps do not divide."
        )


class TrainingBatches:
    """The training data of one process: its slice of every global batch, in `accumulation` parts."""

    def __init__(
        self,
        table: TokenTable,
        windows: Windows,
        config: TrainConfig,
        rank: int,
        processes: int,
        goals: WindowGoals | None = None,
    ) -> None:
        self.table, self.windows, self.goals = table, windows, goals
        self.order = WindowOrder(len(windows), config.batch_size, config.seed)
        check_batch(config, processes)
        size = config.batch_size // (config.accumulation * processes)
        self._slices = [
            slice((i * processes + rank) * size, (i * processes + rank + 1) * size) for i in range(config.accumulation)
        ]

    def batch(self, update: int) -> tuple[list[TokenBatch], Tensor]:
        """This process's parts of an update's batch, and the targets of each kind in the global batch, (4,) int64.

        Every process knows the global batch, so its loss can be normalised by it without asking the others.
        """
        index = self._on_device(self.order.indices(update))
        rows, valid = self.windows.gather_rows(index)
        parts = [self.table.batch(rows[part], valid[part]) for part in self._slices]
        if self.goals is not None:
            goals = self.goals.of(index, update)
            parts = [replace(batch, goals=goals[part]) for batch, part in zip(parts, self._slices, strict=True)]
        return parts, self.table.count_targets(rows, valid)

    def episodes(self, update: int) -> list[int]:
        """The episodes that an update's global batch draws on, sorted."""
        index = self._on_device(self.order.indices(update))
        return sorted(set(self.windows.episode_of(index).tolist()))

    def _on_device(self, index: Tensor) -> Tensor:
        device = self.table.tokens.device
        return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)
