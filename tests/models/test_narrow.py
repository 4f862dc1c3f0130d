import copy

import pytest
import torch

from trajplan.devices import plans_narrow
from trajplan.errors import ConfigError
from trajplan.models.decoder import CachedDecoder
from trajplan.models.narrow import NarrowProduct, narrow
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=3, action_dim=2, bins=9, window=4, n_layer=3, n_head=2, n_embd=32
    )
    model = TrajectoryTransformer(config).eval()
    return model, narrow(copy.deepcopy(model))


@torch.no_grad()
def test_a_product_is_that_of_the_rounded_factors_summed_in_float32(models):
    layer, (_, changed) = models[0].h[0].mlp.c_fc, models
    x = torch.randn(50, 32)
    exact = x.bfloat16().double() @ layer.weight.bfloat16().double() + layer.bias.double()
    found = NarrowProduct(layer)(x)
    assert found.dtype == torch.float32
    # What is left is the rounding of the result to 8 bits.
    torch.testing.assert_close(found.double(), exact, atol=2e-3, rtol=2**-8)
    assert not torch.equal(found, layer(x))
    assert isinstance(changed.h[2].attn.c_attn, NarrowProduct)


@torch.no_grad()
def test_likelihoods_are_those_of_float32_to_a_hundredth_of_a_nat(models):
    tokens = torch.randint(9, (20, 28))
    one, other = (model(tokens).logits.log_softmax(-1) for model in models)
    legal = one.isfinite()
    assert torch.equal(legal, other.isfinite())
    difference = (one - other)[legal].abs()
    assert 0 < float(difference.max()) < 0.01


@torch.no_grad()
def test_the_cache_gives_the_logits_of_a_full_pass_in_bfloat16_too(models):
    model, tokens = models[1], torch.randint(9, (2, 12))
    decoder = CachedDecoder(model)
    logits = [decoder.begin(tokens[:, :3], 1, 1)]
    logits += [decoder.advance(tokens[:, place : place + 1])[:, 0] for place in range(3, 12)]
    full = model(tokens).logits[:, 2:]
    torch.testing.assert_close(torch.stack(logits, 1), full, atol=1e-2, rtol=1e-2)


def test_bfloat16_is_for_processors_that_gain_by_it_and_only_where_it_is_asked_for(monkeypatch):
    cpu = torch.device("cpu")
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert [plans_narrow(name, cpu) for name in ("float32", "auto", "bfloat16")] == [False, amx, True]
        assert not plans_narrow("auto", torch.device("cuda"))
    with pytest.raises(ConfigError, match="precision is 'half'; it must be auto, float32 or bfloat16"):
        plans_narrow("half", cpu)
    with pytest.raises(ConfigError, match="for planning on a CPU"):
        plans_narrow("bfloat16", torch.device("cuda"))
