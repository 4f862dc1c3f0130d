"""The ensemble on a linear system with Gaussian noise, whose every answer is known."""

import io

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.baselines.dynamics import errors as model_errors
from trajplan.baselines.dynamics.errors import held_out_errors, rank_correlation
from trajplan.baselines.dynamics.report import report_figure
from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.dynamics.training import (
    PROGRESS,
    EnsembleTrainer,
    contradictions,
    model_split,
    new_ensemble,
    table_of,
    train_ensemble,
)
from trajplan.baselines.engine.scaling import fit_scaling
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import DataError, TrajplanError
from trajplan.models.dynamics import DynamicsEnsemble, Prediction, uncertainty_of

# Of (s'_1 - s_1, s'_2 - s_2, reward), linear in (s_1, s_2, a), and the deviations of the noise on them.
LINEAR = np.array([[-0.3, 0.5, 0.5], [-0.5, -0.3, 1.0], [2.0, -1.0, 3.0]])
NOISE = np.array([0.2, 0.6, 1.5])
SETTINGS = {
    **{"model_members": 4, "model_elites": 3, "model_layers": 2, "model_width": 32, "model_batch_size": 64},
    **{"model_learning_rate": 5e-3, "model_held_out": 0.2},
}


def system(episodes=40, length=50, seed=0, noise=NOISE):
    """Episodes of the system; every second one ends in a terminal."""
    rng = np.random.default_rng(seed)
    for number in range(episodes):
        states, actions = [rng.normal(0, 2, 2)], rng.uniform(-2, 2, (length, 1))
        rewards = []
        for action in actions:
            change = LINEAR @ np.concatenate([states[-1], action]) + noise * rng.normal(size=3)
            states.append(states[-1] + change[:2])
            rewards.append(change[2])
        flags = np.zeros((2, length), bool)
        flags[number % 2, -1] = True
        arrays = {"observations": np.array(states, np.float32), "actions": actions.astype(np.float32)}
        yield arrays | {"rewards": np.array(rewards, np.float32), "terminations": flags[0], "truncations": flags[1]}


@pytest.fixture(scope="module")
def linear():
    return OfflineDataset.from_episodes(system(), id="linear", action_space=spaces.Box(-2, 2, (1,)))


def train(dataset, folder, config, seed=0, stopped=lambda: False):
    scaling = fit_scaling(dataset, True)
    split = model_split(dataset, None, config, seed)
    return train_ensemble(dataset, split, scaling, config, folder, seed=seed, stopped=stopped, visible=False)


def tables(dataset):
    """What the ensemble is trained on, and what is held out."""
    split, scaling = model_split(dataset, None, ModelBasedConfig(**SETTINGS), 0), fit_scaling(dataset, True)
    return [table_of(dataset, part, scaling, torch.device("cpu")) for part in split]


@pytest.fixture(scope="module")
def trained(linear, tmp_path_factory):
    return train(linear, tmp_path_factory.mktemp("model"), ModelBasedConfig(**SETTINGS, model_max_epochs=25))


def test_the_ensemble_recovers_a_known_linear_gaussian_system(linear, trained):
    torch.manual_seed(5)
    rows = torch.randperm(linear.num_transitions)[:500]
    batch = linear.transitions().gather(rows)
    prediction = trained.ensemble.predict(batch.observations, batch.actions, trained.ensemble.elites)
    inputs = torch.cat([batch.observations, batch.actions], dim=-1)
    truth = inputs @ torch.from_numpy(LINEAR).float().T
    noise = torch.from_numpy(NOISE).float()
    # Means within a third of the noise, of every elite; deviations within a fifth.
    assert (((prediction.mean - truth) / noise).square().mean((0, 1)).sqrt() < 0.35).all()
    ratio = (prediction.std / noise).log().mean((0, 1)).exp()
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_its_uncertainty_grows_off_the_data(linear, trained):
    ensemble = trained.ensemble
    observations = torch.from_numpy(np.array(linear.observations[:200]))
    actions = torch.zeros(200, 1)
    doubts = {}
    for factor in (1, 3, 10):
        prediction = ensemble.predict(factor * observations, actions, ensemble.elites)
        doubts[factor] = uncertainty_of(prediction, "disagreement").mean().item()
    assert 3 * doubts[1] < doubts[3]
    assert 3 * doubts[3] < doubts[10]


