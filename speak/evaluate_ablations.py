"""Tables 3 and 4: several runs, each with something switched off, beside the paper's rows.

What a run is, its configuration says: a loss that its preset has and that it switched off names the row. Runs that
differ in the seed only are one row, with the spread between them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speak import checkpoint, metrics
from speak.config import Config, from_dict, preset
from speak.errors import SpeakError
from speak.evaluate_clips import COLUMNS
from speak.evaluate_instruments import WEIGHTS
from speak.evaluate_report import BESIDE, DIGITS, PUBLISHED_NOTE, TABLE_1

FULL = "SPEAK"
# row -> (MEAD, HDTF) as published, columns of TABLE_1
PAPER: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    FULL: ((0.81, 29.31, 2.48, 3.25, 3.99), (0.83, 29.46, 2.32, 3.02, 3.96)),
    "w/o identity": ((0.63, 25.23, 4.26, 3.29, 3.06), (0.66, 25.47, 4.11, 3.13, 3.01)),
    "w/o cls": ((0.75, 28.11, 2.78, 3.27, 3.81), (0.79, 28.33, 2.65, 3.08, 3.82)),
    "w/o pose": ((0.65, 25.89, 3.39, 3.51, 3.72), (0.67, 26.12, 3.26, 3.27, 3.68)),
    "w/o emotion": ((0.69, 26.74, 3.21, 3.14, 3.29), (0.71, 26.84, 3.12, 3.02, 3.29)),
    "w/o self": ((0.58, 25.45, 3.87, 3.66, 3.12), (0.61, 25.79, 3.79, 3.54, 3.07)),
    "w/o IRFD": ((0.55, 24.77, 5.25, 3.88, 2.96), (0.58, 24.89, 5.17, 3.71, 2.92)),
    "w/o GAN": ((0.61, 26.69, 4.12, 3.81, 3.14), (0.62, 26.88, 3.99, 3.67, 3.02)),
    "w/o vgg": ((0.72, 27.01, 3.37, 3.76, 3.67), (0.75, 27.13, 3.21, 3.64, 3.61)),
    "w/o sync": ((0.72, 28.41, 2.64, 4.14, 3.16), (0.76, 28.57, 2.52, 3.98, 3.15)),
}
# row -> the figure that what is missing is there for
MEANT_FOR = {
    "w/o identity": "csim", "w/o cls": "emotion", "w/o pose": "f_lmd", "w/o emotion": "emotion", "w/o self": "ssim",
    "w/o IRFD": "f_lmd", "w/o GAN": "ssim", "w/o vgg": "ssim", "w/o sync": "sync_conf", "w/o cross": "f_lmd",
    "w/o self and cross": "ssim",
}  # fmt: skip
# The paper's IRFD without `self` compares no picture with a true one; ours then still has `cross`, which is not theirs.
OURS = "w/o cross"
AS_PUBLISHED = {"w/o self and cross": "w/o self"}
LESS_IS_BETTER = ("f_lmd", "m_lmd", "sync_distance")
# row -> (stage, the weight in its configuration)
SWITCHES = {
    "w/o identity": ("irfd", "weight_identity"), "w/o cls": ("irfd", "weight_classification"),
    "w/o pose": ("irfd", "weight_pose"), "w/o emotion": ("irfd", "weight_emotion"), "w/o self": ("irfd", "weight_self"),
    OURS: ("irfd", "weight_cross"), "w/o GAN": ("speak", "weight_adversarial"),
    "w/o vgg": ("speak", "weight_perceptual"), "w/o sync": ("speak", "weight_sync"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """One ablation run."""

    folder: Path
    off: tuple[str, ...]  # rows of what is switched off; () for the full model
    seed: int
    means: dict[str, float]  # of the generated clips, by name of COLUMNS
    minutes: float  # of training, as the recipe noted them; NaN where it did not
    truth: dict[str, float] = dataclasses.field(default_factory=dict)  # means of the true clips
    clips: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)  # name of the clip -> its figures

    @property
    def row(self) -> str:
        """The row's name."""
        return " and ".join([*self.off[:1], *(name.removeprefix("w/o ") for name in self.off[1:])]) or FULL


def switched_off(speak: Config, irfd: Config | None) -> tuple[str, ...]:
    """What the preset has and the run has not, as rows of the paper. `irfd`: of the run's own stage irfd."""
    usual = preset(speak.preset)
    off = []
    for row, (stage, key) in SWITCHES.items():
        used = (irfd or speak) if stage == "irfd" else speak
        if getattr(getattr(usual, stage), key) and not getattr(getattr(used, stage), key):
            off.append(row)
    if getattr(speak.speak, "train_encoders", False):  # from scratch, with stage speak
        off.append("w/o IRFD")
    return tuple(off)


def as_in_the_paper(runs: list[Run]) -> list[Run]:
    """Where no run has `cross`, which the paper has not, its absence names no row."""
    if all(OURS in run.off for run in runs):
        return [dataclasses.replace(run, off=tuple(name for name in run.off if name != OURS)) for run in runs]
    return runs


