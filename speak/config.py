"""Every default of the project: named constants, the whole configuration and the table of presets.

The dataclasses of networks are in config_models.py, those of stages and data in config_training.py, those of videos in
config_animate.py; everybody imports them from here. Command-line flags are generated from these fields; an unknown key
is an error. A checkpoint carries its own configuration as the plain dictionary of `to_dict`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from speak.config_animate import AdaptConfig, AnimateConfig
from speak.config_models import (
    WAV2VEC2_PRESETS,
    DiscriminatorConfig,
    EditingConfig,
    EncoderConfig,
    GeneratorConfig,
    InversionConfig,
    JudgeConfig,
    ModelConfig,
    PerceptualConfig,
    PhotoWarpConfig,
    SyncNetConfig,
    Wav2Vec2Config,
    wav2vec2_preset,
)
from speak.config_training import (
    AudioStageConfig,
    ClipsConfig,
    DisentanglementConfig,
    EvaluateConfig,
    IrfdConfig,
    JudgeStageConfig,
    PrepareConfig,
    RenderedConfig,
    SpeakConfig,
    SyncNetStageConfig,
    SynthConfig,
    TrainConfig,
)
from speak.errors import SpeakError

FRAME_RATE = 30  # frames a second, everywhere inside the project
SAMPLE_RATE = 16000  # samples a second of mono speech

# MEAD's eight emotions in alphabetical order; an emotion's label is its index here.
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")

# Pose vector: degrees, degrees, degrees, then image widths (scale 1 is the reference size).
POSE_NAMES = ("yaw", "pitch", "roll", "x", "y", "scale")

# What eyes do: left and right of the image, 1 shut; gaze to its right and up, 1 farthest.
EYE_NAMES = ("blink_left", "blink_right", "gaze_x", "gaze_y")

# What networks subtract from a pose vector and divide it by, so that every number is about 1.
POSE_CENTRE = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
POSE_SPREAD = (30.0, 20.0, 20.0, 0.1, 0.1, 0.2)

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
class Config:
    """The whole configuration: one field a room of the project."""

    preset: str = "default"
    ops: OpsConfig = OpsConfig()
    prepare: PrepareConfig = PrepareConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    judge: JudgeStageConfig = JudgeStageConfig()
    perceptual: JudgeStageConfig = JudgeStageConfig(steps=10_000)
    audio: AudioStageConfig = AudioStageConfig()
    irfd: IrfdConfig = IrfdConfig()
    syncnet: SyncNetStageConfig = SyncNetStageConfig()
    speak: SpeakConfig = SpeakConfig()
    synth: SynthConfig = SynthConfig()
    rendered: RenderedConfig = RenderedConfig()
    clips: ClipsConfig = ClipsConfig()
    disentanglement: DisentanglementConfig = DisentanglementConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def _network(name: str, **changes: Any) -> dict[str, Any]:
    return {f"model.{name}.{key}": value for key, value in changes.items()}


# Each preset is what differs from the dataclasses' defaults, by dotted key.
PRESETS: dict[str, dict[str, Any]] = {
    # 256x256, made for a CPU and for shipping.
    "default": {},
    # 256x256 as published, as far as the paper says; nothing of ours.
    "paper": {
        **_network("identity", depth=50, width=64, norm="batch", image_size=256, code_dim=512, grid=1, thumbnail=0),
        **_network("pose", depth=50, width=64, norm="batch", image_size=256, code_dim=512),
        **_network("emotion", depth=50, width=64, norm="batch", image_size=256, code_dim=512),
        **_network("audio", **WAV2VEC2_PRESETS["paper"]),
        "model.generator.style_dim": 512,
        "model.generator.channel_base": 32768,
        "model.generator.channel_max": 512,
        "model.generator.mapping_layers": 8,
        "model.generator.fuse_dim": 512,
        "model.editing.width": 512,
        "model.editing.repeat_input": False,
        "model.inversion.steps": 0,
        "model.photo_warp.width": 0,
        "model.discriminator.scales": 3,
        "model.discriminator.width": 64,
        "model.discriminator.channel_max": 512,
        "model.syncnet.width": 64,
        "model.syncnet.norm": "batch",
        "model.syncnet.embedding_dim": 1024,
        "model.perceptual.network": "vgg19",
        "model.perceptual.image_size": 0,
        "model.perceptual.layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "train.warm_up": 0,
        "train.decay": 0.0,
        "train.beta2": 0.999,
        "train.checkpoint_activations": True,
        "judge.learning_rate": 1e-4,
        "perceptual.learning_rate": 1e-4,
        "audio.learning_rate": 1e-4,
        "syncnet.learning_rate": 1e-4,
        "syncnet.weight_matching": 0.0,
        "syncnet.trunk": "new",
        "irfd.learning_rate": 1e-4,
        "audio.optimizer": "adam",
        "irfd.optimizer": "adam",
        "irfd.erase_pose": False,
        "speak.optimizer": "adam",
        "irfd.generator_rate": 1.0,
        "speak.generator_rate": 1.0,
        "irfd.weight_angles": 0.0,
        "irfd.face": 0.0,
        "irfd.identity_source": "own",
        "irfd.pose_source": "own",
        "irfd.emotion_source": "own",
        "irfd.trunks": "new",
        "irfd.code_losses_from": 0.0,
        "irfd.perceptual_from": 0.0,
        "speak.learning_rate": 1e-4,
        "speak.discriminator_learning_rate": 1e-4,
        "speak.identity_source": "own",
        "speak.pose_source": "own",
        "speak.emotion_source": "own",
        "speak.warm_generator": False,
        "speak.face": 0.0,
        "irfd.weight_identity": 1.0,
        "irfd.weight_classification": 1.0,
        "irfd.weight_pose": 1.0,
        "irfd.weight_emotion": 1.0,
        "irfd.weight_cross": 0.0,
        "irfd.freeze_reencoder": False,
        "speak.weight_adversarial": 1.0,
        "speak.weight_sync": 1.0,
        "speak.weight_pixel": 0.0,
        "speak.weight_reading": 0.0,
        "speak.weight_unaided": 0.0,
        "speak.weight_bent": 0.0,
        "speak.strangers": 0.0,
        "rendered.emotion_frames": 1,
    },
    # 64x64, for tests and for experiments of minutes.
    "tiny": {
        "model.image_size": 64,
        **_network("pose", image_size=64),  # the others read at 128: at 64 a ResNet hardly sees a mouth
        "model.generator.style_dim": 128,
        "model.generator.channel_base": 2048,
        "model.generator.channel_max": 128,
        "model.editing.width": 64,
        "model.photo_warp.width": 12,
        "model.discriminator.layers": 3,
        "model.discriminator.width": 16,
        "model.discriminator.channel_max": 128,
        "model.syncnet.width": 16,
        "model.syncnet.embedding_dim": 128,
        "model.judge.width": 16,
        "model.judge.embedding_dim": 64,
        "rendered.context": 30,
        "rendered.frame_uses": 4,  # small pictures are cheap, and 16 uses of each teach a judge its pictures by heart
        "model.generator.mapping_layers": 1,
        "irfd.steps": 16000,
        "irfd.batch": 8,
        "irfd.learning_rate": 2e-3,
        "speak.steps": 8000,
        "speak.learning_rate": 2e-3,
        "judge.steps": 12000,
        "judge.learning_rate": 2e-3,
        "perceptual.steps": 5000,
        "audio.steps": 3000,
        "audio.learning_rate": 2e-3,
        "syncnet.steps": 6000,
    },
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
