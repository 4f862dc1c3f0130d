import numpy as np
import pytest
import torch

from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.sample_and_select import SampleAndSelect, SampleAndSelectConfig
from trajplan.planners.tokens import read_prefix
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V = 2, 1, 4


def make(seed=0):
    torch.manual_seed(seed)
    config = TrajectoryTransformerConfig(
        observation_dim=S, action_dim=A, bins=V, window=8, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = 0.5
    data = np.random.default_rng(seed).uniform(-1, 1, (500, S + A + 2)).astype(np.float32)
    return TrajectoryTransformer(config).eval(), fit_tokenizer("uniform", data, V)


def plan(parts, seed=0, **settings):
    config = SampleAndSelectConfig(**{"context": 0, "horizon": 3, "samples": 50} | settings)
    observations = torch.tensor([[0.3, -0.6]])
    return SampleAndSelect(*parts, config).plan(
        observations, torch.zeros(1, config.context, S + A + 1), [torch.Generator().manual_seed(seed)]
    )[1]


def test_the_best_by_discounted_reward_and_return_comes_first():
    found = plan(make(), discount=0.8)
    discounts = 0.8 ** torch.arange(3)
    expected = (found.rewards * discounts).sum(-1) + 0.8**3 * found.returns[..., -1]
    torch.testing.assert_close(found.scores, expected)
    assert (found.scores.diff(dim=1) <= 0).all()
    assert found.scores[0, 0] > found.scores[0].mean()


@torch.no_grad()
def test_trajectories_are_drawn_from_the_model():
    parts = model, tokenizer = make()
    tokens, present = read_prefix(model, tokenizer, torch.tensor([[0.3, -0.6]]), torch.zeros(1, 0, S + A + 1))
    expected = model(torch.cat([tokens.flatten(1), present], 1)).logits[0, -1, :V].double().softmax(-1)
    drawn = plan(parts, samples=4000, horizon=1).actions[0, :, 0, 0]
    frequencies = torch.tensor([float((drawn == value).float().mean()) for value in tokenizer.values[S]])
    torch.testing.assert_close(frequencies.double(), expected, atol=0.03, rtol=0)
    two = plan(parts, samples=500, horizon=1, top_k=2).actions[0, :, 0, 0].unique()
    assert set(two.tolist()) == set(tokenizer.values[S][expected.topk(2).indices].tolist())


@torch.no_grad()
def test_the_log_likelihood_is_that_of_actions_and_observations():
    parts = model, tokenizer = make()
    found = plan(parts, horizon=2, samples=8)
    for row in range(8):
        if not found.alive[0, row].all():
            continue
        values = torch.cat([found.observations[0, row], found.actions[0, row]], 1)
        tokens = torch.nn.functional.pad(tokenizer.encode(values, slice(0, S + A)), (0, 2))
        # The reward token is the likeliest one; the return-to-go token is not read.
        for step in range(2):
            before = tokens[: step + 1].flatten()[: step * 5 + S + A]
            tokens[step, S + A] = model(before[None]).logits[0, -1].argmax()
        logits = model(tokens.flatten()[None]).logits[0].double().log_softmax(-1)
        flat = tokens.flatten().tolist()
        expected = sum(float(logits[at - 1, flat[at]]) for at in (2, 5, 6, 7))
        assert float(found.log_likelihood[0, row]) == pytest.approx(expected, abs=1e-3)


def test_more_samples_find_no_worse_a_trajectory_on_average():
    parts = make()
    few, many = (np.mean([float(plan(parts, seed, samples=n).scores[0, 0]) for seed in range(10)]) for n in (2, 60))
    assert many > few
