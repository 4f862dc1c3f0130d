import pytest

from trajplan.errors import CheckpointError
from trajplan.files import replacing, writing


def test_a_file_that_was_not_written_to_its_end_does_not_replace_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    said = pytest.raises(CheckpointError, match=r"report\.html cannot be written: disk full; see")
    with said, writing(path), replacing(path) as temporary:
        write(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_file_is_named_and_nothing_partial_left(tmp_path):
    path = tmp_path / "report.html"
    path.mkdir()
    said = pytest.raises(CheckpointError, match=r"report\.html cannot be written: .*Is a directory")
    with said, writing(path), replacing(path) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [path]
