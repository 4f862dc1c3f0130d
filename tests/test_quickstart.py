"""The quickstart in small: every step's result is there, an interrupted run goes on, a finished one starts at once."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

MIXTURE = "mean behaviour in the data"
PATH = Path(__file__).parents[1] / "examples" / "quickstart.py"


@pytest.fixture
def quickstart(monkeypatch):
    monkeypatch.syspath_prepend(PATH.parent)
    spec = importlib.util.spec_from_file_location("quickstart", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EPISODES", 8)
    monkeypatch.setattr(module, "PRESET", "tt_debug")
    monkeypatch.setattr(module, "CLONING_UPDATES", 20)
    # The quickstart sets these for its own process.
    monkeypatch.setenv("MINARI_DATASETS_PATH", "unset")
    monkeypatch.setenv("TRAJPLAN_CACHE", "unset")
    return module


def test_it_resumes_reports_and_then_does_nothing_again(quickstart, tmp_path, monkeypatch, capsys):
    arguments = ["--output", str(tmp_path), "--episodes", "2"]
    real, ran = quickstart.trajplan, []

    def interrupted(words):
        ran.append(words[0])
        return 130 if words[0] == "evaluate" else real(words)

    monkeypatch.setattr(quickstart, "trajplan", interrupted)
    with pytest.raises(SystemExit) as stop:
        quickstart.main(arguments)
    assert stop.value.code == 130
    assert ran == ["datasets", "train", "evaluate"]
    said = capsys.readouterr().out
    assert re.match(r"The quickstart takes about \d+ minutes on two CPU cores", said)
    assert said.index("The quickstart takes") < said.index("1. collect") < said.index("Step 1 of 5: collect")
    assert "5. let it act in the same episodes (about 5 s)" in said
    data = next(tmp_path.glob("minari/**/main_data.hdf5"))
    before = [path.stat().st_mtime_ns for path in (data, tmp_path / "model" / "training.json")]

    monkeypatch.setattr(quickstart, "trajplan", real)
    quickstart.main(arguments)
    assert before == [path.stat().st_mtime_ns for path in (data, tmp_path / "model" / "training.json")]
    report = tmp_path / "report"
    for name in ("report.html", "plan.png", "learning_curve.png", "evaluation.json"):
        assert (report / name).stat().st_size > 1000, name
    assert list((report / "videos").glob("*.mp4"))
    results = json.loads((report / "results.json").read_text())
    assert all(len(values) == 2 for values in results["returns"].values())
    walkers = [values for name, values in results["returns"].items() if name.startswith("walker, noise")]
    assert len(walkers) == len(quickstart.NOISE)
    np.testing.assert_allclose(results["returns"][MIXTURE], np.mean(walkers, axis=0))
    planner = json.loads((report / "evaluation.json").read_text())["summary"]["return"]["mean"]
    assert results["policies"]["planner"]["mean"] == planner
    assert results["margin"]["mean"] == pytest.approx(planner - np.mean(walkers))
    cloning = json.loads((tmp_path / "cloning" / "evaluation.json").read_text())
    assert results["policies"]["behaviour cloning"]["mean"] == cloning["summary"]["return"]["mean"]
    assert [episode["seed"] for episode in cloning["episodes"]] == [quickstart.SEED, quickstart.SEED + 1]
    assert len(results["seconds"]) == 5
    check_report((report / "report.html").read_text(), str(tmp_path))
    said = capsys.readouterr().out
    assert "1. collect episodes of a noisy walker in a maze (done)" in said
    assert str(report / "report.html") in said

    def never(words):
        raise AssertionError("a finished quickstart ran something")

    monkeypatch.setattr(quickstart, "trajplan", never)
    quickstart.main(arguments)
    assert str(report / "report.html") in capsys.readouterr().out


def check_report(page, folder):
    """One file: nothing is loaded from anywhere, and all that a reader may ask for is in it."""
    sources = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", page)
    assert [source[:14] for source in sources].count("data:image/png") == 2
    assert sum(source.startswith("data:video/mp4;base64,") for source in sources) == 2
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<script", page)
    assert folder not in page
    for command in ("datasets collect --env", "train --dataset", "evaluate", "baseline bc --dataset"):
        assert f"\ntrajplan {command}" in page, command
    for word in ("behaviour cloning</th>", "torch ", "mujoco ", "python 3", "&quot;learning_rate&quot;", "beam_width"):
        assert word in page, word
