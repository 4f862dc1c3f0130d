"""A small world of goals from end to end: data, training, checkpoints and acting for a goal given at reset."""

import numpy as np
import pytest
from gymnasium import spaces

import trajplan
from trajplan.data.dataset import OfflineDataset
from trajplan.hub import load_policy
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.imitation import ImitationConfig

STEP, STEPS, NEAR = 0.25, 10, 0.2
GOALS = np.array([[-0.8], [-0.4], [0.4], [0.8]], np.float32)


@pytest.fixture(autouse=True)
def alike_on_all_machines(one_thread):
    """Every test here runs on one thread."""


def move(places, actions):
    """One step of the world, a line from -1 to 1."""
    return np.clip(places + STEP * np.clip(actions, -1, 1), -1, 1).astype(np.float32)


def walks(count=300):
    """Noisy walks to places that the data do not name, and staying there."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        target, places, actions = rng.uniform(-1, 1), [rng.uniform(-1, 1, 1).astype(np.float32)], []
        for _ in range(STEPS):
            wanted = (target - places[-1]) / STEP + rng.normal(0, 0.3)
            actions.append(np.clip(wanted, -1, 1).astype(np.float32))
            places.append(move(places[-1], actions[-1]))
        yield {
            "observations": np.stack(places),
            "actions": np.stack(actions),
            "rewards": np.zeros(STEPS, np.float32),
            "terminations": np.zeros(STEPS, bool),
            "truncations": np.arange(STEPS) == STEPS - 1,
        }


@pytest.fixture(scope="module")
def world():
    box = spaces.Box(-1, 1, (1,), np.float32)
    return OfflineDataset.from_episodes(walks(), id="world", observation_space=box, action_space=box, goal_columns=[0])


def reached(policy):
    """For how many of the goals an episode from the middle ends near it."""
    rows = np.arange(len(GOALS))
    places, rewards = np.zeros_like(GOALS), np.zeros(len(GOALS), np.float32)
    policy.reset(rows, rows, GOALS)
    for _ in range(STEPS):
        places = move(places, policy.act(places, rewards, rows))
    return int((np.abs(places - GOALS) < NEAR).sum())


@pytest.mark.parametrize("method", ["gcbc", "gcivl"])
def test_methods_for_goals_reach_them(world, tmp_path, method):
    run = {"updates": 500, "batch_size": 128, "eval_every": 0, "hidden_layers": 2, "hidden_width": 64}
    trajplan.baseline(method, world, tmp_path, device="cpu", progress=False, **run)
    assert reached(load_policy(tmp_path, device="cpu")) == len(GOALS)


SMALL = {
    **{"n_layer": 1, "n_head": 2, "n_embd": 32, "bins": 20, "window": 4, "updates": 300, "batch_size": 32},
    **{"learning_rate": 5e-3, "held_out": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
}


def test_a_transformer_reaches_goals_where_it_reads_them(world, tmp_path):
    for name, goal in (("aiming", "all"), ("blind", None)):
        trajplan.train(world, tmp_path / name, "tt_debug", device="cpu", context=1, goal=goal, **SMALL)
    greedy, beam = ImitationConfig(context=1), BeamSearchConfig(context=1, horizon=2, beam_width=16, n_expand=2)
    likely = ImitationConfig(context=1, horizon=3, beam_width=8)
    for planner in (greedy, likely, beam):
        assert reached(load_policy(tmp_path / "aiming", device="cpu", planner=planner)) >= 3
    # From one start and without the goal, every episode goes the same way.
    assert reached(load_policy(tmp_path / "blind", device="cpu", planner=greedy)) <= 1