def test_elites_are_the_best_members_at_their_best(linear, trained):
    assert trained.history.shape[1] == 4
    best = trained.history.amin(0)
    held_out = tables(linear)[1]
    losses = trained.ensemble.held_out_losses(held_out.inputs, held_out.targets, held_out.terminations)
    # An epoch counts as better from one per cent on.
    assert ((losses >= best * 0.9999) & (losses <= best / 0.98)).all()
    assert set(trained.ensemble.elites.tolist()) == set(losses.argsort()[:3].tolist())
    assert not any(parameter.requires_grad for parameter in trained.ensemble.parameters())


def test_training_stops_when_no_member_has_improved_for_long_enough(linear):
    config = ModelBasedConfig(**SETTINGS, model_patience=2)
    learner = EnsembleTrainer(new_ensemble(linear.info, config, False), config)
    losses = iter([[4.0, 4, 4, 4], [3, 5, 5, 5], [2.99, 5, 5, 5], [5, 3.5, 5, 5], [3, 3, 3, 3.99], [9, 9, 9, 9]])
    learner.ensemble.held_out_losses = lambda *_: torch.tensor(next(losses))
    held_out = table_of(linear, np.array([0]), fit_scaling(linear, True), torch.device("cpu"))
    went_on, marks = [], []
    for number in range(6):
        with torch.no_grad():
            learner.ensemble.networks.biases[0].fill_(number)
        learner.measure(held_out)
        went_on.append(learner.unfinished())
        marks.append(learner.best["networks.biases.0"][:, 0, 0].int().tolist())
    assert marks == [[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0], [1, 3, 0, 0], [1, 4, 4, 0], [1, 4, 4, 0]]
    assert went_on == [True] * 6
    learner.ensemble.held_out_losses = lambda *_: torch.full((4,), 9.0)
    learner.measure(held_out)
    assert not learner.unfinished()
    learner.finish()
    assert learner.ensemble.networks.biases[0][:, 0, 0].int().tolist() == [1, 4, 4, 0]
    assert learner.ensemble.elites.tolist() == [0, 1, 2]


def test_a_model_of_which_one_member_diverges_stops_at_once(linear, tmp_path, monkeypatch):
    losses, measured = DynamicsEnsemble.held_out_losses, []

    def spoilt(self, *table):
        measured.append(losses(self, *table))
        if len(measured) > 2:
            measured[-1][1] = torch.nan
        return measured[-1]

    monkeypatch.setattr(DynamicsEnsemble, "held_out_losses", spoilt)
    with pytest.raises(
        TrajplanError, match=r"nan.* after epoch 2: it has diverged; give a smaller --model-le"
    ) as caught:
        train(linear, tmp_path, ModelBasedConfig(**SETTINGS, model_max_epochs=9))
    assert str(caught.value).endswith(f"need another --output, or {tmp_path} deleted first.")
    assert len(measured) == 3


def test_targets_come_from_the_true_next_observation_and_actions_are_clipped():
    episodes = list(system(3, 4))
    for number, episode in enumerate(episodes):
        episode["observations"] += 100 * number
        episode["actions"] *= 10
    dataset = OfflineDataset.from_episodes(episodes, id="x", action_space=spaces.Box(-2, 2, (1,)))
    table = table_of(dataset, np.array([0, 2]), fit_scaling(dataset, True), torch.device("cpu"))
    expected = np.concatenate([np.diff(episodes[number]["observations"], axis=0) for number in (0, 2)])
    np.testing.assert_allclose(table.targets[:, :2], expected, atol=1e-4)
    np.testing.assert_allclose(table.targets[:, 2], np.concatenate([episodes[i]["rewards"] for i in (0, 2)]))
    actions = np.concatenate([episodes[number]["actions"] for number in (0, 2)])
    np.testing.assert_allclose(table.inputs[:, 2:], actions.clip(-2, 2), atol=1e-6)
    assert table.terminations.tolist() == [False, False, False, True] * 2


