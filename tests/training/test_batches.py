import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.batches import TokenTable, TrainingBatches, WindowOrder

CPU = torch.device("cpu")
T = 4


@pytest.fixture
def tokenizer(dataset):
    return fit_tokenizer("quantile", dataset.joined(), 8)


@pytest.fixture
def table(dataset, tokenizer, tiny):
    return TokenTable(dataset, tokenizer, tiny(), CPU)


def window_by_hand(dataset, tokens, start):
    """Tokens and counts of one window, from the definition; a token that no target may need is None."""
    J, V = tokens.shape[1], 8
    episode = int(np.searchsorted(dataset.offsets, start, side="right")) - 1
    end = int(dataset.offsets[episode + 1])
    sequence = [t for row in range(start, min(start + T, end)) for t in tokens[row].tolist()]
    counts = [True] * len(sequence)
    if len(sequence) < T * J and dataset.terminations[end - 1]:
        sequence.append(V)
        counts.append(True)
    missing = T * J - len(sequence)
    return sequence + [None] * missing, counts + [False] * missing


def test_every_window_is_the_one_of_the_definition(dataset, table, tokenizer):
    windows = dataset.windows(T)
    tokens = tokenizer.encode(torch.from_numpy(dataset.joined()))
    rows, valid = windows.gather_rows(torch.arange(len(windows)))
    batch = table.batch(rows, valid)
    assert len(windows) == dataset.num_transitions
    stops = 0
    for index in range(len(windows)):
        expected, counts = window_by_hand(dataset, tokens, int(windows.starts[index]))
        assert batch.valid[index].tolist() == counts[1:]
        got = [int(batch.tokens[index, 0]), *batch.targets[index].tolist()]
        assert all(g == e for g, e in zip(got, expected, strict=True) if e is not None)
        stops += expected.count(8)
    assert stops > 0
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])


def test_a_time_limit_is_followed_by_no_stop_token(dataset, table):
    windows = dataset.windows(T)
    rows, valid = windows.gather_rows(torch.arange(len(windows)))
    batch = table.batch(rows, valid)
    stopped = ((batch.targets == 8) & batch.valid).any(1)
    ended = torch.tensor([bool(dataset.terminations[int(windows.ends[i]) - 1]) for i in range(len(windows))])
    assert torch.equal(stopped, ended & ~valid[:, -1])


def test_counts_agree_with_the_masks(dataset, table):
    windows = dataset.windows(T)
    rows, valid = windows.gather_rows(torch.arange(3, 60))
    batch = table.batch(rows, valid)
    kinds = torch.tensor([0, 0, 0, 1, 1, 2, 3]).repeat(T)[1:]
    expected = [int(batch.valid[:, kinds == kind].sum()) for kind in range(4)]
    assert table.count_targets(rows, valid).tolist() == expected
    assert batch.counts.tolist() == expected


def test_more_than_255_bins_are_kept_apart(dataset, tiny):
    tokenizer = fit_tokenizer("uniform", dataset.joined(), 300)
    table = TokenTable(dataset, tokenizer, tiny(bins=300), CPU)
    assert torch.equal(table.tokens[:-1].long(), tokenizer.encode(torch.from_numpy(dataset.joined())))
    assert (table.tokens[-1] == 300).all()


def test_the_fingerprint_follows_data_and_settings(dataset, table, tokenizer, tiny):
    assert TokenTable(dataset, tokenizer, tiny(), CPU).fingerprint() == table.fingerprint()
    assert TokenTable(dataset, tokenizer, tiny(discount=0.5), CPU).fingerprint() != table.fingerprint()


def test_each_epoch_is_another_permutation():
    order = WindowOrder(windows=10, batch_size=4, seed=0)
    stream = torch.cat([order.indices(update) for update in range(10)]).reshape(4, 10)
    for epoch in stream:
        assert sorted(epoch.tolist()) == list(range(10))
    assert len({tuple(epoch.tolist()) for epoch in stream}) == 4


def test_the_order_depends_on_seed_and_update_alone():
    forward = WindowOrder(windows=10, batch_size=4, seed=0)
    seen = {update: forward.indices(update).tolist() for update in range(12)}
    for update in (11, 3, 7, 0):
        assert WindowOrder(windows=10, batch_size=4, seed=0).indices(update).tolist() == seen[update]
        assert forward.indices(update).tolist() == seen[update]
    assert WindowOrder(windows=10, batch_size=4, seed=1).indices(0).tolist() != seen[0]


def test_a_batch_larger_than_the_dataset_spans_epochs():
    counts = torch.bincount(WindowOrder(windows=3, batch_size=7, seed=0).indices(0))
    assert sorted(counts.tolist()) == [2, 2, 3]


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_processes_and_parts_divide_the_global_batch(dataset, table, tiny, processes, accumulation):
    windows = dataset.windows(T)
    whole = TrainingBatches(table, windows, tiny(), 0, 1)
    parts = []
    for rank in range(processes):
        mine, counts = TrainingBatches(table, windows, tiny(accumulation=accumulation), rank, processes).batch(3)
        assert len(mine) == accumulation
        assert torch.equal(counts, whole.batch(3)[1])
        parts += mine
    (expected,), _ = whole.batch(3)
    assert sorted(torch.cat([p.tokens for p in parts]).tolist()) == sorted(expected.tokens.tolist())
    assert sum(p.counts for p in parts).tolist() == expected.counts.tolist()


def test_a_batch_that_does_not_divide_is_refused(dataset, table, tiny):
    with pytest.raises(ConfigError, match="batch_size is 16"):
        TrainingBatches(table, dataset.windows(T), tiny(accumulation=3), 0, 2)


def test_episodes_of_a_batch(dataset, table, tiny):
    chosen = np.array([2, 5, 9])
    batches = TrainingBatches(table, dataset.windows(T, episodes=chosen), tiny(), 0, 1)
    assert set(batches.episodes(0)) <= {2, 5, 9}
    assert {e for update in range(5) for e in batches.episodes(update)} == {2, 5, 9}
