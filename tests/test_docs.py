"""README and docs: Python blocks run, commands parse, links and make targets lead somewhere."""

import re
import shlex
import shutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from trajplan.cli import COMMANDS, main
from trajplan.data.collection.collect import collect_dataset
from trajplan.data.dataset import OfflineDataset
from trajplan.planners.settings import save_planner
from trajplan.presets import PRESETS, preset_named
from trajplan.training.loop import train

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DATASET = "pointmaze/umaze-mixed-v0"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def check_installation(words: list[str]) -> None:
    """What `pip install` is told to install is PyTorch's CPU build, or trajplan with extras that exist."""
    if words[0] == "torch":
        assert words[1:] == ["--index-url", "https://download.pytorch.org/whl/cpu"]
        return
    extras = re.fullmatch(r"(?:trajplan|\.)\[([\w,]+)\]", words[-1])
    for extra in extras[1].split(","):
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()


def commands() -> list[tuple[str, str]]:
    lines = [(page.name, line) for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return [(name, line.split("#")[0].strip()) for name, line in lines if line.split("#")[0].strip()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the dataset and the checkpoints that the documents speak of, in small."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TRAJPLAN_CACHE", str(folder / "cache"))
        (folder / "minari").mkdir()
        collect_dataset(
            "PointMaze_UMaze-v3", DATASET, episodes=6, policy="waypoint", noise=[0.5, 2.0], max_episode_steps=40
        )
        preset = preset_named("tt_debug")
        train(OfflineDataset.from_minari(DATASET), folder / "runs" / "maze", preset.train)
        save_planner(folder / "runs" / "maze", preset.planner)
        shutil.copytree(folder / "runs" / "maze", folder / "quickstart" / "model")
        yield folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page, workplace, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(workplace / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(workplace / "cache"))
    monkeypatch.chdir(workplace)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_parse(page, line, monkeypatch):
    """A `trajplan` command is one that the parser takes; other lines are make targets or installations that exist."""
    words = shlex.split(line)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    if words[0] == "pip":
        check_installation(words[2:])
        return
    if words[0] in ("git", "cd"):
        assert words in (["git", "clone", REPOSITORY], ["cd", "trajplan"])
        return
    if words[0] == "python":
        assert (ROOT / words[1]).is_file()
        return
    if words[0] == "ray":
        assert words[1] == "start"
        return
    if words[:2] == ["ACCELERATE_USE_CPU=1", "torchrun"] or words[:2] == ["accelerate", "launch"]:
        words = words[words.index("-m") + 1 :]
    assert words[0] == "trajplan", line
    assert words[1] in COMMANDS
    ran = []
    name = f"datasets_{words[2]}" if words[1] == "datasets" else words[1]
    monkeypatch.setattr(import_module(f"trajplan.commands.{name}"), "run", lambda args: ran.append(args))
    assert main(words[1:]) == 0
    assert len(ran) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for path in re.findall(r"`((?:trajplan|examples|benchmarks|docs|tests)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_preset_is_documented():
    text = (ROOT / "docs" / "training.md").read_text()
    for name in PRESETS:
        family = "_".join(name.split("_")[:2])
        assert f"`{name}`" in text or f"`{family}_*`" in text, name


def test_documents_name_no_machine():
    for page in PAGES:
        assert not re.search(r"(^|[\s(`])/(home|root|work|tmp)/", page.read_text()), page.name
