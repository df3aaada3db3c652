"""SPEAK as a whole (Sec. 3.2-3.3): E_i, E_p, E_e, E_a, the editing module and G_g, with the two small controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speak.config import FRAME_RATE, SAMPLE_RATE, Config
from speak.models.codes import Codes
from speak.models.editing import EditingModule
from speak.models.generators import GlobalGenerator
from speak.models.inversion import fit_identity
from speak.models.irfd import HANDED_ON, IRFD, encoders
from speak.models.photo_warp import PhotoWarp, Portrait
from speak.models.pose_mapper import controls
from speak.models.wav2vec2 import Wav2Vec2


@dataclasses.dataclass(frozen=True)
class ClipNoise:
    """All noise of B clips, drawn once a clip: drawn anew for every frame, the video would flicker."""

    editing: Tensor  # [B, levels, width]
    maps: list[Tensor]  # a map [B, 1, h, w] a convolution of G_g


class Speak(nn.Module):
    """From one photo, speech, poses and emotions to frames.

    A long clip may be generated in pieces: `encode_*` each piece, `generate` with the same `ClipNoise`. Weights stay in
    float32; half precision is `torch.autocast` around the calls.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        self.inversion = model.inversion
        for name, module in (encoders(config) | controls(model)).items():
            self.add_module(name, module)
        self.audio_encoder = Wav2Vec2(model.audio)
        self.generator = GlobalGenerator(config)
        self.editing = EditingModule(config, model.audio.width, self.generator.synthesis.num_styles)
        self.photo_warp = PhotoWarp(model.photo_warp, model.pose.code_dim) if model.photo_warp.width else None

    def take_irfd(self, irfd: IRFD) -> None:
        """Copies what stage `irfd` has trained: E_i, E_p, E_e, the pose mapper and the emotion prototypes."""
        for name in HANDED_ON:
            getattr(self, name).load_state_dict(getattr(irfd, name).state_dict())

    def encode_identity(
        self,
        frames: Tensor,  # [..., 3, H, W] in [-1, 1]
    ) -> Tensor:
        """f_I [..., D_I], unit length, float32."""
        return _over_leading(self.identity_encoder, frames)

    def read_identity(
        self,
        photos: Tensor,  # [B, 3, H, W] in [-1, 1]
        steps: int | None = None,  # default `config.model.inversion.steps`
    ) -> Tensor:
        """f_I [B, D_I] as it is used: what E_i reads, fitted to the photo (speak.models.inversion). No gradient."""
        with torch.no_grad():
            identity = self.encode_identity(photos)
        return fit_identity(self, photos, identity, self.inversion.steps if steps is None else steps, self.inversion)

    def encode_pose(
        self,
        frames: Tensor,  # [..., 3, H, W] in [-1, 1]
    ) -> Tensor:
        """f_P [..., D_P], float32."""
        return _over_leading(self.pose_encoder, frames)

    def encode_emotion(
        self,
        frames: Tensor,  # [..., 3, H, W] in [-1, 1]
    ) -> Tensor:
        """f_E [..., D_E], float32."""
        return _over_leading(self.emotion_encoder, frames)

    def pose_from_numbers(
        self,
        pose: Tensor,  # [..., 6]: yaw, pitch, roll in degrees, x, y, scale in image widths
        eyes: Tensor | None = None,  # [..., 4], EYE_NAMES: blinks in [0, 1], gaze in [-1, 1]; None: open, straight
    ) -> Tensor:
        """f_P [..., D_P], float32. Raises SpeakError when the weights carry no fitted mapper."""
        self.pose_mapper.require_fitted()
        return self.pose_mapper(pose, eyes).float()

    def emotion_from_names(
        self,
        strengths: dict[str, float],  # emotion -> strength in [0, 1]
    ) -> Tensor:
        """f_E [D_E], float32. Raises SpeakError for an emotion that the weights do not know."""
        return self.emotion_prototypes(strengths).float()

    def encode_audio(
        self,
        speech: Tensor,  # [B, S] at 16 kHz in [-1, 1]
        frames: int,  # N
    ) -> Tensor:
        """f_a(1:N) [B, N, D]: the content of the speech, a vector a video frame."""
        return self.audio_encoder(speech, frames=frames)

    def encode_silence(self) -> Tensor:
        """f_a [D] of digital silence: the middle of two seconds of it."""
        silence = torch.zeros(1, 2 * SAMPLE_RATE, device=next(self.audio_encoder.parameters()).device)
        return self.encode_audio(silence, 2 * FRAME_RATE)[0, FRAME_RATE]

    def draw_noise(self, seeds: Sequence[int]) -> ClipNoise:
        """The noise of one clip a seed: the same on every device and whatever else is in the batch."""
        shapes = [(self.editing.levels, self.editing.width)]
        shapes += [(1, height, width) for height, width in self.generator.synthesis.noise_shapes]
        device = self.editing.blocks[0].linear.weight.device
        clips = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            clips.append([torch.randn(shape, generator=generator) for shape in shapes])
        editing, *maps = (torch.stack(part).to(device) for part in zip(*clips, strict=True))
        return ClipNoise(editing, maps)

    def codes_of_photos(
        self,
        photos: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """f_P [B, 1, D_P], f_E [B, 1, D_E] and f_a [B, 1, D] with which G_g would rebuild the photos: pose and emotion
        as E_p and E_e read them, the mouth that of silence."""
        mouth = self.encode_silence().expand(len(photos), 1, -1)
        return self.encode_pose(photos)[:, None], self.encode_emotion(photos)[:, None], mouth

    def generate(
        self,
        identity: Tensor,  # f_I [B, D_I]
        pose: Tensor,  # f_P [B, N, D_P]
        emotion: Tensor,  # f_E [B, N, D_E], or [B, 1, D_E] for the whole clip
        audio: Tensor,  # f_a [B, N, D]
        noise: ClipNoise,
        portrait: Portrait | None = None,  # what `portrait` made of the photos
    ) -> Tensor:
        """Frames [B, N, 3, H, W], about [-1, 1]: `G_g(mlp(f_I, f_P), editing(f_a, f_E))`, SPEAK Eq. 9.

        With a portrait the photo's part is added (speak.models.photo_warp): frames have the photos' size.
        """
        clips, count = audio.shape[:2]
        codes = Codes(identity[:, None].expand(-1, count, -1), pose, emotion.expand(-1, count, -1))
        edited = self.editing(audio, codes, noise.editing)
        frame_codes = Codes(codes.identity.flatten(0, 1), codes.pose.flatten(0, 1), codes.emotion.flatten(0, 1))
        maps = [part if clips == 1 else part.repeat_interleave(count, 0) for part in noise.maps]
        frames = self.generator(frame_codes, edited.flatten(0, 1), maps).unflatten(0, (clips, count))
        if portrait is None or self.photo_warp is None:
            return frames
        return self.photo_warp(frames.flatten(0, 1), frame_codes.pose, portrait).unflatten(0, frames.shape[:2])

    def portrait(
        self,
        identity: Tensor,  # f_I [B, D_I]
        photos: Tensor,  # [B, 3, S, S] in [-1, 1]
        large: Tensor | None = None,  # the same, as large as the frames are to be [B, 3, H, W]
    ) -> Portrait | None:
        """The photos beside what G_g makes of them, for `generate`; None where the weights do not bend photos.

        No gradient.
        """
        if self.photo_warp is None:
            return None
        with torch.no_grad():
            noise = self.draw_noise([0] * len(photos))
            codes = self.codes_of_photos(photos)
            rebuilt = self.generate(identity, *codes, noise)[:, 0]
        return Portrait(photos if large is None else large, rebuilt.float(), codes[0][:, 0])

    def forward(
        self,
        identity_frames: Tensor,  # I [B, 3, H, W] in [-1, 1]
        pose_frames: Tensor,  # P(1:N) [B, N, 3, H, W]
        emotion_frames: Tensor,  # E(1:N) [B, N, 3, H, W], or [B, 1, 3, H, W]
        speech: Tensor,  # [B, S], the speech of the N frames
        seeds: Sequence[int],  # one a clip
    ) -> Tensor:
        """Everything at once: frames [B, N, 3, H, W]."""
        identity = self.encode_identity(identity_frames)
        return self.generate(
            identity,
            self.encode_pose(pose_frames),
            self.encode_emotion(emotion_frames),
            self.encode_audio(speech, pose_frames.shape[1]),
            self.draw_noise(seeds),
            self.portrait(identity, identity_frames),
        )


def _over_leading(encoder: nn.Module, frames: Tensor) -> Tensor:
    codes = encoder(frames.reshape(-1, *frames.shape[-3:]))
    return codes.reshape(*frames.shape[:-3], codes.shape[-1])
