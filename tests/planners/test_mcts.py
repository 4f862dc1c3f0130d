import itertools

import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.mcts import MCTS, MCTSConfig, Node, Tree
from trajplan.planners.tokens import predicted_value, read_prefix
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V, H, DISCOUNT = 2, 1, 4, 3, 0.9
J = S + A + 2
EAGER = {"widening": 4.0, "exploration": 5.0, "action_temperature": 3.0}
PRESENT = torch.tensor([[0.3, -0.6]])


def make(seed=0, window=8):
    torch.manual_seed(seed)
    config = TrajectoryTransformerConfig(
        observation_dim=S, action_dim=A, bins=V, window=window, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = 0.5
    data = np.random.default_rng(seed).uniform(-1, 1, (500, J)).astype(np.float32)
    return TrajectoryTransformer(config).eval(), fit_tokenizer("uniform", data, V)


class Slope:
    """A critic: how far along a line an observation lies; with goals, how near to one."""

    discount, has_q = DISCOUNT, False

    def __init__(self, needs_goals=False):
        self.needs_goals = needs_goals

    def values(self, observations, goals=None):
        if self.needs_goals:
            return -(observations - goals).abs().sum(-1)
        return observations @ torch.tensor([1.0, -0.5])


def plan(parts, seed=0, critic=None, goals=None, **settings):
    settings |= {"critic": "folder"} if critic else {}
    settings = {"context": 0, "horizon": H, "discount": DISCOUNT, "action_cdf": None, "kept": 4} | settings
    config = MCTSConfig(**settings)
    past = torch.zeros(1, config.context, S + A + 1)
    search = MCTS(*parts, config, critic=critic)
    return search.plan(PRESENT, past, [torch.Generator().manual_seed(seed)], goals)[1]


@torch.no_grad()
def foreseen(parts, actions, critic=None, goals=None, score="return"):
    """The return of a sequence of action tokens where all else is the model's likeliest, by whole forward passes."""
    model, tokenizer = parts
    tokens, total = read_prefix(model, tokenizer, PRESENT, torch.zeros(1, 0, S + A + 1))[1][0].tolist(), 0.0

    def logits():
        return model(torch.tensor([tokens])).logits[0, -1]

    for step, action in enumerate(actions):
        tokens.append(action)
        total += DISCOUNT**step * float(predicted_value(tokenizer, logits(), J - 2))
        tokens.append(int(logits().argmax()))
        return_to_go = float(predicted_value(tokenizer, logits(), J - 1))
        tokens.append(0)
        for dim in range(S):
            tokens.append(int(logits().argmax()))
            if dim == 0 and tokens[-1] == V:
                return total if score == "return" else 0.0
        if critic:
            observation = tokenizer.decode(torch.tensor(tokens[-S:]), slice(0, S))[None]
            return_to_go = float(critic.values(observation, goals))
    return total + DISCOUNT ** len(actions) * return_to_go if score == "return" else return_to_go


def best_of_all(parts, *scored):
    return max(itertools.product(range(V), repeat=H), key=lambda actions: foreseen(parts, actions, *scored))


def taken(parts, found):
    """The action tokens of the first trajectory, up to its end."""
    values = found.actions[0, 0, found.alive[0, 0]]
    return tuple(parts[1].encode(values, slice(S, S + A))[:, 0].tolist())


def test_with_more_simulations_it_finds_the_best_of_all_sequences():
    found = {20: 0, 2000: 0}
    for seed in range(4):
        parts = make(seed)
        best = best_of_all(parts)
        for simulations in found:
            got = taken(parts, plan(parts, simulations=simulations, **EAGER))
            found[simulations] += foreseen(parts, got) == pytest.approx(foreseen(parts, best), abs=1e-5)
    assert found[2000] == 4 > found[20]


@pytest.mark.parametrize("score", ["return", "value"])
@pytest.mark.parametrize("goals", [None, torch.tensor([[-0.6, 0.7]])])
def test_with_a_critic_it_finds_the_best_by_its_values(score, goals):
    parts, critic = make(2), Slope(goals is not None)
    found = plan(parts, critic=critic, goals=goals, score=score, simulations=2000, **EAGER)
    best = foreseen(parts, best_of_all(parts, critic, goals, score), critic, goals, score)
    got = foreseen(parts, taken(parts, found), critic, goals, score)
    assert float(found.scores[0, 0]) == pytest.approx(got, abs=1e-4)
    assert got == pytest.approx(best, abs=1e-4)


def test_a_critic_that_values_by_a_goal_wants_one():
    with pytest.raises(ConfigError, match="the episode has none"):
        plan(make(), critic=Slope(needs_goals=True))


def test_rewards_and_returns_are_the_models():
    parts = make(1)
    found = plan(parts, simulations=500)
    for k in range(found.scores.shape[1]):
        alive = found.alive[0, k]
        length = int(alive.sum())
        actions = parts[1].encode(found.actions[0, k, :length], slice(S, S + A))[:, 0].tolist()
        discounts = DISCOUNT ** torch.arange(length + 1)
        told = (found.rewards[0, k, :length] * discounts[:-1]).sum() + discounts[-1] * found.returns[0, k, length - 1]
        assert float(told) == pytest.approx(foreseen(parts, actions), abs=1e-4)


def test_the_score_is_the_return_of_the_best_path_and_the_actions_differ():
    parts = make()
    found = plan(parts, simulations=200, widening=4.0)
    assert len(found.actions[0, :, 0, 0].unique()) == 4
    for k in range(4):
        length = int(found.alive[0, k].sum())
        actions = parts[1].encode(found.actions[0, k, :length], slice(S, S + A))[:, 0].tolist()
        assert float(found.scores[0, k]) == pytest.approx(foreseen(parts, actions), abs=1e-4)


def test_few_actions_where_the_tree_widens_slowly():
    one = plan(make(), simulations=100, leaves=1, widening=1e-6, kept=3)
    assert len(one.actions[0, :, 0, 0].unique()) == 1


def test_plans_are_long_enough_to_be_acted_from():
    found = plan(make(3), simulations=2, horizon=6, replan_every=4)
    assert found.alive[0, :, :4].all()


def grown(parent, action, **values):
    parent.children[(action,)] = Node(action, 2, torch.zeros(S), parent, (action,), depth=1, **values)
    return parent.children[(action,)]


def test_walks_that_wait_count_against_a_branch_until_they_return():
    root = Node(9, 1, torch.zeros(S))
    tree = Tree(root, MCTSConfig(simulations=10, leaves=3, widening=1e-6))
    for action in range(2):
        root.waiting += 1
        tree.back_up(root, grown(root, action, reward=1.0 + action))
    assert (root.visits, root.value, tree.least, tree.greatest) == (2, 2.0, 1.0, 2.0)
    # The better branch twice; then the other, since the walks under way have brought nothing back yet.
    leaves = tree.leaves()
    assert [leaf.action for leaf in leaves] == [(1,), (1,), (0,)]
    assert root.waiting == 3
    for action, leaf in enumerate(leaves):
        tree.back_up(leaf, grown(leaf, action))
    assert [node.waiting for node in (root, *root.children.values())] == [0, 0, 0]
    assert root.visits == 5 == sum(child.visits for child in root.children.values())


def test_no_walk_goes_where_the_trajectory_has_ended():
    root = Node(9, 1, torch.zeros(S))
    tree = Tree(root, MCTSConfig(simulations=10, leaves=3, widening=1e-6))
    root.waiting += 1
    tree.back_up(root, grown(root, 0, reward=5.0, ended=True))
    assert tree.leaves() == [root, root, root]


def test_a_state_is_worth_its_best_action_and_not_the_first_guess():
    root = Node(9, 1, torch.zeros(S), waiting=1)
    tree = Tree(root, MCTSConfig(discount=0.5))
    child = grown(root, 0, reward=1.0, value=100.0)
    tree.back_up(root, child)
    assert root.value == 51.0
    for action, value in ((0, 2.0), (1, 4.0), (2, -8.0)):
        root.waiting, child.waiting = 1, 1
        tree.back_up(child, grown(child, action, value=value))
    assert (child.value, root.value) == (2.0, 2.0)


def test_actions_drawn_again_raise_the_prior_of_their_child():
    root = Node(9, 1, torch.zeros(S), visits=8)
    rare, common = grown(root, 0, draws=1, visits=1), grown(root, 1, draws=5, visits=1)
    tree = Tree(root, MCTSConfig())
    assert tree._upper_bound(root, common) == pytest.approx(5 * tree._upper_bound(root, rare))


@pytest.mark.parametrize(
    ("settings", "name"), [({"simulations": 0}, "simulations"), ({"widening_exponent": 1.5}, "widening_exponent")]
)
def test_settings_out_of_range_are_refused(settings, name):
    with pytest.raises(ConfigError, match=name):
        MCTSConfig(**settings)


def test_a_window_of_one_transition_is_refused():
    with pytest.raises(ConfigError, match="window of at least 2"):
        plan(make(window=1), horizon=1)
