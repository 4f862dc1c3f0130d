import fcntl
from types import SimpleNamespace

import pytest

import trajplan.baseline_training
from trajplan.comparison import checks, together
from trajplan.comparison.cells import COST, read_record, write_record
from trajplan.comparison.together import plan, train_together
from trajplan.comparison.worker import run_together_logged
from trajplan.errors import TrajplanError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def names(planned):
    return [[cell.name for cell in piece] for piece in planned.pieces]


@pytest.fixture
def settings_for(monkeypatch):
    """Stands for the settings that the presets give, which need a dataset."""
    from trajplan.baselines.engine.settings import RunConfig
    from trajplan.baselines.registry import METHODS

    def give(method, info, settings, run_to_resume):
        given = dict(settings)
        run = {name: given.pop(name) for name in ("seed", "updates") if name in given}
        return METHODS[method].config_class()(**given), RunConfig(**run)

    monkeypatch.setattr(trajplan.baseline_training, "settings_for", give)


@pytest.mark.usefixtures("settings_for")
def test_cells_that_differ_in_their_seed_alone_become_one_piece(cell):
    cells = [cell(label, seed, method=label.rstrip("2")) for seed in range(3) for label in ("bc", "tt", "bc2", "mopo")]
    planned = plan(cells, None, None, "yes")
    assert names(planned) == [
        ["bc/0", "bc/1", "bc/2"], ["tt/0"], ["bc2/0", "bc2/1", "bc2/2"], ["mopo/0"],
        ["tt/1"], ["mopo/1"], ["tt/2"], ["mopo/2"],
    ]  # fmt: skip
    assert planned.lines == [
        "bc: seeds 0, 1, 2 are trained together.",
        "bc2: seeds 0, 1, 2 are trained together.",
        "mopo: seeds are trained one by one, as it learns in rollouts of a dynamics model.",
    ]


@pytest.mark.usefixtures("settings_for")
def test_of_its_own_accord_only_on_a_gpu(cell, monkeypatch):
    cells = [cell("iql", seed) for seed in range(2)]
    assert names(plan(cells, None, None, "auto")) == [["iql/0"], ["iql/1"]]
    assert names(plan(cells, None, None, "yes")) == [["iql/0", "iql/1"]]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert names(plan(cells, None, None, "auto")) == names(plan(cells, None, "cuda", "auto")) == [["iql/0", "iql/1"]]
    assert names(plan(cells, None, "cpu", "auto")) == names(plan(cells, None, None, "no")) == [["iql/0"], ["iql/1"]]
    assert names(plan(cells[:1], None, None, "yes")) == [["iql/0"]]


@pytest.mark.usefixtures("settings_for")
def test_what_is_trained_or_cannot_be_read_stays_a_piece_of_its_own(cell):
    cells = [cell("iql", seed) for seed in range(5)]
    cells[1].folder.mkdir(parents=True)
    write_record(cells[1], read_record(cells[1]) | {"cost": dict.fromkeys(COST)})
    cells[3].folder.mkdir(parents=True)
    (cells[3].folder / "cell.json").write_text("{")
    assert names(plan(cells, None, None, "yes")) == [["iql/0", "iql/2", "iql/4"], ["iql/1"], ["iql/3"]]


@pytest.fixture
def trained(monkeypatch):
    """What was asked of the training, which stands for the real one and ends each seed as `results` says."""
    asked, results = [], {}

    def train(method, dataset, outputs, *, device, **settings):
        asked.append((method, dataset, sorted(outputs), device, settings))
        return {seed: results.get(seed, SimpleNamespace(interrupted=False)) for seed in outputs}

    cost = dict.fromkeys(COST, 1)
    monkeypatch.setattr(trajplan.baseline_training, "baseline_seeds", train)
    monkeypatch.setattr(checks, "check_cell", lambda cell, device: None)
    monkeypatch.setattr(together, "write_cost", lambda cell, record, count: write_record(
        cell, record | {"cost": cost | {"together": count}}
    ))  # fmt: skip
    return SimpleNamespace(asked=asked, results=results)


def test_every_seed_has_its_record_and_one_that_fails_does_not_stop_the_others(cell, trained):
    cells = [cell("iql", seed, settings={"expectile": 0.8}) for seed in range(5)]
    trained.results |= {1: TrajplanError("value/loss is nan"), 2: SimpleNamespace(interrupted=True)}
    cells[3].folder.mkdir(parents=True)
    with (cells[3].folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = train_together(cells, "cpu")
    assert trained.asked == [("iql", ("toy/hopper/medium-replay-v0",), [0, 1, 2, 4], "cpu", {"expectile": 0.8})]
    assert {made.seed: reason and str(reason).split(";")[0] for made, reason in left.items()} == {
        1: "value/loss is nan",
        2: None,
        3: f"Another process works on {cells[3].folder}",
    }
    costs = [read_record(made)["cost"] for made in cells]
    assert [cost and cost["together"] for cost in costs] == [4, None, None, None, 4]


def test_each_is_evaluated_on_its_own_and_what_went_wrong_is_in_its_log(cell, trained, monkeypatch):
    cells = [cell("iql", seed) for seed in range(4)]
    for made in cells:
        made.folder.mkdir(parents=True)
    trained.results |= {1: TrajplanError("value/loss is nan")}
    evaluated = []

    def work(made, device):
        evaluated.append(made.seed)
        if made.seed == 2:
            raise TrajplanError("no such environment")
        return made.seed != 3

    monkeypatch.setattr("trajplan.comparison.worker.run_cell", work)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert run_together_logged(cells, "cpu") == [True, "value/loss is nan", "no such environment", False]
    assert evaluated == [0, 2, 3]
    first = "iql/0, iql/1, iql/2, iql/3 are trained together; what the training prints is in "
    assert all(made.log.read_text().startswith(f"{first}{cells[0].log}") for made in cells[1:])
    assert "error: value/loss is nan" in cells[1].log.read_text()
    assert "error: no such environment" in cells[2].log.read_text()


def test_a_signal_during_the_training_leaves_every_cell_for_the_next_time(cell, trained, monkeypatch):
    cells = [cell("iql", seed) for seed in range(2)]
    for made in cells:
        made.folder.mkdir(parents=True)
    trained.results |= dict.fromkeys(range(2), SimpleNamespace(interrupted=True))
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert run_together_logged(cells, "cpu") == [False, False]
    assert read_record(cells[0])["cost"] is None
