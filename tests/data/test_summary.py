import json

import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.columns import mean_and_deviation, row_blocks
from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.data.summary import describe_summary, observation_names, summarize


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
    assert summary["return"]["deviation"] == pytest.approx(returns.std())
    assert summary["normalized"]["mean"] == pytest.approx((returns.mean() + 10) / 40 * 100)
    # A deviation is scaled by the range and not shifted by the minimum.
    assert summary["normalized"]["deviation"] == pytest.approx(returns.std() / 40 * 100)
    assert summary["episodes_ending_in"] == {"terminal": 1, "timeout": 1, "both": 1, "neither": 1}
    assert summary["length"]["max"] == 12
    assert summary["tokens_per_transition"] == 7
    assert summary["actions_out_of_bounds"] == int((np.abs(dataset.actions) > 0.5).sum())
    assert [row["max"] for row in summary["observations"]] == dataset.observations.max(0).tolist()
    assert [row["min"] for row in summary["actions"]] == dataset.actions.min(0).tolist()


def test_text_names_what_is_asked_for(dataset):
    text = describe_summary(summarize(dataset))
    for part in (
        "toy/data-v0",
        "episodes       4",
        "transitions    21",
        "normalised",
        "a timeout 1",
        "both 1",
        "action 1",
    ):
        assert part in text
    assert "observation 2" in text
    assert max(map(len, text.splitlines())) < 160


def test_without_reference_scores_there_are_raw_returns_only(episodes):
    summary = summarize(OfflineDataset.from_episodes(episodes))
    assert summary["normalized"] is None
    assert "only raw returns" in describe_summary(summary)


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
    mean, deviation = mean_and_deviation(array)
    np.testing.assert_allclose(mean, array.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, array.astype(np.float64).std(0), rtol=1e-6)
