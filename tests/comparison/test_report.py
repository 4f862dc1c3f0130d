import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from gymnasium import spaces

from trajplan.comparison import figures, statistics
from trajplan.comparison.report import render, text_table
from trajplan.comparison.results import by_method, load_results
from trajplan.data.info import DatasetInfo

VOID = {"meta", "br"}


class Page(HTMLParser):
    """The text of each element, and a check that all are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)


@pytest.fixture
def info():
    return DatasetInfo(
        id="toy/hopper/medium-replay-v0",
        observation_space=spaces.Box(-1, 1, (3,)),
        action_space=spaces.Box(-1, 1, (2,)),
        num_transitions=1000,
        num_episodes=10,
        mean_return=24.0,
    )


@pytest.fixture
def cells(finished):
    """Two methods with five runs, and a Trajectory Transformer with one."""

    def curve(end):
        return [{"update": update, "evaluation/return": end * update / 100} for update in (50, 100)]

    losses = [{"update": update, "held_out/loss": 5.0 - update / 100} for update in (50, 100)]
    return [
        *(
            finished("bc", seed, [10.0 + at, 20.0 + at], metrics=curve(15.0))
            for seed, at in enumerate((0, 2, 4, 50, 6))
        ),
        *(
            finished("iql", seed, [60.0 + at, 90.0 + at], metrics=curve(75.0))
            for seed, at in enumerate((0, 4, 2, -50, 6))
        ),
        finished("tt", 0, [50.0, 52.0], metrics=losses),
    ]


def test_the_page_is_whole_and_asks_nothing_of_a_network(info, cells):
    text = render(info, load_results(cells), {}, "trajplan compare")
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)|<script|<link", text)
    assert text.count("<svg") == 4
    ids = re.findall(r'\bid="([^"]+)"', text)
    for target in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert target in ids


def test_numbers_are_those_of_the_cells(info, cells):
    text = render(info, load_results(cells), {}, "trajplan compare")
    page = Page(text)
    # Mean returns of iql's runs, scaled by 2: 37.5, 39.5, 38.5, 12.5 and 40.5; the middle three have the mean 38.5.
    start = page.texts.index("iql", page.texts.index("Scores"))
    row = page.texts[start + 1 : start + 8]
    assert row[:2] + row[3:4] + row[5:] == ["5", "33.7", "38.5", "12.5 to 40.5", "67"]
    low, high = map(float, row[4].split(" to "))
    assert 12.5 < low < 38.5 < high < 40.5
    tt = page.texts.index("tt", start)
    assert page.texts[tt + 1 : tt + 6] == ["1", "25.5", "–", "25.5", "–"]
    assert "A 95 % interval needs 5 runs or more, which these do not have: tt (1)." in page.texts
    assert "10 episodes, 1,000 transitions." in " ".join(page.texts)
    assert "1 min 01 s" in page.texts


def test_published_scores_stand_beside_ours_and_are_marked(info, cells):
    text = render(info, load_results(cells), {}, "trajplan compare")
    page = Page(text)
    start = page.texts.index("iql", page.texts.index("Scores"))
    assert page.texts[start + 8] == "97.4, 94.8"
    assert "published, other data *" in page.texts
    assert "Other data." in page.texts
    assert "Reported on D4RL's hopper-medium-replay-v2, which is other data" in text
    assert "OfflineRL-Kit (Sun 2023), mean of 4 seeds" in page.texts


def test_a_method_without_its_own_part_has_no_published_score_beside_it(info, finished):
    settings = {"mopo": {"penalty_weight": 1.0}, "mopo0": {"penalty_weight": 0.0}}
    cells = [finished(label, 0, [10.0], method="mopo", settings=values) for label, values in settings.items()]
    page = Page(render(info, load_results(cells), {}, "trajplan compare"))
    start = page.texts.index("Scores")
    shown = [page.texts[page.texts.index(label, start) + 8] for label in settings]
    assert shown == ["92.7", "–"]


def test_raw_returns_are_not_compared_with_published_scores(info, finished):
    results = load_results([finished("bc", 0, [10.0, 20.0], reference=False)])
    text = render(info, results, {}, "trajplan compare")
    assert "published, other data" not in text
    assert "has no row for data of this kind" in text
    assert "normalised score" not in text
    assert "Probability of improvement" not in text
    assert "No method of this report has as many." in text
    Page(text)


def test_what_is_missing_is_told_with_its_log_if_it_has_one(info, cells, cell):
    missing = {cell("mopo", 1): "the <i>loss</i> is nan", cell("mopo", 2): "not begun, or not finished"}
    cell("mopo", 1).folder.mkdir(parents=True)
    cell("mopo", 1).log.touch()
    text = render(info, load_results(cells), missing, "trajplan compare")
    assert "mopo/1" in text
    assert "the &lt;i&gt;loss&lt;/i&gt; is nan" in text
    assert "mopo/seed-1/log.txt" in text
    assert "mopo/2" in text
    assert "mopo/seed-2/log.txt" not in text


def test_how_far_intervals_can_be_trusted(info, cells):
    text = render(info, load_results(cells[:10]), {}, "trajplan compare")
    assert "with 5 normally distributed ones they hold the true mean 83 times in 100 (10 runs: 90, " in text
    assert "Of fewer than 5 runs there is none" in text
    assert "needs 5 runs" not in text


def test_the_profile_is_of_runs_and_that_of_episodes_is_named_so(cells):
    scores = {method.label: method.scores for method in by_method(load_results(cells))}
    picture = figures.profiles(scores, "score")
    for name in ("runs", "episodes"):
        assert re.search(rf"<text[^>]*>share of {name} above τ</text>", picture)
    # Bands of the two methods with runs enough, of runs alone.
    assert picture.count("fill-opacity: 0.15") == 2


def test_what_users_name_is_escaped(info, cells):
    odd = dataclasses.replace(info, id="<script>alert(1)</script>")
    text = render(odd, load_results(cells), {}, "trajplan compare --set 'a&b'")
    assert "<script" not in text
    assert "a&amp;b" in text
    Page(text)


def test_the_same_results_give_the_same_page(info, cells):
    results = load_results(cells)
    assert render(info, results, {}, "x") == render(info, results, {}, "x")


def test_pictures_follow_the_pages_colours_and_name_the_methods(cells):
    scores = {method.label: method.scores for method in by_method(load_results(cells))}
    picture = figures.profiles(scores, "normalised score")
    assert "currentColor" in picture
    assert figures._INK not in picture
    assert 'role="img" aria-label="Performance profiles' in picture
    for label in scores:
        assert re.search(rf"<text[^>]*>{label}</text>", picture)


def test_more_methods_than_colours_still_look_different():
    names = [f"m{number}" for number in range(16)]
    looks = figures.looks(names)
    assert len({(look.colour, look.dash) for look in looks.values()}) == 16


def test_curves_are_drawn_where_all_runs_were_measured():
    runs = [(np.array([10, 20, 30]), np.array([1.0, 2.0, 3.0])), (np.array([10, 30]), np.array([3.0, 5.0]))]
    picture = figures.curves({"iql": runs}, {"tt": 4.0}, "score", "title", ["iql", "tt"])
    assert "tt, when trained" in picture


def test_the_terminals_table(cells):
    lines = text_table(by_method(load_results(cells))).splitlines()
    assert lines[1].split()[:3] + lines[1].split()[-1:] == ["iql", "5", "33.7", "38.5"]
    assert lines[2].split() == ["tt", "1", "25.5", "–", "25.5"]
    assert lines[4] == "A 95 % interval needs 5 runs or more, which these do not have: tt (1)."
