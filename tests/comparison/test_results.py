import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trajplan.comparison.cells import unfinished
from trajplan.comparison.results import by_method, load_results, progress, row, write_csv
from trajplan.comparison.settings import EvaluationConfig

CURVE = [
    {"update": 50, "seconds": 1.0, "evaluation/return": 20.0},
    {"update": 60, "seconds": 2.0},
    {"update": 100, "seconds": 3.0, "evaluation/return": 50.0},
]


def test_what_a_cell_came_to(finished):
    cell = finished("bc", 1, [10.0, 30.0], metrics=CURVE)
    (result,) = load_results([cell])
    assert result.scores.tolist() == [5.0, 15.0]
    updates, scores = result.learning_curve
    assert (updates.tolist(), scores.tolist()) == ([50, 100], [10.0, 25.0])
    assert result.held_out_loss[0].size == 0
    # 10 + 20 steps at 50 a second.
    assert result.evaluation_seconds == pytest.approx(0.6)
    assert result.settings["hidden_width"] == 8
    assert result.settings["updates"] == 100


def test_without_reference_scores_are_returns(finished):
    (result,) = load_results([finished("bc", 0, [10.0, 30.0], reference=False, metrics=CURVE)])
    assert result.scores.tolist() == [10.0, 30.0]
    assert result.learning_curve[1].tolist() == [20.0, 50.0]


def test_a_planner_has_a_name_also_where_none_was_recorded(finished):
    cells = [finished("bc", 0, [1.0]), finished("tt", 0, [1.0]), finished("tti", 0, [1.0], method="tt")]
    for cell, planner in zip(cells[1:], ({"horizon": 5}, {"type": "imitation", "horizon": 1}), strict=True):
        evaluation = json.loads(cell.evaluated.read_text())
        cell.evaluated.write_text(json.dumps(evaluation | {"planner": planner}))
    results = load_results(cells)
    assert [result.planner for result in results] == [None, "beam_search", "imitation"]
    assert [result.settings.get("planner.type") for result in results] == [None, "beam_search", "imitation"]


def test_only_finished_cells_count(cell, finished):
    done = finished("bc", 0, [1.0])
    assert [result.cell for result in load_results([cell("iql", 0), done])] == [done]


def test_the_files_of_a_cell_are_read_once(finished, monkeypatch):
    read = []
    for name in ("read_text", "read_bytes"):
        original = getattr(Path, name)

        def watch(path, *arguments, original=original, **keywords):
            read.append(path.name)
            return original(path, *arguments, **keywords)

        monkeypatch.setattr(Path, name, watch)
    cell = finished("bc", 0, [1.0])
    read.clear()
    assert len(load_results([cell])) == 1
    assert sorted(read) == ["cell.json", "config.json", "evaluation.json", "metrics.jsonl", "training.json"]


def test_results_are_of_the_episodes_asked_for(finished):
    cells = [finished("bc", 0, [1.0, 2.0, 90.0]), finished("iql", 0, [5.0, 6.0])]
    cells = [replace(cell, evaluation=EvaluationConfig(episodes=2)) for cell in cells]
    results = load_results(cells)
    assert [result.returns.tolist() for result in results] == [[1.0, 2.0], [5.0, 6.0]]
    assert [len(result.evaluation["episodes"]) for result in results] == [2, 2]
    assert [row(result)["episodes"] for result in results] == [2, 2]
    assert results[0].lengths.tolist() == [10, 20]


def test_methods_by_their_mean_score(finished):
    cells = [finished("bc", 0, [1.0, 2.0]), finished("iql", 0, [5.0, 6.0]), finished("bc", 1, [3.0, 4.0])]
    first, second = by_method(load_results(cells))
    assert (first.label, second.label) == ("iql", "bc")
    assert np.array_equal(second.returns, [[1, 2], [3, 4]])
    assert second.scores.shape == (2, 2)


