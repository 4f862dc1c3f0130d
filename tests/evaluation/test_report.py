import dataclasses
import json

import numpy as np
import pytest

from trajplan.data.scores import ReferenceScores
from trajplan.errors import CheckpointError, ConfigError
from trajplan.evaluation.report import EvaluationFile, format_table
from trajplan.evaluation.rollout import Episode, Rollouts

REFERENCE = ReferenceScores(-20.0, 180.0, "test")
SETTINGS = {
    "seed": 3,
    "num_episodes": 4,
    "num_envs": 2,
    "environment": {"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": 500},
    "dataset": {"id": "test/data-v0", "num_episodes": 9, "mean_return": 30.0, "mean_normalized_score": 25.0},
    "model_sha256": "abc",
    "planner": {"type": "beam_search", "horizon": 5},
    "versions": {"gymnasium": "1.4.0"},
}


def episodes():
    returns = (10.0, 20.0, 60.0, 30.0)
    return [Episode(n, 3 + n, total, 10 + n, n != 2, n == 2, n == 1) for n, total in enumerate(returns)]


def rollouts():
    return Rollouts(episodes(), np.array([0.1, 0.1, 0.3]), np.array([2, 2, 1]), 2.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evaluation.json"


def test_every_finished_episode_is_on_disk_at_once(path):
    file = EvaluationFile(path, SETTINGS, REFERENCE)
    for number, episode in enumerate(reversed(episodes())):
        file.add(episode)
        stored = json.loads(path.read_text())
        assert len(stored["episodes"]) == number + 1
        assert stored["complete"] is False
        assert stored["summary"] is None
    assert [entry["episode"] for entry in stored["episodes"]] == [0, 1, 2, 3]
    assert [entry.name for entry in path.parent.iterdir()] == ["evaluation.json"]


def test_finished_report(path):
    report = EvaluationFile(path, SETTINGS, REFERENCE).finish(rollouts())
    assert json.loads(path.read_text()) == report
    assert report["complete"] is True
    assert report["schema_version"] == 1
    assert report["reference"] == {"min": -20.0, "max": 180.0, "source": "test"}
    assert report["episodes"][2] == {
        "episode": 2,
        "seed": 5,
        "return": 60.0,
        "normalized_score": 40.0,
        "length": 12,
        "terminated": False,
        "truncated": True,
        "success": False,
    }
    summary = report["summary"]
    assert summary["interval_method"] == "Student t"
    assert summary["return"]["mean"] == 30.0
    assert summary["normalized_score"]["mean"] == pytest.approx(25.0)
    # 200 points of return make 100 of score: the deviation halves and is not shifted by the -20.
    assert summary["normalized_score"]["std"] == pytest.approx(summary["return"]["std"] / 2)
    assert (summary["terminated"], summary["truncated"], summary["success_rate"]) == (3, 1, 0.25)
    assert report["timing"]["plan_seconds_p50"] == pytest.approx(0.1)
    assert report["timing"]["plan_seconds_p95"] == pytest.approx(0.28)
    assert report["timing"]["environments_per_call"] == pytest.approx(5 / 3)
    assert report["timing"]["steps_per_second"] == pytest.approx(2.5)


def test_without_reference_scores_nothing_is_normalised(path):
    settings = {**SETTINGS, "dataset": {**SETTINGS["dataset"], "mean_normalized_score": None}}
    report = EvaluationFile(path, settings, None).finish(rollouts())
    assert report["reference"] is None
    assert report["summary"]["normalized_score"] is None
    assert all(entry["normalized_score"] is None for entry in report["episodes"])
    assert "score" not in format_table(report)


def test_table_shows_the_numbers(path):
    table = format_table(EvaluationFile(path, SETTINGS, REFERENCE).finish(rollouts()))
    assert len([line for line in table.splitlines() if "terminated" in line or "truncated" in line]) == 4
    for words in ("mean 30.00", "Student t", "median 25.00", "0 is -20 and 100 is 180 (test)", "test/data-v0"):
        assert words in table
    assert "p50 100.0 ms, p95 280.0 ms for 1.7 environments at once; 2.5 steps a second" in table


def test_resume_takes_over_what_is_there(path):
    file = EvaluationFile(path, SETTINGS, REFERENCE)
    assert file.resume() == []
    for episode in episodes()[:3]:
        file.add(episode)
    # The number of environments and of episodes may change, and reference scores: they change no episode.
    other = EvaluationFile(path, {**SETTINGS, "num_envs": 5, "num_episodes": 3}, None)
    assert other.resume() == episodes()[:3]


def test_the_speed_stays_known_when_only_the_scale_is_another(path):
    before = EvaluationFile(path, SETTINGS, None).finish(rollouts())
    file = EvaluationFile(path, SETTINGS, REFERENCE)
    none = np.array([])
    after = file.finish(Rollouts(file.resume(), none, none, 0.0))
    assert after["timing"] == before["timing"]
    assert after["summary"]["normalized_score"]["mean"] == pytest.approx(25.0)


def test_resume_for_fewer_episodes_loses_none(path):
    file = EvaluationFile(path, SETTINGS, REFERENCE)
    for episode in episodes()[:3]:
        file.add(episode)
    before = path.read_text()
    with pytest.raises(ConfigError, match=r"already holds 3 episodes, more than the 2 asked for: ask for 3 or more"):
        EvaluationFile(path, {**SETTINGS, "num_episodes": 2}, None).resume()
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["seed", "environment", "planner", "model_sha256", "versions"])
def test_resume_refuses_another_evaluation(path, name):
    EvaluationFile(path, SETTINGS, REFERENCE).add(episodes()[0])
    with pytest.raises(ConfigError, match=f"differs in {name};"):
        EvaluationFile(path, {**SETTINGS, name: {"id": "different"}}, REFERENCE).resume()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"episodes": [{}]}', '{"episodes": 3}'])
def test_damaged_file_is_named(path, text):
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"evaluation\.json (is damaged|cannot be read)"):
        EvaluationFile(path, SETTINGS, REFERENCE).resume()


def test_a_write_that_fails_leaves_the_old_file(path):
    file = EvaluationFile(path, SETTINGS, REFERENCE)
    file.add(episodes()[0])
    before = path.read_text()
    with pytest.raises(TypeError, match="not JSON serializable"):
        file.add(dataclasses.replace(episodes()[1], success=object()))
    assert path.read_text() == before
