"""CORL's CQL, its file algorithms/offline/cql.py as it is, with its hopper settings, which are halfcheetah's too.

python benchmarks/beside/run_corl.py CORL hopper.npz --env Hopper-v5 --output corl-cql.json
"""

import argparse
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from episodes import Record, parser_for


class CorlCQL:
    """CORL's trainer, its policy and its buffer of one dataset's transitions, observations standardised.

    Args:
        repository: CORL's.
        arrays: npz of export_arrays.py.
        seed: of all random numbers.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {"policy_lr": 3e-5, "qf_lr": 3e-4, "bc_steps": 0, "cql_alpha": 10.0}

    def __init__(self, repository: Path, arrays: str, seed: int) -> None:
        # What the file imports for its command line, its logs and its data.
        for name in ("d4rl", "gym", "pyrallis", "wandb"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["gym"].Env = object  # type: ignore[attr-defined]
        sys.modules["pyrallis"].wrap = lambda *_, **__: lambda function: function  # type: ignore[attr-defined]
        sys.path.insert(0, str(repository / "algorithms/offline"))
        import cql

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        data = dict(np.load(arrays))
        data["terminals"] = data["terminations"]
        self.mean, self.deviation = cql.compute_mean_std(data["observations"], eps=1e-3)
        for name in ("observations", "next_observations"):
            data[name] = cql.normalize_states(data[name], self.mean, self.deviation)
        self.sizes = data["observations"].shape[1], data["actions"].shape[1]
        self.buffer = cql.ReplayBuffer(*self.sizes, len(data["rewards"]) + 10, "cpu")
        self.buffer.load_d4rl_dataset(data)
        critics = [cql.FullyConnectedQFunction(*self.sizes, True, 3) for _ in range(2)]
        optimizers = [torch.optim.Adam(critic.parameters(), 3e-4) for critic in critics]
        self.actor = cql.TanhGaussianPolicy(*self.sizes, 1.0, log_std_multiplier=1.0, orthogonal_init=True)
        self.trainer = cql.ContinuousCQL(
            critic_1=critics[0],
            critic_1_optimizer=optimizers[0],
            critic_2=critics[1],
            critic_2_optimizer=optimizers[1],
            actor=self.actor,
            actor_optimizer=torch.optim.Adam(self.actor.parameters(), 3e-5),
            device="cpu",
            target_entropy=-float(self.sizes[1]),
            **self.SETTINGS,
        )
        self.config = f"CORL's ContinuousCQL, {self.SETTINGS}, 3 hidden layers of 256, orthogonal Q, batches of 256"

    def standardised(self, observation: np.ndarray) -> np.ndarray:
        """An observation as the policy sees it."""
        return ((observation - self.mean) / self.deviation).reshape(-1)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The policy's likeliest action."""
        self.actor.eval()
        action = self.actor.act(self.standardised(observation), "cpu")
        self.actor.train()
        return action


def corl_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what CORL's implementation is found by."""
    parser = parser_for(description)
    parser.add_argument("corl", type=Path, help="CORL's repository")
    parser.add_argument("arrays", help="npz of export_arrays.py")
    return parser


def main() -> None:
    args = corl_parser(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    method = CorlCQL(args.corl, args.arrays, args.seed)
    record = Record(args, method.config)
    logged: dict[int, dict[str, float]] = {}
    record.values["q"] = logged
    for update in range(1, args.updates + 1):
        log = method.trainer.train(method.buffer.sample(256))
        if update % args.every == 0:
            logged[update] = {name: round(float(value), 3) for name, value in log.items()}
            record.evaluate(update, method.act)


if __name__ == "__main__":
    main()
