"""One update of CORL's CQL and of ours from the same weights, batch and random numbers: how far the gradients differ.

python benchmarks/beside/corl_one_update.py CORL hopper.npz --updates 150 --output one-update.json
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from corl_and_ours import as_batch, copy_weights
from run_corl import CorlCQL, corl_parser
from torch import Tensor
from torch.distributions import normal

from trajplan.baselines.cql import CQL, CQLConfig
from trajplan.models.networks import Dimensions


@contextmanager
def drawing(*numbers: Tensor) -> Iterator[None]:
    """Within it, whatever draws random numbers gets these, in this order, all of them and in their shapes."""
    left = list(numbers)

    def draw(shape: Iterable[int]) -> Tensor:
        drawn = left.pop(0)
        if tuple(drawn.shape) != tuple(shape):
            raise SystemExit(f"Numbers of shape {tuple(shape)} are drawn where {tuple(drawn.shape)} was expected.")
        return drawn

    with (
        mock.patch.object(normal, "_standard_normal", lambda shape, **_: draw(shape)),
        mock.patch.object(torch, "randn", lambda shape, **_: draw(shape)),
        mock.patch.object(Tensor, "uniform_", lambda self, *_: self.copy_(draw(self.shape))),
    ):
        yield
    if left:
        raise SystemExit(f"{len(left)} of the random numbers were not drawn.")


def kept_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """A list that holds the gradients, in the order of the parameters, once the optimiser was asked to step."""
    kept: list[Tensor] = []

    def keep() -> None:
        kept.extend(p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    optimizer.step = keep  # type: ignore[method-assign, assignment]
    return kept


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest over parameters of |ours - theirs| / |theirs|."""
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    args = corl_parser(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    corl = CorlCQL(args.corl, args.arrays, args.seed)
    trainer = corl.trainer
    for _ in range(args.updates):
        trainer.train(corl.buffer.sample(256))
    ours = CQL(Dimensions(*corl.sizes), CQLConfig())
    with torch.no_grad():
        # The factor of the log-deviation that CORL learns is not in ours; it moves little from 1.
        corl.actor.log_std_multiplier.constant.fill_(1.0)
    copy_weights(corl, ours)
    with torch.no_grad():
        ours.log_temperature.copy_(trainer.log_alpha())
    sample = corl.buffer.sample(256)
    count, width = ours.config.candidates, corl.sizes[1]
    now, then = torch.randn(2, 256, width)
    policy_now, policy_then = torch.randn(2, 256, count, width)
    uniform = torch.rand(256, count, width) * 2 - 1

    names = "critic_1", "critic_2", "actor", "alpha"
    theirs = {name: kept_gradients(getattr(trainer, f"{name}_optimizer")) for name in names}
    with drawing(now, then, uniform, policy_now, policy_then):
        log = trainer.train(sample)
    batch = as_batch(sample)
    with drawing(then, torch.cat([policy_now, policy_then]).transpose(0, 1), uniform.transpose(0, 1)):
        loss, metrics = ours.critic_loss(batch)
        loss.backward()
    critics = zip(ours.critic.networks.weights, ours.critic.networks.biases, strict=True)
    # Copies, as the policy's loss has gradients for Q, too.
    layers = [(weight.grad.clone(), bias.grad.clone()) for weight, bias in critics]
    mine = {
        name: [gradient for weight, bias in layers for gradient in (weight[member].T, bias[member, 0])]
        for member, name in enumerate(names[:2])
    }
    with drawing(now):
        ours.actor_loss(batch)[0].backward()
    mine |= {"actor": [p.grad for p in ours.policy.parameters()], "alpha": [ours.log_temperature.grad]}
    # After the layers of CORL's policy come its two learned scalars.
    theirs["actor"] = theirs["actor"][: len(mine["actor"])]
    numbers: dict[str, Any] = {
        "config": corl.config,
        "updates_before": args.updates,
        "gradients_differ_by": {name: difference(mine[name], theirs[name]) for name in names},
        "critic_loss": {"corl": log["qf1_loss"] + log["qf2_loss"], "trajplan": metrics["critic/loss"].item()},
    }
    print(json.dumps(numbers, indent=1))
    if args.output:
        Path(args.output).write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
