"""The shape of every network: the configuration's dataclasses below `model`. Import them from speak.config."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Wav2Vec2Config:
    """Audio encoder E_a (SPEAK Sec. 3.2): the shape of a wav2vec 2.0. The defaults are ours, 0.44 M: with 0.02 M
    ("tiny" below) the mouth's opening cannot be read better than r = 0.82, with these at 0.96."""

    conv_channels: tuple[int, ...] = (32, 32, 64, 64, 96, 96, 96)
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)  # together 320 samples: a vector every 20 ms
    conv_norm: str = "layer"  # "layer": a LayerNorm in every layer; "group": GroupNorm over the clip, first layer only
    conv_bias: bool = True
    width: int = 96  # D of f_a
    layers: int = 3
    heads: int = 4
    feed_forward: int = 384
    pre_norm: bool = True  # upstream's "stable layer norm"; False is the post-norm of wav2vec2-base
    position_kernel: int = 16
    position_groups: int = 8
    attention_window: int | None = 20  # vectors (30 a second) that a vector sees to each side; None: the whole clip
    normalise_input: bool = False  # zero mean and unit variance over the whole clip
    dropout: float = 0.0


# wav2vec 2.0 shapes, each as what differs from Wav2Vec2Config: ours (default; tiny, for tests) and the released ones.
WAV2VEC2_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {  # wav2vec2-base, 94 M
        "conv_channels": (512,) * 7, "conv_norm": "group", "conv_bias": False, "width": 768, "layers": 12, "heads": 12,
        "feed_forward": 3072, "pre_norm": False, "position_kernel": 128, "position_groups": 16,
        "attention_window": None, "normalise_input": True,
    },
    "large_lv60": {  # wav2vec2-large-lv60, 315 M
        "conv_channels": (512,) * 7, "width": 1024, "layers": 24, "heads": 16, "feed_forward": 4096,
        "position_kernel": 128, "position_groups": 16,
        "attention_window": None, "normalise_input": True,
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
class EncoderConfig:
    """One of E_i, E_e, E_p: a ResNet that reads a frame, and the width of its code (SPEAK Sec. 3.1)."""

    depth: int = 18  # ResNet-18 or ResNet-50
    width: int = 16  # channels of the first stage; 64 is the published net
    norm: str = "group"  # group, or batch as published
    image_size: int = 128  # frames are brought to this size inside
    code_dim: int = 32
    grid: int = 1  # side of the grid of averages that the trunk's features become; 1: their one average, as published
    thumbnail: int = 0  # ours: side of a thumbnail of the frame that goes to the code past the ResNet; 0: none
    eyes: int = 0  # ours, of E_p: channels of the net that reads blinks and gaze from nearby; 0: none


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

    width: int = 72
    # Ours: every block reads (f_a, f_E) beside what the block before has made of them. Where the first alone does,
    # nothing of the mouth is left from the fifth level on.
    repeat_input: bool = True


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

    image_size: int = 128  # the faces are read at this size, their lower half only
    width: int = 32
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
    second_look: int = 96  # hidden width of what looks again near the landmarks first read; 0: nothing does


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """The features of L_vgg: the user's VGG, or the trunk of a judge of another seed (`rendered`)."""

    network: str = "rendered"  # rendered, vgg16 or vgg19
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")  # of `rendered`; of a VGG relu1_2, relu2_2, ...
    image_size: int = 128  # frames are brought to this size first; 0: as they are


@dataclasses.dataclass(frozen=True)
class InversionConfig:
    """How f_I is fitted to the photo after E_i has read it (speak.models.inversion). Ours."""

    steps: int = 8  # in use; 0: f_I as E_i reads it
    rate: float = 0.05  # length of the first step, where f_I is of length 1
    momentum: float = 0.7


@dataclasses.dataclass(frozen=True)
class PhotoWarpConfig:
    """What bends the photo to G_g's picture and blends both (speak.models.photo_warp). Ours."""

    width: int = 24  # channels at half the size, twice as many below; 0: frames are G_g's alone
    image_size: int = 64  # photo and picture are brought to this size inside
    poses: int = 12  # numbers that f_P of frame and photo are brought to; 0: it does not read them


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Every network of the method. E_p and E_e have narrow codes: little room for what is not theirs (METHOD, irfd)."""

    image_size: int = 256
    identity: EncoderConfig = EncoderConfig(width=32, code_dim=256, grid=4, thumbnail=8)
    pose: EncoderConfig = EncoderConfig(code_dim=24)
    emotion: EncoderConfig = EncoderConfig(code_dim=32)
    audio: Wav2Vec2Config = Wav2Vec2Config()
    pose_mapper_width: int = 64  # hidden width of the MLP from pose numbers to f_P
    emotion_levels: int = 3  # strengths for which emotion prototypes are kept (MEAD has three)
    editing: EditingConfig = EditingConfig()
    inversion: InversionConfig = InversionConfig()
    photo_warp: PhotoWarpConfig = PhotoWarpConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    syncnet: SyncNetConfig = SyncNetConfig()
    judge: JudgeConfig = JudgeConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
