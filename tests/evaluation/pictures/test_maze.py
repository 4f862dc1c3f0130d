import time

import numpy as np
import pytest

from trajplan.data.environment import make_environment
from trajplan.data.info import DatasetInfo
from trajplan.evaluation.pictures.maze import (
    BALL,
    BEST,
    GOAL,
    WALL,
    MazeMap,
    MazeRenderer,
    is_point_maze,
    maze_of,
    plan_beams,
)


@pytest.fixture
def large():
    return make_environment("PointMaze_Large-v3")


def pixel(maze, size, place):
    """Row and column of a place in a frame, by hand."""
    scale = size / (max(maze.walls.shape) * maze.cell)
    rows, columns = maze.walls.shape
    return round((rows * maze.cell / 2 - place[1]) * scale), round((place[0] + columns * maze.cell / 2) * scale)


def test_map_agrees_with_the_simulator(large, point_maze):
    maze = maze_of(large, point_maze)
    simulated = large.unwrapped.maze
    assert maze.walls.shape == (simulated.map_length, simulated.map_width) == (9, 12)
    left, right, bottom, top = maze.extent
    for row, column in np.ndindex(maze.walls.shape):
        x, y = simulated.cell_rowcol_to_xy(np.array([row, column]))
        assert (x, y) == pytest.approx((left + column + 0.5, top - row - 0.5))
        assert maze.walls[row, column] == (simulated.maze_map[row][column] == 1)
    assert (right, bottom) == (-left, -top)


def test_columns_agree_with_the_observation(large, point_maze):
    maze = maze_of(large, point_maze)
    observation, _ = large.reset(seed=0)
    flat = point_maze.flatten_observation(observation)
    assert flat[maze.position] == pytest.approx(observation["achieved_goal"])
    assert flat[maze.goal] == pytest.approx(observation["desired_goal"])
    assert is_point_maze(large, point_maze)


@pytest.mark.parametrize("name", ["medium", "large"])
def test_the_map_of_ogbenchs_mazes_agrees_with_the_simulator(name):
    with make_environment(f"pointmaze-{name}-v0") as env:
        info = DatasetInfo("a/maze-v0", env.observation_space, env.action_space, env.spec)
        env.reset(seed=0, options={"task_id": 2})
        simulated, maze = env.unwrapped, maze_of(env, info)
        left, right, bottom, top = maze.extent
        size = maze.walls.shape
        for row, column in np.ndindex(size):
            # Row 0 of the picture is the simulator's last.
            x, y = simulated.ij_to_xy((size[0] - 1 - row, column))
            assert (x, y) == pytest.approx((left + (column + 0.5) * maze.cell, top - (row + 0.5) * maze.cell))
            assert maze.walls[row, column] == (simulated.maze_map[size[0] - 1 - row, column] == 1)
        assert (right - left, top - bottom) == (4 * size[1], 4 * size[0])
        assert (maze.position, maze.goal, maze.goal_radius) == (slice(0, 2), None, 1.0)
        assert maze.goal_in(env, np.zeros(2)) == pytest.approx(simulated.cur_goal_xy)
        assert is_point_maze(env, info)
        # The ball cannot pass what the map shows as walls.
        for action in ([1, 0], [0, 1], [-1, 0], [0, -1]):
            env.reset(seed=0, options={"task_id": 1})
            for _ in range(60):
                place = env.step(np.float32(action))[0]
            cell = int((top - place[1]) / maze.cell), int((place[0] - left) / maze.cell)
            assert not maze.walls[cell]


def test_a_goal_that_the_observation_does_not_tell_is_drawn(goal_maze):
    env = make_environment(goal_maze)
    info = DatasetInfo("a/maze-v0", env.observation_space, env.action_space, env.spec)
    observation, _ = env.reset(seed=0, options={"task_id": 1})
    maze = maze_of(env, info)
    assert maze.extent == (-6, 14, -6, 10)
    frame = MazeRenderer(maze, 400).frame(observation.astype(np.float32), goal=maze.goal_in(env, observation))
    assert frame.shape == (320, 400, 3)
    # 20 pixels a unit, from the upper left corner at (-6, 10).
    assert tuple(frame[200, 280]) == GOAL
    assert tuple(frame[198, 122]) == BALL
    # The wall inside is in the third row from below, above the middle of the lowest way.
    assert tuple(frame[200 - 80, 120 + 80]) == WALL


