"""The figures of an evaluation as tables: JSON, CSV (a row a clip) and Markdown, each file whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from speak import metrics
from speak.evaluate_clips import COLUMNS, Row, Shown
from speak.media.files import make_folder, whole_file

TABLE_1 = ("ssim", "psnr", "f_lmd", "m_lmd", "sync_conf")
BESIDE = ("csim", "emotion")
# SPEAK's own figures for itself and for the ground truth, as published; on MEAD and HDTF, with syncnet_v2
PUBLISHED = {
    "SPEAK as published, MEAD": (0.81, 29.31, 2.48, 3.25, 3.99),
    "SPEAK as published, HDTF": (0.83, 29.46, 2.32, 3.02, 3.96),
    "ground truth as published, MEAD": (1.0, None, 0.0, 0.0, 5.41),
    "ground truth as published, HDTF": (1.0, None, 0.0, 0.0, 5.23),
}
PUBLISHED_NOTE = (
    "The published rows are of other data: for orientation only. Their Sync_conf is syncnet_v2's; speak's own SyncNet "
    "has another scale, at most 2, to be read against the ground truth's."
)
NOTE = (
    "Means over clips with 95 % intervals (Student's t; of emotion, the share of clips named rightly, Wilson's). "
    + PUBLISHED_NOTE
)
DIGITS = {"ssim": 3, "csim": 3, "psnr": 2, "f_lmd": 2, "m_lmd": 2, "sync_conf": 2, "sync_distance": 2, "offset": 1,
          "emotion": 2}  # fmt: skip


@dataclasses.dataclass
class Report:
    """One evaluation: what was measured, with what, and what came out."""

    title: str
    facts: dict[str, str]  # weights, data, conventions, instruments
    rows: list[Row]
    shown: list[Shown] = dataclasses.field(default_factory=list)

    def means(self) -> dict[str, dict[str, metrics.Mean]]:
        """Means over the clips with their intervals: "generated", "truth" and "reader", each by column."""
        kinds = ("generated", "truth", "reader")
        measured = [row for row in self.rows if not row.error]
        return {
            kind: {name: (metrics.share_of if name == "emotion" else metrics.mean_of)(
                [getattr(row, kind).get(name, math.nan) for row in measured]) for name in COLUMNS}
            for kind in kinds
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what was not measured, and infinity, is None."""
        means = {kind: {name: dataclasses.asdict(mean) for name, mean in found.items()}
                 for kind, found in self.means().items()}  # fmt: skip
        return plain({"title": self.title, "facts": self.facts, "means": means,
                      "clips": [dataclasses.asdict(row) for row in self.rows]})  # fmt: skip


def plain(value: Any) -> Any:
    """NaN and infinity as None, all through."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tables(report: Report, out: Path) -> list[Path]:
    """report.json, clips.csv and report.md in `out`."""
    make_folder(out)
    files = {
        "report.json": json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n",
        "clips.csv": clips_csv(report),
        "report.md": markdown(report),
    }
    for name, text in files.items():
        write_text(out / name, text)
    return [out / name for name in files]


def clips_csv(report: Report) -> str:
    """A row a clip: every figure of the generated and of the true video, the notes and the error."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    kinds = ("generated", "truth", "reader")
    names = [f"{kind}_{name}" for kind in kinds for name in COLUMNS]
    writer.writerow(["name", "identity", "frames", *names, "notes", "error"])
    for row in report.rows:
        values = [getattr(row, kind).get(name, math.nan) for kind in kinds for name in COLUMNS]
        cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
        writer.writerow([row.name, row.identity, row.frames, *cells, "; ".join(row.notes), row.error])
    return file.getvalue()


def markdown(report: Report) -> str:
    """The report as Markdown: Table 1's columns, then what was measured with, then each clip."""
    means = report.means()
    columns = TABLE_1 + BESIDE
    lines = [f"# {report.title}", "", "| | " + " | ".join(COLUMNS[name] for name in columns) + " | clips |",
             "|---" * (len(columns) + 2) + "|"]  # fmt: skip
    names = {"generated": "generated", "truth": "ground truth", "reader": "landmarks as read from the truth"}
    for kind, name in names.items():
        found = means[kind]
        if kind != "reader" or any(mean.count for mean in found.values()):
            cells = [interval_text(found[column], column, kind) for column in columns]
            lines.append(f"| {name} | {' | '.join(cells)} | {max(mean.count for mean in found.values())} |")
    for name, values in PUBLISHED.items():
        cells = ["-" if value is None else f"{value:.{DIGITS[column]}f}"
                 for column, value in zip(TABLE_1, values, strict=True)]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} | | | |")
    lines += ["", NOTE, ""]
    lines += [f"- {key}: {value}" for key, value in report.facts.items()]
    failed = [row for row in report.rows if row.error]
    if failed:
        lines += ["", f"## Not measured: {len(failed)} of {len(report.rows)}", ""]
        lines += [f"- {row.name}: {row.error}" for row in failed]
    lines += ["", "## Clips", "", "| clip | frames | " + " | ".join(COLUMNS.values()) + " | truth: Sync_conf | "
              "truth: offset | notes |", "|---" * (len(COLUMNS) + 5) + "|"]  # fmt: skip
    for row in report.rows:
        if row.error:
            continue
        cells = [number_text(row.generated.get(name, math.nan), name) for name in COLUMNS]
        true = [number_text(row.truth.get(name, math.nan), name) for name in ("sync_conf", "offset")]
        notes = "; ".join(row.notes).replace("|", "/")
        name = row.name.replace("|", "/")
        lines.append(f"| {name} | {row.frames} | {' | '.join(cells)} | {' | '.join(true)} | {notes} |")
    return "\n".join(lines) + "\n"


def number_text(value: float, column: str) -> str:
    """A figure with the digits that its column has; a dash where it was not measured or is infinite."""
    return f"{value:.{DIGITS[column]}f}" if math.isfinite(value) else "-"


def interval_text(mean: metrics.Mean, column: str, kind: str = "") -> str:
    """Mean and interval."""
    if not mean.count:
        return "-"
    text = number_text(mean.mean, column)
    if not math.isfinite(mean.low) or mean.high - mean.low < 10 ** -DIGITS[column]:
        return text
    return f"{text} ({number_text(mean.low, column)} to {number_text(mean.high, column)})"
