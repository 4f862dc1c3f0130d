import json

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.evaluation.rollout import evaluate
from trajplan.hub import load, load_policy
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.imitation import ImitationConfig
from trajplan.planners.settings import save_planner
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.checkpoint import save_model_folder
from trajplan.training.config import TrainConfig

PLANNER = BeamSearchConfig(horizon=2, beam_width=4, n_expand=2, context=2)


def random_episodes(env, count):
    for seed in range(count):
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        steps, observations, done = [], [observation], False
        while not done:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            steps.append((action, float(reward), terminated, truncated))
            observations.append(observation)
            done = terminated or truncated
        actions, rewards, terminations, truncations = map(np.array, zip(*steps, strict=True))
        if isinstance(observation, dict):
            observations = {key: np.stack([o[key] for o in observations]) for key in observation}
        else:
            observations = np.stack(observations)
        yield {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminations": terminations,
            "truncations": truncations,
        }


def make_checkpoint(folder, env, reference=None, goal_columns=None):
    """A checkpoint of an untrained model: it plans as honestly as a trained one, only worse."""
    dataset = OfflineDataset.from_episodes(
        random_episodes(env, 4),
        id="test/random-v0",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        reference=reference,
        goal_columns=goal_columns,
    )
    info, joined = dataset.info, np.asarray(dataset.joined())
    discrete = [None] * info.observation_dim + [info.num_actions] * info.action_dim + [None, None]
    tokenizer = fit_tokenizer("quantile", joined, 8, discrete)
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=info.observation_dim,
        action_dim=info.action_dim,
        bins=8,
        window=4,
        n_layer=1,
        n_head=2,
        n_embd=16,
        bin_counts=tokenizer.sizes.tolist(),
    )
    train = TrainConfig(n_layer=1, n_head=2, n_embd=16, bins=8, window=4)
    save_model_folder(folder, TrajectoryTransformer(config), tokenizer, info, train)
    save_planner(folder, PLANNER)
    env.close()
    return folder


@pytest.fixture
def cartpole(tmp_path):
    reference = ReferenceScores(10.0, 110.0, "test")
    return make_checkpoint(tmp_path / "cartpole", gymnasium.make("CartPole-v1"), reference)


@pytest.fixture
def maze(tmp_path):
    from trajplan.data.environment import make_environment

    return make_checkpoint(tmp_path / "maze", make_environment("PointMaze_UMaze-v3", max_episode_steps=20))


def report(folder):
    return json.loads((folder / "evaluation.json").read_text())


def run(*words):
    return main(["evaluate", *map(str, words), "--device", "cpu"])


def test_writes_table_and_file(cartpole, capsys):
    assert run(cartpole, "--episodes", 5, "--num-envs", 2, "--seed", 7) == 0
    written, printed = report(cartpole), capsys.readouterr().out
    assert written["complete"] is True
    assert [entry["seed"] for entry in written["episodes"]] == [7, 8, 9, 10, 11]
    assert written["environment"] == {"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": 500}
    assert written["planner"]["horizon"] == 2
    assert {"gymnasium", "trajplan", "torch", "mujoco"} <= written["versions"].keys()
    assert len(written["model_sha256"]) == 64
    for entry in written["episodes"]:
        assert entry["return"] == entry["length"]  # CartPole pays one for every step
        assert entry["normalized_score"] == pytest.approx(entry["return"] - 10)
    data = written["dataset"]
    assert data["id"] == "test/random-v0"
    assert data["mean_normalized_score"] == pytest.approx(data["mean_return"] - 10)
    assert f"mean {written['summary']['return']['mean']:.2f}" in printed
    assert "test/random-v0" in printed


def test_results_are_those_of_the_python_functions(cartpole):
    assert run(cartpole, "--episodes", 4, "--num-envs", 3) == 0
    written = [entry["return"] for entry in report(cartpole)["episodes"]]
    policy = load_policy(cartpole, device="cpu")
    found = evaluate(policy, policy.info.make_env, episodes=4, num_envs=1)
    assert written == [episode.total_reward for episode in found.episodes]

    controller, env, returns = load(cartpole, device="cpu"), gymnasium.make("CartPole-v1"), []
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        controller.reset(seed=seed)
        reward, done, total = None, False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(controller.act(observation, reward))
            done, total = terminated or truncated, total + reward
        returns.append(total)
    assert written == returns
    assert controller.plan.observations.shape[2] == 4


def test_planner_settings_can_be_overridden_one_by_one(cartpole):
    assert run(cartpole, "--episodes", 1, "--beam-width", 2, "--action-cdf", "none") == 0
    planner = report(cartpole)["planner"]
    assert (planner["beam_width"], planner["action_cdf"], planner["horizon"]) == (2, None, 2)


def test_reference_scores_can_be_overridden(cartpole, capsys):
    assert run(cartpole, "--episodes", 1, "--reference-min", 0, "--reference-max", 50) == 0
    entry = report(cartpole)["episodes"][0]
    assert entry["normalized_score"] == pytest.approx(2 * entry["return"])
    assert report(cartpole)["reference"]["source"] == "command line"
    assert run(cartpole, "--reference-min", 0) == 2
    assert "give both" in capsys.readouterr().err


