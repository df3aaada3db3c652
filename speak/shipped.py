"""The weights that come with the package: `speak/weights/NAME.pt`, or its parts `NAME.pt.0`, `NAME.pt.1`, ...

A checkpoint in float16 may be larger than one file is allowed to be; its bytes are then cut into parts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from speak import checkpoint
from speak.config import Config, from_dict, with_changes
from speak.errors import SpeakError
from speak.media.files import check_readable, make_folder, whole_file
from speak.models.speak import Speak

FOLDER = Path(__file__).parent / "weights"
# Parts of the model that came later: how weights are described whose configuration does not name them.
CAME_LATER: dict[str, Any] = {
    "model.photo_warp.width": 0, "model.photo_warp.poses": 0, "model.editing.repeat_input": False,
    "model.pose.eyes": 0,
}  # fmt: skip
LARGEST_FILE = 31 << 19  # bytes; what ships stays under 16 MiB a file


def files_of(
    name: str,  # "speak", "judge", "syncnet" or "perceptual"
    folder: Path | None = None,  # default: speak/weights
) -> list[Path]:
    """The file of shipped weights `name`, or its parts in order; empty where there are none."""
    folder = folder or FOLDER
    whole = folder / f"{name}.pt"
    if whole.is_file():
        return [whole]
    parts = []
    while (part := folder / f"{name}.pt.{len(parts)}").is_file():
        parts.append(part)
    return parts


def load_shipped(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The checkpoint of shipped weights `name`. Raises SpeakError where this installation has none."""
    files = files_of(name, folder)
    if not files:
        remedy = "give trained ones with --weights FILE, or make them: python -m speak train --help"
        raise SpeakError(f"no {name} weights come with this installation of speak: {remedy}")
    if len(files) == 1:
        return checkpoint.load(files[0])
    with tempfile.TemporaryDirectory(prefix="speak-") as scratch:
        joined = Path(scratch) / f"{name}.pt"
        with joined.open("wb") as file:
            for part in files:
                file.write(check_readable(part).read_bytes())
        try:
            return checkpoint.load(joined)
        except SpeakError as error:
            where = files[0].with_suffix("")
            raise SpeakError(f"{where} in {len(files)} parts: {str(error).removeprefix(f'{joined}: ')}") from None


def save_for_shipping(name: str, content: dict[str, Any], folder: Path | None = None) -> list[Path]:
    """Writes a checkpoint in float16 to `folder` as `NAME.pt`, in parts where it is too large; returns the files.

    Files of the same name from before are gone afterwards.
    """
    folder = make_folder(folder or FOLDER)
    with tempfile.TemporaryDirectory(prefix="speak-") as scratch:
        whole = Path(scratch) / f"{name}.pt"
        checkpoint.save(whole, content, half=True)
        data = whole.read_bytes()
    pieces = [data[start : start + LARGEST_FILE] for start in range(0, len(data), LARGEST_FILE)]
    names = [f"{name}.pt"] if len(pieces) == 1 else [f"{name}.pt.{number}" for number in range(len(pieces))]
    for old in files_of(name, folder):
        old.unlink()
    for file_name, piece in zip(names, pieces, strict=True):
        with whole_file(folder / file_name) as temporary:
            temporary.write_bytes(piece)
    return [folder / file_name for file_name in names]


def load_speak(
    path: str | Path | None = None,  # a checkpoint of stage speak; None: the shipped one
) -> tuple[Speak, Config, dict[str, Any]]:
    """The whole model in evaluation mode, its configuration, and the checkpoint it came from, without the weights.

    Raises SpeakError where the file is not a checkpoint of stage `speak` or does not fit its own configuration.
    """
    content = load_shipped("speak") if path is None else checkpoint.load(path)
    name = str(path or files_of("speak")[0])
    if "speak" not in content["models"]:
        found = ", ".join(content["models"]) or "nothing"
        raise SpeakError(f"{name}: holds {found} of stage {content['stage']}, not a whole model: train stage speak")
    try:
        config = from_dict(content["config"])
    except SpeakError as error:
        raise SpeakError(f"{name}: {error}") from None
    config = with_changes(config, _without_later_parts(content["config"]))
    model = Speak(config)
    checkpoint.load_into(model, content["models"]["speak"], name)
    rest = {key: value for key, value in content.items() if key not in ("models", "optimizers", "ema")}
    return model.eval().requires_grad_(False), config, rest


def _without_later_parts(config: dict[str, Any]) -> dict[str, Any]:
    """Those of CAME_LATER that a checkpoint's configuration does not name."""
    missing = {}
    for key, value in CAME_LATER.items():
        found: Any = config
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            missing[key] = value
    return missing
