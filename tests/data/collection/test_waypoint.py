"""The scripted maze controller against hand-made paths and the real simulator."""

import gymnasium as gym
import gymnasium_robotics
import numpy as np
import pytest

from trajplan.data.collection.waypoint import WaypointController, next_cells
from trajplan.errors import ConfigError

gym.register_envs(gymnasium_robotics)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def env():
    env = gym.make("PointMaze_UMaze-v3", continuing_task=True, reset_target=True)
    yield env
    env.close()


def test_next_cells_on_a_map_solved_by_hand():
    maze_map = [[1, 1, 1, 1], [1, 0, 0, 1], [1, "g", 1, 1], [1, "r", 0, 1], [1, 1, 1, 1]]
    assert next_cells(maze_map, (1, 2)) == {
        (1, 2): (1, 2),
        (1, 1): (1, 2),
        (2, 1): (1, 1),
        (3, 1): (2, 1),
        (3, 2): (3, 1),
    }


def test_following_next_cells_takes_a_shortest_path(env):
    """Path lengths equal all-pairs shortest paths computed by matrix relaxation, on the medium maze."""
    maze_map = gym.make("PointMaze_Medium-v3").unwrapped.maze.maze_map
    cells = [(i, j) for i, row in enumerate(maze_map) for j, struct in enumerate(row) if struct != 1]
    distance = np.array([[0.0 if a == b else np.inf for b in cells] for a in cells])
    near = np.array([[abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for b in cells] for a in cells])
    for _ in cells:
        distance = np.minimum(distance, np.where(near[:, :, None], distance[None], np.inf).min(1) + 1)
    for g, goal in enumerate(cells):
        following = next_cells(maze_map, goal)
        for c, cell in enumerate(cells):
            steps = 0
            while cell != goal:
                cell, steps = following[cell], steps + 1
            assert steps == distance[c, g]


def test_cells_and_centres_agree_with_the_environment(env):
    controller, maze = WaypointController(env), env.unwrapped.maze
    rng = np.random.default_rng(1)
    for position in rng.uniform(-2.4, 2.4, (50, 2)):
        cell = controller.cell_of(position)
        assert cell == tuple(maze.cell_xy_to_rowcol(position))
        np.testing.assert_allclose(controller.centre_of(cell), maze.cell_rowcol_to_xy(np.array(cell)))


def test_action_is_the_pd_law_within_bounds(env):
    controller = WaypointController(env, gain=2.0, damping=0.5)
    at = np.array([1.0, 0.1])  # the middle-right cell of the U; the goal is in the cell above
    goal = np.array([1.2, 0.9])
    observation = {"observation": np.array([*at, 0.3, -0.2]), "achieved_goal": at, "desired_goal": goal}
    expected = np.clip(2.0 * (goal - at) - 0.5 * np.array([0.3, -0.2]), -1, 1)
    action = controller(observation, RNG)
    np.testing.assert_allclose(action, expected, rtol=1e-6)
    assert action.dtype == np.float32
    far = {"observation": np.array([-1.0, 1.0, 0.0, 0.0]), "achieved_goal": at, "desired_goal": np.array([-1.0, -1.0])}
    assert np.abs(WaypointController(env)(far, RNG)).max() == 1.0


def test_it_walks_from_goal_to_goal_around_the_wall(env):
    """From one end of the U to the other, which a straight line cannot reach, and on to further goals."""
    controller = WaypointController(env)
    observation, _ = env.reset(seed=3, options={"reset_cell": np.array([1, 1]), "goal_cell": np.array([3, 1])})
    goals, reached, ended = [observation["desired_goal"]], 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(controller(observation, RNG))
        reached += float(reward)
        ended = terminated or truncated
        if not np.array_equal(observation["desired_goal"], goals[-1]):
            goals.append(observation["desired_goal"])
    assert reached >= 2
    assert len(goals) - 1 <= reached <= len(goals)  # a goal reached at the very last step shows no successor
    assert truncated
    assert not terminated


def test_other_environments_and_walled_in_goals_are_refused(env):
    with pytest.raises(ConfigError, match="needs a PointMaze environment"):
        WaypointController(gym.make("CartPole-v1"))
    controller = WaypointController(env)
    with pytest.raises(ConfigError, match="no way through the maze"):
        controller.waypoint(np.array([0.0, 0.0]), np.array([1.0, 1.0]))