def test_every_member_learns_from_a_sample_and_in_an_order_of_its_own(linear, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(EnsembleTrainer, "update", lambda self, batch: seen.append(batch.inputs))
    train(linear, tmp_path, ModelBasedConfig(**SETTINGS, model_max_epochs=2))
    rows = torch.cat(seen, dim=1)
    count = rows.shape[1] // 2
    table = tables(linear)[0]
    assert count == len(table.inputs) == 40 * 50 * 0.8
    samples = []
    for member in range(4):
        first, second = (sorted(map(tuple, part.tolist())) for part in rows[member].split(count))
        assert first == second
        assert not torch.equal(*rows[member].split(count))
        assert set(first) <= set(map(tuple, table.inputs.tolist()))
        # A bootstrap holds 1 - 1/e of the rows.
        assert len(set(first)) / count == pytest.approx(0.632, abs=0.05)
        samples.append(first)
    assert all(samples[0] != other for other in samples[1:])


@pytest.mark.parametrize("stop", [3, 60])
def test_training_that_is_stopped_and_resumed_gives_the_same_ensemble(linear, tmp_path, stop):
    config = ModelBasedConfig(**SETTINGS, model_max_epochs=4)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    torch.manual_seed(9)
    whole = train(linear, tmp_path / "whole", config)
    after = torch.rand(1)
    calls = []
    assert train(linear, tmp_path / "broken", config, stopped=lambda: calls.append(1) or len(calls) == stop) is None
    assert (tmp_path / "broken" / PROGRESS).exists() == (stop == 60)
    torch.manual_seed(9)
    resumed = train(linear, tmp_path / "broken", config)
    assert torch.equal(whole.history, resumed.history)
    assert len(whole.history) == 5
    one, other = whole.ensemble.state_dict(), resumed.ensemble.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    # What comes afterwards draws the same numbers, whether a model was trained before or not.
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(9)
    assert torch.equal(after, torch.rand(1))


def test_the_split_is_by_episode_among_the_chosen(linear):
    config = ModelBasedConfig(model_held_out=0.1)
    training, held_out = model_split(linear, np.arange(10, 30), config, 0)
    assert len(held_out) == 2
    assert sorted([*training, *held_out]) == list(range(10, 30))
    assert model_split(linear, None, config, 1)[1].tolist() != model_split(linear, None, config, 0)[1].tolist()
    with pytest.raises(DataError, match="'linear': a dynamics model needs two episodes at least"):
        model_split(linear, np.array([3]), config, 0)


def test_recorded_ends_that_contradict_the_rule_are_counted(linear):
    ensemble = new_ensemble(linear.info, ModelBasedConfig(**SETTINGS), True)
    assert contradictions(ensemble, tables(linear)) is None
    ensemble.rule = lambda following: torch.zeros(len(following), dtype=torch.bool)
    assert contradictions(ensemble, tables(linear)) == 20
    following = torch.from_numpy(np.array(linear.observations)).reshape(40, 51, 2)[:, 1:]
    ensemble.rule = lambda states: states[:, 0] > 1
    expected = (following[..., 0] > 1).numpy().reshape(-1) != np.array(linear.terminations)
    assert contradictions(ensemble, tables(linear)) == pytest.approx(expected.sum(), abs=1)


def test_a_terminal_head_where_no_rule_is_known_and_episodes_end(linear, walks):
    config = ModelBasedConfig(**SETTINGS)
    assert new_ensemble(linear.info, config, True).terminal_head
    assert not new_ensemble(linear.info, config, False).terminal_head


class Perfect:
    """The system itself, with its noise's deviations, off by a constant in the first entry."""

    def __init__(self, off=0.0):
        self.elites, self.off = torch.tensor([0]), off
        self.low, self.high = torch.full((3,), -torch.inf), torch.full((3,), torch.inf)
        self.input_std, self.target_std = torch.ones(3), torch.ones(3)

    def predict(self, observations, actions, chosen):
        mean = torch.cat([observations, actions], dim=-1) @ torch.from_numpy(LINEAR).float().T
        mean[:, 0] += self.off
        return Prediction(mean[None], torch.from_numpy(NOISE).float().expand(1, *mean.shape), None)


def test_errors_of_a_perfect_model_are_its_noise_and_its_gaussians_are_calibrated(linear):
    errors = held_out_errors(Perfect(), linear, np.arange(40), fit_scaling(linear, True), 4)
    lines = errors["k_step"]
    assert [(line["step"], line["starts"]) for line in lines] == [(1, 2000), (2, 1960), (3, 1920), (4, 1880)]
    # The mean norm of the noise, and its median, by simulation.
    norms = np.linalg.norm(NOISE * np.random.default_rng(1).normal(size=(100_000, 3)), axis=1)
    assert lines[0]["error_mean"] == pytest.approx(norms.mean(), rel=0.05)
    assert lines[0]["error_median"] == pytest.approx(np.median(norms), rel=0.05)
    np.testing.assert_allclose(errors["calibration"]["coverage"], errors["calibration"]["level"], atol=0.03)
    # Constant uncertainties order nothing.
    assert lines[0]["rank_correlation"] == {"max-deviation": None, "disagreement": None}
    reliable = errors["reliability"]["max-deviation"]
    assert reliable["uncertainty"] == pytest.approx([np.linalg.norm(NOISE)] * 10)
    assert np.sqrt(np.mean(np.square(reliable["error"]))) == pytest.approx(np.linalg.norm(NOISE), rel=0.05)


def test_errors_of_more_steps_follow_the_recorded_actions_within_an_episode():
    episodes = list(system(6, 10, noise=np.zeros(3)))
    for number, episode in enumerate(episodes):
        episode["observations"] += 1000 * (number % 2)
        episode["rewards"] += LINEAR[2, :2].sum() * 1000 * (number % 2)
    dataset = OfflineDataset.from_episodes(episodes, id="x", action_space=spaces.Box(-2, 2, (1,)))
    chosen, scaling = np.array([0, 2, 4]), fit_scaling(dataset, False)
    exact = held_out_errors(Perfect(), dataset, chosen, scaling, 99)
    assert [line["starts"] for line in exact["k_step"]] == list(range(30, 0, -3))
    # Growing rounding aside: the system itself is unstable.
    assert all(line["error_mean"] < 1e-2 for line in exact["k_step"])
    shifted = held_out_errors(Perfect(off=0.1), dataset, chosen, scaling, 3)["k_step"]
    off, moved = np.array([0.1, 0, 0]), np.zeros(2)
    for line in shifted:
        change = LINEAR[:, :2] @ moved + off
        moved = moved + change[:2]
        assert line["error_mean"] == pytest.approx(np.linalg.norm([*moved, change[2]]), rel=1e-2)


def test_one_step_errors_are_of_every_place_in_an_episode_and_longer_ones_of_the_rows_that_reach_so_far():
    episodes = [episode for length in (1, 2, 5) for episode in system(1, length, noise=np.zeros(3))]
    for episode in episodes:
        episode["rewards"][-1] += 100
    dataset = OfflineDataset.from_episodes(episodes, id="x", action_space=spaces.Box(-2, 2, (1,)))
    errors = held_out_errors(Perfect(), dataset, np.arange(3), fit_scaling(dataset, False), 10)
    lines = errors["k_step"]
    assert [line["starts"] for line in lines] == [8, 5, 3, 2, 1]
    # The three last transitions are off by 100: of 8 one-step errors, of 5 two-step errors two, of 3 and less one.
    expected = [300 / 8, 200 / 5, 100 / 3, 100 / 2, 100]
    assert [line["error_mean"] for line in lines] == pytest.approx(expected, rel=1e-3)
    assert errors["calibration"]["coverage"] == pytest.approx([21 / 24] * 10)
    assert max(errors["reliability"]["max-deviation"]["error"]) == pytest.approx(100, rel=1e-3)
    assert lines[-1]["rank_correlation"] == {"max-deviation": None, "disagreement": None}
    report_figure({"held_out": errors, "returns": []}).savefig(io.BytesIO())
    shortest = held_out_errors(Perfect(), dataset, np.array([0]), fit_scaling(dataset, False), 10)
    assert len(shortest["k_step"]) == 1
    report_figure({"held_out": shortest, "returns": []}).savefig(io.BytesIO())


def test_errors_are_of_a_limited_number_of_rows_spread_evenly(linear, monkeypatch):
    monkeypatch.setattr(model_errors, "STARTS", 100)
    lines = held_out_errors(Perfect(), linear, np.arange(40), fit_scaling(linear, True), 50)["k_step"]
    assert lines[0]["starts"] == 100
    assert lines[25]["starts"] == pytest.approx(50, abs=3)


def test_rank_correlations_by_hand():
    values = torch.tensor([3.0, 1, 4, 1.5, 9, 2.6])
    other = torch.tensor([2.0, 7, 1, 8, 2.8, 1.8])
    ranks, others = np.array([4, 1, 5, 2, 6, 3]), np.array([3, 5, 1, 6, 4, 2])
    expected = 1 - 6 * ((ranks - others) ** 2).sum() / (6 * 35)
    assert rank_correlation(values, other) == pytest.approx(expected)
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3.
    ties = rank_correlation(torch.tensor([0.0, 0, 5]), torch.tensor([1.0, 2, 3]))
    assert ties == pytest.approx(np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])
    assert rank_correlation(torch.ones(3), values[:3]) is None
