from functools import partial

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from trajplan.data.info import DatasetInfo
from trajplan.evaluation.pictures.imagined import Imagination, imagined_states, skipped_positions
from trajplan.evaluation.pictures.video import VideoRecorder
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import Moment, evaluate

LEFT_OUT = {
    "Hopper-v5": 1,
    "Hopper-v4": 1,
    "HalfCheetah-v5": 1,
    "Walker2d-v5": 1,
    "Ant-v5": 2,
    "Humanoid-v5": 2,
    "Swimmer-v5": 2,
    "InvertedPendulum-v5": 0,
    "Reacher-v5": None,
    "Pendulum-v1": None,
}


def walk(env, steps, seed=0):
    """Observations (steps + 1, S) float32, and the root's coordinates (steps + 1, 2)."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations, places = [observation], [env.unwrapped.data.qpos[:2].copy()]
    for _ in range(steps):
        observations.append(env.step(0.3 * env.action_space.sample())[0])
        places.append(env.unwrapped.data.qpos[:2].copy())
    return np.array(observations, np.float32), np.array(places)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_state_gives_the_observation_that_it_was_made_of(name):
    env, other = gymnasium.make(name), gymnasium.make(name)
    first, _ = env.reset(seed=0)
    assert skipped_positions(env, np.float32(first)) == LEFT_OUT[name]
    if LEFT_OUT[name] is None:
        return
    observations, places = walk(env, 12)
    other.reset(seed=5)
    simulator, skipped = other.unwrapped, LEFT_OUT[name]
    size = (simulator.model.nq, simulator.model.nv)
    qpos, qvel = imagined_states(observations, places[0, :skipped], size, simulator.dt)
    told = sum(size) - skipped
    for step, observation in enumerate(observations):
        simulator.set_state(qpos[step], qvel[step])
        assert simulator._get_obs()[:told] == pytest.approx(observation[:told], rel=1e-5, abs=1e-5)
    # The root is where it was, but for what happens within a step.
    moved = np.abs(np.diff(places[:, :skipped], axis=0)).sum(0)
    assert (np.abs(qpos[:, :skipped] - places[:, :skipped]).max(0) <= 0.25 * moved + 0.01).all()


@pytest.fixture
def hopper():
    env = gymnasium.make("Hopper-v5")
    return DatasetInfo(
        id="test/hopper-v0",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        num_transitions=1,
        num_episodes=1,
    )


def test_a_plan_is_followed_to_its_end_and_then_the_newest_one(hopper, make_plan):
    env = hopper.make_env()
    observations, places = walk(env, 20)
    env.reset(seed=0)
    imagination, shown = None, []
    for step in range(16):
        env.unwrapped.data.qpos[0] = places[step, 0]
        moment = Moment(0, 0, step, env, observations[step], np.zeros(3, np.float32), 0.0)
        if imagination is None:
            imagination = Imagination(moment, 1)
        plan = make_plan(observations[step], hopper, horizon=6, seed=step)
        plan.observations[0] = observations[step] + step  # tells plans apart
        plan.alive[0] = np.arange(6) < (6 if step == 0 else 4)
        imagination.follow(moment, plan if step % 3 == 0 else imagination._newest)
        shown.append((imagination._begun, imagination.positions[0, 0] == places[imagination._begun, 0]))
        assert len(imagination.positions) == (6 if imagination._begun == 0 else 4)
    imagination.close()
    # Six steps of the plan of step 0; four of that of step 6; at step 10 the newest is that of step 9, to its end.
    assert shown == [(0, True)] * 6 + [(6, True)] * 4 + [(9, True)] * 3 + [(12, True)] * 3


class Planning(RandomPolicy):
    """Plans that nothing moves, every third step."""

    def __init__(self, info, make_plan):
        super().__init__(info)
        self.make_plan, self.last_plans, self.steps = make_plan, {}, 0

    def act(self, observations, rewards, rows):
        if self.steps % 3 == 0:
            plan = self.make_plan(observations[0], self.info, horizon=9, position=slice(5, 7))
            plan.alive[:] = True
            plan.observations[0] = observations[0]
            self.last_plans[rows[0]] = plan
        self.steps += 1
        return super().act(observations, rewards, rows)


@pytest.fixture
def heights(monkeypatch):
    """In place of OpenGL: a frame as bright as the torso is high."""

    def render(env):
        return np.full((96, 96, 3), np.clip(100 * env.data.qpos[1], 0, 255), np.uint8)

    monkeypatch.setattr(MujocoEnv, "render", render)


def brightness(path):
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    assert (width, height) == (192, 96)
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]
    return np.array([[frame[30:, :90].mean(), frame[30:, 100:].mean()] for frame in frames])


def test_what_was_imagined_stands_beside_what_happened(hopper, make_plan, heights, tmp_path):
    recorder, noted = VideoRecorder(Planning(hopper, make_plan), tmp_path, episodes=1), []
    observers = [recorder, lambda moment: noted.append(moment.observation[0])]
    make_env = partial(hopper.make_env, render_mode="rgb_array", max_episode_steps=24)
    evaluate(recorder.policy, make_env, episodes=1, observers=observers)
    recorder.close()
    found = brightness(tmp_path / "episode-000.mp4") / 100
    filmed = [*range(0, len(noted) - 1, 4), len(noted) - 1]  # 125 steps a second
    assert len(found) == len(filmed)
    for (happened, imagined), step in zip(found, filmed, strict=True):
        assert happened == pytest.approx(noted[step], abs=0.03)
        assert imagined == pytest.approx(noted[step - step % 9], abs=0.03)  # as high as when its plan was made
    assert recorder.notes == set()


@pytest.mark.filterwarnings("ignore")
def test_environments_whose_state_is_not_known_are_filmed_alone_and_that_is_said(make_plan, heights, tmp_path):
    env = gymnasium.make("Reacher-v5")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    info = DatasetInfo(id="test/reacher-v0", env_spec=env.spec, num_transitions=1, num_episodes=1, **spaces)
    recorder = VideoRecorder(Planning(info, make_plan), tmp_path, episodes=1)
    make_env = partial(info.make_env, render_mode="rgb_array", max_episode_steps=3)
    evaluate(recorder.policy, make_env, episodes=1, observers=[recorder])
    assert next(imageio_ffmpeg.read_frames(str(recorder.written[0])))["size"] == (96, 96)
    assert recorder.notes == {
        "Reacher-v5 is filmed without its plans: its observations are not known to tell its state"
    }
