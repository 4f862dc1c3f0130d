import json
import os
import signal
from dataclasses import replace

import pytest

from trajplan.comparison import checks
from trajplan.comparison.cells import COST, is_finished, read_record, write_record
from trajplan.comparison.claim import Claim, ClaimedError
from trajplan.comparison.settings import EvaluationConfig
from trajplan.comparison.work import work
from trajplan.errors import CheckpointError, ConfigError
from trajplan.evaluation.report import evaluation_versions
from trajplan.training.loop import uses_gpu


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """The cells that were checked; the datasets and the models of these tests do not exist."""
    cells = []
    monkeypatch.setattr(checks, "check_cell", cells.append)
    monkeypatch.setattr(checks, "check_model", lambda cell: None)
    return cells


class Commands:
    """Stands for the `trajplan` command: keeps what it was asked, and writes what a training leaves."""

    def __init__(self, *statuses):
        self.calls, self.statuses, self.present = [], list(statuses), []

    def __call__(self, words):
        self.calls.append(words[0])
        status = self.statuses.pop(0) if self.statuses else 0
        folder = words[words.index("--output") + 1] if "--output" in words else words[1]
        os.makedirs(folder, exist_ok=True)
        evaluation = os.path.join(folder, "evaluation.json")
        self.present.append(os.path.exists(evaluation))
        if words[0] == "evaluate":
            given = dict(word.split("=") for word in words if word.startswith("--") and "=" in word)
            entries = [
                {"episode": n, "seed": n, "return": 1.0, "length": 5, "success": None}
                for n in range(int(given["--episodes"]))
            ]
            others = dict.fromkeys(("reference", "planner", "environment", "timing"))
            if "--reference-min" in given:
                scale = {"min": float(given["--reference-min"]), "max": float(given["--reference-max"])}
                others["reference"] = scale | {"source": "command line"}
            with open(evaluation, "w") as file:
                json.dump({"episodes": entries, "versions": evaluation_versions()} | others, file)
        else:
            for name in ("config.json", "training.json", "model.safetensors"):
                with open(os.path.join(folder, name), "w") as file:
                    file.write("{}")
            with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
                for update, speed in ((1, 2.0), (2, 4.0), (3, 9.0)):
                    line = {"update": update, "seconds": 10.0 * update, "updates_per_second": speed}
                    file.write(json.dumps(line) + "\n")
        return status


def test_trains_then_evaluates_and_keeps_what_it_took(cell):
    made, commands = cell(), Commands()
    assert work(made, commands) == 0
    assert commands.calls == ["baseline", "evaluate"]
    record = read_record(made)
    assert record["finished"]
    cost = record["cost"]
    assert (cost["updates"], cost["training_seconds"], cost["updates_per_second"]) == (3, 30.0, 4.0)
    assert 2**24 < cost["peak_memory_bytes"] < 2**40
    assert not made.claim.exists()


def test_a_finished_cell_is_left_alone(cell, capsys):
    made = cell()
    work(made, Commands())
    commands = Commands()
    assert work(made, commands) == 0
    assert commands.calls == []
    assert "bc/0 is finished" in capsys.readouterr().out


def test_goes_on_where_it_was_interrupted(cell):
    made = cell()
    assert work(made, Commands(130)) == 130
    assert read_record(made)["cost"] is None
    second = Commands(0, 130)
    assert work(made, second) == 130
    assert second.calls == ["baseline", "evaluate"]
    third = Commands()
    assert work(made, third) == 0
    assert third.calls == ["evaluate"]
    assert third.present == [True]


def test_a_longer_evaluation_goes_on(cell):
    made, longer = cell("tt"), Commands()
    work(made, Commands())
    assert work(replace(made, evaluation=EvaluationConfig(episodes=9)), longer) == 0
    assert (longer.calls, longer.present) == (["evaluate"], [True])


def test_another_evaluation_starts_over_and_keeps_the_one_before(cell, capsys):
    made = cell("tt")
    work(made, Commands())
    texts = []
    for horizon in (3, 4):
        texts.append(made.evaluated.read_text() + " " * horizon)
        made.evaluated.write_text(texts[-1])
        other = Commands()
        assert work(replace(made, settings={"planner.horizon": horizon}), other) == 0
        assert (other.calls, other.present) == (["evaluate"], [False])
    kept = [made.model / name for name in ("evaluation.before.json", "evaluation.before-2.json")]
    assert [path.read_text() for path in kept] == texts
    assert f"{made.evaluated} was evaluated with other settings: it is kept as evaluation.before-2.json" in (
        capsys.readouterr().out
    )


def test_what_other_packages_evaluated_stays_finished_and_is_not_gone_on_with(cell, capsys):
    made, again, longer = cell(), Commands(), Commands()
    work(made, Commands())
    text = json.dumps(json.loads(made.evaluated.read_text()) | {"versions": evaluation_versions() | {"torch": "0.1"}})
    made.evaluated.write_text(text)
    assert work(made, again) == 0
    assert again.calls == []
    assert work(replace(made, evaluation=EvaluationConfig(episodes=9)), longer) == 0
    assert (longer.calls, longer.present) == (["evaluate"], [False])
    assert (made.model / "evaluation.before.json").read_text() == text
    assert "was evaluated with other versions of packages: it is kept as evaluation.before.json" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("asked", [2, 4, 9])
