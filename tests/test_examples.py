"""The examples run from end to end: in small with every test run, at their own length where asked for (slow)."""

import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = json.loads((EXAMPLES / "tour.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The examples set these for their own process."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", "unset")
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def display(monkeypatch):
    """What the notebook shows of IPython, which a kernel has and this process need not."""
    shown = []
    module = types.ModuleType("IPython.display")
    module.Image = lambda path: shown.append(Path(path))
    package = types.ModuleType("IPython")
    package.version_info = (9, 0)  # which matplotlib asks for
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def run_own_data(module, folder, capsys):
    module.main(["--output", str(folder / "own")])
    said = capsys.readouterr().out
    found = re.findall(r"^(model|cloning): mean return ([\d.]+); the data ([\d.]+)$", said, re.MULTILINE)
    assert [name for name, *_ in found] == ["model", "cloning"]
    assert (folder / "own" / "minari" / "cartpole" / "mine-v0").is_dir()
    example("own_loop").main([str(folder / "own" / "model"), "--steps", "45"])
    said = capsys.readouterr().out
    assert re.search(r"^step 0: 16 beams of 7 steps, \d+ different first actions", said, re.MULTILINE)
    assert re.search(r"^\d+ steps, return [\d.]+$", said, re.MULTILINE)
    example("own_loop").main([str(folder / "own" / "cloning"), "--steps", "2"])
    assert "no plan: this policy is a baseline" in capsys.readouterr().out
    return {name: (float(mean), float(data)) for name, mean, data in found}


def test_own_data_and_own_loop_in_small(places, monkeypatch, capsys):
    module = example("own_data")
    for name, value in {"EPISODES": 20, "UPDATES": 10, "LIMIT": 20}.items():
        monkeypatch.setattr(module, name, value)
    run_own_data(module, places, capsys)


@pytest.mark.slow
def test_own_data_plans_better_than_the_data(places, capsys):
    mean, data = run_own_data(example("own_data"), places, capsys)["model"]
    assert mean > data + 30


def run_notebook(replaced, display):
    namespace = {"__name__": "__main__"}
    for number, source in enumerate(CODE):
        exec(compile(replaced(source), f"cell {number}", "exec"), namespace)
    assert [path.name for path in display] == ["plan.png"]
    assert display[0].stat().st_size > 10_000
    return namespace


def test_the_notebook_in_small(places, display, monkeypatch):
    monkeypatch.setattr("trajplan.evaluation.pictures.fan.PATHS", 8)
    assert any("EPISODES, UPDATES = 300, 400" in source for source in CODE)
    run_notebook(lambda source: source.replace("EPISODES, UPDATES = 300, 400", "EPISODES, UPDATES = 12, 12"), display)


@pytest.mark.slow
def test_the_notebook(places, display):
    namespace = run_notebook(lambda source: source, display)
    assert namespace["result"].metrics["held_out/observation"] < 1.5


def test_the_notebook_is_small_cleared_and_of_todays_format():
    assert (EXAMPLES / "tour.ipynb").stat().st_size < 50_000
    assert NOTEBOOK["nbformat"] == 4
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            for target in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"])):
                assert (EXAMPLES / target).exists(), target
