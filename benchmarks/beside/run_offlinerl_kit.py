"""OfflineRL-Kit's MOPO or COMBO with its own settings for hopper medium-replay, but fewer epochs of the model.

python benchmarks/beside/run_offlinerl_kit.py mopo OfflineRL-Kit hopper.npz --output kit-mopo.json
"""

import random
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from episodes import Record, parser_for

SETTINGS = {
    "mopo": {"layers": 2, "real": 0.05, "penalty": 2.5},
    "combo": {"layers": 3, "real": 0.5, "penalty": 0.0},
}
ROLLOUT_STARTS, ROLLOUT_LENGTH, ROLLOUT_EVERY = 50_000, 5, 1000


class Quiet:
    """The logger that the kit asks for."""

    model_dir = "."

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def policy_of(method: str, sizes: tuple[int, int], updates: int, env: gymnasium.Env):  # type: ignore[no-untyped-def]
    """The kit's policy, its dynamics and the schedule of the policy's learning rate."""
    from offlinerlkit.dynamics import EnsembleDynamics
    from offlinerlkit.modules import ActorProb, Critic, EnsembleDynamicsModel, TanhDiagGaussian
    from offlinerlkit.nets import MLP
    from offlinerlkit.policy import COMBOPolicy, MOPOPolicy
    from offlinerlkit.utils.scaler import StandardScaler
    from offlinerlkit.utils.termination_fns import get_termination_fn

    states, actions = sizes
    hidden = [256] * SETTINGS[method]["layers"]
    head = TanhDiagGaussian(latent_dim=256, output_dim=actions, unbounded=True, conditioned_sigma=True, max_mu=1.0)
    actor = ActorProb(MLP(input_dim=states, hidden_dims=hidden), head, "cpu")
    critics = [Critic(MLP(input_dim=states + actions, hidden_dims=hidden), "cpu") for _ in range(2)]
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-4)
    critic_optimizers = [torch.optim.Adam(critic.parameters(), lr=3e-4) for critic in critics]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(updates // ROLLOUT_EVERY, 1))
    log_alpha = torch.zeros(1, requires_grad=True)
    alpha = (-actions, log_alpha, torch.optim.Adam([log_alpha], lr=1e-4))
    model = EnsembleDynamicsModel(
        obs_dim=states, action_dim=actions, hidden_dims=[200] * 4, num_ensemble=7, num_elites=5,
        weight_decays=[2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4], device="cpu",
    )  # fmt: skip
    dynamics = EnsembleDynamics(
        model, torch.optim.Adam(model.parameters(), lr=1e-3), StandardScaler(),
        get_termination_fn(task="hopper-medium-replay-v2"), penalty_coef=SETTINGS[method]["penalty"],
    )  # fmt: skip
    dynamics.save = lambda path: None
    parts = (dynamics, actor, *critics, optimizer, *critic_optimizers)
    if method == "mopo":
        return MOPOPolicy(*parts, alpha=alpha), dynamics, schedule
    policy = COMBOPolicy(
        *parts, action_space=env.action_space, alpha=alpha, cql_weight=0.5, temperature=1.0, max_q_backup=False,
        deterministic_backup=True, with_lagrange=False, num_repeart_actions=10, rho_s="mix",
    )  # fmt: skip
    return policy, dynamics, schedule


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("method", choices=sorted(SETTINGS))
    parser.add_argument("kit", type=Path, help="OfflineRL-Kit's repository")
    parser.add_argument("arrays", help="npz of export_arrays.py")
    parser.add_argument("--epochs", type=int, default=12, help="of the model, at most")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.path.insert(0, str(args.kit))
    # A name of an older numpy that the kit's environments use.
    np.bool8 = np.bool_  # type: ignore[attr-defined]
    from offlinerlkit.buffer import ReplayBuffer

    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002
    torch.manual_seed(args.seed)
    data = dict(np.load(args.arrays))
    data["terminals"] = data["terminations"]
    sizes = data["observations"].shape[1], data["actions"].shape[1]
    policy, dynamics, schedule = policy_of(args.method, sizes, args.updates, gymnasium.make(args.env))

    def buffer(size: int) -> Any:
        kinds = {"obs_dtype": np.float32, "action_dtype": np.float32, "device": "cpu"}
        return ReplayBuffer(buffer_size=size, obs_shape=(sizes[0],), action_dim=sizes[1], **kinds)

    real, fake = buffer(len(data["rewards"])), buffer(ROLLOUT_STARTS * ROLLOUT_LENGTH * 5)
    real.load_dataset(data)
    dynamics.train(real.sample_all(), Quiet(), max_epochs=args.epochs, max_epochs_since_update=5)
    record = Record(args, f"OfflineRL-Kit's {args.method}, {SETTINGS[args.method]}, {args.epochs} epochs of the model")
    share = int(256 * SETTINGS[args.method]["real"])
    for update in range(args.updates):
        policy.train()
        if update % ROLLOUT_EVERY == 0:
            starts = real.sample(ROLLOUT_STARTS)["observations"].numpy()
            fake.add_batch(**policy.rollout(starts, ROLLOUT_LENGTH)[0])
        policy.learn({"real": real.sample(batch_size=share), "fake": fake.sample(batch_size=256 - share)})
        if (update + 1) % ROLLOUT_EVERY == 0:
            schedule.step()
        if (update + 1) % args.every == 0:
            policy.eval()
            record.evaluate(
                update + 1, lambda o: policy.select_action(o[None].astype(np.float32), deterministic=True)[0]
            )


if __name__ == "__main__":
    main()
