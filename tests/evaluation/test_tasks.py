"""Environments of several tasks and goals: tasks take turns, goals reach the policy, seeds decide everything."""

import dataclasses
import json
from types import SimpleNamespace

import gymnasium
import numpy as np
import ogbench  # noqa: F401
import pytest
from gymnasium import spaces

from trajplan.baselines.engine.settings import RunConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.evaluating import evaluate as evaluate_policy
from trajplan.evaluation.during_training import evaluation_for
from trajplan.evaluation.environments import OwnGenerator, check_environment, environment_maker, tasks_of
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.report import EvaluationFile
from trajplan.evaluation.rollout import evaluate, goal_at_reset


def info_of(env_id, goal_columns=(0, 1)):
    with gymnasium.make(env_id) as env:
        return DatasetInfo("toy/maze-v0", env.observation_space, env.action_space, env.spec, goal_columns=goal_columns)


class Straight:
    """Goes straight for the goal that it was told; remembers what it was told by episode's seed."""

    def __init__(self, info):
        self.info, self.goals, self.told = info, {}, {}

    def reset(self, seeds, rows, goals=None):
        assert goals is None or (goals.dtype == np.float32 and goals.shape == (len(rows), 2))
        for i, (seed, row) in enumerate(zip(seeds, rows, strict=True)):
            self.goals[row] = self.told[seed] = None if goals is None else goals[i]

    def act(self, observations, rewards, rows):
        ways = [
            np.zeros(2) if self.goals[r] is None else self.goals[r] - o for r, o in zip(rows, observations, strict=True)
        ]
        return np.clip(ways, -1, 1).astype(np.float32)


def test_tasks_take_turns_and_each_policy_hears_its_goal(goal_maze):
    info = info_of(goal_maze)
    policy = Straight(info)
    episodes = evaluate(policy, environment_maker(info), episodes=7, num_envs=3, tasks=[3, 1], seed=5).episodes
    assert [episode.task for episode in episodes] == [3, 1, 3, 1, 3, 1, 3]
    for episode in episodes:
        np.testing.assert_allclose(policy.told[5 + episode.episode], [(8.0, 0.0), None, (0.1, 0.0)][episode.task - 1])
        assert episode.success
        assert episode.terminated
    # Task 3 is reached by the first step, task 1 needs some fifteen.
    assert {e.length for e in episodes if e.task == 3} == {1}
    assert all(13 <= e.length <= 16 for e in episodes if e.task == 1)


@pytest.mark.parametrize("env_id", ["toy", "pointmaze-medium-v0", "pointmaze-teleport-v0"])
def test_episodes_depend_on_their_seed_alone(goal_maze, env_id):
    info = info_of(goal_maze if env_id == "toy" else env_id)
    runs, starts = [], []
    for num_envs, episodes in ((1, 6), (4, 6), (3, 9)):
        np.random.seed(num_envs)  # noqa: NPY002
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        policy = RandomPolicy(info)
        seen = {}

        def watch(moment, seen=seen):
            seen.setdefault(moment.episode, []).append(moment.observation)

        make_env = environment_maker(info, max_episode_steps=15)
        results = evaluate(policy, make_env, episodes=episodes, num_envs=num_envs, tasks=[1, 2], observers=[watch])
        runs.append([dataclasses.astuple(episode) for episode in results.episodes][:6])
        starts.append([np.array(seen[n]) for n in range(6)])
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert runs[0] == runs[1] == runs[2]
    for paths in zip(*starts, strict=True):
        np.testing.assert_array_equal(paths[0], paths[1])
        np.testing.assert_array_equal(paths[0], paths[2])
    assert len({path[0].tobytes() for path in starts[0]}) == 6


def test_without_goals_in_the_data_none_is_told(goal_maze):
    info = info_of(goal_maze, goal_columns=None)

    class Simple(RandomPolicy):
        def reset(self, seeds, rows):
            super().reset(seeds, rows)

    episodes = evaluate(Simple(info), environment_maker(info), episodes=2, tasks=[1]).episodes
    assert [episode.length for episode in episodes] == [20, 20]


def test_a_goal_is_read_from_wherever_the_environment_says_it():
    box = spaces.Box(-np.inf, np.inf, (3,))
    plain = DatasetInfo("a-v0", box, box, goal_columns=(2, 0))
    zero = np.zeros(3)
    assert goal_at_reset(plain, zero, {"goal": np.array([1.0, 2.0, 3.0])}).tolist() == [3.0, 1.0]
    assert goal_at_reset(plain, zero, {"goal": np.array([4.0, 5.0])}).tolist() == [4.0, 5.0]
    assert goal_at_reset(plain, zero, {}) is None
    assert goal_at_reset(dataclasses.replace(plain, goal_columns=None), zero, {"goal": zero}) is None
    parts = spaces.Dict({"achieved_goal": spaces.Box(-1, 1, (2,)), "observation": box})
    apart = DatasetInfo("b-v0", parts, box, goal_columns=(0, 1))
    observation = {"achieved_goal": np.zeros(2), "observation": zero, "desired_goal": np.array([0.5, 0.25])}
    goal = goal_at_reset(apart, observation, {})
    assert (goal.dtype, goal.tolist()) == (np.float32, [0.5, 0.25])


