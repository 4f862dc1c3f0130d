"""A small open maze of three tasks with the attributes, `reset` and `step` of OGBench's point mazes."""

from typing import Any

import gymnasium
import numpy as np


class GoalMaze(gymnasium.Env):
    """Start and task are drawn from numpy's global generator, as OGBench draws them."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    maze_map = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
    num_tasks = 3
    _maze_unit, _offset_x, _offset_y, _goal_tol = 4.0, 4.0, 4.0, 1.0
    goals = ((8.0, 0.0), (0.0, 4.0), (0.1, 0.0))

    def __init__(self, reward_task_id: int | None = None, render_mode: str | None = None) -> None:
        self._reward_task_id, self.render_mode = reward_task_id, render_mode
        self.cur_goal_xy = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        task = self._reward_task_id or (options or {}).get("task_id") or np.random.randint(1, 4)  # noqa: NPY002
        self.cur_task_id, self.cur_goal_xy = task, np.array(self.goals[task - 1])
        self.place = np.random.uniform(-0.1, 0.1, 2)  # noqa: NPY002
        return self.place.copy(), {"goal": self.cur_goal_xy.copy()}

    def step(self, action: Any) -> Any:
        self.place = self.place + 0.5 * np.asarray(action)
        success = bool(np.linalg.norm(self.place - self.cur_goal_xy) <= self._goal_tol)
        reward = float(success) - (self._reward_task_id is not None)
        return self.place.copy(), reward, success, False, {"success": float(success)}
