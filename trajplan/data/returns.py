"""Return-to-go of every transition of many episodes at once."""

from collections.abc import Iterator

import numpy as np

from trajplan.errors import ConfigError

# Transitions that fit into a processor cache.
_BLOCK = 2**16


def returns_to_go(rewards: np.ndarray, offsets: np.ndarray, discount: float) -> np.ndarray:
    """`R_t = sum over i > t, in the same episode, of discount^(i - t - 1) r_i` (Janner et al. 2021).

    Args:
        rewards: (N,).
        offsets: (E + 1,) bounds of the episodes' rows, starting with 0.
        discount: between 0 and 1.

    Returns:
        (N,) float64.
    """
    if not 0.0 <= discount <= 1.0:
        raise ConfigError(f"The discount must be between 0 and 1, not {discount}.")
    if rewards.ndim != 1:
        raise ValueError(f"rewards must have one dimension, not shape {rewards.shape}")
    result = np.zeros(len(rewards))
    for first, last in episode_blocks(offsets, 0, len(offsets) - 1):
        begin, end = int(offsets[first]), int(offsets[last])
        values = _discounted_sums(rewards[begin:end].astype(np.float64), offsets[first : last + 1] - begin, discount)
        result[begin : end - 1] = values[1:]
        result[offsets[first + 1 : last + 1] - 1] = 0.0
    return result


def episode_blocks(offsets: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut the episodes `first : last` into ranges of about 65,000 transitions (at least one episode each)."""
    while first < last:
        stop = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        stop = min(max(stop, first + 1), last)
        yield first, stop
        first = stop


def _discounted_sums(values: np.ndarray, offsets: np.ndarray, discount: float) -> np.ndarray:
    # Doubling: with sums over the next k steps in hand, those over 2k are x[t] + discount^k x[t + k]. The number of
    # passes is the logarithm of the longest episode, and no pass looks beyond an episode's end.
    lengths = np.diff(offsets)
    remaining = np.repeat(offsets[1:], lengths) - np.arange(len(values))
    step, longest = 1, int(lengths.max())
    while step < longest and discount**step > 0.0:
        values[:-step] += np.where(remaining[:-step] > step, discount**step * values[step:], 0.0)
        step *= 2
    return values