def test_tasks_are_those_of_the_environment(goal_maze):
    with gymnasium.make(goal_maze) as env:
        assert tasks_of(env) == [1, 2, 3]
        assert tasks_of(env, [3, 1]) == [3, 1]
        for wrong in ([0], [4], [1, 1], []):
            with pytest.raises(ConfigError, match="has the tasks 1 to 3"):
                tasks_of(env, wrong)
    for other in ("openmaze-tiny-singletask-task2-v0", "Pendulum-v1"):
        with gymnasium.make(other) as env:
            assert tasks_of(env) is None
            with pytest.raises(ConfigError, match="has no tasks"):
                tasks_of(env, [1])


def test_the_report_counts_by_task_and_resumes(goal_maze, tmp_path):
    info = info_of(goal_maze)
    evaluation = evaluate_policy(Straight(info), episodes=2, num_envs=4, output=tmp_path, progress=False)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["num_episodes"], report["tasks"]) == (6, [1, 2, 3])
    assert [entry["task"] for entry in report["episodes"]] == [1, 2, 3, 1, 2, 3]
    assert report["summary"]["success_rate"] == 1.0
    assert {task: found["episodes"] for task, found in report["summary"]["tasks"].items()} == {"1": 2, "2": 2, "3": 2}
    assert report["summary"]["tasks"]["3"] == {"episodes": 2, "success_rate": 1.0, "mean_return": 1.0, "mean_length": 1}
    text = str(evaluation)
    assert "success           100.0 % of episodes" in text
    assert "task 3           100.0 % of 2, mean length 1" in text
    # What is there counts where the tasks are the same.
    settings = {name: report[name] for name in report if name not in ("complete", "episodes", "summary", "timing")}
    more = EvaluationFile(tmp_path / "evaluation.json", settings | {"num_episodes": 9}, None)
    assert [episode.task for episode in more.resume()] == [1, 2, 3, 1, 2, 3]
    fewer = EvaluationFile(tmp_path / "evaluation.json", settings | {"tasks": [1, 2]}, None)
    with pytest.raises(ConfigError, match="differs in tasks"):
        fewer.resume()


def test_failures_count_as_failures(goal_maze):
    evaluation = evaluate_policy(RandomPolicy(info_of(goal_maze)), episodes=3, tasks=[1, 3], progress=False)
    tasks = evaluation.summary["tasks"]
    assert tasks["1"]["success_rate"] == 0.0
    assert tasks["1"]["mean_length"] == 20
    assert evaluation.summary["success_rate"] == np.mean([tasks[task]["success_rate"] for task in ("1", "3")])


def test_a_dict_environment_may_say_a_goal_that_the_data_leave_out(goal_maze):
    box = spaces.Box(-np.inf, np.inf, (2,))

    class Apart(gymnasium.ObservationWrapper):
        def __init__(self):
            super().__init__(gymnasium.make(goal_maze).unwrapped)
            keys = ("achieved_goal", "desired_goal", "observation")
            self.observation_space = spaces.Dict(dict.fromkeys(keys, box))

        def observation(self, observation):
            parts = {"observation": observation, "achieved_goal": observation}
            return parts | {"desired_goal": self.unwrapped.cur_goal_xy}

        def reset(self, **options):
            return super().reset(**options)[0], {}

    known = spaces.Dict({"achieved_goal": box, "observation": box})
    info = DatasetInfo("toy/apart-v0", known, spaces.Box(-1, 1, (2,)), goal_columns=(0, 1))

    class FirstTwo(Straight):
        def act(self, observations, rewards, rows):
            assert observations.shape[1] == 4
            return super().act(observations[:, :2], rewards, rows)

    def make_env():
        return gymnasium.wrappers.TimeLimit(OwnGenerator(Apart()), 20)

    check_environment(make_env(), info)
    with pytest.raises(ConfigError, match="its observations are Dict"):
        check_environment(make_env(), dataclasses.replace(info, goal_columns=None))
    episodes = evaluate(FirstTwo(info), make_env, episodes=3, num_envs=2, tasks=[1, 2, 3]).episodes
    assert all(episode.success for episode in episodes)


def test_training_is_evaluated_over_all_tasks_in_turns(goal_maze):
    length = 3
    episode = {"observations": np.zeros((length + 1, 2)), "actions": np.zeros((length, 2)), "rewards": np.zeros(length)}
    episode |= {"terminations": np.zeros(length), "truncations": np.zeros(length)}
    dataset = OfflineDataset.from_episodes([episode], env_spec=goal_maze, goal_columns=(0, 1))

    class Lost(Straight):
        """Finds the way to the second goal and the near third, but not to the first."""

        def reset(self, seeds, rows, goals=None):
            super().reset(seeds, rows, np.where(goals[:, :1] > 5, np.float32(0), goals))

        def predicted_values(self, observations):
            return None

    measure = evaluation_for(dataset, SimpleNamespace(), RunConfig(eval_episodes=6))
    numbers = measure(Lost(dataset.info))
    assert numbers["success"] == pytest.approx(4 / 6)
    assert numbers["return"] == pytest.approx(4 / 6)
    assert numbers["length"] > 40 / 6
