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

# What networks subtract from a pose vector and divide it by, so that every number is about 1.
POSE_CENTRE = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
POSE_SPREAD = (30.0, 20.0, 20.0, 0.1, 0.1, 0.2)

LANDMARKS = 68  # iBUG order
MOUTH_LANDMARKS = slice(48, 68)


def sample_of_frame(frame: int) -> int:
    """First audio sample of video frame `frame`: round(frame * 16000 / 30), ties up. Exact for any length of clip."""
    return (2 * frame * SAMPLE_RATE + FRAME_RATE) // (2 * FRAME_RATE)


@dataclasses.dataclass(frozen=True)
class Wav2Vec2Config:
    """Audio encoder E_a (SPEAK Sec. 3.2): the shape of a wav2vec 2.0. The defaults are preset `default`, about 2 M."""

    conv_channels: tuple[int, ...] = (128,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)  # together 320 samples: a vector every 20 ms
    conv_norm: str = "layer"  # "layer": a LayerNorm in every layer; "group": GroupNorm over the clip, first layer only
    conv_bias: bool = True
    width: int = 192  # D of f_a
    layers: int = 4
    heads: int = 4
    feed_forward: int = 768
    pre_norm: bool = True  # upstream's "stable layer norm"; False is the post-norm of wav2vec2-base
    position_kernel: int = 32
    position_groups: int = 16
    attention_window: int | None = FRAME_RATE  # vectors that a vector sees to each side; None: the whole clip
    normalise_input: bool = False  # zero mean and unit variance over the whole clip
    dropout: float = 0.0


# wav2vec 2.0 shapes, each as what differs from Wav2Vec2Config: ours (default, tiny) and the released ones.
WAV2VEC2_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {  # wav2vec2-base, 94 M
        "conv_channels": (512,) * 7, "conv_norm": "group", "conv_bias": False, "width": 768, "layers": 12, "heads": 12,
        "feed_forward": 3072, "pre_norm": False, "position_kernel": 128, "attention_window": None,
        "normalise_input": True,
    },
    "large_lv60": {  # wav2vec2-large-lv60, 315 M
        "conv_channels": (512,) * 7, "width": 1024, "layers": 24, "heads": 16, "feed_forward": 4096,
        "position_kernel": 128, "attention_window": None, "normalise_input": True,
    },
    "tiny": {
        "conv_channels": (16,) * 7, "width": 32, "layers": 2, "heads": 2, "feed_forward": 64, "position_kernel": 8,
        "position_groups": 4, "attention_window": 10,
    },
}


def wav2vec2_preset(name: str) -> Wav2Vec2Config:
    """The shape called `name` in WAV2VEC2_PRESETS."""
    return Wav2Vec2Config(**WAV2VEC2_PRESETS[name])


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
class EncoderConfig:
    """One of E_i, E_e, E_p: a ResNet that reads a frame, and the width of its code (SPEAK Sec. 3.1)."""

    depth: int = 18  # ResNet-18 or ResNet-50
    width: int = 16  # channels of the first stage; 64 is the published net
    norm: str = "group"  # group, or batch as published
    image_size: int = 128  # frames are brought to this size inside
    code_dim: int = 32


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """G_d and G_g: a StyleGAN2 synthesis network and the MLP that makes its base style."""

    style_dim: int = 192
    channel_base: int = 4096  # channels at a resolution: channel_base / resolution, at most channel_max
    channel_max: int = 256
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 1.0  # relative learning rate of that MLP; StyleGAN2's is 0.01
    fuse_dim: int = 0  # hidden width of the MLPs that turn an edited vector into a level's addition; 0: a linear map


