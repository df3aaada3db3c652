"""The run folder: RUN/STAGE with checkpoints, the finished weights, the log and the pictures."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speak import checkpoint
from speak.errors import SpeakError
from speak.media.files import whole_file, write_error
from speak.train.processes import rank_and_world

WEIGHTS = "weights.pt"  # averaged weights without optimizers: what later stages, `animate` and `evaluate` take
_CHECKPOINT = re.compile(r"checkpoint-(\d{9})\.pt")


class StageFolder:
    """RUN/STAGE of one training."""

    def __init__(self, run: Path, stage: str) -> None:
        self.path, self.stage = run / stage, stage
        self.pictures = self.path / "pictures"
        self.log = self.path / "log.jsonl"

    def make(self) -> None:
        """Creates the folder, and removes what a training left that was killed while it saved.

        Raises SpeakError where the system refuses.
        """
        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            if rank_and_world()[0] == 0:
                for left in self.path.glob(".checkpoint-*.part"):
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from None

    def checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        found = [path for path in self.path.glob("checkpoint-*.pt") if _CHECKPOINT.fullmatch(path.name)]
        return sorted(found)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint, or None. Where it is damaged, the one before it, and a line that says so.

        Raises SpeakError where none can be read, and for one of another stage.
        """
        found = self.checkpoints()
        for path in reversed(found):
            try:
                content = checkpoint.load(path)
            except SpeakError as error:
                if path == found[0]:
                    raise
                print(f"note: {error}; trying the checkpoint before it", file=sys.stderr)
                continue
            if content["stage"] != self.stage:
                raise SpeakError(f"{path}: holds stage {content['stage']}, not {self.stage}: choose another --out")
            return path, content
        return None

    def save(self, content: Mapping[str, Any], weights: Mapping[str, Any], keep: int) -> Path:
        """Writes a checkpoint and the weights, each whole or not at all; removes all but the newest `keep`."""
        path = self.path / f"checkpoint-{content['step']:09d}.pt"
        checkpoint.save(path, content)
        checkpoint.save(self.path / WEIGHTS, weights)
        for old in self.checkpoints()[:-keep]:
            old.unlink(missing_ok=True)
        return path

    def write_log(self, row: Mapping[str, Any]) -> None:
        """Appends one JSON line."""
        try:
            with self.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise write_error(self.log, error) from None

    def cut_log(self, step: int) -> None:
        """Removes rows after `step`: those of a training that was killed before its next checkpoint."""
        if not self.log.exists():
            return
        kept = [line for line in self.log.read_text().splitlines() if _step_of(line) <= step]
        with whole_file(self.log) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))

    def rows(self) -> list[dict[str, Any]]:
        """The log."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if _step_of(line) >= 0]


def _step_of(line: str) -> float:
    """A row's step; infinity for a line that was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Predecessors:
    """Finds what earlier stages have trained: files that the user names, else RUN/STAGE/weights.pt."""

    def __init__(self, run: Path, named: Mapping[str, str]) -> None:
        self.run, self.named = run, named

    def weights(self, stage: str, needed: bool = True) -> dict[str, Any] | None:
        """The checkpoint of `stage`. Raises SpeakError where it is needed and not there, or of another stage."""
        path = Path(self.named[stage]) if stage in self.named else self.run / stage / WEIGHTS
        if stage not in self.named and not path.exists():
            if not needed:
                return None
            raise SpeakError(
                f"{path}: not there, and this stage needs it: python -m speak train --stage {stage} "
                f"--out {os.fspath(self.run)}, or name a file with --from {stage}=FILE"
            )
        content = checkpoint.load(path)
        if content["stage"] != stage:
            raise SpeakError(f"{path}: holds stage {content['stage']}, not {stage}")
        return content
