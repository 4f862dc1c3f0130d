import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AutoConfig, AutoModel, GPT2Model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trajplan.errors import ConfigError
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

OBSERVATION, ACTION, BINS, WINDOW = 3, 2, 7, 4
J = OBSERVATION + ACTION + 2
L = WINDOW * J


def make(attention="sdpa", **settings):
    torch.manual_seed(0)
    shape = {"observation_dim": OBSERVATION, "action_dim": ACTION, "bins": BINS, "window": WINDOW}
    shape |= {"n_layer": 2, "n_head": 2, "n_embd": 16}
    config = TrajectoryTransformerConfig(**(shape | settings))
    config.initializer_range = 0.4
    config._attn_implementation = attention
    return TrajectoryTransformer(config).eval()


def tokens(batch=2, length=L, seed=1):
    return torch.randint(BINS, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_hidden_states_equal_the_stock_gpt2():
    model = make()
    stock = GPT2Model(model.config).eval()
    for name in ("h", "ln_f"):
        getattr(stock, name).load_state_dict(getattr(model, name).state_dict())
    stock.wpe.weight.zero_()
    embeddings = model.embed(tokens())
    expected = model.logits(stock(inputs_embeds=embeddings).last_hidden_state)
    torch.testing.assert_close(model(tokens()).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("changed", [0, 4, J - 1, J, 2 * J - 1, L - 2])
def test_only_later_logits_depend_on_a_token_and_none_on_a_return_to_go(changed, attention):
    model = make(attention)
    before = tokens(1)
    after = before.clone()
    after[0, changed] = (after[0, changed] + 1) % BINS
    differs = (model(before).logits != model(after).logits).any(-1)[0]
    assert not differs[:changed].any()
    if changed % J == J - 1:
        assert not differs.any()
    else:
        assert differs[changed:].all()


@torch.no_grad()
def test_masses_of_a_case_computed_by_hand():
    model = make(observation_dim=1, action_dim=1, bins=2, window=2, n_layer=1, n_embd=4)
    for block in model.h:
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            projection.weight.zero_()
            projection.bias.zero_()
    model.wpe.weight.zero_()
    # Observation token 1 embeds as +-(1, -1, 1, -1), which layer norm leaves as it is; the action's head reads entry 0.
    model.wte.weight.zero_()
    model.wte.weight[0 * 3 + 1] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    model.wte.weight[0 * 3 + 0] = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    model.heads.zero_()
    model.heads[1, 0, 0] = math.log(3)
    masses = model(torch.tensor([[1], [0]])).logits[:, 0].softmax(-1)
    # exp(log 3) against 1, and 1/3 against 1; the stop token has no mass inside a transition.
    expected = torch.tensor([[3 / 4, 1 / 4, 0], [1 / 4, 3 / 4, 0]])
    torch.testing.assert_close(masses, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_tokens_that_a_dimension_cannot_take_have_no_mass_and_the_stop_only_starts_a_transition():
    counts = [7, 5, 7, 1, 7, 2, 7]
    masses = make(bin_counts=counts)(tokens(1)).logits[0].softmax(-1)
    for position, mass in enumerate(masses):
        dim = (position + 1) % J
        legal = [*range(counts[dim]), BINS] if dim == 0 else list(range(counts[dim]))
        assert mass.nonzero().flatten().tolist() == legal


def test_the_loss_weighs_kinds_and_masks_padding():
    model = make(action_weight=5.0, reward_weight=2.0)
    window = tokens(3)
    valid = torch.ones(3, L - 1, dtype=torch.bool)
    valid[1, 9:] = False
    output = model(window[:, :-1], window[:, 1:], valid)
    kinds = ([0] * OBSERVATION + [1] * ACTION + [2, 3]) * WINDOW
    weights = {0: 1.0, 1: 5.0, 2: 2.0, 3: 1.0}
    total, count, by_kind = 0.0, 0, {kind: [] for kind in weights}
    log_masses = output.logits.detach().double().log_softmax(-1)
    for row in range(3):
        for position in range(L - 1):
            if valid[row, position]:
                kind = kinds[position + 1]
                loss = -float(log_masses[row, position, window[row, position + 1]])
                total, count = total + weights[kind] * loss, count + 1
                by_kind[kind].append(loss)
    assert float(output.loss.detach()) == pytest.approx(total / count, rel=1e-5)
    means = [sum(by_kind[kind]) / len(by_kind[kind]) for kind in weights]
    assert [float(loss.detach()) for loss in output.losses.values()] == pytest.approx(means, rel=1e-5)


def test_padding_changes_neither_loss_nor_gradient():
    model = make()
    window = tokens(2)
    valid = torch.ones(2, L - 1, dtype=torch.bool)
    valid[0, 10:] = False
    gradients = []
    for padding in (0, 3):
        padded = window.clone()
        padded[0, 11:] = padding
        loss = model(padded[:, :-1], padded[:, 1:], valid).loss
        gradients.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_training_takes_the_mask_free_causal_path(monkeypatch):
    model, calls = make(), []
    attention = F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        calls.append((kwargs.get("attn_mask"), kwargs.get("is_causal")))
        return attention(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    model(tokens())
    assert calls == [(None, True)] * 2


@pytest.mark.parametrize("precise", [False, True])
def test_eager_attention_gives_the_loss_and_the_gradients_of_sdpa(precise):
    settings = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "reorder_and_upcast_attn": precise}
    results = []
    for attention in ("sdpa", "eager"):
        model = make(attention, **settings).train()
        output = model(tokens()[:, :-1], tokens()[:, 1:])
        results.append([output.logits, output.loss, *torch.autograd.grad(output.loss, list(model.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_an_attention_that_is_not_known_to_be_causal_is_refused(tmp_path, monkeypatch):
    make().save_pretrained(tmp_path)
    message = (
        r"^attn_implementation is 'flex_attention', which is not known to be causal in this model: it must be [^.]*\.$"
    )
    with pytest.raises(ConfigError, match=message):
        AutoModel.from_pretrained(tmp_path, attn_implementation="flex_attention")
    model = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens()).logits, make()(tokens()).logits)
    monkeypatch.setitem(AttentionInterface._global_mapping, "of-my-own", ALL_ATTENTION_FUNCTIONS["sdpa"])
    model.config._attn_implementation = "of-my-own"
    with pytest.raises(ConfigError, match="attn_implementation is 'of-my-own'"):
        model(tokens())


def test_flash_attention_is_causal_without_a_mask(monkeypatch):
    model, seen = make(), []

    def flash(module, query, key, value, mask, **keywords):
        seen.append((mask, module.is_causal))
        return query.transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", flash)
    model.config._attn_implementation = "flash_attention_2"
    model(tokens())
    assert seen == [(None, True)] * 2


def test_saved_and_loaded_by_the_auto_classes(tmp_path):
    model = make(bin_counts=[7, 5, 7, 1, 7, 2, 7])
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.observation_dim, config.window, config.bin_counts) == (3, 4, [7, 5, 7, 1, 7, 2, 7])
    loaded = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(tokens()).logits, model(tokens()).logits)


def test_neighbouring_bins_start_alike_and_distant_ones_do_not():
    model = TrajectoryTransformer(
        TrajectoryTransformerConfig(observation_dim=1, action_dim=1, bins=50, bin_counts=[50, 4, 50, 50], n_embd=512)
    )
    std = model.config.initializer_range
    for table in (model.wte.weight.detach().view(4, 51, 512), model.heads.detach()):
        assert float(table.std()) == pytest.approx(std, rel=0.1)
        rows = F.normalize(table, dim=-1)
        alike = torch.einsum("jvd,jwd->jvw", rows, rows)
        # 0.95 exp(-(1 / 50 / 0.15)^2 / 2) for neighbours of 50 bins, 0.95 exp(-(1 / 4 / 0.15)^2 / 2) for those of 4.
        assert float(alike[0, 10, 11]) == pytest.approx(0.942, abs=0.05)
        assert float(alike[1, 1, 2]) == pytest.approx(0.237, abs=0.15)
        assert abs(float(alike[0, 5, 45])) < 0.2
        assert alike[:, 50, :50].abs().max() < 0.25


def test_gradient_checkpointing_gives_the_same_gradients():
    window = tokens()
    gradients = []
    for checkpointing in (False, True):
        model = make(attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        loss = model(window[:, :-1], window[:, 1:]).loss
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="29 tokens do not fit the window of 4 transitions"):
        make()(tokens(1, L + 1))
    with pytest.raises(ValueError, match="bin_counts needs 7 numbers from 1 to 7"):
        make(bin_counts=[8] * 7)
