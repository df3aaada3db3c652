"""Stage `irfd`: SPEAK Sec. 3.1, Eq. 1-8. Two frames, one factor exchanged, everything encoded again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speak import losses
from speak.config import Config
from speak.datasets.stage_batches import PairBatch
from speak.metrics import effective_rank
from speak.models.codes import concatenated
from speak.models.discriminator import Discriminator
from speak.models.irfd import IRFD, Exchange
from speak.models.vgg import PerceptualFeatures
from speak.train.controls import erase_pose, fit_controls
from speak.train.face_weight import face_weight
from speak.train.journal import side_by_side
from speak.train.perceptual import perceptual_features, perceptual_terms
from speak.train.stage import Inputs, Phase, Stage, noise_maps, parameters_of
from speak.train.warm_start import trunks_from_perceptual

CODE_LOSSES = ("identity", "pose", "emotion")  # Eq. 1, 3 and 4, which encode generated pictures again
PERCEPTUAL_LOSSES = ("perceptual", "reading")


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """E_i, E_e, E_p, C_m and G_d, with D where its loss has a weight."""
    irfd = IRFD(config)
    if config.irfd.trunks != "new":
        trunks_from_perceptual(irfd, config.irfd.trunks, inputs)
    irfd.to(device)
    for encoder in (irfd.identity_encoder, irfd.pose_encoder, irfd.emotion_encoder):
        encoder.to(memory_format=torch.channels_last)
    networks: dict[str, nn.Module] = {"irfd": irfd}
    discriminator = None
    if config.irfd.weight_adversarial:
        networks["discriminator"] = discriminator = Discriminator(config.model.discriminator).to(device)
    wanted = config.irfd.weight_perceptual or config.irfd.weight_reading
    features = perceptual_features(config, inputs, device) if wanted else None
    step = _Step(config, irfd, discriminator, features)
    # The controls are fitted at the end, with other means.
    learning = [p for p in parameters_of(irfd) if not any(p is q for q in irfd.pose_mapper.parameters())]
    phases = [Phase("irfd", learning, config.irfd.learning_rate, step.weights, step.losses,
                    parameters_of(irfd.generator), config.irfd.generator_rate, config.irfd.optimizer)]  # fmt: skip
    if discriminator is not None:
        rate = config.speak.discriminator_learning_rate
        phases.append(Phase("discriminator", parameters_of(discriminator), rate, {"discriminator": 1.0}, step.judge))

    def finish(batches: Iterable[PairBatch]) -> None:
        batches = iter(batches)
        if config.irfd.erase_pose:
            erase_pose(irfd, batches)
        fit_controls(irfd, batches)

    return Stage(networks, ("irfd",), phases, step.validate, step.picture, finish)


class _Step:
    """What one batch is asked for."""

    def __init__(
        self, config: Config, irfd: IRFD, discriminator: Discriminator | None, features: PerceptualFeatures | None
    ) -> None:
        self.config, self.settings, self.irfd = config, config.irfd, irfd
        self.discriminator, self.features = discriminator, features
        self.weights = losses.loss_weights(config.irfd)

    def exchange(self, batch: PairBatch, own: bool = False, again: bool = True) -> Exchange:
        """One pass of IRFD. own: encoders read S and T themselves, as they do in use. again: A and B are encoded."""
        settings, weights = self.settings, self.weights

        def read(source: str, frames: Tensor | None) -> Tensor | None:
            return None if own or source == "own" else frames

        encoded = again and any(weights[name] for name in CODE_LOSSES)
        crossed = encoded or any(weights[name] for name in ("cross", "adversarial", "perceptual", "reading"))
        encoding = "no" if own or not encoded else "frozen" if settings.freeze_reencoder else "live"
        pictures = 2 * bool(weights["self"] or own) + 2 * bool(crossed or own)
        noise = noise_maps(batch.number, self.irfd.generator.synthesis.noise_shapes, pictures) if pictures else "none"
        return self.irfd(
            batch.source, batch.target, batch.factor, read(settings.pose_source, batch.pose_frames),
            read(settings.emotion_source, batch.emotion_frames), noise, bool(weights["self"] or own),
            bool(crossed or own), encoding, read(settings.identity_source, batch.identity_frames),
        )  # fmt: skip

    def losses(self, batch: PairBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        """Eq. 1-7 and our terms."""
        settings = self.settings
        progress = memory.get("progress", 1.0)
        early, blurred = progress < settings.code_losses_from, progress < settings.perceptual_from
        memory["found"] = found = self.exchange(batch, again=not early)
        size, face = batch.source.shape[-1], settings.face
        source_labels, target_labels = batch.source_labels, batch.target_labels
        same = source_labels.identity == target_labels.identity
        code_a, code_b = (code.detach() if settings.detach_targets else code for code in (found.codes_a, found.codes_b))
        a, b = found.again_a, found.again_b
        weight_s, weight_t, weight_a, weight_b = (face_weight(landmarks, size, face) for landmarks in (
            source_labels.landmarks, target_labels.landmarks,
            batch.source_exchanged_landmarks, batch.target_exchanged_landmarks,
        ))  # fmt: skip
        known = batch.has_exchanged
        terms = {
            "identity": lambda: losses.identity_loss(
                a.identity, code_a.identity, code_b.identity, same, settings.margin
            ) + losses.identity_loss(b.identity, code_b.identity, code_a.identity, same, settings.margin),
            "classification": lambda: losses.classification_loss(
                found.emotion_logits, torch.cat([source_labels.emotion, target_labels.emotion])
            ),
            "pose": lambda: losses.pose_loss(a.pose, code_a.pose, b.pose, code_b.pose),
            "emotion": lambda: losses.emotion_loss(a.emotion, code_a.emotion, b.emotion, code_b.emotion),
            "self": lambda: losses.self_loss(
                found.self_source, batch.source, found.self_target, batch.target, (weight_s, weight_t)
            ),
            "cross": lambda: losses.cross_loss(found.picture_a, batch.source_exchanged, known, weight_a)
            + losses.cross_loss(found.picture_b, batch.target_exchanged, known, weight_b),
            "probe": lambda: self._probe(batch, found),
            "adversarial": lambda: losses.adversarial_loss(self._judged(batch, found.picture_a, found.picture_b)),
            "angles": lambda: self._angles(batch, found),
        }  # fmt: skip
        if self.features is not None and not blurred:
            made, true = self._compared(batch, found)
            terms |= perceptual_terms(self.features, made, true, self.weights, self.config.perceptual)
        waiting = (*(CODE_LOSSES if early else ()), *(PERCEPTUAL_LOSSES if blurred else ()))
        terms |= dict.fromkeys(waiting, lambda: found.source.pose.sum() * 0)
        return losses.compute(terms, self.weights)

    def judge(self, batch: PairBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        """D's own loss, Eq. 10, on A and B against S and T."""
        found: Exchange = memory["found"]
        real_frames = [batch.source, batch.target]
        penalty = self.settings.discriminator_r1
        if penalty:
            real_frames = [frames.detach().requires_grad_(True) for frames in real_frames]
        real = self._judged(batch, *real_frames)
        fake = self._judged(batch, found.picture_a.detach(), found.picture_b.detach())
        loss = losses.discriminator_loss(real, fake)
        if penalty:
            joined = torch.cat(real_frames)
            loss = loss + penalty * losses.r1_penalty(self._judged(batch, *joined.split(len(batch.source))), joined)
        return {"discriminator": loss}

    def _judged(self, batch: PairBatch, of_source: Tensor, of_target: Tensor) -> losses.Scales:
        return self.discriminator(torch.cat([batch.source, batch.target]), torch.cat([of_source, of_target]))

    def _probe(self, batch: PairBatch, found: Exchange) -> Tensor:
        """A source "other" of S has one factor in common with S, and all others with T."""
        sources = {
            "identity": (self.settings.identity_source, batch.identity_frames),
            "pose": (self.settings.pose_source, batch.pose_frames),
            "emotion": (self.settings.emotion_source, batch.emotion_frames),
        }
        own, others = concatenated(found.source, found.target), concatenated(found.target, found.source)
        shown = {factor: others for factor, (source, frames) in sources.items()
                 if source == "other" and frames is not None}  # fmt: skip
        return losses.probe_loss(self.irfd.probes(own, shown))

    def _compared(self, batch: PairBatch, found: Exchange) -> tuple[Tensor, Tensor]:
        """S rebuilt and A, where there is a true A, beside the truth; T and B only say the same once more."""
        pairs = []
        if found.self_source is not None:
            pairs.append((found.self_source, batch.source))
        if found.picture_a is not None:
            known = batch.has_exchanged[:, None, None, None]
            pairs.append((found.picture_a, torch.where(known, batch.source_exchanged, found.picture_a.detach())))
        made, true = (torch.cat(part) for part in zip(*pairs, strict=True))
        return made, true

    def _angles(self, batch: PairBatch, found: Exchange) -> Tensor:
        labels = (batch.source_labels.pose, batch.target_labels.pose)
        if labels[0] is None or labels[1] is None:
            return found.source.pose.sum() * 0
        mapper, reader = self.irfd.pose_mapper, self.irfd.pose_reader
        true = (torch.cat(labels) - mapper.centre) / mapper.spread
        known = true.isfinite().all(1, keepdim=True)  # a corpus may know the poses of some clips only
        read = reader(torch.cat([found.source.pose, found.target.pose])).float()
        return ((read - torch.where(known, true, 0.0)) * known).square().mean()

    def picture(self, batch: PairBatch) -> Tensor:
        """Rows of S, T, self S, A beside the true A, B beside the true B."""
        rows = slice(0, 8)
        found = self.exchange(batch, own=True)
        return side_by_side(
            *(frames[rows] for frames in (batch.source, batch.target, found.self_source, found.picture_a,
                                          batch.source_exchanged, found.picture_b, batch.target_exchanged))
        )  # fmt: skip

    def validate(self, batches: Iterable[PairBatch]) -> dict[str, float]:
        """Pictures and codes of held-out people: decibels, emotion accuracy, effective rank of each code."""
        rows: dict[str, list[float]] = {name: [] for name in ("self_db", "exchange_db", "unexchanged_db", "right")}
        codes: dict[str, list[Tensor]] = {"identity": [], "pose": [], "emotion": []}
        for batch in batches:
            found = self.exchange(batch, own=True)
            known = batch.has_exchanged
            rows["self_db"] += _decibels(found.self_source, batch.source).tolist()
            rows["exchange_db"] += _decibels(found.picture_a, batch.source_exchanged)[known].tolist()
            rows["unexchanged_db"] += _decibels(batch.source, batch.source_exchanged)[known].tolist()
            labels = torch.cat([batch.source_labels.emotion, batch.target_labels.emotion])
            right = (found.emotion_logits.argmax(1) == labels)[labels >= 0]
            rows["right"] += (right.float() * 100).tolist()
            for name, kept in codes.items():
                kept += [getattr(found.source, name), getattr(found.target, name)]
        figures = {name: sum(values) / len(values) for name, values in rows.items() if values}
        figures["emotion_percent"] = figures.pop("right", float("nan"))
        return figures | {f"rank_{name}": effective_rank(torch.cat(kept)) for name, kept in codes.items()}


def _decibels(frames: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each picture, its whole range being 2, [B]."""
    error = (frames.float().clamp(-1, 1) - truth.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-8))
