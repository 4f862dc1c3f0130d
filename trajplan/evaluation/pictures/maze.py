"""Mazes of Gymnasium-Robotics and OGBench seen from above, drawn without any graphics library."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trajplan.data.info import DatasetInfo

BACKGROUND, WALL = (250, 250, 248), (74, 85, 104)
BALL, GOAL, BEST = (24, 100, 171), (214, 40, 40), (17, 17, 17)
_SMOOTHING = 2  # drawn this much larger, then averaged down


@dataclass(frozen=True)
class MazeMap:
    """Where the walls are, and which columns of an observation are places in it.

    Attributes:
        walls: (rows, columns) bool, the first row at the top.
        cell: side of a cell in the simulation's units; y points up.
        position: columns of the flat observation with (x, y).
        goal: those with the goal's (x, y), or None where the observation does not tell it.
        goal_radius: how near counts as reached.
        centre: (x, y) of the map's middle.
    """

    walls: np.ndarray
    cell: float
    position: slice
    goal: slice | None
    goal_radius: float = 0.45
    centre: tuple[float, float] = (0.0, 0.0)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the map in the simulation's units."""
        half_height, half_width = (self.cell * size / 2 for size in self.walls.shape)
        x, y = self.centre
        return x - half_width, x + half_width, y - half_height, y + half_height

    def goal_in(self, env: gymnasium.Env, observation: np.ndarray) -> np.ndarray:
        """(2,), the goal's place at present, from the observation (S,) or else from the environment itself."""
        if self.goal is not None:
            return observation[self.goal]
        plain: Any = env.unwrapped
        return np.asarray(plain.cur_goal_xy if hasattr(plain, "cur_goal_xy") else plain.goal, np.float32)


def maze_of(env: gymnasium.Env, info: DatasetInfo) -> MazeMap | None:
    """The map of a point or ant maze, or None when the environment is not one whose observation tells the place."""
    plain: Any = env.unwrapped
    if hasattr(plain, "maze_map") and hasattr(plain, "cur_goal_xy"):
        return _of_ogbench(plain, info)
    maze: Any = getattr(plain, "maze", None)
    columns = {part.path[-1]: part.columns for part in info.observation_layout if part.path and part.size == 2}
    if not hasattr(maze, "maze_map") or "achieved_goal" not in columns:
        return None
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    return MazeMap(walls, float(maze.maze_size_scaling), columns["achieved_goal"], columns.get("desired_goal"))


def _of_ogbench(maze: Any, info: DatasetInfo) -> MazeMap | None:
    """An OGBench maze, whose observation begins with (x, y); None where it does not tell them, or tells of a ball."""
    if info.observation_layout[0].path or info.observation_dim < 2 or hasattr(maze, "get_agent_ball_xy"):
        return None
    # Its rows count upwards, the first in the middle of which is (0, 0) shifted by the offsets.
    cell = float(maze._maze_unit)
    rows, columns = maze.maze_map.shape
    x, y = (cell * (size - 1) / 2 for size in (columns, rows))
    centre = (x - maze._offset_x, y - maze._offset_y)
    return MazeMap(maze.maze_map[::-1] == 1, cell, slice(0, 2), None, float(maze._goal_tol), centre)


def is_point_maze(env: gymnasium.Env, info: DatasetInfo) -> bool:
    """Whether a view from above shows all there is to see: a ball in a maze."""
    whole = hasattr(env.unwrapped, "point_env") or info.observation_dim == 2
    return whole and maze_of(env, info) is not None


