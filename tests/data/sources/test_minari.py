import json
import shutil

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.dataset import OfflineDataset
from trajplan.data.sources import minari as minari_source
from trajplan.errors import DataError


def refused(id, *parts):
    with pytest.raises(DataError) as error:
        OfflineDataset.from_minari(id)
    message = str(error.value)
    assert "\n" not in message
    for part in (id, *parts):
        assert part in message, message


def cache_entries(data_root):
    folder = data_root[1] / "datasets"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def hdf5(folder):
    return h5py.File(folder / "data" / "main_data.hdf5", "r+")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(minari_source, "_reachable", lambda endpoint: False)


def test_equals_the_recorded_episodes(write_minari, episodes, data_root):
    write_minari("toy/data-v0", episodes)
    first = OfflineDataset.from_minari("toy/data-v0")
    in_memory = OfflineDataset.from_episodes(episodes)
    for dataset in (first, OfflineDataset.from_minari("toy/data-v0")):
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "offsets"):
            np.testing.assert_array_equal(getattr(dataset, name), getattr(in_memory, name))
        assert dataset.id == dataset.info.id == "toy/data-v0"
        assert (dataset.info.num_transitions, dataset.info.num_episodes) == (21, 4)
        assert dataset.info.mean_return == pytest.approx(in_memory.returns.mean())
        assert {"minari", "gymnasium", "dataset"} <= set(dataset.info.versions)
    assert len(cache_entries(data_root)) == 1


def test_the_second_opening_reads_only_the_cache(write_minari, episodes, monkeypatch):
    write_minari("toy/data-v0", episodes)
    OfflineDataset.from_minari("toy/data-v0")
    monkeypatch.setattr(minari_source, "read_episodes", lambda source: pytest.fail("the source was read again"))
    dataset = OfflineDataset.from_minari("toy/data-v0")
    assert isinstance(dataset.observations, np.memmap)


def test_a_changed_source_is_read_again(write_minari, episodes, data_root):
    folder = write_minari("toy/data-v0", episodes)
    OfflineDataset.from_minari("toy/data-v0")
    with hdf5(folder) as file:
        file["episode_0/rewards"][0] = 5.0
    assert OfflineDataset.from_minari("toy/data-v0").rewards[0] == 5.0
    assert len(cache_entries(data_root)) == 2


def test_a_source_that_changes_while_it_is_read(write_minari, episodes, data_root, monkeypatch):
    folder = write_minari("toy/data-v0", episodes)
    read = minari_source.read_episodes

    def read_and_touch(source):
        yield from read(source)
        (folder / "data" / "metadata.json").touch()

    monkeypatch.setattr(minari_source, "read_episodes", read_and_touch)
    with pytest.raises(DataError, match="changed while"):
        OfflineDataset.from_minari("toy/data-v0")
    assert cache_entries(data_root) == []


def test_a_damaged_cache_is_rebuilt(write_minari, episodes, data_root):
    write_minari("toy/data-v0", episodes)
    OfflineDataset.from_minari("toy/data-v0")
    path = next((data_root[1] / "datasets").iterdir()) / "actions"
    path.write_bytes(path.read_bytes()[:10])
    np.testing.assert_array_equal(OfflineDataset.from_minari("toy/data-v0").actions[:5], episodes[0]["actions"])


def test_dict_observations_and_discrete_actions(write_minari):
    rng = np.random.default_rng(0)
    recorded = []
    for length in (4, 6):
        flags = np.zeros((2, length), np.bool_)
        observations = {"goal": rng.normal(size=(length + 1, 2)), "achieved": rng.normal(size=(length + 1, 3))}
        recorded.append(
            {
                "observations": observations,
                "actions": rng.integers(0, 4, size=length),
                "rewards": np.ones(length),
                "terminations": flags[0],
                "truncations": flags[1],
            }
        )
    space = spaces.Dict({"goal": spaces.Box(-9, 9, (2,), np.float64), "achieved": spaces.Box(-9, 9, (3,), np.float64)})
    write_minari("toy/goal-v0", recorded, observation_space=space, action_space=spaces.Discrete(4))
    dataset = OfflineDataset.from_minari("toy/goal-v0")
    parts = [np.concatenate([e["observations"][key] for e in recorded]) for key in ("achieved", "goal")]
    expected = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(dataset.observations, expected.astype(np.float32))
    np.testing.assert_array_equal(dataset.actions[:, 0], np.concatenate([e["actions"] for e in recorded]))
    assert dataset.info.num_actions == 4


