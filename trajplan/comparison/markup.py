"""Pieces of HTML that the report is made of, and its style, which follows the reader's light or dark theme."""

import html
from collections.abc import Iterable, Sequence

import numpy as np

from trajplan.comparison.statistics import Estimate

CSS = """\
:root {
  color-scheme: light dark;
  --ink: #1e293b; --ground: #ffffff; --quiet: #5b6777; --line: #d5dbe3; --tint: #0072b2; --warn: #fff4dc
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --ground: #12161d; --quiet: #9aa7b8; --line: #333d4b; --tint: #56b4e9; --warn: #3a2f14 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
p { max-width: 48rem }
.lead { font-size: 1.1rem }
.quiet, figcaption { color: var(--quiet); font-size: .9rem }
.warning { background: var(--warn); border-left: 4px solid #e69f00; padding: .25rem 1rem; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600 }
th:first-child { text-align: left; white-space: normal; min-width: 6rem }
th[scope=col] {
  color: var(--quiet); font-weight: 500; vertical-align: bottom;
  white-space: normal; min-width: 4.5rem; max-width: 12rem
}
.chances th[scope=col] { text-align: center }
.chances td { padding: .35rem .45rem }
.chance { background: color-mix(in srgb, var(--tint) calc(var(--p) * .45), transparent); text-align: center }
.chance span { display: block; font-size: .8rem }
.self { background: var(--line); opacity: .5 }
figure { margin: 1rem 0 }
figure svg { width: 100%; height: auto; color: var(--ink) }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; padding: .75rem; font-size: .85rem }
summary { cursor: pointer; padding: .2rem 0 }
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first cell of each row names it."""
    heads = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr><th scope=row>{html.escape(first)}</th>{''.join(f'<td>{html.escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<div class=wide><table><tr>{heads}</tr>{lines}</table></div>"


def figure(svg: str, caption: str) -> str:
    """A picture with what it shows."""
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def span(estimate: Estimate, digits: int = 1) -> str:
    """An interval, or a dash where there is none."""
    if estimate.interval is None:
        return "–"
    low, high = estimate.interval
    return f"{low:.{digits}f} to {high:.{digits}f}"


def mean(values: Sequence[float | None]) -> float:
    """Mean of those that are known; not a number where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def duration(seconds: float) -> str:
    """Seconds for people."""
    if not np.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
