import dataclasses
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.baselines.engine.checkpoint import load_baseline, save_model, save_settings, weights_of
from trajplan.baselines.engine.critic import BaselineCritic, critic_of
from trajplan.baselines.engine.scaling import fit_scaling
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.registry import METHODS
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError
from trajplan.models.networks import Dimensions

VALUED = [
    (name, kind) for name, entry in METHODS.items() for kind in ("continuous", "discrete") if getattr(entry, kind)
]
VALUED = [(name, kind) for name, kind in VALUED if name not in ("bc", "gcbc", "gcivl", "qrl")]


def saved(folder, name, dataset, config, scale=4.0, shift=0.0):
    """The folder of an untrained method whose rewards were scaled."""
    torch.manual_seed(0)
    method = METHODS[name].method_class(dataset.info)(Dimensions.of(dataset.info), config)
    folder.mkdir()
    transform = {"name": "made up", "scale": scale, "shift": shift}
    save_settings(folder, name, config, RunConfig(), dataset.info, transform)
    save_model(folder, weights_of(method, fit_scaling(dataset, True)))
    return method


@pytest.mark.parametrize(("name", "kind"), VALUED)
def test_values_are_the_networks_in_the_datas_units(name, kind, walks, choices, small, tmp_path):
    dataset = {"continuous": walks, "discrete": choices}[kind]
    config = small(name)
    method = saved(tmp_path / "run", name, dataset, config)
    critic = critic_of(tmp_path / "run")
    observations, actions = (torch.from_numpy(np.array(part[:9])) for part in (dataset.observations, dataset.actions))
    # By hand, from the raw arrays: standardised observations, actions of the uneven Box in [-1, 1].
    everything = torch.from_numpy(np.array(dataset.observations, np.float64))
    seen = ((observations - everything.mean(0)) / everything.std(0, correction=0)).float()
    taken = actions
    if kind == "continuous":
        low, high = (
            torch.from_numpy(bound) for bound in (dataset.info.action_space.low, dataset.info.action_space.high)
        )
        taken = (actions - low) / (high - low) * 2 - 1
    with torch.no_grad():
        if hasattr(method, "value"):
            expected = method.value(seen)
        else:
            expected = method.critic(seen, method.act(seen)).min(0).values
        torch.testing.assert_close(critic.values(observations), expected / 4, atol=1e-4, rtol=1e-4)
        assert critic.has_q == hasattr(method, "critic")
        if critic.has_q:
            expected = method.critic(seen, taken).min(0).values / 4
            torch.testing.assert_close(critic.q(observations, actions), expected, atol=1e-4, rtol=1e-4)
    assert (critic.discount, critic.needs_goals) == (config.discount, False)


def test_values_come_out_in_the_rewards_that_the_data_has(tmp_path, small, quick):
    # One step an episode: 1 from where the observation is 0, and 4 from where it is 1.
    episodes = [
        {
            "observations": np.array([[kind], [kind]], np.float32),
            "actions": np.array([[0.1 * number - 0.5]], np.float32),
            "rewards": np.array([1.0 + 3 * kind], np.float32),
            "terminations": np.array([True]),
            "truncations": np.array([False]),
        }
        for number in range(10)
        for kind in (0, 1)
    ]
    dataset = OfflineDataset.from_episodes(episodes, id="two", action_space=spaces.Box(-1, 1, (1,)))
    config = small("iql", expectile=0.5, critic_learning_rate=0.02, tau=0.1, hidden_width=16)
    run = quick(updates=1500, batch_size=20, reward_transform="return-range", eval_every=0, log_every=500)
    train(dataset, tmp_path / "run", "iql", config, dataclasses.replace(run, save_every=1500), progress=False)
    observations = torch.tensor([[0.0], [1.0]])
    critic = critic_of(tmp_path / "run")
    truth = torch.tensor([1.0, 4.0])
    torch.testing.assert_close(critic.values(observations), truth, atol=0.15, rtol=0)
    torch.testing.assert_close(critic.q(observations, torch.zeros(2, 1)), truth, atol=0.15, rtol=0)


class Reaching(torch.nn.Module):
    """A twin V(s, g) that anyone can work out: minus the distances to the goal, and twice that."""

    needs_goals = True

    def value(self, observations, goals):
        distance = (observations[:, [0, 2]] - goals).abs().sum(-1)
        return torch.stack([-distance, -2 * distance])


def test_goals_are_scaled_as_their_columns_and_the_smaller_value_counts(walks):
    scaling = fit_scaling(walks, True)

    class Info:
        is_discrete, goal_columns = False, (0, 2)

    critic = BaselineCritic(Reaching(), scaling, Info(), 0.9, 1.0)
    observations, goals = torch.tensor([[5.0, 7.0, 5.0]]), torch.tensor([[6.0, 5.5]])
    distance = 1.0 / scaling.std[0] + 0.5 / scaling.std[2]
    torch.testing.assert_close(critic.values(observations, goals), -2 * distance[None])
    assert critic.needs_goals
    assert not critic.has_q


def test_goal_conditioned_values_are_asked_for_the_goal(walks, small, tmp_path):
    method = saved(tmp_path / "run", "gcivl", walks, small("gcivl"), scale=1.0)
    critic = critic_of(tmp_path / "run")
    observations = torch.from_numpy(np.array(walks.observations[:9]))
    goals = observations.flip(0)
    scaling = fit_scaling(walks, True)
    with torch.no_grad():
        expected = method.value(scaling.observations(observations), scaling.observations(goals)).min(0).values
    torch.testing.assert_close(critic.values(observations, goals), expected, atol=1e-5, rtol=1e-5)
    assert (critic.needs_goals, critic.has_q) == (True, False)


def test_what_holds_no_values_of_the_data_is_refused(walks, small, tmp_path):
    saved(tmp_path / "bc", "bc", walks, small("bc"))
    saved(tmp_path / "shifted", "iql", walks, small("iql"), shift=-1.0)
    for folder, message in {
        "bc": r"^\S+ holds bc, which learns no values: a critic needs V or Q\.$",
        "shifted": r"was trained with --reward-transform made up, and values of shifted rewards cannot",
        "none": r"^There is no checkpoint folder \S+\.$",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            critic_of(tmp_path / folder)


def test_a_folder_that_says_nothing_of_its_rewards_has_the_datas(walks, small, tmp_path):
    saved(tmp_path / "run", "iql", walks, small("iql"), scale=1.0)
    path = tmp_path / "run/dataset.json"
    values = json.loads(path.read_text())
    del values["reward_transform"]
    path.write_text(json.dumps(values))
    observations = torch.from_numpy(np.array(walks.observations[:4]))
    found = load_baseline(tmp_path / "run").method.value(fit_scaling(walks, True).observations(observations))
    torch.testing.assert_close(critic_of(tmp_path / "run").values(observations), found.detach())
