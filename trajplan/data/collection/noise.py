"""Gaussian action noise for collecting data, independent from step to step or correlated."""

import math
from collections.abc import Callable

import numpy as np


def action_noise(
    std: float, correlation: float, shape: tuple[int, ...], rng: np.random.Generator
) -> Callable[[], np.ndarray]:
    """A source of one episode's noise: each call returns the next step's, of `shape`.

    A first-order autoregressive process x' = c x + sqrt(1 - c²) s e with e ~ N(0, 1), begun in its stationary
    distribution: every x has the standard deviation s, and two that lie k steps apart the correlation c^k (the
    Ornstein-Uhlenbeck process at unit steps). c = 0 is independent noise.

    Args:
        std: s, in units of the action.
        correlation: c, 0 or more and below 1.
        shape: an action's.
        rng: the source of all randomness.
    """
    fresh = std * math.sqrt(1 - correlation**2)
    kept = correlation * std * rng.standard_normal(shape) if correlation else np.zeros(shape)

    def following() -> np.ndarray:
        nonlocal kept
        value = kept + fresh * rng.standard_normal(shape)
        kept = correlation * value
        return value

    return following
