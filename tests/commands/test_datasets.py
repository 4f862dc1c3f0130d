import json
import warnings

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError

STEPS = 20


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def dataset(root):
    rng = np.random.default_rng(0)
    flags = np.zeros((2, STEPS), np.bool_)
    flags[0, -1] = True
    buffers = [
        EpisodeBuffer(
            observations=rng.normal(size=(STEPS + 1, 3)),
            actions=rng.normal(size=(STEPS, 2)),
            rewards=np.full(STEPS, index / STEPS),
            terminations=flags[0],
            truncations=flags[1],
        )
        for index in range(4)
    ]
    box = {name: spaces.Box(-np.inf, np.inf, (width,)) for name, width in (("observation", 3), ("action", 2))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "toy/data-v0", buffers, observation_space=box["observation"], action_space=box["action"]
        )
    return "toy/data-v0"


def test_list(dataset, capsys):
    assert main(["datasets", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:3] == [dataset, "4", "80"]
    assert main(["datasets", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["num_episodes"], row["num_transitions"]) == (dataset, 4, 80)


def test_list_tells_of_damaged_datasets_beside_the_list(dataset, capsys, root):
    (root / "minari" / "toy" / "bad-v0" / "data").mkdir(parents=True)
    assert main(["datasets", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert [row["id"] for row in json.loads(captured.out)] == [dataset]
    assert "toy/bad-v0" in captured.err
    assert captured.err.count("\n") == 1


def test_list_of_nothing_says_where_it_looked(root, capsys):
    assert main(["datasets", "list"]) == 0
    assert str(root / "minari") in capsys.readouterr().out


def test_show(dataset, capsys, root):
    assert main(["datasets", "show", dataset, "--picture", str(root / "page.png")]) == 0
    out = capsys.readouterr().out
    assert "return        1.5 ± 1.118, from 0 to 3" in out
    assert "4 in a terminal\n" in out
    assert "page.png" in out
    assert (root / "page.png").read_bytes().startswith(b"\x89PNG")


def test_show_json_is_json_alone(dataset, capsys):
    assert main(["datasets", "show", dataset, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["return"]["max"] == pytest.approx(3.0)
    assert len(summary["observations"]) == 3


def test_bad_input_is_one_sentence_and_status_2(dataset, capsys, root, monkeypatch):
    monkeypatch.setattr("trajplan.data.sources.minari._reachable", lambda endpoint: False)
    nowhere = str(root / "nowhere" / "page.png")
    shown = (["show", "toy/dat-v0"], ["show", "what"], ["show", dataset, "--picture", nowhere])
    for arguments in (*shown, ["list", "--remote"]):
        assert main(["datasets", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("trajplan: error: ")
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_an_unusable_folder_of_datasets_is_one_sentence(root, capsys, monkeypatch):
    (root / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "file"))
    collect = ["collect", "--env", "Pendulum-v1", "--id", "toy/data-v0", "--episodes", "1"]
    imported = ["import", str(root / "file"), "--id", "toy/data-v0"]
    for arguments in (["list"], ["show", "toy/data-v0"], collect, imported):
        assert main(["datasets", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("trajplan: error: The folder of the Minari datasets")
        assert error.count("\n") == 1


@pytest.mark.parametrize("option", [["--max-episode-steps", "0"], ["--seed", "-1"], ["--env-kwargs", '{"gravity": 1}']])
def test_collect_refuses_in_one_sentence(root, capsys, option):
    command = ["datasets", "collect", "--env", "Pendulum-v1", "--id", "toy/data-v0", "--episodes", "1"]
    assert main([*command, *option]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (root / "minari" / "toy").exists()


def test_import(root, capsys):
    path = root / "hopper_tiny-v2.hdf5"
    observations = np.arange(22.0).reshape(11, 2)
    with h5py.File(path, "w") as file:
        file["observations"], file["next_observations"] = observations[:-1], observations[1:]
        file["actions"], file["rewards"] = np.zeros((10, 1)), np.ones(10)
        file["terminals"], file["timeouts"] = np.arange(10) == 3, np.arange(10) == 9
    assert main(["datasets", "import", str(path), "--id", "d4rl/hopper-v0"]) == 0
    out = capsys.readouterr().out
    assert "10 transitions in 2 episodes" in out
    assert "1 end in a terminal, 1 in a timeout" in out
    assert "no bounds, which the baselines need; name it with --env" in out
    dataset = OfflineDataset.from_minari("d4rl/hopper-v0")
    assert dataset.lengths.tolist() == [4, 6]
    assert dataset.info.reference.max == 3234.3
    options = ["--id", "d4rl/mine-v0", "--reference-scores", "0", "20"]
    assert main(["datasets", "import", str(path), *options]) == 0
    assert OfflineDataset.from_minari("d4rl/mine-v0").info.normalized_score([10.0]) == [50.0]
    assert "hopper_tiny-v2" in minari.load_dataset("d4rl/mine-v0").storage.metadata["description"]
    capsys.readouterr()
    for taken in ("d4rl/mine-v0", "no version"):
        assert main(["datasets", "import", str(root / "nowhere"), "--id", taken]) == 2
        assert "id" in capsys.readouterr().err
    with h5py.File(path, "r+") as file:
        file["rewards"][5] = np.nan
    assert main(["datasets", "import", str(path), "--id", "d4rl/bad-v0"]) == 2
    assert not (root / "minari" / "d4rl" / "bad-v0").exists()


def test_collect_is_wired(root, capsys):
    command = ["datasets", "collect", "--env", "Pendulum-v1", "--id", "toy/random-v0", "--episodes", "2"]
    assert main([*command, "--max-episode-steps", "10"]) == 0
    assert OfflineDataset.from_minari("toy/random-v0").lengths.tolist() == [10, 10]


def test_collect_writes_nothing_beside_the_dataset(root, monkeypatch, capsys):
    # MuJoCo warns of HalfCheetah's model, in a file of the working folder unless it is told otherwise.
    folder = root / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command = ["datasets", "collect", "--env", "HalfCheetah-v5", "--id", "toy/cheetah-v0", "--episodes", "1"]
    assert main([*command, "--max-episode-steps", "3"]) == 0
    assert list(folder.iterdir()) == []
    assert "deprecated" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["list"], ["show"], ["collect"], ["import"], ["goals"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["datasets", *arguments, "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    for word in arguments or ["list", "show", "collect", "import", "goals"]:
        assert word in out


def test_import_tells_of_jumps_and_cuts_them(root, capsys):
    path = root / "antmaze_umaze-v0.hdf5"
    walk = np.concatenate([np.linspace(0, 5, 100)[:, None] + [[0, 1]]] * 3)
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["rewards"] = walk, np.zeros((300, 1)), np.zeros(300)
        file["terminals"], file["timeouts"] = np.zeros(300, bool), np.isin(np.arange(300), (101, 201))
    assert main(["datasets", "import", str(path), "--id", "d4rl/maze-v0"]) == 0
    out = capsys.readouterr().out
    assert "the observation jumps after 2 rows (the first is row 99)" in out
    assert "--cut-jumps" in out
    assert main(["datasets", "import", str(path), "--id", "d4rl/cut-v0", "--cut-jumps"]) == 0
    assert "an episode was ended there" in capsys.readouterr().out
    assert OfflineDataset.from_minari("d4rl/cut-v0").lengths.tolist() == [99, 1, 97, 1, 97]


@pytest.fixture
def maze_files(root, goal_maze):
    """NAME.npz of 6 episodes of 4 steps, and NAME-val.npz of 2."""
    rng = np.random.default_rng(0)
    for suffix, episodes in (("", 6), ("-val", 2)):
        places = rng.uniform(-1, 9, (5 * episodes, 2)).astype(np.float32)
        rows = {"observations": places, "qpos": places, "actions": rng.uniform(-1, 1, places.shape)}
        rows["terminals"] = np.arange(len(places)) % 5 == 4
        np.savez_compressed(root / f"openmaze-tiny-walk-v0{suffix}.npz", **rows)
    return root / "openmaze-tiny-walk-v0.npz"


def test_import_of_ogbench_with_its_held_out_episodes(maze_files, capsys):
    assert main(["datasets", "import", str(maze_files)]) == 0
    out = capsys.readouterr().out
    assert "24 transitions in 6 episodes as ogbench/openmaze-tiny-walk-v0: rewards are 0" in out
    assert "8 transitions in 2 episodes of openmaze-tiny-walk-v0-val.npz as ogbench/openmaze-tiny-walk-val-v0" in out
    dataset = OfflineDataset.from_minari("ogbench/openmaze-tiny-walk-v0")
    assert isinstance(dataset.observations, np.memmap)
    with np.load(maze_files) as file:
        np.testing.assert_array_equal(dataset.observations, file["observations"])
    info = dataset.info
    assert (info.goal_columns, info.env_spec.id) == ((0, 1), "openmaze-tiny-v0")
    assert info.held_out == ("ogbench/openmaze-tiny-walk-val-v0",)
    assert DatasetInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info
    training, others, numbers = dataset.hold_out(0.5, 0)
    assert (others.id, others.info.held_out) == (info.held_out[0], ())
    assert (training.tolist(), numbers.tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1])
    # A second time there is something there already.
    assert main(["datasets", "import", str(maze_files)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_import_of_a_single_task_is_another_dataset(maze_files, capsys):
    assert main(["datasets", "import", str(maze_files)]) == 0
    assert main(["datasets", "import", str(maze_files), "--task", "1", "--id", "mine/task-v0"]) == 0
    assert "rewards are those of task 1" in capsys.readouterr().out
    plain, single = (OfflineDataset.from_minari(id) for id in ("ogbench/openmaze-tiny-walk-v0", "mine/task-v0"))
    assert single.info.env_spec.id == "openmaze-tiny-singletask-task1-v0"
    assert single.info.transforms[0]["name"] == "ogbench-singletask"
    assert set(np.unique(single.rewards)) == {-1.0, 0.0}
    with np.load(maze_files) as file:
        begins = file["qpos"][~file["terminals"]]
    near = np.linalg.norm(begins - [8, 0], axis=1) <= 1
    np.testing.assert_array_equal(single.terminations, near)
    assert len(list((maze_files.parent / "cache" / "datasets").iterdir())) == 2
    with pytest.raises(DataError, match="their transforms are"):
        OfflineDataset.from_minari([single.id, "mine/task-val-v0", plain.id])


def test_import_of_ogbench_that_fails_leaves_nothing(maze_files, capsys):
    for flag in (["--time-limit", "5"], ["--cut-jumps"], ["--reference-scores", "0", "1"]):
        assert main(["datasets", "import", str(maze_files), *flag]) == 2
        assert f"{flag[0]} is for D4RL's files" in capsys.readouterr().err
    other = maze_files.with_name("openmaze-tiny-walk-v0-val.npz")
    other.write_bytes(other.read_bytes()[:300])
    assert main(["datasets", "import", str(maze_files)]) == 2
    assert "damaged" in capsys.readouterr().err
    other.unlink()
    assert not (maze_files.parent / "minari" / "ogbench").exists()
    assert main(["datasets", "import", str(maze_files)]) == 0
    assert OfflineDataset.from_minari("ogbench/openmaze-tiny-walk-v0").info.held_out == ()
    assert main(["datasets", "import", "nowhere.hdf5"]) == 2
    assert "--id" in capsys.readouterr().err
    assert main(["datasets", "import", "nowhere.hdf5", "--id", "a/b-v0", "--task", "1"]) == 2
    assert "--task is for OGBench" in capsys.readouterr().err
