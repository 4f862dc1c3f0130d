"""`trajplan.evaluate`: the command's evaluation as a function."""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import trajplan
from trajplan.cli import main
from trajplan.commands.options import evaluate as command
from trajplan.errors import ConfigError
from trajplan.evaluating import EvaluationInterrupted
from trajplan.evaluation.policy import Controller, RandomPolicy
from trajplan.planners.beam_search import BeamSearchConfig

QUICK: dict[str, Any] = {"episodes": 2, "max_episode_steps": 12, "progress": False}


def without_timing(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "timing"}


def test_defaults_are_the_commands() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parameters = inspect.signature(trajplan.evaluate).parameters
    for name, default in vars(parser.parse_args(["folder"])).items():
        if name not in ("checkpoint", "open_loop", "open_loop_steps", "open_loop_starts", "dynamics"):
            assert parameters[name].default == default, name


def test_a_folder_gives_what_the_command_writes(checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--episodes", "2", "--max-episode-steps", "12", "--device", "cpu"]
    assert main(["evaluate", str(checkpoint), *words]) == 0
    printed = capsys.readouterr().out
    written = json.loads((checkpoint / "evaluation.json").read_text())
    found = trajplan.evaluate(checkpoint, **QUICK, device="cpu", output=tmp_path / "results")
    assert found.path == tmp_path / "results/evaluation.json"
    assert json.loads(found.path.read_text()) == found.report
    assert without_timing(found.report) == without_timing(written)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["evaluation.json"]
    # All but the line of the time that plans took.
    for line in str(found).splitlines()[:-1]:
        assert line in printed


def test_the_result_holds_the_numbers(checkpoint: Path, capfd: Any) -> None:
    before = sorted(checkpoint.iterdir())
    found = trajplan.evaluate(str(checkpoint), **QUICK, device="cpu")
    assert sorted(checkpoint.iterdir()) == before
    assert found.path is None
    assert found.lengths.tolist() == [12, 12]
    assert found.normalized_scores == pytest.approx(100 * (found.returns + 1500) / 1500)
    assert found.summary["return"]["mean"] == pytest.approx(found.returns.mean())
    assert repr(found).startswith(f"Evaluation(2 episodes, mean return {found.returns.mean():.2f}, mean normalised")
    assert f"return            mean {found.returns.mean():.2f}" in str(found)
    assert capfd.readouterr() == ("", "")


def test_a_loaded_controller_and_a_policy_are_evaluated_alike(checkpoint: Path) -> None:
    whole = trajplan.evaluate(checkpoint, **QUICK, device="cpu")
    controller = trajplan.load(checkpoint, device="cpu")
    observation, _ = gymnasium.make("Pendulum-v1").reset(seed=0)
    controller.reset(seed=0)
    controller.act(observation)
    found = trajplan.evaluate(controller, **QUICK)
    assert found.returns.tolist() == whole.returns.tolist()
    assert found.report["planner"] == whole.report["planner"]
    # Its own episode was run over.
    with pytest.raises(ConfigError, match=r"call controller\.reset"):
        controller.act(observation, 0.0)
    random = trajplan.evaluate(RandomPolicy(controller.info), **QUICK)
    assert random.report["planner"] is None
    assert random.returns.tolist() != whole.returns.tolist()


def test_the_planner_can_be_another(checkpoint: Path) -> None:
    planner = BeamSearchConfig(horizon=1, beam_width=2, context=0)
    assert trajplan.evaluate(checkpoint, **QUICK, planner=planner, device="cpu").report["planner"]["horizon"] == 1


def test_an_interrupted_evaluation_says_how_far_it_came_and_goes_on(checkpoint: Path, monkeypatch: Any) -> None:
    from trajplan.planners.controller import PlanningPolicy

    whole = trajplan.evaluate(checkpoint, **QUICK, device="cpu")
    act, calls = PlanningPolicy.act, []

    def interrupted(*arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) > 15:
            raise KeyboardInterrupt
        return act(*arguments)

    monkeypatch.setattr(PlanningPolicy, "act", interrupted)
    with pytest.raises(EvaluationInterrupted, match="1 of 2 episodes are finished"):
        trajplan.evaluate(checkpoint, **QUICK, num_envs=1, output=checkpoint, device="cpu")
    monkeypatch.undo()
    resumed = trajplan.evaluate(checkpoint, **QUICK, output=checkpoint, resume=True, device="cpu")
    assert resumed.returns.tolist() == whole.returns.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes is 0; it must be at least 1"),
        ({"max_episode_steps": -1}, "max_episode_steps is -1; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        (
            {"seed": 10**20},
            "seed is 100000000000000000000; it must be 0 or more, and with the episodes fit into 63 bits",
        ),
        ({"picture": True}, "picture needs a folder: give output"),
        ({"viewer": True}, "viewer needs a folder: give output"),
        ({"video": True}, "video needs a folder: give output"),
        ({"resume": True}, "resume needs a folder: give output"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_loaded(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trajplan.evaluate("nowhere/at-all", **options)


def test_what_is_only_for_checkpoints_is_refused_for_policies(checkpoint: Path, tmp_path: Path) -> None:
    controller = trajplan.load(checkpoint, device="cpu")
    with pytest.raises(ConfigError, match="device is for a checkpoint that is loaded here"):
        trajplan.evaluate(controller, device="cpu")
    with pytest.raises(ConfigError, match="Only the evaluation of a checkpoint folder can be resumed"):
        trajplan.evaluate(controller, output=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="RandomPolicy makes no plans: leave out picture"):
        trajplan.evaluate(RandomPolicy(controller.info), output=tmp_path, picture=True)
    with pytest.raises(ConfigError, match="RandomPolicy makes no plans: leave out viewer"):
        trajplan.evaluate(RandomPolicy(controller.info), output=tmp_path, viewer=True)
    with pytest.raises(ConfigError, match="dict has no info, reset, act: give a checkpoint folder"):
        trajplan.evaluate({})  # type: ignore[arg-type]


def test_a_controller_and_its_plan_print_what_a_person_wants_to_know(checkpoint: Path) -> None:
    controller = trajplan.load(checkpoint, device="cpu")
    model: Any = controller.policy
    size = sum(values.numel() for values in model.planner.model.parameters())
    text = str(controller)
    assert text.splitlines()[0] == f"Controller: TrajectoryTransformer, {size:,} parameters"
    assert "toy/pendulum-v0: 5 episodes, 500 transitions, mean return -1200.50" in text
    assert "Pendulum-v1: 3 observed, actions Box(-2.0, 2.0, (1,), float32)" in text
    assert "beam_search: horizon 2, beam_width 3, n_expand 2, " in text
    observation, _ = gymnasium.make("Pendulum-v1").reset(seed=0)
    controller.reset(seed=0)
    action = controller.act(observation)
    plan = controller.plan
    assert plan is not None
    lines = str(plan).splitlines()
    assert lines[0] == "Plan: 3 trajectories of 2 steps, the best first"
    assert f"{plan.scores[0]:.2f}" in lines[1]
    assert float(lines[2].split("[")[1].rstrip("]")) == pytest.approx(float(action[0]), abs=1e-3)
    assert f"{plan.log_likelihood[0]:.2f} nats" in lines[3]
    assert max(map(len, lines)) < 100
    assert str(Controller(RandomPolicy(controller.info))).startswith("Controller: RandomPolicy\n")
