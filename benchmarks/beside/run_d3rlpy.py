"""d3rlpy's BC, IQL, CQL or AWAC with the networks, batches and learning rates of trajplan's presets for locomotion.

BC is deterministic (squared error), AWAC's weights are a softmax over the batch: what d3rlpy has.

python benchmarks/beside/run_d3rlpy.py iql hopper.npz --env Hopper-v5 --output d3rlpy-iql.json
"""

import d3rlpy
import numpy as np
import torch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory
from d3rlpy.preprocessing import ReturnBasedRewardScaler, StandardObservationScaler
from episodes import Record, parser_for


def config_of(method: str, updates: int):  # type: ignore[no-untyped-def]
    encoder = VectorEncoderFactory([256] * (2 if method in ("bc", "iql") else 3))
    same = {"batch_size": 256, "observation_scaler": StandardObservationScaler()}
    if method == "bc":
        return d3rlpy.algos.BCConfig(encoder_factory=encoder, learning_rate=3e-4, **same)
    same |= {"actor_encoder_factory": encoder, "critic_encoder_factory": encoder}
    if method == "iql":
        cosine = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=updates))
        scaler = ReturnBasedRewardScaler(multiplier=1000.0)
        return d3rlpy.algos.IQLConfig(
            value_encoder_factory=encoder, reward_scaler=scaler, actor_optim_factory=cosine, **same
        )
    if method == "awac":
        return d3rlpy.algos.AWACConfig(actor_learning_rate=3e-4, critic_learning_rate=3e-4, lam=1 / 3, **same)
    return d3rlpy.algos.CQLConfig(
        conservative_weight=10.0, alpha_learning_rate=0.0, initial_alpha=1.0, actor_learning_rate=3e-5,
        temp_learning_rate=3e-5, critic_learning_rate=3e-4, **same,
    )  # fmt: skip


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("method", choices=["bc", "iql", "cql", "awac"])
    parser.add_argument("arrays", help="npz of export_arrays.py")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = np.load(args.arrays)
    flags = (data[name].astype(np.float32) for name in ("terminations", "truncations"))
    dataset = d3rlpy.dataset.MDPDataset(data["observations"], data["actions"], data["rewards"], *flags)
    config = config_of(args.method, args.updates)
    d3rlpy.seed(args.seed)
    algorithm = config.create(device=False)
    record = Record(args, str(config))

    def act(observation: np.ndarray) -> np.ndarray:
        return np.clip(algorithm.predict(observation[None].astype(np.float32))[0], -1, 1)

    algorithm.fit(
        dataset, n_steps=args.updates, n_steps_per_epoch=args.every, save_interval=10**9, show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        epoch_callback=lambda algorithm, epoch, step: record.evaluate(step, act),
    )  # fmt: skip


if __name__ == "__main__":
    main()
