import fcntl
import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest

import trajplan.baseline_training
import trajplan.evaluating
import trajplan.pretraining
from trajplan.comparison import checks
from trajplan.comparison.cells import COST, is_finished, read_evaluation, read_finished, read_record, write_record
from trajplan.comparison.settings import EvaluationConfig
from trajplan.comparison.work import run_cell
from trajplan.errors import CheckpointError, ConfigError, TrajplanError
from trajplan.evaluating import EvaluationInterrupted
from trajplan.evaluation.report import evaluation_versions
from trajplan.planners.settings import save_planner
from trajplan.presets import preset_named


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """The cells that were checked; the datasets and the models of these tests do not exist."""
    cells = []
    monkeypatch.setattr(checks, "check_cell", lambda cell, device: cells.append(cell))
    monkeypatch.setattr(checks, "check_model", lambda cell: None)
    return cells


class Library:
    """Stands for training and evaluation: keeps what was asked of it, and writes what they leave."""

    def __init__(self):
        self.calls, self.asked, self.present, self.interrupt = [], [], [], []
        self.tasks = None

    def _call(self, name, asked):
        self.calls.append(name)
        self.asked.append(asked)
        return self.interrupt.pop(0) if self.interrupt else False

    def train(self, dataset, output, preset=None, **how):
        return self._trained("train", output, {"dataset": dataset, "preset": preset} | how)

    def baseline(self, method, dataset, output, **how):
        return self._trained("baseline", output, {"method": method, "dataset": dataset} | how)

    def _trained(self, name, folder, asked):
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "training.json", "model.safetensors"):
            (folder / file).write_text("{}")
        save_planner(folder, preset_named("tt_debug").planner)
        lines = [
            {"update": update, "seconds": 10.0 * update, "updates_per_second": speed}
            for update, speed in ((1, 2.0), (2, 4.0), (3, 9.0))
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return SimpleNamespace(interrupted=self._call(name, asked), updates=3)

    def evaluate(self, folder, *, episodes, reference_min, reference_max, **how):
        file = folder / "evaluation.json"
        self.present.append(file.exists())
        interrupted = self._call("evaluate", how | {"episodes": episodes})
        entries = [{"episode": n, "seed": n, "return": 1.0, "length": 5, "success": None} for n in range(episodes)]
        entries = [
            entry | {"episode": n * episodes + entry["episode"]}
            for n in range(len(self.tasks or "1"))
            for entry in entries
        ]
        report = dict.fromkeys(("reference", "planner", "environment", "timing"))
        if reference_min is not None:
            report["reference"] = {"min": reference_min, "max": reference_max, "source": "command line"}
        file.write_text(
            json.dumps({"episodes": entries, "tasks": self.tasks, "versions": evaluation_versions()} | report)
        )
        if interrupted:
            raise EvaluationInterrupted("2 of 4 episodes are finished")
        return SimpleNamespace(path=file)

    def clear(self):
        for kept in (self.calls, self.asked, self.present):
            kept.clear()


@pytest.fixture
def library(monkeypatch):
    made = Library()
    monkeypatch.setattr(trajplan.pretraining, "train", made.train)
    monkeypatch.setattr(trajplan.baseline_training, "baseline", made.baseline)
    monkeypatch.setattr(trajplan.evaluating, "evaluate", made.evaluate)
    return made


def test_trains_then_evaluates_and_keeps_what_it_took(cell, library):
    made = cell()
    assert run_cell(made)
    assert library.calls == ["baseline", "evaluate"]
    record = read_record(made)
    assert record["finished"]
    cost = record["cost"]
    assert (cost["updates"], cost["training_seconds"], cost["updates_per_second"]) == (3, 30.0, 4.0)
    assert 2**24 < cost["peak_memory_bytes"] < 2**40


def test_training_and_evaluation_are_asked_for_what_the_cell_says(cell, library):
    settings = {"preset": "tt_debug", "epochs": 0.5, "termination_penalty": None, "planner.horizon": 5}
    made = cell("tt", 1, settings=settings)
    assert run_cell(made, "cpu")
    training, evaluation = library.asked
    assert training == {
        "dataset": (made.dataset,), "preset": "tt_debug", "resume": True, "device": "cpu", "seed": 1,
        "epochs": 0.5, "termination_penalty": None,
    }  # fmt: skip
    planner = replace(preset_named("tt_debug").planner, horizon=5)
    assert evaluation == {
        "output": made.model, "resume": True, "device": "cpu", "planner": planner, "episodes": 4, "seed": 0,
        "num_envs": 10, "env": None, "max_episode_steps": None,
    }  # fmt: skip
    library.clear()
    run_cell(cell("bc10", 2, method="bc", settings={"top_fraction": 0.1}))
    training, evaluation = library.asked
    assert (training["method"], training["seed"], training["top_fraction"]) == ("bc", 2, 0.1)
    assert evaluation["planner"] is None


def test_a_named_planner_evaluates(cell, library):
    run_cell(cell("tt", settings={"planner": "imitation", "planner.beam_width": 3}))
    planner = library.asked[1]["planner"]
    # Of the checkpoint's own it takes over what belongs to the model.
    assert (type(planner).__name__, planner.beam_width, planner.context) == ("ImitationConfig", 3, 2)


def test_a_finished_cell_is_left_alone(cell, library, capsys):
    run_cell(cell())
    library.clear()
    assert run_cell(cell())
    assert library.calls == []
    assert "bc/0 is finished" in capsys.readouterr().out


def test_resumes_where_it_was_interrupted(cell, library, capsys):
    made = cell()
    library.interrupt = [True]
    assert not run_cell(made)
    assert read_record(made)["cost"] is None
    assert "bc/0 stopped after 3 updates, saved: the same command resumes." in capsys.readouterr().err
    library.clear()
    library.interrupt = [False, True]
    assert not run_cell(made)
    assert library.calls == ["baseline", "evaluate"]
    assert not read_record(made)["finished"]
    assert "2 of 4 episodes are finished" in capsys.readouterr().err
    library.clear()
    assert run_cell(made)
    assert (library.calls, library.present) == (["evaluate"], [True])


def test_a_longer_evaluation_resumes(cell, library):
    made = cell("tt")
    run_cell(made)
    library.clear()
    assert run_cell(replace(made, evaluation=EvaluationConfig(episodes=9)))
    assert (library.calls, library.present) == (["evaluate"], [True])


def test_another_evaluation_starts_over_and_keeps_the_one_before(cell, library, capsys):
    made = cell("tt")
    run_cell(made)
    texts = []
    for settings in ({"planner.horizon": 3}, {"planner": "imitation"}):
        library.clear()
        texts.append(made.evaluated.read_text() + " " * (len(texts) + 1))
        made.evaluated.write_text(texts[-1])
        assert run_cell(replace(made, settings=settings))
        assert (library.calls, library.present) == (["evaluate"], [False])
    kept = [made.model / name for name in ("evaluation.before.json", "evaluation.before-2.json")]
    assert [path.read_text() for path in kept] == texts
    assert f"{made.evaluated} was evaluated with other settings: it is kept as evaluation.before-2.json" in (
        capsys.readouterr().out
    )


def test_what_other_packages_evaluated_stays_finished_and_is_not_resumed(cell, library, capsys):
    made = cell()
    run_cell(made)
    text = json.dumps(json.loads(made.evaluated.read_text()) | {"versions": evaluation_versions() | {"torch": "0.1"}})
    made.evaluated.write_text(text)
    library.clear()
    assert run_cell(made)
    assert library.calls == []
    assert run_cell(replace(made, evaluation=EvaluationConfig(episodes=9)))
    assert (library.calls, library.present) == (["evaluate"], [False])
    assert (made.model / "evaluation.before.json").read_text() == text
    assert "was evaluated with other versions of packages: it is kept as evaluation.before.json" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("asked", [2, 4, 9])
def test_other_reference_scores_keep_all_episodes_that_are_there(cell, library, asked):
    made = cell()
    run_cell(made)
    library.clear()
    now = replace(made, evaluation=EvaluationConfig(episodes=asked, reference_min=0.0, reference_max=1.0))
    assert run_cell(now)
    assert (library.calls, library.present) == (["evaluate"], [True])
    assert len(json.loads(made.evaluated.read_text())["episodes"]) == max(4, asked)
    assert is_finished(now, read_record(now))


@pytest.mark.parametrize("text", [None, "", '{"episodes": [{}]}', "[1]"])
def test_a_damaged_evaluation_is_made_again_and_kept_aside(cell, library, text):
    made = cell()
    run_cell(made)
    made.evaluated.unlink()
    if text is not None:
        made.evaluated.write_text(text)
    library.clear()
    assert run_cell(made)
    assert (library.calls, library.present) == (["evaluate"], [False])
    assert is_finished(made, read_record(made))
    aside = made.model / "evaluation.damaged.json"
    assert (aside.read_text() if aside.exists() else None) == text


def test_a_model_that_was_trained_before_is_checked_before_it_is_evaluated(cell, library, monkeypatch):
    made = cell()
    library.interrupt = [False, True]
    run_cell(made)

    def refuse(cell):
        raise CheckpointError("no model")

    monkeypatch.setattr(checks, "check_model", refuse)
    with pytest.raises(CheckpointError, match="no model"):
        run_cell(made)
    assert library.calls == ["baseline", "evaluate"]
    assert made.evaluated.exists()


def test_episodes_are_asked_for_of_each_task(cell, library):
    library.tasks = [1, 2, 3]
    made = replace(cell("tt"), evaluation=EvaluationConfig(episodes=4))
    assert run_cell(made)
    evaluation, *_ = read_finished(made, read_record(made))
    assert len(evaluation["episodes"]) == 12
    fewer = replace(made, evaluation=EvaluationConfig(episodes=2))
    assert is_finished(fewer, read_record(made))
    assert [entry["episode"] for entry in read_evaluation(fewer)["episodes"]] == list(range(6))
    # What is there is not asked for as if it were of one task.
    library.clear()
    assert run_cell(replace(made, evaluation=EvaluationConfig(episodes=5)))
    assert [asked["episodes"] for asked in library.asked] == [5]
    written = json.loads(made.evaluated.read_text())
    made.evaluated.write_text(json.dumps(written | {"episodes": written["episodes"][:-1]}))
    assert not is_finished(replace(made, evaluation=EvaluationConfig(episodes=5)), read_record(made))


def test_fewer_episodes_leave_those_that_are_there(cell, library):
    made = replace(cell("tt"), evaluation=EvaluationConfig(episodes=100))
    run_cell(made)
    library.clear()
    assert run_cell(replace(made, evaluation=EvaluationConfig(episodes=10)))
    assert run_cell(made)
    assert library.calls == []


def test_a_cell_is_checked_before_it_trains_or_resumes_training(cell, library, checked, monkeypatch):
    made = cell()
    library.interrupt = [True]
    for _ in range(3):
        run_cell(made)
    assert library.calls == ["baseline", "baseline", "evaluate"]
    assert checked == [made, made]

    def refuse(cell, device):
        raise ConfigError("no simulator")

    monkeypatch.setattr(checks, "check_cell", refuse)
    with pytest.raises(ConfigError, match="no simulator"):
        run_cell(cell("iql"))
    assert len(library.calls) == 3


def test_a_second_process_leaves_a_cell_alone(cell, library):
    made = cell()
    made.folder.mkdir(parents=True)
    with (made.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrajplanError, match=f"^Another process works on {made.folder}; start each cell once"):
            run_cell(made)
    assert library.calls == []
    assert run_cell(made)


def test_a_termination_ends_it_as_ctrl_c_does(cell, library, monkeypatch):
    def told(*arguments, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(trajplan.baseline_training, "baseline", told)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell())
    assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler


@pytest.mark.parametrize(("label", "calls"), [("tt", ["train"]), ("bc", [])])
def test_under_a_launcher_the_other_processes_only_help_a_transformer_train(cell, library, monkeypatch, label, calls):
    monkeypatch.setenv("RANK", "1")
    made = cell(label)
    made.folder.mkdir(parents=True)
    assert run_cell(made)
    assert library.calls == calls
    library.clear()
    write_record(made, read_record(made) | {"cost": dict.fromkeys(COST, 1)})
    run_cell(made)
    assert library.calls == []


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("label", ["tt", "bc"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(cell, library, monkeypatch, label, rank):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.empty", lambda *sizes, device: (_ for _ in ()).throw(RuntimeError("no GPU")))
    monkeypatch.setenv("RANK", rank)
    made = cell(label)
    if (label, rank) == ("bc", "1"):
        # Which has nothing to do.
        assert run_cell(made, "cuda")
    else:
        with pytest.raises(ConfigError, match=r"There is no device 'cuda' here \(no GPU\)"):
            run_cell(made, "cuda")
    assert library.calls == []
    assert list(made.output.rglob("*.json")) == []


def test_a_gpu_that_accelerate_leaves_alone_is_refused_to_the_transformer(cell, library, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(ConfigError, match=r"^ACCELERATE_USE_CPU keeps the Trajectory Transformer from the GPU"):
        run_cell(cell("tt"), "cuda")
    assert library.calls == []
    assert run_cell(cell("bc"), "cuda")
    assert library.calls == ["baseline", "evaluate"]


def test_a_finished_cell_asks_for_no_device(cell, library, monkeypatch):
    made = cell("tt")
    run_cell(made)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_cell(made, "cuda")
