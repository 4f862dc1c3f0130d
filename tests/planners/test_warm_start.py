import numpy as np
import pytest
import torch

from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.plan import Plan
from trajplan.planners.warm_start import NOTHING, what_is_left
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V, WINDOW, H, K = 2, 2, 9, 4, 6, 8
ACTIONS = slice(S, S + A)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=S, action_dim=A, bins=V, window=WINDOW, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = 0.3
    data = np.random.default_rng(0).uniform(-1, 1, (500, S + A + 2)).astype(np.float32)
    return TrajectoryTransformer(config).eval(), fit_tokenizer("uniform", data, V)


def planner(parts, **settings):
    return BeamSearch(*parts, BeamSearchConfig(**{"horizon": H, "beam_width": K, "context": 1} | settings))


def problem(batch, seed):
    random = torch.Generator().manual_seed(seed)
    generators = [torch.Generator().manual_seed(seed + row) for row in range(batch)]
    present = torch.rand(batch, S, generator=random) * 2 - 1
    return present, torch.rand(batch, 1, S + A + 1, generator=random) * 2 - 1, generators


def plan_of(tokens, alive, tokenizer):
    """A plan with action tokens (K, H, A), all else of no meaning."""
    empty = np.zeros(alive.shape, np.float32)
    actions = tokenizer.decode(torch.as_tensor(tokens), ACTIONS).numpy()
    return Plan(empty, actions, empty, empty, empty[:, 0], np.asarray(alive), empty[:, 0])


def test_what_is_left_are_the_best_trajectories_that_began_as_was_acted(parts):
    tokens = torch.arange(3 * 4 * A).view(3, 4, A) % V
    tokens[1, 0, 0] = 0  # Another first action: it was planned for another state.
    tokens[2, 0] = tokens[0, 0]
    alive = np.ones((3, 4), bool)
    alive[2, 3] = False
    left = what_is_left([None, plan_of(tokens, alive, parts[1])], 4, 4, 1, parts[1], ACTIONS)
    assert (left[0] == NOTHING).all()
    assert left[1, 0].tolist() == [*tokens[0, 1:].tolist(), [NOTHING] * A]
    assert left[1, 1].tolist() == [*tokens[2, 1:3].tolist(), [NOTHING] * A, [NOTHING] * A]
    assert (left[1, 2:] == NOTHING).all()


def test_a_plan_that_is_better_than_all_that_is_drawn_is_found_again(parts):
    # Draws are all but greedy here, so that a better plan is one that they do not hold.
    tokenizer = parts[1]
    narrow = {"action_cdf": 0.01, "horizon": 4, "replan_every": 1}
    present, past, generators = problem(1, 3)
    _, wide = planner(parts, horizon=4, beam_width=200, action_cdf=None, action_temperature=3.0).plan(
        present, past, generators
    )
    _, cold = planner(parts, **narrow).plan(present, past, generators)
    assert wide.scores[0, 0] > cold.scores[0, 0] + 0.1
    # A plan for one step earlier whose rest is the better plan, so that the present sees all of it but its last step.
    best = tokenizer.encode(wide.actions[0, :1], ACTIONS)
    before = torch.cat([torch.zeros(1, 1, A, dtype=torch.int64), best[:, :-1]], 1)
    last = plan_of(before, np.ones((1, 4), bool), tokenizer)
    _, warm = planner(parts, **narrow, warm_start=True).plan(present, past, generators, previous=[last])
    torch.testing.assert_close(warm.actions[0, 0, :2], wide.actions[0, 0, :2])
    assert warm.scores[0, 0] > cold.scores[0, 0] + 0.1


def test_a_batch_plans_as_single_environments_and_the_first_plan_as_a_cold_one(parts):
    search = planner(parts, warm_start=True, replan_every=2)
    _, plans = search.plan(*problem(3, 0))
    _, cold = planner(parts, replan_every=2).plan(*problem(3, 0))
    torch.testing.assert_close(plans.actions, cold.actions, atol=0, rtol=0)
    previous = [plans.row(0), None, plans.row(2)]
    present, past, generators = problem(3, 5)
    _, together = search.plan(present, past, generators, previous=previous)
    for row in range(3):
        one = slice(row, row + 1)
        generator = [torch.Generator().manual_seed(5 + row)]
        _, alone = search.plan(present[one], past[one], generator, previous=previous[one])
        torch.testing.assert_close(alone.actions[0], together.actions[row])
        torch.testing.assert_close(alone.scores[0], together.scores[row], atol=1e-4, rtol=1e-4)
    _, without = search.plan(*problem(3, 5))
    assert (together.scores[:, 0] - without.scores[:, 0]).abs()[[0, 2]].max() > 0
    torch.testing.assert_close(together.scores[1], without.scores[1])


def test_nothing_is_left_of_a_plan_that_was_acted_whole(parts):
    search = planner(parts, warm_start=True, replan_every=H)
    _, plans = search.plan(*problem(1, 0))
    _, again = search.plan(*problem(1, 1), previous=[plans.row(0)])
    _, cold = search.plan(*problem(1, 1))
    torch.testing.assert_close(again.actions, cold.actions, atol=0, rtol=0)
