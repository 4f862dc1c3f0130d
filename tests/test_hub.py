import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants

import trajplan
from trajplan import hub
from trajplan.baselines.dynamics.checkpoint import save_ensemble, save_settings
from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.dynamics.training import new_ensemble
from trajplan.card import write_card
from trajplan.cli import main
from trajplan.errors import CheckpointError, ConfigError
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.cem import CEMConfig
from trajplan.planners.settings import save_planner

OWN_CARD = "---\nlanguage: en\n---\nMy own words.\n"


@pytest.fixture(autouse=True)
def environment(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, cache or setting of the machine's user reaches the tests; xet needs servers of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", server.token)


@pytest.fixture
def at(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client's default endpoint is the stand-in."""
    point_to(server.endpoint, monkeypatch)
    return server


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def evaluated(folder: Path, **changes: Any) -> None:
    """Give a checkpoint folder an evaluation.json of its own weights."""
    numbers = {"mean": -150.0, "std": None, "median": -150.0, "min": -150.0, "max": -150.0, "interval_95": None}
    report = {
        "complete": True,
        "seed": 0,
        "environment": {"id": "Pendulum-v1"},
        "dataset": {"id": "toy/pendulum-v0", "mean_return": -1200.0, "mean_normalized_score": None},
        "model_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "reference": None,
        "episodes": [{}],
        "summary": {"return": numbers, "normalized_score": None, "length": numbers},
        "timing": None,
    }
    (folder / "evaluation.json").write_text(json.dumps(report | changes))


def actions(controller: Any, steps: int = 4) -> np.ndarray:
    """What a controller does in the first steps of an episode."""
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=3)
    controller.reset(seed=5)
    reward, taken = None, []
    for _ in range(steps):
        taken.append(controller.act(observation, reward))
        observation, reward, *_ = env.step(taken[-1])
    return np.stack(taken)


def test_what_is_pushed_is_the_checkpoint_and_nothing_else(at: Any, checkpoint: Path) -> None:
    evaluated(checkpoint)
    (checkpoint / "plan.png").write_bytes(b"a picture")
    (checkpoint / "values.png").write_bytes(b"another")
    (checkpoint / "videos").mkdir()
    (checkpoint / "videos/episode-0.mp4").write_bytes(b"a film")
    (checkpoint / "notes.txt").write_text("private")
    (checkpoint / "optimizer.pt").write_text("private")
    address, sent = hub.push(checkpoint, "user/maze")
    sha, files = at.repositories["user/maze"][-1]
    assert address == f"{at.endpoint}/user/maze/commit/{sha}"
    assert sorted(files) == sorted([*sent, ".gitattributes"])
    results = ["README.md", "evaluation.json", "plan.png", "values.png", "videos/episode-0.mp4"]
    assert sorted(sent) == sorted([*hub.REQUIRED, *results])
    for name in set(sent) - {"README.md"}:
        assert files[name] == (checkpoint / name).read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert card.data["library_name"] == "trajplan"
    assert card.data.eval_results[0].metric_value == -150
    assert 'trajplan.load("user/maze")' in card.text


def test_a_pushed_checkpoint_is_loaded_back_and_acts_alike(at: Any, checkpoint: Path, tmp_path: Path) -> None:
    hub.push(checkpoint, "user/maze")
    downloaded = trajplan.load("user/maze", device="cpu")
    np.testing.assert_array_equal(actions(downloaded), actions(trajplan.load(checkpoint, device="cpu")))
    fetched = [path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")]
    assert sorted(fetched) == sorted([*hub.REQUIRED, "README.md"])


def test_a_dynamics_ensemble_goes_to_the_hub_and_acts_from_there(at: Any, checkpoint: Path, tmp_path: Path) -> None:
    folder, info = tmp_path / "ensemble", trajplan.load(checkpoint, device="cpu").info
    folder.mkdir()
    config = DynamicsConfig(model_members=2, model_elites=2, model_layers=1, model_width=8)
    save_settings(folder, config, info)
    save_ensemble(folder, new_ensemble(info, config, False))
    save_planner(folder, CEMConfig(horizon=3, samples=20))
    write_card(folder)
    _, sent = hub.push(folder, "user/ensemble")
    assert sorted(sent) == sorted([*hub.REQUIRED_OF_DYNAMICS, "README.md"])
    downloaded = trajplan.load("user/ensemble", device="cpu")
    np.testing.assert_array_equal(actions(downloaded), actions(trajplan.load(folder, device="cpu")))


def test_only_safetensors_and_json_are_downloaded(at: Any, checkpoint: Path, tmp_path: Path) -> None:
    hub.push(checkpoint, "user/maze")
    at.files("user/maze").update(dict.fromkeys(("pytorch_model.bin", "modeling.py", "x/model.safetensors"), b"code"))
    trajplan.load("user/maze")
    fetched = {path.name for path in (tmp_path / "cache").rglob("snapshots/**/*")}
    assert not fetched & {"pytorch_model.bin", "modeling.py", "x"}


def test_weights_as_a_pickle_are_refused(at: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(checkpoint, "user/maze")
    files = at.files("user/maze")
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    message = "it has no model.safetensors; weights in pickle form are not read"
    for attempt in (
        lambda: trajplan.load("user/maze"),
        lambda: trajplan.load(checkpoint),
        lambda: hub.push(checkpoint, "user/other"),
    ):
        with pytest.raises(CheckpointError, match=message):
            attempt()
    assert "user/other" not in at.repositories


def test_a_second_push_replaces_the_first_and_drops_stale_results(at: Any, checkpoint: Path) -> None:
    evaluated(checkpoint)
    (checkpoint / "plan.png").write_bytes(b"a picture")
    hub.push(checkpoint, "user/maze", private=True)
    assert at.private["user/maze"]
    first = trajplan.load("user/maze").info
    at.files("user/maze")["mine.txt"] = b"added by hand"
    for name in ("evaluation.json", "plan.png"):
        (checkpoint / name).unlink()
    dataset = json.loads((checkpoint / "dataset.json").read_text()) | {"num_episodes": 6}
    (checkpoint / "dataset.json").write_text(json.dumps(dataset))
    hub.push(checkpoint, "user/maze")
    files = at.files("user/maze")
    assert not {"evaluation.json", "plan.png"} & set(files)
    assert files["mine.txt"] == b"added by hand"
    assert b"No evaluation comes with these weights" in files["README.md"]
    assert trajplan.load("user/maze").info.num_episodes == 6
    shas = [sha for sha, _ in at.repositories["user/maze"]]
    assert trajplan.load("user/maze", revision=shas[1]).info.num_episodes == first.num_episodes == 5
    with pytest.raises(CheckpointError, match="has no such revision"):
        trajplan.load("user/maze", revision="f" * 40)


def test_an_interrupted_evaluation_is_not_shared(at: Any, checkpoint: Path) -> None:
    evaluated(checkpoint, complete=False, summary=None)
    assert "evaluation.json" not in hub.push(checkpoint, "user/maze")[1]


@pytest.mark.parametrize("other", ["0" * 64, None])
def test_results_of_other_weights_are_refused(checkpoint: Path, other: str | None) -> None:
    evaluated(checkpoint, model_sha256=other)
    with pytest.raises(CheckpointError, match="measured with other weights"):
        hub.push(checkpoint, "user/maze")


@pytest.mark.parametrize("name", hub.REQUIRED)
def test_an_incomplete_folder_is_neither_pushed_nor_loaded(at: Any, checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    for attempt in (lambda: hub.push(checkpoint, "user/maze"), lambda: trajplan.load(checkpoint)):
        with pytest.raises(CheckpointError, match=f"an incomplete checkpoint: it has no {name}"):
            attempt()
    assert not at.requests


def test_a_damaged_folder_is_not_pushed(at: Any, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"tokenizer\.safetensors is not the file"):
        hub.push(checkpoint, "user/maze")
    assert not at.requests


@pytest.mark.parametrize("name", ["maze", "user/maze/v1", "user/", "us er/maze", "-user/maze", "user/maze.git", ""])
def test_a_bad_name_is_refused(at: Any, checkpoint: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="give user/name"):
        hub.push(checkpoint, name)
    assert not at.requests


def test_offline_mode_and_a_missing_token_are_named_first(
    at: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="hf auth login"):
        hub.push(checkpoint, "user/maze")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="unset HF_HUB_OFFLINE"):
        hub.push(checkpoint, "user/maze")
    with pytest.raises(CheckpointError, match="the hub cannot be reached, and the cache does not hold it"):
        trajplan.load("user/maze")
    assert not at.requests


def test_offline_mode_loads_from_the_cache(at: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(checkpoint, "user/maze")
    trajplan.load("user/maze")
    at.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert trajplan.load("user/maze").info.id == "toy/pendulum-v0"
    assert not at.requests


def test_what_the_hub_refuses_is_one_sentence(at: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"answered 403, You don't have the rights .*namespace \(may the token"):
        hub.push(checkpoint, "somebody-else/maze")
    with pytest.raises(CheckpointError, match="not pushed to user/maze: Invalid metadata in README"):
        hub.push(checkpoint, "user/maze", license="nonsense")
    with pytest.raises(CheckpointError, match="the hub has no such model, or it is private"):
        trajplan.load("user/nothing")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CheckpointError, match="answered 401, Invalid username or password"):
        hub.push(checkpoint, "user/maze")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("card", [None, "ours", "theirs"])
def test_a_push_that_fails_changes_nothing_locally_and_neither_does_one_that_succeeds(
    at: Any, checkpoint: Path, card: str | None
) -> None:
    if card is not None:
        text = write_card(checkpoint).read_text()
        (checkpoint / "README.md").write_text(text if card == "ours" else OWN_CARD)
    evaluated(checkpoint)
    before = contents(checkpoint)
    with pytest.raises(CheckpointError, match="answered 403"):
        hub.push(checkpoint, "somebody-else/maze", license="mit")
    if card != "theirs":
        with pytest.raises(CheckpointError, match="Invalid metadata in README"):
            hub.push(checkpoint, "user/maze", license="nonsense")
    assert contents(checkpoint) == before
    hub.push(checkpoint, "user/maze", license="mit")
    assert contents(checkpoint) == before
    sent = at.files("user/maze")["README.md"].decode()
    assert (sent == OWN_CARD) == (card == "theirs")


def test_no_licence_is_claimed_that_was_not_given(at: Any, checkpoint: Path, capsys: Any) -> None:
    assert main(["push", str(checkpoint), "user/maze"]) == 0
    assert "licence   none is named" in capsys.readouterr().out
    assert b"license" not in at.files("user/maze")["README.md"]
    assert main(["push", str(checkpoint), "user/maze", "--license", "mit"]) == 0
    assert "none is named" not in capsys.readouterr().out
    assert ModelCard(at.files("user/maze")["README.md"].decode()).data.license == "mit"
    hub.push(checkpoint, "user/other")
    assert b"license" not in at.files("user/other")["README.md"]


def test_the_card_on_the_hub_has_its_name_and_no_local_path(at: Any, checkpoint: Path) -> None:
    evaluated(checkpoint)
    hub.push(checkpoint, "user/maze")
    text = at.files("user/maze")["README.md"].decode()
    assert "\n# maze\n" in text
    assert "trajplan evaluate user/maze" in text
    assert str(checkpoint) not in text
    assert str(checkpoint.parent) not in text


def test_an_evaluation_in_another_folder_is_shared_by_name(at: Any, checkpoint: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = ["--episodes", "1", "--max-episode-steps", "3", "--device", "cpu", "--picture", "--output", str(results)]
    assert main(["evaluate", str(checkpoint), *words]) == 0
    hub.push(checkpoint, "user/maze")
    assert b"No evaluation comes with these weights" in at.files("user/maze")["README.md"]
    assert main(["push", str(checkpoint), "user/maze", "--evaluation", str(results)]) == 0
    files = at.files("user/maze")
    for name in ("evaluation.json", "plan.png"):
        assert files[name] == (results / name).read_bytes()
        assert not (checkpoint / name).exists()
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results
    assert "1 episode in `Pendulum-v1`, seed 0" in card.text
    assert "(plan.png)" in card.text
    with pytest.raises(CheckpointError, match="holds no finished evaluation: run trajplan evaluate --output"):
        hub.push(checkpoint, "user/maze", evaluation=tmp_path / "nothing")
    other = json.loads((results / "evaluation.json").read_text()) | {"model_sha256": "0" * 64}
    (results / "evaluation.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match="was measured with other weights"):
        hub.push(checkpoint, "user/maze", evaluation=results)


def test_a_push_is_one_commit(at: Any, checkpoint: Path) -> None:
    evaluated(checkpoint)
    hub.push(checkpoint, "user/maze")
    (checkpoint / "evaluation.json").unlink()
    hub.push(checkpoint, "user/maze")
    # The repository's own, and one of each push, which replaces and removes at once.
    assert len(at.repositories["user/maze"]) == 3


def test_no_connection_is_one_sentence(server: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(CheckpointError, match=r"was not pushed to user/maze: .*refused"):
        hub.push(checkpoint, "user/maze")
    with pytest.raises(CheckpointError, match="the hub cannot be reached"):
        trajplan.load("user/maze")


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", "./nothing", "a/b/c"):
        with pytest.raises(CheckpointError, match="There is no folder"):
            trajplan.load(path)
    with pytest.raises(CheckpointError, match="There is no folder"):
        hub.push(tmp_path / "nothing", "user/maze")


def test_settings_of_the_planner_can_be_replaced(checkpoint: Path) -> None:
    assert hub.load_policy(checkpoint).config == BeamSearchConfig(horizon=2, beam_width=3, context=1)
    other = BeamSearchConfig(horizon=1, beam_width=2, context=0)
    policy = hub.load_policy(checkpoint, planner=other)
    assert policy.config == other
    policy.reset([0, 1], [0, 1])
    assert policy.act(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), np.arange(2)).shape == (2, 1)
    with pytest.raises(ConfigError, match="only checkpoints on the hub have revisions"):
        trajplan.load(checkpoint, revision="main")


def test_the_command(at: Any, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(checkpoint), "user/maze", "--private", "--license", "apache-2.0"]) == 0
    output = capsys.readouterr().out
    assert "sent      model.safetensors" in output
    assert 'trajplan.load("user/maze")' in output
    assert at.private["user/maze"]
    assert b"license: apache-2.0" in at.files("user/maze")["README.md"]
    assert main(["push", str(checkpoint), "maze"]) == 2
    assert capsys.readouterr().err.startswith("trajplan: error: 'maze' is no name on the hub")


def test_a_user_with_nothing_but_environment_variables(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_TOKEN": server.token, "HF_HUB_OFFLINE": "0"}
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    code = (
        "import sys, trajplan; from trajplan.cli import main; assert main(sys.argv[1:]) == 0\n"
        "print('loaded', trajplan.load('user/maze').info.id)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "push", "elsewhere", "user/maze"],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded toy/pendulum-v0"
