"""What a cell would refuse once it runs, refused before any cell begins, and before it trains on its machine."""

from collections.abc import Mapping
from typing import Any

from trajplan import devices
from trajplan.aids import load_aids
from trajplan.baseline_training import settings_for
from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.engine.preflight import preflight as preflight_baseline
from trajplan.comparison.cells import Cell, damaged_model, read_training
from trajplan.comparison.settings import DYNAMICS, TRANSFORMER, EvaluationConfig, split_planner
from trajplan.config import from_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.dynamics_training import preflight as preflight_ensemble
from trajplan.errors import ConfigError, TrajplanError
from trajplan.evaluation.environments import environment_maker, reference_scores, try_environment
from trajplan.hub import load_policy
from trajplan.planners.cem import CEMConfig
from trajplan.planners.registry import type_of
from trajplan.planners.settings import check_window, planner_config


def check_method(method: str, settings: Mapping[str, Any], dataset: OfflineDataset, device: str | None = None) -> bool:
    """Ask the method's training whether it would begin, and the planner whether it can plan with the model.

    Returns:
        Whether the training evaluates on the way, which it does in the dataset's own environment.
    """
    training, name, planner = split_planner(settings)
    if method == DYNAMICS:
        config = from_dict(DynamicsConfig, training)
        preflight_ensemble(dataset, config)
        planned = planner_config(name, CEMConfig(), planner)
        if type_of(planned) == "mbop" and not config.prior:
            raise ConfigError("mbop plans with cloned policies, which prior=false leaves out.")
        return False
    if method != TRANSFORMER:
        config, run = settings_for(method, dataset.info, training)
        preflight_baseline(dataset, method, config, run)
        return run.eval_every > 0
    # Here, as a baseline needs neither accelerate nor transformers.
    from trajplan import pretraining
    from trajplan.training.loop import uses_gpu
    from trajplan.training.preflight import preflight

    gpu = device != "cpu" and uses_gpu()
    try:
        train, saved, _ = pretraining.settings_for(dataset, training.pop("preset", None), gpu=gpu, **training)
    except ConfigError as error:
        hint = " A model is trained with the context of its preset's planner, whatever planner.context is."
        raise ConfigError(f"{error}{hint if str(error).startswith('context is') else ''}") from None
    preflight(dataset, train)
    planning = planner_config(name, saved, planner)
    check_window(planning, train.window)
    load_aids(planning, dataset.info, "cpu")
    return False


def check_environments(info: DatasetInfo, evaluation: EvaluationConfig, on_the_way: bool) -> None:
    """Make the environment that cells are evaluated in, and the one that baselines are evaluated in on the way."""
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


def check_cell(cell: Cell, device: str | None) -> None:
    """Try a cell's settings and environments on this machine."""
    dataset = OfflineDataset.from_minari(cell.dataset_ids)
    on_the_way = check_method(cell.method, cell.settings, dataset, device)
    check_environments(dataset.info, cell.evaluation, on_the_way)


def check_model(cell: Cell) -> None:
    """Load the model of a cell that was trained before, as its evaluation will."""
    read_training(cell)
    try:
        load_policy(cell.model, device="cpu")
    except TrajplanError as error:
        raise damaged_model(cell, error) from None


def check_device(method: str, device: str | None) -> None:
    """Refuse a device that a method could not train on here; takes no memory of it."""
    devices.check_device(device)
    if device != "cuda" or method != TRANSFORMER:
        return
    from trajplan.training.loop import uses_gpu

    if not uses_gpu():
        raise ConfigError(
            "ACCELERATE_USE_CPU keeps the Trajectory Transformer from the GPU that --device cuda asks for; unset it, "
            "or give --device cpu."
        )
