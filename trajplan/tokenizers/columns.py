"""What the fitted tokenizers share: reading columns, the values of bins, discrete dimensions.

A column is one dimension's N values, sorted, float32; its edges are strictly rising float32, but for a
constant column, whose only bin is [c, c].
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from trajplan.errors import ConfigError, DataError
from trajplan.tokenizers.tokenizer import Tokenizer

Edges = Callable[[np.ndarray, int], np.ndarray]


def fit_columns(
    kind: str, edges_of: Edges, joined: np.ndarray, bins: int, discrete: Sequence[int | None] | None
) -> Tokenizer:
    """Fit one dimension after the other, holding one column in memory at a time.

    Args:
        kind: name that the tokenizer keeps.
        edges_of: (sorted column (N,), bins) to edges (size + 1,), size <= bins.
        joined: (N, J) float32, maybe memory-mapped.
        bins: V, the most bins a dimension may use.
        discrete: per dimension the number of actions, or None for real numbers; None: no dimension is discrete.
    """
    if joined.ndim != 2 or 0 in joined.shape:
        raise DataError(f"A tokenizer is fitted on rows of transitions, but the data has shape {joined.shape}.")
    if bins < 1:
        raise ConfigError(f"bins is {bins}; it must be at least 1.")
    counts = [None] * joined.shape[1] if discrete is None else list(discrete)
    if len(counts) != joined.shape[1]:
        raise ConfigError(f"discrete names {len(counts)} dimensions, the data has {joined.shape[1]}.")
    edges = np.full((joined.shape[1], bins + 1), np.inf, dtype=np.float32)
    values = np.empty((joined.shape[1], bins), dtype=np.float32)
    sizes = np.empty(joined.shape[1], dtype=np.int64)
    for dim, actions in enumerate(counts):
        column = sorted_column(joined, dim)
        if actions is None:
            found = edges_of(column, bins)
            means = bin_values(column, found)
        else:
            found, means = discrete_bins(column, dim, actions, bins)
        size = sizes[dim] = len(means)
        edges[dim, : size + 1] = found
        values[dim, :size], values[dim, size:] = means, means[-1]
    return Tokenizer(kind, torch.from_numpy(edges), torch.from_numpy(values), torch.from_numpy(sizes))


def sorted_column(joined: np.ndarray, dim: int) -> np.ndarray:
    """Dimension `dim` of (N, J) as a sorted float32 copy (N,), with -0 made 0."""
    with np.errstate(over="ignore"):
        column = np.array(joined[:, dim], dtype=np.float32)
    column += np.float32(0)
    bad = ~np.isfinite(column)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"Dimension {dim} is {column[row]} in row {row}; a tokenizer takes finite numbers only.")
    column.sort()
    return column


def bin_values(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The mean of the column in each bin (size,) float32; the midpoint for a bin without data.

    Every value lies in its own bin after rounding to float32, so that encoding it gives the bin back.
    """
    bounds = np.searchsorted(column, edges, side="left")
    bounds[0], bounds[-1] = 0, len(column)
    starts, ends = bounds[:-1], bounds[1:]
    middle = ((edges[:-1].astype(np.float64) + edges[1:]) / 2).astype(np.float32)
    below_upper = np.nextafter(edges[1:], np.float32(-np.inf))
    values = np.maximum(np.minimum(middle, below_upper), edges[:-1])
    full = ends > starts
    sums = np.add.reduceat(column, starts[full], dtype=np.float64)
    means = (sums / (ends - starts)[full]).astype(np.float32)
    values[full] = means.clip(column[starts[full]], column[ends[full] - 1])
    return values


def boundary(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The float32 edge between neighbouring values: `below < edge <= above`, half-way where float32 can."""
    middle = ((below.astype(np.float64) + above) / 2).astype(np.float32)
    return np.where(middle > below, middle, above)


def discrete_bins(column: np.ndarray, dim: int, actions: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges (actions + 1,) and values (actions,) of a discrete dimension: one bin an action, 0 to `actions` - 1."""
    if actions > bins:
        raise ConfigError(f"Dimension {dim} has {actions} discrete actions for {bins} bins; set bins to {actions}.")
    strange = (column != np.round(column)) | (column < 0) | (column >= actions)
    if strange.any():
        raise DataError(
            f"Dimension {dim} holds {column[strange.argmax()]:g}, but its {actions} actions are 0 to {actions - 1}."
        )
    values = np.arange(actions, dtype=np.float32)
    return np.concatenate([values[:1], boundary(values[:-1], values[1:]), values[-1:]]), values
