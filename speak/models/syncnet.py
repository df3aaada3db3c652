"""SyncNet: do these 5 frames and this speech belong to the same moment? SPEAK Sec. 3.3, Eq. 11-12.

`SyncNet` is ours, trained by stage `syncnet` at the preset's size. `PublishedSyncNet` has the layout of
syncnet_python's `syncnet_v2.model`, for users who have those weights (Chung & Zisserman 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import SyncNetConfig, sample_of_frame
from speak.models.codes import at_least_float32
from speak.models.resnet import ResNet, normalisation
from speak.models.speech_features import log_mel

WINDOW_FRAMES = 5
WINDOW_SAMPLES = sample_of_frame(WINDOW_FRAMES)  # the speech of five frames: 2667 samples


def video_windows(
    frames: Tensor,  # [B, N, 3, H, W]
) -> Tensor:
    """Every window of five frames in order: a view [B, max(N - 4, 0), 5, 3, H, W]."""
    if frames.shape[1] < WINDOW_FRAMES:
        return frames[:, :0, None].expand(-1, -1, WINDOW_FRAMES, -1, -1, -1)
    return frames.unfold(1, WINDOW_FRAMES, 1).movedim(-1, 2)


def speech_windows(
    speech: Tensor,  # [B, S] at 16 kHz; sample 0 belongs to the beginning of frame 0
    frames: int,  # N
) -> Tensor:
    """The speech of every window of `video_windows`: [B, max(N - 4, 0), 2667], silence after the end."""
    starts = torch.tensor([sample_of_frame(t) for t in range(max(frames - WINDOW_FRAMES + 1, 0))], dtype=torch.long)
    last = int(starts[-1]) + WINDOW_SAMPLES if len(starts) else 0
    padded = F.pad(speech, (0, max(0, last - speech.shape[1])))
    return padded[:, (starts[:, None] + torch.arange(WINDOW_SAMPLES)).to(speech.device)]


class SyncNet(nn.Module):
    """Our modified SyncNet: embeddings of unit length for video windows (lower halves of faces) and their speech."""

    def __init__(self, config: SyncNetConfig) -> None:
        super().__init__()
        self.image_size, self.mel_bands = config.image_size, config.mel_bands
        self.video = ResNet(18, config.width, config.norm, channels_in=3 * WINDOW_FRAMES)
        self.video_embedding = nn.Linear(self.video.channels, config.embedding_dim)
        layers: list[nn.Module] = []
        channels = 1
        for stage in range(4):
            width, stride = config.width << stage, 2 if stage else 1
            for step in (stride, 1):
                layers += [nn.Conv2d(channels, width, 3, step, 1), normalisation(config.norm, width), nn.ReLU()]
                channels = width
        self.audio = nn.Sequential(*layers)
        self.audio_embedding = nn.Linear(channels, config.embedding_dim)

    def embed_video(
        self,
        windows: Tensor,  # [..., 5, 3, H, W] in [-1, 1], square faces
    ) -> Tensor:
        """Embeddings [..., embedding_dim] of unit length, float32."""
        height = windows.shape[-2]
        mouths = windows[..., height // 2 :, :].reshape(-1, 3 * WINDOW_FRAMES, height - height // 2, windows.shape[-1])
        size = (self.image_size // 2, self.image_size)
        if mouths.shape[-2:] != size:
            if mouths.shape[-1] > self.image_size:
                mouths = F.adaptive_avg_pool2d(mouths, size)
            else:
                mouths = F.interpolate(mouths, size=size, mode="bilinear", align_corners=False)
        embedding = at_least_float32(self.video_embedding(self.video(mouths).mean((2, 3))))
        return F.normalize(embedding, dim=-1).reshape(*windows.shape[:-4], embedding.shape[-1])

    def embed_audio(
        self,
        windows: Tensor,  # [..., 2667] samples in [-1, 1]
    ) -> Tensor:
        """Embeddings [..., embedding_dim] of unit length, float32."""
        with torch.autocast(windows.device.type, enabled=False):
            pictures = log_mel(windows.reshape(-1, windows.shape[-1]), self.mel_bands)[:, None]
        pictures = pictures.to(self.audio_embedding.weight.dtype)
        embedding = at_least_float32(self.audio_embedding(self.audio(pictures).mean((2, 3))))
        return F.normalize(embedding, dim=-1).reshape(*windows.shape[:-1], embedding.shape[-1])


class PublishedSyncNet(nn.Module):
    """The published SyncNet: its state dict has exactly the keys and shapes of `syncnet_v2.model`.

    25 frames/s, BGR frames 0-255 of 224x224, MFCC of 0.2 s: see the metrics for how crops are made. The attribute names
    and the order of the layers are the checkpoint's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d, 1, 64, (3, 3), padding=(1, 1)),
            nn.MaxPool2d((1, 1), (1, 1)),
            *_convolution(nn.Conv2d, 64, 192, (3, 3), padding=(1, 1)),
            nn.MaxPool2d((3, 3), (1, 2)),
            *_convolution(nn.Conv2d, 192, 384, (3, 3), padding=(1, 1)),
            *_convolution(nn.Conv2d, 384, 256, (3, 3), padding=(1, 1)),
            *_convolution(nn.Conv2d, 256, 256, (3, 3), padding=(1, 1)),
            nn.MaxPool2d((3, 3), (2, 2)),
            *_convolution(nn.Conv2d, 256, 512, (5, 4)),
        )
        self.netfcaud = _fully_connected()
        self.netfclip = _fully_connected()
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d, 3, 96, (5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 256, 512, (1, 6, 6)),
        )

    def embed_video(
        self,
        windows: Tensor,  # [B, 3, 5, 224, 224] BGR, 0-255
    ) -> Tensor:
        """Embeddings [B, 1024]."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def embed_audio(
        self,
        windows: Tensor,  # MFCC [B, 1, 13, 20]
    ) -> Tensor:
        """Embeddings [B, 1024]."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


def _convolution(
    kind: type[nn.Conv2d] | type[nn.Conv3d],
    channels_in: int,
    channels: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | int = 1,
    padding: tuple[int, ...] | int = 0,
) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if kind is nn.Conv2d else nn.BatchNorm3d
    return kind(channels_in, channels, kernel, stride, padding), norm(channels), nn.ReLU()


def _fully_connected() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
