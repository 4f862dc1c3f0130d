"""The goals of training windows: in hindsight a later observation of the window's episode, as tokens.

Shapes: B windows, G columns of a goal, N transitions in E episodes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajplan.config import require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals import goal_columns, later_rows
from trajplan.data.info import DatasetInfo
from trajplan.data.windows import Windows
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.training.config import TrainConfig

# What the held-out windows' goals are drawn with in place of an update.
HELD_OUT = 1 << 62


def chosen_columns(info: DatasetInfo, config: TrainConfig) -> tuple[int, ...]:
    """The columns of an observation that stand before a window as its goal; none without goals."""
    if config.goal is None:
        return ()
    known = goal_columns(info)
    if config.goal == "all":
        return known
    words = [word.strip() for word in config.goal.split(",")]
    columns = tuple(int(word) for word in words if word.isdecimal())
    good = len(columns) == len(words) == len(set(columns)) and set(columns) <= set(known)
    must = f"be all, none, or different ones of the columns that goals of {info.id!r} fix, {','.join(map(str, known))}"
    require(good, "goal", repr(config.goal), must)
    return columns


def goal_settings(info: DatasetInfo, config: TrainConfig) -> dict[str, Any]:
    """What the model's config says of its goals; nothing without goals."""
    columns = chosen_columns(info, config)
    if not columns:
        return {}
    return {"goal_columns": list(columns), "goal_places": [goal_columns(info).index(column) for column in columns]}


def relabelling(info: DatasetInfo, config: TrainConfig) -> dict[str, Any]:
    """How windows got their goals, for dataset.json; nothing without goals."""
    columns = chosen_columns(info, config)
    how = {"columns": list(columns), "draw": config.goal_draw, "discount": config.goal_discount}
    return {"goal_relabelling": {"name": "hindsight", "window": how}} if columns else {}


class WindowGoals:
    """Goals of the windows of a dataset: which later observation is drawn is a pure function of (seed, update).

    Attributes:
        tokens: (N + E, G) uint8 or int16, of every recorded observation.
    """

    def __init__(self, dataset: OfflineDataset, windows: Windows, tokenizer: Tokenizer, config: TrainConfig) -> None:
        self.windows, self.config = windows, config
        observations, cpu = torch.from_numpy(np.asarray(dataset.observations)), tokenizer.to("cpu")
        columns = [
            cpu.encode(observations[:, column, None], slice(column, column + 1))
            for column in chosen_columns(dataset.info, config)
        ]
        dtype = torch.uint8 if tokenizer.bins <= 255 else torch.int16
        self.tokens = torch.cat(columns, 1).to(windows.starts.device, dtype)

    def of(self, index: Tensor, update: int) -> Tensor:
        """Goals of the windows `index` (B,) in an update, after each one's first observation: (B, G) int64 tokens."""
        state = np.random.SeedSequence([self.config.seed, update]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
        uniform = torch.rand(len(index), generator=generator, dtype=torch.float64).to(index.device)
        first, last = self.windows.observation_rows(index)
        rows = later_rows(first, last, self.config.goal_draw, self.config.goal_discount, uniform)
        return self.tokens.index_select(0, rows).long()


def window_goals(
    dataset: OfflineDataset, windows: Windows, tokenizer: Tokenizer, config: TrainConfig
) -> WindowGoals | None:
    """The goals of windows, on their device; None without goals."""
    return None if config.goal is None else WindowGoals(dataset, windows, tokenizer, config)
