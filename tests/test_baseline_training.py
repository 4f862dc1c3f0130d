"""`trajplan.baseline`, and that the command is the same run."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest

import trajplan
from trajplan.cli import main
from trajplan.runs.metrics import read_metrics

SMALL = {"batch_size": 4, "hidden_width": 8, "hidden_layers": 1}


@pytest.fixture(scope="module")
def dataset():
    """Two short episodes of Pendulum-v1 in which nothing is done."""
    env, episodes = gymnasium.make("Pendulum-v1"), []
    for seed in range(2):
        observations, actions = [env.reset(seed=seed)[0]], np.zeros((5, 1), np.float32)
        steps = [env.step(action) for action in actions]
        observations += [step[0] for step in steps]
        rewards, last = np.array([step[1] for step in steps]), np.arange(5) == 4
        arrays = {"observations": np.stack(observations), "actions": actions, "rewards": rewards}
        episodes.append(arrays | {"terminations": np.zeros(5, bool), "truncations": last})
    # A copy: what gymnasium.spec gives is the registry's own.
    spec = dataclasses.replace(gymnasium.spec("Pendulum-v1"), max_episode_steps=5)
    return trajplan.OfflineDataset.from_episodes(episodes, id="toy/hopper-idle-v0", env_spec=spec)


@pytest.fixture
def known(monkeypatch, dataset):
    monkeypatch.setattr(trajplan.OfflineDataset, "from_minari", classmethod(lambda cls, id: dataset))


def train(dataset, folder, method="iql", **settings):
    defaults = {"device": "cpu", "updates": 6, "progress": False} | SMALL
    return trajplan.baseline(method, dataset, folder, **defaults | settings)


def files(folder):
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "config.json", "training.json")}


def test_it_is_the_run_of_the_command(dataset, known, tmp_path):
    result = train(dataset, tmp_path / "python", expectile=0.8, eval_episodes=2)
    assert (result.updates, result.interrupted) == (6, False)
    line = "baseline iql --dataset toy/hopper-idle-v0 --device cpu --updates 6 --batch-size 4 --hidden-width 8"
    line += f" --hidden-layers 1 --expectile 0.8 --eval-episodes 2 --output {tmp_path / 'command'}"
    assert main(line.split()) == 0
    assert files(tmp_path / "python") == files(tmp_path / "command")
    (measured,) = read_metrics(tmp_path / "python")
    assert measured["evaluation/return"] == result.metrics["evaluation/return"] < 0
    assert measured["evaluation/length"] == 5
    assert (tmp_path / "python" / "README.md").read_text().startswith("---\n")
    assert trajplan.load(tmp_path / "python", device="cpu").info.id == "toy/hopper-idle-v0"


def test_the_defaults_are_the_published_ones_for_the_dataset(dataset, tmp_path):
    info = dataclasses.replace(dataset.info, id="toy/hopper/medium-v0", env_spec=None)
    train(dataclasses.replace(dataset, id=info.id, info=info), tmp_path / "run", eval_every=0)
    assert json.loads((tmp_path / "run" / "training.json").read_text())["reward_transform"] == "return-range"
    assert "evaluation/return" not in read_metrics(tmp_path / "run")[0]


def test_a_run_goes_on_with_its_settings_and_its_dataset(dataset, known, tmp_path):
    train(dataset, tmp_path / "run", eval_every=0, log_every=1)
    before = files(tmp_path / "run")
    result = trajplan.baseline("iql", None, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert result.updates == 6
    assert files(tmp_path / "run") == before
    with pytest.raises(trajplan.TrajplanError, match="log_every is 2 and was 1"):
        trajplan.baseline("iql", dataset, tmp_path / "run", resume=True, device="cpu", log_every=2)
    with pytest.raises(trajplan.TrajplanError, match="already holds a run"):
        train(dataset, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expectil": 0.8}, r"^iql has no setting 'expectil'; did you mean expectile\?$"),
        ({"colour": 0.8}, r"^iql has no setting 'colour'; trajplan baseline iql --help lists what it has\.$"),
        ({"expectile": "0.8"}, r"^expectile is '0.8'; it must be of type float\.$"),
        ({"updates": 0}, r"^updates is 0; it must be at least 1\.$"),
        ({"method": "iqll"}, r"^Unknown method 'iqll'; did you mean iql\?$"),
        ({"device": "graphics"}, "There is no device 'graphics' here"),
        ({"dataset": None}, "holds no run that knows its dataset: name one"),
        ({"dataset": 5}, r"^dataset is 5; it must be an OfflineDataset, a Minari id or several of them\.$"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(dataset, tmp_path, changes, message):
    with pytest.raises(trajplan.TrajplanError, match=message):
        train(changes.pop("dataset", dataset), tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["bc", "iql", "cql", "mopo"])
def test_unbounded_actions_are_refused_by_dimension_with_the_cure(dataset, tmp_path, capsys, monkeypatch, method):
    low, high = np.array([-2, -np.inf], np.float32), np.array([2, np.inf], np.float32)
    info = dataclasses.replace(dataset.info, action_space=gymnasium.spaces.Box(low, high))
    free = dataclasses.replace(dataset, info=info, actions=np.repeat(dataset.actions, 2, axis=1))
    message = (
        "Every baseline needs actions with finite bounds, low below high, and those of dataset 'toy/hopper-idle-v0' "
        "have none in dimension 1 (-inf to inf): make it with OfflineDataset.from_episodes(..., env_spec=...), which "
        "takes the environment's, or with action_space=..."
    )
    with pytest.raises(trajplan.TrajplanError) as refused:
        train(free, tmp_path / "run", method)
    assert str(refused.value) == message
    monkeypatch.setattr(trajplan.OfflineDataset, "from_minari", classmethod(lambda cls, id: free))
    assert main(["baseline", method, "--dataset", "x", "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"trajplan: error: {message}\n"
    assert not (tmp_path / "run").exists()
