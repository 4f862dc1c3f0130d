import json

import minari
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.spaces import (
    check_action_space,
    flatten_observation,
    has_bounds,
    observation_layout,
    one_line,
    space_from_json,
    space_to_json,
    unflatten_observation,
)
from trajplan.errors import DataError

GOAL = spaces.Dict(
    {
        "observation": spaces.Box(-np.inf, np.inf, (4,), np.float64),
        "desired_goal": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "inner": spaces.Dict({"b": spaces.Box(-1, 1, (2, 2)), "a": spaces.Box(-1, 1, ())}),
    }
)


def test_dict_layout_is_sorted_by_key_at_every_level():
    layout = observation_layout(GOAL, "data")
    assert [(part.name, part.columns.start, part.columns.stop) for part in layout] == [
        ("desired_goal", 0, 2),
        ("inner/a", 2, 3),
        ("inner/b", 3, 7),
        ("observation", 7, 11),
    ]


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_flatten_keeps_leading_dimensions(lead):
    rng = np.random.default_rng(0)
    observation = {
        "inner": {"b": rng.normal(size=(*lead, 2, 2)), "a": rng.normal(size=lead)},
        "observation": rng.normal(size=(*lead, 4)),
        "desired_goal": rng.normal(size=(*lead, 2)),
    }
    flat = flatten_observation(observation_layout(GOAL, "data"), observation, "data")
    assert flat.shape == (*lead, 11)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat[..., 7:], observation["observation"].astype(np.float32))
    np.testing.assert_array_equal(flat[..., 3:7].reshape(*lead, 2, 2), observation["inner"]["b"].astype(np.float32))


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (spaces.Discrete(4), "Discrete"),
        (spaces.Tuple((spaces.Box(-1, 1, (2,)),)), "Tuple"),
        (spaces.Dict({"mission": spaces.Text(5)}), "['mission'] is Text"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.MultiBinary(3)})}), "['a']['b'] is MultiBinary"),
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), "images"),
        (spaces.Dict({}), "empty"),
    ],
)
def test_other_observation_spaces_are_refused_by_name(space, name):
    with pytest.raises(DataError) as error:
        observation_layout(space, "dataset 'x-v0'")
    assert name in str(error.value)
    assert "x-v0" in str(error.value)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2), spaces.Dict({"a": GOAL})])
def test_other_action_spaces_are_refused_by_name(space):
    with pytest.raises(DataError, match=f"dataset 'x-v0'.*{type(space).__name__}"):
        check_action_space(space, "dataset 'x-v0'")


@pytest.mark.parametrize(
    "space",
    [
        GOAL,
        spaces.Discrete(5, start=-2),
        spaces.Box(np.array([-1.0, -np.inf]), np.array([np.inf, 0.1]), dtype=np.float64),
        spaces.Box(-2, 7, (2, 3), np.int64),
    ],
)
def test_json_round_trip(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    back = space_from_json(json.loads(text))
    assert back == space
    assert str(back) == str(space)


def test_spaces_are_written_as_minari_writes_them():
    assert minari.serialization.deserialize_space(space_to_json(GOAL)) == GOAL


@pytest.mark.parametrize(
    ("saved", "space"),
    [
        ({"type": "Discrete", "n": 5, "start": -2}, spaces.Discrete(5, start=-2)),
        (
            {"type": "Box", "dtype": "float64", "shape": [2], "low": [-1.0, "-inf"], "high": ["inf", 0.1]},
            spaces.Box(np.array([-1.0, -np.inf]), np.array([np.inf, 0.1]), dtype=np.float64),
        ),
        (
            {
                "type": "Box",
                "dtype": "float32",
                "shape": [1, 2],
                "low": [0.0, -1.0],
                "high": [0.10000000149011612, 2.0],
            },
            spaces.Box(np.array([[0, -1]], np.float32), np.array([[0.1, 2]], np.float32)),
        ),
        (
            {"type": "Box", "dtype": "int64", "shape": [2, 1], "low": [-2, -2], "high": [2**62 + 1, 7]},
            spaces.Box(np.array([[-2], [-2]]), np.array([[2**62 + 1], [7]]), dtype=np.int64),
        ),
        (
            {
                "type": "Dict",
                "spaces": {
                    "b": {"type": "Box", "dtype": "float32", "shape": [], "low": ["-inf"], "high": ["inf"]},
                    "a": {"type": "Dict", "spaces": {"x": {"type": "Discrete", "n": 2, "start": 0}}},
                },
            },
            spaces.Dict({"a": spaces.Dict({"x": spaces.Discrete(2)}), "b": spaces.Box(-np.inf, np.inf, ())}),
        ),
    ],
)
def test_the_form_of_earlier_versions_is_read(saved, space):
    back = space_from_json(saved)
    assert back == space
    assert str(back) == str(space)


def test_unflatten_is_the_inverse_of_flatten():
    space = spaces.Dict(
        {
            "b": spaces.Box(-1, 1, (2, 2)),
            "a": spaces.Dict({"x": spaces.Box(0, 9, (1,), np.int64)}),
            "c": spaces.Box(-1, 1),
        }
    )
    layout = observation_layout(space, "test")
    space.seed(0)
    samples = [space.sample() for _ in range(3)]
    for sample in samples:
        flat = flatten_observation(layout, sample, "test")
        back = unflatten_observation(layout, flat)
        assert space.contains(back)
        np.testing.assert_array_equal(flatten_observation(layout, back, "test"), flat)
    stacked = np.stack([flatten_observation(layout, sample, "test") for sample in samples])
    assert unflatten_observation(layout, stacked)["b"].shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("space", "bounded"),
    [
        (spaces.Discrete(3), True),
        (spaces.Box(-1, 1, (2,)), True),
        (spaces.Box(-np.inf, 1, (2,)), False),
        (spaces.Box(np.float32([0, 1]), np.float32([1, 1])), False),
    ],
)
def test_bounds(space, bounded):
    assert has_bounds(space) is bounded


def test_a_space_on_one_line():
    space = spaces.Box(np.linspace(-9, 0, 99, dtype=np.float32), np.full(99, 7, np.float32))
    assert "\n" in str(space)
    assert "\n" not in one_line(space)
