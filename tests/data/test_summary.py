import json
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.columns import mean_and_std, row_blocks
from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.data.summary import describe_in_full, observation_names, summarize


@pytest.fixture
def dataset(episodes):
    return OfflineDataset.from_episodes(
        episodes,
        id="toy/data-v0",
        action_space=spaces.Box(-0.5, 0.5, (2,), np.float32),
        reference=ReferenceScores(-10.0, 30.0, "test"),
    )


def test_numbers(dataset):
    summary = summarize(dataset)
    json.dumps(summary, allow_nan=False)
    returns = dataset.returns
    assert summary["return"]["mean"] == pytest.approx(returns.mean())
    assert summary["return"]["std"] == pytest.approx(returns.std())
    assert summary["normalized"]["mean"] == pytest.approx((returns.mean() + 10) / 40 * 100)
    # A standard deviation is scaled by the range and not shifted by the minimum.
    assert summary["normalized"]["std"] == pytest.approx(returns.std() / 40 * 100)
    assert summary["episodes_ending_in"] == {"terminal": 1, "timeout": 1, "both": 1, "neither": 1}
    assert summary["length"]["max"] == 12
    assert summary["tokens_per_transition"] == 7
    assert summary["actions_out_of_bounds"] == int((np.abs(dataset.actions) > 0.5).sum())
    assert [row["max"] for row in summary["observations"]] == dataset.observations.max(0).tolist()
    assert [row["min"] for row in summary["actions"]] == dataset.actions.min(0).tolist()


def test_text_names_what_is_asked_for(dataset):
    text = describe_in_full(dataset, summarize(dataset))
    for part in (
        "toy/data-v0",
        "episodes      4",
        "21 transitions",
        "score",
        "1 in a time limit",
        "1 in both",
        "7 per transition",
        "are 0",
        "action 1",
    ):
        assert part in text
    assert "observation 2" in text
    assert max(map(len, text.splitlines())) < 160


def test_without_reference_scores_there_are_raw_returns_only(episodes):
    dataset = OfflineDataset.from_episodes(episodes)
    summary = summarize(dataset)
    assert summary["normalized"] is None
    assert "only raw returns" in describe_in_full(dataset, summary)


def test_dimensions_of_dict_observations_are_named_by_key():
    flags = np.zeros(1, bool)
    episode = {
        "observations": {"b": np.zeros((2, 1)), "a": np.zeros((2, 2))},
        "actions": np.zeros((1, 1)),
        "rewards": np.zeros(1),
        "terminations": flags,
        "truncations": flags,
    }
    assert observation_names(OfflineDataset.from_episodes([episode]).info) == ["a[0]", "a[1]", "b[0]"]


def test_blockwise_statistics(monkeypatch):
    monkeypatch.setattr("trajplan.data.columns._VALUES", 50)
    array = (np.random.default_rng(0).normal(size=(237, 7)) * 1e-3 + 1e4).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(list(row_blocks(array))), array)
    mean, std = mean_and_std(array)
    np.testing.assert_allclose(mean, array.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, array.astype(np.float64).std(0), rtol=1e-6)


def test_print_tells_what_a_person_wants_to_know(dataset):
    returns = dataset.returns
    mean, std = returns.mean(), returns.std()
    assert str(dataset).splitlines() == [
        "dataset toy/data-v0",
        "  environment   not recorded",
        "  episodes      4 of 1 to 12 steps, 21 transitions",
        "  episodes end  1 in a terminal, 1 in a time limit, 1 in both, 1 in neither (just stop)",
        "  observations  3 dimensions",
        "  actions       2 dimensions from -0.5 to 0.5",
        f"  return        {mean:.6g} ± {std:.4g}, from {returns.min():.6g} to {returns.max():.6g}",
        f"  score         {(mean + 10) * 2.5:.1f} ± {std * 2.5:.1f}, where 0 is -10 and 100 is 30, from test",
    ]


def test_print_of_other_kinds(make_episode):
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, 4) for _ in range(2)]
    bare = str(OfflineDataset.from_episodes(episodes))
    assert "2 of 4 steps, 8 transitions" in bare
    assert "episodes end  2 in a time limit\n" in bare
    assert "2 dimensions without bounds, which baselines need: give from_episodes an env_spec" in bare
    assert "score" not in bare
    uneven = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32))
    assert "2 dimensions, bounds between -2 and 3" in str(OfflineDataset.from_episodes(episodes, action_space=uneven))
    for episode in episodes:
        episode["observations"] = {"position": episode["observations"], "goal": np.zeros((5, 1))}
        episode["actions"] = np.array([3, 4, 3, 4])
    dataset = OfflineDataset.from_episodes(episodes, action_space=spaces.Discrete(3, start=2))
    assert "observations  4 dimensions: goal 1, position 3" in str(dataset)
    assert "actions       3 discrete, 2 to 4" in str(dataset)


def test_print_names_environment_and_sources(make_episode, data_root):
    for id, seed in (("mine/low-v0", 0), ("mine/high-v0", 1)):
        episodes = [make_episode(np.random.default_rng(seed), 4, action_width=1)]
        OfflineDataset.from_episodes(episodes, env_spec="Pendulum-v1").save(id)
    text = str(OfflineDataset.from_minari(["mine/low-v0", "mine/high-v0"]))
    assert text.startswith("dataset mine/low-v0 + mine/high-v0\n  environment   Pendulum-v1\n")
    assert "    mine/high-v0: 1 episode, 4 transitions\n" in text


class Untouchable(np.ndarray):
    """An array whose values nobody may look at."""

    def __getitem__(self, index):
        raise AssertionError("read")

    def __array_ufunc__(self, *args, **keywords):
        raise AssertionError("read")


def test_neither_reads_what_may_be_larger_than_memory(dataset):
    locked = {name: getattr(dataset, name).view(Untouchable) for name in ("observations", "actions")}
    assert str(replace(dataset, **locked)) == str(dataset)
    locked |= {name: getattr(dataset, name).view(Untouchable) for name in ("rewards", "terminations", "truncations")}
    text = repr(replace(dataset, **locked))
    assert text == "OfflineDataset('toy/data-v0', episodes=4, transitions=21, observations=3, actions=2)"
