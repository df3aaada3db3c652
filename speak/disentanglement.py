"""Do the factors really separate? Probes, exchanges and the exchanged audio together, as figures and as a page.

Whatever a training claims is measured here on rendered people whom it has never seen, with a random-weights model as
control (SPEAK Figure 5; METHOD, "What shows that it works").
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speak.config import POSE_NAMES, Config, DisentanglementConfig
from speak.disentanglement_exchanges import (
    GRID_COLUMNS,
    AudioExchange,
    Exchanges,
    exchange_audio,
    exchange_factors,
)
from speak.disentanglement_probes import ProbedCode, probe
from speak.models.irfd import IRFD
from speak.models.judge import Judge
from speak.models.speak import Speak

SYMBOLS = {"identity": "f_I", "pose": "f_P", "emotion": "f_E"}
# What is asked of each code for each factor: at least from its own, at most from the others.
ASKED = {"pose": (0.9, 0.2), "emotion": (0.8, 0.25), "identity": (0.8, 0.15)}
ASKED_GAIN = 3.0  # dB
ASKED_AUDIO = (0.6, 0.2)  # with the new audio's truth at least, with the old one's at most


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything measured of one model. None where there was nothing to measure it with."""

    amounts: DisentanglementConfig
    seed: int
    split: str
    probes: dict[str, ProbedCode]
    control: dict[str, ProbedCode] | None
    exchanges: Exchanges | None
    audio: AudioExchange | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; without the Figure 5 grid."""
        values = dataclasses.asdict(dataclasses.replace(self, exchanges=None))
        if self.exchanges:
            factors = {
                name: dataclasses.asdict(found) | {"gain": found.gain, "changed_gain": found.changed_gain}
                for name, found in self.exchanges.factors.items()
            }
            values["exchanges"] = {
                "self_reconstruction": self.exchanges.self_reconstruction, "factors": factors
            }  # fmt: skip
        return values


def measure(
    irfd: IRFD | None,
    judge: Judge | None = None,
    speak: Speak | None = None,
    config: Config | None = None,  # of the random-weights control, networks of the same shapes; None: no control
    seed: int = 0,
    split: str = "test",
    amounts: DisentanglementConfig | None = None,
    progress: bool = True,
) -> Report:
    """Measures an IRFD, a Speak, or both (probes are those of the IRFD where there is one).

    Exchanges want an IRFD, the exchange of audio a Speak and a judge.
    """
    model = irfd or speak
    if model is None:
        raise ValueError("give an IRFD or a Speak")
    amounts = amounts or (config.disentanglement if config else DisentanglementConfig())
    device = next(model.parameters()).device
    control = None if config is None else random_weights(config).to(device)
    probes = probe(model, seed, split, None, amounts, control, progress)
    exchanges = exchange_factors(irfd, judge, seed, split, None, amounts, progress) if irfd else None
    audio = exchange_audio(speak, judge, seed, split, None, amounts, progress) if speak and judge else None
    return Report(amounts, seed, split, probes[0], probes[1] if control else None, exchanges, audio)


def random_weights(config: Config, seed: int = 0) -> IRFD:
    """The control: the same networks, never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IRFD(config)


