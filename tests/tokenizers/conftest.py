from collections.abc import Callable, Iterator

import numpy as np
import pytest

SHAPES: list[Callable[[np.random.Generator, int, np.ndarray], np.ndarray]] = [
    lambda rng, n, normal: normal,
    lambda rng, n, normal: np.full(n, rng.normal()),
    lambda rng, n, normal: rng.random(n) < rng.random() ** 4,
    lambda rng, n, normal: np.where(rng.random(n) < 0.97, 0, normal),
    lambda rng, n, normal: np.where(rng.random(n) < 0.01, -100, normal),
    lambda rng, n, normal: rng.integers(-30, 30, n) / 7,
    lambda rng, n, normal: rng.standard_cauchy(n) * 10.0 ** rng.integers(-6, 6),
    lambda rng, n, normal: np.round(normal, int(rng.integers(0, 3))),
    lambda rng, n, normal: rng.choice(normal[: max(1, n // 50)], n) + np.where(rng.random(n) < 0.3, rng.random(n), 0),
    lambda rng, n, normal: 1 + rng.integers(0, 150, n) * 2.0**-23,  # neighbouring float32 numbers
    lambda rng, n, normal: np.clip(normal, *np.sort(rng.normal(size=2))),
]


def draw_column(rng: np.random.Generator) -> np.ndarray:
    """One of the shapes that a dimension of real data takes, (N,) float32 with N from 1 to 3,000."""
    n = int(np.exp(rng.uniform(0, np.log(3000))))
    normal = rng.normal(rng.normal() * 10, np.exp(rng.normal()), n)
    return SHAPES[rng.integers(len(SHAPES))](rng, n, normal).astype(np.float32)


@pytest.fixture
def random_columns() -> Iterator[tuple[np.ndarray, int]]:
    """400 seeded random columns (N,) float32, each with a number of bins from 1 to 120."""
    rng = np.random.default_rng(7)
    return ((draw_column(rng), int(rng.choice([1, 2, 3, 5, 10, 37, 100, 120]))) for _ in range(400))
