"""Our checkpoints: tensors and plain types in one file that is whole or absent, and that runs nothing when read.

A checkpoint is `{"format": 1, "stage": str, "config": dict, "step": int, "models": {name: state dict}, ...}`; further
top-level keys (optimizers, ema, rng, prototypes) hold tensors and plain types too. Stored by `torch.save`.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speak.errors import SpeakError
from speak.media.files import check_readable, whole_file

FORMAT = 1
# What every checkpoint has besides `format`, and of which type.
REQUIRED = {"stage": str, "config": dict, "step": int, "models": dict}
CAME_LATER = ("pose_mapper.eyes",)  # tensors that are 0 in checkpoints from before they were


def save(
    path: str | Path,
    content: Mapping[str, Any],  # stage, config, step, models and further keys; `format` is added
    half: bool = False,  # float32 of `models` as float16, for shipping; loaded back as float32
) -> None:
    """Writes a checkpoint whole or not at all: a temporary name in the same folder, synced, then renamed.

    Raises SpeakError where a value is neither a tensor nor a plain type (named by its key), where a weight does not
    fit float16, or where the disk refuses; whatever was at `path` before is then untouched.
    """
    path = Path(path)
    plain = {"format": FORMAT, **_plain(content, f"{path}: ")}
    _check_layout(plain, path)
    if half:
        plain["models"] = {
            name: {key: _halved(value, f"{path}: models.{name}.{key}") for key, value in state.items()}
            for name, state in plain["models"].items()
        }
    with whole_file(path) as temporary:
        with open(temporary, "wb") as file:
            try:
                torch.save(plain, file)
            except RuntimeError as error:  # torch's zip writer wraps the disk's own refusal
                cause = error.__context__
                raise (cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0])) from None
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(path.parent)


def load(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU; float16 weights of `models` come back as float32. Runs nothing from the file.

    Raises SpeakError, one line with the file and the reason: missing, truncated, damaged, not a checkpoint, a pickle
    that would run code, another version, a key missing.
    """
    path = check_readable(path)
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SpeakError(f"{path}: refused, its pickle {_foreign_names(path)}; nothing was run. A checkpoint of speak "
                         "holds tensors and plain types only") from None
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise SpeakError(f"{path}: damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
                         "; make or fetch it again") from None
    if not isinstance(content, dict) or "format" not in content:
        raise SpeakError(f"{path}: not a checkpoint of speak (no 'format' in it)")
    if content["format"] != FORMAT:
        raise SpeakError(f"{path}: checkpoint format {content['format']!r}, this version of speak reads {FORMAT}: "
                         "use the version that wrote it, or train again")
    _check_layout(content, path)
    content["models"] = {
        name: {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
        for name, state in content["models"].items()
    }
    return content


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,  # named in errors
) -> None:
    """Copies `state` into `module`. Keys and shapes must be the module's: SpeakError names the first that is not."""
    own = module.state_dict()
    state = {key: torch.zeros_like(own[key]) for key in CAME_LATER if key in own} | dict(state)
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if not (missing or unknown or shapes):
        module.load_state_dict(state)
        return
    key = (missing + unknown + shapes)[0]
    what = f"lacks '{key}'" if missing else f"has an unknown '{key}'" if unknown else \
        f"has '{key}' of shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
    raise SpeakError(f"{path}: does not fit {type(module).__name__}: it {what} ({len(missing)} missing, {len(unknown)} "
                     f"unknown, {len(shapes)} of another shape, of {len(own)})")


def _plain(value: Any, key: str) -> Any:
    """`value` as what a weights-only load accepts: on the CPU, detached, without the rest of a larger storage."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if type(name) not in (str, int):
                raise SpeakError(f"{key}{name!r}: a checkpoint's keys are strings or integers")
        prefix = key if key.endswith(": ") else f"{key}."
        return {name: _plain(item, f"{prefix}{name}") for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{key}[{i}]") for i, item in enumerate(value))
    if type(value) in (Tensor, nn.Parameter):
        tensor = value.detach().cpu()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        return tensor if whole and type(tensor) is Tensor else tensor.clone()
    raise SpeakError(f"{key}: is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds tensors and "
                     "plain types (dict, list, tuple, str, int, float, bool, None) only")


def _halved(value: Tensor, key: str) -> Tensor:
    if value.dtype != torch.float32:
        return value
    half = value.half()
    if bool((half.isinf() & value.isfinite()).any()):
        raise SpeakError(f"{key}: {value.abs().max().item():.3g} does not fit float16: save without half")
    return half


def _check_layout(content: dict[Any, Any], path: Path) -> None:
    for name, kind in REQUIRED.items():
        if type(content.get(name)) is not kind:
            found = type(content[name]).__name__ if name in content else "nothing"
            raise SpeakError(f"{path}: not a checkpoint of speak: '{name}' should be {kind.__name__}, is {found}")
    for name, state in content["models"].items():
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise SpeakError(f"{path}: not a checkpoint of speak: 'models.{name}' is not a dictionary of tensors")


def _check_archive(path: Path) -> None:
    """Refuses what is no complete zip archive, or whose parts fail their checksums, before torch sees it."""
    with path.open("rb") as file:
        starts_well = file.read(4) == b"PK\x03\x04"
    if not starts_well:
        raise SpeakError(f"{path}: not a checkpoint of speak (not an archive of torch.save)")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # zipfile raises many kinds
        raise SpeakError(f"{path}: truncated or damaged (its archive has no end); make or fetch it again") from None
    if damaged is not None:
        raise SpeakError(f"{path}: damaged ('{damaged}' fails its checksum); make or fetch it again")


def _foreign_names(path: Path) -> str:
    """What is wrong with the file's pickle: the names that it would import."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        names = []
    if not names:
        return "is none that torch.save writes"
    return f"asks to run '{names[0]}'" + (f" and {len(names) - 1} more" if names[1:] else "")


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut, where the system can (not on Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
