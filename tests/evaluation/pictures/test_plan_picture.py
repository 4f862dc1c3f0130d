import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from trajplan.errors import DataError
from trajplan.evaluation.pictures.plan_picture import maze_figure, prediction_figure, save_figure, save_plan_picture
from trajplan.evaluation.pictures.trace import Trace
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import evaluate


class Planning(RandomPolicy):
    """A random policy that makes up a plan every few steps."""

    def __init__(self, info, make_plan, replan_every=1):
        super().__init__(info)
        self.make_plan = make_plan
        self.replan_every = replan_every
        self.last_plans = {}
        self.steps = 0

    def act(self, observations, rewards, rows):
        if self.steps % self.replan_every == 0:
            for observation, row in zip(observations, rows, strict=True):
                self.last_plans[row] = self.make_plan(observation, self.info, seed=self.steps)
        self.steps += 1
        return super().act(observations, rewards, rows)


def trace_of(info, make_plan, **options):
    policy = Planning(info, make_plan, **options)
    trace = Trace(policy)
    evaluate(policy, info.make_env, episodes=1, seed=1, observers=[trace])
    return trace


def test_trace_remembers_an_episode(pendulum, make_plan):
    trace = trace_of(pendulum, make_plan)
    assert len(trace.observations) == 201
    assert len(trace.actions) == len(trace.rewards) == 200
    assert sorted(trace.plans) == list(range(0, 200, 10))
    for step, plan in trace.plans.items():
        assert plan.observations[0, 0] == pytest.approx(trace.observations[step])


def test_trace_dates_a_plan_to_the_step_it_was_made_at(pendulum, make_plan):
    trace = trace_of(pendulum, make_plan, replan_every=4)
    assert sorted(trace.plans)[:4] == [0, 12, 24, 36]
    for step, plan in trace.plans.items():
        assert plan.observations[0, 0] == pytest.approx(trace.observations[step])


def test_trace_keeps_to_its_episode(cartpole, make_plan):
    policy = Planning(cartpole, make_plan)
    trace = Trace(policy, episode=2)
    found = evaluate(policy, cartpole.make_env, episodes=4, num_envs=3, observers=[trace])
    assert len(trace.rewards) == found.episodes[2].length
    assert trace.maze is None


def test_maze_picture_shows_plans_until_the_goal(point_maze, make_plan, tmp_path):
    trace = trace_of(point_maze, make_plan)
    figure = maze_figure(trace)
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["step 0", "step 10", "step 20"]
    for axes, step in zip(figure.axes[:-1], (0, 10, 20), strict=True):
        plan = trace.plans[step]
        beams = axes.collections[0].get_segments()
        assert len(beams) == len(plan.scores)
        best = next(line for line in axes.lines if line.get_label() == "best beam")
        lengths = plan.alive.sum(axis=1)
        assert best.get_xydata() == pytest.approx(plan.observations[0, : lengths[0], :2])
        walked = next(line for line in axes.lines if line.get_label() == "walked")
        assert walked.get_xydata() == pytest.approx(np.array(trace.observations)[: step + 1, :2])
        assert axes.get_xlim() == (-2.5, 2.5)
    trace.observations[15] = trace.observations[15].copy()
    trace.observations[15][trace.maze.position] = trace.observations[15][trace.maze.goal]
    assert [axes.get_title() for axes in maze_figure(trace).axes[:-1]] == ["step 0", "step 10"]
    save_plan_picture(trace, point_maze, tmp_path / "deep" / "plan.png")
    assert np.asarray(Image.open(tmp_path / "deep" / "plan.png")).std() > 20


def test_prediction_picture_lays_plans_over_what_happened(pendulum, make_plan, tmp_path):
    trace = trace_of(pendulum, make_plan)
    figure = prediction_figure(trace, pendulum)
    titles = [axes.get_title() for axes in figure.axes]
    assert set(titles) == {"observation[0]", "observation[1]", "observation[2]", "reward"}
    assert titles[0] == "observation[2]"  # the speed varies most
    speed = figure.axes[0]
    realised = next(line for line in speed.lines if line.get_label() == "realised")
    steps, values = realised.get_xydata().T
    assert values == pytest.approx([trace.observations[int(step)][2] for step in steps])
    predicted = [line for line in speed.lines if line.get_linestyle() == "--"]
    assert len(predicted) == 4
    for line in predicted:
        steps, values = line.get_xydata().T
        plan = trace.plans[int(steps[0])]
        length = plan.alive[0].sum()  # scores are sorted: the first beam is the best
        assert values == pytest.approx(plan.observations[0, :length, 2])
    rewards = next(line for line in figure.axes[3].lines if line.get_label() == "realised").get_xydata()
    assert rewards[:, 1] == pytest.approx([trace.rewards[int(step)] for step in rewards[:, 0]])
    save_figure(figure, tmp_path / "plan.png")
    assert np.asarray(Image.open(tmp_path / "plan.png")).std() > 20


def test_wide_observations_are_limited_to_what_varies_most(pendulum, make_plan):
    trace = trace_of(pendulum, make_plan)
    scales = np.linspace(0.1, 10.0, 39)
    trace.observations = [np.sin(step + np.arange(39)) * scales for step in range(201)]
    for plan in trace.plans.values():
        plan.observations = np.zeros((16, 10, 39))
    wide = dataclasses.replace(pendulum, observation_space=spaces.Box(-np.inf, np.inf, (39,)))
    titles = [axes.get_title() for axes in prediction_figure(trace, wide).axes]
    assert len(titles) == 12
    assert titles[-1] == "reward"
    assert {int(title[12:-1]) for title in titles[:-1]} <= set(range(22, 39))
    chosen = prediction_figure(trace, wide, dimensions=[5, 0])
    assert [axes.get_title() for axes in chosen.axes] == ["observation[5]", "observation[0]", "reward"]
    with pytest.raises(DataError, match="no observation column 99"):
        prediction_figure(trace, wide, dimensions=[0, 99])


def test_a_trace_without_plans_says_so(pendulum):
    trace = Trace(RandomPolicy(pendulum))
    evaluate(trace.policy, pendulum.make_env, episodes=1, observers=[trace])
    with pytest.raises(DataError, match="no plan to draw"):
        prediction_figure(trace, pendulum)
