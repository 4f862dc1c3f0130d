"""Every term of the beam's score against all action sequences of a tiny model, by full forward passes."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.planners.test_beam_search import generators, make, problem
from trajplan.errors import ConfigError
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.sample_and_select import SampleAndSelect, SampleAndSelectConfig

DISCOUNT = 0.9
# With these the model ends some sequences before the horizon, or with it, and others not.
SEEDS = [0, 5, 9]


class Wavy:
    """A critic that anyone can work out."""

    discount, needs_goals, has_q = DISCOUNT, False, False

    def values(self, observations, goals=None):
        return torch.sin(4 * observations).sum(-1) + 0.5 * observations[:, 0]


class Near(Wavy):
    """Minus the distance of the first entry to a goal."""

    needs_goals = True

    def values(self, observations, goals=None):
        return -(observations[:, 0] - goals[:, 0]).abs()


@dataclass
class Step:
    """What one planned step of one sequence is, read from full forward passes."""

    state: list
    action: list
    reward: float
    reward_std: float
    following: float
    following_std: float
    log_likelihood: float
    observed: float = 0.0
    next_state: list | None = None


class Reader:
    """A sequence of tokens and the model's probabilities of the next one, from a full forward pass each."""

    def __init__(self, model, tokens):
        self.model, self.tokens = model, list(tokens)
        self.ask()

    @torch.no_grad()
    def ask(self):
        self.probabilities = self.model(torch.tensor(self.tokens)[None]).logits[0, -1].double().softmax(-1)

    def append(self, token):
        """Read a token; gives its log-likelihood."""
        likelihood = float(self.probabilities[token].log())
        self.tokens.append(int(token))
        self.ask()
        return likelihood

    def moments(self, values):
        """Mean and deviation of a number that the next token stands for."""
        bins = self.probabilities[: len(values)] / self.probabilities[: len(values)].sum()
        mean = float(bins @ values.double())
        return mean, float(bins @ (values.double() - mean) ** 2) ** 0.5


