"""Stage `speak`: SPEAK Sec. 3.2-3.3, Eq. 9-13. One frame, speech, poses and an emotion to the frames of a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speak import losses
from speak.checkpoint import load_into
from speak.config import Config, SpeakConfig, sample_of_frame
from speak.datasets.stage_batches import WindowBatch
from speak.errors import SpeakError
from speak.metrics import psnr, to_uint8
from speak.models.codes import Codes
from speak.models.discriminator import Discriminator
from speak.models.inversion import fit_identity
from speak.models.irfd import ENCODERS, HANDED_ON
from speak.models.photo_warp import Portrait
from speak.models.speak import Speak
from speak.models.syncnet import SyncNet, speech_windows, video_windows
from speak.synthetic.augment import recoloured, reshaped
from speak.train.controls import fit_controls
from speak.train.face_weight import face_weight
from speak.train.journal import side_by_side
from speak.train.perceptual import perceptual_features, perceptual_terms
from speak.train.processes import gathered
from speak.train.stage import Inputs, Phase, Stage, parameters_of
from speak.train.warm_start import global_from_disentangling


class PathLength(nn.Module):
    """The running mean of StyleGAN2's path lengths, saved with the training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """The whole model; D, SyncNet and the perceptual net where their losses have a weight."""
    settings = config.speak
    model = Speak(config)
    _take_predecessors(model, config, inputs)
    model.to(device)
    learning = learning_encoders(settings)
    for factor, name in ENCODERS.items():
        getattr(model, name).to(memory_format=torch.channels_last)
        getattr(model, name).requires_grad_(factor in learning)
    model.audio_encoder.requires_grad_(settings.train_audio)
    model.pose_mapper.requires_grad_(False)
    if not settings.train_generator:
        if model.photo_warp is None:
            raise SpeakError("speak.train_generator=false: without model.photo_warp.width nothing is left to learn")
        model.requires_grad_(False)
        model.photo_warp.requires_grad_(True)
    networks: dict[str, nn.Module] = {"speak": model}
    if settings.weight_adversarial or settings.weight_feature_matching:
        networks["discriminator"] = Discriminator(config.model.discriminator).to(device)
    if settings.weight_path_length:
        networks["path_length"] = PathLength().to(device)
    syncnet = None
    if settings.weight_sync:
        found = inputs.weights("syncnet")
        syncnet = SyncNet(config.model.syncnet)
        load_into(syncnet, found["models"]["syncnet"], "the weights of stage syncnet")
        syncnet.to(device).eval().requires_grad_(False)
    wanted = settings.weight_perceptual or settings.weight_reading
    features = perceptual_features(config, inputs, device) if wanted else None
    step = _Step(config, networks, syncnet, features)
    styled = parameters_of(model.generator.fuse, model.generator.synthesis)
    phases = [Phase("speak", parameters_of(model), settings.learning_rate, step.weights, step.losses, styled,
                    settings.generator_rate, settings.optimizer)]  # fmt: skip
    if "discriminator" in networks:
        rate, weights = settings.discriminator_learning_rate, {"discriminator": 1.0}
        phases.append(Phase("discriminator", parameters_of(networks["discriminator"]), rate, weights, step.judge))
    # Encoders that learn on say poses and emotions otherwise than stage `irfd` left it.
    finish = (lambda data: fit_controls(model, data)) if settings.train_encoders else None
    return Stage(networks, ("speak",), phases, step.validate, step.picture, finish)


def learning_encoders(settings: SpeakConfig) -> tuple[str, ...]:
    """Which of identity, pose and emotion have an encoder that learns on."""
    if not settings.train_generator:
        return ()
    if settings.train_encoders:
        return tuple(ENCODERS)
    return ("identity",) if settings.train_identity else ()


