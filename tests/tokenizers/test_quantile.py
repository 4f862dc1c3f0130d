import numpy as np
import pytest
import torch

from trajplan.tokenizers.quantile import equal_mass, fit_quantile
from trajplan.tokenizers.tokenizer import Tokenizer


def fit(column: np.ndarray, bins: int) -> tuple[Tokenizer, np.ndarray]:
    """A tokenizer of one column, and the column's tokens (N,)."""
    tokenizer = fit_quantile(column[:, None], bins)
    return tokenizer, tokenizer.encode(torch.from_numpy(column[:, None]))[:, 0].numpy()


def test_what_holds_for_every_column(random_columns) -> None:
    for column, bins in random_columns:
        tokenizer, tokens = fit(column, bins)
        atoms, counts = np.unique(column, return_counts=True)
        size = int(tokenizer.sizes[0])
        edges = tokenizer.edges[0].double().numpy()
        values = tokenizer.values[0].double().numpy()
        # As many bins as there are different values to fill them, none empty, their edges rising.
        assert size == min(bins, len(atoms))
        assert set(tokens) == set(range(size))
        assert (np.diff(edges[:size]) > 0).all()
        assert edges[size] >= edges[size - 1]
        assert edges[0] == column.min()
        assert edges[size] == column.max()
        # Tokens decode to the mean of their data, within one rounding to float32, and lie in their own bin.
        means = np.array([column[tokens == token].astype(np.float64).mean() for token in range(size)])
        np.testing.assert_allclose(values[:size], means, rtol=1e-6, atol=1e-30)
        back = tokenizer.decode(torch.arange(size)[:, None])
        assert tokenizer.encode(back)[:, 0].tolist() == list(range(size))
        # The error is bounded by the width of the bin.
        width = edges[tokens + 1] - edges[tokens]
        assert (np.abs(values[tokens] - column) <= width).all()
        # A value with a bin's worth of repeats, or among few different ones, has a bin to itself.
        needed = 2 * (counts >= len(column) / bins).sum() + 1
        alone = counts >= len(column) / bins if needed <= bins else np.zeros(len(atoms), dtype=bool)
        for atom in atoms[alone | (len(atoms) <= bins)]:
            token = tokens[column == atom][0]
            assert (column[tokens == token] == atom).all()
            assert values[token] == atom


def test_bins_of_a_continuous_column_hold_equal_mass() -> None:
    rng = np.random.default_rng(0)
    for rows in (1_000, 1_050, 4_999, 20_000):
        for draw in (rng.normal, rng.uniform, rng.exponential):
            column = draw(size=rows).astype(np.float32)
            counts = np.bincount(fit(column, 100)[1])
            assert len(counts) == 100
            assert counts.min() >= rows // 100 - 1
            assert counts.max() <= rows / 100 + 2


def test_a_sparse_reward_has_its_zero_alone_and_keeps_the_other_bins_for_the_rest() -> None:
    rng = np.random.default_rng(0)
    column = np.where(rng.random(10_000) < 0.95, 0, rng.normal(size=10_000)).astype(np.float32)
    tokenizer, tokens = fit(column, 50)
    zero = tokens[column == 0][0]
    assert (column[tokens == zero] == 0).all()
    assert tokenizer.values[0, zero] == 0
    others = np.bincount(tokens)[np.arange(50) != zero]
    assert others.max() <= others.mean() + 2
    assert others.min() >= others.mean() - 2


@pytest.mark.parametrize("positives", [1, 3, 400])
def test_a_binary_reward_decodes_to_0_and_1_however_rare_the_1(positives: int) -> None:
    column = np.zeros(100_000, dtype=np.float32)
    column[:positives] = 1
    tokenizer, tokens = fit(column, 100)
    assert tokenizer.sizes[0] == 2
    np.testing.assert_array_equal(tokens, column)
    assert tokenizer.values[0, :2].tolist() == [0, 1]
    assert tokenizer.encode(torch.tensor([[0.4], [0.6]]))[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("deaths", [1, 5, 50, 80, 150])
def test_a_rare_penalty_is_not_averaged_into_the_ordinary_rewards(deaths: int) -> None:
    rng = np.random.default_rng(0)
    column = rng.normal(2, 1, 10_000).astype(np.float32)
    column[:deaths] = -100
    tokenizer, tokens = fit(column, 100)
    assert tokenizer.values[0, 0] == -100
    assert set(tokens[:deaths]) == {0}
    assert (tokens[deaths:] > 0).all()
    assert tokenizer.values[0, 1] > -3


def test_outliers_on_both_sides_leave_the_middle_its_resolution() -> None:
    rng = np.random.default_rng(0)
    column = rng.normal(size=10_000).astype(np.float32)
    plain = fit_quantile(column[:, None], 100).reconstruction_error(column[:, None])
    column[:3] = 1e6, 2e7, -4e8
    tokenizer, tokens = fit(column, 100)
    assert tokenizer.values[0][tokens[:3]].tolist() == [1e6, 2e7, -4e8]
    error = tokenizer.reconstruction_error(column[:, None])
    assert error.mean[0] < 1.2 * plain.mean[0]


def test_more_heavy_values_than_can_all_be_alone() -> None:
    # Three heavy values with lone ones between them need seven bins; there are four.
    column = np.repeat(np.arange(7, dtype=np.float32), [1, 30, 1, 40, 1, 50, 1])
    tokens = fit(column, 4)[1]
    assert set(tokens) == {0, 1, 2, 3}
    assert (column[tokens == tokens[column == 5][0]] == 5).all()


def test_awkward_sizes() -> None:
    rng = np.random.default_rng(0)
    for rows, bins in ((1_050, 100), (1, 100), (99, 100), (100, 100), (101, 100), (150, 100), (7, 1), (3, 2)):
        column = rng.permutation(rows).astype(np.float32)
        tokenizer, tokens = fit(column, bins)
        assert tokenizer.sizes[0] == min(rows, bins)
        if rows <= bins:
            assert torch.equal(tokenizer.values[0, :rows], torch.arange(rows, dtype=torch.float32))
        assert tokens.max() == min(rows, bins) - 1


def test_equal_mass_by_hand() -> None:
    assert equal_mass(np.array([1, 1, 1, 1, 1, 1]), 3).tolist() == [0, 2, 4]
    assert equal_mass(np.array([4, 1, 1]), 2).tolist() == [0, 1]
    assert equal_mass(np.array([1, 1, 4]), 2).tolist() == [0, 2]
    assert equal_mass(np.array([9, 1, 1, 1]), 4).tolist() == [0, 1, 2, 3]
    assert equal_mass(np.array([1, 1, 1, 9]), 4).tolist() == [0, 1, 2, 3]
