"""What a cell would refuse once it runs, refused before any cell begins, and before it trains on its machine."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.dynamics.training import model_split
from trajplan.baselines.engine.scaling import fit_scaling, reward_transform, training_episodes
from trajplan.baselines.engine.terminals import check_terminals
from trajplan.baselines.presets import preset_for as baseline_preset_for
from trajplan.baselines.registry import method_named
from trajplan.comparison.cells import Cell, damaged_model, read_training
from trajplan.comparison.settings import TRANSFORMER, EvaluationConfig, split_planner
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError, TrajplanError
from trajplan.evaluation.environments import environment_maker, reference_scores, try_environment
from trajplan.hub import load_policy
from trajplan.planners.settings import check_window
from trajplan.presets import Preset, preset_for, preset_named


def check_method(method: str, settings: Mapping[str, Any], dataset: OfflineDataset) -> bool:
    """Make the configs that a cell will make, and try what else it does with the dataset before its first update.

    Returns:
        Whether the training evaluates on the way, which it does in the dataset's own environment.

    Raises:
        ConfigError: for values out of range or that do not go together, or a method that is not for the dataset's
            actions.
        DataError: for a dataset that the method cannot learn from.
    """
    training, planner = split_planner(settings)
    if method == TRANSFORMER:
        from trajplan.training.loop import uses_gpu  # with accelerate, which baselines do not need

        name = training.pop("preset", "auto")
        preset = (
            preset_for(dataset.info, gpu=uses_gpu()) if name == "auto" else preset_named(name, dataset.num_transitions)
        )
        train = replace(preset.train, **training)
        _check_planner(preset, planner, train.window)
        if train.held_out > 0:
            dataset.split(train.held_out, train.seed)
        return False
    method_named(method).method_class(dataset.info)
    config, run = (
        replace(config, **{name: value for name, value in training.items() if hasattr(config, name)})
        for config in baseline_preset_for(method, dataset.info)
    )
    check_terminals(dataset, config)
    fit_scaling(dataset, run.standardize)
    reward_transform(dataset, run.reward_transform)
    if isinstance(config, ModelBasedConfig):
        model_split(dataset, training_episodes(dataset, run), config, run.seed)
    return run.eval_every > 0


def _check_planner(preset: Preset, planner: Mapping[str, Any], window: int) -> None:
    try:
        check_window(preset.planner, window)
    except ConfigError as error:
        hint = "A model is trained with the context of its preset's planner, whatever planner.context is."
        raise ConfigError(f"{error} {hint}") from None
    check_window(replace(preset.planner, **planner), window)


def check_environments(info: DatasetInfo, evaluation: EvaluationConfig, on_the_way: bool) -> None:
    """Make the environment that cells are evaluated in, and the one that baselines are evaluated in on the way.

    Raises:
        ConfigError: if there is none, it is not like the data's, or its episodes may never end.
    """
    reference_scores(info, evaluation.env, evaluation.reference_min, evaluation.reference_max)
    makers = [(environment_maker(info, evaluation.env, max_episode_steps=evaluation.max_episode_steps), "")]
    if on_the_way:
        hint = " To train baselines without evaluation on the way, give --set baselines.eval_every=0."
        makers.append((environment_maker(info), hint))
    for make_env, hint in makers:
        try:
            try_environment(make_env, info)
        except TrajplanError as error:
            raise ConfigError(f"{error}{hint}") from None


def check_cell(cell: Cell) -> None:
    """Try a cell's settings and environments on this machine.

    Raises:
        ConfigError, DataError: as `check_method` and `check_environments` say, or if the dataset is not there.
    """
    dataset = OfflineDataset.from_minari(cell.dataset_ids)
    on_the_way = check_method(cell.method, cell.settings, dataset)
    check_environments(dataset.info, cell.evaluation, on_the_way)


def check_model(cell: Cell) -> None:
    """Load the model of a cell that was trained before, as its evaluation will.

    Raises:
        CheckpointError: if it is missing or damaged, naming what to delete.
    """
    read_training(cell)
    try:
        load_policy(cell.model, device="cpu")
    except TrajplanError as error:
        raise damaged_model(cell, error) from None
