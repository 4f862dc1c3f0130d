"""Several datasets as one: their episodes in order, a share of each held out, and a sentence where they do not fit."""

import shutil
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo, dataset_ids
from trajplan.data.scores import ReferenceScores
from trajplan.data.together import describe_together
from trajplan.errors import DataError

ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations", "offsets")


def episodes_of(make_episode, seed, lengths, width=1):
    rng = np.random.default_rng(seed)
    return [make_episode(rng, length, action_width=width, end="neither") for length in lengths]


@pytest.fixture
def parts(make_episode):
    return [episodes_of(make_episode, 0, [4, 1, 3]), episodes_of(make_episode, 1, [2, 6])]


@pytest.fixture
def saved(data_root, parts):
    """The ids of two datasets of 3 and 2 episodes."""
    ids = ["mine/low-v0", "mine/high-v0"]
    for id, episodes in zip(ids, parts, strict=True):
        OfflineDataset.from_episodes(episodes, env_spec="Pendulum-v1").save(id)
    return ids


def test_equals_the_episodes_one_after_the_other(saved, parts):
    together = OfflineDataset.from_minari(saved)
    expected = OfflineDataset.from_episodes([*parts[0], *parts[1]], env_spec="Pendulum-v1")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(together, name), getattr(expected, name))
    assert together.id == together.info.id == "mine/low-v0 + mine/high-v0"
    assert together.info.env_spec == expected.info.env_spec
    assert together.info.action_space == expected.info.action_space
    assert together.info.mean_return == pytest.approx(expected.returns.mean())
    assert [(s.id, s.num_episodes, s.num_transitions) for s in together.info.sources] == [
        ("mine/low-v0", 3, 8),
        ("mine/high-v0", 2, 8),
    ]
    rows = torch.arange(16)
    batch, other = (dataset.transitions().gather(rows) for dataset in (together, expected))
    torch.testing.assert_close(batch.next_observations, other.next_observations)


def test_the_order_is_the_one_asked_for(saved, parts):
    together = OfflineDataset.from_minari(saved[::-1])
    np.testing.assert_array_equal(together.lengths, [2, 6, 4, 1, 3])
    assert [source.id for source in together.info.sources] == saved[::-1]


def test_one_of_several_is_that_one(saved):
    alone, listed = OfflineDataset.from_minari(saved[0]), OfflineDataset.from_minari(saved[:1])
    assert listed.info.to_dict() == alone.info.to_dict()
    assert alone.info.sources == ()
    assert dataset_ids(alone.info.to_dict()) == saved[:1]


def test_the_cache_has_one_mapped_entry_and_nothing_is_copied(saved, data_root, monkeypatch):
    together = OfflineDataset.from_minari(saved)
    assert isinstance(together.observations, np.memmap)
    assert isinstance(together.rewards, np.memmap)
    # Not one a part besides: the disk holds the transitions once.
    assert len(list((data_root[1] / "datasets").iterdir())) == 1
    monkeypatch.setattr(
        "trajplan.data.sources.minari.read_episodes", lambda source: pytest.fail("the sources were read again")
    )
    again = OfflineDataset.from_minari(saved)
    np.testing.assert_array_equal(again.rewards, together.rewards)
    assert again.info.to_dict() == together.info.to_dict()


def test_a_part_that_changed_is_read_again(saved, parts, data_root, make_episode):
    OfflineDataset.from_minari(saved)
    shutil.rmtree(data_root[0] / saved[1])
    OfflineDataset.from_episodes(episodes_of(make_episode, 2, [5]), env_spec="Pendulum-v1").save(saved[1])
    together = OfflineDataset.from_minari(saved)
    np.testing.assert_array_equal(together.lengths, [4, 1, 3, 5])
    assert together.info.sources[1].num_episodes == 1


def test_the_description_survives_json(saved):
    info = OfflineDataset.from_minari(saved).info
    values = info.to_dict()
    assert DatasetInfo.from_dict(values).sources == info.sources
    assert dataset_ids(values) == saved
    # As written before there were several.
    del values["sources"]
    assert DatasetInfo.from_dict(values).sources == ()
    assert dataset_ids(values | {"id": "toy/old-v0"}) == ["toy/old-v0"]


@pytest.mark.parametrize("seed", range(5))
def test_a_share_of_each_is_held_out(data_root, make_episode, seed):
    for name, count in (("aa", 40), ("bb", 10), ("cc", 1)):
        episodes = episodes_of(make_episode, count, [2] * count)
        OfflineDataset.from_episodes(episodes, env_spec="Pendulum-v1").save(f"mine/{name}-v0")
    together = OfflineDataset.from_minari(["mine/aa-v0", "mine/bb-v0", "mine/cc-v0"])
    training, held_out = together.split(0.1, seed)
    assert sorted([*training, *held_out]) == list(range(51))
    assert np.histogram(held_out, [0, 40, 50, 51])[0].tolist() == [4, 1, 0]
    again = together.split(0.1, seed)
    np.testing.assert_array_equal(held_out, again[1])
    assert held_out.tolist() != together.split(0.1, seed + 1)[1].tolist()
    # Of chosen ones, too: of the second there are two, of the first five.
    chosen = np.array([3, 4, 5, 6, 7, 44, 47])
    training, held_out = together.split(0.4, seed, chosen)
    assert sorted([*training, *held_out]) == chosen.tolist()
    assert np.histogram(held_out, [0, 40, 50])[0].tolist() == [2, 1]


