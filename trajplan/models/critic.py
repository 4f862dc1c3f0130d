"""What a planner asks of a critic: values of states and actions in the units of the data.

Shapes: B batch, S observation_dim, A action_dim, G goal_dim.
"""

from typing import Protocol

from torch import Tensor


class Critic(Protocol):
    """Values learned from the data, such as `trajplan.baselines.engine.critic.critic_of` gives.

    Observations, actions and goals are in the environment's units, and values in those of the data's rewards,
    whatever training saw; of two functions the smaller value counts. All tensors are on the critic's device.

    Attributes:
        discount: of the rewards that are valued.
        needs_goals: whether values are those of reaching a goal, which has to be given.
        has_q: whether there is a Q.
    """

    discount: float
    needs_goals: bool
    has_q: bool

    def values(self, observations: Tensor, goals: Tensor | None = None) -> Tensor:
        """V(s), or V(s, g): (B, S) and (B, G) -> (B,)."""
        ...

    def q(self, observations: Tensor, actions: Tensor, goals: Tensor | None = None) -> Tensor:
        """Q(s, a), or Q(s, a, g): (B, S), (B, A) and (B, G) -> (B,); only where there is one."""
        ...
