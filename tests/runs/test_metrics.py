import json
import re

import pytest

from trajplan.errors import CheckpointError
from trajplan.runs.metrics import MetricsFile, read_metrics


def fill(folder, updates):
    metrics = MetricsFile(folder)
    for update in updates:
        metrics.write({"update": update, "loss": 1.0 / update})
    metrics.close()


def test_lines_are_there_as_soon_as_written(tmp_path):
    metrics = MetricsFile(tmp_path)
    metrics.write({"update": 1, "loss": 0.1})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"update": 1, "loss": 0.1}
    metrics.close()


def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path):
    fill(tmp_path, range(1, 8))
    metrics = MetricsFile(tmp_path, update=4)
    metrics.write({"update": 5, "loss": 9.0})
    metrics.close()
    assert [line["update"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert read_metrics(tmp_path)[-1]["loss"] == 9.0


def test_a_half_written_line_is_dropped(tmp_path):
    fill(tmp_path, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 4, "lo')
    assert [line["update"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    MetricsFile(tmp_path, update=9).close()
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")


@pytest.mark.parametrize("text", ["[1]", '{"loss": 1.0}', '{"update": "many"}', "7", '{"update": 3, "lo', "null", ""])
def test_a_line_that_no_run_wrote_is_named_and_nothing_dropped(tmp_path, text):
    fill(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(before := path.read_text() + text + '\n{"update": 3}\n')
    with pytest.raises(CheckpointError, match=rf"^Line 3 of .*metrics\.jsonl is not .*: {re.escape(text)}; delete"):
        MetricsFile(tmp_path, update=9)
    assert path.read_text() == before


@pytest.mark.parametrize("line", [b"\xff{}\n", b'{"update": 3, "lo\n'])
def test_only_a_line_without_its_end_is_taken_for_half_written(tmp_path, line):
    fill(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(before := path.read_bytes() + line)
    with pytest.raises(CheckpointError, match=r"^Line 3 of .*; delete that line\."):
        MetricsFile(tmp_path, update=9)
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    assert [values["update"] for values in read_metrics(tmp_path)] == [1, 2]


def test_a_run_from_the_start_begins_an_empty_file(tmp_path):
    fill(tmp_path, [1, 2])
    MetricsFile(tmp_path).close()
    assert read_metrics(tmp_path) == []


def test_floats_survive_to_the_bit(tmp_path):
    value = 0.1 + 0.2
    metrics = MetricsFile(tmp_path)
    metrics.write({"update": 1, "loss": value})
    metrics.close()
    assert read_metrics(tmp_path)[0]["loss"] == value
