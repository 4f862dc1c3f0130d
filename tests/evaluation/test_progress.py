import io
import re
import sys
from types import SimpleNamespace

import pytest

from trajplan.evaluation import progress
from trajplan.evaluation.progress import StepBar
from trajplan.evaluation.rollout import evaluate


@pytest.fixture
def clock(monkeypatch):
    """Ten seconds at every look."""
    now = SimpleNamespace(seconds=0.0)

    def look():
        now.seconds += 10.0
        return now.seconds

    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=look))
    return now


def test_a_file_gets_lines_of_steps_episodes_and_time_left(cartpole, memory_policy, capfd, clock):
    policy = memory_policy(cartpole)
    found = evaluate(policy, cartpole.make_env, episodes=4, num_envs=3, progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) >= 3
    first = re.fullmatch(
        r"step (\d+) of at most 2,000: 0 of 4 episodes, [\d.]+ steps/s, ([\d:]+) left at most", lines[0]
    )
    assert first
    assert int(first[1]) % 3 == 0
    # Episodes that ended early have shortened what is left.
    assert "of at most 2,000" not in lines[-1]
    assert sum(episode.length for episode in found.episodes) < 500


def test_the_time_left_is_what_the_steps_left_take_at_most(clock, monkeypatch):
    bar = StepBar(2, 100, visible=False)  # at 10 s
    bar.advance(50, [])
    # At 20 s: 50 of 200 steps in 10 s, so 150 take 30 s.
    assert bar.text() == "step 50 of at most 200: 0 of 2 episodes, 5.0 steps/s, 00:30 left at most"
    bar.advance(10, [60])
    # At 30 s: 60 steps in 20 s; the episode that ended with step 60 leaves 100 for the other, 33 s.
    assert bar.text() == "step 60 of at most 160: 1 of 2 episodes, 3.0 steps/s, 00:33 left at most"


def test_without_a_time_limit_there_is_no_time_left(clock):
    bar = StepBar(2, None, visible=False)
    bar.advance(20, [])
    assert bar.text() == "step 20: 0 of 2 episodes, 2.0 steps/s"


def test_a_terminals_bar_counts_steps(cartpole, memory_policy, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    found = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=4, num_envs=3, progress=True)
    steps = sum(episode.length for episode in found.episodes)
    last = terminal.getvalue().rsplit("\r", 1)[1]
    assert f"{steps}/{steps}" in last
    assert "4 of 4 episodes" in last
    assert "100%" in last
