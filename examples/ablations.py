"""The ablations of SPEAK Tables 3 and 4 at preset `tiny`: about 20 CPU minutes a row and seed, resumable.

    python examples/ablations.py --out runs/ablations                      # full, without IRFD, sync, self
    python examples/ablations.py --out runs/ablations --rows all           # every row of the paper
    python examples/ablations.py --out runs/ablations --rows full sync --seeds 0 --shared runs/default
    python examples/ablations.py --out runs/ablations --dry-run            # only says what it would run

Shared by all rows of a seed: the audio encoder, the perceptual net, SyncNet, and (but for rows that change it) IRFD;
--shared takes them from a run folder that has them. Rows of IRFD's losses train `irfd` again and then `speak`; rows of
SPEAK's losses train `speak` only. All rows have the same steps, fitted once to --minutes by a short trial. The judge
and the SyncNet that measure have other weights and have seen other people than those in the losses. Interrupted, the
same command goes on where it stopped; more rows or seeds may be asked for later.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

WEIGHTS = "weights.pt"
IRFD, SPEAK, BOTH = "speak without irfd", "speak", "irfd and speak"
# row -> (what it trains anew, what it switches off)
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "full": (SPEAK, {}),
    "irfd": (IRFD, {"speak.train_encoders": "true"}),
    "sync": (SPEAK, {"speak.weight_sync": "0"}),
    "self": (BOTH, {"irfd.weight_self": "0"}),
    # The paper's IRFD without `self` compares no picture with a true one; ours still does in the terms of our own.
    "pictures": (BOTH, {f"irfd.weight_{name}": "0" for name in ("self", "cross", "perceptual", "reading")}),
    "cross": (BOTH, {"irfd.weight_cross": "0"}),
    "identity": (BOTH, {"irfd.weight_identity": "0"}),
    "cls": (BOTH, {"irfd.weight_classification": "0"}),
    "pose": (BOTH, {"irfd.weight_pose": "0"}),
    "emotion": (BOTH, {"irfd.weight_emotion": "0"}),
    "gan": (SPEAK, {"speak.weight_adversarial": "0"}),
    "vgg": (SPEAK, {"speak.weight_perceptual": "0"}),
}
FIRST = ("full", "irfd", "sync", "self", "pictures")
INSTRUMENT_SEED = 1000  # of the weights and of the people of the networks that measure
TRIAL_STEPS, TRIAL_LOG = 40, 10
IRFD_SHARE = 0.5  # of a row's minutes, where a row trains both
STEPS = {"judge": 4000, "perceptual": 2000, "audio": 2000, "syncnet": 3000, "irfd": None, "speak": None}


@dataclasses.dataclass(frozen=True)
class Job:
    """One `speak train` command."""

    stage: str
    run: Path  # run folder
    seed: int
    data: str
    sources: dict[str, Path]  # stage -> weights that come from elsewhere
    settings: dict[str, str]

    @property
    def weights(self) -> Path:
        """What it makes."""
        return self.run / self.stage / WEIGHTS

    def command(self, preset: str, steps: int | str) -> list[str]:
        """The command line."""
        words = [sys.executable, "-m", "speak", "train", "--stage", self.stage, "--out", str(self.run), "--preset",
                 preset, "--data", self.data, "--seed", str(self.seed), "--steps", str(steps)]  # fmt: skip
        for stage, weights in self.sources.items():
            words += ["--from", f"{stage}={weights}"]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        return words


def plan(
    out: Path,
    rows: list[str],
    seeds: list[int],
    extra: dict[str, str],  # settings of every job
    data: str,
    shared: Path | None = None,  # a run folder whose stages serve all rows
) -> list[Job]:
    """Every training in order; what is shared comes first."""
    # Some stages need exact truth, which only rendered people have; those that measure see other people.
    rendered = data if data.partition(":")[0] == "synthetic" else "synthetic"
    others = f"synthetic:{INSTRUMENT_SEED}"
    jobs = [Job("judge", out / "instruments", INSTRUMENT_SEED, others, {}, extra),
            Job("syncnet", out / "instruments", INSTRUMENT_SEED, others, {}, extra)]  # fmt: skip
    if any(seed < 0 for seed in seeds):
        raise SystemExit("--seeds are numbers from 0 on")
    for seed in seeds:
        base, sources = out / f"shared-{seed}", {}
        for stage in ("perceptual", "audio", "syncnet", "irfd"):
            kept = None if shared is None else shared / stage / WEIGHTS
            if kept is not None and kept.is_file():
                sources[stage] = kept
            elif stage != "irfd" or any(ROWS[row][0] == SPEAK for row in rows):
                known = {"perceptual": sources["perceptual"]} if stage == "irfd" else {}
                job = Job(stage, base, seed, rendered if stage in ("perceptual", "audio") else data, known, extra)
                sources[stage] = job.weights
                jobs.append(job)
        for row in rows:
            trains, off = ROWS[row]
            run, own = out / f"{row}-{seed}", dict(sources)
            if trains != SPEAK:
                own.pop("irfd", None)
            if trains == BOTH:
                known = {"perceptual": sources["perceptual"]}
                jobs.append(Job("irfd", run, seed, data, known, {**extra, **off}))
                own["irfd"] = jobs[-1].weights
            jobs.append(Job("speak", run, seed, data, own, {**extra, **off}))
    return jobs


def step_of(weights: Path) -> int:
    """The steps that a weights file has behind it; 0 where there is none."""
    if not weights.is_file():
        return 0
    from speak import checkpoint

    return checkpoint.load(weights)["step"]


def call(words: list[str]) -> None:
    """Runs a command. Ctrl-C and SIGTERM are its own business: a training saves everything first, then stops."""
    process = subprocess.Popen(words)
    handlers = {number: signal.signal(number, lambda *_, told=number: told == signal.SIGTERM and process.terminate())
                for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code:
        raise subprocess.CalledProcessError(code, words)


def train(job: Job, preset: str, steps: int) -> None:
    """Runs one training unless its weights are finished; adds its minutes to RUN/minutes.json."""
    if step_of(job.weights) >= steps:
        return
    start = time.monotonic()
    try:
        call(job.command(preset, steps))
    finally:
        note = job.run / "minutes.json"
        if job.run.is_dir():
            spent = json.loads(note.read_text()) if note.is_file() else {}
            spent[job.stage] = spent.get(job.stage, 0.0) + (time.monotonic() - start) / 60
            note.write_text(json.dumps(spent))


class Steps:
    """Steps of each stage: given, or fitted to the minutes by a trial; what was fitted is kept in OUT/steps.json."""

    def __init__(self, out: Path, given: dict[str, int | None], minutes: float, shared: Path | None) -> None:
        self.file, self.minutes = out / "steps.json", minutes
        kept = json.loads(self.file.read_text()) if self.file.is_file() else {}
        trained = step_of(shared / "irfd" / WEIGHTS) if shared else 0
        # Rows that train IRFD anew train it for as long as the shared one was trained; the minutes are all of `speak`.
        self.share = {"irfd": IRFD_SHARE, "speak": 1.0 if trained else 1 - IRFD_SHARE}
        self.known = {**kept, **({"irfd": trained} if trained else {}), **{k: v for k, v in given.items() if v}}

    def of(self, job: Job, preset: str) -> int:
        """For this job; a trial the first time that its stage is met."""
        if job.stage not in self.known:
            settings = {**job.settings, "train.log_every": str(TRIAL_LOG)}
            # Another folder: a trial's schedule is no training's.
            trial = dataclasses.replace(job, run=self.file.parent / "trial", settings=settings)
            call(trial.command(preset, TRIAL_STEPS))
            rows = [json.loads(line) for line in (trial.run / job.stage / "log.jsonl").read_text().splitlines()]
            # the first ones wait for the data to begin; some losses join in half-way
            seconds = [1 / row["samples_per_second"] for row in rows if "samples_per_second" in row][1:]
            rate = len(seconds) / sum(seconds) / self._batch(trial)
            self.known[job.stage] = max(20, round(60 * self.minutes * self.share[job.stage] * rate / 10) * 10)
            print(f"{job.stage}: {rate:.2f} steps a second, {self.known[job.stage]} steps")
            self.file.write_text(json.dumps(self.known))
        return self.known[job.stage]

    def _batch(self, trial: Job) -> int:
        from speak import checkpoint

        return checkpoint.load(trial.weights)["config"][trial.stage]["batch"]


def spent_minutes(out: Path) -> str:
    """Minutes of training in every folder, for the report."""
    notes = sorted(out.glob("*/minutes.json"))
    spent = {note.parent.name: sum(json.loads(note.read_text()).values()) for note in notes}
    each = ", ".join(f"{name} {minutes:.1f}" for name, minutes in spent.items())
    return f"minutes of training: {sum(spent.values()):.1f} in all ({each})"


def main(argv: list[str] | None = None) -> None:
    """Trains every row and writes the tables to OUT/tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(FIRST), metavar="ROW", help=f"all, or of {', '.join(ROWS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--minutes", type=float, default=20.0, help="of training a row and seed (default 20)")
    parser.add_argument("--shared", type=Path, metavar="RUN", help="run folder that already has shared stages")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--data", default="synthetic")
    for stage, count in STEPS.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=count, metavar="N",
                            help=f"default {count}" if count else "instead of the trial")  # fmt: skip
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value",
                        help="of every training, such as irfd.weight_cross=0 for the paper's losses alone")  # fmt: skip
    parser.add_argument("--measure", action="append", default=[], metavar="key=value",
                        help="--set of the evaluation, such as clips=48")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(argv)
    out, rows = arguments.out, list(ROWS) if arguments.rows == ["all"] else arguments.rows
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"no row '{unknown[0]}': choose all, or of {', '.join(ROWS)}")
    if any("=" not in setting for setting in arguments.settings):
        parser.error("write --set key=value")
    extra = dict(setting.split("=", 1) for setting in arguments.settings)
    given = {stage: getattr(arguments, f"{stage}_steps") for stage in STEPS}
    jobs = plan(out, rows, arguments.seeds, extra, arguments.data, arguments.shared)
    tables = [sys.executable, "-m", "speak", "evaluate", "--ablations",
              *(str(out / f"{row}-{seed}") for row in rows for seed in arguments.seeds),
              "--data", arguments.data, "--judge", str(jobs[0].weights), "--syncnet", str(jobs[1].weights),
              "--out", str(out / "tables")]  # fmt: skip
    tables += [word for setting in arguments.measure for word in ("--set", setting)]
    steps = Steps(out, given, arguments.minutes, arguments.shared)
    if arguments.dry_run:
        for job in jobs:
            print(shlex.join(job.command(arguments.preset, steps.known.get(job.stage, "FITTED"))))
        print(shlex.join(tables))
        return
    out.mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(jobs, 1):
        print(f"[{number} of {len(jobs)}] {job.stage} into {job.run}", flush=True)
        train(job, arguments.preset, steps.of(job, arguments.preset))
    call(tables)
    print(spent_minutes(out))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