@dataclass(frozen=True)
class MazeRenderer:
    """Frames of a maze from above: walls, goal, ball, the path so far and the beams of a plan.

    Attributes:
        maze: the map.
        size: the longer side of a frame in pixels; both sides come out even, as video encoders want them.
    """

    maze: MazeMap
    size: int = 400

    @cached_property
    def _scale(self) -> float:
        return self.size * _SMOOTHING / (max(self.maze.walls.shape) * self.maze.cell)

    @cached_property
    def _walls(self) -> Image.Image:
        rows, columns = self.maze.walls.shape
        pixels = self._scale * self.maze.cell
        width, height = (2 * round(count * pixels / _SMOOTHING / 2) * _SMOOTHING for count in (columns, rows))
        image = Image.new("RGB", (width, height), BACKGROUND)
        draw = ImageDraw.Draw(image)
        for row, column in np.argwhere(self.maze.walls):
            draw.rectangle((column * pixels, row * pixels, (column + 1) * pixels, (row + 1) * pixels), fill=WALL)
        return image

    def frame(
        self,
        observation: np.ndarray,
        path: np.ndarray | None = None,
        plan: Any | None = None,
        caption: str = "",
        goal: np.ndarray | None = None,
    ) -> np.ndarray:
        """One frame.

        Args:
            observation: (S,) the present.
            path: (t, 2) places visited so far.
            plan: a plan of `trajplan.planners` made here; all its beams are drawn, the best one boldly.
            caption: a few words for the upper left corner.
            goal: (2,), its place where the observation does not tell it.

        Returns:
            (height, width, 3) uint8.
        """
        image = self._walls.copy()
        draw = ImageDraw.Draw(image)
        if self.maze.goal is not None:
            goal = observation[self.maze.goal]
        if goal is not None:
            self._disc(draw, goal, self.maze.goal_radius, GOAL, outline=True)
            self._disc(draw, goal, 0.12 * self.maze.cell, GOAL)
        if path is not None and len(path) > 1:
            draw.line(self._pixels(path), fill=(160, 180, 200), width=2 * _SMOOTHING)
        if plan is not None:
            beams, order, shade = plan_beams(plan, self.maze)
            colours = (255 * score_colours(shade)).astype(int)
            for beam in order:
                draw.line(self._pixels(beams[beam]), fill=tuple(colours[beam]), width=_SMOOTHING)
            draw.line(self._pixels(beams[order[-1]]), fill=BEST, width=3 * _SMOOTHING)
        self._disc(draw, observation[self.maze.position], 0.15 * self.maze.cell, BALL)
        font = ImageFont.load_default(size=7 * _SMOOTHING * self.size / 200)
        draw.text((4 * _SMOOTHING, 2 * _SMOOTHING), caption, fill=(255, 255, 255), font=font)
        width, height = image.size
        return np.asarray(image.resize((width // _SMOOTHING, height // _SMOOTHING), Image.Resampling.BOX))

    def _pixels(self, places: np.ndarray) -> list[tuple[float, float]]:
        left, _, _, top = self.maze.extent
        return [((x - left) * self._scale, (top - y) * self._scale) for x, y in np.asarray(places, np.float64)]

    def _disc(
        self, draw: ImageDraw.ImageDraw, place: np.ndarray, radius: float, colour: Any, outline: bool = False
    ) -> None:
        (x, y), r = self._pixels(place[None])[0], radius * self._scale
        paint = {"outline": colour, "width": _SMOOTHING} if outline else {"fill": colour}
        draw.ellipse((x - r, y - r, x + r, y + r), **paint)


def plan_beams(plan: Any, maze: MazeMap) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The beams of a plan as places, each up to its predicted end.

    Returns:
        places of each beam, (h, 2); the order to draw them in, the best one last; each beam's shade, (K,) from 0 (the
        worst score) to 1 (the best).
    """
    lengths = np.maximum(plan.alive.sum(axis=1), 1)
    places = [
        observations[:length, maze.position] for observations, length in zip(plan.observations, lengths, strict=True)
    ]
    order = np.argsort(plan.scores, kind="stable")
    if plan.scores.argmax() != order[-1]:
        order = np.append(order[order != plan.scores.argmax()], plan.scores.argmax())
    spread = plan.scores.max() - plan.scores.min()
    shade = (plan.scores - plan.scores.min()) / spread if spread > 0 else np.ones(len(plan.scores))
    return places, order, shade


def score_colours(shade: np.ndarray) -> np.ndarray:
    """RGB in [0, 1] of shades in [0, 1]: from yellow (the worst) through orange to violet (the best)."""
    from matplotlib import colormaps

    return colormaps["plasma_r"](0.1 + 0.8 * np.asarray(shade))[:, :3]
