import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import sliding


@pytest.fixture
def dataset(episodes):
    return OfflineDataset.from_episodes(episodes)


@pytest.mark.parametrize("chosen", [None, [3, 1]])
def test_equals_the_episodes(dataset, episodes, chosen):
    """The next observation is the episode's own, also at its last step, never the next episode's first."""
    view = dataset.transitions(episodes=None if chosen is None else np.array(chosen))
    flat = [(episodes[e], t) for e in chosen or range(4) for t in range(len(episodes[e]["rewards"]))]
    assert len(view) == len(flat)
    index = torch.randperm(len(view), generator=torch.Generator().manual_seed(0))
    batch = view.gather(index)
    for i, which in enumerate(index.tolist()):
        episode, t = flat[which]
        np.testing.assert_array_equal(batch.observations[i], episode["observations"][t])
        np.testing.assert_array_equal(batch.next_observations[i], episode["observations"][t + 1])
        np.testing.assert_array_equal(batch.actions[i], episode["actions"][t])
        assert batch.rewards[i] == episode["rewards"][t]
        assert bool(batch.terminations[i]) == bool(episode["terminations"][t])


def test_only_real_ends_cut_the_bootstrap(dataset):
    batch = dataset.transitions().gather(torch.arange(len(dataset.rewards)))
    # Episodes end in a terminal, a timeout, both, and neither.
    assert torch.nonzero(batch.terminations)[:, 0].tolist() == [4, 17]


@pytest.mark.parametrize("chosen", [None, [3, 0]])
def test_returns_and_the_weight_of_what_a_time_limit_cut_off(dataset, episodes, chosen):
    discount = 0.9
    view = dataset.transitions(episodes=None if chosen is None else np.array(chosen), discount=discount)
    flat = [(episodes[e], t) for e in chosen or range(4) for t in range(len(episodes[e]["rewards"]))]
    batch = view.gather(torch.arange(len(view)))
    for i, (episode, t) in enumerate(flat):
        rest = np.asarray(episode["rewards"][t:], np.float64)
        np.testing.assert_allclose(batch.returns[i], (discount ** np.arange(len(rest)) * rest).sum(), rtol=1e-5)
        weight = 0 if episode["terminations"][-1] else discount ** len(rest)
        np.testing.assert_allclose(batch.last_weights[i], weight, rtol=1e-6)
        np.testing.assert_array_equal(batch.last_observations[i], episode["observations"][-1])
    assert 0 < (batch.last_weights > 0).sum() < len(view)
    assert dataset.transitions().gather(torch.arange(2)).returns is None


def test_samples_are_seeded_and_uniform(dataset):
    view = dataset.transitions(episodes=np.array([0, 3]))
    first = view.sample(4000, torch.Generator().manual_seed(1))
    again = view.sample(4000, torch.Generator().manual_seed(1))
    assert torch.equal(first.rewards, again.rewards)
    _, counts = torch.unique(first.rewards, return_counts=True)
    assert len(counts) == 8
    # Binomial with n = 4000, p = 1/8: five deviations around 500.
    assert ((counts - 500).abs() < 5 * 21).all()


def test_sliding_is_every_stretch():
    table = torch.arange(12.0).reshape(6, 2)
    stretches = sliding(table, 3)
    assert torch.equal(stretches, torch.stack([table[i : i + 3].flatten() for i in range(4)]))
    assert stretches.data_ptr() == table.data_ptr()
