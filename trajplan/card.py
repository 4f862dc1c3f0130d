"""The model card of a checkpoint folder: README.md with the hub's metadata, from the folder's own files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trajplan import __version__
from trajplan.baselines.registry import method_named
from trajplan.data.goals_apart import DESIRED, TRANSFORM
from trajplan.data.info import dataset_ids
from trajplan.errors import CheckpointError
from trajplan.files import BASELINE_TYPE, DYNAMICS_TYPE, RUN, read_json, sha256
from trajplan.planners.registry import planner_named, typed
from trajplan.planners.settings import AIDS, PLANNER_FILE, describe_planner, saved_planner, saved_type

# The mark of a card that is ours to replace, and the whole line; its end may differ between versions.
MARK = "<!-- trajplan writes this card anew"
GENERATED = f"{MARK} when it trains, evaluates or pushes; remove this line to keep your own text. -->"
TAGS = ("offline-reinforcement-learning", "reinforcement-learning")
TRANSFORMER_TAGS = ("trajectory-transformer", "planning")
DYNAMICS_TAGS = ("dynamics-model", "planning")
PICTURE, VALUES, REPORT = "plan.png", "values.png", "model_report.png"


def write_card(folder: Path) -> Path:
    """Write README.md into a checkpoint folder, unless a person has taken it over (see `MARK`)."""
    path = folder / "README.md"
    if own_text(folder) is None:
        path.write_text(card_text(folder))
    return path


def own_text(folder: Path) -> str | None:
    """The README.md of a checkpoint folder that a person has taken over, or None."""
    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else MARK
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text ({error}); mend it or move it away.") from None
    return None if MARK in text else text


def card_text(folder: Path, repo_id: str | None = None, license: str | None = None, results: Path | None = None) -> str:
    """The whole text of README.md, metadata first.

    It names no place on this machine: without a name on the hub the folder is `.`, as seen from itself.

    Args:
        folder: holds config.json, dataset.json, training.json and planner.json (not a baseline's).
        repo_id: the name on the hub, where there is one.
        license: the weights' licence as the hub spells it ("mit", "apache-2.0", ...), or None to name none.
        results: the folder of evaluation.json and its picture; None: the same. An evaluation of other weights is left
            out.
    """
    results = results or folder
    dataset, evaluation = read_json(folder / "dataset.json"), finished_evaluation(results)
    if evaluation is not None and not is_of_weights(evaluation, folder):
        evaluation = None
    config = read_json(folder / "config.json")
    method = config["method"] if config.get("model_type") == BASELINE_TYPE else None
    tags = DYNAMICS_TAGS if config.get("model_type") == DYNAMICS_TYPE else TRANSFORMER_TAGS
    environment = (dataset.get("env_spec") or {}).get("id")
    name = repo_id.split("/")[1] if repo_id else run_name(folder)
    metadata = ModelCardData(
        library_name="trajplan",
        license=license,
        pipeline_tag="reinforcement-learning",
        tags=[*(tags if method is None else (method,)), *TAGS, *([environment] if environment else [])],
        datasets=dataset_ids(dataset),
        model_name=name,
        eval_results=_eval_results(evaluation) if evaluation else None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n{GENERATED}",
        f"# {name}",
        _introduction(folder, dataset["id"], environment, method),
        *_weights(folder),
        _loading(repo_id or ".", environment, _goal(dataset)),
        _results(evaluation, _planned(folder, evaluation))
        if evaluation
        else "## Evaluation\n\nNo evaluation comes with these weights.",
        *([f"![Plans]({PICTURE})"] if evaluation and (results / PICTURE).exists() else []),
        *([f"![What the method predicted, and what it earned]({VALUES})"] if (folder / VALUES).exists() else []),
        *([f"![How wrong the model is, and how sure]({REPORT})"] if (folder / REPORT).exists() else []),
        f"## Dataset\n\n{_table(_dataset_rows(dataset))}",
        *([f"## Method settings\n\n{_table(config['settings'].items())}"] if method else []),
        *(
            f"## {title}\n\n{_table(read_json(folder / file).items())}"
            for title, file in _SETTINGS
            if not (method and file == PLANNER_FILE)
        ),
    ]
    return "\n\n".join(parts) + "\n"


_SHOWN = {"dataset", "environment", "episodes", "reference", "seed", "summary", "timing"}
_SETTINGS = (
    ("Planner settings", PLANNER_FILE),
    ("Training settings", "training.json"),
)


def finished_evaluation(folder: Path) -> dict[str, Any] | None:
    """What evaluation.json holds, or None if there is none or it was interrupted."""
    path = folder / "evaluation.json"
    if not path.exists():
        return None
    evaluation = read_json(path)
    if not evaluation.get("complete"):
        return None
    missing = sorted(_SHOWN - set(evaluation))
    if missing:
        raise CheckpointError(f"{path} was not written by trajplan evaluate: it has no {', '.join(missing)}.")
    return evaluation


def is_of_weights(evaluation: Mapping[str, Any], folder: Path) -> bool:
    """Whether an evaluation was measured with the weights in a checkpoint folder."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no {path.name}.")
    return sha256(path) == evaluation.get("model_sha256")


