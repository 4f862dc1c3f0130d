import argparse
import json
import shlex
from dataclasses import replace

import pytest

from trajplan.commands import compare
from trajplan.commands.options.compare import add_arguments
from trajplan.comparison.cells import (
    continues_evaluation,
    is_finished,
    read_record,
    read_training,
    unfinished,
    write_record,
)
from trajplan.comparison.settings import EvaluationConfig, parse_settings
from trajplan.errors import CheckpointError, ConfigError

SETTINGS = {"preset": "tt_debug", "epochs": 0.5, "termination_penalty": None, "planner.horizon": 5}


def parse(words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_a_cells_command_makes_the_same_cell_again(cell, monkeypatch):
    made = cell(
        "plain", 2, method="tt", dataset="odd name/x-v0", settings=SETTINGS,
        evaluation=EvaluationConfig(episodes=7, episode_seed=3, env="Toy-v1", reference_min=-1.5, reference_max=2.0),
    )  # fmt: skip
    words = shlex.split(shlex.join(made.command("cpu")))
    worked = []
    monkeypatch.setattr(compare, "_work", lambda cell, device: worked.append((cell, device)))
    assert words[:2] == ["trajplan", "compare"]
    compare.run(parse(words[2:]))
    assert worked == [(made, "cpu")]


def test_a_record_is_of_its_training(cell):
    made = cell(settings={"updates": 5, "standardize": False})
    record = read_record(made)
    assert not is_finished(made, record)
    made.folder.mkdir(parents=True)
    write_record(made, record)
    assert read_record(made) == record
    for changed, message in (
        ({"settings": {"updates": 6, "standardize": False}}, "updates is 6 and was 5"),
        ({"settings": {"standardize": False}}, "updates is the preset's and was 5"),
        ({"settings": {}, "dataset": "x"}, "dataset is x and was toy/hopper/medium-replay-v0"),
        ({"method": "iql"}, "method is iql and was bc"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_record(replace(made, **changed))


def test_a_planners_setting_asks_for_another_evaluation_only(cell, finished):
    before = finished("tt", 0, [1.0, 2.0, 3.0, 4.0])
    assert is_finished(before, read_record(before))
    for settings in ({"planner.horizon": 3}, {"planner": "imitation"}):
        now = replace(before, settings=settings)
        assert not is_finished(now, read_record(now))
        assert not continues_evaluation(now, read_record(now))


def test_a_record_that_names_no_planner_is_of_the_beam_search(cell, finished):
    """As those are that were written when there was no other."""
    before = finished("tt", 0, [1.0, 2.0, 3.0, 4.0])
    assert is_finished(replace(before, settings={"planner": "beam_search"}), read_record(before))


def test_a_cell_of_earlier_settings_names_is_the_same_cell(finished):
    earlier = {"target_rate": 0.01, "best_episodes": 0.5}
    made = finished("iql", 0, [1.0, 2.0], settings=earlier)
    record = json.loads((made.folder / "cell.json").read_text())
    record["training"]["settings"] = earlier
    (made.folder / "cell.json").write_text(json.dumps(record))
    now = replace(made, settings={"tau": 0.01, "top_fraction": 0.5})
    assert is_finished(now, read_record(now))
    assert read_training(now)[0]["tau"] == 0.01
    methods = {"iql": "iql"}
    words = ["iql.target_rate=0.01", "baselines.best-episodes=0.5"]
    assert parse_settings(words, methods)["iql"] == now.settings


def test_more_episodes_go_on_with_those_that_are_there(finished):
    before = finished("bc", 0, [1.0, 2.0, 3.0, 4.0])
    more = replace(before, evaluation=EvaluationConfig(episodes=9))
    assert not is_finished(more, read_record(more))
    assert continues_evaluation(more, read_record(more))
    other = replace(before, evaluation=EvaluationConfig(episodes=9, episode_seed=100))
    assert not continues_evaluation(other, read_record(other))
    faster = replace(before, evaluation=EvaluationConfig(episodes=4, num_envs=2))
    assert is_finished(faster, read_record(faster))


def test_other_reference_scores_scale_the_episodes_that_are_there(finished):
    before = finished("bc", 0, [1.0, 2.0, 3.0, 4.0])
    record = read_record(before)
    now = replace(before, evaluation=EvaluationConfig(episodes=4, reference_min=0.0, reference_max=1.0))
    for made in (now, replace(now, evaluation=replace(now.evaluation, episodes=2))):
        assert unfinished(made) == "evaluated, but not scaled by the reference scores asked for"
        assert continues_evaluation(made, record)
    evaluation = json.loads(before.evaluated.read_text())
    evaluation["reference"] = {"min": 0.0, "max": 1.0, "source": "command line"}
    before.evaluated.write_text(json.dumps(evaluation))
    # Whatever the record says: the file may have been written without it.
    assert unfinished(now) is None
    assert unfinished(before) == "evaluated, but not scaled by the reference scores asked for"


def test_a_cell_with_more_episodes_than_asked_for_is_finished(finished):
    before = finished("bc", 0, [1.0, 2.0, 3.0, 4.0])
    fewer = replace(before, evaluation=EvaluationConfig(episodes=2))
    assert is_finished(fewer, read_record(fewer))
    other = replace(before, evaluation=EvaluationConfig(episodes=2, episode_seed=100))
    assert not is_finished(other, read_record(other))
    untrained = {"evaluation": None, "finished": False}
    assert not is_finished(fewer, read_record(fewer) | untrained)


def test_an_interrupted_evaluation_is_enough_once_it_has_the_episodes_asked_for(finished):
    made = finished("bc", 0, [1.0, 2.0, 3.0, 4.0])
    longer = {"evaluation": replace(made, evaluation=EvaluationConfig(episodes=9)).evaluation_identity()}
    record = read_record(made) | longer | {"finished": False}
    assert is_finished(made, record)
    assert not is_finished(replace(made, evaluation=EvaluationConfig(episodes=5)), record)
    # Episodes run side by side: a later one may be there before an earlier one.
    path = made.model / "evaluation.json"
    evaluation = json.loads(path.read_text())
    path.write_text(json.dumps(evaluation | {"episodes": evaluation["episodes"][1:]}))
    assert not is_finished(replace(made, evaluation=EvaluationConfig(episodes=2)), record)
    path.unlink()
    assert not is_finished(made, record)


def test_damaged_and_foreign_records_are_refused(cell):
    made = cell()
    made.folder.mkdir(parents=True)
    (made.folder / "cell.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_record(made)
    (made.folder / "cell.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(ConfigError, match="another version of trajplan; choose another --output"):
        read_record(made)