def rollout(model, tokenizer, observation, past, actions, forgets=False):
    """The steps of an action sequence (H, A) up to the end that the model predicts, greedy in observations.

    With `forgets` the window moves as it does for a critic: before an action where the next state would not fit; and
    the last step has a next state, too.
    """
    config = model.config
    S, A, J, V = config.observation_dim, config.action_dim, config.transition_dim, config.bins
    before = torch.nn.functional.pad(tokenizer.encode(past, slice(0, S + A + 1)), (0, 1)).tolist()
    state = tokenizer.encode(observation, slice(0, S)).tolist()
    steps = []
    for number, action in enumerate(actions):
        if forgets and len(before) + 1 == config.window:
            before = before[len(before) - min(config.window // 2, config.window - 2) :]
        reader = Reader(model, itertools.chain(*before, state))
        likelihood = sum(reader.append(token) for token in action)
        reward = reader.moments(tokenizer.values[S + A])
        reader.append(reader.probabilities.argmax())
        step = Step(state, list(action), *reward, *reader.moments(tokenizer.values[S + A + 1]), likelihood)
        steps.append(step)
        if number + 1 == len(actions) and not forgets:
            break
        reader.append(0)
        for _ in range(S):
            token = reader.probabilities.argmax()
            step.observed += reader.append(token)
            if token == V:
                return steps
        state = step.next_state = reader.tokens[-S:]
        before = [*before, reader.tokens[-S - J : -S]]
    return steps


def log_likelihoods(steps, horizon):
    """Of actions and observations, before each step's own next observation, and in all up to the horizon."""
    total, found = 0.0, []
    for number, step in enumerate(steps):
        total += step.log_likelihood
        found.append(total)
        if number + 1 < horizon:
            total += step.observed
    return found, total


def best(model, tokenizer, observation, past, horizon, score, forgets=False):
    """The best score over all action sequences."""
    V, A = model.config.bins, model.config.action_dim
    sequences = itertools.product(itertools.product(range(V), repeat=A), repeat=horizon)
    return max(
        (score(rollout(model, tokenizer, observation, past, actions, forgets=forgets)), actions)
        for actions in sequences
    )


def planned(model, tokenizer, observations, past, horizon, goals=None, critic=None, ensemble=None, **settings):
    """The plans of a beam that keeps everything."""
    config = BeamSearchConfig(
        **{"horizon": horizon, "beam_width": 500, "n_expand": 1, "context": past.shape[1], "discount": DISCOUNT}
        | {"action_cdf": None, "action_temperature": 5.0}
        | settings,
        critic=None if critic is None else "critic",
        ensemble=None if ensemble is None else "ensemble",
    )
    search = BeamSearch(model, tokenizer, config, critic=critic, ensemble=ensemble)
    keywords = {} if goals is None else {"goals": goals}
    return search.plan(observations, past, generators(*range(len(observations))), **keywords)


def state_of(tokenizer, tokens):
    return tokenizer.decode(torch.tensor(tokens)[None], slice(0, len(tokens)))


def return_score(tokenizer, critic=None, goal=None, deviation=0.0, horizon=3):
    """The discounted rewards and what follows, in plain numbers."""

    def score(steps):
        total = 0.0
        for number, step in enumerate(steps):
            total += DISCOUNT**number * (step.reward - deviation * step.reward_std)
        last = steps[-1]
        if critic is not None:
            goals = None if goal is None else goal[None]
            after = (
                0.0 if last.next_state is None else float(critic.values(state_of(tokenizer, last.next_state), goals))
            )
        elif len(steps) < horizon:
            after = 0.0
        else:
            after = last.following - deviation * last.following_std
        return total + DISCOUNT ** len(steps) * after

    return score


def value_score(tokenizer, critic, goal=None):
    """The value of the last state alone; nothing after an end."""

    def score(steps):
        last, goals = steps[-1].next_state, None if goal is None else goal[None]
        return 0.0 if last is None else float(critic.values(state_of(tokenizer, last), goals))

    return score


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["return", "value", "goal", "goal-value", "deviation", "bold"])
def test_a_full_beam_finds_the_best_by_every_score(seed, kind):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    goals = torch.tensor([[0.4]])
    critic = {"deviation": None, "bold": None, "return": Wavy(), "value": Wavy()}.get(kind, Near())
    goal = goals[0] if kind.startswith("goal") else None
    if "value" in kind:
        score, settings = value_score(tokenizer, critic, goal), {"score": "value"}
    else:
        deviation = {"deviation": 1.5, "bold": -0.7}.get(kind, 0.0)
        score, settings = return_score(tokenizer, critic, goal, deviation), {"deviation_weight": deviation}
    found, actions = best(model, tokenizer, observations[0], past[0], 3, score, forgets=critic is not None)
    first, plans = planned(
        model, tokenizer, observations, past, 3, critic=critic, goals=None if goal is None else goals, **settings
    )
    assert float(plans.scores[0, 0]) == pytest.approx(found, abs=1e-4)
    if kind not in ("value", "goal-value"):
        torch.testing.assert_close(first[0], tokenizer.decode(torch.tensor(actions[0]), slice(2, 3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_likelihood_weight_adds_the_plans_log_likelihood(seed):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    plain = return_score(tokenizer)

    def score(steps):
        return plain(steps) + 0.3 * log_likelihoods(steps, 3)[1]

    found, _ = best(model, tokenizer, observations[0], past[0], 3, score)
    _, plans = planned(model, tokenizer, observations, past, 3, likelihood_weight=0.3)
    assert float(plans.scores[0, 0]) == pytest.approx(found, abs=1e-4)
    # The weight is what carries the score over to likely plans.
    likeliest = max(
        log_likelihoods(rollout(model, tokenizer, observations[0], past[0], actions), 3)[1]
        for actions in itertools.product(itertools.product(range(3), repeat=1), repeat=3)
    )
    _, plans = planned(model, tokenizer, observations, past, 3, likelihood_weight=1000.0)
    assert float(plans.log_likelihood[0, 0]) == pytest.approx(likeliest, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS[:2])
@pytest.mark.parametrize("margin", [0.05, -0.05])
def test_the_best_plan_that_is_likely_enough_wins(seed, margin):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    plain = return_score(tokenizer)

    def mean(steps):
        """Nats a step; a plan that has ended is measured with its end."""
        before_last, total = log_likelihoods(steps, 3)
        return (total if len(steps) < 3 else before_last[-1]) / len(steps)

    free, actions = best(model, tokenizer, observations[0], past[0], 3, plain)
    # Just above what the best plan of all has, or just below it.
    threshold = mean(rollout(model, tokenizer, observations[0], past[0], actions)) + margin

    def score(steps):
        return plain(steps) if mean(steps) >= threshold else -np.inf

    found, _ = best(model, tokenizer, observations[0], past[0], 3, score)
    _, plans = planned(model, tokenizer, observations, past, 3, likelihood_threshold=threshold)
    assert -np.inf < found < free if margin > 0 else found == free
    assert float(plans.scores[0, 0]) == pytest.approx(found, abs=1e-4)


def test_the_likeliest_plan_stays_where_none_is_likely_enough():
    model, tokenizer = make(2, 1, 3, 4, scale=0.6)
    observations, past = problem(model, tokenizer, 2, 1)
    _, plans = planned(model, tokenizer, observations, past, 2, likelihood_threshold=-0.001, n_expand=2)
    assert plans.scores[:, 0].isfinite().all()
    mean = plans.log_likelihood / plans.alive.sum(-1)
    torch.testing.assert_close(mean[:, 0], mean.amax(-1))


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_the_ensembles_disagreement_is_taken_off(seed):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    ensemble = DynamicsEnsemble(2, 1, members=4, elites=3, hidden=(8,))
    ensemble.elites.copy_(torch.tensor([3, 0, 2]))
    plain = return_score(tokenizer)

    def doubt(step):
        state = state_of(tokenizer, step.state)
        action = tokenizer.decode(torch.tensor(step.action)[None], slice(2, 3))
        with torch.no_grad():
            means = ensemble.predict(state, action).mean[[0, 2, 3], 0].double()
        return float((means - means.mean(0)).square().sum(-1).sqrt().max())

    def score(steps):
        return plain(steps) - 2.0 * sum(DISCOUNT**number * doubt(step) for number, step in enumerate(steps))

    found, _ = best(model, tokenizer, observations[0], past[0], 3, score)
    _, plans = planned(model, tokenizer, observations, past, 3, ensemble=ensemble, disagreement_weight=2.0)
    assert float(plans.scores[0, 0]) == pytest.approx(found, abs=1e-4)
    _, without = planned(model, tokenizer, observations, past, 3, ensemble=ensemble, disagreement_weight=0.0)
    _, alone = planned(model, tokenizer, observations, past, 3)
    assert torch.equal(without.scores, alone.scores)


def greedy(model, tokenizer, observation, past, judge, forgets):
    """The sequence that takes at every step the action that a judge scores best, and its scores."""
    taken, found = [], []
    for _ in range(3):
        options = [[*taken, (action,)] for action in range(3)]
        scored = [judge(rollout(model, tokenizer, observation, past, option, forgets=forgets)) for option in options]
        taken = options[int(np.argmax(scored))]
        found.append(max(scored))
    return taken, found


@pytest.mark.parametrize("score", ["return", "value"])
def test_a_beam_of_one_goes_where_the_next_state_is_worth_most(score):
    """The state after each candidate's action is read before all but one are dropped."""
    model, tokenizer = make(2, 1, 3, 4, seed=4, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, 4)
    critic = Wavy()
    judge = value_score(tokenizer, critic) if score == "value" else return_score(tokenizer, critic)
    taken, expected = greedy(model, tokenizer, observations[0], past[0], judge, forgets=True)
    # 40 draws at this temperature hold all 3 actions.
    _, plans = planned(model, tokenizer, observations, past, 3, critic=critic, score=score, beam_width=1, n_expand=40)
    assert plans.alive.all()
    actions = tokenizer.encode(plans.actions[0, 0], slice(2, 3))[:, 0].tolist()
    assert actions == [action for (action,) in taken]
    assert float(plans.scores[0, 0]) == pytest.approx(expected[-1], abs=1e-4)


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_a_portfolio_keeps_the_cautious_and_the_bold_and_acts_the_best_expected(seed):
    model, tokenizer = make(2, 1, 3, 4, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    expected = {}
    for level in (2.0, 0.0, -2.0):
        # At the horizon of a step all that is known of what follows is its prediction.
        taken = []
        for length in range(1, 4):
            judge = return_score(tokenizer, deviation=level, horizon=length)
            options = [[*taken, (action,)] for action in range(3)]
            taken = max(options, key=lambda option: judge(rollout(model, tokenizer, observations[0], past[0], option)))
        steps = rollout(model, tokenizer, observations[0], past[0], taken)
        expected[tuple(action for (action,) in taken)] = return_score(tokenizer)(steps)
    _, plans = planned(
        model, tokenizer, observations, past, 3, deviation_weight=2.0, portfolio=3, beam_width=3, n_expand=40
    )
    assert plans.alive.all()
    kept = [tuple(tokenizer.encode(plan, slice(2, 3))[:, 0].tolist()) for plan in plans.actions[0]]
    assert set(kept) == set(expected)
    assert len(expected) > 1
    for actions, score in zip(kept, plans.scores[0].tolist(), strict=True):
        assert score == pytest.approx(expected[actions], abs=1e-4)
    assert (plans.scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"horizon": 9, "context": 1},
        {"horizon": 6, "context": 3, "n_expand": 3, "score": "value"},
        {"horizon": 6, "context": 0, "observation_top_k": None, "action_top_k": 3, "likelihood_weight": 0.1},
    ],
)
def test_a_critic_plans_the_same_with_and_without_the_cache_and_beyond_the_window(settings):
    model, tokenizer = make(3, 2, 9, 4)
    config = BeamSearchConfig(beam_width=6, critic="critic", **settings)
    observations, past = problem(model, tokenizer, 2, config.context)
    _, cached = BeamSearch(model, tokenizer, config, critic=Wavy()).plan(observations, past, generators(1, 2))
    plain = BeamSearch(model, tokenizer, config, RecomputingDecoder, critic=Wavy())
    _, recomputed = plain.plan(observations, past, generators(1, 2))
    for name in ("observations", "actions", "alive", "scores", "rewards", "returns", "log_likelihood"):
        torch.testing.assert_close(getattr(cached, name), getattr(recomputed, name), atol=1e-4, rtol=1e-4)
    # Each environment gets the plan that it would get alone.
    _, alone = BeamSearch(model, tokenizer, config, critic=Wavy()).plan(observations[1:], past[1:], generators(2))
    torch.testing.assert_close(alone.scores[0], cached.scores[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [*SEEDS, 11])
@pytest.mark.parametrize("needs_goals", [False, True])
def test_sampled_trajectories_end_in_the_critics_value(seed, needs_goals):
    model, tokenizer = make(2, 1, 3, 6, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    critic, goals = (Near(), torch.tensor([[0.4]])) if needs_goals else (Wavy(), None)
    # At this temperature the likeliest token is drawn.
    config = SampleAndSelectConfig(
        horizon=3, samples=2, context=1, discount=DISCOUNT, temperature=1e-4, critic="critic"
    )
    planner = SampleAndSelect(model, tokenizer, config, critic=critic)
    _, plans = planner.plan(observations, past, generators(0), goals)
    actions = tokenizer.encode(plans.actions[0, 0], slice(2, 3)).tolist()
    steps = rollout(model, tokenizer, observations[0], past[0], actions, forgets=True)
    expected = return_score(tokenizer, critic, None if goals is None else goals[0])(steps)
    assert float(plans.scores[0, 0]) == pytest.approx(expected, abs=1e-4)
    if needs_goals:
        with pytest.raises(ConfigError, match="The critic values states by a goal"):
            planner.plan(observations, past, generators(0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_window_of_two_transitions_is_enough(seed):
    model, tokenizer = make(2, 1, 3, 2, seed=seed, scale=0.6)
    observations, past = problem(model, tokenizer, 1, 1, seed)
    score = return_score(tokenizer, Wavy())
    found, _ = best(model, tokenizer, observations[0], past[0], 3, score, forgets=True)
    _, plans = planned(model, tokenizer, observations, past, 3, critic=Wavy())
    assert float(plans.scores[0, 0]) == pytest.approx(found, abs=1e-4)
    model, tokenizer = make(2, 1, 3, 1)
    with pytest.raises(ConfigError, match=r"^A critic needs a model with a window of 2 transitions or more"):
        planned(model, tokenizer, observations, past[:, :0], 1, critic=Wavy())


def test_settings_that_cannot_score_are_refused():
    model, tokenizer = make(2, 1, 3, 4)
    observations, past = problem(model, tokenizer, 1, 1)
    with pytest.raises(ConfigError, match=r"^The critic values states by a goal, and the environment gives none\.$"):
        planned(model, tokenizer, observations, past, 2, critic=Near())
    for bad in (
        {"score": "value"},
        {"likelihood_weight": float("nan")},
        {"likelihood_threshold": float("-inf")},
        {"percentile": 0.5, "deviation_weight": 1.0},
        {"disagreement_weight": -1.0},
        {"critic": "x", "score": "value", "deviation_weight": 1.0},
        {"portfolio": 2},
        {"deviation_weight": 1.0, "beam_width": 5, "portfolio": 2},
    ):
        name, value = next(reversed(bad.items()))
        with pytest.raises(ConfigError, match=rf"^{name} is {value}; it must be [^;]+\.$"):
            BeamSearchConfig(**bad)
