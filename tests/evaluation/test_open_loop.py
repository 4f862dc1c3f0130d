import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

import trajplan
from trajplan.baselines.dynamics.training import new_ensemble
from trajplan.baselines.engine.checkpoint import save_settings
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.mopo import MOPOConfig
from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.evaluation.open_loop import (
    Recorded,
    draw,
    errors,
    evaluate_open_loop,
    predict,
    predict_by_ensemble,
    tokenised,
)
from trajplan.models.decoder import CachedDecoder
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.scaling import Scaling
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.settings import save_planner
from trajplan.runs.tensors import write_tensors
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.checkpoint import save_model_folder
from trajplan.training.config import TrainConfig

LENGTHS = (9, 4, 30, 17)
SEED = 2  # holds out the two long ones


@pytest.fixture(scope="module")
def dataset():
    """The first observation dimension counts steps, the second is noise."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": np.stack([100 * number + np.arange(T + 1), rng.normal(size=T + 1)], 1).astype(np.float32),
            "actions": rng.normal(size=(T, 1)).astype(np.float32),
            "rewards": rng.normal(size=T),
            "terminations": np.arange(T) == T - 1,
            "truncations": np.zeros(T, bool),
        }
        for number, T in enumerate(LENGTHS)
    ]
    space = spaces.Box(-5, 5, (1,), np.float32)
    return OfflineDataset.from_episodes(episodes, id="test/counting-v0", action_space=space)


@pytest.fixture(scope="module")
def parts(dataset):
    tokenizer = fit_tokenizer("quantile", np.asarray(dataset.joined()), 10)
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=2,
        action_dim=1,
        bins=10,
        window=6,
        n_layer=2,
        n_head=2,
        n_embd=16,
        bin_counts=tokenizer.sizes.tolist(),
    )
    model = TrajectoryTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that the likeliest token is clear
            parameter.mul_(5.0)
    return model, tokenizer


ALL = np.arange(len(LENGTHS))


def made_up(seed, starts, context, horizon):
    rng = np.random.default_rng(seed)
    return Recorded(
        observations=rng.normal((50, 0), size=(starts, context + 1 + horizon, 2)).astype(np.float32),
        actions=rng.normal(size=(starts, context + horizon, 1)).astype(np.float32),
        rewards=rng.normal(size=(starts, context)).astype(np.float32),
        episodes=np.zeros(starts, np.int64),
    )


def test_starts_lie_inside_their_episodes(dataset):
    found = draw(dataset, ALL, steps=5, context=3, starts=1000, seed=0)
    expected = [(number, t) for number, T in enumerate(LENGTHS) for t in range(3, T - 5 + 1)]
    # The first dimension is 100 times the episode's number, plus the step.
    assert found.present[:, 0].tolist() == [100 * number + t for number, t in expected]
    assert found.episodes.tolist() == [number for number, _ in expected]
    assert (np.diff(found.observations[..., 0]) == 1).all()
    rows = dataset.offsets[found.episodes] + found.present[:, 0].astype(int) % 100
    for ahead in (-3, 0, 4):
        assert np.array_equal(found.actions[:, 3 + ahead], dataset.actions[rows + ahead])
    assert np.array_equal(found.rewards[:, 0], dataset.rewards[rows - 3])
    few = draw(dataset, np.array([0, 3]), steps=5, context=3, starts=7, seed=1)
    assert len(set(few.present[:, 0])) == 7
    assert set(few.episodes) <= {0, 3}
    with pytest.raises(DataError, match="has the 40 steps that it takes to look 38 ahead; the longest has 30"):
        draw(dataset, ALL, steps=38, context=2, starts=1, seed=0)


def test_predictions_are_those_of_the_whole_sequence_recomputed(dataset, parts):
    model, tokenizer = parts
    recorded = made_up(1, 4, 2, 3)
    steps = []
    found = predict(model, tokenizer, recorded, CachedDecoder(model), lambda: steps.append(1))
    assert len(steps) == 3
    # By hand: 2 past transitions and 3 steps ahead fill the window of 6 but for its last actions.
    for row in range(4):
        tokens = []
        for step in range(5):
            if step < 3:
                tokens += tokenizer.encode(torch.tensor(recorded.observations[row, step]), slice(0, 2)).tolist()
            else:
                for _ in range(2):
                    tokens.append(int(model(torch.tensor([tokens])).logits[0, -1, :-1].argmax()))
                guess = tokenizer.decode(torch.tensor(tokens[-2:]), slice(0, 2)).numpy()
                assert found[row, step - 3] == pytest.approx(guess)
            tokens += tokenizer.encode(torch.tensor(recorded.actions[row, step]), slice(2, 3)).tolist()
            if step < 2:
                tokens += tokenizer.encode(torch.tensor(recorded.rewards[row, step, None]), slice(3, 4)).tolist()
            else:
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1, :-1].argmax()))
            tokens.append(7)  # any return-to-go: it is never read
    assert len(np.unique(found)) > 3


def test_both_decoders_agree_far_beyond_the_window(dataset, parts):
    model, tokenizer = parts
    recorded = made_up(2, 3, 2, 20)
    cached = predict(model, tokenizer, recorded, CachedDecoder(model))
    plain = predict(model, tokenizer, recorded, RecomputingDecoder(model))
    assert cached.shape == (3, 20, 2)
    assert np.array_equal(cached, plain)


def test_the_ensemble_is_followed_by_its_elites_inside_its_range(dataset):
    torch.manual_seed(0)
    dynamics = DynamicsEnsemble(2, 1, 4, 3, (8,))
    dynamics.elites.copy_(torch.tensor([3, 0, 2]))
    dynamics.low[0], dynamics.high[0] = 40.0, 50.5
    scaling = Scaling(torch.zeros(2), torch.ones(2), torch.tensor([-0.5]), torch.tensor([0.5]))
    recorded = made_up(3, 5, 2, 4)
    found = predict_by_ensemble(dynamics, scaling, recorded)
    states = torch.from_numpy(recorded.present)
    for step in range(4):
        actions = torch.from_numpy(recorded.actions[:, 2 + step]).clamp(-0.5, 0.5)
        means = dynamics.predict(states, actions).mean[[0, 2, 3], :, :2]
        states = torch.minimum(torch.maximum(states + means.mean(0), dynamics.low[:2]), dynamics.high[:2])
        assert found[:, step] == pytest.approx(states.detach().numpy(), abs=1e-5)
    assert (found[..., 0] == 50.5).any()


def test_errors_are_in_standard_deviations():
    truth, deviation = np.zeros((3, 2, 2), np.float32), np.array([2.0, 0.0])  # a constant dimension has none: as it is
    guess = truth.copy()
    guess[:, 0, 0] = 2, 4, 6
    guess[0, 1, 1] = 3e38
    found = errors(guess, truth, deviation)
    assert found["rms"][0] == pytest.approx(np.sqrt((1 + 4 + 9) / 6))
    assert found["median"][0] == pytest.approx(np.sqrt(4 / 2))
    assert found["rms"][1] == pytest.approx(3e38 / np.sqrt(6))
    assert found["median"][1] == 0
    guess[1, 1, 1] = np.inf
    assert errors(guess, truth, deviation)["rms"][1] is None


def test_no_model_comes_nearer_than_the_tokens(dataset, parts):
    model, tokenizer = parts
    recorded = draw(dataset, ALL, steps=10, context=2, starts=50, seed=3)
    deviation = dataset.statistics().std
    floor = errors(tokenised(tokenizer, recorded.truth, torch.device("cpu")), recorded.truth, deviation)["rms"]
    reached = errors(predict(model, tokenizer, recorded, CachedDecoder(model)), recorded.truth, deviation)["rms"]
    assert (np.array(floor) <= reached).all()
    assert max(floor) < 0.5


@pytest.fixture
def folders(dataset, parts, tmp_path, monkeypatch):
    """A transformer's and an ensemble's, neither trained, with the data that they name."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    dataset.save(dataset.id)
    model, tokenizer = parts
    training = TrainConfig(n_layer=2, n_head=2, n_embd=16, bins=10, window=6, held_out=0.5, seed=SEED)
    save_model_folder(tmp_path / "tt", model, tokenizer, dataset.info, training)
    save_planner(tmp_path / "tt", BeamSearchConfig(horizon=2))
    ensemble = tmp_path / "mopo"
    ensemble.mkdir()
    config = MOPOConfig(model_members=3, model_elites=2, model_layers=1, model_width=8)
    save_settings(ensemble, "mopo", config, RunConfig(seed=SEED), dataset.info, {"name": "none"})
    write_tensors(ensemble / "dynamics.safetensors", new_ensemble(dataset.info, config, False).state_dict())
    return tmp_path / "tt", ensemble


