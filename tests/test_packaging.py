"""What an installation holds, and that it imports from everywhere, the folder above a clone included."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = Path(sysconfig.get_path("purelib"))
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
IMPORTS = (
    "import trajplan, tokenizers, transformers; from trajplan import OfflineDataset; transformers.GPT2Config(); "
    "print(trajplan.__file__, tokenizers.Tokenizer.__module__)"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of what is packaged, in a folder named like the package, as `git clone` makes it."""
    folder = tmp_path_factory.mktemp("parent") / "trajplan"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "trajplan", folder / "trajplan", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tokenizers", "planners", "baselines"):
        (folder / name).symlink_to(f"trajplan/{name}")
    return folder


def run(*command, cwd, **environment):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(clone, hook, folder):
    """The files of the wheel that pip would have built, unpacked in `folder`."""
    run(sys.executable, "-c", BUILD, hook, folder, cwd=clone)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        return set(archive.namelist())


def test_an_editable_install_imports_from_the_folder_above_the_clone(clone, tmp_path):
    names = build(clone, "build_editable", tmp_path)
    (path_file,) = (name for name in names if "/" not in name)
    (entry,) = (tmp_path / path_file).read_text().split()
    assert Path(entry) == clone
    # As site.py lays the path out, without the path files of the installation that runs this test.
    path = os.pathsep.join([entry, str(LIBRARIES)])
    printed = run(sys.executable, "-S", "-c", IMPORTS, cwd=clone.parent, PYTHONPATH=path)
    assert printed.split() == [str(clone / "trajplan" / "__init__.py"), "tokenizers"]
    printed = run(sys.executable, "-S", "-m", "trajplan", "--help", cwd=clone.parent, PYTHONPATH=path)
    assert printed.startswith("usage: trajplan")


def test_a_wheel_holds_the_package_whole_and_nothing_else(clone, tmp_path):
    names = {name for name in build(clone, "build_wheel", tmp_path) if ".dist-info/" not in name}
    found = (path for path in (clone / "trajplan").rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = {path.relative_to(clone).as_posix() for path in found}
    assert names == files
    assert {"trajplan/py.typed", "trajplan/__main__.py", "trajplan/tokenizers/tokenizer.py"} <= names


@pytest.mark.slow
def test_what_pip_installs_runs_from_the_folder_above_the_clone(clone, tmp_path):
    venv.create(tmp_path, symlinks=True)
    python, (site,) = tmp_path / "bin" / "python", tmp_path.glob("lib/python*/site-packages")
    for part in (*LIBRARIES.glob("setuptools*"), LIBRARIES / "_distutils_hack"):
        (site / part.name).symlink_to(part)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--no-build-isolation", "--editable", clone, cwd=tmp_path)
    # The other packages come from the installation that runs this test, the path files of which are not read.
    (site / "zz_libraries.pth").write_text(f"{LIBRARIES}\n")
    printed = run(python, "-c", IMPORTS, cwd=clone.parent)
    assert printed.split() == [str(clone / "trajplan" / "__init__.py"), "tokenizers"]
    launch = [python, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu", "-m", "trajplan"]
    for command in ([python, "-m", "trajplan"], [tmp_path / "bin" / "trajplan"], launch):
        assert run(*command, "--help", cwd=clone.parent).startswith("usage: trajplan")
