"""The ablations of SPEAK Tables 3 and 4 at preset `tiny`: about 20 CPU minutes a row and seed, resumable.

    python examples/ablations.py --out runs/ablations                      # full, without IRFD, sync and self
    python examples/ablations.py --out runs/ablations --rows all           # every row of the paper
    python examples/ablations.py --out runs/ablations --dry-run            # only says what it would run

Shared by all rows of a seed: the audio encoder, the perceptual net, SyncNet, and (but for rows that change it) IRFD.
Rows of IRFD's losses train `irfd` again and then `speak`; rows of SPEAK's losses train `speak` only. All rows have the
same steps, fitted once to --minutes by a short trial. The judge and the SyncNet that measures are other networks than
those in the losses. Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

WEIGHTS = "weights.pt"
# row -> (what it trains anew, what it switches off)
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "full": ("speak", {}),
    "irfd": ("speak without irfd", {"speak.train_encoders": "true"}),
    "sync": ("speak", {"speak.weight_sync": "0"}),
    "self": ("irfd and speak", {"irfd.weight_self": "0"}),
    "identity": ("irfd and speak", {"irfd.weight_identity": "0"}),
    "cls": ("irfd and speak", {"irfd.weight_classification": "0"}),
    "pose": ("irfd and speak", {"irfd.weight_pose": "0"}),
    "emotion": ("irfd and speak", {"irfd.weight_emotion": "0"}),
    "gan": ("speak", {"speak.weight_adversarial": "0"}),
    "vgg": ("speak", {"speak.weight_perceptual": "0"}),
}
FIRST = ("full", "irfd", "sync", "self")
INSTRUMENT_SEED = 1000  # of the networks that measure: other weights and other people than those in the losses
TRIAL_STEPS = (10, 40)
IRFD_SHARE = 0.5  # of a row's minutes, where a row trains both


@dataclasses.dataclass(frozen=True)
class Job:
    """One `speak train` command."""

    stage: str
    run: Path  # run folder
    steps: int
    seed: int
    sources: dict[str, Path]  # stage -> run folder that it comes from
    settings: dict[str, str]

    def command(self, preset: str, data: str) -> list[str]:
        """The command line."""
        words = [sys.executable, "-m", "speak", "train", "--stage", self.stage, "--out", str(self.run), "--preset",
                 preset, "--data", data, "--seed", str(self.seed), "--steps", str(self.steps)]  # fmt: skip
        for stage, folder in self.sources.items():
            words += ["--from", f"{stage}={folder / stage / WEIGHTS}"]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        return words


def plan(
    out: Path,
    rows: list[str],
    seeds: list[int],
    steps: dict[str, int],  # of each stage
    extra: dict[str, str],  # settings of every job
) -> list[Job]:
    """Every training in order; what is shared comes first."""
    instruments = out / "instruments"
    jobs = [Job(stage, instruments, steps[stage], INSTRUMENT_SEED, {}, extra) for stage in ("judge", "syncnet")]
    for seed in seeds:
        base = out / f"shared-{seed}"
        jobs += [Job(stage, base, steps[stage], seed, {}, extra) for stage in ("perceptual", "audio", "syncnet")]
        if any(ROWS[row][0] == "speak" for row in rows):
            jobs.append(Job("irfd", base, steps["irfd"], seed, {}, extra))
        for row in rows:
            trains, off = ROWS[row]
            run, settings = out / f"{row}-{seed}", {**extra, **off}
            shared = {stage: base for stage in ("perceptual", "audio", "syncnet")}
            if trains == "irfd and speak":
                jobs.append(Job("irfd", run, steps["irfd"], seed, {}, settings))
            shared |= {"speak": {"irfd": base}, "irfd and speak": {"irfd": run}}.get(trains, {})
            jobs.append(Job("speak", run, steps["speak"], seed, shared, settings))
    return jobs


def train(job: Job, preset: str, data: str) -> None:
    """Runs one training unless its weights are finished; adds its minutes to RUN/minutes.json."""
    weights = job.run / job.stage / WEIGHTS
    if weights.is_file():
        from speak import checkpoint

        if checkpoint.load(weights)["step"] >= job.steps:
            return
    start = time.monotonic()
    try:
        subprocess.run(job.command(preset, data), check=True)
    finally:
        note = job.run / "minutes.json"
        if job.run.is_dir():
            spent = json.loads(note.read_text()) if note.is_file() else {}
            spent[job.stage] = spent.get(job.stage, 0.0) + (time.monotonic() - start) / 60
            note.write_text(json.dumps(spent))


def fitted_steps(out: Path, arguments: argparse.Namespace, extra: dict[str, str]) -> dict[str, int]:
    """Steps of each stage; those of `irfd` and `speak` by a trial of their speed, kept in OUT/steps.json."""
    kept = out / "steps.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    steps = {"judge": arguments.judge_steps, "perceptual": arguments.perceptual_steps, "audio": arguments.audio_steps,
             "syncnet": arguments.syncnet_steps}  # fmt: skip
    given = {"irfd": arguments.irfd_steps, "speak": arguments.speak_steps}
    if arguments.dry_run or all(given.values()):
        return steps | {stage: count or 0 for stage, count in given.items()}
    out.mkdir(parents=True, exist_ok=True)
    for stage in ("irfd", "speak"):
        if given[stage] is None:
            settings = {**extra, "speak.train_encoders": "true", "speak.weight_sync": "0",
                        "speak.weight_perceptual": "0"} if stage == "speak" else extra  # fmt: skip
            times = []
            for count in TRIAL_STEPS:
                job = Job(stage, out / f"trial-{count}", count, 0, {}, settings)
                start = time.monotonic()
                subprocess.run(job.command(arguments.preset, arguments.data), check=True)
                times.append(time.monotonic() - start)
            seconds = max(1e-3, (times[1] - times[0]) / (TRIAL_STEPS[1] - TRIAL_STEPS[0]))
            share = IRFD_SHARE if stage == "irfd" else 1 - IRFD_SHARE
            given[stage] = max(20, round(60 * arguments.minutes * share / seconds / 10) * 10)
            print(f"{stage}: {seconds:.2f} s a step, {given[stage]} steps")
    steps |= given
    kept.write_text(json.dumps(steps))
    return steps


def main(argv: list[str] | None = None) -> None:
    """Trains every row and writes the tables to OUT/tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(FIRST), metavar="ROW", help=f"all, or of {', '.join(ROWS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=20.0, help="of training a row and seed (default 20)")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--irfd-steps", type=int, help="instead of the trial")
    parser.add_argument("--speak-steps", type=int, help="instead of the trial")
    for stage, count in (("judge", 4000), ("perceptual", 2000), ("audio", 2000), ("syncnet", 3000)):
        parser.add_argument(f"--{stage}-steps", type=int, default=count, help=f"default {count}, once or a seed")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value",
                        help="of every training, such as irfd.weight_cross=0 for the paper's losses alone")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(argv)
    rows = list(ROWS) if arguments.rows == ["all"] else arguments.rows
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"no row '{unknown[0]}': choose all, or of {', '.join(ROWS)}")
    extra = dict(setting.split("=", 1) for setting in arguments.settings)
    steps = fitted_steps(arguments.out, arguments, extra)
    jobs = plan(arguments.out, rows, arguments.seeds, steps, extra)
    instruments = arguments.out / "instruments"
    tables = [sys.executable, "-m", "speak", "evaluate", "--ablations",
              *(str(arguments.out / f"{row}-{seed}") for row in rows for seed in arguments.seeds),
              "--data", arguments.data, "--judge", str(instruments / "judge" / WEIGHTS),
              "--syncnet", str(instruments / "syncnet" / WEIGHTS), "--out", str(arguments.out / "tables")]  # fmt: skip
    if arguments.dry_run:
        for job in jobs:
            print(shlex.join(job.command(arguments.preset, arguments.data)))
        print(shlex.join(tables))
        return
    for number, job in enumerate(jobs, 1):
        print(f"[{number} of {len(jobs)}] {job.stage} into {job.run}", flush=True)
        train(job, arguments.preset, arguments.data)
    subprocess.run(tables, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