def test_other_environment_is_checked_before_anything_runs(cartpole, capsys):
    assert run(cartpole, "--env", "Pendulum-v1") == 2
    assert "Pendulum-v1 does not fit dataset" in capsys.readouterr().err
    assert run(cartpole, "--env", "Nowhere-v0") == 2
    assert "Nowhere-v0" in capsys.readouterr().err
    assert not (cartpole / "evaluation.json").exists()


def test_interrupted_run_resumes_to_the_same_result(cartpole, capsys, monkeypatch):
    arguments = (cartpole, "--episodes", 6, "--num-envs", 2)
    assert run(*arguments) == 0
    whole = report(cartpole)
    act = PolicySpy(monkeypatch, stop_at=15)
    assert run(*arguments) == 130
    assert act.calls == 15
    broken = report(cartpole)
    assert broken["complete"] is False
    assert 0 < len(broken["episodes"]) < 6
    error = capsys.readouterr().err
    assert f"{len(broken['episodes'])} of 6 episodes are finished" in error
    assert "--resume" in error
    monkeypatch.undo()
    assert run(*arguments, "--resume", "--picture") == 0
    assert (cartpole / "plan.png").exists()  # of the first episode that was missing
    resumed = report(cartpole)
    for name in whole.keys() - {"timing"}:
        assert resumed[name] == whole[name], name
    assert run(*arguments, "--resume", "--picture") == 0  # nothing is left to do
    assert report(cartpole)["episodes"] == whole["episodes"]
    assert run(*arguments, "--resume", "--seed", 1) == 2
    assert "differs in seed" in capsys.readouterr().err


class PolicySpy:
    """Raises what Ctrl-C raises at the given call of `act`."""

    def __init__(self, monkeypatch, stop_at):
        from trajplan.planners.controller import PlanningPolicy

        self.calls, original = 0, PlanningPolicy.act

        def act(controller, observations, rewards, rows):
            if self.calls == stop_at:
                raise KeyboardInterrupt
            self.calls += 1
            return original(controller, observations, rewards, rows)

        monkeypatch.setattr(PlanningPolicy, "act", act)


def test_maze_gets_a_video_and_a_picture_without_graphics_libraries(maze, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    output = tmp_path / "results"
    assert run(maze, "--episodes", 2, "--video", "--video-episodes", 1, "--picture", "--output", output) == 0
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))
    assert names == ["evaluation.json", "plan.png", "videos", "videos/episode-000.mp4"]
    assert np.asarray(Image.open(output / "plan.png")).std() > 20
    assert report(output)["reference"] is None
    assert report(output)["summary"]["normalized_score"] is None
    assert not (maze / "evaluation.json").exists()


def test_a_page_of_the_plans_of_the_first_episode_that_is_run(cartpole, capsys):
    words = (cartpole, "--episodes", 2, "--viewer", "--replan-every", 2, "--seed", 3)
    assert run(*words) == 0
    page = (cartpole / "viewer.html").read_text()
    assert f"viewer            {cartpole / 'viewer.html'}" in capsys.readouterr().out
    assert f'"steps":{report(cartpole)["episodes"][0]["length"]},' in page
    assert '"step":0,"kept":4,' in page
    assert '"step":2,"kept":4,' in page
    assert "CartPole-v1" in page


def test_picture_outside_mazes(cartpole):
    assert run(cartpole, "--episodes", 1, "--picture") == 0
    assert np.asarray(Image.open(cartpole / "plan.png")).std() > 20


def test_video_that_cannot_be_drawn_stops_before_the_evaluation(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    hopper = make_checkpoint(tmp_path / "hopper", gymnasium.make("Hopper-v5"))
    assert run(hopper, "--video") == 2
    error = capsys.readouterr().err
    assert "--video cannot draw Hopper-v5: MuJoCo cannot, with MUJOCO_GL=disabled" in error
    assert "set MUJOCO_GL=" in error
    assert not (hopper / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-episode-steps", 0), "max_episode_steps is 0; it must be at least 1."),
        (("--max-episode-steps", -5), "max_episode_steps is -5; it must be at least 1."),
        (("--video-episodes", -1), "video_episodes is -1; it must be at least 1."),
        (("--video", "--video-episodes", 0), "video_episodes is 0; it must be at least 1."),
        (("--episodes", 0), "episodes is 0; it must be at least 1."),
        (("--seed", -1), "seed is -1; it must be 0 or more"),
        (("--horizon", 10**13), "The plans need more memory than there is"),
        (("--horizon", 10**18), "The plans need more memory than there is"),
    ],
)
def test_numbers_that_cannot_be_are_one_sentence(cartpole, capsys, words, message):
    assert run(cartpole, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"trajplan: error: {message}")


@pytest.mark.parametrize("value", ["five", None, 2.5, True])
def test_a_planner_setting_of_the_wrong_type_is_named(cartpole, capsys, value):
    path = cartpole / "planner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"horizon": value}))
    assert run(cartpole) == 2
    assert capsys.readouterr().err.startswith(f"trajplan: error: {path}: horizon is {value!r}; it must be of type int.")


