from types import SimpleNamespace

from trajplan.training import bar


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
