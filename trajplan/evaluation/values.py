"""What a method's Q says of start states, beside what its policy then earns from them."""

from collections import defaultdict

import numpy as np

from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.evaluation.rollout import Episode, Moment


class ValueCheck:
    """An observer of `trajplan.evaluation.rollout.evaluate`: predicted values and discounted returns, alike in units.

    Both are of the policy as it is evaluated, without exploration, from the same start states, and in the rewards
    that training saw.

    Args:
        policy: whose Q is asked.
        discount: of the method.
        scale, shift: what training did to every reward, reward * scale + shift.
    """

    def __init__(self, policy: BaselinePolicy, discount: float, scale: float, shift: float) -> None:
        self._policy = policy
        self._discount, self._scale, self._shift = discount, scale, shift
        self._starts: dict[int, np.ndarray] = {}
        self._returns: dict[int, float] = defaultdict(float)

    def __call__(self, moment: Moment) -> None:
        """Note a start state, or add the reward of the last step."""
        if moment.step == 0:
            self._starts[moment.episode] = moment.observation
        else:
            reward = moment.reward * self._scale + self._shift
            self._returns[moment.episode] += self._discount ** (moment.step - 1) * reward

    def numbers(self, episodes: list[Episode]) -> dict[str, float]:
        """Means over finished episodes, all of which were observed; none for a method without a twin Q.

        `predicted_value` and `discounted_return` are to be compared. A return ends where a time limit cuts the episode
        off, but a value does not: `cut_weight` is the mean of discount^length where that happened, 0 where an episode
        really ended. What was cut off is at most that share of the largest value there can be,
        |reward| / (1 - discount).
        """
        predicted = self._policy.predicted_values(np.stack([self._starts[episode.episode] for episode in episodes]))
        if predicted is None:
            return {}
        cut = [0.0 if episode.terminated else self._discount**episode.length for episode in episodes]
        return {
            "predicted_value": float(predicted.mean()),
            "discounted_return": float(np.mean([self._returns[episode.episode] for episode in episodes])),
            "cut_weight": float(np.mean(cut)),
        }