def test_hub_name_needs_an_output_folder(capsys, tmp_path):
    assert run(tmp_path / "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err


def test_help_reads_without_torch(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert "beam_search" in text
    assert "sample_and_select" in text
    for option in ("--episodes", "--num-envs", "--video", "--resume", "--planner", "--reference-max"):
        assert option in text


def test_another_planner_is_taken_by_name_with_settings_of_its_own(cartpole, capsys):
    assert run(cartpole, "--episodes", 1, "--planner", "sample_and_select", "--samples", 5, "--horizon", 3) == 0
    planner = report(cartpole)["planner"]
    assert (planner["type"], planner["samples"], planner["horizon"]) == ("sample_and_select", 5, 3)
    # What belongs to the model is the checkpoint's.
    assert (planner["context"], planner["discount"]) == (2, 0.99)
    assert run(cartpole, "--episodes", 1, "--planner=imitation") == 0
    assert report(cartpole)["planner"] == {
        **{"type": "imitation", "horizon": 1, "beam_width": 1, "context": 2, "replan_every": 1}
    }
    assert run(cartpole, "--planner", "imitate") == 2
    assert "Unknown planner 'imitate'; did you mean imitation?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(cartpole, "--planner", "imitation", "--samples", 5)
    assert "no option --samples" in capsys.readouterr().err


def test_of_several_names_of_a_planner_the_last_holds(cartpole, capsys):
    words = ["--planner", "imitation", "--planner=sample_and_select", "--samples", 4]
    assert run(cartpole, "--episodes", 1, *words) == 0
    assert report(cartpole)["planner"]["samples"] == 4
    for words in (["--planner"], ["--planner", "--viewer"]):
        with pytest.raises(SystemExit):
            run(cartpole, *words)
        assert "--planner needs a value" in capsys.readouterr().err


def test_a_checkpoint_of_an_unknown_planner_is_named(cartpole, capsys):
    (cartpole / "planner.json").write_text(json.dumps({"type": "nosuch"}))
    assert run(cartpole) == 2
    assert "planner.json: Unknown planner 'nosuch'; there are beam_search" in capsys.readouterr().err


def test_a_checkpoint_keeps_its_planner_of_another_type(cartpole):
    save_planner(cartpole, ImitationConfig(horizon=2, context=1))
    assert run(cartpole, "--episodes", 1, "--beam-width", 3) == 0
    assert report(cartpole)["planner"]["type"] == "imitation"
    assert report(cartpole)["planner"]["beam_width"] == 3


def test_an_evaluation_from_before_there_was_another_planner_is_resumed(cartpole):
    assert run(cartpole, "--episodes", 2) == 0
    before = report(cartpole)
    del before["planner"]["type"]
    (cartpole / "evaluation.json").write_text(json.dumps(before))
    assert run(cartpole, "--episodes", 3, "--resume") == 0
    assert report(cartpole)["episodes"][:2] == before["episodes"]
    assert report(cartpole)["planner"]["type"] == "beam_search"


def test_help_lists_the_settings_of_a_planner(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--planner", "sample_and_select", "--help"])
    assert "--samples" in capsys.readouterr().out


def test_tasks_and_their_pictures(goal_maze, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / "tasks", gymnasium.make(goal_maze), goal_columns=(0, 1))
    assert run(folder, "--episodes", 2, "--num-envs", 3, "--picture", "--viewer", "--video", "--video-episodes", 1) == 0
    written, printed = report(folder), capsys.readouterr().out
    assert (written["num_episodes"], written["tasks"]) == (6, [1, 2, 3])
    assert [entry["task"] for entry in written["episodes"]] == [1, 2, 3, 1, 2, 3]
    # A model that knows nothing stands in the third goal from the start.
    assert written["summary"]["tasks"]["3"]["success_rate"] == 1.0
    assert "task 3           100.0 % of 2" in printed
    assert "| task 3 | 100.0 % | 2 | 1 |" in (folder / "README.md").read_text()
    assert (folder / "videos" / "episode-000.mp4").stat().st_size > 0
    with Image.open(folder / "plan.png") as picture:
        red = (np.abs(np.asarray(picture.convert("RGB"), int) - (214, 40, 40)).sum(-1) < 60).sum()
        assert red > 10
    assert '"corner":[-6.0,10.0],"goals":[[8.0,0.0]' in (folder / "viewer.html").read_text()
    # More of the same keeps what is there; other tasks are another evaluation.
    assert run(folder, "--episodes", 3, "--num-envs", 2, "--resume") == 0
    assert report(folder)["episodes"][:6] == written["episodes"]
    assert run(folder, "--episodes", 3, "--tasks", 1, 2, "--resume") == 2
    assert "differs in tasks" in capsys.readouterr().err
    assert run(folder, "--episodes", 1, "--tasks", 3, 2, "--output", tmp_path / "other") == 0
    assert [entry["task"] for entry in report(tmp_path / "other")["episodes"]] == [3, 2]
    assert run(folder, "--tasks", 4) == 2
    assert "has the tasks 1 to 3" in capsys.readouterr().err
