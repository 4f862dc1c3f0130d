"""Checkpoints from a folder or the Hugging Face hub, and back to the hub; only safetensors and JSON are ever loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from trajplan.aids import load_aids
from trajplan.baselines.dynamics.checkpoint import load_ensemble
from trajplan.baselines.engine.checkpoint import load_baseline
from trajplan.card import card_text, finished_evaluation, is_of_weights, own_text
from trajplan.devices import choose_device
from trajplan.errors import CheckpointError, ConfigError
from trajplan.evaluation.policy import Controller, Policy
from trajplan.files import BASELINE_TYPE, DYNAMICS_TYPE, read_json
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.registry import planner_named, planners, type_of
from trajplan.planners.settings import AIDS, PLANNER_FILE, aid_files, aids_of, saved_planner

REQUIRED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer.safetensors",
    "dataset.json",
    "planner.json",
    "training.json",
)
REQUIRED_OF_BASELINE = ("config.json", "model.safetensors", "dataset.json", "training.json")
REQUIRED_OF_DYNAMICS = (*REQUIRED_OF_BASELINE, "planner.json")
RESULTS = (
    "evaluation.json",
    "run.json",
    "plan.png",
    "values.png",
    "videos/*.mp4",
    "dynamics.safetensors",
    "model_report.*",
)
MODELS = {"transformer": "Trajectory Transformer", "dynamics": "dynamics ensemble"}
# Of these, what an evaluation writes, perhaps into another folder.
MEASURED = ("evaluation.json", "plan.png", "videos/*.mp4")
# What the planner is given besides the model, each in a folder beside it.
AID_FILES = tuple(f"{name}/{file}" for name in AIDS for file in {*AIDS[name], "model.safetensors"})
DOWNLOADED = (*REQUIRED, *AID_FILES, "evaluation.json", "README.md")


def load(
    path_or_id: str | Path,
    *,
    device: str | None = None,
    planner: Any = None,
    revision: str | None = None,
) -> Controller:
    """A trained controller for one environment.

    Args:
        path_or_id: a checkpoint folder, or "user/name" on the hub.
        device: where it plans; None: a GPU if there is one.
        planner: settings of any planner, such as `ImitationConfig(beam_width=4)`; None: those of the checkpoint. A
            baseline has none.
        revision: a branch, tag or commit on the hub; None: the newest.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is incomplete, damaged or in pickle form.
        ConfigError: if the planner's settings do not fit the model, or are given for a baseline.
    """
    return Controller(load_policy(path_or_id, device=device, planner=planner, revision=revision))


def load_policy(
    path_or_id: str | Path,
    *,
    device: str | None = None,
    planner: Any = None,
    revision: str | None = None,
) -> Policy:
    """The same policy for many environments at once; arguments and errors as in `load`."""
    folder = checkpoint_folder(path_or_id, revision)
    on = choose_device(device)
    if is_baseline(folder):
        if planner is not None:
            raise ConfigError(f"{path_or_id} is a baseline, which does not plan: planner settings do not apply to it.")
        return load_baseline(folder, on)
    config = planner if planner is not None else saved_planner(folder)
    entry = planner_named(type_of(config))
    kind = "dynamics" if is_dynamics(folder) else "transformer"
    if entry.on != kind:
        others = ", ".join(name for name, other in planners().items() if other.on == kind)
        raise ConfigError(
            f"{type_of(config)} plans on a {MODELS[entry.on]}, and {path_or_id} holds a {MODELS[kind]}, which "
            f"{others} plan on: give one of these, or another folder."
        )
    if kind == "dynamics":
        dynamics, info = load_ensemble(folder)
        aids = load_aids(config, info, on)
        return PlanningPolicy(entry.planner_class()(dynamics.to(on).eval(), info, config, **aids), info)
    # Here, as it takes transformers, which the others do not need.
    from trajplan.training.checkpoint import load_model_folder

    loaded = load_model_folder(folder, on)
    aids = load_aids(config, loaded.info, on)
    return PlanningPolicy(entry.planner_class()(loaded.model, loaded.tokenizer, config, **aids), loaded.info)


def checkpoint_folder(path_or_id: str | Path, revision: str | None = None) -> Path:
    """The folder of a complete checkpoint: the given one, or the hub's, downloaded into its cache."""
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{folder} is a folder; only checkpoints on the hub have revisions.")
    elif _is_repo_id(str(path_or_id)):
        folder = _download(str(path_or_id), revision)
    else:
        raise CheckpointError(f"There is no folder {path_or_id}, and it is no name of the form user/name on the hub.")
    _check_whole(folder, str(path_or_id))
    return folder


def is_baseline(folder: Path) -> bool:
    """Whether a checkpoint folder is one that `trajplan baseline` wrote."""
    return type_in(folder) == BASELINE_TYPE


def is_dynamics(folder: Path) -> bool:
    """Whether it is one that `trajplan dynamics` wrote."""
    return type_in(folder) == DYNAMICS_TYPE


