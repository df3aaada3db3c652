"""Audio encoder E_a (SPEAK Sec. 3.2): wav2vec 2.0 (Baevski et al., arXiv 2006.11477), written by hand.

Speech at 16 kHz -> convolutions, a feature vector every 320 samples -> linear interpolation to exactly N video frames
(as FaceFormer does) -> transformer -> content vectors f_a(1:N). Shapes: B clips, S samples, L feature vectors,
N frames (or L where nothing is interpolated), C convolution channels, D width.
Long audio in bounded memory: wav2vec2_streaming.py. Others' weights: foreign_weights.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import Wav2Vec2Config

INPUT_EPSILON = 1e-7  # of the input's variance, as upstream's preprocessing has it
NORM_EPSILON = 1e-5


class Wav2Vec2(nn.Module):
    """The audio encoder E_a: speech -> f_a(1:N), a content vector of `config.width` for each video frame."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        channels = config.conv_channels
        sizes = zip((1, *channels[:-1]), channels, config.conv_kernels, config.conv_strides, strict=True)
        self.feature_extractor = nn.ModuleList(
            ConvLayer(*size, norm=config.conv_norm if config.conv_norm == "layer" or i == 0 else None,
                      bias=config.conv_bias)
            for i, size in enumerate(sizes)
        )
        self.feature_norm = nn.LayerNorm(channels[-1], eps=NORM_EPSILON)
        self.projection = nn.Linear(channels[-1], config.width)
        self.position = PositionEmbedding(config.width, config.position_kernel, config.position_groups)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)  # before the first layer, or after the last (pre-norm)
        self.dropout = nn.Dropout(config.dropout)
        # Samples that one feature vector sees, and samples between two vectors.
        self.receptive_field, self.hop = 1, 1
        for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
            self.receptive_field += (kernel - 1) * self.hop
            self.hop *= stride

    def forward(
        self,
        speech: Tensor,  # [B, S] at 16 kHz in [-1, 1], zeros after a clip's end
        frames: int | Tensor | None = None,  # N, or [B] frames of each clip; None: no interpolation, N = L
        lengths: Tensor | None = None,  # [B] samples of each clip; None: all of them
    ) -> Tensor:  # [B, N, D]; what lies behind a shorter clip's last frame means nothing
        """Content vectors f_a. See `hidden_states`, whose last entry this is."""
        return self.hidden_states(speech, frames, lengths)[-1]

    def hidden_states(
        self, speech: Tensor, frames: int | Tensor | None = None, lengths: Tensor | None = None
    ) -> list[Tensor]:
        """What enters the first transformer layer, then what leaves each: `config.layers` + 1 tensors [B, N, D].

        Arguments as for `forward`. As upstream: clips of unequal length have padded vectors zeroed and left out of
        the attention; with `conv_norm` "group" the first layer's statistics still see the padding, so that such a
        model is exact only for clips of one length. With pre-norm the last entry has passed the final norm.
        """
        if self.config.normalise_input:
            speech = normalised_input(speech, lengths)
        features = self.extract_features(speech)
        counts = None if lengths is None else self.feature_count(lengths)
        mask = None
        if frames is not None:
            features = interpolate(features, frames, counts)
            counts = frames if isinstance(frames, Tensor) else None
        if counts is not None:
            mask = torch.arange(features.shape[1], device=features.device) < counts.to(features.device)[:, None]
        return self.transform(self.project(features), mask)

    def feature_count(self, samples: int | Tensor) -> int | Tensor:
        """Feature vectors L of a clip of `samples`, at least one: shorter clips are padded with silence."""
        if isinstance(samples, Tensor):
            return (samples.clamp(min=self.receptive_field) - self.receptive_field) // self.hop + 1
        return (max(samples, self.receptive_field) - self.receptive_field) // self.hop + 1

    def extract_features(
        self,
        speech: Tensor,  # [B, S]
        statistics: tuple[Tensor, Tensor] | None = None,  # [C] mean and variance of the whole clip, for the GroupNorm
    ) -> Tensor:  # [B, L, C]
        """The convolutional feature encoder; `statistics` stand in for those of `speech` where it is part of a clip."""
        hidden = F.pad(speech, (0, max(0, self.receptive_field - speech.shape[1])))[:, None]
        for i, layer in enumerate(self.feature_extractor):
            hidden = layer(hidden, statistics if i == 0 else None)
        return hidden.transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:  # [B, N, C] -> [B, N, D]
        """Feature vectors to the transformer's width."""
        return self.dropout(self.projection(self.feature_norm(features)))

    def embed_positions(self, hidden: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        """Adds the convolutional position embedding."""
        hidden = hidden + self.position(hidden)
        return self.dropout(hidden if self.config.pre_norm else self.norm(hidden))

    def transform(
        self,
        hidden: Tensor,  # [B, N, D] projected feature vectors
        mask: Tensor | None = None,  # [B, N] bool, True where there is speech; None: everywhere
    ) -> list[Tensor]:  # layers + 1 of [B, N, D]
        """The transformer with its position embedding, on projected feature vectors."""
        allowed = attention_mask(hidden.shape[1], self.config.attention_window, mask, hidden.device)
        if mask is not None:
            hidden = hidden * mask[..., None]
        states = [self.embed_positions(hidden)]
        for layer in self.layers:
            states.append(layer(states[-1], allowed))
        if self.config.pre_norm:
            states[-1] = self.norm(states[-1])
        return states


class ConvLayer(nn.Module):
    """A layer of the feature encoder: strided convolution, norm (group, layer or None), GELU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, norm: str | None, bias: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, stride, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        if norm not in (None, "group", "layer"):
            raise ValueError(f"conv_norm is '{norm}': choose group or layer")
        group = norm == "group"
        self.norm = nn.GroupNorm(out_channels, out_channels) if group else nn.LayerNorm(out_channels) if norm else None

    def forward(
        self,
        hidden: Tensor,  # [B, C_in, S]
        statistics: tuple[Tensor, Tensor] | None = None,  # [C] and [C], used by a GroupNorm in place of its own
    ) -> Tensor:  # [B, C, S / stride]
        hidden = self.conv(hidden)
        if isinstance(self.norm, nn.LayerNorm):
            hidden = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        elif self.norm is not None and statistics is not None:
            # The same arithmetic as a batch norm that has learned these statistics.
            hidden = F.batch_norm(hidden, *statistics, self.norm.weight, self.norm.bias, eps=self.norm.eps)
        elif self.norm is not None:
            hidden = self.norm(hidden)
        return F.gelu(hidden)


class PositionEmbedding(nn.Module):
    """Grouped convolution over time, its weight normalised for each tap: weight = g v / |v|; then GELU."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel) * 2 / math.sqrt(kernel * width))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))  # [1, 1, kernel]
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        """Output t sees inputs t - kernel // 2 to t + (kernel - 1) // 2, zeros outside of the clip."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        padded = F.pad(hidden.transpose(1, 2), (self.kernel // 2, (self.kernel - 1) // 2))
        return F.gelu(F.conv1d(padded, weight, self.bias, groups=self.groups)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual; norms after the sums, or before the parts (pre-norm)."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = config.width
        self.heads, self.pre_norm = config.heads, config.pre_norm
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.expand = nn.Linear(width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden: Tensor,  # [B, N, D]
        allowed: Tensor | None = None,  # bool, True where query i may see key j; broadcasts to [B, heads, n, N]
        queries: slice = slice(None),  # the n positions to compute; the rest are seen only
    ) -> Tensor:  # [B, n, D]
        residual = hidden[:, queries]
        if self.pre_norm:
            residual = residual + self.attend(self.attention_norm(hidden), allowed, queries)
            return residual + self.feed_forward(self.feed_forward_norm(residual))
        hidden = self.attention_norm(residual + self.attend(hidden, allowed, queries))
        return self.feed_forward_norm(hidden + self.feed_forward(hidden))

    def attend(self, hidden: Tensor, allowed: Tensor | None, queries: slice) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(hidden[:, queries]), self.key(hidden), self.value(hidden))
        )
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, allowed, dropout)
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.contract(self.dropout(F.gelu(self.expand(hidden)))))


def attention_mask(
    size: int,  # N, keys
    window: int | None,  # vectors seen to each side; None: all
    valid: Tensor | None,  # [B, N] bool, True where there is speech; None: everywhere
    device: torch.device,
    queries: slice = slice(None),  # the n positions of the keys that ask
) -> Tensor | None:  # bool [B or 1, 1, n, N], or None where everything may be seen
    """Which keys each query may attend to. A padded query without a single key sees itself, or it would be NaN."""
    if window is None:
        return None if valid is None else valid[:, None, None, :]
    position = torch.arange(size, device=device)
    distance = (position[queries, None] - position).abs()
    near = (distance <= window)[None, None]
    return near if valid is None else (near & valid[:, None, None, :]) | (distance == 0)


def normalised_input(speech: Tensor, lengths: Tensor | None = None) -> Tensor:
    """[B, S] with zero mean and unit variance over each clip's own samples ([B] `lengths`); zeros behind them."""
    lengths = torch.full(speech.shape[:1], speech.shape[1]) if lengths is None else lengths
    lengths = lengths.to(speech.device)[:, None].clamp(min=1)
    inside = torch.arange(speech.shape[1], device=speech.device) < lengths
    mean = (speech * inside).sum(1, keepdim=True) / lengths
    centred = (speech - mean) * inside
    variance = centred.square().sum(1, keepdim=True) / lengths
    return centred * (variance + INPUT_EPSILON).rsqrt()


def interpolate(
    features: Tensor,  # [B, L, C]
    frames: int | Tensor,  # N, or [B] frames of each clip
    counts: Tensor | None = None,  # [B] feature vectors of each clip; None: L
) -> Tensor:  # [B, N, C], N the largest of `frames`; zeros behind a clip's last frame
    """Linear interpolation of a clip's feature vectors to exactly its N video frames, before the transformer.

    As FaceFormer does (F.interpolate with align_corners=True): the first frame takes the first vector, the last frame
    the last one. Positions are exact fractions of integers, so that they do not drift in an hour of audio.
    """
    size = features.shape[0]
    clip_frames = torch.as_tensor(frames, device=features.device).expand(size)
    clip_counts = torch.as_tensor(features.shape[1] if counts is None else counts, device=features.device).expand(size)
    longest = frames if isinstance(frames, int) else int(frames.max())
    time = torch.arange(longest, device=features.device).expand(size, -1)
    left, fraction = source_positions(time, clip_counts[:, None], clip_frames[:, None])
    inside = time < clip_frames[:, None]
    last = (clip_counts - 1)[:, None]
    left = left.minimum(last)
    picked = [
        features.gather(1, index[..., None].expand(-1, -1, features.shape[2]))
        for index in (left, (left + 1).minimum(last))
    ]
    return torch.lerp(*picked, fraction[..., None].to(features)) * inside[..., None]


def source_positions(
    time: Tensor,  # int64, frame numbers
    counts: Tensor | int,  # feature vectors of the clip
    frames: Tensor | int,  # frames of the clip
) -> tuple[Tensor, Tensor]:
    """Where frame t lies among the vectors, t (L - 1) / (N - 1): whole part (int64) and fraction (float64)."""
    steps = torch.as_tensor(frames - 1, device=time.device).clamp(min=1)
    numerator = time * (counts - 1)
    left = numerator // steps
    return left, (numerator - left * steps).double() / steps
