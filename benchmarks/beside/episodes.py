"""What the scripts here share: evaluation as trajplan's, and the file that a run writes."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np


def mean_return(act: Callable[[np.ndarray], np.ndarray], env_id: str, episodes: int) -> float:
    """Mean return of episodes that start from seeds 0, 1, ..."""
    env, returns = gymnasium.make(env_id), []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return round(float(np.mean(returns)), 1)


class Record:
    """Returns and speeds by update, written after each evaluation; the time of evaluations is in no speed."""

    def __init__(self, args: argparse.Namespace, config: str) -> None:
        self.args, self.done = args, 0
        self.values: dict[str, object] = {"config": config, "returns": {}, "updates_per_second": []}
        self.clock = time.perf_counter()

    def evaluate(self, update: int, act: Callable[[np.ndarray], np.ndarray]) -> None:
        """Note the speed since the last call, and the policy's return."""
        speed = (update - self.done) / (time.perf_counter() - self.clock)
        self.values["updates_per_second"].append(round(speed, 1))  # type: ignore[attr-defined]
        line = f"{update} updates: {speed:.1f} a second"
        if self.args.episodes:
            result = mean_return(act, self.args.env, self.args.episodes)
            self.values["returns"][update] = result  # type: ignore[index]
            line += f", return {result}"
        print(line, flush=True)
        if self.args.output:
            Path(self.args.output).write_text(json.dumps(self.values, indent=1) + "\n")
        self.done, self.clock = update, time.perf_counter()


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that all scripts take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=2000, help="updates between two evaluations")
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation; 0: only the speed is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", help="JSON file")
    return parser
