import re
from types import SimpleNamespace

import pytest

from trajplan.runs import bar


def test_the_time_left_is_that_of_updates_and_measurements_as_so_far(monkeypatch):
    clock = [50.0]
    monkeypatch.setattr(bar, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    with bar.Bar(done=100, total=110, visible=False) as shown:
        for _ in range(4):
            clock[0] += 1
            shown.advance()
        assert (shown.speed, shown.time_left()) == (1, "00:06")
        clock[0] += 4
        shown.restart_clock()
        assert shown.time_left() == "00:12"
        clock[0] += 1
        shown.advance()
        assert (shown.speed, shown.time_left()) == (1, "00:09")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(bar, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_where_standard_error_is_a_file_there_are_lines_now_and_then_and_at_the_end(clock, capsys):
    with bar.Bar(done=100, total=200, visible=True, unit="tokens", per_update=50) as shown:
        for update in range(101, 201):
            clock[0] += 1 if update <= 160 else 0.5
            shown.advance(f"loss {update / 100:.3f}")
    assert capsys.readouterr().err.splitlines() == [
        "update 130 of 200: loss 1.300, 50 tokens/s, 01:10 left",
        "update 160 of 200: loss 1.600, 50 tokens/s, 00:40 left",
        "update 200 of 200: loss 2.000, 100 tokens/s, 00:00 left",
    ]


def test_a_line_written_for_another_reason_stands_for_one(clock, capsys):
    with bar.Bar(done=0, total=50, visible=True) as shown:
        for update in range(1, 51):
            clock[0] += 1
            shown.advance()
            if update in (20, 50):
                shown.write("measured")
    assert capsys.readouterr().err.splitlines() == ["measured", "update 50 of 50: 1 updates/s, 00:00 left", "measured"]


@pytest.mark.parametrize("how", [{"visible": False}, {"visible": True, "leave": False}])
def test_a_bar_that_is_not_to_be_seen_or_left_ends_without_a_line(clock, capsys, how):
    with bar.Bar(done=0, total=3, **how) as shown:
        shown.advance()
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar_without_lines(clock, capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bar.Bar(done=0, total=3, visible=True) as shown:
        for _ in range(3):
            clock[0] += 100
            shown.advance()
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert not re.search("update 3 of 3", shown)
