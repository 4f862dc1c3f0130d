"""A planner that another package brings: CONTRIBUTING.md's recipe, followed from outside."""

import json
from pathlib import Path

import gymnasium
import pytest

import trajplan
from trajplan.cli import main
from trajplan.data.collection.collect import collect_dataset
from trajplan.planners.registry import planners

TOY = """
from dataclasses import dataclass

import torch

from trajplan.config import option
from trajplan.planners.plan import Plan
from trajplan.planners.registry import Entry

ENTRY = Entry("the boldest of a few actions", "toy_planner", "ToyConfig", "Toy")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    tries: int = option(3, "actions drawn")
    context: int = option(1, "past transitions that the plan is conditioned on")
    replan_every: int = option(1, "steps acted from one plan before the next is made")


class Toy:
    def __init__(self, model, tokenizer, config):
        self.model, self.tokenizer, self.config = model, tokenizer, config

    def plan(self, observations, past, generators):
        shape = (self.config.tries, 1, self.model.config.action_dim)
        drawn = torch.stack([torch.rand(shape, generator=generator) * 2 - 1 for generator in generators])
        scores, order = drawn[:, :, 0, 0].sort(dim=1, descending=True)
        actions = drawn[torch.arange(len(drawn))[:, None], order]
        nothing = torch.zeros(len(drawn), self.config.tries, 1)
        plan = Plan(
            observations=observations[:, None, None].expand(-1, self.config.tries, 1, -1),
            actions=actions,
            rewards=nothing,
            returns=nothing,
            scores=scores,
            alive=nothing == 0,
            log_likelihood=scores - 10,
        )
        return actions[:, 0, 0], plan
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with an installed package, as pip leaves it."""
    folder = tmp_path / "site"
    about = folder / "toy_planner-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "toy_planner.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-planner\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[trajplan.planners]\ntoy = toy_planner:ENTRY\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_it_is_loaded_and_acts(toy: Path, checkpoint: Path) -> None:
    from toy_planner import ToyConfig  # type: ignore[import-not-found]

    assert planners()["toy"].summary == "the boldest of a few actions"
    controller = trajplan.load(checkpoint, planner=ToyConfig(tries=5), device="cpu")
    observation, _ = gymnasium.make("Pendulum-v1").reset(seed=0)
    controller.reset(seed=0)
    action = controller.act(observation)
    assert controller.plan is not None
    assert controller.plan.actions.shape == (5, 1, 1)
    assert float(action[0]) == pytest.approx(controller.plan.actions.max())
    assert "toy: tries 5" in str(controller)


def test_it_is_evaluated_by_name(toy: Path, checkpoint: Path) -> None:
    words = ["evaluate", str(checkpoint), "--episodes", "1", "--max-episode-steps", "5"]
    assert main([*words, "--planner", "toy", "--tries", "4", "--picture", "--device", "cpu"]) == 0
    written = json.loads((checkpoint / "evaluation.json").read_text())
    assert written["planner"] == {"type": "toy", "tries": 4, "context": 1, "replan_every": 1}
    assert (checkpoint / "plan.png").stat().st_size > 1000


def test_it_is_compared_in_processes_of_their_own(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    (tmp_path / "minari").mkdir()
    collect_dataset("Pendulum-v1", "toy/pendulum-v0", episodes=4, policy="random", max_episode_steps=8)
    words = ["compare", "--dataset", "toy/pendulum-v0", "--methods", "toy=tt", "--seeds", "1", "--episodes", "2"]
    settings = ["toy.preset=tt_debug", "toy.updates=2", "toy.planner=toy", "toy.planner.tries=4"]
    output = tmp_path / "out"
    assert main([*words, "--max-episode-steps", "4", "--output", str(output), "--set", *settings]) == 0, (
        capsys.readouterr()
    )
    written = json.loads((output / "toy/seed-0/model/evaluation.json").read_text())
    assert written["planner"] == {"type": "toy", "tries": 4, "context": 2, "replan_every": 1}
    assert len(written["episodes"]) == 2
    assert "toy of toy" in (output / "report.html").read_text()
