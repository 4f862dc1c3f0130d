import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError, DataError


@pytest.fixture
def dataset(episodes):
    return OfflineDataset.from_episodes(episodes)


def expected_windows(dataset, length, stride, chosen):
    """(start, rows, valid) of every window, by loops."""
    windows = []
    for episode in chosen:
        begin, end = dataset.offsets[episode : episode + 2]
        for start in range(begin, end, stride):
            rows = [min(start + k, end - 1) for k in range(length)]
            windows.append((episode, rows, [start + k < end for k in range(length)]))
    return windows


@pytest.mark.parametrize("length", [1, 2, 4, 30])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("chosen", [None, [2, 0], [1]])
def test_equals_loops(dataset, length, stride, chosen):
    views = dataset.windows(length, stride=stride, episodes=None if chosen is None else np.array(chosen))
    expected = expected_windows(dataset, length, stride, chosen or range(4))
    assert len(views) == len(expected)
    index = torch.randperm(len(views), generator=torch.Generator().manual_seed(0))
    rows, valid = views.gather_rows(index)
    batch = views.batch(index)
    episodes = views.episode_of(index)
    assert rows.dtype == torch.int64
    assert batch.observations.shape == (len(views), length, 3)
    for i, which in enumerate(index.tolist()):
        episode, expected_rows, expected_valid = expected[which]
        assert rows[i].tolist() == expected_rows
        assert valid[i].tolist() == batch.valid[i].tolist() == expected_valid
        assert int(episodes[i]) == episode
        assert int(views.starts[which]) == expected_rows[0]
        assert int(views.ends[which]) == dataset.offsets[episode + 1]
        store = np.array(expected_rows) + episode
        np.testing.assert_array_equal(batch.observations[i], dataset.observations[store])
        np.testing.assert_array_equal(batch.actions[i], dataset.actions[expected_rows])
        np.testing.assert_array_equal(batch.rewards[i], dataset.rewards[expected_rows])


def test_every_transition_starts_a_window(dataset):
    assert dataset.windows(10).starts.tolist() == list(range(dataset.num_transitions))


def test_observations_do_not_drift_against_actions():
    """T + 1 observations an episode: with many episodes a wrong row would be off by as many."""
    flags = np.zeros(3, bool)
    episodes = [
        {
            "observations": np.array([0.0, 1.0, 2.0, 3.0])[:, None] + 10 * e,
            "actions": np.array([0.0, 1.0, 2.0])[:, None] + 10 * e,
            "rewards": np.zeros(3),
            "terminations": flags,
            "truncations": flags,
        }
        for e in range(50)
    ]
    views = OfflineDataset.from_episodes(episodes).windows(3)
    batch = views.batch(torch.arange(len(views)))
    assert torch.equal(batch.observations, batch.actions)


def test_no_window_reads_another_episode(dataset):
    views = dataset.windows(6)
    index = torch.arange(len(views))
    rows, _ = views.gather_rows(index)
    episode = torch.searchsorted(torch.as_tensor(dataset.offsets[1:]), rows, right=True)
    assert torch.equal(episode, views.episode_of(index)[:, None].expand_as(rows))


def test_bad_arguments(dataset):
    with pytest.raises(ConfigError, match="length"):
        dataset.windows(0)
    with pytest.raises(ConfigError, match="stride"):
        dataset.windows(2, stride=0)
    with pytest.raises(DataError, match="4 is not one"):
        dataset.windows(2, episodes=np.array([0, 4]))
    with pytest.raises(DataError, match="no episodes"):
        dataset.windows(2, episodes=np.array([], dtype=np.int64))
