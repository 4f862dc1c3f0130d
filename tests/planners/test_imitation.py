import numpy as np
import pytest
import torch

from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.imitation import Imitation, ImitationConfig
from trajplan.planners.tokens import read_prefix
from trajplan.tokenizers.fit import fit_tokenizer


def make(observation_dim, action_dim, bins, window, *, scale=0.6, seed=0):
    torch.manual_seed(seed)
    config = TrajectoryTransformerConfig(
        observation_dim=observation_dim, action_dim=action_dim, bins=bins, window=window, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = scale
    data = np.random.default_rng(seed).uniform(-1, 1, (500, observation_dim + action_dim + 2)).astype(np.float32)
    return TrajectoryTransformer(config).eval(), fit_tokenizer("uniform", data, bins)


def problem(model, context, seed=0):
    random, config = torch.Generator().manual_seed(seed), model.config
    observations = torch.rand(1, config.observation_dim, generator=random) * 2 - 1
    width = config.observation_dim + config.action_dim + 1
    return observations, torch.rand(1, context, width, generator=random) * 2 - 1


def likelihoods(model, prefix, horizon):
    """The log-likelihood of every trajectory of actions and observations, by full forward passes; rewards greedy."""
    config = model.config
    S, A, J, V = config.observation_dim, config.action_dim, config.transition_dim, config.bins

    def grow(tokens, step, dim, total, chosen):
        if dim == S + A:
            for _ in range(2):
                logits = model(torch.tensor([tokens])).logits[0, -1].double()
                tokens = [*tokens, int(logits[:V].argmax())]
            if step + 1 == horizon:
                yield chosen, total
                return
            step, dim = step + 1, 0
            tokens[-1] = 0
        log_probabilities = model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)
        for token in range(V + 1):
            if log_probabilities[token] == -torch.inf:
                continue
            so_far = total + float(log_probabilities[token])
            if token == V:
                yield (*chosen, token), so_far
                continue
            following = (step, dim + 1) if dim + 1 < S + A else (step, S + A)
            yield from grow([*tokens, token], *following, so_far, (*chosen, token))

    assert J == S + A + 2
    return dict(grow(prefix, 0, S, 0.0, ()))


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_wide_beam_finds_the_likeliest_trajectory(seed):
    model, tokenizer = make(1, 1, 3, 4, seed=seed)
    observations, past = problem(model, 1, seed)
    tokens, present = read_prefix(model, tokenizer, observations, past)
    known = likelihoods(model, [*tokens.flatten().tolist(), *present.flatten().tolist()], horizon=2)
    config = ImitationConfig(horizon=2, beam_width=40, context=1)
    _, plan = Imitation(model, tokenizer, config).plan(observations, past, [])
    best = max(known, key=known.get)
    assert float(plan.scores[0, 0]) == pytest.approx(known[best], abs=1e-4)
    assert float(plan.actions[0, 0, 0, 0]) == pytest.approx(float(tokenizer.values[1][best[0]]))
    # 3 actions, then an end or 3 observations and 3 actions: 30 trajectories, all of them found.
    assert len(known) == 30
    torch.testing.assert_close(
        plan.scores[0, :30], torch.tensor(sorted(known.values(), reverse=True)).float(), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_one_beam_takes_the_likeliest_token_each_time():
    model, tokenizer = make(2, 2, 5, 6)
    observations, past = problem(model, 2)
    tokens, present = read_prefix(model, tokenizer, observations, past)
    sequence = [*tokens.flatten().tolist(), *present.flatten().tolist()]
    for _ in range(2):
        sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
    action, plan = Imitation(model, tokenizer, ImitationConfig(context=2)).plan(observations, past, [])
    torch.testing.assert_close(action[0], tokenizer.decode(torch.tensor(sequence[-2:]), slice(2, 4)))
    assert plan.rewards.shape == (1, 1, 1)


@torch.no_grad()
def test_more_beams_find_nothing_less_likely():
    model, tokenizer = make(2, 1, 6, 5, seed=4)
    observations, past = problem(model, 1, 4)
    scores = []
    for width in (1, 4, 64):
        config = ImitationConfig(horizon=3, beam_width=width, context=1)
        scores.append(float(Imitation(model, tokenizer, config).plan(observations, past, [])[1].scores[0, 0]))
    assert scores[2] >= max(scores[:2]) - 1e-5
    assert scores[2] > scores[0]


def test_fewer_trajectories_than_beams_are_filled_up_and_the_best_still_come_first():
    model, tokenizer = make(1, 1, 3, 4)
    _, plan = Imitation(model, tokenizer, ImitationConfig(beam_width=7, context=0)).plan(*problem(model, 0), [])
    actions = plan.actions[0, :, 0, 0].tolist()
    assert len(set(actions[:3])) == 3
    assert set(actions[3:]) == {actions[2]}
    assert plan.scores.isfinite().all()
    assert plan.scores[0].tolist() == sorted(plan.scores[0].tolist(), reverse=True)
