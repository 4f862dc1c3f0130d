import contextlib
import re
import signal
import subprocess
import sys

import pytest

from trajplan import __version__, cli
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.iql import IQLConfig
from trajplan.baselines.registry import method_named
from trajplan.config import add_arguments, from_dict, given
from trajplan.errors import ConfigError, DataError
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.presets import preset_named


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


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "trajplan needs COMMAND; see trajplan --help."),
        ("trian", "Unknown command 'trian'; did you mean train?"),
        ("sing", "Unknown command 'sing'; there are datasets, train, baseline, dynamics, evaluate, compare, push."),
        ("--verison", "trajplan has no option --verison; did you mean --version?"),
        ("datasets lst", "Unknown action 'lst'; did you mean list?"),
        ("datasets list --js", "trajplan datasets list has no option --js; did you mean --json?"),
        ("baseline iqll", "Unknown method 'iqll'; did you mean iql?"),
        ("baseline bc --top-frac=0.1", "trajplan baseline bc has no option --top-frac; did you mean --top-fraction?"),
        (
            "baseline bc --expectile 1",
            "trajplan baseline bc has no option --expectile; see trajplan baseline bc --help.",
        ),
        ("baseline --output x bc", "trajplan baseline has no option --output; see trajplan baseline --help."),
        ("compare --dataset x --seed 5", "trajplan compare has no option --seed; did you mean --seeds?"),
        ("train --lerning-rate 1e-3", "trajplan train has no option --lerning-rate; did you mean --learning-rate?"),
        ("train --lr=1e-3", "trajplan train has no option --lr; did you mean --learning-rate?"),
        ("train --dataset x --ouput y", "trajplan train has no option --ouput; did you mean --output?"),
        ("train --dataset x", "trajplan train needs --output; see trajplan train --help."),
        ("train --output x --updates", "--updates needs a value."),
        ("train --output x --learning-rate abc", "--learning-rate is 'abc'; it must be a number."),
        ("train --output x --updates=1.5", "--updates is '1.5'; it must be a whole number, or none."),
        ("train --output x --tokenizer median", "--tokenizer is 'median'; it must be among quantile, uniform."),
        ("train --output x y", "Unexpected argument y; see trajplan train --help."),
        ("evaluate x --action-cdf abc", "--action-cdf is 'abc'; it must be a number, or none."),
        ("evaluate x --seed 1e3", "--seed is '1e3'; it must be a whole number."),
        ("evaluate x -z", "Unexpected argument -z; see trajplan evaluate x --help."),
    ],
)
def test_what_a_line_gets_wrong_is_one_sentence(capsys, line, sentence):
    status, printed = call(capsys, *line.split())
    assert (status, printed.out, printed.err) == (2, "", f"trajplan: error: {sentence}\n")


def test_values_that_look_like_options_are_values(capsys):
    status, printed = call(capsys, "datasets", "show", "--", "--id")
    assert status == 2
    assert "'--id'" in printed.err


@pytest.mark.parametrize(
    ("raised", "status", "printed"),
    [
        (DataError("The file is empty."), 2, "trajplan: error: The file is empty.\n"),
        (KeyboardInterrupt(), 130, "trajplan: interrupted\n"),
    ],
)
def test_failures_are_one_sentence_and_a_status(capsys, monkeypatch, raised, status, printed):
    from trajplan.commands import datasets_list

    def run(args):
        raise raised

    monkeypatch.setattr(datasets_list, "run", run)
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
    from trajplan.commands import datasets_list

    def run(args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError

    monkeypatch.setattr(datasets_list, "run", run)
    # A job that a script starts in the background inherits that it ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, printed = call(capsys, "datasets", "list")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, printed.err) == (130, "trajplan: interrupted\n")


def test_a_reader_that_leaves_early_is_no_error():
    code = """
import sys
from trajplan.cli import main
from trajplan.commands import datasets_list
datasets_list.run = lambda args: [print("x" * 99) for _ in range(9999)] and 0
sys.exit(main(["datasets", "list"]))
"""
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
    with pytest.raises(ConfigError, match=r"has no setting 'horizn'; did you mean horizon\?$"):
        from_dict(BeamSearchConfig, {"horizn": 4})
    with pytest.raises(ConfigError, match="has no setting 'colour'; it has horizon, beam_width"):
        from_dict(BeamSearchConfig, {"colour": 4})
    with pytest.raises(ConfigError, match="horizon is 'four'; it must be of type int"):
        from_dict(BeamSearchConfig, {"horizon": "four"})
    # As earlier versions called it.
    parser = argparse.ArgumentParser()
    add_arguments(parser, IQLConfig, "method")
    assert given(parser.parse_args(["--target-rate", "0.5"]), IQLConfig) == {"tau": 0.5}
    assert "target-rate" not in parser.format_help()
    assert from_dict(IQLConfig, {"target_rate": 0.5, "beta": 2.0}) == IQLConfig(tau=0.5, beta=2.0)
    with pytest.raises(ConfigError, match="reward_transform is 'all'; it must be among none, return-range"):
        from_dict(RunConfig, {"reward_transform": "all"})
    with pytest.raises(SystemExit):
        parser.parse_args(["--horizon", "four"])


@pytest.mark.parametrize(
    ("find", "name", "sentence"),
    [
        (preset_named, "tt_hoper_medium", "Unknown preset 'tt_hoper_medium'; did you mean tt_hopper_medium?"),
        (method_named, "cqll", "Unknown method 'cqll'; did you mean cql?"),
    ],
)
def test_a_misspelt_preset_or_method_is_answered_with_the_closest(find, name, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        find(name)
