"""The losses of SPEAK, Eq. 1-13, a function each, and our optional terms. All are computed in float32 at least.

Reductions: a distance between codes is L2 / sqrt(D), a distance between pictures the root mean square per image; both
are then averaged over the batch. Where a sample cannot contribute (no label, no true exchange) it counts as 0 and the
average is still over the whole batch, so that the mean over processes is the loss of the global batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speak.errors import SpeakError
from speak.models.codes import at_least_float32
from speak.models.judge import Reading

Scales = list[tuple[Tensor, list[Tensor]]]  # what D returns: (logits [B, 1, h, w], features) a scale


# Distances


def code_distance(
    codes: Tensor,  # [B, D]
    others: Tensor,  # [B, D]
) -> Tensor:
    """L2 / sqrt(D) of each pair, [B]. Its gradient is zero, not NaN, where the two are equal."""
    difference = at_least_float32(codes) - at_least_float32(others)
    return torch.linalg.vector_norm(difference, dim=-1) / math.sqrt(codes.shape[-1])


def image_distance(
    frames: Tensor,  # [B, C, H, W]
    others: Tensor,  # [B, C, H, W]
    weight: Tensor | None = None,  # [B, 1, H, W] of mean 1 a picture, how much a pixel counts; None: all alike
) -> Tensor:
    """Root mean square per image, [B]."""
    difference = at_least_float32(frames) - at_least_float32(others)
    difference = (difference if weight is None else difference * weight.sqrt()).flatten(1)
    return torch.linalg.vector_norm(difference, dim=1) / math.sqrt(difference.shape[1])


# Stage irfd: SPEAK Eq. 1-8


def identity_loss(
    anchor: Tensor,  # E_i of a generated picture [B, D]
    positive: Tensor,  # the code that its identity came from [B, D]
    negative: Tensor,  # the identity code of the other frame [B, D]
    same_identity: Tensor,  # [B] bool, True where the two frames show one person
    margin: float,  # alpha, in units of L2 / sqrt(D)
) -> Tensor:
    """SPEAK Eq. 1 for one generated picture; A's and B's are added.

    `max(d(anchor, positive) - d(anchor, negative) + alpha, 0)`. The print subtracts two same-person distances; the
    sentence above it asks for this triplet. Where i = j there is no negative: d(anchor, positive) alone.
    """
    pull = code_distance(anchor, positive)
    triplet = (pull - code_distance(anchor, negative) + margin).clamp(min=0)
    return torch.where(same_identity, pull, triplet).mean()


def classification_loss(
    logits: Tensor,  # C_m(f_E) [B, 8]
    labels: Tensor,  # [B] index of the emotion, -1 where the clip has no label
) -> Tensor:
    """SPEAK Eq. 2: -sum_c y_c log p_c, averaged over the batch; y is all zeros where there is no label."""
    known = labels >= 0
    log_probability = F.log_softmax(at_least_float32(logits), dim=-1)
    chosen = log_probability.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return -(chosen * known).mean()


def pose_loss(
    again_a: Tensor,  # E_p(A) [B, D]
    code_a: Tensor,  # the f_P that A was generated from [B, D]
    again_b: Tensor,  # E_p(B)
    code_b: Tensor,
) -> Tensor:
    """SPEAK Eq. 3: a pose code encoded again from a generated picture against the code it was generated with, A + B."""
    return (code_distance(again_a, code_a) + code_distance(again_b, code_b)).mean()


def emotion_loss(
    again_a: Tensor,  # E_e(A) [B, D]
    code_a: Tensor,  # the f_E that A was generated from [B, D]
    again_b: Tensor,  # E_e(B)
    code_b: Tensor,
) -> Tensor:
    """SPEAK Eq. 4: the same as Eq. 3 with E_e."""
    return (code_distance(again_a, code_a) + code_distance(again_b, code_b)).mean()


def self_loss(
    self_source: Tensor,  # G_d of S's own codes [B, 3, H, W]
    source: Tensor,  # S
    self_target: Tensor,  # G_d of T's own codes
    target: Tensor,  # T
    weights: tuple[Tensor | None, Tensor | None] = (None, None),  # of S's and T's pixels, as in `image_distance`
) -> Tensor:
    """SPEAK Eq. 5-7: each frame rebuilt from its own three codes, against the original frame (the print has I_d)."""
    of_source, of_target = weights
    distances = image_distance(self_source, source, of_source) + image_distance(self_target, target, of_target)
    return distances.mean()


def cross_loss(
    picture: Tensor,  # A (or B) [B, 3, H, W]
    truth: Tensor,  # the true picture of that exchange [B, 3, H, W]; anything where there is none
    known: Tensor,  # [B] bool, True where there is one
    weight: Tensor | None = None,  # of the pixels, as in `image_distance`
) -> Tensor:
    """Ours: an exchanged picture against the true picture of the exchange. Pairs without one contribute 0."""
    distance = image_distance(picture, torch.where(known[:, None, None, None], truth, picture.detach()), weight)
    return (distance * known).mean()


def probe_loss(
    probes: Mapping[str, tuple[Tensor, Tensor]],  # name -> (read code [B, D], true code [B, D]), from `irfd.Probes`
) -> Tensor:
    """Ours: mean square error of reading one code from another; about 1 where nothing can be read.

    The probes learn to lower it; the encoders, behind a reversed gradient, to raise it.
    """
    errors = [F.mse_loss(at_least_float32(read), at_least_float32(true)) for read, true in probes.values()]
    return torch.stack(errors).mean()


# Stages speak and syncnet: SPEAK Eq. 10-13


def discriminator_loss(
    real: Scales,  # D(x, y)
    generated: Scales,  # D(x, G(x)), of detached pictures
) -> Tensor:
    """SPEAK Eq. 10 for D: -E log D(x, y) - E log(1 - D(x, G(x))), D = sigmoid(logits), averaged over the scales."""
    parts = [
        F.softplus(-at_least_float32(true)).mean() + F.softplus(at_least_float32(false)).mean()
        for (true, _), (false, _) in zip(real, generated, strict=True)
    ]
    return torch.stack(parts).mean()


def adversarial_loss(
    generated: Scales,  # D(x, G(x))
) -> Tensor:
    """SPEAK Eq. 10 for G, L_GAN, in the non-saturating form: -E log D(x, G(x)), averaged over the scales."""
    return torch.stack([F.softplus(-at_least_float32(logits)).mean() for logits, _ in generated]).mean()


def feature_matching_loss(
    generated: Scales,  # D(x, G(x))
    real: Scales,  # D(x, y)
) -> Tensor:
    """Ours, optional: mean absolute difference of D's features of generated and true frame (Wang et al. 2018, Eq. 4).

    What D has learnt to see is to be where the true frame has it, not anywhere that looks real.
    """
    found, wanted = ([feature for _, features in scales for feature in features] for scales in (generated, real))
    return perceptual_loss(found, [feature.detach() for feature in wanted])


def r1_penalty(
    real: Scales,  # D(x, y)
    frames: Tensor,  # y [B, 3, H, W], which requires a gradient
) -> Tensor:
    """Ours, optional: 1/2 E |grad_y sum of D's mean logit a scale|^2 (Mescheder et al. 2018). Differentiable."""
    score = sum(at_least_float32(logits).mean((1, 2, 3)).sum() for logits, _ in real)
    (gradient,) = torch.autograd.grad(score, frames, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def path_length_penalty(
    frames: Tensor,  # [B, 3, H, W], generated from `styles`
    styles: Tensor,  # [B, levels, style_dim]
    mean_length: Tensor,  # [] running mean of the lengths
    directions: Tensor,  # [B, 3, H, W] standard normal
    decay: float = 0.01,
    average: Callable[[Tensor], Tensor] = torch.mean,  # of the lengths [B], over all processes where there are several
) -> tuple[Tensor, Tensor]:
    """Ours, optional: StyleGAN2's path length penalty (Karras et al. 2020, Eq. 4) and the new running mean.

    The length is the norm of J^T y, averaged over levels in the square, y a random picture of unit-size steps.
    """
    height, width = frames.shape[-2:]
    score = (at_least_float32(frames) * directions).sum() / math.sqrt(height * width)
    (gradient,) = torch.autograd.grad(score, styles, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    mean_length = torch.lerp(mean_length, average(lengths.detach()), decay)
    return (lengths - mean_length).square().mean(), mean_length


def embedding_distance(
    video: Tensor,  # fc7 of the video windows [N, D]
    audio: Tensor,  # fc7 of the audio windows [N, D]
) -> Tensor:
    """SPEAK Eq. 12: d_n, L2, [N]. (The print takes the video net twice; the sentence says audio and video.)"""
    return torch.linalg.vector_norm(at_least_float32(video) - at_least_float32(audio), dim=-1)


def contrastive_loss(
    distances: Tensor,  # d [N], Eq. 12
    matched: Tensor,  # y [N], 1 where video and audio belong together, 0 where they are shifted or foreign
    margin: float,
) -> Tensor:
    """SPEAK Eq. 11: 1/(2N) sum_n [ y d^2 + (1 - y) max(margin - d, 0)^2 ]. 0 where a clip is too short for a window."""
    if distances.numel() == 0:
        return distances.sum()
    matched = matched.to(distances.dtype)
    terms = matched * distances.square() + (1 - matched) * (margin - distances).clamp(min=0).square()
    return terms.mean() / 2


def matching_loss(
    video: Tensor,  # embeddings of N windows [N, D]
    audio: Tensor,  # embeddings of N pieces of speech [N, D]
    matched: Tensor,  # y [N], 1 where row n of both belongs together
    temperature: float,
) -> Tensor:
    """Ours: cross-entropy of finding each matched window's speech among all N by distance, and the other way (InfoNCE).

    Unmatched rows are there to be confused with. 0 where no row is matched.
    """
    if video.numel() == 0:
        return video.sum()
    apart = (at_least_float32(video)[:, None] - at_least_float32(audio)[None]).square().sum(-1)
    likeness = -apart / (2 * temperature)
    own = torch.arange(len(video), device=video.device)
    both = F.cross_entropy(likeness, own, reduction="none") + F.cross_entropy(likeness.T, own, reduction="none")
    return (both * matched).sum() / (2 * matched.sum().clamp(min=1))


def sync_loss(
    video: Tensor,  # embeddings of generated windows [..., D]
    audio: Tensor,  # embeddings of their speech [..., D]
) -> Tensor:
    """L_sync of SPEAK Eq. 13: Eq. 11 with y = 1, the frozen SyncNet's distance of generated windows to their speech."""
    distances = embedding_distance(video, audio).flatten()
    return contrastive_loss(distances, torch.ones_like(distances), margin=0.0)


def perceptual_loss(
    generated: list[Tensor],  # features [B, C, h, w] of several layers
    true: list[Tensor],  # the same layers of the true frames
    weight: Tensor | None = None,  # [B or 1, 1, H, W], ours: how much a place counts; None: all alike
) -> Tensor:
    """L_vgg of SPEAK Eq. 13: mean absolute difference of the features, averaged over the layers."""
    parts = []
    for a, b in zip(generated, true, strict=True):
        parts.append(pixel_loss(a, b, None if weight is None else F.adaptive_avg_pool2d(weight, a.shape[2:])))
    return torch.stack(parts).mean()


def reading_loss(
    generated: Reading,  # what the perceptual net reads from generated frames
    true: Reading,  # from the true ones
    size: int,  # pixels of the frames' side
    pose_spread: Tensor,  # [6], see speak.config.POSE_SPREAD
    weights: Mapping[str, float],  # of landmarks, pose, mouth_opening, emotion, likeness, as in stage `perceptual`
) -> Tensor:
    """Ours, optional: whoever reads a generated frame should read what the true one says, the mouth above all.

    Mouth and emotion move a few pixels, which L_vgg and the pixel term hardly weigh. Emotion: the divergence of what
    is read from what the true frame says; likeness: 1 - cosine.
    """
    apart = F.kl_div(generated.emotion_logits.log_softmax(1), true.emotion_logits.log_softmax(1), log_target=True,
                     reduction="batchmean")  # fmt: skip
    return (
        weights["landmarks"] * F.l1_loss(generated.landmarks, true.landmarks) * (20 / size)
        + weights["pose"] * ((generated.pose - true.pose) / pose_spread).abs().mean()
        + weights["mouth_opening"] * F.l1_loss(generated.mouth_opening, true.mouth_opening)
        + weights["emotion"] * apart
        + weights["likeness"] * (1 - F.cosine_similarity(generated.identity, true.identity)).mean()
    )


def pixel_loss(
    frames: Tensor,  # [B, C, H, W]
    truth: Tensor,  # [B, C, H, W]
    weight: Tensor | None = None,  # [B or 1, 1, H, W], how much a pixel counts; None: all alike
) -> Tensor:
    """Ours, optional: mean absolute difference, weighted towards the face where a weight is given."""
    difference = (at_least_float32(frames) - at_least_float32(truth)).abs()
    if weight is None:
        return difference.mean()
    weight = weight.to(difference.dtype).expand(difference.shape[0], 1, *difference.shape[2:])
    return (difference * weight).sum() / (weight.sum() * difference.shape[1])


# SPEAK Eq. 8 and Eq. 13: sums, weighted


def loss_weights(
    stage: Any,  # a stage's configuration, such as `config.irfd`
) -> dict[str, float]:
    """Its fields `weight_NAME` as {NAME: weight}."""
    return {
        field.name.removeprefix("weight_"): getattr(stage, field.name)
        for field in dataclasses.fields(stage)
        if field.name.startswith("weight_")
    }


def compute(
    terms: Mapping[str, Callable[[], Tensor]],  # name -> how to compute that loss
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """The losses whose weight is not 0; the others' functions are not called.

    Raises SpeakError for a term that has no weight.
    """
    for name in terms:
        if name not in weights:
            raise SpeakError(f"loss '{name}' has no weight: known are {', '.join(weights)}")
    return {name: term() for name, term in terms.items() if weights[name] != 0}


def total_loss(
    losses: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> Tensor:
    """SPEAK Eq. 8 or Eq. 13: sum of weight * loss.

    Raises SpeakError for a loss without a weight, and for a weight that is not 0 without its loss: a term that a
    configuration asks for is never left out silently.
    """
    for name in losses:
        if name not in weights:
            raise SpeakError(f"loss '{name}' has no weight: known are {', '.join(weights)}")
    missing = [name for name, weight in weights.items() if weight != 0 and name not in losses]
    if missing:
        raise SpeakError(f"no loss was computed for {', '.join(missing)}: compute it or set its weight to 0")
    if not losses:
        raise SpeakError("every loss is switched off: give one of them a weight")
    return torch.stack([weights[name] * losses[name] for name in losses]).sum()
