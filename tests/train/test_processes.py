"""Several processes train as one would, stop together, and leave nothing behind."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.test_loop import command, newest, quiet


@pytest.mark.parametrize(
    "stage, compared",
    [
        ("irfd", ("identity", "classification", "pose", "emotion", "self", "cross", "angles")),
        ("judge", ("landmarks", "pose", "mouth_opening", "emotion", "likeness")),  # likeness: of all people of a batch
        ("syncnet", ("contrastive", "matching")),  # every window of a batch with all its speech
    ],
)
def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(
    stage: str, compared: tuple[str, ...], tmp_path: Path
) -> None:
    # What makes much of the last bits is left out of the steps, so that only a fault can part the curves: Adam's
    # division by a gradient's size, and the losses of codes of nearly equal pictures (they are compared all the same).
    flags = {"train__clip": 0.0, "train__epsilon": 1.0, "irfd__learning_rate": 5e-4, "irfd__optimizer": "adam"}
    flags |= {f"irfd__weight_{name}": 1e-6 for name in ("identity", "pose", "emotion")}
    flags |= {"judge__learning_rate": 0.1, "syncnet__learning_rate": 0.1, "train__decay": 0.0}
    one = subprocess.run(command(tmp_path / "one", "--steps", "4", stage=stage, **flags), env=quiet(),
                         capture_output=True, text=True)  # fmt: skip
    assert one.returncode == 0, one.stderr
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "speak"]
    two = subprocess.run(launcher + command(tmp_path / "two", "--steps", "4", stage=stage, **flags)[3:], env=quiet(),
                         capture_output=True, text=True)  # fmt: skip
    assert two.returncode == 0, two.stderr[-2000:]
    curves = []
    for run in ("one", "two"):
        rows = [json.loads(line) for line in (tmp_path / run / stage / "log.jsonl").read_text().splitlines()]
        curves.append([row for row in rows if compared[0] in row])
    assert len(curves[0]) == len(curves[1]) == 4
    for alone, shared in zip(*curves, strict=True):
        for key in compared:
            assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5), (alone["step"], key)


def started_as_by_torchrun(commands: list[list[str]]) -> list[subprocess.Popen]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1])}
    place["WORLD_SIZE"] = str(len(commands))
    return [
        subprocess.Popen(words, env=quiet() | place | {"RANK": str(rank)}, stderr=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, text=True)
        for rank, words in enumerate(commands)
    ]  # fmt: skip


def two_processes(folders: list[Path], *more: str, **changes: object) -> list[subprocess.Popen]:
    """Each with a folder of its own where they differ."""
    return started_as_by_torchrun([command(folder, *more, **changes) for folder in folders])


def ends(started: list[subprocess.Popen]) -> list[tuple[int, str]]:
    errors = [process.communicate(timeout=240)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, errors, strict=True)]


def test_what_one_process_is_asked_all_do_at_the_same_step(tmp_path: Path) -> None:
    started = two_processes([tmp_path, tmp_path], "--steps", "100000", train__save_every=100000)
    log, begun = tmp_path / "audio" / "log.jsonl", time.monotonic()
    while not log.exists() or log.stat().st_size == 0:
        time.sleep(0.05)
        assert all(process.poll() is None for process in started) and time.monotonic() - begun < 240
    started[1].send_signal(signal.SIGTERM)  # which does not save: process 0 does
    for code, errors in ends(started):
        assert code == 130 and "all saved" in errors and "Traceback" not in errors
    assert newest(tmp_path / "audio")["step"] > 0


def test_processes_that_share_no_folder_are_refused_when_they_go_on(tmp_path: Path) -> None:
    def both(steps: str) -> list[tuple[int, str]]:
        return ends(two_processes([tmp_path / "0", tmp_path / "1"], "--steps", steps))

    assert [code for code, _ in both("2")] == [0, 0]
    for code, errors in both("4"):
        assert code == 2 and "one folder for all machines" in errors and "Traceback" not in errors


LEAVING = """
import os, torch
from speak.train.processes import anywhere, begin, end
device = begin(torch.device("cpu"))
assert anywhere(os.environ["RANK"] == "1", device)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
def names(): return [open(f"/proc/self/task/{thread}/comm").read() for thread in os.listdir("/proc/self/task")]
assert any("gloo" in name for name in names())
end()
assert not any("gloo" in name for name in names()), names()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_a_process_that_leaves_the_group_keeps_none_of_its_threads() -> None:
    # A thread that still runs when the interpreter ends can abort it: the exit code is then that of a signal.
    for code, errors in ends(started_as_by_torchrun([[sys.executable, "-c", LEAVING]] * 2)):
        assert code == 0, errors