def test_the_command_measures_both_on_held_out_starts(dataset, folders, tmp_path, capsys):
    folder, ensemble = folders
    words = [
        "--open-loop",
        "--open-loop-steps",
        "7",
        "--dynamics",
        ensemble,
        "--device",
        "cpu",
        "--output",
        tmp_path / "out",
    ]
    assert main(["evaluate", str(folder), "--device", "cpu", *map(str, words)]) == 0
    found = json.loads((tmp_path / "out/open_loop.json").read_text())
    _, held_out = dataset.split(0.5, SEED)
    assert found["episodes"] == {"all": 4, "held_out": 2, "used": sum(LENGTHS[number] >= 12 for number in held_out)}
    assert found["starts"] == sum(max(LENGTHS[number] - 11, 0) for number in held_out)
    assert found["ensemble"]["elites"] == 2
    # The ensemble holds out one episode of the same draw, and has learned from the other one of the two.
    learned = set(held_out) & set(dataset.split(0.1, SEED)[0])
    assert found["ensemble"]["starts_in_its_training"] == sum(LENGTHS[number] - 11 for number in learned)
    assert set(found["errors"]) == {"transformer", "ensemble", "tokenised", "still"}
    assert all(len(curve) == 7 for curves in found["errors"].values() for curve in curves.values())
    # In the first dimension h steps are h: nothing moves is wrong by as much at least.
    spread = dataset.statistics().std[0]
    assert (np.array(found["errors"]["still"]["rms"]) >= np.arange(1, 8) / spread / np.sqrt(2)).all()
    assert Image.open(tmp_path / "out/open_loop.png").size[0] > 800
    printed = capsys.readouterr().out
    assert f"{found['errors']['ensemble']['rms'][6]:.3f}" in printed
    assert "1 ahead     7 ahead" in printed


