"""CORL's CQL and ours from one start on the same batches: what is left is the actions that each draws, and details.

python benchmarks/beside/corl_and_ours.py CORL hopper.npz --env Hopper-v5 --updates 3000 --every 500 --output pair.json
"""

import json
from pathlib import Path

import numpy as np
import torch
from episodes import mean_return
from run_corl import CorlCQL, corl_parser
from torch import nn

from trajplan.baselines.cql import CQL, CQLConfig
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions, EnsembleMLP


@torch.no_grad()
def copy_weights(corl: CorlCQL, ours: CQL) -> None:
    """Give ours CORL's weights: both Q, their targets and the policy."""
    trainer = corl.trainer
    for networks, critics in (
        (ours.critic.networks, (trainer.critic_1, trainer.critic_2)),
        (ours.target.networks, (trainer.target_critic_1, trainer.target_critic_2)),
    ):
        assert isinstance(networks, EnsembleMLP)
        for member, critic in enumerate(critics):
            layers = [layer for layer in critic.network if isinstance(layer, nn.Linear)]
            for layer, weight, bias in zip(layers, networks.weights, networks.biases, strict=True):
                weight[member].copy_(layer.weight.T)
                bias[member, 0].copy_(layer.bias)
    ours.policy.network.load_state_dict(corl.actor.base_network.state_dict())
    ours.policy.shift_log_std(corl.actor.log_std_offset().item())


def as_batch(sample: list[torch.Tensor]) -> Batch:
    """A batch of CORL's buffer as ours."""
    observations, actions, rewards, following, ends = sample
    return Batch(observations, actions, rewards[:, 0], following, ends[:, 0].bool())


def main() -> None:
    args = corl_parser(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    corl = CorlCQL(args.corl, args.arrays, args.seed)
    ours = CQL(Dimensions(*corl.sizes), CQLConfig())
    copy_weights(corl, ours)

    @torch.no_grad()
    def act(observation: np.ndarray) -> np.ndarray:
        return ours.act(torch.tensor(corl.standardised(observation), dtype=torch.float32)[None])[0].numpy()

    returns: dict[str, dict[int, float]] = {"corl": {}, "trajplan": {}}
    q: dict[str, dict[int, float]] = {"corl": {}, "trajplan": {}}
    penalty: dict[str, dict[int, float]] = {"corl": {}, "trajplan": {}}
    # CORL's sum over candidates is not divided by their number.
    log_candidates = float(np.log(3 * ours.config.candidates))
    for update in range(1, args.updates + 1):
        batch = corl.buffer.sample(256)
        theirs = corl.trainer.train(batch)
        metrics = ours.update(as_batch(batch))
        if update % args.every:
            continue
        q["corl"][update] = round((theirs["average_qf1"] + theirs["average_qf2"]) / 2, 3)
        q["trajplan"][update] = round(metrics["critic/q_mean"].item(), 3)
        bracket = (theirs["cql_qf1_diff"] + theirs["cql_qf2_diff"]) / 2 - log_candidates
        penalty["corl"][update] = round(bracket, 3)
        penalty["trajplan"][update] = round(metrics["critic/penalty"].item(), 3)
        returns["corl"][update] = mean_return(corl.act, args.env, args.episodes)
        returns["trajplan"][update] = mean_return(act, args.env, args.episodes)
        print(update, *(f"{name}: {returns[name][update]}, Q {q[name][update]}" for name in returns), flush=True)
        if args.output:
            numbers = {"config": corl.config, "returns": returns, "q": q, "penalty": penalty}
            Path(args.output).write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
