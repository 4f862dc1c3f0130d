"""Training with goals: which observation is a window's goal, exact resume, and what is written down."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trajplan.errors import ConfigError
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.runs.metrics import read_metrics
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.batches import TokenTable, TrainingBatches
from trajplan.training.checkpoint import load_model_folder
from trajplan.training.config import TrainConfig
from trajplan.training.goals import WindowGoals
from trajplan.training.loop import train


@pytest.fixture(scope="module")
def aiming(dataset):
    """The walks, whose goals fix both coordinates."""
    return replace(dataset, info=replace(dataset.info, goal_columns=(1, 0)))


@pytest.fixture(scope="module")
def tokenizer(aiming):
    return fit_tokenizer("quantile", aiming.joined(), 8)


def drawn(aiming, tokenizer, config, index=None, update=0):
    windows = aiming.windows(config.window)
    index = torch.arange(len(windows)) if index is None else index
    return WindowGoals(aiming, windows, tokenizer, config).of(index, update)


@pytest.mark.parametrize("columns", ["all", "0"])
def test_the_last_goal_is_the_episodes_last_observation(aiming, tokenizer, tiny, columns):
    goals = drawn(aiming, tokenizer, tiny(goal=columns, goal_draw="last"))
    last = np.repeat(aiming.offsets[1:] + np.arange(aiming.num_episodes), aiming.lengths)
    observed = tokenizer.encode(torch.from_numpy(np.asarray(aiming.observations[last])), slice(0, 3))
    assert torch.equal(goals, observed[:, [1, 0] if columns == "all" else [0]])


def test_a_goal_lies_after_the_windows_start_in_its_episode(aiming, tokenizer, tiny):
    config = tiny(goal="all", goal_draw="uniform")
    goals = torch.stack([drawn(aiming, tokenizer, config, update=update) for update in range(60)])
    tokens = tokenizer.encode(torch.from_numpy(np.asarray(aiming.observations)), slice(0, 3))[:, [1, 0]]
    window = 0
    for episode, length in enumerate(aiming.lengths):
        first = int(aiming.offsets[episode]) + episode
        for step in range(length):
            later = {tuple(row) for row in tokens[first + step + 1 : first + length + 1].tolist()}
            assert {tuple(row) for row in goals[:, window].tolist()} == later or length - step > 6
            assert {tuple(row) for row in goals[:, window].tolist()} <= later
            window += 1


def test_goals_are_a_function_of_seed_and_update(aiming, tokenizer, tiny):
    config = tiny(goal="all")
    one, again = (drawn(aiming, tokenizer, config, update=3) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, drawn(aiming, tokenizer, config, update=4))
    assert not torch.equal(one, drawn(aiming, tokenizer, replace(config, seed=1), update=3))


def test_parts_and_processes_share_the_goals_of_a_batch(aiming, tokenizer, tiny):
    def goals_of(config, rank, processes):
        windows = aiming.windows(config.window)
        table = TokenTable(aiming, tokenizer, config, torch.device("cpu"))
        goals = WindowGoals(aiming, windows, tokenizer, config)
        return torch.cat([p.goals for p in TrainingBatches(table, windows, config, rank, processes, goals).batch(2)[0]])

    whole = goals_of(tiny(goal="all"), 0, 1)
    assert whole.shape == (16, 2)
    assert torch.equal(goals_of(tiny(goal="all", accumulation=4), 0, 1), whole)
    assert torch.equal(torch.cat([goals_of(tiny(goal="all"), rank, 2) for rank in range(2)]), whole)


def losses(folder):
    return [(line["update"], line["loss"], line.get("held_out/loss")) for line in read_metrics(folder)]


def test_a_resumed_run_is_exact_and_the_folder_says_how_goals_were_drawn(aiming, tiny, tmp_path):
    config = tiny(goal="all", goal_draw="geometric", goal_discount=0.9)
    train(aiming, tmp_path / "whole", config)
    written = json.loads((tmp_path / "whole/dataset.json").read_text())
    how = {"columns": [1, 0], "draw": "geometric", "discount": 0.9}
    assert written["goal_relabelling"] == {"name": "hindsight", "window": how}
    model = load_model_folder(tmp_path / "whole").model
    assert (model.config.goal_columns, model.config.goal_places) == ([1, 0], [0, 1])

    with pytest.raises(KeyboardInterrupt):
        train(aiming, tmp_path / "broken", config, begun=interrupt_at(6))
    result = train(aiming, tmp_path / "broken", config, resume=True)
    assert result.updates == 12
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert "wge.weight" in one
    assert all(torch.equal(one[name], other[name]) for name in one | other)


def interrupt_at(update):
    """Makes a run stop after a checkpoint, as a kill does."""
    calls = []
    forward = TrajectoryTransformer.forward

    def begun(folder):
        def counted(self, *args, **kwargs):
            calls.append(self.training)
            if sum(calls) > update:
                TrajectoryTransformer.forward = forward
                raise KeyboardInterrupt
            return forward(self, *args, **kwargs)

        TrajectoryTransformer.forward = counted

    return begun


def test_what_is_no_goal_of_the_data_is_refused_before_anything_is_written(dataset, aiming, tiny, tmp_path):
    for words in ("2", "0,0", "x", "0,5", ""):
        with pytest.raises(ConfigError, match=r"goal is '.*'; it must be all, none, or different ones of .* 1,0"):
            train(aiming, tmp_path / "run", tiny(goal=words))
    with pytest.raises(ConfigError, match="names no goal_columns"):
        train(dataset, tmp_path / "run", tiny(goal="all"))
    with pytest.raises(ConfigError, match="goal_discount is 1"):
        TrainConfig(goal_discount=1.0)
    assert not (tmp_path / "run").exists()
