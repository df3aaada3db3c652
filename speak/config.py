"""Every default of the project: named constants, the configuration's dataclasses and the table of presets.

Command-line flags are generated from these fields; an unknown key is an error. A checkpoint carries its own
configuration as the plain dictionary of `to_dict`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from speak.errors import SpeakError

FRAME_RATE = 30  # frames a second, everywhere inside the project
SAMPLE_RATE = 16000  # samples a second of mono speech

# MEAD's eight emotions in alphabetical order; an emotion's label is its index here.
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")

# Pose vector: degrees, degrees, degrees, then image widths (scale 1 is the reference size).
POSE_NAMES = ("yaw", "pitch", "roll", "x", "y", "scale")

LANDMARKS = 68  # iBUG order
MOUTH_LANDMARKS = slice(48, 68)


def sample_of_frame(frame: int) -> int:
    """First audio sample of video frame `frame`: round(frame * 16000 / 30), ties up. Exact for any length of clip."""
    return (2 * frame * SAMPLE_RATE + FRAME_RATE) // (2 * FRAME_RATE)


@dataclasses.dataclass(frozen=True)
class OpsConfig:
    """Which implementation the operators use: `auto`, `reference` (plain PyTorch) or `compiled`."""

    backend: str = "auto"


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """How `prepare` cuts clips out of videos (shared crop rule of the first-order-model preprocessing)."""

    size: int = 256  # pixels of a prepared frame's side
    jpeg_quality: int = 95
    grow: float = 0.1  # the face's box grows by at least this share on every side
    longest_chunk: int = 1024  # frames; a new chunk starts there
    shortest_chunk: int = 64  # frames; shorter pieces of a clip that had to be divided are dropped
    shortest_clip: int = 16  # frames; shorter clips that stay whole are dropped (CREMA-D's are often under 64)
    smallest_face: int = 64  # pixels of the longer side; smaller faces are dropped
    same_place: float = 0.25  # a new chunk starts when the IoU with the chunk's first box falls below this
    detect_every: int = 3  # frames between two detections; boxes in between are interpolated


@dataclasses.dataclass(frozen=True)
class SynthConfig:
    """What `synth` writes: a corpus of rendered people."""

    identities: int = 8
    clips: int = 22  # a person: seven emotions at three levels and neutral; more are further takes
    seed: int = 0
    size: int = 256  # pixels of a frame's side
    seconds: float = 3.0  # of a clip, about, at an ordinary tempo
    jpeg_quality: int = 95
    voices: str = "own"  # own: formant synthesis, the same everywhere; installed: espeak-ng and flite speak as well


@dataclasses.dataclass(frozen=True)
class RenderedConfig:
    """What batches of rendered people are drawn from (`--data synthetic`)."""

    identities: int = 200_000  # people of each split; those of val and test are others than those of train
    yaw: float = 16.0  # degrees, standard deviation of single frames' poses, cut at 40
    pitch: float = 9.0  # degrees, cut at 30
    roll: float = 6.0  # degrees, cut at 20
    shift: float = 0.03  # image widths, standard deviation of x and y, cut at 0.1
    scale: float = 0.05  # standard deviation of scale about 1, cut at 0.15
    resting_mouths: float = 0.25  # share of single frames whose mouth is at rest
    blinks: float = 0.1  # share of single frames with closing eyes
    frames: int = 5  # N of a window of stages `syncnet` and `speak`
    emotion_frames: int = 1  # M, frames for the emotion code, from elsewhere in the clip
    context: int = 60  # frames of speech to each side of a window of stage `speak`
    sentence_seconds: float = 6.0  # of the sentences that windows are cut from
    speech_frames: int = 90  # frames of a clip of stage `audio`
    matched: float = 0.5  # share of stage `syncnet`'s windows with their own speech; the rest shifted or foreign
    longest_shift: int = 15  # frames
    augmented_frames: float = 1.0  # strength of what happens to stage `judge`'s frames: light, blur, noise, occluders
    installed_voices: float = 0.0  # share of sentences spoken by espeak-ng or flite; above 0 data depend on the machine
    augmented_speech: float = 0.8  # share of stage `audio`'s and `syncnet`'s clips with noise, rooms, equalisation
    chunk: int = 32  # pictures rendered at once


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
    """Which windows and pairs the stages draw from a prepared corpus."""

    # shares of IRFD pairs; what a corpus cannot give goes to the others
    same_clip: float = 0.35  # two frames of a clip: one identity and emotion, another pose
    same_identity: float = 0.2  # another clip of the person, with another emotion where there is one
    same_emotion: float = 0.2  # another person with the same emotion
    same_pose: float = 0.05  # another person in the nearest pose; needs exact poses
    different: float = 0.2  # another person, another emotion
    speak_frames: int = 5  # frames of a window of stage speak
    emotion_source: str = "elsewhere"  # elsewhere: a window elsewhere in the clip; clip: spread over it; window: itself
    emotion_frames: int = 4  # frames that show the emotion
    audio_context: float = 2.0  # seconds of sound before and after a window
    sync_frames: int = 5  # frames of a SyncNet window
    sync_positive: float = 0.5  # share of matched windows
    sync_shifted: float = 0.5  # share of the negatives that come from the same clip, shifted
    sync_shift: int = 6  # frames; least shift of a negative


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration: one field a room of the project."""

    preset: str = "default"
    ops: OpsConfig = OpsConfig()
    prepare: PrepareConfig = PrepareConfig()
    synth: SynthConfig = SynthConfig()
    rendered: RenderedConfig = RenderedConfig()
    clips: ClipsConfig = ClipsConfig()


