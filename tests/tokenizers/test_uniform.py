import numpy as np
import pytest
import torch

from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.tokenizers.uniform import fit_uniform


def ideal_edges(atoms: np.ndarray, bins: int) -> np.ndarray:
    """Edges of equal width over all but an end that is further off than thrice the range of the inner values."""
    inner = atoms[1:-1]
    far = [bool(len(inner) > 1 and bins >= 4 and gap > 3 * np.ptp(inner)) for gap in np.diff(atoms)[[0, -1]]]
    near = atoms[far[0] : len(atoms) - far[1]]
    edges = np.linspace(near[0], near[-1], bins - sum(far) + 1)
    if far[0]:
        edges = np.concatenate([[atoms[0], atoms[:2].mean()], edges[1:]])
    if far[1]:
        edges = np.concatenate([edges[:-1], [atoms[-2:].mean(), atoms[-1]]])
    return edges


def test_what_holds_for_every_column(random_columns) -> None:
    for column, bins in random_columns:
        tokenizer = fit_uniform(column[:, None], bins)
        tokens = tokenizer.encode(torch.from_numpy(column[:, None]))[:, 0].numpy()
        size = int(tokenizer.sizes[0])
        edges = tokenizer.edges[0, : size + 1].double().numpy()
        values = tokenizer.values[0].double().numpy()
        low, high = float(column.min()), float(column.max())
        assert (edges[0], edges[-1]) == (low, high)
        if low == high:
            assert size == 1
        else:
            ideal = ideal_edges(np.unique(column).astype(np.float64), bins)
            grain = np.spacing(np.float32(max(abs(low), abs(high))))
            for edge in edges:
                assert np.abs(ideal - edge).min() <= grain
            assert size == bins or (high - low) / bins < 2 * grain
        for token in range(size):
            inside = column[tokens == token].astype(np.float64)
            expected = inside.mean() if len(inside) else (edges[token] + edges[token + 1]) / 2
            # Only where neighbouring float32 edges leave no number between them is the midpoint rounded into its bin.
            np.testing.assert_allclose(values[token], expected, rtol=2e-7, atol=1e-30)
        every = torch.arange(size)[:, None]
        assert torch.equal(tokenizer.encode(tokenizer.decode(every)), every)
        assert (np.abs(values[tokens] - column) <= edges[tokens + 1] - edges[tokens]).all()


def test_widths_are_equal_and_the_last_bin_is_closed() -> None:
    column = np.array([[0.0], [3.0], [10.0]], dtype=np.float32)
    tokenizer = fit_uniform(column, 10)
    assert tokenizer.edges[0].tolist() == list(range(11))
    assert tokenizer.encode(torch.tensor([[0.0], [0.999], [1.0], [9.0], [10.0]]))[:, 0].tolist() == [0, 0, 1, 9, 9]
    assert tokenizer.values[0].tolist() == [0, 1.5, 2.5, 3, 4.5, 5.5, 6.5, 7.5, 8.5, 10]


def test_a_penalty_far_below_the_rewards_leaves_them_their_resolution() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.uniform(0, 5, 5000).astype(np.float32)
    column = np.where(rng.random(5000) < 0.01, np.float32(-100), rewards)[:, None]
    tokenizer = fit_uniform(column, 100)
    error = np.abs(tokenizer.decode(tokenizer.encode(torch.from_numpy(column))).numpy() - column)
    assert len(np.unique(tokenizer.encode(torch.from_numpy(rewards[:, None])).numpy())) == 99
    assert error.max() <= 5 / 99  # equal bins from -100 to 5 are 1.05 wide
    assert tokenizer.values[0, 0] == -100
    # What the data lack and lies between goes to the nearer of the two.
    assert tokenizer.encode(torch.tensor([[-99.0], [-51.0], [-49.0], [-0.1]]))[:, 0].tolist() == [0, 0, 1, 1]

    crash_and_landing = np.concatenate([rng.uniform(-2, 2, 1000), [-100.0] * 5, [100.0] * 5])[:, None]
    tokenizer = fit_uniform(crash_and_landing.astype(np.float32), 50)
    assert tokenizer.values[0, [0, -1]].tolist() == [-100, 100]
    inner = tokenizer.edges[0, 2:-2].diff()
    torch.testing.assert_close(inner, torch.full_like(inner, inner.mean().item()), rtol=1e-3, atol=0)
    assert inner.mean() < 4 / 47


def test_equal_bins_of_an_earlier_version_still_load(tmp_path) -> None:
    edges = torch.linspace(-100, 5, 101)[None]
    values = (edges[:, 1:] + edges[:, :-1]) / 2
    Tokenizer("uniform", edges, values, torch.tensor([100])).save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert torch.equal(loaded.edges, edges)
    assert loaded.encode(torch.tensor([[0.1], [0.9], [1.2]]))[:, 0].tolist() == [95, 96, 96]


def test_a_range_of_few_float32_numbers_uses_fewer_bins() -> None:
    column = np.float32(1) + np.arange(4, dtype=np.float32)[:, None] * np.float32(2.0**-23)
    tokenizer = fit_uniform(column, 100)
    assert tokenizer.sizes[0] == 3
    assert tokenizer.encode(torch.from_numpy(column))[:, 0].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_extreme_scales(scale: float) -> None:
    column = (np.linspace(-3, 3, 50) * scale).astype(np.float32)[:, None]
    tokenizer = fit_uniform(column, 10)
    error = tokenizer.reconstruction_error(column)
    assert torch.isfinite(tokenizer.values).all()
    assert error.maximum[0] <= 0.6 * scale
