"""CORL's CQL, its file algorithms/offline/cql.py as it is, with its hopper settings, which are halfcheetah's too.

python benchmarks/beside/run_corl.py CORL hopper.npz --env Hopper-v5 --output corl-cql.json
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from episodes import Record, parser_for


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("corl", type=Path, help="CORL's repository")
    parser.add_argument("arrays", help="npz of export_arrays.py")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # What the file imports for its command line, its logs and its data.
    for name in ("d4rl", "pyrallis", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["pyrallis"].wrap = lambda *_, **__: lambda function: function  # type: ignore[attr-defined]
    sys.path.insert(0, str(args.corl / "algorithms/offline"))
    import cql

    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002
    data = dict(np.load(args.arrays))
    data["terminals"] = data["terminations"]
    mean, deviation = cql.compute_mean_std(data["observations"], eps=1e-3)
    for name in ("observations", "next_observations"):
        data[name] = cql.normalize_states(data[name], mean, deviation)
    sizes = data["observations"].shape[1], data["actions"].shape[1]
    buffer = cql.ReplayBuffer(*sizes, len(data["rewards"]) + 10, "cpu")
    buffer.load_d4rl_dataset(data)
    critics = [cql.FullyConnectedQFunction(*sizes, True, 3) for _ in range(2)]
    optimizers = [torch.optim.Adam(critic.parameters(), 3e-4) for critic in critics]
    actor = cql.TanhGaussianPolicy(*sizes, 1.0, log_std_multiplier=1.0, orthogonal_init=True)
    settings = {"target_entropy": -float(sizes[1]), "policy_lr": 3e-5, "qf_lr": 3e-4, "bc_steps": 0, "cql_alpha": 10.0}
    trainer = cql.ContinuousCQL(
        critic_1=critics[0], critic_1_optimizer=optimizers[0], critic_2=critics[1], critic_2_optimizer=optimizers[1],
        actor=actor, actor_optimizer=torch.optim.Adam(actor.parameters(), 3e-5), device="cpu", **settings,
    )  # fmt: skip
    record = Record(args, f"CORL's ContinuousCQL, {settings}, 3 hidden layers of 256, orthogonal, batches of 256")
    logged: dict[int, dict[str, float]] = {}
    record.values["q"] = logged

    def act(observation: np.ndarray) -> np.ndarray:
        return actor.act(((observation - mean) / deviation).reshape(-1), "cpu")

    for update in range(1, args.updates + 1):
        log = trainer.train(buffer.sample(256))
        if update % args.every == 0:
            logged[update] = {name: round(float(value), 3) for name, value in log.items()}
            actor.eval()
            record.evaluate(update, act)
            actor.train()


if __name__ == "__main__":
    main()
