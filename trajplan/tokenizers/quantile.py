"""Bins of equal mass, with a bin of its own for every value that is repeated a bin's worth of times.

Plain quantiles fail on real columns: a reward that is 0 in most rows repeats its thresholds, and a rare but far
value (a reward of 1, a penalty of -100, an outlier) is averaged into a bin with others. Here a dimension of at
most V different values gets one bin for each; else heavy values and wide gaps cut the sorted column into
segments, and the remaining bins share the segments' mass equally.
"""

from collections.abc import Sequence

import numpy as np

from trajplan.tokenizers.columns import boundary, fit_columns
from trajplan.tokenizers.tokenizer import Tokenizer


def fit_quantile(joined: np.ndarray, bins: int, discrete: Sequence[int | None] | None = None) -> Tokenizer:
    """Fit a tokenizer of equal-mass bins to `joined` (N, J); arguments and errors as in `fit_columns`."""
    return fit_columns("quantile", quantile_edges, joined, bins, discrete)


def quantile_edges(column: np.ndarray, bins: int) -> np.ndarray:
    """Edges (size + 1,) of a sorted column; every bin holds data, and size is min(bins, different values)."""
    first = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1])
    atoms, counts = column[first], np.diff(first, append=len(column))
    starts = np.arange(len(atoms)) if len(atoms) <= bins else bin_starts(atoms, counts, bins)
    inner = boundary(atoms[starts[1:] - 1], atoms[starts[1:]])
    return np.concatenate([atoms[:1], inner, atoms[-1:]])


def bin_starts(atoms: np.ndarray, counts: np.ndarray, bins: int) -> np.ndarray:
    """The first atom of each bin, (bins,) rising indices.

    Args:
        atoms: (m,) different values, rising; m > bins.
        counts: (m,) how often each occurs.
        bins: V.
    """
    heavy = heavy_atoms(counts, bins)
    cuts = wide_gaps(atoms, counts, heavy, bins)
    while True:
        starts = segment_starts(heavy, cuts)
        if len(starts) <= bins:
            break
        # Too many pieces: gaps give way first, then the heavy atoms of least mass.
        if len(cuts):
            cuts = cuts[:0]
        else:
            heavy[np.flatnonzero(heavy)[counts[heavy].argmin()]] = False
    shares = share_bins(starts, counts, bins)
    ends = np.append(starts[1:], len(atoms))
    pieces = [
        start + equal_mass(counts[start:end], share) for start, end, share in zip(starts, ends, shares, strict=True)
    ]
    return np.concatenate(pieces)


def heavy_atoms(counts: np.ndarray, bins: int) -> np.ndarray:
    """Mask (m,) of the atoms that fill a bin alone: at least an equal share of what the others leave."""
    heavy = np.zeros(len(counts), dtype=bool)
    while True:
        free = bins - int(heavy.sum())
        more = ~heavy & (counts * free >= counts[~heavy].sum())
        if not more.any():
            return heavy
        heavy |= more


def wide_gaps(atoms: np.ndarray, counts: np.ndarray, heavy: np.ndarray, bins: int) -> np.ndarray:
    """Atoms before which the column is cut: the gap is wider than the middle, all but two bins' mass at each end.

    At most a tenth of the bins is spent so, on the widest gaps.
    """
    light = np.flatnonzero(~heavy)
    mass = np.cumsum(counts[light])
    tail = 2 * mass[-1] / (bins - int(heavy.sum()))
    if 2 * tail >= mass[-1]:
        return light[:0]
    low, high = np.searchsorted(mass, [tail, mass[-1] - tail])
    # A gap wider than the middle can only lie outside of it.
    outer = np.concatenate([light[: low + 1], light[high:]])
    values = atoms[outer].astype(np.float64)
    gaps = np.diff(values)
    wide = np.flatnonzero(gaps > values[low + 1] - values[low])
    wide = wide[np.argsort(-gaps[wide], kind="stable")][: bins // 10]
    return np.sort(outer[wide + 1])


def segment_starts(heavy: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """First atoms (rising) of the segments: each heavy atom alone, and the runs between them and the cuts."""
    alone = np.flatnonzero(heavy)
    starts = np.concatenate([[0], alone, alone + 1, cuts])
    return np.unique(starts[starts < len(heavy)])


def share_bins(starts: np.ndarray, counts: np.ndarray, bins: int) -> np.ndarray:
    """Bins for each segment: one at least, else by mass, never more than it has atoms; they sum to `bins`."""
    room = np.diff(starts, append=len(counts))
    mass = np.add.reduceat(counts, starts)
    shares = np.ones(len(starts), dtype=np.int64)
    for _ in range(bins - len(starts)):
        # The segment whose bins are the fullest gets the next one.
        shares[np.where(shares < room, mass / shares, -1).argmax()] += 1
    return shares


def equal_mass(counts: np.ndarray, share: int) -> np.ndarray:
    """First atoms (share,) of bins as near to equal mass as whole atoms allow, each with at least one atom."""
    mass = np.concatenate([[0], np.cumsum(counts)])
    targets = mass[-1] * np.arange(share) / share
    after = np.searchsorted(mass, targets)
    before = np.maximum(after - 1, 0)
    starts = np.where(targets - mass[before] < mass[after] - targets, before, after)
    steps = np.arange(share)
    starts = np.maximum.accumulate(starts - steps) + steps
    return np.minimum(starts, len(counts) - share + steps)