def read_run(
    folder: Path,
    evaluate: Callable[[Path, Path], dict[str, Any]],  # (weights, where to write) -> the report as a dictionary
) -> Run:
    """A run's figures; those of an earlier evaluation of the same weights serve again.

    Raises SpeakError where the folder has no trained model.
    """
    weights = folder / "speak" / WEIGHTS
    if not weights.is_file():
        raise SpeakError(f"{weights}: not there: an ablation run has trained stage speak")
    speak = from_dict(checkpoint.load(weights)["config"])
    own = folder / "irfd" / WEIGHTS
    irfd = from_dict(checkpoint.load(own)["config"]) if own.is_file() else None
    report = evaluate(weights, folder / "evaluation")
    means = {name: _number(report["means"]["generated"][name]["mean"]) for name in COLUMNS}
    truth = {name: _number(report["means"]["truth"][name]["mean"]) for name in COLUMNS}
    clips = {clip["name"]: {name: _number(clip["generated"].get(name)) for name in COLUMNS}
             for clip in report["clips"] if not clip["error"]}  # fmt: skip
    return Run(folder, switched_off(speak, irfd), speak.train.seed, means, _minutes(folder), truth, clips)


def markdown(runs: list[Run], facts: dict[str, str]) -> str:
    """Tables 3 and 4: our rows and the paper's."""
    columns = TABLE_1 + BESIDE
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    full = rows.get(FULL, [])
    lines = ["# Ablations", "", "| | " + " | ".join(COLUMNS[name] for name in columns) + " | seeds | minutes a run | "
             "what it is for |", "|---" * (len(columns) + 4) + "|"]  # fmt: skip
    for row in sorted(rows, key=lambda name: list(PAPER).index(name) if name in PAPER else len(PAPER)):
        found = rows[row]
        cells = [_spread([run.means[name] for run in found], name) for name in columns]
        minutes = [run.minutes for run in found if math.isfinite(run.minutes)]
        took = f"{sum(minutes) / len(minutes):.0f}" if minutes else "-"
        seeds = ", ".join(str(run.seed) for run in found)
        lines.append(f"| {row} | {' | '.join(cells)} | {seeds} | {took} | {verdict(row, found, full)} |")
    if runs and runs[0].truth:
        cells = [_spread([runs[0].truth[name]], name) for name in columns]
        lines.append(f"| ground truth | {' | '.join(cells)} | | | |")
    published = {AS_PUBLISHED.get(row, row) for row in rows}
    for row in PAPER:
        if row in published:
            for data, values in zip(("MEAD", "HDTF"), PAPER[row], strict=True):
                cells = [f"{value:.{DIGITS[name]}f}" for name, value in zip(TABLE_1, values, strict=True)]
                lines.append(f"| {row}, published, {data} | {' | '.join(cells)} | | | | | |")
    owed = [row for row in PAPER if row not in published]
    lines += ["", "Means over the test clips; of several seeds the mean and, in brackets, least and largest. What a "
              "row loses against the full model is taken clip by clip, with its 95 % interval over the clips. "
              f"{PUBLISHED_NOTE}", ""]  # fmt: skip
    if owed:
        lines += [f"Not run: {', '.join(owed)}.", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def verdict(row: str, runs: list[Run], full: list[Run]) -> str:
    """Whether what was switched off worsens the figure that it is there for: over the clips, and for every seed."""
    name = MEANT_FOR.get(row)
    digits = DIGITS[name] + 1 if name else 0
    if name is None or not full:
        return ""
    without, complete = ([run.means[name] for run in found if math.isfinite(run.means[name])] for found in (runs, full))
    if not without or not complete:
        return f"{COLUMNS[name]}: not measured"
    sign = -1 if name in LESS_IS_BETTER else 1
    loss = sign * (sum(complete) / len(complete) - sum(without) / len(without))
    apart = max(sign * value for value in without) < min(sign * value for value in complete)
    change = f"{COLUMNS[name]} {'worse' if loss > 0 else 'better'} by {abs(loss):.{digits}f}"
    paired = metrics.mean_of([sign * (before - after) for before, after in _same_clips(full, runs, name)])
    if math.isfinite(paired.low):
        low, high = (paired.low, paired.high) if loss > 0 else (-paired.high, -paired.low)
        change += f" ({low:.{digits}f} to {high:.{digits}f})"
    if loss <= 0:
        return change
    if min(len(without), len(complete)) < 2:
        return change + ", one seed"
    return change + (", every seed" if apart else ", within the spread of seeds")


def _same_clips(full: list[Run], runs: list[Run], name: str) -> list[tuple[float, float]]:
    """A figure of each clip with and without, each the mean over the seeds."""
    def means(found: list[Run], clip: str) -> float:
        values = [run.clips[clip][name] for run in found]
        return sum(values) / len(values)

    common = [clip for clip in full[0].clips if all(clip in run.clips for run in (*full, *runs))]
    return [(means(full, clip), means(runs, clip)) for clip in common]


def _spread(values: list[float], name: str) -> str:
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return "-"
    text = f"{sum(kept) / len(kept):.{DIGITS[name]}f}"
    return text if len(kept) < 2 else f"{text} ({min(kept):.{DIGITS[name]}f} to {max(kept):.{DIGITS[name]}f})"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _minutes(folder: Path) -> float:
    """Minutes of training that the recipe noted in RUN/minutes.json, a number a stage."""
    try:
        return float(sum(json.loads((folder / "minutes.json").read_text()).values()))
    except (OSError, ValueError, AttributeError, TypeError):
        return math.nan
