"""metrics.jsonl, one JSON object a line."""

import json
from pathlib import Path
from typing import Any

from trajplan.errors import CheckpointError
from trajplan.files import fsync, replacing, writing

NAME = "metrics.jsonl"


class MetricsFile:
    """The run's numbers by update; every line is flushed, and a resumed run goes on where its state stands.

    Attributes:
        last: the last line that was there before; empty if there was none.

    Args:
        folder: the model folder.
        update: the updates done; lines of later ones, and a half-written line, are dropped.
    """

    def __init__(self, folder: Path, update: int = 0) -> None:
        self.path = folder / NAME
        kept: list[dict[str, Any]] = (
            [line for line in read_metrics(folder) if line["update"] <= update] if update else []
        )
        self.last = kept[-1] if kept else {}
        with writing(self.path):
            with replacing(self.path) as temporary:
                temporary.write_text("".join(_line(values) for values in kept))
            self._file = self.path.open("a")

    def write(self, values: dict[str, Any]) -> None:
        """Append one line."""
        with writing(self.path):
            self._file.write(_line(values))
            self._file.flush()

    def sync(self) -> None:
        """Force what was written onto the disk, so that no checkpoint is newer than its metrics."""
        with writing(self.path):
            fsync(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl in order; a half-written last line is left out."""
    path = Path(folder) / NAME
    lines = []
    pieces = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(pieces, 1):
        try:
            values = json.loads(line)
        except ValueError:
            # After the last line's end there is nothing, or a line whose writing was cut short.
            if number == len(pieces):
                break
            values = None
        if not isinstance(values, dict) or not isinstance(values.get("update"), int):
            text = line[:80].decode(errors="replace")
            raise CheckpointError(f"Line {number} of {path} is not what a run writes: {text}; delete that line.")
        lines.append(values)
    return lines


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