def type_in(folder: Path) -> str | None:
    """The `model_type` of a checkpoint folder, of which a transformer's is none of those in `trajplan.files`."""
    return read_json(folder / "config.json").get("model_type")


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    license: str | None = None,
    evaluation: str | Path | None = None,
) -> tuple[str, list[str]]:
    """Share a checkpoint folder on the hub in one commit; `training_state/` and logs stay behind.

    Nothing changes on this machine. The model card is made for the hub; where a person has taken over the folder's
    README.md, that is sent as it is. Results of an earlier push (evaluation.json, pictures, videos) that are not shared
    now are removed there.

    The critic and the ensemble that planner.json names are sent with the model.

    Args:
        folder: written by `trajplan train`, `trajplan baseline` or `trajplan dynamics`.
        repo_id: "user/name"; made if it does not exist.
        private: whether a repository that is made now is private; None: the account's default.
        license: of the weights, as the hub spells it; None: not named.
        evaluation: the folder that `trajplan evaluate --output` wrote results into; None: `folder`.

    Returns:
        The address of the commit, and the files that were sent.

    Raises:
        CheckpointError: if the folder is missing, incomplete, damaged or evaluated with other weights, or if the hub
            refuses it or cannot be reached.
        ConfigError: if the name is not of the form user/name, in offline mode, or without a token.
    """
    if not _is_repo_id(repo_id):
        raise ConfigError(f"{repo_id!r} is no name on the hub: give user/name, of letters, digits, '-', '_' and '.'.")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}.")
    results = folder if evaluation is None else Path(evaluation).expanduser()
    _check_sound(folder, results)
    _check_access()
    card = own_text(folder) or card_text(folder, repo_id, license, results)
    files: dict[str, str | bytes] = {name: str(path) for name, path in _files(folder, results).items()}
    files["README.md"] = card.encode()
    with _hub_errors(repo_id, f"{folder} was not pushed to {repo_id}"):
        api = HfApi(library_name="trajplan")
        api.create_repo(repo_id, private=private, exist_ok=True)
        ours = (*RESULTS, *AID_FILES)
        there = [name for name in api.list_repo_files(repo_id) if any(fnmatch(name, each) for each in ours)]
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name) for name in there if name not in files),
            ],
            commit_message="Upload a checkpoint with trajplan",
        )
    return str(commit.commit_url), sorted(files)


def _files(folder: Path, results: Path) -> dict[str, Path]:
    """What is shared beside the card, by its name on the hub."""
    required = [
        *_required(folder),
        *(f"{name}/{file}" for name in _aids(folder) for file in aid_files(name, folder / name)),
    ]
    shared = {name: folder / name for name in required}
    for pattern in RESULTS:
        place = results if pattern in MEASURED else folder
        shared |= {path.relative_to(place).as_posix(): path for path in place.glob(pattern)}
    if finished_evaluation(results) is None:
        shared.pop("evaluation.json", None)
    return shared


def _aids(folder: Path) -> dict[str, Path]:
    """The folders that the settings of a checkpoint's planner name; a baseline has none."""
    return {} if is_baseline(folder) else aids_of(saved_planner(folder))


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _download(repo_id: str, revision: str | None) -> Path:
    with _hub_errors(repo_id, f"There is no folder {repo_id} here, and {repo_id} was not downloaded from the hub"):
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(DOWNLOADED)))


def _required(folder: Path) -> tuple[str, ...]:
    kind = type_in(folder) if (folder / "config.json").is_file() else None
    return {BASELINE_TYPE: REQUIRED_OF_BASELINE, DYNAMICS_TYPE: REQUIRED_OF_DYNAMICS}.get(kind or "", REQUIRED)


def _check_whole(folder: Path, name: str) -> None:
    missing = [file for file in _required(folder) if not (folder / file).is_file()]
    if missing:
        pickle = "; weights in pickle form are not read" if "model.safetensors" in missing else ""
        raise CheckpointError(f"{name} is an incomplete checkpoint: it has no {', '.join(missing)}{pickle}.")


def _check_sound(folder: Path, results: Path) -> None:
    """Refuse what `load` could not read back, and results that were measured with other weights."""
    load_policy(folder, device="cpu")
    for name, place in _aids(folder).items():
        if place.resolve() != (folder / name).resolve():
            raise CheckpointError(
                f"{folder / PLANNER_FILE} names the {name} {place}, which is not beside the model: it has to be "
                f"{name}/ there."
            )
    evaluation = finished_evaluation(results)
    if evaluation is None:
        if results != folder:
            raise CheckpointError(f"{results} holds no finished evaluation: run trajplan evaluate --output {results}.")
        return
    if not is_of_weights(evaluation, folder):
        raise CheckpointError(
            f"{results / 'evaluation.json'} was measured with other weights than {folder / 'model.safetensors'}: "
            "run trajplan evaluate again, or remove it."
        )


def _check_access() -> None:
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("Nothing can be pushed in offline mode; unset HF_HUB_OFFLINE.")
    if get_token() is None:
        raise ConfigError("There is no token for the hub: log in with 'hf auth login', or set HF_TOKEN.")


@contextmanager
def _hub_errors(repo_id: str, failure: str) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence that begins with `failure`."""
    # The client's HTTP library differs between its versions; the errors of a broken connection have this base.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except RepositoryNotFoundError as error:
        reason = "the hub has no such model, or it is private and the token may not read it"
        raise CheckpointError(f"{failure}: {reason}.") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{failure}: {repo_id} has no such revision.") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{failure}: the hub cannot be reached, and the cache does not hold it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        refused = " (may the token write there?)" if status in (401, 403) else ""
        reason = (error.server_message or str(error)).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(f"{failure}: the hub answered {status}, {reason}{refused}.") from error
    except (http_error, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise CheckpointError(f"{failure}: {reason}.") from error
