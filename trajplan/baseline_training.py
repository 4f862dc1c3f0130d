"""`trajplan.baseline`: train one of the methods that the Trajectory Transformer is compared with."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trajplan.baselines.engine.checkpoint import saved_settings
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.together import train_together
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.presets import note_for, preset_for
from trajplan.baselines.registry import method_named
from trajplan.card import write_card
from trajplan.config import from_dict, renamed, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.devices import choose_device
from trajplan.errors import ConfigError, TrajplanError, did_you_mean
from trajplan.evaluation.during_training import evaluation_for
from trajplan.models.scaling import Scaling
from trajplan.runs.folder import holds_run, open_dataset, resumes
from trajplan.runs.result import TrainResult


def baseline(
    method: str,
    dataset: OfflineDataset | str | Sequence[str] | None,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Train a method as `trajplan baseline` does, with the same defaults, into a folder that `trajplan.load` reads.

    `trajplan.baseline("iql", dataset, "runs/iql", updates=100_000, expectile=0.8)` is
    `trajplan baseline iql --output runs/iql --updates 100000 --expectile 0.8` on that dataset.

    Args:
        method: its name, such as "iql"; `trajplan baseline --help` lists them.
        dataset: a dataset, or the Minari id of one, or of several that train as one. None: that of the run to resume.
        output: the run's folder; made if it is not there.
        resume: resume the run in `output` from its newest complete state, exactly, with its settings.
        device: where it trains; None: a GPU if there is one.
        progress: whether to show a bar, and what there is to know of the preset, on standard error.
        settings: of the method and of the run, by the names of `trajplan baseline METHOD --help`, underscores for
            hyphens. Without them: the published ones for the dataset's environment; the policy is evaluated there every
            `eval_every` updates and at the end, which `eval_every=0` leaves out.

    Raises:
        CheckpointError: if `output` holds a run and `resume` is not set, or cannot be resumed or written.
        ConfigError: for an unknown method, setting or device, a value out of range, a dataset that the method does not
            take, or an environment that is not here.
        DataError: for a dataset that is not there or cannot be used.
        TrajplanError: if a loss is not finite.
    """
    choose_device(device)
    folder = Path(output)
    _divide(method, settings)
    resumed = resumes(folder, resume)
    data = open_dataset(dataset, folder, resumed)
    # Refused here already, before the preset and the environment are looked at.
    method_named(method).method_class(data.info)
    Scaling.of(data.info)
    if progress and not resumed and (note := note_for(method, data.info)):
        print(note, file=sys.stderr)
    config, run = settings_for(method, data.info, settings, folder if resumed else None)
    evaluate = evaluation_for(data, config, run) if run.eval_every else None
    result = train(
        data, folder, method, config, run, resume=resume, evaluate=evaluate, device=device, progress=progress
    )
    if not result.interrupted:
        write_card(folder)
    return result


def baseline_seeds(
    method: str,
    dataset: OfflineDataset | str | Sequence[str],
    outputs: Mapping[int, Path],
    *,
    device: str | None = None,
    **settings: Any,
) -> dict[int, TrainResult | TrajplanError]:
    """Train several seeds of a method as one batched computation, or resume them, each as `baseline` does.

    Args:
        method, dataset, device, settings: as for `baseline`, for all seeds; `why_apart` must find no reason against it.
        outputs: each seed's folder.

    Returns:
        How each seed ended; those that could not begin, or whose numbers are not finite, as an error.
    """
    data = dataset if isinstance(dataset, OfflineDataset) else OfflineDataset.from_minari(dataset)
    begun = next((folder for folder in outputs.values() if holds_run(folder)), None)
    if begun is None and (note := note_for(method, data.info)):
        print(note, file=sys.stderr)
    config, run = settings_for(method, data.info, settings, begun)
    evaluate = evaluation_for(data, config, run) if run.eval_every else None
    results = train_together(data, outputs, method, config, run, evaluate=evaluate, device=device)
    for seed, result in results.items():
        if isinstance(result, TrainResult) and not result.interrupted:
            write_card(outputs[seed])
    return results


def settings_for(
    method: str, info: DatasetInfo, settings: Mapping[str, Any], run_to_resume: Path | None = None
) -> tuple[Any, RunConfig]:
    """Settings of a method and of its run on a dataset.

    Args:
        method: its name.
        info: the dataset.
        settings: over the preset's, by name.
        run_to_resume: the folder of a run whose settings they are over instead.
    """
    of_method, of_run = _divide(method, settings)
    config, run = preset_for(method, info)
    if run_to_resume is not None:
        before, saved, run = saved_settings(run_to_resume)
        config = saved if before == method else config
    config = from_dict(method_named(method).config_class(), to_dict(config) | of_method)
    return config, from_dict(RunConfig, to_dict(run) | of_run)


def _divide(method: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the method, and those of the run."""
    config_class = method_named(method).config_class()
    settings = renamed(settings, config_class, RunConfig)
    names = [[field.name for field in dataclasses.fields(one)] for one in (config_class, RunConfig)]
    for name in settings:
        if name not in names[0] + names[1]:
            hint = did_you_mean(name, names[0] + names[1]) or f"trajplan baseline {method} --help lists what it has."
            raise ConfigError(f"{method} has no setting {name!r}; {hint}")
    of_method, of_run = ({name: settings[name] for name in part if name in settings} for part in names)
    return of_method, of_run
