"""From arrays of your own to a planner: a dataset, a Trajectory Transformer, behaviour cloning, both evaluated.

    python examples/own_data.py --output own_data

Here a hand-written controller balances CartPole, well or badly; yours may come from a log, a robot or a file. Only
`record` would differ. Takes one to two minutes on one core and needs no simulator but Gymnasium's own.
"""

import argparse
import os
from pathlib import Path

import gymnasium
import numpy as np

import trajplan
from trajplan import OfflineDataset

EPISODES, UPDATES = 200, 300
LIMIT = 200  # steps an episode


def record(rng: np.random.Generator, mistakes: float) -> dict[str, np.ndarray]:
    """One episode as a dictionary of arrays: one observation more than actions, and how it ended at the last step.

    Args:
        rng: source of all chance.
        mistakes: share of steps that push the wrong way.
    """
    env = gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    episode: dict[str, list] = {"observations": [observation], "actions": [], "rewards": []}
    episode |= {"terminations": [], "truncations": []}
    ended = False
    while not ended:
        right = observation[2] + 0.3 * observation[3] > 0  # push towards where the pole falls
        action = int(right != (rng.random() < mistakes))
        observation, reward, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        for name, value in zip(episode, (observation, action, reward, terminated, truncated), strict=True):
            episode[name].append(value)
    return {name: np.array(values) for name, values in episode.items()}


def main(argv: list[str] | None = None) -> None:
    """Record, save, train and evaluate."""
    parser = argparse.ArgumentParser(description="Train a planner on arrays.")
    parser.add_argument("--output", type=Path, default=Path("own_data"), help="folder for all that is made")
    output = parser.parse_args(argv).output.resolve()

    # 1. Arrays become a dataset. What does not fit is refused in one sentence; spaces are read from the environment.
    rng = np.random.default_rng(0)
    episodes = [record(rng, mistakes) for mistakes in rng.uniform(0.05, 0.5, EPISODES)]
    dataset = OfflineDataset.from_episodes(episodes, id="mine", env_spec="CartPole-v1")
    print(f"{dataset.info.num_transitions:,} transitions, mean return {dataset.info.mean_return:.1f}")

    # 2. Optional: kept as a Minari dataset, it has an id that every command knows (trajplan train --dataset ...).
    os.environ["MINARI_DATASETS_PATH"] = str(output / "minari")
    dataset.save("cartpole/mine-v0")

    # 3. A Trajectory Transformer, by the settings for small data, and behaviour cloning on the same data.
    trajplan.train(dataset, output / "model", updates=UPDATES)
    trajplan.baseline("bc", dataset, output / "cloning", updates=1000, eval_every=0)

    # 4. Both act in the same episodes.
    for name in ("model", "cloning"):
        found = trajplan.evaluate(output / name, episodes=10, max_episode_steps=LIMIT, output=output / name)
        print(f"{name}: mean return {found.returns.mean():.1f}; the data {dataset.info.mean_return:.1f}")


if __name__ == "__main__":
    main()
