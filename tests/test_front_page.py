"""What a visitor sees first: links that work away from the repository, numbers that are the recorded ones, citation."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import trajplan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOME = PROJECT["urls"]["Homepage"]


@pytest.fixture(scope="module")
def results_page():
    spec = importlib.util.spec_from_file_location("results_page", ROOT / "benchmarks" / "results_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_link_of_the_readme_works_on_a_package_index():
    """None is relative, and those into the repository name files that are there."""
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert all(target.startswith("https://") for target in targets), targets
    raw = HOME.replace("https://github.com", "https://raw.githubusercontent.com") + "/main/"
    ours = [target for target in targets if re.match(rf"{HOME}/|{raw}", target)]
    assert len(ours) > 20
    for target in ours:
        path = re.sub(rf"^({HOME}/(blob|tree)/main/|{raw})", "", target).split("#")[0]
        assert (ROOT / path).exists(), target
    assert raw + "docs/plan.png" in targets


def test_the_first_screen_says_what_for_whom_and_why_with_the_paper():
    first = README.split("## Installation")[0]
    for link in ("2106.02039", "2006.04779", "2110.06169", "2006.09359", "2005.13239", "2102.08363"):
        assert f"https://arxiv.org/abs/{link}" in first, link
    for peer in ("jannerm", "CORL", "d3rlpy", "OfflineRL-Kit", "stable-worldmodel"):
        assert peer in first, peer
    assert "for people who" in first
    assert README.index("## Installation") < README.index("## Results")
    assert "pip install torch --index-url https://download.pytorch.org/whl/cpu" in README


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_tables_are_made_of_the_recorded_numbers(page, results_page):
    text = (ROOT / page).read_text()
    assert text.count("<!-- numbers: ") == text.count("<!-- end -->") > 0
    assert results_page.renew(text) == text, "run python benchmarks/results_page.py"


def test_the_transformer_stands_in_every_table_of_methods(results_page):
    for dataset in results_page.DATASETS:
        assert results_page.TRANSFORMER in results_page.comparison_table(dataset)
        assert dataset.replace("-", " ", 1) in results_page.transformer_table()


def test_a_cell_of_the_results_holds_one_thing():
    """No number in parentheses beside another; notes are footnotes."""
    rows = [line for line in (ROOT / "docs" / "results.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) > 40
    for row in rows:
        for cell in row.strip("|").split(" | "):
            assert not re.search(r"\d.*\(.*\d", cell), cell


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license", "repository-code"} <= citation.keys()
    assert citation["version"] == PROJECT["version"] == trajplan.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == HOME
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    blocks = re.findall(r"^```bibtex\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    entries = "".join(blocks)
    assert re.findall(r"^@(\w+)\{", entries, re.MULTILINE) == ["software", "inproceedings"]
    assert entries.count("{") == entries.count("}")
