import contextlib
import signal
import subprocess
import sys

import pytest

from trajplan import __version__, cli
from trajplan.baselines.settings import RunConfig
from trajplan.config import add_arguments, from_dict, given
from trajplan.errors import ConfigError, DataError
from trajplan.planners.config import BeamSearchConfig


def call(capsys, *argv):
    try:
        status = cli.main(argv)
    except SystemExit as stop:
        status = stop.code
    except KeyboardInterrupt:
        pytest.fail("Ctrl-C ended with a traceback")
    return status, capsys.readouterr()


@pytest.mark.parametrize("command", [(), *((name,) for name in cli.COMMANDS)])
def test_every_command_explains_itself(capsys, command):
    status, printed = call(capsys, *command, "--help")
    assert status == 0
    assert printed.out.startswith(f"usage: {' '.join(('trajplan', *command))}")


def test_python_m_trajplan_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "trajplan", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"trajplan {__version__}\n"


@pytest.mark.parametrize("argv", [(), ("no-such-command",), ("train", "--no-such-flag", "1")])
def test_words_that_mean_nothing_are_refused(capsys, argv):
    status, printed = call(capsys, *argv)
    assert status == 2
    assert "error" in printed.err


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (("compare", "--dataset", "x", "--methods", "bc", "--output", "x"), "--seed=5"),
        (("datasets", "list"), "--js"),
        (("baseline", "bc", "--output", "x"), "--best-ep=0.1"),
    ],
)
def test_a_part_of_an_options_name_is_not_taken_for_it(capsys, command, part):
    status, printed = call(capsys, *command, part)
    assert status == 2
    assert f"unknown: {part}; see trajplan " in printed.err


@pytest.mark.parametrize(
    ("raised", "status", "printed"),
    [
        (DataError("The file is empty."), 2, "trajplan: error: The file is empty.\n"),
        (KeyboardInterrupt(), 130, "trajplan: interrupted\n"),
    ],
)
def test_failures_are_one_sentence_and_a_status(capsys, monkeypatch, raised, status, printed):
    from trajplan.commands import datasets

    def run(args):
        raise raised

    monkeypatch.setattr(datasets, "run", run)
    result, output = call(capsys, "datasets", "list")
    assert (result, output.err) == (status, printed)


@pytest.mark.parametrize("argv", [*((name,) for name in cli.COMMANDS), ("baseline", "iql")])
def test_ctrl_c_while_a_command_is_imported_is_one_sentence(capsys, monkeypatch, argv):
    from trajplan.baselines.registry import Entry

    def interrupted(*arguments):
        raise KeyboardInterrupt

    if len(argv) == 1:
        monkeypatch.setattr(cli, "import_module", interrupted)
    monkeypatch.setattr(Entry, "config_class", interrupted)
    status, printed = call(capsys, *argv)
    assert (status, printed.err) == (130, "trajplan: interrupted\n")


def test_ctrl_c_that_a_library_swallows_and_fails_after_is_an_interruption(capsys, monkeypatch):
    from trajplan.commands import datasets

    def run(args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError

    monkeypatch.setattr(datasets, "run", run)
    # A job that a script starts in the background inherits that it ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, printed = call(capsys, "datasets", "list")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, printed.err) == (130, "trajplan: interrupted\n")


def test_a_reader_that_leaves_early_is_no_error():
    code = "import sys; from trajplan.cli import main; from trajplan.commands import datasets\n"
    code += (
        "datasets.run = lambda args: [print('x' * 99) for _ in range(9999)] and 0\nsys.exit(main(['datasets', 'list']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_settings_come_from_flags_or_dictionaries_and_unknown_ones_are_refused():
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser, BeamSearchConfig, "planner")
    args = parser.parse_args(["--horizon", "4", "--action-cdf", "none"])
    assert given(args, BeamSearchConfig) == {"horizon": 4, "action_cdf": None}
    assert from_dict(BeamSearchConfig, {"horizon": 4}) == BeamSearchConfig(horizon=4)
    with pytest.raises(ConfigError, match="has no setting 'horizn'; it has horizon, beam_width"):
        from_dict(BeamSearchConfig, {"horizn": 4})
    with pytest.raises(ConfigError, match="horizon is 'four'; it must be of type int"):
        from_dict(BeamSearchConfig, {"horizon": "four"})
    with pytest.raises(ConfigError, match="reward_transform is 'all'; it must be among none, return-range"):
        from_dict(RunConfig, {"reward_transform": "all"})
    with pytest.raises(SystemExit):
        parser.parse_args(["--horizon", "four"])
