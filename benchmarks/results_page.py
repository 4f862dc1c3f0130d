"""Write the tables of README.md and docs/results.md anew from the recorded numbers in benchmarks/results.

A table stands between `<!-- numbers: NAME -->` and `<!-- end -->`; text around it is left as it is.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
DATASETS = ("hopper-medium-replay", "halfcheetah-medium-replay", "hopper-medium-expert", "halfcheetah-medium-expert")
METHODS = {
    "bc": "BC",
    "bc10": "BC-10 %",
    "awr": "AWR",
    "awac": "AWAC",
    "iql": "IQL",
    "cql": "CQL",
    "sac": "SAC",
    "mopo": "MOPO",
    "mopo0": "MOPO, λ = 0 (MBPO)",
    "combo": "COMBO",
}
TRANSFORMER = "Trajectory Transformer"
PUBLIC = {"d3rlpy": "d3rlpy", "corl": "CORL", "offlinerl-kit": "OfflineRL-Kit"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    for page in PAGES:
        page.write_text(renew(page.read_text()))


def renew(text: str) -> str:
    """A page with every table made anew."""
    pattern = re.compile(r"(<!-- numbers: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def quickstart_table() -> str:
    """Every policy of the quickstart, the best first."""
    policies = _load("quickstart")["results"]["policies"]
    rows = [
        [name, f"{policy['mean']:.2f}", _span(policy["interval_95"], 2)]
        for name, policy in sorted(policies.items(), key=lambda item: -item[1]["mean"])
    ]
    return _table(["policy", "goals an episode", "95 % interval"], rows)


def transformer_table() -> str:
    """The Trajectory Transformer on each dataset, "not run" where there is no run."""
    rows = []
    for dataset in DATASETS:
        data, run = _dataset(dataset), _transformer(dataset)
        known = [_name(dataset), f"{data['transitions']:,}", _number(data["mean_return"])]
        if run is None:
            rows.append([*known, "not run", "", "", ""])
            continue
        summary, updates = run["evaluation"]["summary"], run["last_metrics"]["update"]
        scores = [_number(summary["return"]["mean"]), _span(summary["return"]["interval_95"])]
        rows.append([*known, *scores, f"{summary['normalized_score']['mean']:.1f}", f"{updates:,}"])
    head = ["Minari data", "transitions", "mean of the data", "return", "95 % interval", "normalised", "updates"]
    return _table(head, rows)


def comparison_table(dataset: str) -> str:
    """Every method on one dataset by its mean return, the best first, the Trajectory Transformer among them.

    A cell made with what has changed since names a footnote of the page as `older`.
    """
    rows = [(float(run["mean"]), run["row"]) for run in _methods(dataset)]
    transformer = _transformer(dataset)
    if transformer is not None:
        summary, last = transformer["evaluation"]["summary"], transformer["last_metrics"]
        mean, score = summary["return"]["mean"], summary["normalized_score"]["mean"]
        cells = [_number(mean), "–", _number(score, 1), "1", f"{last['update']:,}", f"{last['seconds'] / 60:.1f}"]
        rows.append((mean, [TRANSFORMER, *cells]))
    data = _dataset(dataset)
    rows.append(
        (data["mean_return"], ["*the data*", _number(data["mean_return"]), "", f"{data['normalized_score']:.1f}"])
    )
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    if transformer is None:
        ordered.append([TRANSFORMER, "not run"])
    return _table(["method", "return", "of the runs", "normalised", "runs", "updates", "minutes a run"], ordered)


def beside_table() -> str:
    """Our returns beside those of public implementations after as many updates on the same transitions."""
    rows = []
    for dataset in DATASETS:
        recorded = _load(f"comparison-{dataset}")
        for (public, method), theirs in _public_runs(recorded.get("beside", {})).items():
            updates = min(max(curve) for curve in theirs)
            ours = [curve[updates] for curve in _our_curves(recorded, method) if updates in curve]
            cells = [_several(ours), _several([curve[updates] for curve in theirs if updates in curve])]
            rows.append([_name(dataset), METHODS[method], f"{updates:,}", cells[0], PUBLIC[public], cells[1]])
    return _table(["Minari data", "method", "updates", "trajplan", "beside", "its return"], rows)


def planning_speed_table() -> str:
    """Seconds a plan with kept keys and values, and without."""
    rows = []
    for name, problem in _load("plan_speed")["problems"].items():
        seconds = [f"{problem[f'{kind}_seconds']:.2f} s" for kind in ("cached", "plain")]
        rows.append([name, *seconds, f"{problem['ratio']:.0f} times"])
    return _table(["settings for", "a plan", "recomputing every token", "speed-up"], rows)


def baseline_speed_table() -> str:
    """Updates a second beside d3rlpy's, in turns on the same machine."""
    rows = []
    for name, method in _load("baseline_speed")["methods"].items():
        rates = [f"{np.median(method[who]):.1f}" for who in ("updates_per_second", "d3rlpy")]
        ratios = method["ratio_by_turn"]
        rows.append([METHODS[name], *rates, f"{method['ratio']:.1f} times", _span([min(ratios), max(ratios)], 1)])
    return _table(["method", "updates a second", "d3rlpy's", "speed-up", "range of three turns"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart_table,
    "transformer": transformer_table,
    "beside": beside_table,
    "planning-speed": planning_speed_table,
    "baseline-speed": baseline_speed_table,
    **{dataset: lambda dataset=dataset: comparison_table(dataset) for dataset in DATASETS},  # type: ignore[misc]
}


def _methods(dataset: str) -> Iterable[dict[str, Any]]:
    cells = _load(f"comparison-{dataset}")["cells"]
    for method, label in METHODS.items():
        runs = [cell for name, cell in cells.items() if name.split("/")[0] == method]
        if not runs:
            continue
        returns = [run["mean_return"] for run in runs]
        score = np.mean([run["normalized_score"] for run in runs])
        minutes = np.mean([run["training_seconds"] for run in runs]) / 60
        spread = _span([min(returns), max(returns)]) if len(runs) > 1 else "–"
        updates = f"{runs[0]['updates']:,.0f}"
        label += f"[^{runs[0]['older']}]" if "older" in runs[0] else ""
        row = [label, _number(np.mean(returns)), spread, _number(score, 1), str(len(runs)), updates, f"{minutes:.1f}"]
        yield {"mean": np.mean(returns), "row": row}


def _public_runs(beside: dict[str, Any]) -> dict[tuple[str, str], list[dict[int, float]]]:
    """By implementation and method, the returns by update of each of its runs; other entries are ours."""
    found: dict[tuple[str, str], list[dict[int, float]]] = defaultdict(list)
    for label, run in beside.items():
        public, _, method = label.split("/")[0].rpartition("-")
        if public in PUBLIC and method in METHODS:
            found[public, method].append(_curve(run["returns"]))
    return found


def _our_curves(recorded: dict[str, Any], method: str) -> list[dict[int, float]]:
    """Ours by update: runs with the public ones' settings where there are some beside the cells, else all."""
    more = [run for name, run in recorded.get("beside", {}).items() if name.split("/")[0] == f"trajplan-{method}"]
    alike = [_curve(run["returns"]) for run in more if "settings" in run]
    cells = [_curve(cell["return"]) for name, cell in recorded["cells"].items() if name.split("/")[0] == method]
    return alike or cells + [_curve(run["returns"]) for run in more]


def _curve(returns: dict[str, float]) -> dict[int, float]:
    return {int(update): value for update, value in returns.items()}


def _transformer(dataset: str) -> dict[str, Any] | None:
    name = f"tt-{dataset}"
    return _load(name) if (RESULTS / f"{name}.json").exists() else None


def _dataset(dataset: str) -> dict[str, Any]:
    return _load("datasets")["datasets"][f"bench/{dataset.replace('-', '/', 1)}-v0"]


def _load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _name(dataset: str) -> str:
    return dataset.replace("-", " ", 1)


def _several(values: Sequence[float]) -> str:
    return "; ".join(_number(value) for value in values)


def _number(value: float, digits: int = 0) -> str:
    """A number for people: thousands apart, a minus sign, no minus before 0."""
    text = f"{value:,.{digits}f}"
    return text.replace("-", "" if not text.strip("-0.,") else "−")


def _span(pair: Sequence[float], digits: int = 0) -> str:
    low, high = (_number(value, digits) for value in pair)
    return f"{low} to {high}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *([*row, *[""] * (len(head) - len(row))] for row in rows)]
    return "\n".join(re.sub(r" +\|", " |", "| " + " | ".join(line) + " |") for line in lines)


if __name__ == "__main__":
    main()
