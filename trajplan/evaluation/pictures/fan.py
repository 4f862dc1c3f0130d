"""What a model imagines from one moment of an episode: many paths side by side, none of them pruned."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from trajplan.evaluation.pictures.trace import Trace
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.beam_search import BeamSearch
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.plan import Plan
from trajplan.planners.settings import planner_config

PATHS = 192
HORIZON = 14  # at least: short plans would show little of a maze


def imagined_paths(trace: Trace, step: int) -> Plan | None:
    """Paths from the present of a step, best predicted return first; None for a policy that does not plan by tokens.

    The planner's own beams soon share all but their last steps, since each step keeps the best of all. Here every path
    is on its own: actions come from the model's whole distribution, and nothing is pruned. Scores are the planner's.

    Args:
        trace: the episode.
        step: the present; what came before it is the context that the planner's settings ask for.
    """
    policy = trace.policy
    planner: Any = policy.planner if isinstance(policy, PlanningPolicy) else None
    model, tokenizer = (getattr(planner, name, None) for name in ("model", "tokenizer"))
    if not isinstance(model, TrajectoryTransformer) or tokenizer is None:
        return None
    alone = {"beam_width": PATHS, "n_expand": 1, "action_top_k": None, "action_cdf": None, "replan_every": 1}
    config = planner_config("beam_search", planner.config, alone)
    horizon = max(HORIZON, getattr(planner.config, "horizon", 1)) if model.config.window > 1 else 1
    search = BeamSearch(model, tokenizer, replace(config, horizon=horizon))
    present = torch.as_tensor(trace.observations[step], dtype=torch.float32)[None]
    past = _past(trace, step, config.context)
    aim = None if trace.goal is None else torch.as_tensor(trace.goal, dtype=torch.float32)[None]
    goals: dict[str, Any] = {} if aim is None else {"goals": aim}
    return search.plan(present, past[None], [torch.Generator().manual_seed(step)], **goals)[1].row(0)


def _past(trace: Trace, step: int, length: int) -> torch.Tensor:
    """(C, S + A + 1) float32 observations, actions and rewards of at most `length` transitions before a step."""
    steps = range(max(0, step - length), step)
    rows = [np.concatenate([trace.observations[t], trace.actions[t], [trace.rewards[t]]]) for t in steps]
    width = len(trace.observations[step]) + trace.policy.info.action_dim + 1
    return torch.as_tensor(np.reshape(rows, (len(steps), width)), dtype=torch.float32)
