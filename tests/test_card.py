import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from trajplan.card import GENERATED, card_text, finished_evaluation, write_card
from trajplan.cli import main
from trajplan.errors import CheckpointError


def evaluation(**changes: Any) -> dict[str, Any]:
    """An evaluation.json of three episodes, as `trajplan evaluate` writes it."""
    returns = {"mean": -150.25, "std": 10.0, "median": -150.0, "min": -160.0, "max": -140.0}
    described = {**returns, "interval_95": [-175.09, -125.41]}
    score = {"mean": 89.98, "std": 0.67, "median": 90.0, "min": 89.3, "max": 90.7, "interval_95": [88.33, 91.64]}
    return {
        "complete": True,
        "seed": 7,
        "environment": {"id": "Pendulum-v1", "kwargs": {}, "max_episode_steps": 200},
        "dataset": {"id": "toy/pendulum-v0", "num_episodes": 5, "mean_return": -1200.5, "mean_normalized_score": 20.0},
        "model_sha256": None,
        "reference": {"min": -1500.0, "max": 0.0, "source": "made up"},
        "episodes": [{}, {}, {}],
        "summary": {"return": described, "normalized_score": score, "length": {**described, "mean": 200.0}},
        "timing": {"plan_seconds_p50": 0.25, "plan_seconds_p95": 0.3, "environments_per_call": 3.0},
    } | changes


