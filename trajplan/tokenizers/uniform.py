"""Bins of equal width between the least and the greatest value of a dimension."""

from collections.abc import Sequence

import numpy as np

from trajplan.tokenizers.columns import fit_columns
from trajplan.tokenizers.tokenizer import Tokenizer


def fit_uniform(joined: np.ndarray, bins: int, discrete: Sequence[int | None] | None = None) -> Tokenizer:
    """Fit a tokenizer of equal-width bins to `joined` (N, J); arguments and errors as in `fit_columns`."""
    return fit_columns("uniform", uniform_edges, joined, bins, discrete)


def uniform_edges(column: np.ndarray, bins: int) -> np.ndarray:
    """Edges (size + 1,) of a sorted column: `bins` of them, fewer only where float32 cannot tell them apart."""
    low, high = column[0], column[-1]
    if low == high:
        return np.array([low, high])
    edges = np.linspace(float(low), float(high), bins + 1).astype(np.float32)
    edges[0], edges[-1] = low, high
    return np.unique(edges)
