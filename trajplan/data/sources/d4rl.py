"""D4RL's HDF5 files as Minari datasets.

A file holds one flat row a step: observations, actions, rewards, terminals, most often timeouts, and in some versions
next_observations. Rows are cut into episodes after every terminal and every timeout, and the two stay apart: a row
with both keeps both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from trajplan.data.collection.minari_write import check_new_id, write_minari
from trajplan.data.environment import find_environment, make_environment
from trajplan.data.info import DatasetInfo
from trajplan.data.jumps import FACTOR, find_jumps
from trajplan.data.scores import ReferenceScores, reference_for_d4rl, reference_for_environment
from trajplan.data.validate import check_episode
from trajplan.errors import DataError


@dataclass
class ImportReport:
    """What an import did; `notes` are sentences about what the file could not say."""

    episodes: int = 0
    transitions: int = 0
    terminals: int = 0
    timeouts: int = 0
    both: int = 0
    dropped: int = 0
    repeated: int = 0
    jumps: int = 0
    reference: ReferenceScores | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Columns:
    name: str
    observations: h5py.Dataset
    actions: h5py.Dataset
    rewards: h5py.Dataset
    next_observations: h5py.Dataset | None
    terminals: np.ndarray
    timeouts: np.ndarray


def import_d4rl(
    path: str | Path,
    id: str,
    *,
    env: str | None = None,
    reference: ReferenceScores | None = None,
    time_limit: int | None = None,
    cut_jumps: bool = False,
) -> ImportReport:
    """Write the Minari dataset `id` from a D4RL HDF5 file.

    The observation after an episode's last action is taken from next_observations. Files without them do not have it:
    there the last transition of an episode cut by a timeout (or by the file's end) is dropped, and its predecessor
    carries the timeout; a terminal transition is kept, since its reward and end matter and what follows it does not,
    with its own observation repeated as the one after it. Nor do they say so where a reset lies inside an episode, for
    timeouts that are out of step with the resets: jumps between the rows of one episode are counted (see `find_jumps`).

    Args:
        path: the file.
        id: the new Minari id.
        env: Gymnasium id of the environment to evaluate in; its spaces must fit the data.
        reference: returns that mean 0 and 100; default: D4RL's constants by the file's name, else by `env`.
        time_limit: for files without timeouts: the steps after which an episode without a terminal was cut.
        cut_jumps: end an episode at each jump, as at a timeout.

    Raises:
        DataError: for a file that cannot be read or used, or an id that is malformed or taken.
    """
    path = Path(path)
    check_new_id(id)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        # The chunk cache saves unpacking a chunk again for every short episode in it.
        file = h5py.File(path, "r", rdcc_nbytes=2**26)
    except OSError as error:
        raise DataError(f"The file {path} is not an HDF5 file, or damaged ({_line(error)}).") from None
    with file:
        try:
            return _import(file, path, id, env, reference, time_limit, cut_jumps)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"The file {path} cannot be imported ({_line(error)}): it is damaged, or the disk is full."
            ) from None


def _import(
    file: h5py.File,
    path: Path,
    id: str,
    env: str | None,
    reference: ReferenceScores | None,
    time_limit: int | None,
    cut_jumps: bool,
) -> ImportReport:
    columns = _columns(file, path, time_limit)
    spec = find_environment(env) if env else None
    report = ImportReport(
        reference=reference or reference_for_d4rl(path.stem) or (reference_for_environment(spec.id) if spec else None)
    )
    if spec is None:
        space = {name: _box(getattr(columns, name)) for name in ("observations", "actions")}
        info = DatasetInfo(id=path.name, observation_space=space["observations"], action_space=space["actions"])
    else:
        made = make_environment(spec)
        info = DatasetInfo(id=path.name, observation_space=made.observation_space, action_space=made.action_space)
        made.close()
        _check_fit(info, columns, spec.id)
    _note(file, columns, report)
    if columns.next_observations is None:
        _look_for_jumps(columns, report, cut_jumps)
    write_minari(
        id,
        _buffers(columns, info, report),
        observation_space=info.observation_space,
        action_space=info.action_space,
        env_spec=spec,
        reference=report.reference,
        description=f"Imported from D4RL's {path.name}. " + " ".join(report.notes),
    )
    return report


def _columns(file: h5py.File, path: Path, time_limit: int | None) -> _Columns:
    def column(name: str, width: int | None) -> Any:
        node = file.get(name)
        if not isinstance(node, h5py.Dataset) or node.ndim == 0:
            raise DataError(f"{path} has no {name!r}; D4RL files have observations, actions, rewards and terminals.")
        if width is not None and (node.ndim != width or node.dtype.kind not in "fiub"):
            raise DataError(f"{path}: {name} has shape {node.shape} and type {node.dtype}, not {width} dimensions.")
        return node

    observations, actions, rewards = column("observations", 2), column("actions", 2), column("rewards", None)
    if rewards.shape not in ((len(rewards),), (len(rewards), 1)):
        raise DataError(f"{path}: rewards has shape {rewards.shape}; it needs one number a step.")
    terminals = _flags(column("terminals", None), "terminals", path)
    if "timeouts" in file:
        timeouts = _flags(column("timeouts", None), "timeouts", path)
    elif time_limit is not None:
        timeouts = _timeouts_by_limit(terminals, time_limit)
    else:
        raise DataError(
            f"The file {path} has no 'timeouts', so episodes cut by a time limit cannot be told from those that go "
            "on; give the limit with --time-limit."
        )
    following = column("next_observations", 2) if "next_observations" in file else None
    lengths = {"observations": len(observations), "actions": len(actions), "rewards": len(rewards)}
    lengths |= {"terminals": len(terminals), "timeouts": len(timeouts)}
    lengths |= {} if following is None else {"next_observations": len(following)}
    if len(set(lengths.values())) > 1 or len(rewards) == 0:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: the columns need one row a step each, and some: {listed}.")
    if following is not None and following.shape != observations.shape:
        raise DataError(f"{path}: next_observations has shape {following.shape}, observations {observations.shape}.")
    return _Columns(path.name, observations, actions, rewards, following, terminals, timeouts)


def _flags(node: h5py.Dataset, name: str, path: Path) -> np.ndarray:
    values = node[()].reshape(len(node), -1)
    if values.shape[1:] != (1,) or not np.isin(values, (0, 1)).all():
        raise DataError(f"{path}: {name} must hold one true or false a step.")
    return values[:, 0].astype(np.bool_)


def _timeouts_by_limit(terminals: np.ndarray, limit: int) -> np.ndarray:
    if limit < 1:
        raise DataError(f"The time limit must be at least 1, not {limit}.")
    timeouts = np.zeros_like(terminals)
    begin = 0
    for end in [*(np.flatnonzero(terminals) + 1), len(terminals)]:
        timeouts[begin + limit - 1 : end : limit] = True
        begin = end
    return timeouts


def _box(column: h5py.Dataset) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, column.shape[1:], np.float32)


def _check_fit(info: DatasetInfo, columns: _Columns, env_id: str) -> None:
    for name, space in (("observations", info.observation_space), ("actions", info.action_space)):
        shape = getattr(columns, name).shape[1:]
        if not isinstance(space, spaces.Box) or space.shape != shape:
            raise DataError(
                f"{columns.name}: {name} have shape {shape}, but environment {env_id} has {space}; name the "
                "environment that the data came from, or none."
            )


def _note(file: h5py.File, columns: _Columns, report: ImportReport) -> None:
    if columns.next_observations is None:
        report.notes.append(
            "The file has no next_observations: the last transition before each timeout was dropped, and after a "
            "terminal the last observation is repeated."
        )
    if columns.name.startswith("maze2d"):
        report.notes.append(
            "In maze2d files a timeout marks that the goal was moved, not that the walker was stopped or reset."
        )
    if isinstance(file.get("infos/goal"), h5py.Dataset):
        report.notes.append("The file records goals (infos/goal) that the observations do not contain.")


def _look_for_jumps(columns: _Columns, report: ImportReport, cut: bool) -> None:
    rows = find_jumps(columns.observations, columns.terminals | columns.timeouts)
    report.jumps = len(rows)
    if len(rows) == 0:
        return
    places = f"row {rows[0]:,}" if len(rows) == 1 else f"{len(rows):,} rows (the first is row {rows[0]:,})"
    far = f"Inside episodes the observation jumps after {places} by more than {FACTOR:g} times its usual steps"
    if cut:
        columns.timeouts[rows] = True
        report.notes.append(f"{far}; an episode was ended there, as at a timeout.")
    else:
        report.notes.append(
            f"{far}, as if the environment had been reset there: the timeouts seem to be out of step with the resets, "
            "and what is learned from these transitions is wrong. Import the file with --cut-jumps, which ends an "
            "episode there, or a version of it that has next_observations."
        )


def _buffers(
    columns: _Columns, info: DatasetInfo, report: ImportReport
) -> Iterator[tuple[EpisodeBuffer, dict[str, Any]]]:
    ends = np.flatnonzero(columns.terminals | columns.timeouts) + 1
    if len(ends) == 0 or ends[-1] != len(columns.terminals):
        ends = np.append(ends, len(columns.terminals))
    for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        buffer = _buffer(columns, int(begin), int(end), report)
        if buffer is None:
            continue
        check_episode(buffer, info, report.episodes)
        report.episodes += 1
        report.transitions += len(buffer.rewards)
        ended, cut = bool(buffer.terminations[-1]), bool(buffer.truncations[-1])
        report.both += ended and cut
        report.terminals += ended and not cut
        report.timeouts += cut and not ended
        yield buffer, {}
    if report.episodes == 0:
        raise DataError(f"{columns.name} holds no episode of more than one step.")


def _buffer(columns: _Columns, begin: int, end: int, report: ImportReport) -> EpisodeBuffer | None:
    observations = columns.observations[begin:end]
    timeout = columns.timeouts[end - 1]
    if columns.next_observations is not None:
        following = columns.next_observations[begin:end]
        _check_continuous(columns.name, observations, following, begin)
        observations = np.concatenate([observations, following[-1:]])
    elif columns.terminals[end - 1]:
        observations = np.concatenate([observations, observations[-1:]])
        report.repeated += 1
    else:
        end -= 1
        report.dropped += 1
    if end == begin:
        return None
    terminations, truncations = np.zeros((2, end - begin), np.bool_)
    terminations[-1], truncations[-1] = columns.terminals[end - 1], timeout
    return EpisodeBuffer(
        observations=observations,
        actions=columns.actions[begin:end],
        rewards=columns.rewards[begin:end].reshape(end - begin),
        terminations=terminations,
        truncations=truncations,
    )


def _check_continuous(name: str, observations: np.ndarray, following: np.ndarray, begin: int) -> None:
    same = np.isclose(observations[1:], following[:-1], rtol=1e-4, atol=1e-4, equal_nan=True).all(1)
    if not same.all():
        row = begin + int(np.argmin(same))
        raise DataError(
            f"{name}: next_observations[{row}] is not observations[{row + 1}], though no terminal or timeout lies "
            "between; the rows are not whole trajectories."
        )


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
