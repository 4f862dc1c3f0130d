"""What a planner is given besides its model: the critic and the dynamics ensemble that its settings name."""

from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from trajplan.baselines.engine.checkpoint import load_dynamics
from trajplan.baselines.engine.critic import critic_of
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.files import read_json
from trajplan.planners.settings import aids_of


def load_aids(config: Any, info: DatasetInfo, device: torch.device | str) -> dict[str, Any]:
    """The `critic` and the `ensemble` whose folders a planner's settings name, as keywords of its class.

    Args:
        config: the settings; those without such a field, or that leave it out, get nothing.
        info: the dataset that the planner's model was trained on.
        device: where they are asked.
    """
    aids: dict[str, Any] = {}
    for name, folder in aids_of(config).items():
        if name == "critic":
            critic = aids[name] = critic_of(folder, device)
            check_spaces(folder, critic.info, info, goals=critic.needs_goals)
            check_discount(folder, critic.discount, config)
        else:
            aids[name] = load_dynamics(folder).to(device).eval()
            check_spaces(folder, DatasetInfo.from_dict(read_json(folder / "dataset.json")), info)
    return aids


def check_spaces(folder: Path, learned: DatasetInfo, info: DatasetInfo, *, goals: bool = False) -> None:
    """Refuse what was learned on a dataset of other observations or actions, or other goals if it needs them."""
    differing = [
        f"{what} are {was} there and {now} in {info.id}"
        for what, was, now in (
            ("observations", _parts(learned), _parts(info)),
            ("actions", _actions(learned), _actions(info)),
            *([("goals", _goals(learned), _goals(info))] if goals else []),
        )
        if was != now
    ]
    if differing:
        raise ConfigError(f"{folder} was trained on {learned.id}, which does not fit the model: {differing[0]}.")


def check_discount(folder: Path, discount: float, config: Any) -> None:
    """Refuse values of rewards that are discounted otherwise than the planner discounts them."""
    planned = getattr(config, "discount", discount)
    if planned != discount:
        raise ConfigError(
            f"{folder} was trained with discount {discount:g}, and the planner's is {planned:g}: give --discount "
            f"{discount:g}, or another critic."
        )


def _parts(info: DatasetInfo) -> str:
    parts = [f"{'.'.join(part.path)} of {part.size}" for part in info.observation_layout if part.path]
    return ", ".join(parts) or f"{info.observation_dim} numbers"


def _actions(info: DatasetInfo) -> str:
    if info.num_actions is not None:
        return f"{info.num_actions} choices"
    space = info.action_space
    assert isinstance(space, spaces.Box)
    low, high = (", ".join(dict.fromkeys(f"{value:g}" for value in bound.flat)) for bound in (space.low, space.high))
    return f"{info.action_dim} numbers from {low} to {high}"


def _goals(info: DatasetInfo) -> str:
    columns = info.goal_columns
    return "none" if columns is None else f"columns {', '.join(map(str, columns))}"
