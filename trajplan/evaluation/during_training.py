"""The evaluation that a baseline's training does now and then."""

from typing import Any

import numpy as np

from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.run_state import Evaluate
from trajplan.baselines.engine.scaling import reward_transform
from trajplan.baselines.engine.settings import RunConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.environments import environment_maker, quiet_simulators, try_environment
from trajplan.evaluation.rollout import evaluate
from trajplan.evaluation.values import ValueCheck


def evaluation_for(dataset: OfflineDataset, settings: Any, config: RunConfig) -> Evaluate:
    """What `trajplan.baselines.engine.trainer.train` calls: `eval_episodes` episodes in the dataset's environment.

    Their seeds count from 0, and the environment's tasks, where it has several, take turns. It gives their mean
    `return`, `length` and normalised `score`, and the share of `success`, where there are such, and the numbers of
    `ValueCheck`.

    Args:
        dataset: untransformed.
        settings: of the method, for its discount.
        config: of the run.
    """
    info = dataset.info
    make_env = environment_maker(info)
    try:
        tasks = try_environment(make_env, info)
    except (DataError, ConfigError) as error:
        raise ConfigError(
            f"{error} To train without evaluation, give --eval-every 0, in Python eval_every=0."
        ) from None
    scale, shift = reward_transform(dataset, config.reward_transform)

    def measure(policy: BaselinePolicy) -> dict[str, float]:
        # Of cloning, which has no discount, nothing is asked.
        check = ValueCheck(policy, getattr(settings, "discount", 1.0), scale, shift)
        count = config.eval_episodes
        with quiet_simulators():
            episodes = evaluate(
                policy, make_env, episodes=count, num_envs=count, tasks=tasks, observers=[check]
            ).episodes
        mean = float(np.mean([episode.total_reward for episode in episodes]))
        length = float(np.mean([episode.length for episode in episodes]))
        score = info.normalized_score(mean)
        numbers = {"return": mean, "length": length} | ({} if score is None else {"score": float(score)})
        successes = [episode.success for episode in episodes if episode.success is not None]
        numbers |= {"success": float(np.mean(successes))} if successes else {}
        return numbers | check.numbers(episodes)

    return measure
