import time
from itertools import pairwise

import numpy as np
import pytest

from trajplan.data.returns import episode_blocks, returns_to_go
from trajplan.errors import ConfigError


def brute_force(rewards, offsets, discount):
    result = []
    for begin, end in pairwise(offsets):
        for t in range(begin, end):
            result.append(sum(discount ** (i - t - 1) * float(rewards[i]) for i in range(t + 1, end)))
    return np.array(result)


@pytest.mark.parametrize("discount", [0.0, 0.3, 0.99, 1.0])
def test_equals_the_definition(discount):
    rng = np.random.default_rng(1)
    offsets = np.cumsum([0, 1, 7, 64, 1, 33, 2, 65])
    rewards = rng.normal(size=offsets[-1]).astype(np.float32)
    result = returns_to_go(rewards, offsets, discount)
    assert result.dtype == np.float64
    assert result.shape == rewards.shape
    np.testing.assert_allclose(result, brute_force(rewards, offsets, discount), rtol=1e-12, atol=1e-12)


def test_a_worked_example():
    # r = 1, 2, 4: R_0 = 2 + 0.5 * 4, R_1 = 4, R_2 = 0; the next episode does not leak in.
    result = returns_to_go(np.array([1.0, 2.0, 4.0, 100.0, 8.0]), np.array([0, 3, 5]), 0.5)
    np.testing.assert_array_equal(result, [4.0, 4.0, 0.0, 8.0, 0.0])


def test_a_column_of_rewards_is_refused():
    # (T, 1) against (T,) would broadcast into (T, T) sums.
    with pytest.raises(ValueError, match="one dimension"):
        returns_to_go(np.ones((5, 1)), np.array([0, 5]), 0.9)


@pytest.mark.parametrize("discount", [-0.1, 1.01, float("nan")])
def test_discount_out_of_range(discount):
    with pytest.raises(ConfigError, match="discount"):
        returns_to_go(np.ones(3), np.array([0, 3]), discount)


def test_blocks_cover_every_episode_once(monkeypatch):
    monkeypatch.setattr("trajplan.data.returns._BLOCK", 10)
    rng = np.random.default_rng(2)
    offsets = np.cumsum([0, *rng.integers(1, 25, size=50)])
    blocks = list(episode_blocks(offsets, 3, 50))
    assert [first for first, _ in blocks] == [3, *(last for _, last in blocks[:-1])]
    assert blocks[-1][1] == 50
    rewards = rng.normal(size=offsets[-1])
    np.testing.assert_allclose(
        returns_to_go(rewards, offsets, 0.9), brute_force(rewards, offsets, 0.9), rtol=1e-12, atol=1e-12
    )


def test_one_long_episode_takes_no_quadratic_time():
    rewards = np.ones(500_000, np.float32)
    start = time.perf_counter()
    result = returns_to_go(rewards, np.array([0, len(rewards)]), 0.999)
    assert time.perf_counter() - start < 10.0
    # The closed form of a geometric series.
    left = np.arange(len(rewards))[::-1]
    np.testing.assert_allclose(result, (1 - 0.999**left) / (1 - 0.999), rtol=1e-9)
