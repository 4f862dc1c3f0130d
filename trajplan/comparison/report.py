"""The report of a comparison: one HTML file that holds its pictures and asks nothing of a network."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trajplan.comparison import figures, markup, statistics
from trajplan.comparison.cells import Cell
from trajplan.comparison.published import NAMES, d4rl_name, published, published_scores
from trajplan.comparison.results import MIB, Method, Result, by_method, settings_text
from trajplan.comparison.statistics import Estimate

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo


def render(info: "DatasetInfo", results: Sequence[Result], missing: Mapping[Cell, str], command: str) -> str:
    """The report as one page of HTML.

    Args:
        info: the dataset.
        results: of the finished cells, at least one; all evaluated alike.
        missing: cells that are not finished, and why.
        command: the command line that made the comparison, for the reader to repeat.
    """
    methods = by_method(results)
    reference = results[0].reference
    axis = "return" if reference is None else "normalised score"
    data = info.mean_return if reference is None else float(reference.normalize(info.mean_return))
    dataset = d4rl_name(info) if reference is not None else None
    runs = {method.label: method.run_scores for method in methods}
    estimates = {label: (statistics.mean(scores), statistics.iqm(scores)) for label, scores in runs.items()}
    sections = [
        _introduction(info, results, axis, data),
        _missing(missing),
        _scores(methods, estimates, axis, data, dataset),
        _improvement(methods),
        _profiles(methods, axis),
        _learning(methods, axis),
        _cost(methods),
        _published(dataset),
        _cells(results, axis),
        _settings(methods),
        _how_to_read(methods),
        f"<h2>Repeat it</h2><pre>{html.escape(command)}</pre>",
    ]
    title = f"Comparison on {html.escape(info.id)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{markup.CSS}</style></head>\n<body><main><h1>{title}</h1>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def text_table(methods: Sequence[Method]) -> str:
    """The scores for a terminal."""
    lines = ["method            runs      mean      95 % interval       IQM"]
    for method in methods:
        mean, iqm = statistics.mean(method.run_scores), statistics.iqm(method.run_scores)
        runs = len(method.results)
        lines.append(f"{method.label:16s} {runs:5d} {mean.value:9.1f} {markup.span(mean):>18s} {iqm.value:9.1f}")
    return "\n".join([*lines, *_too_few(methods)])


def _too_few(methods: Sequence[Method]) -> list[str]:
    """The sentence on methods with fewer runs than an interval needs, if there are any."""
    labels = [f"{method.label} ({len(method.results)})" for method in methods if not _enough(method)]
    if not labels:
        return []
    return [f"A 95 % interval needs {statistics.MIN_RUNS} runs or more, which these do not have: {', '.join(labels)}."]


def _enough(method: Method) -> bool:
    return len(method.results) >= statistics.MIN_RUNS


def _introduction(info: "DatasetInfo", results: Sequence[Result], axis: str, data: float) -> str:
    evaluation, reference = results[0].evaluation, results[0].reference
    seeds = [episode["seed"] for episode in evaluation["episodes"]]
    environment = (evaluation["environment"] or {}).get("id", "its environment")
    best = by_method(results)[0]
    estimate = statistics.mean(best.run_scores)
    interval = f" (95 % interval {markup.span(estimate)})" if estimate.interval else ""
    scale = ""
    if reference is not None:
        scale = (
            f" Scores are normalised: 0 is a return of {reference.min:,.1f} and 100 one of {reference.max:,.1f} "
            f"({html.escape(reference.source)})."
        )
    return (
        f"<p class=lead><b>{html.escape(best.label)}</b> has the highest mean {axis}, {estimate.value:.1f}{interval}; "
        f"the data's own episodes have {data:.1f}.</p>"
        f"<p>{info.num_episodes:,} episodes, {info.num_transitions:,} transitions. Every method learned from all of "
        f"them unless its settings say otherwise, and ran the same {len(seeds)} episodes in {html.escape(environment)} "
        f"(seeds {seeds[0]} to {seeds[-1]}) after its last update.{scale}{_planners(results)}</p>"
    )


def _planners(results: Sequence[Result]) -> str:
    named = {result.cell.label: result.planner for result in results if result.planner is not None}
    if not named:
        return ""
    return f" Planners: {html.escape(', '.join(f'{planner} of {label}' for label, planner in named.items()))}."


def _missing(missing: Mapping[Cell, str]) -> str:
    if not missing:
        return ""
    items = "".join(
        f"<li><b>{html.escape(cell.name)}</b>: {html.escape(reason)}{_log(cell)}</li>"
        for cell, reason in missing.items()
    )
    return f'<div class="warning" role="note"><p>Not finished, and in no number below:</p><ul>{items}</ul></div>'


def _log(cell: Cell) -> str:
    # A cell that was begun by its own command has none.
    if not cell.log.exists():
        return ""
    return f" <span class=quiet>{html.escape(cell.log.relative_to(cell.output).as_posix())}</span>"


def _scores(
    methods: Sequence[Method],
    estimates: dict[str, tuple[Estimate, Estimate]],
    axis: str,
    data: float,
    dataset: str | None,
) -> str:
    head = ["method", "runs", f"mean {axis}", "95 % interval", "interquartile mean of runs", "95 % interval"]
    head += ["lowest to highest run"]
    head += [] if axis == "return" else ["mean return"]
    head += [] if dataset is None else ["published, other data *"]
    rows = []
    for method in methods:
        row = [method.label, f"{len(method.results)}"]
        for estimate in estimates[method.label]:
            row += [f"{estimate.value:.1f}", markup.span(estimate)]
        row.append(f"{method.run_scores.min():.1f} to {method.run_scores.max():.1f}")
        row += [] if axis == "return" else [f"{method.returns.mean():,.0f}"]
        if dataset is not None:
            first = method.results[0]
            found = published_scores(dataset, first.cell.method, first.settings)
            row.append(", ".join(f"{score:.1f}" for score in found) or "–")
        rows.append(row)
    note = ""
    if dataset is not None:
        note = (
            f"<p class=quiet>* Reported on D4RL's {dataset}-v2, which is other data, mostly more of it, from another "
            "version of the simulator: for orientation only. Sources are below.</p>"
        )
    return (
        "<h2>Scores</h2>"
        + markup.table(head, rows)
        + note
        + "".join(f"<p class=quiet>{html.escape(sentence)}</p>" for sentence in _too_few(methods))
        + markup.figure(
            figures.intervals(estimates, {method.label: method.run_scores for method in methods}, axis, data),
            "Markers are estimates, bars their 95 % intervals, ticks the runs' scores; the dotted line is the mean of "
            "the data's own episodes.",
        )
    )


def _improvement(methods: Sequence[Method]) -> str:
    if len(methods) < 2:
        return ""
    rows = []
    for ours in methods:
        row = []
        for theirs in methods:
            if ours is theirs:
                row.append("<td class=self></td>")
                continue
            estimate = statistics.improvement(ours.run_scores, theirs.run_scores)
            span = f"<span>{markup.span(estimate, 2)}</span>" if estimate.interval else ""
            row.append(f'<td class=chance style="--p:{100 * estimate.value:.0f}%">{estimate.value:.2f}{span}</td>')
        rows.append(f"<tr><th scope=row>{html.escape(ours.label)}</th>{''.join(row)}</tr>")
    heads = "".join(f"<th scope=col>{html.escape(method.label)}</th>" for method in methods)
    return (
        "<h2>Probability of improvement</h2><p>How likely a training run of the row's method scores higher, in the "
        "mean over its episodes, than one of the column's; a half says that neither is better. Below each its 95 % "
        f"interval, where both have {statistics.MIN_RUNS} runs or more.</p>"
        f"<div class=wide><table class=chances><tr><td></td>{heads}</tr>{''.join(rows)}</table></div>"
    )


def _profiles(methods: Sequence[Method], axis: str) -> str:
    picture = figures.profiles({method.label: method.scores for method in methods}, axis)
    return "<h2>Performance profiles</h2>" + markup.figure(
        picture,
        f"For every {axis} τ, the share of a method's runs with a score above it: higher is better. Where lines cross, "
        "one method has more good runs and the other fewer bad ones. Bands are pointwise 95 % intervals. Beside it the "
        "same of single episodes, all runs together, which tells how even a method acts, not how sure its score is.",
    )


def _learning(methods: Sequence[Method], axis: str) -> str:
    everyone = [method.label for method in methods]
    measured = {method.label: [result.learning_curve for result in method.results] for method in methods}
    lines = {label: runs for label, runs in measured.items() if all(len(updates) for updates, _ in runs)}
    text = "<h2>Learning curves</h2>"
    if lines:
        ends = {method.label: float(method.scores.mean()) for method in methods if method.label not in lines}
        text += markup.figure(
            figures.curves(lines, ends, axis, "Score during the training", everyone),
            "Evaluations on the way: the mean over runs, and a band from the least to the greatest run. A dotted level "
            "line is a method that was evaluated after its training only.",
        )
    losses = {method.label: [result.held_out_loss for result in method.results] for method in methods}
    losses = {label: runs for label, runs in losses.items() if all(len(updates) for updates, _ in runs)}
    if losses:
        picture = figures.curves(losses, {}, "nats per token", "Held-out loss during the training", everyone)
        text += markup.figure(picture, "Loss of the Trajectory Transformer on episodes that it was not trained on.")
    return text if lines or losses else ""


def _trained_on(result: Result) -> str:
    together = f", {result.seeds_together} seeds together" if result.seeds_together > 1 else ""
    return f"{result.cost['device']}{together}"


def _cost(methods: Sequence[Method]) -> str:
    head = ["method", "updates", "training", "updates a second", "evaluation", "steps a second", "peak memory"]
    gpu = any(result.cost["gpu_memory_bytes"] is not None for method in methods for result in method.results)
    head += [*(["GPU memory"] if gpu else []), "device"]
    rows = []
    for method in methods:
        costs = [result.cost for result in method.results]
        seconds = [result.evaluation_seconds for result in method.results]
        speeds = [(result.evaluation["timing"] or {}).get("steps_per_second") for result in method.results]
        row = [
            method.label,
            f"{markup.mean([cost['updates'] for cost in costs]):,.0f}",
            markup.duration(markup.mean([cost["training_seconds"] for cost in costs])),
            f"{markup.mean([cost['updates_per_second'] for cost in costs]):,.1f}",
            markup.duration(markup.mean(seconds)),
            f"{markup.mean(speeds):,.1f}",
            f"{max(cost['peak_memory_bytes'] for cost in costs) / MIB:,.0f} MiB",
        ]
        if gpu:
            row.append(f"{max(cost['gpu_memory_bytes'] or 0 for cost in costs) / MIB:,.0f} MiB")
        rows.append([*row, ", ".join(sorted({_trained_on(result) for result in method.results}))])
    return (
        "<h2>Time and memory</h2><p>A run's mean; memory is the greatest of all runs. Training times hold the "
        "evaluations on the way and the training of a dynamics model, speeds do not; of seeds trained together "
        "each has the time of all of them. All depend on what else the machine did.</p>" + markup.table(head, rows)
    )


def _published(dataset: str | None) -> str:
    if dataset is None:
        return "<h2>Published scores</h2><p>The literature that this report knows has no row for data of this kind.</p>"
    rows = published(dataset)
    names = sorted({name for row in rows for name in row.scores}, key=list(NAMES | {"DT": 0, "MBOP": 0}).index)
    lines = [[name, *(f"{row.scores[name]:.1f}" if name in row.scores else "–" for row in rows)] for name in names]
    return (
        f"<h2>Published scores</h2><p><b>Other data.</b> Normalised scores on D4RL's {dataset}-v2, which was collected "
        "by other policies in another version of the simulator and is of another size than the dataset of this "
        "report. Methods can be compared within a column; a column and this report cannot.</p>"
        + markup.table(["method", *(row.source for row in rows)], lines)
    )


def _cells(results: Sequence[Result], axis: str) -> str:
    rows = [
        [
            result.cell.label,
            f"{result.cell.seed}",
            f"{result.returns.mean():,.1f}",
            *([] if axis == "return" else [f"{result.scores.mean():.1f}"]),
            f"{result.lengths.mean():,.0f}",
            result.cell.folder.relative_to(result.cell.output).as_posix(),
        ]
        for result in results
    ]
    head = ["method", "seed", "mean return", *([] if axis == "return" else [axis]), "steps an episode", "folder"]
    return f"<h2>Every run</h2><details><summary>{len(rows)} runs</summary>{markup.table(head, rows)}</details>"


def _settings(methods: Sequence[Method]) -> str:
    blocks = "".join(
        f"<details><summary>{html.escape(method.label)}</summary>"
        f"<pre>{html.escape(settings_text(method.results[0]))}</pre></details>"
        for method in methods
    )
    return f"<h2>Settings</h2><p>Of each method's first run; the others differ in the seed.</p>{blocks}"


def _how_to_read(methods: Sequence[Method]) -> str:
    least = statistics.MIN_RUNS
    runs = [len(method.results) for method in methods if _enough(method)]
    if runs:
        known = max(number for number in statistics.COVERAGE if number <= min(runs))
        others = ", ".join(f"{number} runs: {times}" for number, times in statistics.COVERAGE.items() if number > known)
        trust = (
            f"Of few runs such intervals are too narrow: with {known} normally distributed ones they hold the true "
            f"mean {statistics.COVERAGE[known]} times in 100{f' ({others})' if others else ''}. An interval without "
            "width says that all resamples agree, not that the number is certain."
        )
    else:
        trust = "No method of this report has as many."
    return (
        "<h2>How the numbers are made</h2><p>A run is one training with its own seed, and its score the mean over its "
        "evaluation episodes. The interquartile mean is that of runs' scores without the lowest and the highest "
        "quarter, in whole runs (of fewer than 4 it is the mean), and the performance profile the share of runs above "
        "a score (Agarwal et al. 2021). Intervals are stratified bootstrap percentile intervals over runs "
        f"({statistics.RESAMPLES:,} resamples): within each method, runs are drawn with replacement; episodes of one "
        "run are no independent evidence about its method. They tell how far the numbers would move with other "
        f"training seeds, and do not speak of other datasets. Of fewer than {least} runs there is none: it would be "
        "little more than the range of the runs, which holds the true mean of normally distributed ones 50 (2 runs) or "
        f"75 (3) times in 100. {trust}</p>"
    )
