import dataclasses

import gymnasium
import numpy as np
import pytest

from trajplan.baselines.engine.terminals import check_terminals
from trajplan.baselines.engine.trainer import train
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import DataError

STANDING, FALLEN = 1.25, 0.6


def hops(last_heights, terminations):
    """Two episodes of Hopper-v5's sizes, of 5 steps each, that end at these heights."""
    env = gymnasium.make("Hopper-v5")
    episodes = []
    for height, terminal in zip(last_heights, terminations, strict=True):
        observations, last = np.zeros((6, 11)), np.arange(5) == 4
        observations[:, 0] = STANDING
        observations[-1, 0] = height
        flags = {"terminations": last & terminal, "truncations": last & (not terminal)}
        episodes.append({"observations": observations, "actions": np.zeros((5, 3)), "rewards": np.ones(5)} | flags)
    return OfflineDataset.from_episodes(
        episodes, id="hops", observation_space=env.observation_space, action_space=env.action_space, env_spec=env.spec
    )


def test_falls_that_are_no_terminals_are_refused_before_anything_is_written(small, quick, tmp_path):
    fallen = hops([FALLEN, STANDING], [False, False])
    message = (
        "^dataset 'hops' records no terminal, yet 1 of its 2 episodes end where Hopper-v5 ends them: mark those ends "
        "as terminations, not as truncations.$"
    )
    for name in ("iql", "mopo"):
        with pytest.raises(DataError, match=message):
            train(fallen, tmp_path / name, name, small(name), quick(), device="cpu", progress=False)
        assert not (tmp_path / name).exists()


def test_other_datasets_and_methods_without_values_are_not(small, tmp_path):
    check_terminals(hops([FALLEN, STANDING], [False, False]), small("bc"))
    check_terminals(hops([STANDING, STANDING], [False, False]), small("iql"))
    check_terminals(hops([FALLEN, STANDING], [True, False]), small("iql"))
    unknown = hops([FALLEN, STANDING], [False, False])
    check_terminals(dataclasses.replace(unknown, info=dataclasses.replace(unknown.info, env_spec=None)), small("iql"))
