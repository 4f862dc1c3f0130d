"""Runs with a dynamics model: what they write, and that they go on exactly wherever they were stopped."""

import dataclasses
import json
import os
import re
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trajplan.baselines.dynamics.training import PROGRESS, EnsembleTrainer
from trajplan.baselines.engine.checkpoint import load_dynamics
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.mopo import MOPO
from trajplan.baselines.registry import METHODS
from trajplan.baselines.sac import SAC
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.hub import _files
from trajplan.models.networks import Dimensions
from trajplan.runs.metrics import read_metrics

TIMES = ("seconds", "updates_per_second")


def run(dataset, folder, config, settings, name="mopo", **keywords):
    return train(dataset, folder, name, config, settings, device="cpu", progress=False, **keywords)


def ten(policy):
    """An evaluation in an environment where every episode returns 10."""
    return {"return": 10.0}


def assert_same_run(one, other):
    for folder in (one, other):
        assert not (folder / "training_state" / PROGRESS).exists()
    lines = ([{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(f)] for f in (one, other))
    assert next(lines) == next(lines)
    reports = [json.loads((folder / "model_report.json").read_text()) for folder in (one, other)]
    for report in reports:
        assert report["training"].pop("seconds") > 0
    assert reports[0] == reports[1]
    for name in ("model.safetensors", "dynamics.safetensors"):
        a, b = (load_file(folder / name) for folder in (one, other))
        assert all(torch.equal(a[key], b[key]) for key in a | b)


def test_a_process_killed_in_the_models_training_or_the_policys_continues_exactly(walks, small, quick, tmp_path):
    config = small("mopo", model_max_epochs=30, model_patience=30)
    settings = quick(updates=40, save_every=4, log_every=1)
    run(walks, tmp_path / "whole", config, settings, evaluate=ten)
    broken = tmp_path / "broken"

    def trains_its_model():
        return (broken / "training_state" / PROGRESS).exists()

    def has_updated(count):
        return lambda: broken.exists() and len(read_metrics(broken)) >= count

    for reached in (trains_its_model, trains_its_model, has_updated(6), has_updated(20)):
        pid = os.fork()
        if pid == 0:
            try:
                run(walks, broken, config, settings, evaluate=ten, resume=True)
            finally:
                os._exit(1)
        while not reached():
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    run(walks, broken, config, settings, evaluate=ten, resume=True)
    assert_same_run(tmp_path / "whole", broken)


def test_ctrl_c_during_the_models_training_loses_no_more_than_an_epoch(walks, small, quick, tmp_path, monkeypatch):
    config, settings = small("mopo", model_max_epochs=4), quick()
    run(walks, tmp_path / "whole", config, settings, evaluate=ten)
    update, calls = EnsembleTrainer.update, []

    def interrupted(self, batch):
        calls.append(1)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return update(self, batch)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(EnsembleTrainer, "update", interrupted)
        result = run(walks, broken, config, settings, evaluate=ten)
    assert (result.updates, result.interrupted) == (0, True)
    assert len(load_file(broken / "training_state" / PROGRESS)["history"]) > 1
    changed = dataclasses.replace(walks, rewards=walks.rewards + 1)
    with pytest.raises(CheckpointError, match="content of the dataset has changed"):
        run(changed, broken, config, settings, evaluate=ten, resume=True)
    (broken / "training_state" / PROGRESS).replace(tmp_path / "progress")
    parts = load_file(tmp_path / "progress")
    save_file(parts | {"seconds": parts["seconds"] + 1000}, broken / "training_state" / PROGRESS)
    run(walks, broken, config, settings, evaluate=ten, resume=True)
    # The time of the process that was stopped counts.
    assert 1000 < read_metrics(broken)[0]["seconds"] < 1060
    assert json.loads((broken / "model_report.json").read_text())["training"]["seconds"] > 1000
    assert_same_run(tmp_path / "whole", broken)


def test_a_disk_that_is_full_while_the_model_trains_is_one_sentence(
    walks, small, quick, tmp_path, monkeypatch, forked, filling
):
    monkeypatch.setattr(EnsembleTrainer, "save", filling(EnsembleTrainer.save, 2))
    told = forked(run, walks, tmp_path, small("mopo"), quick(), evaluate=ten)
    assert re.fullmatch(rf"CheckpointError: .*/{PROGRESS} cannot be written: .*File too large.*; .*resume\.", told)


def test_a_person_is_told_what_is_learned(walks, small, quick, tmp_path, capsys):
    train(walks, tmp_path, "mopo", small("mopo"), quick(), device="cpu", evaluate=ten)
    said = capsys.readouterr().err.splitlines()
    assert re.match(
        r"dynamics model: 3 networks, .* 4[0-9] transitions to train on and [0-9]+ held out; .* by a learned", said[0]
    )
    assert [line.split(":")[0] for line in said[1:4]] == [f"dynamics model, epoch {n}" for n in (1, 2, 3)]
    assert said[4].startswith("mopo: ")


def test_rollouts_are_kept_with_a_checkpoint_until_the_run_is_over(walks, small, quick, tmp_path):
    run(walks, tmp_path, small("mopo"), quick(), evaluate=ten)
    before, last = sorted((tmp_path / "training_state").glob("step-*"))
    for step, kept in ((before, True), (last, False)):
        names = {key for key in load_file(step / "optimizer.safetensors") if key.startswith("model/")}
        assert ("model/observations" in names) == kept


@pytest.mark.parametrize("name", ["mopo", "combo"])
def test_every_run_writes_the_models_errors_beside_its_uncertainty(name, walks, small, quick, tmp_path):
    result = run(walks, tmp_path, small(name), quick(), name, evaluate=ten)
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert report["penalty"] == (["max-deviation", 1.0] if name == "mopo" else None)
    assert len(report["training"]["elites"]) == 2
    assert len(report["training"]["held_out_losses"]) == report["training"]["epochs"] + 1 == 4
    for line in report["held_out"]["k_step"]:
        assert line["error_mean"] > 0
        assert set(line["rank_correlation"]) == {"max-deviation", "disagreement"}
    assert [line["update"] for line in report["returns"]] == [5, 10, 12]
    assert all(line["real"] == 10 for line in report["returns"])
    if name == "mopo":
        assert all(line["penalised"] < line["model"] for line in report["returns"])
        assert report["below"] == np.mean([line["penalised"] <= 10 for line in report["returns"]])
        assert result.metrics["model/penalised_return"] == report["returns"][-1]["penalised"]
    else:
        assert report["below"] is None
        assert "model/penalised_return" not in result.metrics
    assert (tmp_path / "model_report.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_drawn_without_an_evaluation_too(walks, small, quick, tmp_path):
    run(walks, tmp_path, small("mopo"), quick(eval_every=0))
    assert json.loads((tmp_path / "model_report.json").read_text())["returns"] == []
    assert (tmp_path / "model_report.png").exists()


def test_the_model_of_a_run_can_be_loaded_and_is_shared_with_it(walks, small, quick, tmp_path):
    run(walks, tmp_path / "mopo", small("mopo"), quick())
    assert {"dynamics.safetensors", "model_report.json", "model_report.png"} < set(_files(tmp_path / "mopo", tmp_path / "mopo"))
    dynamics = load_dynamics(tmp_path / "mopo")
    # Half of the walks end in a terminal, and nobody knows the rule.
    assert dynamics.terminal_head
    weights = load_file(tmp_path / "mopo/dynamics.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in dynamics.state_dict().items())
    batch = walks.transitions().gather(torch.arange(5))
    assert dynamics.step(batch.observations, batch.actions).next_observations.isfinite().all()
    save_file(weights | {"high": torch.zeros(2)}, tmp_path / "mopo/dynamics.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_dynamics(tmp_path / "mopo")
    run(walks, tmp_path / "bc", small("bc"), quick(), "bc")
    with pytest.raises(CheckpointError, match="holds no trained dynamics model"):
        load_dynamics(tmp_path / "bc")


def test_mopo_updates_as_soft_actor_critic_does(walks, small):
    config, batch = small("mopo"), walks.transitions().gather(torch.arange(20))
    states = []
    for kind in (MOPO, SAC):
        torch.manual_seed(0)
        method = kind(Dimensions.of(walks.info), config)
        for _ in range(3):
            method.update(batch)
        states.append(method.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_bad_input_is_refused_before_any_training(walks, choices, small, quick, tmp_path):
    for name in ("mopo", "combo"):
        with pytest.raises(ConfigError, match="for continuous actions only, and dataset 'choices' has Discrete"):
            METHODS[name].method_class(choices.info)
    with pytest.raises(ConfigError, match="continuous actions only"):
        run(choices, tmp_path / "run", small("mopo"), quick())
    with pytest.raises(DataError, match="a dynamics model needs two episodes at least, one of them held out"):
        run(walks, tmp_path / "run", small("mopo"), quick(top_fraction=0.01))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"penalty_weight is -1.0; it must be 0 or more"):
        small("mopo", penalty_weight=-1.0)
