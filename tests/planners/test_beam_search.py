import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.tokens import read_prefix
from trajplan.tokenizers.fit import fit_tokenizer


def make(observation_dim, action_dim, bins, window, *, scale=0.3, seed=0):
    """A random model whose predictions differ strongly between histories, and a tokenizer to match."""
    torch.manual_seed(seed)
    J = observation_dim + action_dim + 2
    config = TrajectoryTransformerConfig(
        observation_dim=observation_dim, action_dim=action_dim, bins=bins, window=window, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = scale
    data = np.random.default_rng(seed).uniform(-1, 1, size=(500, J)).astype(np.float32)
    return TrajectoryTransformer(config).eval(), fit_tokenizer("uniform", data, bins)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def problem(model, tokenizer, batch, context, seed=0):
    config, generator = model.config, torch.Generator().manual_seed(seed)
    history = torch.randint(config.bins, (batch, context, config.transition_dim), generator=generator)
    past = tokenizer.decode(history[..., :-1], slice(0, config.transition_dim - 1))
    return torch.rand(batch, config.observation_dim, generator=generator) * 2 - 1, past


def written(search, observations, past, seeds):
    """The plans as the search writes them, in tokens."""
    tokens, present = read_prefix(search.model, search.tokenizer, observations, past)
    return search._search(torch.cat([tokens.flatten(1), present], 1), *search._noise(generators(*seeds)))


def exhaustive(model, tokenizer, observation, past, horizon, discount):
    """The best first action and score over all action sequences, greedy in observations, by full forward passes."""
    config = model.config
    S, A, V = config.observation_dim, config.action_dim, config.bins
    context = torch.nn.functional.pad(tokenizer.encode(past, slice(0, S + A + 1)), (0, 1))
    best = (-np.inf, None)
    for actions in itertools.product(range(V), repeat=horizon * A):
        tokens = torch.cat([context.flatten(), tokenizer.encode(observation, slice(0, S))])
        score = 0.0
        for step in range(horizon):
            tokens = torch.cat([tokens, torch.tensor(actions[step * A : (step + 1) * A])])
            expectations = []
            for dim in (S + A, S + A + 1):
                logits = model(tokens[None]).logits[0, -1]
                expectations.append(float(logits[:V].double().softmax(-1) @ tokenizer.values[dim].double()))
                tokens = torch.cat([tokens, logits.argmax()[None]])
            score += discount**step * expectations[0]
            total = score + discount ** (step + 1) * expectations[1]
            if step + 1 == horizon:
                break
            for _ in range(S):
                tokens = torch.cat([tokens, model(tokens[None]).logits[0, -1].argmax()[None]])
            if V in tokens:
                total = score
                break
        best = max(best, (total, actions[:A]))
    return best


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_full_beam_finds_the_exhaustive_optimum(seed):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    score, action = exhaustive(model, tokenizer, observations[0], past[0], horizon=3, discount=0.9)
    config = BeamSearchConfig(
        horizon=3, beam_width=500, n_expand=1, context=1, discount=0.9, action_cdf=None, action_temperature=5.0
    )
    actions, plans = BeamSearch(model, tokenizer, config).plan(observations, past, generators(0))
    assert float(plans.scores[0, 0]) == pytest.approx(score, abs=1e-5)
    torch.testing.assert_close(actions[0], tokenizer.decode(torch.tensor(action), slice(2, 3)))


@pytest.mark.parametrize(
    "settings",
    [
        {"horizon": 3, "context": 2},
        {"horizon": 9, "context": 1},
        {"horizon": 6, "context": 3, "n_expand": 3},
        {"horizon": 6, "context": 0, "observation_top_k": None, "observation_cdf": 0.9, "action_top_k": 3},
        {"horizon": 5, "context": 2, "percentile": 0.7, "action_cdf": None},
    ],
)
def test_plans_are_the_same_with_and_without_the_cache_and_beyond_the_window(settings):
    model, tokenizer = make(3, 2, 9, 4)
    config = BeamSearchConfig(beam_width=6, **settings)
    observations, past = problem(model, tokenizer, 2, config.context)
    _, cached = BeamSearch(model, tokenizer, config).plan(observations, past, generators(1, 2))
    _, plain = BeamSearch(model, tokenizer, config, RecomputingDecoder).plan(observations, past, generators(1, 2))
    for name in ("observations", "actions", "alive", "scores", "rewards", "returns", "log_likelihood"):
        torch.testing.assert_close(getattr(cached, name), getattr(plain, name), atol=1e-4, rtol=1e-4)


def test_scores_are_the_discounted_rewards_and_the_last_return():
    model, tokenizer = make(3, 2, 9, 4)
    config = BeamSearchConfig(horizon=5, beam_width=4, context=2, discount=0.8)
    _, plans = BeamSearch(model, tokenizer, config).plan(*problem(model, tokenizer, 2, 2), generators(0, 1))
    alive = plans.alive.all(-1)
    assert alive.any()
    discounts = 0.8 ** torch.arange(5)
    expected = (plans.rewards * discounts).sum(-1) + 0.8**5 * plans.returns[..., -1]
    torch.testing.assert_close(plans.scores[alive], expected[alive])
    assert (plans.scores.diff(dim=1) <= 0).all()


def test_the_return_to_go_of_the_context_is_never_read():
    model, tokenizer = make(3, 2, 9, 4)
    search = BeamSearch(model, tokenizer, BeamSearchConfig(horizon=3, beam_width=4, context=2))
    tokens, present = read_prefix(model, tokenizer, *problem(model, tokenizer, 1, 2))
    noise = search._noise(generators(0))
    plans = search._search(torch.cat([tokens.flatten(1), present], 1), *noise)
    tokens[..., -1] = 4
    others = search._search(torch.cat([tokens.flatten(1), present], 1), *noise)
    torch.testing.assert_close(plans.tokens, others.tokens)


class Scripted:
    """A model scripted by hand: S = A = 1, values 0, 1, 2; after action 0 the episode ends, after action 1 it goes on.

    Args:
        rewards, returns: (steps, 2), what is predicted with certainty for an action at a step.
    """

    config = TrajectoryTransformerConfig(observation_dim=1, action_dim=1, bins=3, window=4)
    device = torch.device("cpu")

    def __init__(self, rewards, returns):
        self.predictions = {2: rewards, 3: returns}

    def __call__(self, tokens):
        step, dim = divmod(tokens.shape[1], 4)
        logits = torch.full((len(tokens), 1, 4), -torch.inf)
        for row, history in enumerate(tokens.tolist()):
            if dim == 0:
                logits[row, 0, 3 if history[-3] == 0 else 0] = 0.0
            elif dim == 1:
                logits[row, 0, :2] = 0.0
            else:
                logits[row, 0, self.predictions[dim][step][history[4 * step + 1]]] = 0.0
        return SimpleNamespace(logits=logits)


def scripted_search(rewards, returns, **settings):
    values = np.repeat(np.array([[0.0], [1.0], [2.0]], dtype=np.float32), 4, axis=1)
    config = BeamSearchConfig(horizon=3, context=0, discount=0.5, action_cdf=None, **settings)
    return BeamSearch(Scripted(rewards, returns), fit_tokenizer("quantile", values, 3), config, RecomputingDecoder)


def test_a_stop_token_ends_a_beams_return():
    search = scripted_search([[2, 1]] * 3, [[2, 2]] * 3, beam_width=64, n_expand=1)
    plans = written(search, torch.zeros(1, 1), torch.zeros(1, 0, 3), [0])
    scores = {}
    for actions, score, alive in zip(plans.tokens[0, :, :, 1], plans.scores[0], plans.alive[0], strict=True):
        scores.setdefault(tuple(actions[: int(alive.sum())].tolist()), set()).add(float(score))
    # By hand: after an end nothing more is earned; at the horizon the predicted return-to-go still counts.
    assert scores == {
        (0,): {2.0},
        (1, 0): {1 + 0.5 * 2},
        (1, 1, 0): {1 + 0.5 + 0.25 * 2 + 0.125 * 2},
        (1, 1, 1): {1 + 0.5 + 0.25 + 0.125 * 2},
    }
    assert (plans.rewards[0][~plans.alive[0]] == 0).all()
    assert (plans.returns[0][~plans.alive[0]] == 0).all()


def planned_log_likelihood(model, tokens):
    """The log-probability of a plan (H, J) up to its stop token, from one full forward pass, no context before it."""
    config = model.config
    S, A = config.observation_dim, config.action_dim
    logits = model(tokens.flatten()[None]).logits[0].double().log_softmax(-1).view(*tokens.shape, -1)
    total = 0.0
    for step, transition in enumerate(tokens):
        for dim, token in enumerate(transition[: S + A]):
            if (step, dim) >= (0, S):
                before = logits[step, dim - 1] if dim else logits[step - 1, -1]
                total += float(before[token])
            if dim < S and token == config.bins:
                return total
    return total


@torch.no_grad()
def test_the_log_likelihood_is_that_of_the_tokens_up_to_the_end():
    model, tokenizer = make(2, 2, 3, 8, seed=3)
    # Without candidates to choose from nothing is pruned: beams of all lengths stay.
    config = BeamSearchConfig(
        horizon=6, beam_width=60, n_expand=1, context=0, action_cdf=None, action_temperature=2.0, observation_top_k=None
    )
    plans = written(BeamSearch(model, tokenizer, config), *problem(model, tokenizer, 2, 0), [0, 1])
    assert plans.alive.sum(-1).unique().tolist() == [1, 2, 3, 4, 5, 6]
    for tokens, found in zip(plans.tokens.flatten(0, 1), plans.log_likelihood.flatten(), strict=True):
        assert float(found) == pytest.approx(planned_log_likelihood(model, tokens), abs=1e-3)


class Ending(Scripted):
    """Two observation dimensions; after action 0, and after whatever is done at the second step, the episode ends."""

    config = TrajectoryTransformerConfig(observation_dim=2, action_dim=1, bins=3, window=8)
    device = torch.device("cpu")

    def __init__(self):
        pass

    def __call__(self, tokens):
        step, dim = divmod(tokens.shape[1], 5)
        logits = torch.full((len(tokens), 1, 4), -torch.inf)
        if dim in (1, 2):
            # The second observation dimension, also that beside a stop token, and the action.
            logits[:, 0, :2] = 0.0
        else:
            logits[:, 0, 0] = 0.0
        if dim == 0:
            logits[(tokens[:, 5 * step - 3] == 0) | (step > 1), 0] = torch.tensor([-torch.inf] * 3 + [0.0])
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("horizon", [3, 4, 6])
def test_the_log_likelihood_does_not_depend_on_the_horizon_once_all_beams_have_ended(horizon):
    values = np.repeat(np.array([[0.0], [1.0], [2.0]], dtype=np.float32), 5, axis=1)
    config = BeamSearchConfig(horizon=horizon, context=0, beam_width=16, n_expand=1, action_cdf=None)
    search = BeamSearch(Ending(), fit_tokenizer("quantile", values, 3), config, RecomputingDecoder)
    _, plans = search.plan(torch.zeros(1, 2), torch.zeros(1, 0, 4), generators(0))
    assert not plans.alive[0, :, 2:].any()
    found = {1: set(), 2: set()}
    for length, value in zip(plans.alive[0].sum(-1).tolist(), plans.log_likelihood[0], strict=True):
        found[length].add(round(float(value / np.log(0.5)), 4))
    # By hand: an action, or two with the second observation's other dimension between them, are the only choices.
    assert found == {1: {1.0}, 2: {3.0}}


def test_an_ended_beam_does_not_multiply():
    # At first going on looks better (3 against 2), then it turns out worse (1) than having ended (2).
    search = scripted_search([[2, 1], [0, 0], [0, 0]], [[0, 2], [0, 0], [0, 0]], beam_width=8, n_expand=2)
    noise = torch.full((1, 3, 8, 2, 1), 0.9)
    noise[0, 0].view(-1)[:10] = 0.1
    plans = search.search(
        RecomputingDecoder(search.model), torch.zeros(1, 1, dtype=torch.int64), noise, torch.zeros(1, 0)
    )
    # Of 16 candidates 6 go on and the 2 best of the ended ones are kept; those stay 2, ahead of the rest.
    assert plans.scores[0].tolist() == [2, 2, 1, 1, 1, 1, 1, 1]


def test_settings_that_cannot_plan_are_refused():
    model, tokenizer = make(2, 1, 3, 4)
    with pytest.raises(ConfigError, match="context is 4 transitions, the model's window 4"):
        BeamSearch(model, tokenizer, BeamSearchConfig(context=4))
    for bad in (
        {"horizon": 0},
        {"n_expand": 0},
        {"context": -1},
        {"discount": 1.5},
        {"action_cdf": 0.0},
        {"action_top_k": 0},
        {"observation_temperature": 0.0},
        {"percentile": 1.5},
        {"horizon": 2, "replan_every": 3},
    ):
        name, value = next(reversed(bad.items()))
        with pytest.raises(ConfigError, match=rf"^{name} is {value}; it must be [^;]+\.$"):
            BeamSearchConfig(**bad)
