import dataclasses
import subprocess
import sys
import tempfile

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.scores import ReferenceScores
from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.environments import (
    check_environment,
    check_time_limit,
    environment_maker,
    quiet_simulators,
    reference_scores,
)


def test_makes_the_datasets_environment_or_the_one_named(cartpole):
    assert environment_maker(cartpole)().spec.id == "CartPole-v1"
    env = environment_maker(cartpole, "Pendulum-v1", max_episode_steps=7)()
    assert (env.spec.id, env.spec.max_episode_steps) == ("Pendulum-v1", 7)
    assert env.render_mode is None


def test_unknown_environment_names_the_extra(cartpole):
    with pytest.raises(DataError, match=r"'Nowhere-v3' is not registered.*trajplan\[mujoco\]"):
        environment_maker(cartpole, "Nowhere-v3")()


def test_missing_simulator_names_the_extra():
    script = """
import sys
for name in ("mujoco", "gymnasium_robotics"):
    sys.modules[name] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("mujoco", "gymnasium_robotics") else found(name, *rest)
from trajplan.evaluation.environments import environment_maker, quiet_simulators
from trajplan.errors import TrajplanError
from types import SimpleNamespace
with quiet_simulators():
    for name in ("Hopper-v5", "PointMaze_UMaze-v3"):
        try:
            environment_maker(SimpleNamespace(), name)()
        except TrajplanError as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("trajplan[mujoco]" in line for line in lines)


def test_missing_ogbench_names_its_extra():
    script = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ogbench" else found(name, *rest)
from trajplan.data.sources.ogbench import read_ogbench
from trajplan.errors import TrajplanError
import numpy as np, sys
rows = np.zeros((4, 2), np.float32)
path = sys.argv[1] + "/pointmaze-medium-stitch-v0.npz"
np.savez(path, observations=rows, actions=rows, terminals=np.arange(4) == 3)
try:
    read_ogbench(path)
except TrajplanError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", script, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert "'pointmaze-medium-v0' is not registered" in done.stdout
    assert "trajplan[ogbench]" in done.stdout


def test_fitting_environment_passes(cartpole, pendulum, point_maze):
    for info in (cartpole, pendulum, point_maze):
        check_environment(info.make_env(), info)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation_space": spaces.Box(-1, 1, (5,))}, r"observations are Box\(3,\), not Box\(5,\)"),
        ({"action_space": spaces.Discrete(2)}, r"actions are Box\(1,\), not Discrete\(2, start=0\)"),
        ({"action_space": spaces.Box(-1, 1, (1,))}, r"actions have the low bounds \[-2\.0\], not \[-1\.0\]"),
        ({"observation_space": spaces.Dict(a=spaces.Box(-1, 1, (3,)))}, r"observations are Box\(3,\), not Dict\(a\)"),
    ],
)
def test_other_spaces_are_refused(pendulum, change, words):
    with pytest.raises(ConfigError, match=f"Pendulum-v1 does not fit .*test/data-v0, .*: its {words}.*--env"):
        check_environment(pendulum.make_env(), dataclasses.replace(pendulum, **change))


def test_dictionaries_are_compared_key_by_key(point_maze):
    inner = {**point_maze.observation_space.spaces, "observation": spaces.Box(-1, 1, (6,))}
    changed = dataclasses.replace(point_maze, observation_space=spaces.Dict(inner))
    with pytest.raises(ConfigError, match=r"observations\['observation'\] are Box\(4,\), not Box\(6,\)"):
        check_environment(point_maze.make_env(), changed)


def test_unbounded_episodes_are_refused(cartpole):
    check_time_limit(cartpole.make_env())
    with pytest.raises(ConfigError, match="no time limit; give one by --max-episode-steps"):
        check_time_limit(gymnasium.make("CartPole-v1", max_episode_steps=-1))


def test_reference_scores_come_from_the_nearest_source(cartpole, pendulum):
    assert reference_scores(cartpole) == cartpole.reference
    assert reference_scores(cartpole, "CartPole-v1") == cartpole.reference
    assert reference_scores(cartpole, minimum=1.0, maximum=2.0) == ReferenceScores(1.0, 2.0, "command line")
    assert reference_scores(cartpole, "Hopper-v5").max == 3234.3
    assert reference_scores(cartpole, "Acrobot-v1") is None
    assert reference_scores(pendulum) is None
    assert reference_scores(dataclasses.replace(pendulum, env_spec=None)) is None
    with pytest.raises(ConfigError, match="both"):
        reference_scores(cartpole, minimum=1.0)


def test_simulator_warnings_are_counted_not_printed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with quiet_simulators() as warnings:
        env = gymnasium.make("HalfCheetah-v5")
        for seed in range(2):
            env.reset(seed=seed)
            env.unwrapped.data.qvel[:] = 1e15
            env.step(np.zeros(6, np.float32))
        gymnasium.logger.warn("something")
    assert warnings == {"Nan, Inf or huge value in QVEL at DOF 0": 2}
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
