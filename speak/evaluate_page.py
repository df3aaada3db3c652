"""One HTML page that opens without a network: tables, plots as SVG, stills and small videos, all inside the file."""

from __future__ import annotations

import base64
import html
import io
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speak.errors import SpeakError
from speak.evaluate_clips import COLUMNS, Shown
from speak.evaluate_report import DIGITS, TABLE_1, Report

STYLE = """
body { font: 15px/1.45 sans-serif; color: #222; max-width: 1300px; margin: 24px auto; padding: 0 16px; }
table { border-collapse: collapse; margin: 12px 0; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: 3px 8px; text-align: right; white-space: nowrap; }
td small { color: #666; }
th, td:last-child { white-space: normal; }
td:first-child, th:first-child { text-align: left; }
img, video { max-width: 100%; display: block; margin: 6px 0; }
figure { margin: 18px 0; } figcaption { color: #555; }
svg { background: #fafafa; border: 1px solid #ddd; margin: 4px; }
"""
STILLS = 6  # of a clip
LEAST_SIDE = 128  # pixels of a shown frame; smaller ones are enlarged
LARGEST_VIDEO = 4 << 20  # bytes; a larger one is left out of the page


def page(
    title: str,
    markdown: str,  # headings, tables, lists and paragraphs
    figures: list[str],  # HTML that follows the first table
) -> str:
    """The whole page."""
    body = from_markdown(markdown)
    first, separator, rest = body.partition("</table>")
    content = first + separator + "\n".join(figures) + rest
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n{content}\n</body></html>\n")  # fmt: skip


def report_page(report: Report, markdown: str) -> str:
    """The page of an evaluation of clips."""
    plots = "".join(strip_plot(report, column) for column in (*TABLE_1, "csim"))
    figures = [f"<h2>Every clip</h2><p>Left: generated; right: ground truth.</p>{plots}"]
    if report.shown:
        figures.append("<h2>Side by side</h2>")
    figures += [shown_figure(clip) for clip in report.shown]
    return page(report.title, markdown, figures)


def from_markdown(text: str) -> str:
    """HTML of the little Markdown that reports use: #, ##, tables, - lists, paragraphs, **bold**, `code`."""
    blocks, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("|"):
            rows = [line]
            while lines and lines[0].startswith("|"):
                rows.append(lines.pop(0))
            cells = [[_cell(cell.strip()) for cell in row.strip().strip("|").split("|")] for row in rows]
            head = "".join(f"<th>{cell}</th>" for cell in cells[0])
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[2:])
            blocks.append(f"<table><tr>{head}</tr>{body}</table>")
        elif line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            blocks.append(f"<h{level}>{_inline(line[level:].strip())}</h{level}>")
        elif line.startswith("- "):
            items = [line]
            while lines and lines[0].startswith("- "):
                items.append(lines.pop(0))
            blocks.append("<ul>" + "".join(f"<li>{_inline(item[2:])}</li>" for item in items) + "</ul>")
        elif line.strip():
            blocks.append(f"<p>{_inline(line)}</p>")
    return "\n".join(blocks)


def _cell(text: str) -> str:
    """A figure's interval goes below it, so that tables fit the page."""
    return re.sub(r"^(\S+) (\(\S+ to \S+\))$", r"\1<br><small>\2</small>", _inline(text))


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def strip_plot(report: Report, column: str, width: int = 240, height: int = 150) -> str:
    """A figure's values of all clips as SVG, generated beside truth; empty where there is none."""
    sides = {kind: [getattr(row, kind).get(column, math.nan) for row in report.rows if not row.error]
             for kind in ("generated", "truth")}  # fmt: skip
    sides = {kind: [value for value in values if math.isfinite(value)] for kind, values in sides.items()}
    values = [value for side in sides.values() for value in side]
    if not sides["generated"]:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    marks = []
    for place, (kind, found) in enumerate(sides.items()):
        middle = 95 + 90 * place
        for n, value in enumerate(found):
            x = middle + (n % 9 - 4) * 5
            y = height - 24 - (value - low) / span * (height - 56)
            marks.append(f'<circle cx="{x}" cy="{y:.1f}" r="3" fill="{("#1f5fae", "#999")[place]}" opacity=".7"/>')
        marks.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle" font-size="11">{kind}</text>')
    for value, y in ((high, 32), (low, height - 24)):
        marks.append(f'<text x="4" y="{y + 4}" font-size="11">{value:.{DIGITS[column]}f}</text>')
    title = f'<text x="4" y="14" font-size="13" font-weight="bold">{COLUMNS[column]}</text>'
    return f'<svg width="{width}" height="{height}" role="img">{title}{"".join(marks)}</svg>'


