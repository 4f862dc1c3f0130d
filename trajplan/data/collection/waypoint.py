"""A scripted controller for PointMaze that walks from cell to cell along a shortest path to the goal."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajplan.errors import ConfigError

WALL = 1
Cell = tuple[int, int]


class WaypointController:
    """Breadth-first search over the maze's cells, and a PD law towards the next cell on the way.

    The waypoint is the centre of the next cell on a shortest path, or the goal itself once that lies in this cell or
    the next; the action is `gain * (waypoint - position) - damping * velocity`, clipped to the action's bounds. The
    gains are those of D4RL's maze2d collection (Fu et al. 2020, arXiv:2004.07219). The controller keeps no state: a
    new goal simply gives a new waypoint.

    Args:
        env: a PointMaze environment of gymnasium-robotics, wrapped or not.
        gain: action per metre of distance to the waypoint.
        damping: action per metre per second of velocity.
    """

    def __init__(self, env: Any, gain: float = 10.0, damping: float = 1.0) -> None:
        maze = getattr(env.unwrapped, "maze", None)
        if maze is None or getattr(env.action_space, "shape", None) != (2,):
            name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
            raise ConfigError(f"The waypoint policy needs a PointMaze environment; {name} is not one.")
        self.map: Sequence[Sequence[Any]] = maze.maze_map
        self.scale = float(maze.maze_size_scaling)
        self.gain, self.damping = gain, damping
        self.low, self.high = env.action_space.low, env.action_space.high
        self._next_cells: dict[Cell, dict[Cell, Cell]] = {}

    def __call__(self, observation: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """The action (2,) float32 for one goal observation; `rng` is not used: the collector adds the noise."""
        position, velocity = observation["observation"][:2], observation["observation"][2:]
        action = self.gain * (self.waypoint(position, observation["desired_goal"]) - position) - self.damping * velocity
        return np.minimum(np.maximum(action, self.low), self.high).astype(np.float32)

    def waypoint(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where to head for from `position` (2,) on the way to `goal` (2,), in metres."""
        cell, goal_cell = self.cell_of(position), self.cell_of(goal)
        if goal_cell not in self._next_cells:
            self._next_cells[goal_cell] = next_cells(self.map, goal_cell)
        following = self._next_cells[goal_cell].get(cell)
        if following is None:
            raise ConfigError(f"There is no way through the maze from cell {cell} to the goal in cell {goal_cell}.")
        return goal if following == goal_cell else self.centre_of(following)

    def cell_of(self, position: np.ndarray) -> Cell:
        """The (row, column) of the cell that holds `position` (2,), x to the right and y upwards from the middle."""
        row = math.floor(len(self.map) / 2 - position[1] / self.scale)
        column = math.floor(position[0] / self.scale + len(self.map[0]) / 2)
        return row, column

    def centre_of(self, cell: Cell) -> np.ndarray:
        """The centre (2,) of a cell in metres."""
        row, column = cell
        x, y = column + 0.5 - len(self.map[0]) / 2, len(self.map) / 2 - row - 0.5
        return np.array([x, y]) * self.scale


def next_cells(maze_map: Sequence[Sequence[Any]], goal: Cell) -> dict[Cell, Cell]:
    """For every cell that `goal` can be reached from, the next cell on a shortest path; the goal leads to itself.

    Breadth-first search outwards from the goal over the four neighbours that are not walls.
    """
    following = {goal: goal}
    queue = deque([goal])
    while queue:
        row, column = queue.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < len(maze_map) and 0 <= cell[1] < len(maze_map[0])
            if inside and maze_map[cell[0]][cell[1]] != WALL and cell not in following:
                following[cell] = (row, column)
                queue.append(cell)
    return following
