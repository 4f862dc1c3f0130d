import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError, DataError
from trajplan.tokenizers.columns import boundary
from trajplan.tokenizers.fit import TOKENIZERS, fit_tokenizer

KINDS = sorted(TOKENIZERS)


@pytest.mark.parametrize("kind", KINDS)
def test_discrete_actions_get_one_bin_each_also_those_the_data_lacks(kind: str) -> None:
    joined = np.array([[0.5, 1.0], [0.2, 3.0], [0.1, 1.0]], dtype=np.float32)
    tokenizer = fit_tokenizer(kind, joined, 10, [None, 5])
    assert tokenizer.sizes[1] == 5
    actions = torch.arange(5)[:, None]
    assert torch.equal(tokenizer.encode(actions, slice(1, 2)), actions)
    assert torch.equal(tokenizer.decode(actions, slice(1, 2)), actions.float())
    assert fit_tokenizer(kind, joined, 5, [None, 5]).sizes[1] == 5
    single = fit_tokenizer(kind, np.zeros((4, 1), np.float32), 3, [1])
    assert single.encode(torch.zeros(1, 1)).tolist() == [[0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", [5.0, -1.0, 0.5])
def test_a_discrete_dimension_refuses_what_is_no_action(kind: str, action: float) -> None:
    joined = np.array([[0.0], [action]], dtype=np.float32)
    with pytest.raises(DataError, match=f"Dimension 0 holds {action:g}, but its 5 actions are 0 to 4"):
        fit_tokenizer(kind, joined, 10, [5])


def test_settings_that_cannot_be_met() -> None:
    joined = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ConfigError, match="12 discrete actions for 10 bins"):
        fit_tokenizer("quantile", joined, 10, [None, 12])
    with pytest.raises(ConfigError, match="Unknown tokenizer 'kmeans'; there are quantile, uniform"):
        fit_tokenizer("kmeans", joined, 10)
    with pytest.raises(ConfigError, match="bins is 0"):
        fit_tokenizer("uniform", joined, 0)
    with pytest.raises(ConfigError, match="names 3 dimensions, the data has 2"):
        fit_tokenizer("uniform", joined, 10, [None, None, None])
    for shape in ((0, 2), (3, 0), (3,)):
        with pytest.raises(DataError, match="rows of transitions"):
            fit_tokenizer("quantile", np.zeros(shape, np.float32), 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_fitting_refuses_what_is_not_finite(kind: str, value: float) -> None:
    joined = np.zeros((20, 3), dtype=np.float32)
    joined[11, 2] = value
    with pytest.raises(DataError, match=f"Dimension 2 is {value} in row 11"):
        fit_tokenizer(kind, joined, 10)
    with pytest.raises(DataError, match="Dimension 0 is inf in row 0"):
        fit_tokenizer(kind, np.array([[1e300]]), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_dimensions_are_fitted_apart_and_the_data_is_left_alone(kind: str, random_columns) -> None:
    columns = [column for column, _ in random_columns if len(column) >= 200][:8]
    joined = np.stack([column[:200] for column in columns], 1)
    before = joined.copy()
    together = fit_tokenizer(kind, joined, 30)
    np.testing.assert_array_equal(joined, before)
    for dim in range(8):
        alone = fit_tokenizer(kind, joined[:, dim : dim + 1], 30)
        assert torch.equal(alone.edges[0], together.edges[dim])
        assert torch.equal(alone.values[0], together.values[dim])
    shuffled = fit_tokenizer(kind, np.random.default_rng(0).permutation(joined), 30)
    assert torch.equal(shuffled.edges, together.edges)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_mapped_data(kind: str, tmp_path) -> None:
    joined = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    joined.tofile(tmp_path / "joined.bin")
    mapped = np.memmap(tmp_path / "joined.bin", dtype=np.float32, mode="r", shape=(500, 4))
    ours, theirs = fit_tokenizer(kind, mapped, 30), fit_tokenizer(kind, joined, 30)
    assert torch.equal(ours.edges, theirs.edges)
    assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("kind", KINDS)
def test_negative_zero_is_zero(kind: str) -> None:
    joined = np.array([[-0.0], [0.0], [1.0], [-0.0]], dtype=np.float32)
    tokenizer = fit_tokenizer(kind, joined, 5)
    tokens = tokenizer.encode(torch.from_numpy(joined))
    assert tokens[0] == tokens[1] == tokens[3] == 0
    assert tokenizer.decode(tokens[:1]).sign().item() == 0
    assert not bool(torch.signbit(tokenizer.values[0, 0]))


def test_boundary_separates_neighbours() -> None:
    rng = np.random.default_rng(0)
    below = (rng.normal(size=1000) * 10.0 ** rng.integers(-40, 38, 1000)).astype(np.float32)
    for above in (np.nextafter(below, np.float32(np.inf)), below + np.abs(below) + np.float32(1e-20)):
        edge = boundary(below, above)
        assert edge.dtype == np.float32
        assert (below < edge).all()
        assert (edge <= above).all()
