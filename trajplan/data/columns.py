"""Column statistics of large, possibly memory-mapped arrays, one block of rows at a time."""

from collections.abc import Iterator

import numpy as np

_VALUES = 2**22


def row_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array (N, D) in blocks of about four million values."""
    rows = max(1, _VALUES // max(1, array.shape[1]))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def mean_and_std(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each column of (N, D), as float64 (D,)."""
    mean = np.zeros(array.shape[1])
    for block in row_blocks(array):
        mean += block.sum(0, dtype=np.float64)
    mean /= len(array)
    # A second pass around the mean, so that a small spread beside a large mean is not lost.
    square = np.zeros(array.shape[1])
    for block in row_blocks(array):
        square += np.square(block - mean).sum(0)
    return mean, np.sqrt(square / len(array))
