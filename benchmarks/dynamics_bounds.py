"""What the weight of the log-variance bounds does to a dynamics ensemble: deviations, coverage and the penalty.

Trains one ensemble for each weight on the same data, from the same start: the whole of it for every member (as up to
0.1.0's first commits), and each member's share of it. Off the data means held-out states with actions drawn uniformly
from the action space.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import write

import trajplan.models.dynamics as dynamics_module
from trajplan.baselines.dynamics.errors import held_out_errors
from trajplan.baselines.dynamics.training import model_split, table_of, train_ensemble
from trajplan.baselines.engine.scaling import fit_scaling
from trajplan.baselines.mopo import MOPOConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.models.dynamics import DynamicsEnsemble, uncertainty_of
from trajplan.models.scaling import Scaling

ROWS = 20_000


@torch.no_grad()
def measured(dynamics: DynamicsEnsemble, observations: torch.Tensor, actions: torch.Tensor) -> dict[str, float]:
    """Mean penalty (largest norm of the elites' deviations), and mean deviation relative to the targets' own."""
    prediction = dynamics.predict(observations, actions, dynamics.elites)
    return {
        "penalty_mean": uncertainty_of(prediction, "max-deviation").mean().item(),
        "disagreement_mean": uncertainty_of(prediction, "disagreement").mean().item(),
        "deviation_relative": (prediction.std / dynamics.target_std).mean().item(),
    }


def run(dataset: OfflineDataset, config: MOPOConfig, scaling: Scaling, factor: float) -> dict[str, Any]:
    """Train with `factor` times the weight, and measure."""
    weight = dynamics_module.BOUND_LOSS
    dynamics_module.BOUND_LOSS = weight * factor
    split = model_split(dataset, None, config, seed=0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            trained = train_ensemble(
                dataset, split, scaling, config, Path(folder), seed=0, stopped=lambda: False, visible=True
            )
    finally:
        dynamics_module.BOUND_LOSS = weight
    assert trained is not None
    dynamics = trained.ensemble
    errors = held_out_errors(dynamics, dataset, split[1], scaling, steps=1)
    inputs = table_of(dataset, split[1], scaling, torch.device("cpu")).inputs[:ROWS]
    states, actions = inputs[:, : dataset.observation_dim], inputs[:, dataset.observation_dim :]
    generator = torch.Generator().manual_seed(0)
    uniform = scaling.environment_actions(2 * torch.rand(actions.shape, generator=generator) - 1)
    gap = dynamics.max_log_variance - dynamics.min_log_variance
    return {
        "epochs": len(trained.history) - 1,
        "seconds": round(trained.seconds, 1),
        "best_held_out_losses": trained.history.min(0).values.tolist(),
        "bounds_gap": {"min": gap.min().item(), "mean": gap.mean().item()},
        "one_step_error_mean": errors["k_step"][0]["error_mean"],
        "rank_correlation": errors["k_step"][0]["rank_correlation"],
        "calibration": errors["calibration"],
        "on_data": measured(dynamics, states, actions),
        "off_data": measured(dynamics, states, uniform),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="Minari id")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", required=True, help="JSON file")
    args = parser.parse_args()
    dataset = OfflineDataset.from_minari(args.dataset)
    config, scaling = MOPOConfig(model_max_epochs=args.epochs), fit_scaling(dataset, True)
    rows = {
        "each member the whole weight": run(dataset, config, scaling, config.model_members),
        "each member its share": run(dataset, config, scaling, 1.0),
    }
    write(args.output, {"dataset": args.dataset, "weights": rows})


if __name__ == "__main__":
    main()
