import pytest
import torch

from trajplan.models.dropout import Dropout, kept


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.75])
def test_the_share_that_is_dropped_is_the_one_asked_for(probability):
    torch.manual_seed(0)
    # 640,003 draws: a standard deviation of at most 0.0006; a number that 4 does not divide.
    mask = kept(torch.empty(640_003), probability)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert 1 - float(mask.mean()) == pytest.approx(probability, abs=0.003)


def test_elements_are_dropped_on_their_own_and_by_the_seed():
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(kept(torch.empty(6, 11, 11), 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert len(torch.unique(masks[0].flatten(1), dim=0)) == 6
    neighbours = torch.corrcoef(torch.stack([mask.flatten() for mask in kept(torch.empty(2, 100_000), 0.5)]))
    assert abs(float(neighbours[0, 1])) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_and_passes_the_gradient(dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, dtype=dtype, requires_grad=True)
    y = Dropout(0.2)(x)
    assert y.dtype == dtype
    assert set(y.unique().tolist()) == {0.0, 1.25}
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_in_evaluation_nothing_is_dropped_or_drawn():
    state = torch.get_rng_state()
    x = torch.randn(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)