# Each preset is what differs from the dataclasses' defaults, by dotted key.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {},
    "tiny": {},
}


def preset(name: str) -> Config:
    """The configuration called `name` in `PRESETS`. Raises SpeakError for a name that is not there."""
    if name not in PRESETS:
        raise SpeakError(f"unknown preset '{name}': choose from {', '.join(PRESETS)}")
    return with_changes(Config(preset=name), PRESETS[name])


def with_changes(config: Any, changes: dict[str, Any]) -> Any:
    """`config` with each dotted key of `changes` replaced, e.g. {"ops.backend": "reference"}.

    Strings are read as the field's type, so that values may come from the command line.
    Raises SpeakError for an unknown key or a value that does not fit.
    """
    for key, value in changes.items():
        config = _replaced(config, key.split("."), value, key)
    return config


def parse_settings(settings: list[str]) -> dict[str, str]:
    """["a.b=1", ...] of the `--set` flag as {"a.b": "1", ...}."""
    changes = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise SpeakError(f"--set {setting}: write it as key=value")
        changes[key.strip()] = value.strip()
    return changes


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, for a checkpoint or a log."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """The inverse of `to_dict`. Raises SpeakError for an unknown key; keys left out keep their default."""
    types = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            raise SpeakError(f"unknown configuration key '{key}' in {kind.__name__}: known are {', '.join(types)}")
        nested = dataclasses.is_dataclass(types[key])
        fields[key] = from_dict(value, types[key]) if nested else _read(value, types[key], key)
    return kind(**fields)


def _replaced(config: Any, path: list[str], value: Any, key: str) -> Any:
    types = typing.get_type_hints(type(config))
    name, rest = path[0], path[1:]
    if name not in types:
        raise SpeakError(f"unknown configuration key '{key}': {type(config).__name__} has {', '.join(types)}")
    if rest:
        current = getattr(config, name)
        if not dataclasses.is_dataclass(current):
            raise SpeakError(f"unknown configuration key '{key}': '{name}' has no fields")
        return dataclasses.replace(config, **{name: _replaced(current, rest, value, key)})
    if dataclasses.is_dataclass(types[name]):
        raise SpeakError(
            f"configuration key '{key}' is a group: set one of its fields, such as '{key}."
            f"{next(iter(typing.get_type_hints(types[name])))}'"
        )
    return dataclasses.replace(config, **{name: _read(value, types[name], key)})


def _read(value: Any, kind: Any, key: str) -> Any:
    """`value` as `kind` (bool, int, float, str, tuple of one of them, or such a type or None)."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    try:
        if type(None) in inner:
            if value is None or (isinstance(value, str) and value.lower() == "none"):
                return None
            return _read(value, next(t for t in inner if t is not type(None)), key)
        if origin is tuple:
            items = value.split(",") if isinstance(value, str) else value
            return tuple(_read(item, inner[0], key) for item in items)
        if kind is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if kind is int and (isinstance(value, bool) or float(value) != int(float(value))):
            raise ValueError
        return kind(value) if not (kind is int and isinstance(value, str)) else int(value)
    except (KeyError, TypeError, ValueError):
        name = getattr(kind, "__name__", str(kind))
        raise SpeakError(f"configuration key '{key}' wants {name}, not '{value}'") from None
