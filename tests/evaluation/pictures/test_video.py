import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from trajplan.evaluation.pictures.video import VideoRecorder, open_mp4
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import evaluate


def read(path):
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]


class Planning(RandomPolicy):
    """A random policy with made-up plans."""

    def __init__(self, info, make_plan):
        super().__init__(info)
        self.make_plan = make_plan
        self.last_plans = {}

    def act(self, observations, rewards, rows):
        for observation, row in zip(observations, rows, strict=True):
            self.last_plans[row] = self.make_plan(observation, self.info)
        return super().act(observations, rewards, rows)


def test_films_the_first_episodes_of_a_maze_without_rendering(point_maze, make_plan, tmp_path):
    policy = Planning(point_maze, make_plan)
    recorder = VideoRecorder(policy, tmp_path / "videos", episodes=2)
    found = evaluate(policy, point_maze.make_env, episodes=3, num_envs=2, observers=[recorder])
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["episode-000.mp4", "episode-001.mp4"]
    assert sorted(recorder.written) == sorted((tmp_path / "videos").iterdir())
    meta, frames = read(tmp_path / "videos" / "episode-000.mp4")
    # 50 steps a second are filmed every other step, and so is the last state.
    assert len(frames) == found.episodes[0].length // 2 + 1
    assert meta["fps"] == 25
    assert frames[0].std() > 20


def test_filming_changes_nothing(point_maze, tmp_path):
    policy = RandomPolicy(point_maze)
    plain = evaluate(policy, point_maze.make_env, episodes=2).episodes
    recorder = VideoRecorder(policy, tmp_path)
    assert evaluate(policy, point_maze.make_env, episodes=2, observers=[recorder]).episodes == plain


def test_other_environments_are_filmed_as_they_render(pendulum, tmp_path):
    class Grey(gymnasium.Wrapper):
        def render(self):
            return np.full((61, 83, 3), 100, np.uint8)

    policy = RandomPolicy(pendulum)
    recorder = VideoRecorder(policy, tmp_path, episodes=1)
    evaluate(policy, lambda: Grey(pendulum.make_env(max_episode_steps=12)), episodes=1, observers=[recorder])
    _, frames = read(tmp_path / "episode-000.mp4")
    assert len(frames) == 13
    assert frames[0].shape == (60, 82, 3)
    assert abs(frames[0].mean() - 100) < 3


def test_an_interrupted_film_leaves_nothing(point_maze, tmp_path):
    policy = RandomPolicy(point_maze)
    recorder, seen = VideoRecorder(policy, tmp_path), []

    def interrupt(moment):
        seen.append(moment)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(policy, point_maze.make_env, episodes=1, observers=[recorder, interrupt])
    assert [path.name for path in tmp_path.iterdir()] == ["episode-000.partial.mp4"]
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_mp4_keeps_frames_in_order(tmp_path):
    writer = open_mp4(tmp_path / "a.mp4", 64, 48, 20)
    for brightness in (20, 120, 220):
        writer.send(np.full((48, 64, 3), brightness, np.uint8))
    writer.close()
    _, frames = read(tmp_path / "a.mp4")
    assert [round(frame.mean() / 100, 1) for frame in frames] == pytest.approx([0.2, 1.2, 2.2], abs=0.11)
