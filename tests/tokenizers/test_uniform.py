import numpy as np
import pytest
import torch

from trajplan.tokenizers.uniform import fit_uniform


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
            ideal = np.linspace(low, high, bins + 1)
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
