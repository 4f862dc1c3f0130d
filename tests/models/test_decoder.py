import pytest
import torch

from trajplan.models.decoder import CachedDecoder, RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

OBSERVATION, ACTION, BINS, WINDOW = 3, 2, 7, 4
J = OBSERVATION + ACTION + 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=OBSERVATION, action_dim=ACTION, bins=BINS, window=WINDOW, n_layer=3, n_head=2, n_embd=16
    )
    config.initializer_range = 0.5
    return TrajectoryTransformer(config).eval()


def run(decoder, generator, batch, beams, candidates, context):
    """A random course of expansions, prunings and restarts; every logit on the way."""

    def draw(*shape, high=BINS):
        return torch.randint(high, shape, generator=generator)

    history = draw(batch, context * J + OBSERVATION)
    logits = [decoder.begin(history, beams, candidates)]
    history = history[:, None].expand(-1, beams, -1)
    environment = torch.arange(batch)[:, None]
    for _ in range(6):
        branch = history[:, :, None].expand(-1, -1, candidates, -1)
        for _ in range(ACTION + 1):
            tokens = draw(batch, beams, candidates)
            branch = torch.cat([branch, tokens[..., None]], -1)
            logits.append(decoder.expand(tokens))
        parents, chosen = draw(batch, beams, high=beams), draw(batch, beams, high=candidates)
        decoder.select(parents, chosen)
        history = branch[environment, parents, chosen]
        tokens = draw(batch, beams)
        history = torch.cat([history, tokens[..., None]], -1)
        if history.shape[-1] + J > WINDOW * J:
            history = history[..., -2 * J :]
            logits.append(decoder.restart(history))
        else:
            logits.append(decoder.advance(tokens))
        for _ in range(OBSERVATION):
            tokens = draw(batch, beams)
            history = torch.cat([history, tokens[..., None]], -1)
            logits.append(decoder.advance(tokens))
    return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("batch", "beams", "candidates", "context"), [(1, 4, 2, 1), (2, 3, 3, 0), (3, 1, 1, 2)])
def test_cached_logits_equal_full_forward_passes(model, monkeypatch, batch, beams, candidates, context, attention):
    monkeypatch.setattr(model.config, "_attn_implementation", attention)
    courses = [
        run(decoder(model), torch.Generator().manual_seed(1), batch, beams, candidates, context)
        for decoder in (CachedDecoder, RecomputingDecoder)
    ]
    for step, (cached, full) in enumerate(zip(*courses, strict=True)):
        torch.testing.assert_close(cached, full, atol=2e-5, rtol=1e-4, msg=lambda m, step=step: f"call {step}: {m}")


def test_a_decoder_is_reused_without_memory_of_the_last_plan(model):
    decoder = CachedDecoder(model)
    first = run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)
    run(decoder, torch.Generator().manual_seed(2), 1, 5, 2, 0)
    again = run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_cache_memory_is_bounded_and_allocated_once(model):
    decoder = CachedDecoder(model)
    run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)

    def storage():
        tensors = [*decoder.trunk, *decoder.branch, decoder.spare]
        return {t.data_ptr() for t in tensors}, sum(t.numel() for t in tensors)

    pointers, numbers = storage()
    run(decoder, torch.Generator().manual_seed(2), 2, 3, 2, 1)
    assert storage() == (pointers, numbers)
    layers, beams, candidates, width = 3, 2 * 3, 2 * 3 * 2, 16
    assert numbers == 2 * width * ((layers + 1) * beams * WINDOW * J + layers * candidates * J)
