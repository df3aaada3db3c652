"""The acceptance sheets: one command writes all of them, small enough to lie in the repository."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SHEETS = {"people", "adults", "hair", "yaw", "pitch", "emotions_0", "emotions_1", "emotions_2", "strangers", "mouths",
          "landmarks", "motion", "augmented"}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheets")
    command = [sys.executable, str(ROOT / "examples" / "sheets.py"), "--out", str(folder), "--size", "32"]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    return folder


def test_one_command_writes_every_sheet_and_a_clip_with_sound(written: Path) -> None:
    from speak.media.video import probe

    assert {path.stem for path in written.glob("*.jpg")} == SHEETS
    sizes = {name: Image.open(written / f"{name}.jpg").size for name in ("people", "yaw", "emotions_0")}
    assert sizes == {"people": (5 * 32, 5 * 32), "yaw": (9 * 32, 4 * 32), "emotions_0": (8 * 32, 3 * 32)}
    assert probe(written / "clip.mp4").sound
    answers = [line.split(": ")[1].split() for line in (written / "strangers.txt").read_text().splitlines()]
    assert len(answers) == 3 and all(len(set(row)) == 8 for row in answers)


def test_the_committed_sheets_are_those_of_the_command_and_small(written: Path) -> None:
    committed = ROOT / "examples" / "people"
    assert {path.name for path in committed.iterdir()} == {path.name for path in written.iterdir()}
    assert max(path.stat().st_size for path in committed.iterdir()) < 300_000
