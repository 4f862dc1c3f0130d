"""Bins of equal width; the least or the greatest value, where it lies far from all others, has a bin of its own.

A penalty of -100 beside rewards from 0 to 5 would stretch 100 equal bins to a width of 1.05, and leave five of them to
the rewards.
"""

from collections.abc import Sequence

import numpy as np

from trajplan.tokenizers.columns import boundary, fit_columns
from trajplan.tokenizers.tokenizer import Tokenizer

# An end is far when its gap to the nearest other value is so many times the range of all values but the two ends.
FAR = 3


def fit_uniform(joined: np.ndarray, bins: int, discrete: Sequence[int | None] | None = None) -> Tokenizer:
    """Fit a tokenizer of equal-width bins to `joined` (N, J); arguments and errors as in `fit_columns`."""
    return fit_columns("uniform", uniform_edges, joined, bins, discrete)


def uniform_edges(column: np.ndarray, bins: int) -> np.ndarray:
    """Edges (size + 1,) of a sorted column: `bins` of them, fewer only where float32 cannot tell them apart."""
    low, high = column[0], column[-1]
    if low == high:
        return np.array([low, high])
    below, above = far_ends(column, bins)
    near = column[(column > low) if below else slice(None)]
    near = near[(near < high) if above else slice(None)]
    edges = np.linspace(float(near[0]), float(near[-1]), bins - below - above + 1).astype(np.float32)
    edges[0], edges[-1] = near[0], near[-1]
    # The outer edges of the equal bins move half-way to the far values: what is new between them goes to the nearer.
    if below:
        edges[0] = boundary(column[:1], near[:1])[0]
        edges = np.concatenate([column[:1], edges])
    if above:
        edges[-1] = boundary(near[-1:], column[-1:])[0]
        edges = np.concatenate([edges, column[-1:]])
    return np.unique(edges)


def far_ends(column: np.ndarray, bins: int) -> tuple[bool, bool]:
    """Whether the least and the greatest value of a sorted column are to have a bin of their own."""
    middle = column[(column > column[0]) & (column < column[-1])].astype(np.float64)
    if bins < 4 or len(middle) == 0 or middle[0] == middle[-1]:
        return False, False
    far = FAR * (middle[-1] - middle[0])
    return bool(middle[0] - column[0] > far), bool(column[-1] - middle[-1] > far)