def shown_figure(clip: Shown) -> str:
    """Stills (truth above generated) and the video of one clip, inside the page."""
    name = html.escape(clip.name)
    parts = [f'<img alt="{name}: true frames above, generated below" src="{picture_uri(stills(clip))}">']
    try:
        data = video_bytes(clip)
    except (SpeakError, ImportError) as error:
        parts.append(f"<p>no video: {html.escape(str(error))}</p>")
    else:
        if len(data) <= LARGEST_VIDEO:
            encoded = base64.b64encode(data).decode()
            parts.append(f'<video controls loop src="data:video/mp4;base64,{encoded}"></video>')
        else:
            parts.append(f"<p>no video: {len(data) >> 20} MB are too large for the page</p>")
    caption = f"{name}. Stills: truth above, generated below. Video: the photo, the truth, generated."
    return f"<figure>{''.join(parts)}<figcaption>{caption}</figcaption></figure>"


def stills(clip: Shown) -> np.ndarray:
    """uint8 [2 S, STILLS * S, 3]: true frames above the generated ones of the same time."""
    count = min(len(clip.truth), len(clip.generated))
    places = np.linspace(0, count - 1, min(STILLS, count)).round().astype(int)
    rows = [torch.cat([_enlarged(frames[place]) for place in places], 2) for frames in (clip.truth, clip.generated)]
    return torch.cat(rows, 1).permute(1, 2, 0).numpy()


def video_bytes(clip: Shown) -> bytes:
    """The photo, the truth and the generated video beside each other, with the sound, as mp4."""
    from fractions import Fraction

    from speak.media.audio import write_wav
    from speak.media.video import VideoWriter

    with tempfile.TemporaryDirectory(prefix="speak-") as folder:
        sound = None
        if clip.speech is not None:
            sound = Path(folder) / "speech.wav"
            write_wav(sound, clip.speech.numpy())
        out = Path(folder) / "clip.mp4"
        rate = Fraction(clip.rate).limit_denominator(1001)
        seconds = len(clip.generated) / clip.rate
        with VideoWriter(out, sound, seconds if sound else None, rate=rate, quality=23) as writer:
            for true, made in zip(clip.truth, clip.generated, strict=False):
                columns = [_enlarged(frame) for frame in (clip.identity, true, made)]
                writer.write(torch.cat(columns, 2).permute(1, 2, 0).contiguous().numpy())
        return out.read_bytes()


def picture_uri(picture: np.ndarray) -> str:
    """uint8 [H, W, 3] as a data URI: PNG, or JPEG where that would be large."""
    from PIL import Image

    data, image = io.BytesIO(), Image.fromarray(picture)
    kind = "png" if picture.size < 400_000 else "jpeg"
    image.save(data, kind.upper(), **({} if kind == "png" else {"quality": 92}))
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _enlarged(frame: Tensor) -> Tensor:
    """uint8 [3, H, W] at whole multiples of its size up to LEAST_SIDE."""
    times = max(1, -(-LEAST_SIDE // frame.shape[-1]))
    return frame.repeat_interleave(times, 1).repeat_interleave(times, 2)