def test_single_episodes_are_divided_as_a_whole(data_root, make_episode):
    for name in ("aa", "bb"):
        OfflineDataset.from_episodes(episodes_of(make_episode, 0, [3]), env_spec="Pendulum-v1").save(f"mine/{name}-v0")
    training, held_out = OfflineDataset.from_minari(["mine/aa-v0", "mine/bb-v0"]).split(0.1, seed=0)
    assert sorted([*training, *held_out]) == [0, 1]


def test_a_single_dataset_is_divided_as_ever(episodes):
    training, held_out = OfflineDataset.from_episodes(episodes * 5).split(0.25, seed=7)
    order = np.random.default_rng(7).permutation(20)
    np.testing.assert_array_equal(held_out, np.sort(order[:5]))
    np.testing.assert_array_equal(training, np.sort(order[5:]))


BOX = spaces.Box(-2.0, 2.0, (1,), np.float32)
SPEC = gymnasium.spec("Pendulum-v1")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"action_space": spaces.Box(-1.0, 2.0, (1,), np.float32)},
            "action spaces have the low bounds -2 and -1 in dim",
        ),
        ({"action_space": spaces.Box(-2.0, 2.0, (1,), np.float64)}, "action spaces have the dtype float32 and float64"),
        ({"action_space": spaces.Box(-2.0, 2.0, (2,), np.float32), "width": 2}, r"the shape \(1,\) and \(2,\)"),
        (
            {"action_space": spaces.Discrete(3)},
            r"action spaces are Box\(-2.0, 2.0, \(1,\), float32\) and Discrete\(3\)",
        ),
        ({"env_spec": None}, "environments are Pendulum-v1 and none"),
        ({"env_spec": "MountainCarContinuous-v0"}, "environments are Pendulum-v1 and MountainCarContinuous-v0"),
        ({"env_spec": replace(SPEC, kwargs={"g": 1.0})}, r"\(Pendulum-v1\) have the kwargs \{\} and \{'g': 1.0\}"),
        ({"env_spec": replace(SPEC, max_episode_steps=9)}, "max_episode_steps 200 and 9"),
        ({"reference": ReferenceScores(0.0, 2.0, "me")}, "reference scores are 0 to 1 and 0 to 2"),
    ],
)
def test_what_differs_is_named(data_root, make_episode, other, words):
    width = other.pop("width", 1)
    observed = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    common = {"observation_space": observed, "action_space": BOX, "env_spec": SPEC}
    common["reference"] = ReferenceScores(0.0, 1.0, "me")
    episodes = episodes_of(make_episode, 0, [4])
    OfflineDataset.from_episodes(episodes, **common).save("mine/first-v0")
    episodes = episodes_of(make_episode, 0, [4], width)
    if isinstance(other.get("action_space"), spaces.Discrete):
        episodes[0]["actions"] = np.array([0, 1, 2, 0])
    OfflineDataset.from_episodes(episodes, **common | other).save("mine/other-v0")
    with pytest.raises(DataError, match=rf"'mine/first-v0' and 'mine/other-v0' cannot be trained on as one: .*{words}"):
        OfflineDataset.from_minari(["mine/first-v0", "mine/other-v0"])


def test_the_parts_of_dictionaries_are_named(data_root, make_episode):
    ids = []
    for width, keys in ((2, "ab"), (3, "ab"), (2, "ac")):
        episode = make_episode(np.random.default_rng(0), 4)
        episode["observations"] = {key: np.zeros((5, width)) for key in keys}
        ids.append(f"mine/{keys}{width}-v0")
        OfflineDataset.from_episodes([episode]).save(ids[-1])
    with pytest.raises(DataError, match=r"observation spaces\['a'\] have the shape \(2,\) and \(3,\)"):
        OfflineDataset.from_minari(ids[:2])
    with pytest.raises(DataError, match="observation spaces have the keys a, b and a, c"):
        OfflineDataset.from_minari([ids[0], ids[2]])


def test_scores_are_those_of_the_one_that_has_them(data_root, make_episode):
    reference = ReferenceScores(0.0, 5.0, "me")
    for name, given in (("aa", None), ("bb", reference)):
        episodes = episodes_of(make_episode, 0, [3])
        OfflineDataset.from_episodes(episodes, env_spec="Pendulum-v1", reference=given).save(f"mine/{name}-v0")
    found = OfflineDataset.from_minari(["mine/aa-v0", "mine/bb-v0"]).info.reference
    assert (found.min, found.max) == (0.0, 5.0)


def test_odd_lists(saved):
    with pytest.raises(DataError, match="'mine/low-v0' is named twice"):
        OfflineDataset.from_minari([*saved, saved[0]])
    with pytest.raises(DataError, match="at least one dataset"):
        OfflineDataset.from_minari([])
    with pytest.raises(DataError, match="Did you mean mine/low-v0"):
        OfflineDataset.from_minari([saved[1], "mine/low-v1"])


def test_held_out_datasets_are_all_of_theirs_or_none():
    infos = [DatasetInfo(id, BOX, BOX, held_out=(f"{id}-val-v0",)) for id in ("a-v0", "b-v0")]
    assert describe_together(infos).held_out == ("a-v0-val-v0", "b-v0-val-v0")
    assert describe_together([infos[0], replace(infos[1], held_out=())]).held_out == ()


def test_goal_columns_are_kept_and_have_to_agree():
    infos = [DatasetInfo(id, BOX, BOX, goal_columns=(0,)) for id in ("a-v0", "b-v0")]
    assert describe_together(infos).goal_columns == (0,)
    with pytest.raises(DataError, match="goal_columns are"):
        describe_together([infos[0], replace(infos[1], goal_columns=None)])