def markdown(report: Report) -> str:
    """The report as tables."""
    lines = [
        f"Rendered people of split `{report.split}`, seed {report.seed}; probes fitted on other people than tested "
        "(identity: on other frames).", "",
        "| linear probe | " + " | ".join(f"{symbol}" for symbol in SYMBOLS.values()) + " | asked of own | of others |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for factor, (least, most) in ASKED.items():
        name = {"pose": "pose, R2", "emotion": "emotion of 8"}.get(factor, f"identity of {report.amounts.people}")
        cells = [_probe_cell(report, code, factor) for code in SYMBOLS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | >= {least:g} | <= {most:g} |")
    for name in (*POSE_NAMES, "mouth_opening"):
        cells = [_probe_cell(report, code, name) for code in SYMBOLS]
        lines.append(f"| {name}, R2 | " + " | ".join(cells) + " | | |")
    ranks = [f"{report.probes[code].effective_rank:.1f} of {report.probes[code].width}" for code in SYMBOLS]
    lines.append("| effective rank | " + " | ".join(ranks) + " | | |")
    if report.control:
        lines += ["", "In brackets: the same networks with random weights."]
    if report.exchanges:
        lines += ["", *_exchange_lines(report.exchanges)]
    if report.audio:
        lines += ["", *_audio_lines(report.audio)]
    return "\n".join(lines) + "\n"


def write_grid(exchanges: Exchanges, path: str | Path) -> None:
    """The Figure 5 grid as a PNG with its columns' and rows' names."""
    from speak.media.image import write_image

    write_image(path, labelled_grid(exchanges))


def labelled_grid(exchanges: Exchanges) -> np.ndarray:
    """The Figure 5 grid with names around it, uint8 [H, W, 3]; small frames are enlarged."""
    from PIL import Image, ImageDraw

    grid = exchanges.grid.numpy()
    cell = grid.shape[1] // len(GRID_COLUMNS)
    zoom = max(1, 128 // cell)
    left, top = 70, 20
    picture = Image.new("RGB", (left + grid.shape[1] * zoom, top + grid.shape[0] * zoom), "white")
    picture.paste(Image.fromarray(grid).resize((grid.shape[1] * zoom, grid.shape[0] * zoom), Image.Resampling.LANCZOS),
                  (left, top))  # fmt: skip
    draw = ImageDraw.Draw(picture)
    for column, name in enumerate(GRID_COLUMNS):
        draw.text((left + (column + 0.5) * cell * zoom, 4), name, "black", anchor="ma")
    for row, factor in enumerate(exchanges.grid_rows):
        draw.text((4, top + (row + 0.5) * cell * zoom), factor, "black", anchor="lm")
    return np.asarray(picture)


def _probe_cell(report: Report, code: str, name: str) -> str:
    """The figure, in bold where what is asked is missed, and the control's."""

    def value(found: ProbedCode) -> float:
        return found.r2[name] if name in found.r2 else getattr(found, name)

    text = f"{value(report.probes[code]):.2f}"
    if name in ASKED:
        least, most = ASKED[name]
        met = value(report.probes[code]) >= least if code == name else value(report.probes[code]) <= most
        text = text if met else f"**{text}**"
    return text + (f" ({value(report.control[code]):.2f})" if report.control else "")


def _exchange_lines(exchanges: Exchanges) -> list[str]:
    lines = [
        f"Pictures rebuilt from their own codes: {exchanges.self_reconstruction:.2f} dB. One factor exchanged, PSNR "
        "against the true picture of the exchange:", "",
        "| exchanged | pictures | exchange, dB | picture before it | rebuilt, unexchanged | gain over before "
        f"(asked {ASKED_GAIN:g}) | gain over rebuilt | the same where the exchange changes something |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for factor, found in exchanges.factors.items():
        gain = f"{found.gain:+.2f}" if found.gain >= ASKED_GAIN else f"**{found.gain:+.2f}**"
        lines.append(
            f"| {factor} | {found.count} | {found.exchanged:.2f} | {found.unexchanged:.2f} | {found.rebuilt:.2f} | "
            f"{gain} | {found.exchanged - found.rebuilt:+.2f} | {found.changed_gain:+.2f} |"
        )
    if any(found.judged for found in exchanges.factors.values()):
        lines += [
            "", "What the judge reads against what the exchange should show; `true`: of true pictures, its own error.",
            "", "| exchanged | picture | pose, degrees | emotion | identity | other's identity | landmarks, % |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
    for factor, found in exchanges.factors.items():
        for kind, read in found.judged.items():
            lines.append(
                f"| {factor} | {kind} | {read.pose_degrees:.2f} | {100 * read.emotion:.0f} % | {read.identity:.2f} | "
                f"{read.other_identity:.2f} | {read.landmarks:.2f} |"
            )
    return lines


def _audio_lines(audio: AudioExchange) -> list[str]:
    def text(name: str) -> str:
        found = getattr(audio, name)
        return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f}, {found.count} clips)"

    lines = [
        "Audio exchanged with another clip's: correlation of the mouth opening that the judge reads.", "",
        "| | correlation |", "|---|---|",
        f"| with the new audio's truth (asked >= {ASKED_AUDIO[0]:g}) | {text('new')} |",
        f"| with the old audio's truth (asked <= {ASKED_AUDIO[1]:g}) | {text('old')} |",
        f"| own audio, own truth | {text('own')} |",
        f"| true frames, own truth (the judge's own error) | {text('judge')} |",
        f"| the two truths with each other | {text('truths')} |", "",
        "| frames | pose, degrees | identity | emotion |", "|---|---|---|---|",
    ]  # fmt: skip
    for kind in audio.pose_degrees:
        lines.append(f"| {kind} | {audio.pose_degrees[kind]:.2f} | {audio.identity[kind]:.2f} | "
                     f"{100 * audio.emotion[kind]:.0f} % |")  # fmt: skip
    return lines
