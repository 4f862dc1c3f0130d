import math
import re
from types import SimpleNamespace

import pytest

from trajplan.runs.metrics import read_metrics
from trajplan.training import estimate, loop
from trajplan.training.estimate import duration
from trajplan.training.loop import train


@pytest.fixture
def clock(monkeypatch):
    """A clock that only computing gradients moves, by `seconds[0]`, the first time by thrice that."""
    now, seconds, compute = [0.0], [1.5], loop._compute

    def timed(run, interrupted):
        now[0] += seconds[0] * (1 if now[0] else 3)
        return compute(run, interrupted)

    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loop, "_compute", timed)
    return seconds


def numbers(folder):
    times = ("seconds", "tokens_per_second")
    return [{name: line[name] for name in line if name not in times} for line in read_metrics(folder)]


def test_the_measurement_changes_nothing(dataset, tiny, tmp_path, monkeypatch):
    calls, compute = [], loop._compute
    monkeypatch.setattr(loop, "_compute", lambda *args: calls.append(args) or compute(*args))
    train(dataset, tmp_path / "measured", tiny(updates=60))
    assert len(calls) == 60 + 1 + estimate.REPEATS
    monkeypatch.setattr(estimate, "LEAST_UPDATES", 1000)
    train(dataset, tmp_path / "plain", tiny(updates=60))
    assert len(calls) == 2 * 60 + 1 + estimate.REPEATS
    # With dropout, which draws random numbers.
    assert numbers(tmp_path / "measured") == numbers(tmp_path / "plain")
    newest = "training_state/step-00000060"
    for name in ("model.safetensors", *(f"{newest}/{file}.safetensors" for file in ("model", "optimizer", "random"))):
        assert (tmp_path / "measured" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_run_says_how_long_it_takes_before_it_begins(clock, dataset, tiny, tmp_path, capsys, monkeypatch):
    def ended(run, interrupted):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_update", ended)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "short", tiny(updates=600, held_out=0.0))
    told = capsys.readouterr().err
    assert "About 15 min here, at 1.5 s an update." in told
    assert "--updates" not in told
    # 13 held-out windows after every 5 updates of 16: a third of the time of 13 / 80 of an update.
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "long", tiny(updates=10_000))
    told = capsys.readouterr().err
    whole = 1.5 * 10_000 * (1 + 13 / 80 / 3)
    assert f"About {duration(whole)} here, at 1.5 s an update. For about an hour: --updates 2200 (" in told
    assert math.floor(10_000 * 3600 / whole / 100) == 22
    windows = int(re.search(r"passes over (\d+) windows", told)[1])
    assert f"({2200 * 16 / windows:.2g} passes over the windows)" in told


def test_a_slow_update_is_measured_once(clock, dataset, tiny, tmp_path, capsys, monkeypatch):
    clock[0] = 100.0
    monkeypatch.setattr(loop, "_update", lambda run, interrupted: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path, tiny(updates=60, held_out=0.0))
    assert "About 5 h here, at 300 s an update. For about an hour: --updates 12 (" in capsys.readouterr().err


def test_a_resumed_run_says_what_is_left(clock, dataset, tiny, tmp_path, capsys, monkeypatch):
    original = loop._update
    monkeypatch.setattr(loop, "_update", lambda run, wanted: (original(run, wanted)[0], run.done == 9))
    assert train(dataset, tmp_path, tiny(updates=6010)).interrupted
    monkeypatch.setattr(loop, "_update", lambda run, interrupted: (_ for _ in ()).throw(KeyboardInterrupt))
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path, tiny(updates=6010), resume=True)
    told = capsys.readouterr().err
    assert f"About {duration(9_000 * (1 + 13 / 80 / 3))} left here" in told
    assert "--updates" not in told


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (3600, "1 h"), (9600, "2 h 40 min")),
        *((212_400, "2 days 11 h"), (35_999_999, "416 days 16 h")),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(("value", "rounded"), [(0.3, 1), (7.9, 7), (59.9, 59), (614, 610), (61_499, 61_000)])
def test_a_proposed_length_is_round(value, rounded):
    assert estimate._two_digits(value) == rounded
