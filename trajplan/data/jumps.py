"""Jumps between neighbouring rows of a file: where an environment was reset and no flag says so.

The timeouts of D4RL's first antmaze files, for one, are out of step with the resets, so that an episode cut by them
continues at a start far away.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

# In continuous data (MuJoCo's walkers and hands, mazes, human demonstrations) no step of a dimension is above eight
# times the one that 98 % of its steps stay below; mostly it is two to six times that.
FACTOR = 12.0
QUANTILE = 0.98
_SAMPLE = 200_000
_VALUES = 2**22


def find_jumps(observations: Any, ends: np.ndarray) -> np.ndarray:
    """Rows from which some dimension steps to the next row by more than `FACTOR` times its `QUANTILE` step.

    Only steps within an episode count. Dimensions that stay constant in most of them (goals, contacts, doors) are left
    out, since any change of theirs is large. Resets to near where the episode was, as half-cheetah's, are not found,
    nor are jumps that make up more than a fiftieth of all steps.

    Args:
        observations: (N, S), an array or an HDF5 dataset; read twice, block by block.
        ends: (N,) bool, the last row of each episode.

    Returns:
        Row numbers, (J,) int64.
    """
    inside = np.flatnonzero(~ends[:-1])
    if len(inside) == 0:
        return inside
    # Not every k-th row: episodes of one length would put all of their ends into it, or none.
    sample = np.zeros(len(ends), np.bool_)
    sample[np.random.default_rng(0).permutation(inside)[:_SAMPLE]] = True
    steps = np.concatenate([block[sample[row : row + len(block)]] for row, block in _steps(observations)])
    usual, large = np.quantile(steps, [0.75, QUANTILE], axis=0)
    limit = np.where(usual > 1e-3 * large, FACTOR * large, np.inf)
    found = [row + np.flatnonzero((block > limit).any(1)) for row, block in _steps(observations)]
    rows = np.concatenate(found)
    return rows[~ends[rows]]


def _steps(observations: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Absolute steps (rows, S) float64 to the next row, a block at a time, with the block's first row."""
    rows = max(1, _VALUES // max(1, observations.shape[1]))
    for start in range(0, len(observations) - 1, rows):
        block = np.asarray(observations[start : start + rows + 1], np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            yield start, np.abs(np.diff(block, axis=0))
