import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trajplan
from trajplan.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> str:
    """The output of a Python process that runs in the repository root with the root first on its path."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Each may import those of the rows above it, in functions too, and its own files.
ORDER = [
    {"errors"},
    {"auto_classes", "config", "devices", "files", "cuda_graph"},
    {"parser"},
    {"data"},
    {"tokenizers"},
    {"models"},
    {"runs"},
    {"planners", "training", "baselines"},
    {"evaluation"},
    {"presets"},
    {"card", "aids"},
    {"hub"},
    {"baseline_training", "dynamics_training", "pretraining", "evaluating"},
    {"comparison"},
    {"cli"},
    {"commands"},
]


def test_imports_run_one_way() -> None:
    rank = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
    for path in sorted((ROOT / "trajplan").rglob("*.py")):
        room = path.relative_to(ROOT / "trajplan").parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("trajplan."):
                imported = str(node.module).split(".")[1]
                assert imported == room or rank[imported] < rank[room], f"{path.name} imports {node.module}"


# The folders inside which imports run one way, too.
WITHOUT_CIRCLES = ["data", "tokenizers", "models", "runs", "planners", "training", "baselines", "evaluation"]
WITHOUT_CIRCLES += ["comparison", "commands"]


def imports(path: Path) -> set[Path]:
    """The package's files that a file imports, in functions and for the types alone, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            place = ROOT.joinpath(*name.split("."))
            found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The names on one circle of a graph; none if there is no circle."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        found = next((found for other in sorted(edges[name]) if (found := visit(other, [*way, name]))), [])
        done.add(name)
        return found

    return next((found for name in sorted(edges) if (found := visit(name, []))), [])


@pytest.mark.parametrize("folder", WITHOUT_CIRCLES)
def test_no_circle_of_imports_inside_a_folder(folder: str) -> None:
    """Neither between its files nor between its folders, at any depth."""
    for place in (ROOT / "trajplan" / folder, *(ROOT / "trajplan" / folder).rglob("*/")):
        edges: dict[str, set[str]] = {}
        for path in place.rglob("*.py"):
            own = path.relative_to(place).parts[0]
            inside = {other.relative_to(place).parts[0] for other in imports(path) if other.is_relative_to(place)}
            edges.setdefault(own, set()).update(inside - {own})
        for name in set().union(*edges.values()):
            edges.setdefault(name, set())
        assert circle(edges) == [], place


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("name", ["tokenizers", "planners", "baselines"])
def test_the_root_folders_are_links_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert os.readlink(link) == f"trajplan/{name}"
    assert link.resolve().is_dir()


def test_hugging_faces_tokenizers_is_not_hidden() -> None:
    assert not (ROOT / "trajplan/tokenizers/__init__.py").exists()
    code = "import sys, tokenizers, transformers; assert sys.path[1] == sys.argv[1]; print(tokenizers.__file__)"
    found = Path(run("-c", code + "; tokenizers.Tokenizer; transformers.GPT2Config()", str(ROOT)).strip())
    assert "site-packages" in found.parts


def test_the_packages_own_tokenizers_import_from_anywhere(tmp_path: Path) -> None:
    code = "from trajplan.tokenizers.fit import fit_tokenizer; import tokenizers; print(tokenizers.Tokenizer)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


LOADED = "print(*sorted(set(m.split('.')[0] for m in sys.modules) & {'torch', 'transformers', 'minari', 'numpy'}))"


def test_importing_the_package_is_quick_and_loads_no_torch() -> None:
    code = (
        f"import sys, time; start = time.process_time(); import trajplan; spent = time.process_time() - start; {LOADED}"
    )
    loaded, spent = run("-c", code + "; print(spent)").splitlines()
    assert loaded == ""
    assert float(spent) < 0.2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_the_commands_help_loads_no_torch(arguments: list[str]) -> None:
    code = f"import sys; from trajplan.cli import main\ntry: main({arguments})\nfinally: {LOADED}"
    output = run("-c", code).splitlines()
    assert "trajplan" in output[0]
    assert output[-1] == ""


def test_commands_import_at_the_top() -> None:
    # What is heavy is in the module that runs a command, and what --help needs in that of its options.
    for path in sorted((ROOT / "trajplan/commands").rglob("*.py")):
        below = [node for statement in ast.parse(path.read_text()).body for node in list(ast.walk(statement))[1:]]
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in below), path.name


def test_a_public_name_is_imported_at_first_use() -> None:
    code = f"import sys, trajplan; names = dir(trajplan); {LOADED}; print(trajplan.TrajplanError.__name__, *names)"
    loaded, names = run("-c", code).splitlines()
    assert loaded == ""
    assert {"TrajplanError", "baseline", "load", "OfflineDataset", "BeamSearch", "TrajectoryTransformer"} <= set(
        names.split()
    )


def test_python_dash_m_is_the_command() -> None:
    assert run("-m", "trajplan", "--help").startswith("usage: trajplan")


def test_no_module_takes_a_public_name() -> None:
    # `import trajplan.train` would put the module in the place of a function of that name.
    modules = {path.name.removesuffix(".py") for path in (ROOT / "trajplan").iterdir()}
    assert not modules & set(trajplan.__all__)
    assert all(getattr(trajplan, name) is not None for name in trajplan.__all__)