def _take_predecessors(model: Speak, config: Config, inputs: Inputs) -> None:
    """E_i, E_p, E_e from stage `irfd`, E_a from stage `audio`; not needed if trained from scratch or in --init."""
    found = inputs.weights("irfd", needed=not config.speak.train_encoders)
    if found is not None:
        irfd = {key: value for key, value in found["models"]["irfd"].items()}
        for name in HANDED_ON:
            state = {key.removeprefix(f"{name}."): value for key, value in irfd.items() if key.startswith(f"{name}.")}
            load_into(getattr(model, name), state, "the weights of stage irfd")
        if config.speak.warm_generator:
            global_from_disentangling(model.generator, irfd)
    found = inputs.weights("audio", needed=False)
    if found is not None:
        load_into(model.audio_encoder, found["models"]["audio_encoder"], "the weights of stage audio")


class _Step:
    """What one batch is asked for."""

    def __init__(self, config: Config, networks: dict[str, nn.Module], syncnet: SyncNet | None, features: Any) -> None:
        self.config, self.settings = config, config.speak
        self.model: Speak = networks["speak"]
        self.discriminator: Discriminator | None = networks.get("discriminator")
        self.path_length: PathLength | None = networks.get("path_length")
        self.syncnet, self.features = syncnet, features
        self.learning = learning_encoders(config.speak)
        self.weights = losses.loss_weights(config.speak)
        if self.model.photo_warp is None:
            self.weights |= {"unaided": 0.0, "bent": 0.0}  # `pixel` is the former

    def codes(self, batch: WindowBatch, own: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f_I, f_P, f_E, f_a of a window; own: read from frames of the clip itself, and f_I not fitted."""
        settings = self.settings

        def read(source: str, frames: Tensor, others: Tensor | None) -> Tensor:
            return frames if own or source == "own" or others is None else others

        frames = read(settings.pose_source, batch.frames, batch.pose_frames)
        identity_frame = self._photos(batch, own)
        emotion_frames = read(settings.emotion_source, batch.emotion_frames, batch.emotion_frames_other)
        model, count = self.model, batch.frames.shape[1]
        training, grad = model.training, torch.is_grad_enabled()

        def encode(factor: str, frames: Tensor) -> Tensor:
            learns = factor in self.learning
            # A frozen encoder encodes with the statistics that it was trained to have.
            getattr(model, ENCODERS[factor]).train(training and learns)
            with torch.set_grad_enabled(grad and learns):
                return getattr(model, f"encode_{factor}")(frames)

        identity, pose = encode("identity", identity_frame), encode("pose", frames)
        emotion = encode("emotion", emotion_frames).mean(1, keepdim=True)
        if (steps := settings.inversion_steps) and not own:
            fitted, even = identity.detach().clone(), batch.number % 2 == 0
            fitted[even] = fit_identity(model, identity_frame[even], fitted[even], steps, self.config.model.inversion)
            identity = torch.where(even[:, None], fitted, identity)  # E_i learns from the others
        with torch.set_grad_enabled(torch.is_grad_enabled() and settings.train_audio):
            audio = model.encode_audio(batch.speech, count + 2 * batch.context)
        return identity, pose, emotion, audio[:, batch.context : batch.context + count]

    def unaided(
        self,
        batch: WindowBatch,
        mistaken: Tensor,  # [B] bool: whose f_I is that of the window before
    ) -> tuple[Tensor, Tensor, Portrait | None]:
        """G_g's own frames [B, N, 3, H, W], without what the photo adds, their f_P [B, N, D_P], and the portraits that
        would add it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.settings.train_generator):
            identity, *others = self.codes(batch)
            identity = torch.where(mistaken[:, None], identity.roll(1, 0), identity)
            frames = self.model.generate(identity, *others, self.model.draw_noise(batch.number.tolist()))
        return frames, others[0], self.model.portrait(identity.detach(), self._photos(batch))

    def generate(self, batch: WindowBatch) -> Tensor:
        """Frames [B, N, 3, H, W] as in use: everything is read from frames of the clip itself, f_I is not fitted."""
        codes, noise = self.codes(batch, own=True), self.model.draw_noise(batch.number.tolist())
        return self.model.generate(*codes, noise, self.model.portrait(codes[0], self._photos(batch, own=True)))

    def _photos(self, batch: WindowBatch, own: bool = False) -> Tensor:  # what E_i reads [B, 3, H, W]
        other = self.settings.identity_source == "other" and batch.identity_frame_other is not None
        return batch.identity_frame_other if other and not own else batch.identity_frame

    def losses(self, batch: WindowBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        """Eq. 10-13 and our terms."""
        strangers, mistaken = self._strangers(batch)
        unaided, pose, portrait = self.unaided(batch, mistaken)
        names = ("frames", "identity_frame", "identity_frame_other")
        shown = memory["shown"] = dataclasses.replace(
            batch, **{name: _changed(getattr(batch, name), batch, strangers, self._stranger) for name in names}
        )
        frames, bent = unaided, None
        if portrait is not None:
            portrait = dataclasses.replace(portrait, photos=self._photos(shown))
            # Of strangers G_g is not to learn: it would mix the colours that it cannot know.
            taught = torch.where(_cells(strangers), unaided.detach(), unaided)
            flat, bent = self.model.photo_warp.compose(taught.flatten(0, 1), pose.flatten(0, 1), portrait)
            frames = flat.unflatten(0, unaided.shape[:2])
        memory["frames"] = frames
        made, true = frames.flatten(0, 1), shown.frames.flatten(0, 1)
        landmarks = batch.labels.landmarks
        weight = face_weight(
            None if landmarks is None else landmarks.flatten(0, 1), made.shape[-1], self.settings.face,
            self.settings.mouth,
        )
        there = weight  # the same places in what is shown
        if weight is not None:
            there = _changed(weight.unflatten(0, frames.shape[:2]), batch, strangers, reshaped).flatten(0, 1)
        judged = self._judged(shown, made) if self.discriminator else []
        return losses.compute({
            "adversarial": lambda: losses.adversarial_loss(judged),
            "feature_matching": lambda: self._feature_matching(shown, judged),
            "sync": lambda: self._sync(batch, frames),
            **perceptual_terms(self.features, made, true, self.weights, self.config.perceptual,
                               there if self.settings.face_features else None),
            "pixel": lambda: losses.pixel_loss(made, true, there),
            "unaided": lambda: losses.pixel_loss(
                torch.where(_cells(mistaken), batch.frames, unaided).flatten(0, 1), batch.frames.flatten(0, 1), weight
            ),
            "bent": lambda: losses.pixel_loss(bent, true),
            "path_length": lambda: self._path_length(batch),
        }, self.weights)  # fmt: skip

    def _strangers(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:  # [B] bool each
        """Whose photo and truth are shown otherwise than E_i has seen them; for whom of those it has seen another.

        A real person G_g makes badly, or as somebody else; of what it makes then, how things lie and move is to be
        taken, not their looks.
        """
        share = 0.0 if self.model.photo_warp is None else self.settings.strangers
        chances = torch.stack([
            torch.rand((), generator=torch.Generator().manual_seed(number)) for number in batch.number.tolist()
        ]).to(batch.number.device)  # fmt: skip
        return chances < share, chances < share * self.settings.strangers_mistaken

    def _stranger(self, frames: Tensor, seeds: Tensor) -> Tensor:
        return reshaped(recoloured(frames, seeds, self.settings.strangers_colour), seeds)

    def judge(self, batch: WindowBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        """D's own loss, Eq. 10."""
        shown = memory["shown"]
        true, penalty = shown.frames.flatten(0, 1), self.settings.discriminator_r1
        if penalty:
            true = true.detach().requires_grad_(True)
        real = self._judged(shown, true)
        loss = losses.discriminator_loss(real, self._judged(shown, memory["frames"].detach().flatten(0, 1)))
        return {"discriminator": loss + penalty * losses.r1_penalty(real, true) if penalty else loss}

    def _judged(self, batch: WindowBatch, frames: Tensor) -> losses.Scales:
        count = batch.frames.shape[1]
        return self.discriminator(batch.identity_frame.repeat_interleave(count, 0), frames)

    def _feature_matching(self, batch: WindowBatch, judged: losses.Scales) -> Tensor:
        with torch.no_grad():
            real = self._judged(batch, batch.frames.flatten(0, 1))
        return losses.feature_matching_loss(judged, real)

    def _sync(self, batch: WindowBatch, frames: Tensor) -> Tensor:
        speech = batch.speech[:, sample_of_frame(batch.context) :]
        with torch.no_grad():
            audio = self.syncnet.embed_audio(speech_windows(speech, frames.shape[1]))
        return losses.sync_loss(self.syncnet.embed_video(video_windows(frames)), audio)

    def _path_length(self, batch: WindowBatch) -> Tensor:
        """Of the first frame of each window."""
        identity, pose, emotion, audio = self.codes(batch)
        model, noise = self.model, self.model.draw_noise(batch.number.tolist())
        codes = Codes(identity, pose[:, 0], emotion[:, 0])
        edited = model.editing(audio[:, :1], Codes(identity[:, None], pose[:, :1], emotion[:, :1]), noise.editing)
        styles = model.generator.styles(codes, edited[:, 0])
        frames = model.generator.synthesis(styles, noise.maps)
        directions = torch.stack([
            torch.randn(frames.shape[1:], generator=torch.Generator().manual_seed(int(number) + 1))
            for number in batch.number.tolist()
        ]).to(frames.device)  # fmt: skip
        penalty, mean = losses.path_length_penalty(
            frames, styles, self.path_length.mean, directions, average=lambda lengths: gathered(lengths).mean()
        )
        self.path_length.mean.copy_(mean.detach())
        return penalty

    def picture(self, batch: WindowBatch) -> Tensor:
        """Rows of identity, emotion frame, then truth beside generated for the window's first and last frame."""
        frames = self.generate(batch)
        rows = slice(0, 8)
        return side_by_side(
            *(part[rows] for part in (batch.identity_frame, batch.emotion_frames[:, 0], batch.frames[:, 0],
                                      frames[:, 0], batch.frames[:, -1], frames[:, -1]))
        )  # fmt: skip

    def validate(self, batches: Iterable[WindowBatch]) -> dict[str, float]:
        """Self-driven windows of held-out people: decibels, and SyncNet's loss beside the truth's."""
        decibels, distances, true_distances = [], [], []
        for batch in batches:
            frames = self.generate(batch)
            decibels.append(psnr(to_uint8(frames.flatten(0, 1)), to_uint8(batch.frames.flatten(0, 1))).float())
            if self.syncnet is not None:
                distances.append(self._sync(batch, frames).reshape(1))
                true_distances.append(self._sync(batch, batch.frames).reshape(1))
        figures = {"db": float(torch.cat(decibels).mean())}
        if distances:
            figures["sync"] = float(torch.cat(distances).mean())
            figures["sync_true"] = float(torch.cat(true_distances).mean())
        return figures


def _cells(chosen: Tensor) -> Tensor:  # [B] -> [B, 1, 1, 1, 1]
    return chosen[:, None, None, None, None]


def _changed(
    frames: Tensor | None,  # [B, C, H, W] or [B, N, C, H, W]
    batch: WindowBatch,
    chosen: Tensor,  # [B] bool
    change: Callable[[Tensor, Tensor], Tensor],  # pictures and a seed each to pictures
) -> Tensor | None:
    """The frames, those of the windows that are chosen changed: all of a window in the same way."""
    if frames is None or not chosen.any():
        return frames
    some, each = frames[chosen], frames.shape[1] if frames.ndim == 5 else 1
    changed = change(some.reshape(-1, *some.shape[-3:]), batch.number[chosen].repeat_interleave(each))
    frames = frames.clone()
    frames[chosen] = changed.reshape(some.shape)
    return frames
