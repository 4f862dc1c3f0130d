from dataclasses import make_dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trajplan.evaluation.pictures import fan
from trajplan.evaluation.pictures.plan_picture import maze_figure
from trajplan.evaluation.pictures.trace import Trace
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import evaluate
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.controller import PlanningPolicy
from trajplan.tokenizers.fit import fit_tokenizer


@pytest.fixture
def planned(point_maze, monkeypatch):
    """An episode of an untrained planner in a maze, and the contexts that it planned with by step."""
    monkeypatch.setattr(fan, "PATHS", 24)
    info, rng = point_maze, np.random.default_rng(0)
    joined = rng.uniform(-1.5, 1.5, (200, info.observation_dim + 2 + 2)).astype(np.float32)
    tokenizer = fit_tokenizer("uniform", joined, 20)
    torch.manual_seed(0)
    sizes = TrajectoryTransformerConfig(
        observation_dim=info.observation_dim, action_dim=2, bins=20, window=6, n_layer=1, n_head=2, n_embd=16
    )
    sizes.initializer_range = 0.3
    settings = BeamSearchConfig(horizon=3, beam_width=4, context=2, replan_every=3)
    policy = PlanningPolicy(BeamSearch(TrajectoryTransformer(sizes).eval(), tokenizer, settings), info)
    trace, contexts = Trace(policy), {}
    remember = lambda moment: contexts.update({moment.step: list(policy.episodes[0].past)})  # noqa: E731
    evaluate(policy, info.make_env, episodes=1, seed=3, observers=[trace, remember])
    return trace, contexts


def test_imagined_paths_fan_out_from_the_present(planned):
    trace, contexts = planned
    step = sorted(trace.plans)[2]
    assert step >= 6
    paths = fan.imagined_paths(trace, step)
    places = paths.observations[:, :, trace.maze.position]
    assert places.shape == (24, fan.HORIZON, 2)
    assert places[:, 0] == pytest.approx(np.tile(trace.observations[step][trace.maze.position], (24, 1)), abs=0.2)
    assert len(np.unique(paths.actions[:, 0], axis=0)) > 12  # they part at once; a search's beams share their past
    assert (np.diff(paths.scores) <= 0).all()
    again = fan.imagined_paths(trace, step)
    assert (again.observations == paths.observations).all()
    assert (fan._past(trace, step, 2) == torch.stack(contexts[step])).all()
    assert fan._past(trace, 0, 2).shape == (0, len(trace.observations[0]) + 2 + 1)


def test_any_planner_on_the_model_has_a_fan(planned):
    """One whose settings have no horizon and are not registered, too, and one that keeps no tokenizer has none."""
    trace, _ = planned
    of_model = trace.policy.planner
    plain = make_dataclass("Plain", ["context", "replan_every"])(2, 1)
    trace.policy.planner = SimpleNamespace(model=of_model.model, tokenizer=of_model.tokenizer, config=plain)
    assert fan.imagined_paths(trace, 0).observations.shape[:2] == (24, fan.HORIZON)
    trace.policy.planner = SimpleNamespace(model=of_model.model, config=plain)
    assert fan.imagined_paths(trace, 0) is None


def test_the_maze_picture_shows_the_fan_and_over_it_the_beam_that_is_acted_on(planned):
    trace, _ = planned
    figure = maze_figure(trace, panels=2)
    for axes, step in zip(figure.axes[:-1], (0, sorted(trace.plans)[-1]), strict=True):
        fanned = axes.collections[0].get_segments()
        assert len(fanned) == 24
        ends = np.array([path[-1] for path in fanned])
        assert ends.std(axis=0).min() > 0.1
        best = next(line for line in axes.lines if line.get_label() == "best beam").get_xydata()
        plan = trace.plans[step]
        assert best == pytest.approx(plan.observations[0, : plan.alive[0].sum(), :2])
        assert axes.collections[0].get_label() == "imagined paths"


def test_a_policy_without_such_a_model_has_no_fan(point_maze):
    assert fan.imagined_paths(Trace(RandomPolicy(point_maze)), 0) is None