@dataclasses.dataclass(frozen=True)
class EditingConfig:
    """The editing module: the width D of f_S', a vector a frame and a generator level (SPEAK Sec. 3.2)."""

    width: int = 80


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The conditional multi-scale discriminator D of SPEAK Eq. 10."""

    scales: int = 2  # each scale sees the frames at half the size of the one before
    layers: int = 4  # convolutions of stride 2
    width: int = 32  # channels after the first convolution
    channel_max: int = 256


@dataclasses.dataclass(frozen=True)
class SyncNetConfig:
    """Our SyncNet: 5 frames and the speech of the same time (SPEAK Sec. 3.3)."""

    image_size: int = 96  # the faces are read at this size, their lower half only
    width: int = 24
    norm: str = "group"
    mel_bands: int = 40
    embedding_dim: int = 256


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """The judge: landmarks, pose, mouth opening, emotion and an identity embedding from a frame."""

    depth: int = 18
    width: int = 32
    norm: str = "group"
    image_size: int = 128
    embedding_dim: int = 128


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """The features of L_vgg: the user's VGG, or the trunk of a judge of another seed (`rendered`)."""

    network: str = "rendered"  # rendered, vgg16 or vgg19
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")  # of `rendered`; of a VGG relu1_2, relu2_2, ...
    image_size: int = 128  # frames are brought to this size first; 0: as they are


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Every network of the method. E_p and E_e have narrow codes: little room for what is not theirs (METHOD, irfd)."""

    image_size: int = 256
    identity: EncoderConfig = EncoderConfig(width=32, code_dim=256)
    pose: EncoderConfig = EncoderConfig(code_dim=24)
    emotion: EncoderConfig = EncoderConfig(code_dim=32)
    audio: Wav2Vec2Config = Wav2Vec2Config()
    pose_mapper_width: int = 64  # hidden width of the MLP from pose numbers to f_P
    emotion_levels: int = 3  # strengths for which emotion prototypes are kept (MEAD has three)
    editing: EditingConfig = EditingConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    syncnet: SyncNetConfig = SyncNetConfig()
    judge: JudgeConfig = JudgeConfig()
    perceptual: PerceptualConfig = PerceptualConfig()


@dataclasses.dataclass(frozen=True)
class IrfdConfig:
    """Stage `irfd`: the weights of SPEAK Eq. 8 and of our terms. 0 switches a loss off and skips its work."""

    weight_identity: float = 0.1  # Eq. 1
    weight_classification: float = 0.1  # Eq. 2
    weight_pose: float = 0.1  # Eq. 3
    weight_emotion: float = 0.1  # Eq. 4
    weight_self: float = 1.0  # Eq. 5-7
    weight_cross: float = 1.0  # ours: A and B against the true picture of the exchange, where there is one
    weight_probe: float = 0.0  # ours: gradient-reversed probes of the other factors
    weight_perceptual: float = 0.0  # ours: features of the pictures that self and cross compare
    weight_adversarial: float = 0.0  # ours: D on the generated pictures
    discriminator_r1: float = 0.0  # ours: D's own loss is Eq. 10 + this * its gradient penalty
    margin: float = 0.05  # alpha of Eq. 1, in units of L2 / sqrt(D); codes of unit length are at most 2 / sqrt(D) apart
    detach_targets: bool = True  # the codes that Eq. 3 and 4 compare with take no gradient
    freeze_reencoder: bool = True  # generated pictures are encoded again without moving the encoders


@dataclasses.dataclass(frozen=True)
class SyncNetStageConfig:
    """Stage `syncnet`: SPEAK Eq. 11."""

    weight_contrastive: float = 1.0
    margin: float = 1.0  # of Eq. 11; embeddings of our SyncNet have unit length, so distances lie in [0, 2]


@dataclasses.dataclass(frozen=True)
class SpeakConfig:
    """Stage `speak`: the weights of SPEAK Eq. 13 and of our terms. 0 switches a loss off and skips its work."""

    weight_adversarial: float = 0.1  # L_GAN, Eq. 10
    weight_sync: float = 0.1  # L_sync, Eq. 11-12
    weight_perceptual: float = 1.0  # L_vgg
    weight_pixel: float = 1.0  # ours: mean absolute difference
    discriminator_r1: float = 0.0  # ours: D's own loss is Eq. 10 + this * its gradient penalty
    weight_path_length: float = 0.0  # ours: StyleGAN2's path length penalty on the per-level styles


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
    model: ModelConfig = ModelConfig()
    irfd: IrfdConfig = IrfdConfig()
    syncnet: SyncNetStageConfig = SyncNetStageConfig()
    speak: SpeakConfig = SpeakConfig()
    synth: SynthConfig = SynthConfig()
    rendered: RenderedConfig = RenderedConfig()
    clips: ClipsConfig = ClipsConfig()


def _network(name: str, **changes: Any) -> dict[str, Any]:
    return {f"model.{name}.{key}": value for key, value in changes.items()}


# Each preset is what differs from the dataclasses' defaults, by dotted key.
PRESETS: dict[str, dict[str, Any]] = {
    # 256x256, made for a CPU and for shipping.
    "default": {},
    # 256x256 as published, as far as the paper says; nothing of ours.
    "paper": {
        **_network("identity", depth=50, width=64, norm="batch", image_size=256, code_dim=512),
        **_network("pose", depth=50, width=64, norm="batch", image_size=256, code_dim=512),
        **_network("emotion", depth=50, width=64, norm="batch", image_size=256, code_dim=512),
        **_network("audio", **WAV2VEC2_PRESETS["paper"]),
        "model.generator.style_dim": 512,
        "model.generator.channel_base": 32768,
        "model.generator.channel_max": 512,
        "model.generator.mapping_layers": 8,
        "model.generator.fuse_dim": 512,
        "model.editing.width": 512,
        "model.discriminator.scales": 3,
        "model.discriminator.width": 64,
        "model.discriminator.channel_max": 512,
        "model.syncnet.width": 64,
        "model.syncnet.norm": "batch",
        "model.syncnet.embedding_dim": 1024,
        "model.perceptual.network": "vgg19",
        "model.perceptual.image_size": 0,
        "model.perceptual.layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "irfd.weight_identity": 1.0,
        "irfd.weight_classification": 1.0,
        "irfd.weight_pose": 1.0,
        "irfd.weight_emotion": 1.0,
        "irfd.weight_cross": 0.0,
        "irfd.freeze_reencoder": False,
        "speak.weight_adversarial": 1.0,
        "speak.weight_sync": 1.0,
        "speak.weight_pixel": 0.0,
    },
    # 64x64, for tests and for experiments of minutes.
    "tiny": {
        "model.image_size": 64,
        **_network("identity", width=16, image_size=64),
        **_network("pose", image_size=64),
        **_network("emotion", image_size=64),
        **_network("audio", **WAV2VEC2_PRESETS["tiny"]),
        "model.generator.style_dim": 128,
        "model.generator.channel_base": 1024,
        "model.generator.channel_max": 128,
        "model.editing.width": 64,
        "model.discriminator.layers": 3,
        "model.discriminator.width": 16,
        "model.discriminator.channel_max": 128,
        "model.syncnet.image_size": 64,
        "model.syncnet.width": 16,
        "model.syncnet.embedding_dim": 128,
        "model.judge.width": 16,
        "model.judge.image_size": 64,
        "model.judge.embedding_dim": 64,
        "model.perceptual.image_size": 0,
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