def test_an_ensemble_that_was_learned_by_itself_is_measured_too(dataset, folders, tmp_path):
    folder, _ = folders
    sizes = {"model_members": 3, "model_elites": 2, "model_layers": 1, "model_width": 8, "model_max_epochs": 1}
    trajplan.dynamics(dataset, tmp_path / "own", device="cpu", progress=False, prior=False, seed=SEED, **sizes)
    words = ["--open-loop", "--open-loop-steps", "7", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["evaluate", str(folder), *words, "--ensemble", str(tmp_path / "own")]) == 0
    found = json.loads((tmp_path / "out/open_loop.json").read_text())
    assert found["ensemble"]["method"] == "dynamics"
    _, held_out = dataset.split(0.5, SEED)
    learned = set(held_out) & set(dataset.split(0.1, SEED)[0])
    assert found["ensemble"]["starts_in_its_training"] == sum(LENGTHS[number] - 11 for number in learned)
    assert main(["evaluate", str(folder), *words, "--dynamics", str(tmp_path / "own")]) == 0
    assert json.loads((tmp_path / "out/open_loop.json").read_text()) == found


def test_what_does_not_go_together_is_refused(dataset, folders, tmp_path, capsys):
    folder, ensemble = folders
    for words, message in {
        ("--open-loop", "--video", "--horizon", "3"): "--open-loop runs no episodes and no planner: leave out --video",
        ("--dynamics", str(ensemble)): "--dynamics goes with --open-loop: give that too.",
        ("--open-loop", "--open-loop-steps", "0"): "steps is 0; it must be at least 1",
        ("--open-loop", "--open-loop-steps", "90"): "has the 95 steps that it takes to look 90 ahead",
    }.items():
        assert main(["evaluate", str(folder), *words]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="holds a model of type 'trajectory_transformer_planner'"):
        evaluate_open_loop(folder, tmp_path, dynamics=folder)
    others = json.loads((ensemble / "dataset.json").read_text()) | {"id": "test/other-v0"}
    (ensemble / "dataset.json").write_text(json.dumps(others))
    with pytest.raises(ConfigError, match="learned from test/other-v0"):
        evaluate_open_loop(folder, tmp_path, dynamics=ensemble)
    training = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(training | {"held_out": 0.0}))
    with pytest.raises(ConfigError, match="trained on every episode"):
        evaluate_open_loop(folder, tmp_path)
    (folder / "training.json").write_text(json.dumps(training))
    fewer = json.loads((folder / "dataset.json").read_text()) | {"num_episodes": 3}
    (folder / "dataset.json").write_text(json.dumps(fewer))
    with pytest.raises(DataError, match="which episodes were held out is not known"):
        evaluate_open_loop(folder, tmp_path)
