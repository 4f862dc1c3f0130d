"""How wrong a dynamics model is on held-out data, one and more steps ahead, against how uncertain it says it is.

MOPO's guarantee rests on an uncertainty that bounds the model's error (Yu et al. 2020, theorem 4.4); this measures
whether it even orders the errors: rank correlation, reliability by uncertainty, and coverage of the Gaussians.
"""

from statistics import NormalDist
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from trajplan.baselines.engine.scaling import Scaling
from trajplan.data.dataset import OfflineDataset
from trajplan.models.dynamics import DynamicsEnsemble, Prediction, Uncertainty, uncertainty_of

STARTS = 5000
BINS = 10
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
KINDS: tuple[Uncertainty, ...] = get_args(Uncertainty)


@torch.no_grad()
def held_out_errors(
    dynamics: DynamicsEnsemble, dataset: OfflineDataset, episodes: np.ndarray, scaling: Scaling, steps: int
) -> dict[str, Any]:
    """Errors and uncertainties along recorded actions, from states of held-out episodes.

    The model is followed by the mean of the elites' means, without noise. The error of step k is the norm of
    (state, reward) predicted minus recorded, in the environment's units; the uncertainty is the sum of that of
    steps 1 to k. Step k is measured from the states with k transitions of their episode ahead: one step from all of
    them, an episode's last transition among them.

    Args:
        dynamics: on the scaling's device.
        dataset: untransformed.
        episodes: those held out.
        scaling: of the run.
        steps: how far to follow; fewer if no state has as many transitions ahead.

    Returns:
        JSON-able: `k_step`, a list by step of the number of states, mean and median error, error relative to the
        data's standard deviations, and the rank correlation by kind of uncertainty; `reliability` by kind, mean
        uncertainty and root mean squared error in bins of equally many one-step predictions; `calibration`, how many of
        the recorded values lie within the central intervals of each level.
    """
    device = scaling.mean.device
    rows, first, ahead = _starts(dataset, episodes)
    states = _taken(dataset.observations, first, device)
    doubts = torch.zeros(len(KINDS), len(rows), device=device)
    lines = []
    for step in range(min(steps, int(ahead.max()))):
        kept = ahead > step
        rows, first, ahead = rows[kept], first[kept], ahead[kept]
        inside = torch.from_numpy(kept).to(device)
        states, doubts = states[inside], doubts[:, inside]
        actions = scaling.environment_actions(scaling.actions(_taken(dataset.actions, rows + step, device)))
        following = _taken(dataset.observations, first + step + 1, device)
        rewards = _taken(dataset.rewards, rows + step, device)
        prediction = dynamics.predict(states, actions, dynamics.elites)
        truth = torch.cat([following - states, rewards[:, None]], dim=-1)
        mean = prediction.mean.mean(0)
        error = (truth - mean).norm(dim=-1)
        relative = ((truth - mean) / _spread(dynamics)).square().mean().sqrt()
        doubts = doubts + torch.stack([uncertainty_of(prediction, kind) for kind in KINDS])
        if step == 0:
            reliability = {kind: _reliability(doubt, error) for kind, doubt in zip(KINDS, doubts, strict=True)}
            calibration = _coverage(prediction, truth)
        correlations = {kind: rank_correlation(doubt, error) for kind, doubt in zip(KINDS, doubts, strict=True)}
        lines.append(
            {
                "step": step + 1,
                "starts": len(rows),
                "error_mean": error.mean().item(),
                "error_median": error.median().item(),
                "error_relative": relative.item(),
                "rank_correlation": correlations,
            }
        )
        states = (states + mean[:, :-1]).clamp(dynamics.low[:-1], dynamics.high[:-1])
    return {"k_step": lines, "reliability": reliability, "calibration": calibration}


def rank_correlation(one: Tensor, other: Tensor) -> float | None:
    """Spearman's correlation of two (n,), ties at their mean rank; None where one of them is constant."""
    from scipy.stats import spearmanr  # takes half a second, and is needed after a model's training alone

    a, b = (values.double().cpu().numpy() for values in (one, other))
    return float(spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else None


def _starts(dataset: OfflineDataset, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to `STARTS` rows, evenly spread: of actions, of observations, and how many transitions are ahead in each."""
    lengths = dataset.lengths[episodes]
    rows = np.concatenate([np.arange(*dataset.offsets[[episode, episode + 1]]) for episode in episodes])
    before, ends = np.repeat(episodes, lengths), np.repeat(dataset.offsets[episodes] + lengths, lengths)
    chosen = np.unique(np.linspace(0, len(rows) - 1, STARTS).round().astype(np.int64))
    return rows[chosen], (rows + before)[chosen], (ends - rows)[chosen]


def _taken(values: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(values)[rows]).to(device)


def _spread(dynamics: DynamicsEnsemble) -> Tensor:
    """Standard deviations (D,) of the data's observations and rewards."""
    size = len(dynamics.target_std) - 1
    return torch.cat([dynamics.input_std[:size], dynamics.target_std[size:]])


def _reliability(doubt: Tensor, error: Tensor) -> dict[str, list[float]]:
    order = doubt.argsort(stable=True)
    bins = [part for part in order.tensor_split(BINS) if len(part)]
    return {
        "uncertainty": [doubt[part].mean().item() for part in bins],
        "error": [error[part].square().mean().sqrt().item() for part in bins],
    }


def _coverage(prediction: Prediction, truth: Tensor) -> dict[str, list[float]]:
    distance = ((truth - prediction.mean) / prediction.std).abs()
    bounds = [NormalDist().inv_cdf(0.5 + level / 2) for level in LEVELS]
    return {"level": list(LEVELS), "coverage": [(distance <= bound).float().mean().item() for bound in bounds]}
