from dataclasses import replace

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from trajplan.data.environment import (
    find_environment,
    make_environment,
    registered_spec,
    spec_from_dict,
    spec_to_dict,
)
from trajplan.errors import DataError


def test_round_trip_keeps_what_was_asked_for():
    spec = replace(gymnasium.spec("CartPole-v1"), max_episode_steps=7, kwargs={"sutton_barto_reward": True})
    back = spec_from_dict(spec_to_dict(spec))
    assert back == spec
    env = make_environment(back)
    assert env.spec.max_episode_steps == 7
    assert env.unwrapped._sutton_barto_reward is True
    env.close()


def test_by_id():
    env = make_environment("CartPole-v1", max_episode_steps=3)
    assert env.spec.max_episode_steps == 3
    assert find_environment("gymnasium:CartPole-v1").id == "CartPole-v1"


def test_specifications_of_older_gymnasium():
    values = spec_to_dict(gymnasium.spec("CartPole-v1"))
    assert spec_from_dict({**values, "autoreset": False, "apply_api_compatibility": False}).id == "CartPole-v1"


def test_a_file_never_names_the_code_that_runs():
    """Entry points in a dataset or checkpoint are not imported: the registry's are used, or none."""
    hostile = EnvSpec(id="CartPole-v1", entry_point="os:system", kwargs={}, max_episode_steps=5)
    env = make_environment(hostile)
    assert type(env.unwrapped).__module__ == "gymnasium.envs.classic_control.cartpole"
    env.close()
    with pytest.raises(DataError, match="not registered"):
        registered_spec(EnvSpec(id="Evil-v0", entry_point="os:system"))
    with pytest.raises(DataError, match="names a module"):
        registered_spec(EnvSpec(id="antigravity:Evil-v0", entry_point="os:system"))
    wrapped = replace(gymnasium.spec("CartPole-v1"))
    wrapped.additional_wrappers = (WrapperSpec("Evil", "os:system", {"command": "true"}),)
    with pytest.raises(DataError, match="os:system"):
        registered_spec(wrapped)


def test_python_objects_are_not_saved():
    with pytest.raises(DataError, match="module:Class"):
        spec_to_dict(EnvSpec(id="Mine-v0", entry_point=lambda: None))


@pytest.mark.parametrize("env_id", ["Nowhere-v0", "no_such_module:X-v0", "not an id"])
def test_unknown_ids(env_id):
    with pytest.raises(DataError, match="not registered"):
        find_environment(env_id)


def test_an_environment_that_fails_its_own_assertion_gets_one_sentence():
    class Unfit(gymnasium.Env):
        def __init__(self):
            assert 1 + 1 == 3

    gymnasium.register("Unfit-v0", Unfit)
    try:
        with pytest.raises(DataError, match=r"its own code refuses \(test_environment.py.*assert 1 \+ 1 == 3\)"):
            make_environment("Unfit-v0")
    finally:
        gymnasium.registry.pop("Unfit-v0")
