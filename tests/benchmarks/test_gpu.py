"""The script that tries a GPU, as far as a CPU can: its parts exist, and its table says what held."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("gpu", "record"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("gpu")


def test_without_a_gpu_it_says_so(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 0
    assert capsys.readouterr().out == "There is no GPU here that PyTorch can use: nothing to measure.\n"


def test_its_parts_are_scripts_that_are_there(gpu):
    assert len({part.name for part in gpu.PARTS}) == len(gpu.PARTS)
    for part in gpu.PARTS:
        assert part.words[0] == "-m" or (ROOT / part.words[0]).is_file()
        assert (part.read is None) == ("{output}" not in part.words)


def test_the_speed_of_seeds_together_is_that_of_all_of_them(gpu):
    part = next(part for part in gpu.PARTS if part.name == "iql-together")
    speeds = {"updates_per_second_together": [17_000.0, 19_000.0], "updates_per_second_in_a_row": [5_000.0, 5_100.0]}
    value = part.read({"methods": {"iql": speeds}})
    assert gpu.row(part, {"ok": True, "value": value})[1:] == ("18,500/s", "19,000.0/s", "yes")


def test_the_table_says_what_held(gpu, monkeypatch, capsys, tmp_path):
    read = lambda values: values["speed"]  # noqa: E731
    write = "import json, sys; json.dump({'speed': float(sys.argv[2])}, open(sys.argv[1], 'w'))"
    parts = (
        gpu.Part("fast", ("-c", write, "{output}", "30"), "plans", read, "/s", 25),
        gpu.Part("slow", ("-c", write, "{output}", "20"), "updates", read, "/s", 25),
        gpu.Part("free", ("-c", write, "{output}", "20"), "tokens", read, "/s"),
        gpu.Part("tests", ("-c", "pass"), "tests"),
        gpu.Part("broken", ("-c", "raise SystemExit('no such kernel')"), "flash", read, "/s"),
        gpu.Part("endless", ("-c", "import time; time.sleep(60)"), "patience"),
    )
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "LIMIT", 4)
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "gpu.json")])
    monkeypatch.setattr(gpu, "write", lambda path, values: Path(path).write_text(json.dumps(values)))
    assert gpu.main() == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["plans"].split() == ["plans", "25/s", "30.0/s", "yes"]
    assert lines["updates"].split() == ["updates", "25/s", "20.0/s", "no"]
    assert lines["tokens"].split() == ["tokens", "20.0/s"]
    assert lines["tests"].endswith("yes")
    assert "no such kernel" in lines["flash"]
    assert "not done after " in lines["patience"]
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["parts"]["fast"]["value"] == 30