def test_reference_scores(write_minari, make_episode):
    episode = make_episode(np.random.default_rng(0), 5, observation_width=4, action_width=1)
    spec = gymnasium.spec("CartPole-v1")
    space = {"action_space": spaces.Box(-1, 1, (1,), np.float32)}
    write_minari("toy/scored-v0", [episode], env=spec, ref_min_score=-1.0, ref_max_score=3.0, **space)
    info = OfflineDataset.from_minari("toy/scored-v0").info
    assert (info.reference.min, info.reference.max, info.reference.source) == (-1.0, 3.0, "the dataset")
    assert info.env_spec.id == "CartPole-v1"
    write_minari("toy/raw-v0", [episode], env=spec, **space)
    assert OfflineDataset.from_minari("toy/raw-v0").info.reference is None


def test_impossible_reference_scores(write_minari, episodes):
    path = write_minari("toy/data-v0", episodes) / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ref_min_score": 5.0, "ref_max_score": 5.0}))
    refused("toy/data-v0", "ref_min_score", "5.0")


def test_the_evaluation_environment_is_the_one_to_make(write_minari, make_episode):
    episode = make_episode(np.random.default_rng(0), 5, observation_width=4, action_width=1)
    space = {"action_space": spaces.Box(-1, 1, (1,), np.float32)}
    write_minari("toy/data-v0", [episode], env="CartPole-v0", eval_env="CartPole-v1", **space)
    assert OfflineDataset.from_minari("toy/data-v0").info.env_spec.id == "CartPole-v1"


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite(write_minari, episodes, data_root, name):
    episodes[2][name][3] = np.nan
    write_minari("toy/data-v0", episodes)
    refused("toy/data-v0", "episode 2", name, "3", "nan")
    assert cache_entries(data_root) == []


def test_episodes_without_the_last_observation(write_minari, episodes, data_root):
    episodes[1]["observations"] = episodes[1]["observations"][:-1]
    write_minari("toy/data-v0", episodes)
    refused("toy/data-v0", "episode 1", "observations")
    assert cache_entries(data_root) == []


def test_an_empty_episode(write_minari, episodes):
    folder = write_minari("toy/data-v0", episodes)
    with hdf5(folder) as file:
        for name, length in (("actions", 0), ("rewards", 0), ("terminations", 0), ("truncations", 0)):
            file[f"episode_3/{name}"].resize(length, axis=0)
    refused("toy/data-v0", "episode 3", "empty")


def test_an_unsupported_space(write_minari, episodes):
    space = spaces.MultiDiscrete([2, 2])
    write_minari("toy/data-v0", episodes, action_space=space)
    refused("toy/data-v0", "action space", "MultiDiscrete")


def test_a_missing_field_and_a_missing_episode(write_minari, episodes):
    folder = write_minari("toy/data-v0", episodes)
    with hdf5(folder) as file:
        del file["episode_1/rewards"]
    refused("toy/data-v0", "episode 1", "rewards")
    with hdf5(folder) as file:
        del file["episode_1"]
    refused("toy/data-v0", "episode 1", "damaged")


def test_a_truncated_file(write_minari, episodes, data_root):
    folder = write_minari("toy/data-v0", episodes)
    path = folder / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("toy/data-v0", "damaged", str(folder))
    path.write_bytes(b"")
    refused("toy/data-v0", "damaged")
    path.unlink()
    refused("toy/data-v0")
    assert cache_entries(data_root) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dataset_id": "toy/data-v0"}'])
def test_damaged_metadata(write_minari, episodes, text):
    folder = write_minari("toy/data-v0", episodes)
    (folder / "data" / "metadata.json").write_text(text)
    refused("toy/data-v0", "metadata")


def test_metadata_without_a_number_of_episodes(write_minari, episodes):
    folder = write_minari("toy/data-v0", episodes)
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["total_episodes"]
    path.write_text(json.dumps(metadata))
    refused("toy/data-v0", "metadata")


@pytest.mark.parametrize("id", ["no version", "toy/data", "", "../etc-v0", "toy/data-v0.hdf5"])
def test_malformed_ids(data_root, id):
    refused(id, "not a Minari id")