def test_the_table_has_a_line_a_cell(finished, tmp_path):
    cells = [finished("bc10", 1, [10.0, 30.0], method="bc"), finished("iql", 0, [40.0, 60.0], reference=False)]
    path = tmp_path / "comparison.csv"
    write_csv(path, load_results(cells))
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["label"], first["method"], first["seed"], first["folder"]) == ("bc10", "bc", "1", "bc10/seed-1")
    assert (float(first["mean_return"]), float(first["normalized_score"]), first["episodes"]) == (20.0, 10.0, "2")
    assert (second["normalized_score"], second["success_rate"], second["gpu_memory_mib"]) == ("", "", "")
    assert (float(second["training_seconds"]), float(second["peak_memory_mib"])) == (61.0, 3.0)
    assert float(second["mean_length"]) == 15.0
    assert list(tmp_path.glob(".partial-*")) == []


DAMAGE = [
    *(("model/evaluation.json", text, r"evaluation\.json") for text in (None, "", "[]", '{"episodes": [{}]}')),
    ("model/config.json", None, r"bc/0 was trained, but .* has no config\.json; delete .*/bc/seed-0 to train it again"),
    ("model/config.json", '{"settings": 3}', "delete .*/bc/seed-0 to train it again"),
    ("model/training.json", "{", "delete .*/bc/seed-0 to train it again"),
    ("model/metrics.jsonl", "3\n", r"metrics\.jsonl .* delete .*/bc/seed-0 to train it again"),
    ("model/model.safetensors", None, r"has no model\.safetensors; delete .*/bc/seed-0 to train it again"),
    ("model", None, "delete .*/bc/seed-0 to train it again"),
    ("cell.json", "{", r"cell\.json cannot be read.*; delete it, and the cell resumes"),
    ("cell.json", {"cost": {}}, r"cell\.json is damaged; delete it, and the cell resumes"),
    ("cell.json", {"evaluation": 3}, r"cell\.json is damaged; delete it"),
    ("cell.json", {"training": []}, r"cell\.json is damaged; delete it"),
    ("model/evaluation.json", {"reference": {"min": 1}}, r"evaluation\.json is damaged"),
    ("model/evaluation.json", {"reference": {"min": 1, "max": 0, "source": ""}}, r"evaluation\.json is damaged"),
    ("model/evaluation.json", {"timing": {}}, r"evaluation\.json is damaged"),
    ("model/evaluation.json", {"planner": 3}, r"evaluation\.json is damaged"),
    ("model/evaluation.json", {"episodes": []}, r"evaluation\.json holds 0 of 2 episodes"),
]


@pytest.mark.parametrize(("name", "text", "reason"), DAMAGE)
def test_a_damaged_cell_is_named_and_costs_that_cell_only(finished, name, text, reason):
    damaged, whole = finished("bc", 0, [1.0, 2.0]), finished("iql", 0, [3.0, 4.0])
    path = damaged.folder / name
    if isinstance(text, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | text))
    elif text is not None:
        path.write_text(text)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert re.search(reason, unfinished(damaged))
    assert [result.cell for result in load_results([damaged, whole])] == [whole]


def test_a_folder_in_the_place_of_the_table_is_named_and_nothing_partial_left(finished, tmp_path):
    path = tmp_path / "comparison.csv"
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"comparison\.csv cannot be written: .*Is a directory"):
        write_csv(path, load_results([finished("bc", 0, [1.0])]))
    assert [path] == [found for found in tmp_path.iterdir() if found.name != "comparison"]


def test_how_far_a_cell_is(cell, finished):
    assert progress(cell("iql")) == "starting"
    made = finished("bc", 0, [1.0, 2.0], metrics=CURVE[:1])
    (made.model / "evaluation.json").unlink()
    assert progress(made) == "50%"
    with (made.model / "metrics.jsonl").open("a") as file:
        file.write('{"update": 9, "se')
    assert progress(made) == "50%"
    (made.model / "evaluation.json").write_text(json.dumps({"episodes": [{}], "num_episodes": 2}))
    assert progress(made) == "evaluating 1/2"
    (made.model / "evaluation.json").write_text("{}")
    assert progress(made) == "50%"


def test_how_far_a_cell_is_takes_the_end_of_its_metrics_only(finished):
    made = finished("bc", 0, [1.0])
    (made.model / "evaluation.json").unlink()
    metrics = made.model / "metrics.jsonl"
    metrics.write_text("no line of metrics\n" * 10_000 + '{"update": 50}\n{"update": 6')
    assert progress(made) == "50%"
    metrics.unlink()
    assert progress(made) == "starting"
    metrics.write_text('{"update": 6')
    assert progress(made) == "starting"
