"""The weights of the best held-out loss are kept, and a run can stop when it no longer falls."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from trajplan.errors import ConfigError
from trajplan.files import RUN
from trajplan.runs import state
from trajplan.runs.metrics import read_metrics
from trajplan.training import loop
from trajplan.training.best import Best
from trajplan.training.checkpoint import load_model_folder
from trajplan.training.config import TrainConfig
from trajplan.training.loop import train


@pytest.fixture(scope="module")
def rising(tiny):
    """Settings of a run whose held-out loss is lowest at update 10, and rises: `rising(**changes)`."""
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}

    def make(**changes):
        return tiny(**still | {"learning_rate": 0.1, "updates": 60, "save_every": 5} | changes)

    return make


@pytest.fixture(scope="module")
def whole(dataset, rising, tmp_path_factory):
    """A run to its end that has kept every checkpoint, and its result."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "KEPT", 100)
        return folder, train(dataset, folder, rising())


def weights(path):
    return load_file(path / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def step(folder, update):
    return folder / f"training_state/step-{update:08d}"


def measured(folder):
    return {line["update"]: line["held_out/loss"] for line in read_metrics(folder) if "held_out/loss" in line}


def test_the_model_is_the_best_and_the_state_the_last(whole):
    folder, result = whole
    losses = measured(folder)
    assert (min(losses, key=losses.get), result.kept, result.stopped_early) == (10, 10, False)
    assert same(weights(folder), weights(step(folder, 10)))
    assert not same(weights(folder), weights(step(folder, 60)))
    assert same(dict(load_model_folder(folder).model.state_dict()), weights(step(folder, 10)))


def test_which_update_the_weights_are_of_is_recorded(whole):
    folder, _ = whole
    loss = measured(folder)[10]
    assert json.loads((folder / RUN).read_text()) == {
        "updates": 60,
        "weights": {"update": 10, "held_out_loss": loss},
        "stopped_early": False,
    }


def test_only_a_checkpoint_after_the_best_holds_it_beside_its_own(whole):
    folder, _ = whole
    # At update 5 the first measurement is the best, at update 10 the second.
    assert [(step(folder, n) / state.KEPT_WEIGHTS).exists() for n in (5, 10, 15, 60)] == [False, False, True, True]
    assert same(load_file(step(folder, 60) / state.KEPT_WEIGHTS), weights(step(folder, 10)))


@pytest.mark.parametrize("update", [5, 10, 35])
def test_a_run_that_goes_on_from_a_checkpoint_keeps_the_same(whole, dataset, rising, tmp_path, update):
    folder, _ = whole
    for file in folder.iterdir():
        (shutil.copytree if file.is_dir() else shutil.copy)(file, tmp_path / file.name)
    for later in range(update + 5, 65, 5):
        shutil.rmtree(step(tmp_path, later))
    # As if killed between the state and the model of that update.
    (tmp_path / "model.safetensors").write_bytes(b"old")
    result = train(dataset, tmp_path, rising(), resume=True)
    assert result.kept == 10
    for name in ("model.safetensors", RUN):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    for name in (*state.FILES, state.KEPT_WEIGHTS):
        assert (step(tmp_path, 60) / name).read_bytes() == (step(folder, 60) / name).read_bytes()


def test_without_held_out_episodes_the_last_weights_are_kept(dataset, tiny, tmp_path):
    result = train(dataset, tmp_path, tiny(held_out=0.0))
    assert result.kept == 12
    assert same(weights(tmp_path), weights(step(tmp_path, 12)))
    assert json.loads((tmp_path / RUN).read_text())["weights"] == {"update": 12, "held_out_loss": None}


def test_before_the_first_measurement_the_last_weights_are_kept(dataset, tiny, tmp_path, monkeypatch):
    original = loop._update
    monkeypatch.setattr(loop, "_update", lambda run, wanted: (original(run, wanted)[0], run.done == 2))
    result = train(dataset, tmp_path, tiny())
    assert (result.updates, result.kept, result.interrupted) == (3, 3, True)
    assert same(weights(tmp_path), weights(step(tmp_path, 3)))


def test_a_checkpoint_of_an_earlier_version_goes_on_and_finds_its_best_from_there(whole, dataset, rising, tmp_path):
    folder, _ = whole
    for file in folder.iterdir():
        (shutil.copytree if file.is_dir() else shutil.copy)(file, tmp_path / file.name)
    for later in range(55, 65, 5):
        shutil.rmtree(step(tmp_path, later))
    (step(tmp_path, 50) / state.KEPT_WEIGHTS).unlink()
    (tmp_path / RUN).unlink()
    about = json.loads((step(tmp_path, 50) / "state.json").read_text())
    del about["best"], about["sizes"][state.KEPT_WEIGHTS]
    (step(tmp_path, 50) / "state.json").write_text(json.dumps(about))
    settings = json.loads((tmp_path / "training.json").read_text())
    del settings["patience"]
    (tmp_path / "training.json").write_text(json.dumps(settings))
    assert train(dataset, tmp_path, rising(), resume=True).kept == 55
    assert weights(step(tmp_path, 60)).keys() == weights(step(folder, 60)).keys()
    assert same(weights(step(tmp_path, 60)), weights(step(folder, 60)))
    assert same(weights(tmp_path), weights(step(folder, 55)))


def test_patience_stops_the_run(whole, dataset, rising, tmp_path):
    folder, _ = whole
    result = train(dataset, tmp_path, rising(patience=3))
    assert (result.updates, result.kept, result.interrupted, result.stopped_early) == (25, 10, False, True)
    assert same(weights(tmp_path), weights(folder))
    assert same(weights(step(tmp_path, 25)), weights(step(folder, 25)))
    assert measured(tmp_path) == {update: loss for update, loss in measured(folder).items() if update <= 25}
    assert json.loads((tmp_path / RUN).read_text())["stopped_early"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = train(dataset, tmp_path, rising(patience=3), resume=True)
    assert again == result
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_stopped_goes_on_with_more_patience(whole, dataset, rising, tmp_path):
    folder, _ = whole
    train(dataset, tmp_path, rising(patience=3))
    result = train(dataset, tmp_path, rising(patience=None), resume=True)
    assert (result.updates, result.kept, result.stopped_early) == (60, 10, False)
    assert same(weights(step(tmp_path, 60)), weights(step(folder, 60)))
    assert json.loads((tmp_path / "training.json").read_text())["patience"] is None


def test_a_killed_run_stops_where_it_would_have(dataset, rising, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    original = loop._update

    def killed(run, wanted):
        if run.done == 23:
            raise KilledError
        return original(run, wanted)

    monkeypatch.setattr(loop, "_update", killed)
    with pytest.raises(KilledError):
        train(dataset, tmp_path, rising(patience=3))
    monkeypatch.undo()
    result = train(dataset, tmp_path, rising(patience=3), resume=True)
    assert (result.updates, result.kept, result.stopped_early) == (25, 10, True)


def test_two_processes_keep_and_stop_alike(trainer, dataset, rising, tmp_path):
    trainer.run("train", dataset, tmp_path, rising(patience=3, learning_rate=0.03), processes=2)
    assert json.loads((tmp_path / RUN).read_text()) == {
        "updates": 20,
        "weights": {"update": 5, "held_out_loss": measured(tmp_path)[5]},
        "stopped_early": True,
    }
    assert same(weights(tmp_path), weights(step(tmp_path, 20))) is False


def test_a_rise_is_said_once(dataset, rising, tmp_path, capsys):
    train(dataset, tmp_path / "run", rising())
    told = re.findall("The held-out loss rises.*", capsys.readouterr().err)
    assert len(told) == 1
    assert re.match(
        r"The held-out loss rises: 5\.\d+ now, 4\.\d+ at update 10, whose weights are kept; stop with Ctrl-C, or give "
        "--patience N",
        told[0],
    )


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([3.0, 3.1, 3.1, 3.1], [None, None, None, "rises"]),
        ([3.0, 3.1, 3.1, 2.9, 3.0, 3.0], [None] * 6),
        ([3.0, 3.01, 3.01, 3.01, 3.01], [None] * 5),
        ([3.0, 2.0, 2.1, 2.2, 2.3, 2.4], [None, None, None, None, "rises", None]),
        ([float("nan"), 3.0, float("nan"), 2.9], [None] * 4),
    ],
)
def test_a_rise_is_three_measurements_and_one_per_cent(losses, says):
    best, model = Best(), torch.nn.Linear(1, 1)
    for update, (loss, said) in enumerate(zip(losses, says, strict=True), 1):
        best.measured(update, loss, model)
        warning = best.warning(loss, None)
        assert (warning is None) == (said is None), update


def test_weights_that_were_kept_do_not_follow_the_model():
    best, model = Best(), torch.nn.Linear(1, 1, bias=False)
    best.measured(1, 3.0, model)
    before = model.weight.item()
    with torch.no_grad():
        model.weight += 1
    assert best.weights["weight"].item() == before


@pytest.mark.parametrize(
    ("settings", "named"), [({"patience": 0}, "patience is 0"), ({"patience": 2, "held_out": 0.0}, "held_out is 0")]
)
def test_a_patience_that_cannot_be_is_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        TrainConfig(**settings)
