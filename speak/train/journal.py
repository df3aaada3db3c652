"""Pictures of a training: rows of samples, and the losses plotted. Pillow comes with imageio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speak.media.files import whole_file

_WIDTH, _HEIGHT, _MARGIN = 420, 150, 26
_NO_LOSS = ("step", "samples_per_second", "waited", "learning_rate")


def save_picture(
    path: Path,
    rows: Tensor,  # [rows, columns, 3, H, W] in [-1, 1]
) -> None:
    """Writes a contact sheet as PNG. Raises SpeakError where the disk refuses."""
    from PIL import Image

    count, columns, _, height, width = rows.shape
    sheet = rows.float().clamp(-1, 1).add(1).mul(127.5).round().byte().cpu()
    sheet = sheet.permute(0, 3, 1, 4, 2).reshape(count * height, columns * width, 3)
    image = Image.fromarray(sheet.numpy())
    if width < 128:
        image = image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST)
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def save_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes every loss and held-out figure of the log over the steps, a panel each, as PNG."""
    from PIL import Image, ImageDraw

    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in _NO_LOSS and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, []).append((float(row["step"]), float(value)))
    curves = {key: points for key, points in curves.items() if len(points) > 1}
    if not curves:
        return
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)
    image = Image.new("RGB", (columns * _WIDTH, lines * _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for place, (key, points) in enumerate(curves.items()):
        left, top = place % columns * _WIDTH, place // columns * _HEIGHT
        steps, values = [point[0] for point in points], [point[1] for point in points]
        low, high = min(values), max(values)
        spread = (high - low) or 1.0
        span = (steps[-1] - steps[0]) or 1.0
        box = (left + _MARGIN, top + _MARGIN, left + _WIDTH - 10, top + _HEIGHT - 18)
        draw.rectangle(box, outline="#bbbbbb")
        line = [
            (box[0] + (step - steps[0]) / span * (box[2] - box[0]), box[3] - (value - low) / spread * (box[3] - box[1]))
            for step, value in points
        ]
        draw.line(line, fill="#1f5fae", width=1)
        draw.text((left + _MARGIN, top + 6), f"{key}: {low:.4g} to {high:.4g}, last {values[-1]:.4g}", fill="black")
        draw.text((left + _MARGIN, top + _HEIGHT - 15), f"steps {steps[0]:.0f} to {steps[-1]:.0f}", fill="#666666")
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def side_by_side(*columns: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] each -> rows [B, columns, 3, H, W]."""
    return torch.stack([column.float() for column in columns], 1)
