import numpy as np
import pytest

from trajplan.data.collection.noise import action_noise


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_noise_is_stationary_with_the_given_deviation_and_correlation(correlation):
    rng = np.random.default_rng(0)
    following = action_noise(2.0, correlation, (20_000,), rng)
    steps = np.stack([following() for _ in range(6)])
    np.testing.assert_allclose(steps.std(axis=1), 2.0, rtol=0.03)
    np.testing.assert_allclose(steps.mean(axis=1), 0.0, atol=0.06)
    for lag in (1, 3, 5):
        assert np.corrcoef(steps[0], steps[lag])[0, 1] == pytest.approx(correlation**lag, abs=0.03)


def test_components_are_independent_and_the_same_generator_gives_the_same_noise():
    first, second = (action_noise(1.0, 0.9, (2,), np.random.default_rng(3)) for _ in range(2))
    values = np.stack([first() for _ in range(4000)])
    assert np.array_equal(values, np.stack([second() for _ in range(4000)]))
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.2