def test_an_id_that_does_not_exist_without_a_network(write_minari, episodes, offline):
    write_minari("toy/data-v0", episodes)
    refused("toy/dat-v0", "without a network", "Did you mean toy/data-v0?")
    refused("zzzz-v9", "without a network", "trajplan datasets list")


def test_a_download_that_fails_leaves_nothing(data_root, monkeypatch):
    folder = data_root[0] / "far" / "away-v0"
    monkeypatch.setattr(minari_source, "_remote_reachable", lambda: True)

    def broken(id, download=False):
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "main_data.hdf5").write_bytes(b"half")
        raise ConnectionError("connection reset\nby peer")

    monkeypatch.setattr("minari.load_dataset", broken)
    refused("far/away-v0", "cannot be downloaded", "connection reset")
    assert not folder.exists()


def test_a_download_that_reports_success_without_files(data_root, monkeypatch):
    monkeypatch.setattr(minari_source, "_remote_reachable", lambda: True)
    monkeypatch.setattr("minari.storage.hosting.download_dataset", lambda id: None)
    refused("far/away-v0", "cannot be downloaded", "doesn't exist")


def test_a_download_is_found_afterwards(write_minari, episodes, data_root, monkeypatch):
    stored = write_minari("toy/data-v0", episodes)
    elsewhere = data_root[0].parent / "remote"
    shutil.move(stored, elsewhere)
    monkeypatch.setattr(minari_source, "_remote_reachable", lambda: True)
    monkeypatch.setattr("minari.storage.hosting.download_dataset", lambda id: shutil.copytree(elsewhere, stored))
    assert OfflineDataset.from_minari("toy/data-v0").num_episodes == 4


def test_unreachable_is_found_out_quickly(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not minari_source._reachable("http://127.0.0.1:9")


def test_list(write_minari, episodes, data_root):
    write_minari("toy/data-v0", episodes)
    write_minari("toy/other-v1", episodes)
    write_minari("toy/third-v0", episodes)
    (data_root[0] / "toy" / "data-v0" / "data" / "metadata.json").write_text("{")
    path = data_root[0] / "toy" / "third-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_steps": None}))
    (data_root[0] / ".building-x" / "toy-v0" / "data").mkdir(parents=True)
    (good,), problems = minari_source.list_datasets()
    assert (good["id"], good["num_episodes"], good["num_transitions"]) == ("toy/other-v1", 4, 21)
    assert good["environment"] is None
    assert ["toy/data-v0" in problems[0], "toy/third-v0" in problems[1]] == [True, True]


def test_a_folder_without_an_id_for_a_name(write_minari, episodes, data_root, offline):
    write_minari("toy/data-v0", episodes)
    (data_root[0] / "scratch" / "data").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot be listed .* Minari id"):
        minari_source.list_datasets()
    refused("toy/dat-v0", "without a network")


def test_linked_folders_are_listed_and_suggested(write_minari, episodes, data_root, tmp_path, offline):
    write_minari("toy/data-v0", episodes)
    root = data_root[0]
    (root / "toy").rename(tmp_path / "elsewhere")
    (root / "toy").symlink_to(tmp_path / "elsewhere")
    rows, problems = minari_source.list_datasets()
    assert ([row["id"] for row in rows], problems) == (["toy/data-v0"], [])
    assert OfflineDataset.from_minari("toy/data-v0").num_episodes == 4
    refused("toy/dat-v0", "Did you mean toy/data-v0")


def test_the_list_of_what_can_be_downloaded(data_root, monkeypatch, offline):
    with pytest.raises(DataError, match="without a network"):
        minari_source.list_datasets(remote=True)
    monkeypatch.setattr(minari_source, "_remote_reachable", lambda: True)
    metadata = {"total_episodes": 2, "total_steps": 9, "dataset_size": 1.5, "env_spec": '{"id": "Hopper-v5"}'}
    monkeypatch.setattr("minari.list_remote_datasets", lambda compatible_minari_version: {"far/away-v0": metadata})
    expected = {"id": "far/away-v0", "num_episodes": 2, "num_transitions": 9}
    assert minari_source.list_datasets(remote=True) == (
        [expected | {"megabytes": 1.5, "environment": "Hopper-v5"}],
        [],
    )

    def broken(compatible_minari_version):
        raise ConnectionError("connection reset\nby peer")

    monkeypatch.setattr("minari.list_remote_datasets", broken)
    with pytest.raises(DataError, match="cannot be listed: ConnectionError: connection reset"):
        minari_source.list_datasets(remote=True)
