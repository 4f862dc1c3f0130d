"""What a model imagines from one moment of an episode: many paths side by side, none of them pruned."""

from dataclasses import replace

import numpy as np
import torch

from trajplan.evaluation.pictures.trace import Trace
from trajplan.planners.beam_search import BeamSearch
from trajplan.planners.controller import Plan, TrajectoryController
from trajplan.tokenizers.tokenizer import Tokenizer

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
    controller = trace.policy
    if not isinstance(controller, TrajectoryController):
        return None
    config = replace(
        controller.config,
        horizon=max(HORIZON, controller.config.horizon),
        beam_width=PATHS,
        n_expand=1,
        action_top_k=None,
        action_cdf=None,
    )
    search = BeamSearch(controller.search.model, controller.tokenizer, config)
    present = torch.as_tensor(trace.observations[step], dtype=torch.float32)[None]
    context = _context(trace, step, config.context, controller.tokenizer)
    _, plans = search.plan(present, context[None], [torch.Generator().manual_seed(step)])
    return Plan(
        observations=search.observations(plans)[0].cpu().numpy(),
        actions=search.actions(plans)[0].cpu().numpy(),
        rewards=plans.rewards[0].cpu().numpy(),
        returns=plans.returns[0].cpu().numpy(),
        scores=plans.scores[0].cpu().numpy(),
        alive=plans.alive[0].cpu().numpy(),
        log_likelihood=plans.log_likelihood[0].cpu().numpy(),
    )


def _context(trace: Trace, step: int, length: int, tokenizer: Tokenizer) -> torch.Tensor:
    """Tokens (C, J) of at most `length` transitions before a step; those of the return-to-go are not read, so 0."""
    past = range(max(0, step - length), step)
    rows = [np.concatenate([trace.observations[t], trace.actions[t], [trace.rewards[t]]]) for t in past]
    values = torch.as_tensor(np.reshape(rows, (len(past), tokenizer.num_dims - 1)), dtype=torch.float32)
    tokens = tokenizer.to("cpu").encode(values, slice(0, tokenizer.num_dims - 1))
    return torch.cat([tokens, tokens.new_zeros(len(past), 1)], 1)