def test_other_environments_are_no_mazes(cartpole, point_maze):
    assert maze_of(cartpole.make_env(), cartpole) is None
    assert not is_point_maze(cartpole.make_env(), point_maze)
    assert maze_of(point_maze.make_env(), cartpole) is None  # a maze, but its observation does not say where one is


def test_frame_shows_walls_ball_and_goal(large, point_maze):
    maze, size = maze_of(large, point_maze), 480
    ball, goal = np.array([-3.5, 1.5]), np.array([4.5, -2.5])
    observation = np.concatenate([ball, goal, np.zeros(4)]).astype(np.float32)
    frame = MazeRenderer(maze, size).frame(observation)
    assert frame.shape == (360, 480, 3)
    assert frame.dtype == np.uint8
    assert tuple(frame[pixel(maze, size, ball)]) == BALL
    assert tuple(frame[pixel(maze, size, goal)]) == GOAL
    wall_row, wall_column = np.argwhere(maze.walls[1:-1, 1:-1])[0] + 1
    assert tuple(frame[int((wall_row + 0.5) * 40), int((wall_column + 0.5) * 40)]) == WALL


def test_frame_draws_every_beam_and_the_best_boldly(large, point_maze, make_plan):
    maze, size = maze_of(large, point_maze), 480
    observation = np.zeros(8, np.float32)
    observation[maze.goal] = [4.5, 2.5]
    plan = make_plan(observation, point_maze, beams=2)
    plan.observations[0, -1, maze.position] = [3.0, 0.0]
    plan.observations[1, -1, maze.position] = [0.0, 3.0]
    for beam in (0, 1):
        plan.observations[beam, :, maze.position] = np.linspace([0, 0], plan.observations[beam, -1, maze.position], 10)
    plan.alive[:] = True
    frame = MazeRenderer(maze, size).frame(observation, plan=plan)
    plain = MazeRenderer(maze, size).frame(observation)
    assert tuple(frame[pixel(maze, size, (2.0, 0.0))]) == BEST
    row, column = pixel(maze, size, (0.0, 2.0))
    assert (frame[row, column - 2 : column + 3] != plain[row, column - 2 : column + 3]).any()
    assert (frame[pixel(maze, size, (-2.0, 0.0))] == plain[pixel(maze, size, (-2.0, 0.0))]).all()


def test_frames_are_fast(large, point_maze, make_plan):
    maze = maze_of(large, point_maze)
    observation = np.zeros(8, np.float32)
    renderer = MazeRenderer(maze)
    plan, path = (
        make_plan(observation, point_maze, beams=128, horizon=15),
        np.random.default_rng(0).normal(size=(300, 2)),
    )
    renderer.frame(observation, path, plan, "step 1")
    seconds = []
    for _ in range(5):
        started = time.process_time()
        renderer.frame(observation, path, plan, "step 1")
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05


def test_sizes_are_even_for_the_encoder():
    for shape in [(5, 5), (9, 12), (7, 3), (4, 11)]:
        maze = MazeMap(np.ones(shape, bool), 1.0, slice(0, 2), slice(2, 4))
        frame = MazeRenderer(maze, 301).frame(np.zeros(4))
        assert frame.shape[0] % 2 == 0
        assert frame.shape[1] % 2 == 0


def test_beams_end_where_the_plan_ends(point_maze, make_plan):
    maze = MazeMap(np.ones((5, 5), bool), 1.0, slice(0, 2), slice(2, 4))
    plan = make_plan(np.zeros(8, np.float32), point_maze)
    plan.scores[5] = 100.0  # the best one need not come first
    places, order, shade = plan_beams(plan, maze)
    assert [len(beam) for beam in places] == plan.alive.sum(axis=1).tolist()
    assert order[-1] == 5
    assert sorted(order) == list(range(16))
    assert shade.max() == shade[5] == 1
    assert shade.min() == 0
    plan.scores[:] = 2.0
    assert (plan_beams(plan, maze)[2] == 1).all()
