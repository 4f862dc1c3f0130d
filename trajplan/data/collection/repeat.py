"""An environment in which every action is held for several steps, for simulators with short steps."""

from typing import Any, SupportsFloat

import gymnasium


class ActionRepeat(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Every action is held for `repeat` steps, or to the episode's end, and earns the sum of their rewards.

    The observation and `info` are the last step's, but a success at any of the steps counts. A time limit inside counts
    the environment's own steps. Gymnasium records the wrapper in the environment's specification, so that a dataset
    collected with it is evaluated with it; its own wrappers repeat actions at random or take maxima of frames.

    Args:
        env: the environment.
        repeat: steps that each action is held for.
    """

    def __init__(self, env: gymnasium.Env, repeat: int) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, repeat=repeat)
        gymnasium.Wrapper.__init__(self, env)
        self.repeat = repeat
        if fps := env.metadata.get("render_fps"):
            self.metadata = {**env.metadata, "render_fps": fps / repeat}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action."""
        total, success = 0.0, False
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            success = success or bool(info.get("success"))
            if terminated or truncated:
                break
        if "success" in info:
            info = {**info, "success": success}
        return observation, total, terminated, truncated, info