def run_name(folder: Path) -> str:
    """The name of the run in a folder: the folder's, or where that is plain `model`, of those that it lies in."""
    folder = folder.resolve()
    if folder.name != "model":
        return folder.name
    # A comparison's runs are in LABEL/seed-N/model.
    above = folder.parent
    return f"{above.parent.name}-{above.name}" if above.name.startswith("seed-") else above.name


def _environment_name(evaluation: Mapping[str, Any]) -> str:
    return (evaluation["environment"] or {}).get("id") or evaluation["dataset"]["id"]


def _eval_results(evaluation: Mapping[str, Any]) -> list[EvalResult]:
    environment, summary = _environment_name(evaluation), evaluation["summary"]
    metrics = [("mean_reward", "mean return", summary["return"])]
    if summary["normalized_score"]:
        metrics.append(("normalized_score", "mean normalised score", summary["normalized_score"]))
    if "tasks" in summary:
        metrics.append(("success_rate", "success rate", {"mean": summary["success_rate"]}))
    return [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement learning",
            dataset_type=environment,
            dataset_name=environment,
            metric_type=kind,
            metric_name=name,
            metric_value=round(numbers["mean"], 4),
            metric_args={"episodes": len(evaluation["episodes"]), "seed": evaluation["seed"]},
        )
        for kind, name, numbers in metrics
    ]


def _introduction(folder: Path, dataset: str, environment: str | None, method: str | None) -> str:
    acts = f" in `{environment}`" if environment else ""
    if method is not None:
        name = method_named(method).summary
        return f"{name} trained on the dataset `{dataset}`. It acts{acts}. Made with trajplan {__version__}."
    planner = saved_type(folder)
    what = "Trajectory Transformer (Janner, Li and Levine 2021)"
    if read_json(folder / "config.json").get("model_type") == DYNAMICS_TYPE:
        what = "dynamics ensemble (Chua et al. 2018)"
    return (
        f"A {what} of the dataset `{dataset}`. It acts{acts} by the "
        f"planner `{planner}`: {planner_named(planner).summary}. Made with trajplan {__version__}."
    )


def _weights(folder: Path) -> list[str]:
    """Which update the weights are of, where the run has noted it."""
    if not (folder / RUN).exists():
        return []
    run = read_json(folder / RUN)
    kept, updates = run["weights"], run["updates"]
    loss = kept["held_out_loss"]
    best = "" if loss is None else f", of the lowest loss on held-out episodes ({loss:.4f} nats per token, weighted)"
    return [f"The weights are those of update {kept['update']:,} of {updates:,}{best}."]


def _goal(dataset: Mapping[str, Any]) -> str | None:
    """Where an environment's reset says the goal, as an expression, or None where the data know no goals."""
    if not dataset.get("goal_columns"):
        return None
    apart = any(transform["name"] == TRANSFORM for transform in dataset.get("transforms", ()))
    return f'observation["{DESIRED}"]' if apart else 'told["goal"]'


def _loading(name: str, environment: str | None, goal: str | None) -> str:
    told, to_reach = ("_", "") if goal is None else ("told", f", goal={goal}")
    make = "controller.info.make_env()" if environment else "...  # yours, with the dataset's spaces"
    return f"""## How to load it

```python
import trajplan

controller = trajplan.load("{name}")
env = {make}
observation, {told} = env.reset(seed=0)
controller.reset(seed=0{to_reach})
action = controller.act(observation)  # from the second step on: act(observation, reward)
```

`trajplan evaluate {name} --episodes 10 --output results` runs it. Only safetensors and JSON are loaded."""