def evaluated(folder: Path, report: dict[str, Any] | None = None) -> None:
    """Write an evaluation.json of the weights that are there."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "evaluation.json").write_text(json.dumps((report or evaluation()) | {"model_sha256": weights}))


def test_metadata_is_the_hubs_own(checkpoint: Path) -> None:
    evaluated(checkpoint)
    data = ModelCard(card_text(checkpoint, "user/maze", "apache-2.0")).data
    assert (data["library_name"], data.license, data.pipeline_tag) == (
        "trajplan",
        "apache-2.0",
        "reinforcement-learning",
    )
    assert data.datasets == ["toy/pendulum-v0"]
    assert {"trajectory-transformer", "planning", "Pendulum-v1"} <= set(data.tags)
    assert data.model_name == "maze"
    found = {result.metric_type: result for result in data.eval_results}
    assert found["mean_reward"].metric_value == -150.25
    assert found["normalized_score"].metric_value == 89.98
    assert found["mean_reward"].dataset_name == "Pendulum-v1"
    assert found["mean_reward"].metric_args == {"episodes": 3, "seed": 7}


def test_the_text_carries_dataset_settings_and_results(checkpoint: Path) -> None:
    evaluated(checkpoint)
    (checkpoint / "plan.png").write_bytes(b"")
    text = card_text(checkpoint, "user/maze")
    for expected in (
        "# maze",
        "| return | -150.25 | -175.09 to -125.41 | 10.00 | -1200.50 |",
        "| normalised score | 89.98 | 88.33 to 91.64 | 0.67 | 20.00 |",
        "3 episodes in `Pendulum-v1`, seeds 7 to 9; a score of 0 is the return -1500, 100 is 0.",
        "250 ms at the median",
        "![Plans](plan.png)",
        "| num_transitions | 500 |",
        "| discount | 0.99 |",
        "| termination_penalty | -100.0 |",
        "| beam_width | 3 |",
        "| learning_rate | 0.0006 |",
        'trajplan.load("user/maze")',
    ):
        assert expected in text, expected
    assert str(checkpoint) not in text


@pytest.mark.parametrize("named", [False, True])
def test_evaluate_puts_its_results_on_the_card(checkpoint: Path, named: bool) -> None:
    command = ["evaluate", str(checkpoint), "--episodes", "2", "--num-envs", "2", "--max-episode-steps", "3"]
    assert main([*command, "--device", "cpu", *(["--output", str(checkpoint)] if named else [])]) == 0
    summary = json.loads((checkpoint / "evaluation.json").read_text())["summary"]
    card = ModelCard.load(checkpoint / "README.md")
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["mean_reward"] == pytest.approx(summary["return"]["mean"], abs=1e-4)
    assert values["normalized_score"] == pytest.approx(summary["normalized_score"]["mean"], abs=1e-4)
    assert "2 episodes in `Pendulum-v1`, seeds 0 to 1" in card.text


def test_the_card_tells_with_what_it_was_evaluated_where_not_with_its_own_settings(checkpoint: Path) -> None:
    saved = json.loads((checkpoint / "planner.json").read_text())
    for planner, told in (
        ({**saved, "type": "beam_search"}, None),
        (saved, None),
        (
            {**saved, "beam_width": 7},
            "Planned by `beam_search` with beam_width 7, other than the planner settings below.",
        ),
        ({"type": "imitation", "horizon": 2, "beam_width": 3}, "Planned by `imitation` with horizon 2, beam_width 3, "),
    ):
        evaluated(checkpoint, evaluation(planner=planner))
        text = card_text(checkpoint)
        assert told in text if told else "Planned by" not in text


def test_raw_returns_alone_where_there_are_no_reference_scores(checkpoint: Path) -> None:
    raw = evaluation(reference=None, environment=None, timing=None)
    raw["summary"]["normalized_score"] = None
    raw["summary"]["return"] |= {"std": None, "interval_95": None}
    evaluated(checkpoint, raw)
    text = card_text(checkpoint, "user/maze")
    assert "| return | -150.25 |  |  | -1200.50 |" in text
    assert "normalised" not in text
    assert [result.metric_type for result in ModelCard(text).data.eval_results] == ["mean_reward"]


def test_without_a_finished_evaluation_no_result_is_claimed(checkpoint: Path) -> None:
    for content in (None, evaluation(complete=False, summary=None)):
        if content:
            evaluated(checkpoint, content)
        assert finished_evaluation(checkpoint) is None
        text = card_text(checkpoint, "user/maze")
        assert "No evaluation comes with these weights." in text
        assert ModelCard(text).data.eval_results is None


def test_results_of_another_program_are_refused(checkpoint: Path) -> None:
    (checkpoint / "evaluation.json").write_text(json.dumps({"complete": True, "seed": 0, "episodes": []}))
    with pytest.raises(CheckpointError, match="it has no dataset, environment, reference, summary, timing"):
        card_text(checkpoint)


def test_an_evaluation_of_other_weights_is_not_on_the_card(checkpoint: Path) -> None:
    """As after a run that was trained on."""
    evaluated(checkpoint)
    (checkpoint / "plan.png").write_bytes(b"")
    assert "-150.25" in card_text(checkpoint)
    assert "(plan.png)" in card_text(checkpoint)
    with (checkpoint / "model.safetensors").open("ab") as file:
        file.write(b" ")
    text = card_text(checkpoint)
    assert "-150.25" not in text
    assert "No evaluation comes with these weights." in text
    assert "(plan.png)" not in text
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/hopper", "hopper"),
        ("quickstart/model", "quickstart"),
        ("compare/bc10/seed-2/model", "bc10-seed-2"),
    ],
)
def test_the_title_is_the_runs_name_and_no_place_is_named(
    checkpoint: Path, tmp_path: Path, place: str, name: str
) -> None:
    folder = tmp_path / place
    shutil.copytree(checkpoint, folder)
    text = write_card(folder).read_text()
    assert f"\n# {name}\n" in text
    assert ModelCard(text).data.model_name == name
    assert str(tmp_path) not in text
    assert place not in text
    assert "trajplan evaluate . --episodes 10" in text


def test_what_a_baseline_drew_of_its_values_is_shown(checkpoint: Path) -> None:
    assert "values.png" not in card_text(checkpoint)
    (checkpoint / "values.png").write_bytes(b"")
    assert "![What the method predicted, and what it earned](values.png)" in card_text(checkpoint)


def test_the_code_of_the_card_runs(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_card(checkpoint).read_text()
    monkeypatch.chdir(checkpoint)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code
    assert len([line for line in code[1].splitlines() if line and not line.startswith("import")]) == 5
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code[1], names)
    assert names["env"].action_space.contains(names["action"])


def test_a_card_that_a_person_has_taken_over_is_kept(checkpoint: Path) -> None:
    path = write_card(checkpoint)
    assert GENERATED in path.read_text()
    path.write_text(path.read_text() + "outdated")
    assert "outdated" not in write_card(checkpoint).read_text()
    before = "<!-- trajplan writes this card anew at every push; remove this line to keep your own text. -->"
    path.write_text(path.read_text().replace(GENERATED, before) + "outdated")
    assert "outdated" not in write_card(checkpoint).read_text()
    mine = path.read_text().replace(GENERATED, "") + "My own words.\n"
    path.write_text(mine)
    assert write_card(checkpoint).read_text() == mine


@pytest.mark.parametrize("name", ["dataset.json", "planner.json", "training.json"])
def test_missing_and_damaged_files_are_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("{")
    with pytest.raises(CheckpointError, match=name):
        card_text(checkpoint)
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        card_text(checkpoint)


def test_a_readme_that_is_no_text_is_named(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"README\.md cannot be read as UTF-8 text .*mend it or move it away"):
        write_card(checkpoint)


def test_the_example_tells_the_goal_where_the_data_know_goals(checkpoint: Path) -> None:
    saved = json.loads((checkpoint / "dataset.json").read_text())
    assert "controller.reset(seed=0)\n" in card_text(checkpoint)
    for transforms, goal in (([], 'told["goal"]'), ([{"name": "goals-apart"}], 'observation["desired_goal"]')):
        changed = saved | {"goal_columns": [0, 1], "transforms": transforms}
        (checkpoint / "dataset.json").write_text(json.dumps(changed))
        text = card_text(checkpoint)
        assert f"observation, told = env.reset(seed=0)\ncontroller.reset(seed=0, goal={goal})\n" in text
        assert "| goal_columns | [0, 1] |" in text


def test_successes_are_told_by_task(checkpoint: Path) -> None:
    report = evaluation()
    evaluated(checkpoint, report)
    assert "success" not in card_text(checkpoint)
    report["summary"] |= {"success_rate": 2 / 3}
    evaluated(checkpoint, report)
    assert "Success: 66.7 % of episodes." in card_text(checkpoint)
    tasks = {
        "1": {"episodes": 2, "success_rate": 0.5, "mean_return": 0.5, "mean_length": 700.0},
        "4": {"episodes": 1, "success_rate": 1.0, "mean_return": 1.0, "mean_length": 12.0},
    }
    report["summary"] |= {"tasks": tasks}
    evaluated(checkpoint, report)
    text = card_text(checkpoint)
    assert "| task 1 | 50.0 % | 2 | 700 |\n| task 4 | 100.0 % | 1 | 12 |\n| all | 66.7 % | 3 | |" in text
    found = {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results}
    assert found["success_rate"] == 0.6667
