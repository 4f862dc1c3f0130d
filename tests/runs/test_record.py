from trajplan.runs.metrics import read_metrics
from trajplan.runs.record import Record


class Trackers:
    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, values))

    def end_training(self):
        self.told.append("end")


def test_a_line_goes_to_the_file_and_to_the_trackers_and_a_resumed_record_goes_on(tmp_path):
    trackers = Trackers()
    record = Record(tmp_path, 0, 0.0, trackers)
    assert record.last == {}
    record.write({"update": 2, "loss": 1.0})
    record.write({"update": 4, "loss": 0.5})
    record.close()
    assert trackers.told == [(2, {"loss": 1.0}), (4, {"loss": 0.5}), "end"]
    # From the state after update 2; 100 seconds were spent.
    record = Record(tmp_path, 2, 100.0)
    assert record.last == {"update": 2, "loss": 1.0}
    assert 100 <= record.seconds < 110
    record.write({"update": 4, "loss": 0.25})
    record.close()
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 0.25]


def test_another_process_than_the_main_one_writes_nothing(tmp_path):
    record = Record(tmp_path, 0, 0.0, main=False)
    record.write({"update": 1})
    record.sync()
    record.close()
    assert record.last == {"update": 1}
    assert list(tmp_path.iterdir()) == []