def _planned(folder: Path, evaluation: Mapping[str, Any]) -> str:
    """How an evaluation was planned, where not by the checkpoint's own settings: a sentence, or nothing."""
    if evaluation.get("planner") is None:
        return ""
    used, saved = typed(evaluation["planner"]), describe_planner(saved_planner(folder), folder)
    name = used.pop("type")
    if name == saved["type"]:
        used = {key: value for key, value in used.items() if key not in saved or value != saved[key]}
        if not used:
            return ""
    # Of a folder on this machine, its name alone.
    used |= {key: Path(used[key]).name for key in AIDS if used.get(key)}
    settings = ", ".join(f"{key} {_cell(value)}" for key, value in used.items())
    return f" Planned by `{name}` with {settings}, other than the planner settings below."


def _results(evaluation: Mapping[str, Any], planned: str) -> str:
    summary, dataset = evaluation["summary"], evaluation["dataset"]
    lines = ["| | mean | 95 % interval | std | the data's mean |", "| --- | --- | --- | --- | --- |"]
    lines.append(f"| return | {_spread(summary['return'])} | {dataset['mean_return']:.2f} |")
    if summary["normalized_score"]:
        lines.append(f"| normalised score | {_spread(summary['normalized_score'])} | {_score(dataset)} |")
    lines.append(f"| length | {_spread(summary['length'])} | |")
    reference = evaluation["reference"]
    scale = f"; a score of 0 is the return {reference['min']:g}, 100 is {reference['max']:g}" if reference else ""
    count, seed = len(evaluation["episodes"]), evaluation["seed"]
    ran = f"{count} episodes" if count > 1 else "1 episode"
    seeds = f"seeds {seed} to {seed + count - 1}" if count > 1 else f"seed {seed}"
    about = f"{ran} in `{_environment_name(evaluation)}`, {seeds}{scale}.{planned}"
    timing = evaluation["timing"]
    speed = (
        f" Acting took {1000 * timing['plan_seconds_p50']:.0f} ms at the median and "
        f"{1000 * timing['plan_seconds_p95']:.0f} ms at the 95th percentile, for "
        f"{timing['environments_per_call']:.1f} environments at once."
        if timing
        else ""
    )
    return f"## Evaluation\n\n{about}{speed}\n\n" + "\n".join(lines) + _successes(summary)


def _successes(summary: Mapping[str, Any]) -> str:
    """The success rate, of each task too where there are several; nothing where the environment tells of none."""
    rate, tasks = summary.get("success_rate"), summary.get("tasks", {})
    if rate is None:
        return ""
    if not tasks:
        return f"\n\nSuccess: {100 * rate:.1f} % of episodes."
    rows = [(f"task {task}", found) for task, found in tasks.items()]
    lines = ["| | success | episodes | mean length |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {100 * found['success_rate']:.1f} % | {found['episodes']} | {found['mean_length']:.0f} |"
        for name, found in rows
    ]
    count = sum(found["episodes"] for _, found in rows)
    return "\n\n" + "\n".join([*lines, f"| all | {100 * rate:.1f} % | {count} | |"])


def _spread(numbers: Mapping[str, Any]) -> str:
    interval, std = numbers["interval_95"], numbers["std"]
    between = f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
    return f"{numbers['mean']:.2f} | {between} | " + ("" if std is None else f"{std:.2f}")


def _score(dataset: Mapping[str, Any]) -> str:
    score = dataset["mean_normalized_score"]
    return "" if score is None else f"{score:.2f}"


def _dataset_rows(dataset: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    sizes = ("id", "num_episodes", "num_transitions", "mean_return")
    treatment = ("discount", "termination_penalty", "reward_transform", "goal_relabelling", "versions")
    rows = [(name, dataset[name]) for name in sizes + treatment if name in dataset]
    rows += [(name, dataset[name]) for name in ("goal_columns", "held_out", "transforms") if dataset.get(name)]
    for source in dataset.get("sources", ()):
        rows.append(
            (f"of {source['id']}", f"{source['num_episodes']} episodes, {source['num_transitions']} transitions")
        )
    return rows


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    lines = ["| setting | value |", "| --- | --- |"]
    return "\n".join(lines + [f"| {name} | {_cell(value)} |" for name, value in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    text = json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
    return text.replace("|", "\\|")
