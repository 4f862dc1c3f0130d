"""12,000 transitions of a pendulum that is swung up well, badly and not at all, from plain arrays to a Minari dataset.

    python examples/pendulum_data.py --id mine/pendulum-v0

It stands for data of one's own: a loop that records episodes, `OfflineDataset.from_episodes`, `save`. What can be done
with the dataset then is told in docs/your-own-data.md.
"""

import argparse
from typing import Any

import gymnasium
import numpy as np

from trajplan import OfflineDataset

# Share of the time that an episode's pushes are random: a fifth of the episodes has each.
RANDOM_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
HOLD = 5  # steps that a random push lasts
SEED = 100_000  # of the first episode; `trajplan evaluate` starts at 0


def main(argv: list[str] | None = None) -> None:
    """Record the episodes, save them, and say what they are."""
    parser = argparse.ArgumentParser(description="Record a pendulum dataset of mixed quality.")
    parser.add_argument("--id", default="mine/pendulum-v0", help="Minari id to save it as (default: mine/pendulum-v0)")
    parser.add_argument("--episodes", type=int, default=60, help="episodes of 200 steps (default: 60)")
    args = parser.parse_args(argv)
    env = gymnasium.make("Pendulum-v1")
    episodes = [record(env, index) for index in range(args.episodes)]
    dataset = OfflineDataset.from_episodes(episodes, id=args.id, env_spec=env.spec)
    dataset.save(args.id, description="Pendulum swing-up with 0 to 100 % of random pushes")
    better = np.sort(dataset.returns)[dataset.num_episodes // 2 :]
    print(f"{args.id}: {dataset.num_transitions:,} transitions, mean return {dataset.returns.mean():.0f}")
    print(f"the better half of the episodes: {better.mean():.0f}")


def record(env: gymnasium.Env, index: int) -> dict[str, Any]:
    """One episode: T + 1 observations and T of everything else."""
    rng = np.random.default_rng(index)
    share = RANDOM_SHARES[index % len(RANDOM_SHARES)]
    observation, _ = env.reset(seed=SEED + index)
    observations, actions, rewards, terminations, truncations = [observation], [], [], [], []
    while not (truncations and (truncations[-1] or terminations[-1])):
        if len(actions) % HOLD == 0:
            push = rng.uniform(-2, 2) if rng.random() < share else None
        action = np.array([swing_up(observation) if push is None else push], dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        terminations.append(terminated)
        truncations.append(truncated)
    return {
        "observations": np.array(observations),
        "actions": np.array(actions),
        "rewards": np.array(rewards),
        "terminations": np.array(terminations),
        "truncations": np.array(truncations),
    }


def swing_up(observation: np.ndarray) -> float:
    """A torque that adds the energy that is missing to stand upright, and near the top holds the pendulum there."""
    cosine, sine, speed = observation
    if cosine > 0.8:
        torque = -12 * np.arctan2(sine, cosine) - 3 * speed
    elif abs(speed) < 0.1:
        torque = 2.0
    else:
        torque = speed * (5 - 5 * cosine - speed**2 / 6)
    return float(np.clip(torque, -2, 2))


if __name__ == "__main__":
    main()
