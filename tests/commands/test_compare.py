import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest

import trajplan
from trajplan.baselines.registry import METHODS, Entry
from trajplan.cli import main
from trajplan.comparison import checks
from trajplan.data.collection.collect import collect_dataset
from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.errors import DataError

ID = "toy/pendulum-v0"
SHORT = [
    "baselines.updates=6", "baselines.batch_size=4", "baselines.hidden_width=8", "baselines.hidden_layers=1",
    "baselines.eval_every=3", "baselines.eval_episodes=2", "baselines.log_every=3", "baselines.save_every=3",
]  # fmt: skip
TIMES = ("seconds", "updates_per_second")
TT = ["tt.preset=tt_debug", "tt.updates=4", "tt.planner.horizon=2", "tt.planner.beam_width=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A Minari root with six short random episodes of Pendulum-v1."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TRAJPLAN_CACHE", str(folder / "cache"))
        collect_dataset(
            "Pendulum-v1", ID, episodes=6, policy="random", max_episode_steps=8,
            reference=ReferenceScores(-100.0, 0.0, "made up"),
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def environment(data, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(data / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")


def compare(output, *arguments, methods="bc,iql", settings=SHORT, seeds=1):
    words = ["compare", "--dataset", ID, "--methods", methods, "--seeds", str(seeds), "--episodes", "3"]
    words += ["--device", "cpu", "--output", str(output), *arguments]
    return main([*words, "--set", *settings] if settings else words)


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    """A comparison whose cells were worked on one by one, as a scheduler does: bc, bc10 and tt with one seed each."""
    output = tmp_path_factory.mktemp("comparison") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(data / "minari"))
        patch.setenv("TRAJPLAN_CACHE", str(data / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "1")
        for cell in ("bc/0", "bc10/0", "tt/0"):
            assert compare(output, "--cell", cell, **MIXED) == 0
    return output


MIXED = {"methods": "bc,bc10=bc,tt", "settings": [*SHORT, *TT, "bc10.top_fraction=0.5"]}


def test_the_report_of_cells_that_were_worked_on_one_by_one(compared, capsys):
    assert compare(compared, "--report", **MIXED) == 0
    with (compared / "comparison.csv").open(newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["bc", "bc10", "tt"]
    assert (rows["bc10"]["method"], rows["bc10"]["updates"], rows["tt"]["updates"]) == ("bc", "6", "4")
    for label, row in rows.items():
        evaluation = json.loads((compared / label / "seed-0/model/evaluation.json").read_text())
        returns = [episode["return"] for episode in evaluation["episodes"]]
        assert float(row["mean_return"]) == pytest.approx(sum(returns) / 3)
        assert float(row["normalized_score"]) == pytest.approx(100 + sum(returns) / 3)
        assert float(row["training_seconds"]) > 0
    text = (compared / "report.html").read_text()
    assert "Comparison on toy/pendulum-v0" in text
    assert "&quot;top_fraction&quot;: 0.5" in text
    assert "&quot;planner.horizon&quot;: 2" in text
    out = capsys.readouterr().out
    assert f"written  {compared / 'report.html'}" in out


@pytest.fixture
def no_simulator(monkeypatch):
    def missing(make_env, info):
        raise DataError("its simulator is not installed here.")

    monkeypatch.setattr(checks, "try_environment", missing)


def test_a_report_needs_no_simulator(compared, no_simulator, capsys):
    assert compare(compared, "--report", **MIXED) == 0
    assert "written" in capsys.readouterr().out


@pytest.mark.parametrize(("cell", "settings"), [("bc/0", [*SHORT, "bc.eval_every=0"]), ("tt/0", [*SHORT, *TT])])
def test_a_cell_tries_its_environment_before_it_trains(tmp_path, no_simulator, cell, settings, capsys):
    assert compare(tmp_path / "out", "--cell", cell, methods="bc,tt", settings=settings) == 2
    assert "trajplan: error: its simulator is not installed here.\n" in capsys.readouterr().err
    assert list((tmp_path / "out").rglob("model")) == []


@pytest.fixture
def copied(compared, tmp_path):
    return shutil.copytree(compared, tmp_path / "out")


def test_cells_that_are_not_finished_are_named_by_the_report(copied, capsys):
    (copied / "bc10/seed-0/model/evaluation.json").write_text("{")
    assert compare(copied, "--report", seeds=2, **MIXED) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Not in the report: ")]
    assert "bc/1, bc10/1, tt/1 (not begun, or not finished)" in line
    assert f"bc10/0 ({copied}/bc10/seed-0/model/evaluation.json cannot be read" in line
    with (copied / "comparison.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["bc", "tt"]
    text = (copied / "report.html").read_text()
    assert all(f"<li><b>{name}</b>" in text for name in ("bc10/0", "bc/1", "bc10/1", "tt/1"))


def test_a_cell_whose_evaluation_is_damaged_is_evaluated_again(copied, capsys):
    path = copied / "bc/seed-0/model/evaluation.json"
    before = json.loads(path.read_text())["episodes"]
    path.write_text("{")
    assert compare(copied, "--dry-run", **MIXED) == 0
    assert "--cell bc/0" in capsys.readouterr().out
    assert compare(copied, "--cell", "bc/0", **MIXED) == 0
    assert json.loads(path.read_text())["episodes"] == before
    assert compare(copied, "--report", **MIXED) == 0
    assert "Not in the report" not in capsys.readouterr().err


def test_other_reference_scores_run_no_episode_again(copied, capsys):
    path = copied / "bc/seed-0/model/evaluation.json"
    before = json.loads(path.read_text())
    # What no episode gives: one that is run again would have another return.
    before["episodes"][1]["return"] = 50.0
    path.write_text(json.dumps(before))
    scale = ["--reference-min", "0", "--reference-max", "200"]
    assert compare(copied, "--cell", "bc/0", *scale, **MIXED) == 0
    after = json.loads(path.read_text())
    assert [entry["return"] for entry in after["episodes"]] == [entry["return"] for entry in before["episodes"]]
    assert after["episodes"][1]["normalized_score"] == pytest.approx(25.0)
    assert after["timing"] == before["timing"]
    assert compare(copied, "--report", *scale, **MIXED) == 0
    assert "Not in the report: bc10/0, tt/0 " in capsys.readouterr().err
    assert compare(copied, "--report", **MIXED) == 0
    assert "Not in the report: bc/0 " in capsys.readouterr().err


def test_more_episodes_after_an_upgrade_are_all_run_by_the_new_packages(copied, capsys):
    path = copied / "bc/seed-0/model/evaluation.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {"versions": before["versions"] | {"gymnasium": "0.1"}}))
    assert compare(copied, "--cell", "bc/0", "--episodes", "4", **MIXED) == 0
    after = json.loads(path.read_text())
    assert after["versions"] == before["versions"]
    assert after["timing"]["steps"] == sum(entry["length"] for entry in after["episodes"])
    assert len(after["episodes"]) == 4
    assert "it is kept as evaluation.before.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_cell_whose_model_is_damaged_says_what_to_delete(copied, name, capsys):
    model = copied / "bc/seed-0/model"
    (model / "evaluation.json").unlink()
    (model / name).write_bytes((model / name).read_bytes()[:40])
    assert compare(copied, "--cell", "bc/0", **MIXED) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trajplan: error: bc/0 was trained, but ")
    assert line.endswith(f"; delete {copied}/bc/seed-0 to train it again.")
    shutil.rmtree(copied / "bc/seed-0")
    assert compare(copied, "--cell", "bc/0", **MIXED) == 0


def test_all_cells_ran_the_same_episodes_in_the_same_environment(compared):
    files = [compared / label / "seed-0/model/evaluation.json" for label in ("bc", "bc10", "tt")]
    evaluations = [json.loads(file.read_text()) for file in files]
    assert [[episode["seed"] for episode in evaluation["episodes"]] for evaluation in evaluations] == [[0, 1, 2]] * 3
    assert evaluations[0]["environment"] == evaluations[1]["environment"] == evaluations[2]["environment"]
    assert evaluations[2]["planner"]["beam_width"] == 2


def test_another_planner_is_named_and_evaluates_the_same_model(copied, capsys):
    model = copied / "tt/seed-0/model"
    before = (model / "model.safetensors").read_bytes()
    other = MIXED | {"settings": [*MIXED["settings"], "tt.planner=imitation"]}
    assert compare(copied, "--cell", "tt/0", **other) == 0
    assert "it is kept as evaluation.before.json" in capsys.readouterr().out
    assert (model / "model.safetensors").read_bytes() == before
    evaluation = json.loads((model / "evaluation.json").read_text())
    assert (evaluation["planner"]["type"], evaluation["planner"]["beam_width"]) == ("imitation", 2)
    assert compare(copied, "--report", **other) == 0
    text = (copied / "report.html").read_text()
    assert "Planners: imitation of tt." in text
    assert "&quot;planner.type&quot;: &quot;imitation&quot;" in text


def test_a_cells_model_is_a_checkpoint_like_any_other(compared):
    controller = trajplan.load(compared / "bc/seed-0/model", device="cpu")
    env = controller.info.make_env()
    observation, _ = env.reset(seed=0)
    controller.reset(seed=0)
    assert env.action_space.contains(controller.act(observation))


def test_the_commands_of_what_is_left(compared, capsys):
    assert compare(compared, "--dry-run", **MIXED) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 of 3 cells are finished" in captured.err
    assert compare(compared, "--dry-run", seeds=2, **MIXED) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line)[shlex.split(line).index("--cell") + 1] for line in lines] == ["bc/1", "bc10/1", "tt/1"]
    assert all(line.startswith("trajplan compare --dataset toy/pendulum-v0") for line in lines)


def test_other_settings_for_what_is_there_are_refused(compared, capsys):
    other = {"methods": "bc,bc10=bc,tt", "settings": [*SHORT, *TT, "bc10.top_fraction=0.5", "bc.updates=7"]}
    assert compare(compared, "--dry-run", **other) == 2
    assert "updates is 7 and was 6" in capsys.readouterr().err


def test_a_finished_cell_is_done_at_once(compared, capsys):
    assert compare(compared, "--cell", "bc/0", **MIXED) == 0
    assert "bc/0 is finished" in capsys.readouterr().out


def test_one_command_does_all_and_a_failure_costs_one_cell(tmp_path, capsys):
    """In processes of its own, two at a time; one of the cells finds a damaged folder."""
    output = tmp_path / "out"
    damaged = output / "iql/seed-0/model"
    damaged.mkdir(parents=True)
    for name in ("config.json", "training.json", "dataset.json"):
        (damaged / name).write_text("{")
    assert compare(output, "--jobs", "2") == 1
    captured = capsys.readouterr()
    assert "bc/0 finished after" in captured.err
    log = output / "iql/seed-0/log.txt"
    assert "iql/0 failed after" in captured.err
    assert "cannot be read" in captured.err
    assert f"(log: {log})" in captured.err
    text = (output / "report.html").read_text()
    assert "iql/seed-0/log.txt" in text
    with (output / "comparison.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["bc"]


def test_seeds_trained_together_give_the_results_of_seeds_trained_one_by_one(tmp_path, capsys):
    """A third seed later joins none of them; a scheduler's command finds its cell finished."""
    rows = {}
    for when in ("no", "yes"):
        output = tmp_path / when
        assert compare(output, "--seeds-together", when, methods="bc,iql", seeds=2) == 0
        with (output / "comparison.csv").open(newline="") as file:
            rows[when] = list(csv.DictReader(file))
    assert "iql: seeds 0, 1 are trained together." in capsys.readouterr().err
    for one, other in zip(rows["yes"], rows["no"], strict=True):
        assert (one["label"], one["seed"], one["updates"]) == (other["label"], other["seed"], other["updates"])
        assert float(one["mean_return"]) == pytest.approx(float(other["mean_return"]), rel=1e-4)
        assert (one["seeds_together"], other["seeds_together"]) == ("2", "1")
        lines = [(tmp_path / when / one["folder"] / "model/metrics.jsonl").read_text() for when in ("yes", "no")]
        numbers = [[json.loads(line) for line in text.splitlines()] for text in lines]
        for values, expected in zip(*numbers, strict=True):
            assert values == pytest.approx(expected | {key: values[key] for key in TIMES}, rel=1e-3, abs=1e-4)
    assert compare(tmp_path / "yes", "--seeds-together", "yes", methods="bc,iql", seeds=3) == 0
    assert "together" not in capsys.readouterr().err
    assert compare(tmp_path / "yes", "--cell", "iql/1", methods="bc,iql") == 0
    assert "iql/1 is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["--ray", "--seeds-together", "yes"], {}, "--ray works cell by cell"),
        ([], {"methods": "bc,ppo"}, "Unknown method 'ppo'"),
        ([], {"settings": ["bc.expectile=0.5"]}, "bc has no setting 'expectile'"),
        ([], {"settings": ["iql.expectile=1.5"]}, "expectile is 1.5"),
        ([], {"settings": ["tt.epochs=1"]}, "'tt' is none of the methods compared"),
        ([], {"seeds": 0}, "--seeds is 0; it must be at least 1"),
        (["--jobs", "0"], {}, "--jobs is 0"),
        (["--episodes", "0"], {}, "episodes is 0"),
        (["--max-episode-steps", "0"], {}, "max_episode_steps is 0; it must be at least 1"),
        (["--env", "Nothing-v0"], {}, "'Nothing-v0' is not registered"),
        (["--env", "CartPole-v1"], {}, "CartPole-v1 does not fit"),
        (["--reference-min", "1"], {}, "give both --reference-min and --reference-max"),
        (["--cell", "tt/0"], {}, "--cell takes a method of --methods and a seed, such as bc/0"),
        (["--cell", "bc"], {}, "--cell takes a method"),
    ],
)
def test_bad_input_is_refused_before_any_training(arguments, changes, message, tmp_path, capsys):
    assert compare(tmp_path / "out", *arguments, **changes) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [[], ["--report"], ["--dry-run"], ["--cell", "bc/0"]])
@pytest.mark.parametrize("below", ["", "sub"])
def test_an_output_that_is_a_file_is_refused(below, how, tmp_path, capsys):
    file = tmp_path / "afile"
    file.write_text("mine")
    assert compare(file / below, *how) == 2
    assert capsys.readouterr().err == (
        f"trajplan: error: {file / below} cannot be made: {file} is a file; choose another --output.\n"
    )
    assert file.read_text() == "mine"


@pytest.mark.parametrize("how", [[], ["--cell", "bc/0"]])
def test_an_output_that_cannot_be_made_is_refused(how, tmp_path, monkeypatch, capsys):
    output, original = tmp_path / "out", Path.mkdir

    def mkdir(path, *arguments, **keywords):
        if output in path.parents:
            raise PermissionError(13, "Permission denied")
        original(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert compare(output, *how) == 2
    assert "cannot be made: Permission denied; choose another --output." in capsys.readouterr().err


@pytest.mark.parametrize("how", [[], ["--cell", "tt/0"]])
def test_a_device_that_is_not_there_is_refused_before_any_training(how, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.empty", lambda *sizes, device: (_ for _ in ()).throw(RuntimeError("no GPU")))
    assert compare(tmp_path / "out", "--device", "cuda", *how, methods="bc,tt", settings=[*SHORT, *TT]) == 2
    assert "There is no device 'cuda' here (no GPU)" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.json")) == []


def test_a_method_that_is_not_for_the_datasets_actions_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, "iql", Entry("Choices", "trajplan.baselines.iql", "IQLConfig", None, "IQL"))
    assert compare(tmp_path / "out") == 2
    assert "Choices is for Discrete actions only" in capsys.readouterr().err


def test_nothing_to_report_and_no_launcher(tmp_path, monkeypatch, capsys):
    assert compare(tmp_path / "out", "--report") == 0
    assert "No cell is finished yet" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compare(tmp_path / "out") == 2
    assert "without a launcher" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_datasets_are_compared_on_as_one(data, tmp_path, capsys):
    second = "toy/other-v0"
    if not (data / "minari" / second).exists():
        OfflineDataset.from_minari(ID).save(second)
    output = tmp_path / "together"
    words = [
        "compare",
        "--dataset",
        ID,
        second,
        "--methods",
        "bc",
        "--seeds",
        "1",
        "--episodes",
        "2",
        "--device",
        "cpu",
    ]
    words += ["--output", str(output), "--set", *SHORT]
    assert main([*words, "--dry-run"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"--dataset {ID} {second} --methods" in line
    assert main(shlex.split(line)[1:]) == 0
    told = json.loads((output / "bc" / "seed-0" / "model" / "dataset.json").read_text())
    assert [source["id"] for source in told["sources"]] == [ID, second]
    assert main([*words, "--report"]) == 0
    assert f"{ID} + {second}" in (output / "report.html").read_text()
    assert main([*words[:3], *words[4:], "--report"]) == 2
    assert "other" in capsys.readouterr().err


def test_planners_on_an_ensemble_are_compared_by_name(tmp_path, capsys):
    small = ["model_members=2", "model_elites=2", "model_layers=1", "model_width=8", "model_max_epochs=1"]
    labels = {"dynamics": "cem", "mb": "mbop"}
    settings = [f"{label}.{each}" for label in labels for each in [*small, "planner.samples=12", "planner.horizon=3"]]
    settings += ["mb.planner=mbop", *SHORT]
    assert compare(tmp_path / "out", methods="bc,dynamics,mb=dynamics", settings=settings) == 0, capsys.readouterr()
    for label, planner in labels.items():
        model = tmp_path / "out" / label / "seed-0/model"
        written = json.loads((model / "evaluation.json").read_text())
        assert (written["planner"]["type"], written["planner"]["samples"]) == (planner, 12)
        assert json.loads((model / "training.json").read_text())["seed"] == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "dynamics" in page
    assert "mbop" in page
    alone = [word for word in settings if word.startswith("mb.")]
    assert compare(tmp_path / "no", methods="mb=dynamics", settings=[*alone, "mb.prior=false"]) == 2
    assert "mbop plans with cloned policies, which prior=false leaves out" in capsys.readouterr().err