def test_other_reference_scores_go_on_with_all_episodes_that_are_there(cell, asked):
    made, scaled = cell(), Commands()
    work(made, Commands())
    how = EvaluationConfig(episodes=asked, reference_min=0.0, reference_max=1.0)
    now = replace(made, evaluation=how)
    assert work(now, scaled) == 0
    assert (scaled.calls, scaled.present) == (["evaluate"], [True])
    assert len(json.loads(made.evaluated.read_text())["episodes"]) == max(4, asked)
    assert is_finished(now, read_record(now))


@pytest.mark.parametrize("text", [None, "", '{"episodes": [{}]}', "[1]"])
def test_a_damaged_evaluation_is_made_again_and_kept_aside(cell, text):
    made = cell()
    work(made, Commands())
    made.evaluated.unlink()
    if text is not None:
        made.evaluated.write_text(text)
    commands = Commands()
    assert work(made, commands) == 0
    assert (commands.calls, commands.present) == (["evaluate"], [False])
    assert is_finished(made, read_record(made))
    aside = made.model / "evaluation.damaged.json"
    assert (aside.read_text() if aside.exists() else None) == text


def test_a_model_that_was_trained_before_is_checked_before_it_is_evaluated(cell, monkeypatch):
    made, commands = cell(), Commands(0, 130)
    work(made, commands)

    def refuse(cell):
        raise CheckpointError("no model")

    monkeypatch.setattr(checks, "check_model", refuse)
    with pytest.raises(CheckpointError, match="no model"):
        work(made, commands)
    assert commands.calls == ["baseline", "evaluate"]
    assert made.evaluated.exists()


def test_fewer_episodes_leave_those_that_are_there(cell):
    made = replace(cell("tt"), evaluation=EvaluationConfig(episodes=100))
    work(made, Commands())
    fewer, again = Commands(), Commands()
    assert work(replace(made, evaluation=EvaluationConfig(episodes=10)), fewer) == 0
    assert work(made, again) == 0
    assert fewer.calls == again.calls == []


def test_a_cell_is_checked_before_it_trains_or_goes_on_training(cell, checked, monkeypatch):
    made, commands = cell(), Commands(130)
    work(made, commands)
    work(made, commands)
    work(made, commands)
    assert commands.calls == ["baseline", "baseline", "evaluate"]
    assert checked == [made, made]

    def refuse(cell):
        raise ConfigError("no simulator")

    monkeypatch.setattr(checks, "check_cell", refuse)
    with pytest.raises(ConfigError, match="no simulator"):
        work(cell("iql"), commands)
    assert len(commands.calls) == 3


def test_no_work_on_a_claimed_cell(cell):
    made, commands = cell(), Commands()
    with Claim(made.claim), pytest.raises(ClaimedError):
        work(made, commands)
    assert commands.calls == []


def test_a_termination_leaves_no_claim(cell):
    made = cell()

    def told(words):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        work(made, told)
    assert not made.claim.exists()
    assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler


@pytest.mark.parametrize(("label", "calls"), [("tt", ["train"]), ("bc", [])])
def test_under_a_launcher_the_other_processes_only_help_a_transformer_train(cell, monkeypatch, label, calls):
    monkeypatch.setenv("RANK", "1")
    made, commands = cell(label), Commands()
    with Claim(made.claim):
        assert work(made, commands) == 0
    assert commands.calls == calls
    record = read_record(made) | {"cost": dict.fromkeys(COST, 1)}
    write_record(made, record)
    later = Commands()
    work(made, later)
    assert later.calls == []


@pytest.mark.parametrize(("device", "uses"), [("cpu", False), ("cuda", True), (None, True)])
def test_the_transformer_trains_where_the_device_says(cell, monkeypatch, device, uses):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "0")
    used = []
    work(cell("tt"), lambda words: used.append(uses_gpu()) or 130, device)
    assert used == [uses]


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("label", ["tt", "bc"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(cell, monkeypatch, label, rank):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.empty", lambda *sizes, device: (_ for _ in ()).throw(RuntimeError("no GPU")))
    monkeypatch.setenv("RANK", rank)
    made, commands = cell(label), Commands()
    if (label, rank) == ("bc", "1"):
        # Which has nothing to do.
        assert work(made, commands, "cuda") == 0
    else:
        with pytest.raises(ConfigError, match=r"There is no device 'cuda' here \(no GPU\)"):
            work(made, commands, "cuda")
    assert commands.calls == []
    assert list(made.output.rglob("*.json")) == []


def test_a_gpu_that_accelerate_leaves_alone_is_refused_to_the_transformer(cell, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    commands = Commands()
    with pytest.raises(ConfigError, match=r"^ACCELERATE_USE_CPU keeps the Trajectory Transformer from the GPU"):
        work(cell("tt"), commands, "cuda")
    assert commands.calls == []
    assert work(cell("bc"), commands, "cuda") == 0
    assert commands.calls == ["baseline", "evaluate"]


def test_a_finished_cell_asks_for_no_device(cell, monkeypatch):
    made = cell("tt")
    work(made, Commands())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert work(made, Commands(), "cuda") == 0
