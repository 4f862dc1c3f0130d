"""Attention in blocks against its formula, whatever the blocks are."""

import pytest
import torch
from transformers import AutoModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trajplan.models import causal_blocks
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

LENGTHS = (1, 3, 8, 11)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 4 queries, two sequences at a time."""
    monkeypatch.setattr(causal_blocks, "QUERIES", 4)
    monkeypatch.setattr(causal_blocks, "SCORES", 2 * 2 * 11 * 4)


def inputs(length, batch=3, dtype=torch.float64, seed=0):
    """Queries, keys and values of 2 heads as they come from one projection: views that are not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    joined = torch.randn(batch, length, 3 * 2 * 5, dtype=torch.float64, generator=generator).to(dtype)
    joined.requires_grad_()
    parts = joined.split(2 * 5, 2)
    return joined, [part.view(batch, length, 2, 5).transpose(1, 2) for part in parts]


def attend(q, k, v, **keywords):
    return causal_blocks.causal_blocks(None, q, k, v, None, **keywords)[0]


def formula(q, k, v, scale=5**-0.5):
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    weights = (scale * q @ k.transpose(-1, -2)).masked_fill(future, float("-inf")).softmax(-1)
    return (weights @ v).transpose(1, 2)


@pytest.mark.parametrize("length", LENGTHS)
def test_outputs_and_gradients_are_those_of_the_formula(length):
    joined, parts = inputs(length)
    weigh = torch.randn(3, length, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (attend, formula):
        out = function(*parts)
        results.append([out, *torch.autograd.grad((out * weigh).sum(), joined)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_is_that_of_finite_differences(dropout):
    _, parts = inputs(6, batch=2)
    parts = [part.detach().requires_grad_() for part in parts]

    def function(*parts):
        torch.manual_seed(0)
        return attend(*parts, dropout=dropout, scaling=0.7)

    assert torch.autograd.gradcheck(function, parts)


@pytest.mark.parametrize("length", [1, 4, 5, 79, 159, 160, 369])
def test_blocks_and_groups_cover_everything_once(length, monkeypatch):
    monkeypatch.setattr(causal_blocks, "QUERIES", 80)
    blocks = causal_blocks._blocks(length)
    assert [row for start, end in blocks for row in range(start, end)] == list(range(length))
    assert max(end - start for start, end in blocks) <= 120
    groups = causal_blocks._groups(7, 4, length)
    assert [row for group in groups for row in range(7)[group]] == list(range(7))


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    q, k = torch.zeros(2, 50, 2, 8, 5)
    v = torch.ones(50, 2, 8, 5)
    out = torch.stack([attend(q, k, v, dropout=0.3) for _ in range(20)])
    # Every weight is 1 / (its position + 1), so a value is the mean of that many kept ones.
    torch.testing.assert_close(out.mean((0, 1, 3, 4)), torch.ones(8), atol=0.03, rtol=0)
    assert set(out[:, :, 0].unique().tolist()) == {0.0, float(torch.tensor(1.0) / (1 - 0.3))}


def test_dropout_follows_the_seed():
    _, parts = inputs(11)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(attend(*parts, dropout=0.5))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_bfloat16_is_near_and_computed_in_bfloat16_under_autocast_too():
    joined, parts = inputs(11, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(*parts)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), formula(*(part.double() for part in parts)), atol=0.03, rtol=0.03)
    (gradient,) = torch.autograd.grad(out.float().sum(), joined)
    expected = torch.autograd.grad(formula(*(part.double() for part in parts)).sum(), joined)[0]
    torch.testing.assert_close(gradient.double(), expected.double(), atol=0.1, rtol=0.05)


def test_a_mask_and_foreign_keys_are_refused():
    _, (q, k, v) = inputs(4)
    with pytest.raises(ValueError, match="without a mask"):
        causal_blocks.causal_blocks(None, q, k, v, torch.zeros(4, 4))
    with pytest.raises(ValueError, match="to itself"):
        attend(q[:, :, -1:], k, v)


def model(**settings):
    torch.manual_seed(0)
    shape = {"observation_dim": 3, "action_dim": 2, "bins": 7, "window": 4, "n_layer": 2, "n_head": 2, "n_embd": 16}
    return TrajectoryTransformer(TrajectoryTransformerConfig(**shape | settings))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_has_the_loss_and_the_gradients_of_eager_attention(checkpointing):
    tokens = torch.randint(7, (5, 20), generator=torch.Generator().manual_seed(0))
    results = []
    for attention in ("causal_blocks", "eager"):
        made = model(attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
        made.set_attn_implementation(attention)
        if checkpointing:
            made.gradient_checkpointing_enable()
        output = made.train()(tokens[:, :-1], tokens[:, 1:])
        results.append([output.loss, output.logits, *torch.autograd.grad(output.loss, list(made.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_saved_model_does_not_ask_for_it(tmp_path):
    made = model()
    made.set_attn_implementation(causal_blocks.NAME)
    made.save_pretrained(tmp_path)
    assert causal_blocks.NAME not in (tmp_path / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=causal_blocks.NAME)
    assert loaded.config._attn_implementation in ALL_ATTENTION_FUNCTIONS.valid_keys()
    tokens = torch.randint(7, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, made.eval()(tokens).logits)
