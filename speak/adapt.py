"""`--adapt`: the weights fitted to one person (pivotal tuning, Roich et al. 2021), with their motion kept.

First the codes: f_I, and what the photo shows of pose, emotion and mouth, until the generator comes as near to the
photo as it can. Then the generator, with these codes held, until the photo is rebuilt. A generator so tuned on one
picture would forget how to move: so at every step it also makes frames of other poses, emotions and sounds, and the
frozen original makes the same. E_p and E_e must read the same from both, the difference that the sound makes in the
picture must be the same, and E_i must read the person of the photo. The paper's D has no part in it.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from speak.config import EMOTIONS, FRAME_RATE, AdaptConfig, RenderedConfig
from speak.drivers import Drivers, as_frames
from speak.errors import SpeakError
from speak.generation import Photo, TalkingHead
from speak.media.video import VideoReader, probe
from speak.models.speak import Speak
from speak.speech import Speech
from speak.synthetic.performance import make_person, perform

SSIM_WINDOW = 7
BANK_SECONDS = 10  # of speech whose sounds are used


@dataclasses.dataclass(frozen=True)
class AdaptReport:
    """What an adaptation did. Responses are sizes after it, as shares of those before."""

    seconds: float
    ssim_before: float  # of the photo and what the generator makes of its codes
    ssim: float
    pose_kept: float  # spread of what E_p reads from frames of other poses
    sound_kept: float  # mean difference of frames of other sounds

    def __str__(self) -> str:
        return (f"SSIM of the photo {self.ssim_before:.3f} -> {self.ssim:.3f}; response to pose "
                f"{100 * self.pose_kept:.0f} %, to sound {100 * self.sound_kept:.0f} % of what it was")  # fmt: skip


@dataclasses.dataclass
class DriverCodes:
    """Pose, emotion and sound of M frames: f_P [M, D_P], f_E [M, D_E], f_a [M, D]."""

    pose: Tensor
    emotion: Tensor
    audio: Tensor

    def __getitem__(self, index: Tensor) -> DriverCodes:
        return DriverCodes(*(part[index] for part in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pose, self.emotion, self.audio


def adapt(
    head: TalkingHead,
    photo: Photo,
    speech: Speech | None = None,  # whose sounds the mouth is to keep following; default a rendered voice
    steps: int | None = None,
    clip: str | Path | None = None,  # a short video of the person
    config: AdaptConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[TalkingHead, AdaptReport]:
    """A head of its own fitted to the person of `photo`; the one given is not changed. Raises SpeakError for the clip.

    About a third of a second a step at 256x256 on two cores that compute in bfloat16, half a second on others. Works
    with any weights; those made of rendered people need it to keep the likeness of a real face.
    """
    config = config or AdaptConfig()
    steps = steps or config.steps
    start = time.monotonic()
    random = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(head.model).requires_grad_(False)
    targets, codes = _targets(head, photo, clip, config)
    bank = motion_bank(head, speech, config.bank, seed)
    identity = head.read_identity(photo)[0].clone()
    half = head.dtype == torch.bfloat16  # float16 would want its gradients scaled
    before = ssim(_frames(model, identity, codes[:1], 0, half), targets[:1]).item()
    code_steps = round(config.code_share * steps)
    with tqdm(total=steps, desc="adapt", unit="step", disable=not progress) as bar:
        identity, codes = _fit_codes(model, targets, identity, codes, code_steps, config, random, bar, half)
        _fit_generator(model, head.model, targets, identity, codes, bank, steps - code_steps, config, random,
                       bar, half)  # fmt: skip
    after = ssim(_frames(model, identity, codes[:1], 0, half), targets[:1]).item()
    adapted = TalkingHead(model, head.config, head.device, head.dtype, identity, head.settings, photo.large[0])
    kept = _kept(model, head.model, identity, bank)
    return adapted, AdaptReport(time.monotonic() - start, before, after, *kept)


def _fit_codes(
    model: Speak, targets: Tensor, identity: Tensor, codes: DriverCodes, steps: int, config: AdaptConfig,
    random: torch.Generator, bar: tqdm, half: bool,
) -> tuple[Tensor, DriverCodes]:  # fmt: skip
    """The pivot: one f_I for all targets, and each target's own pose, emotion and sound near what was read."""
    free = identity.clone().requires_grad_()
    own = DriverCodes(*(part.clone().requires_grad_() for part in codes.parts()))
    optimizer = torch.optim.Adam([free, *own.parts()], lr=config.code_rate)
    for step, index in enumerate(_draws(len(targets), steps, config.clip_batch, random)):
        frames = _frames(model, F.normalize(free, dim=-1), own[index], step, half)
        pairs = zip(own.parts(), codes.parts(), strict=True)
        away = torch.stack([(part - there).square().mean() for part, there in pairs]).sum()
        loss = picture_loss(frames, targets[index], config) + config.weight_codes * away
        _step(optimizer, loss, config.code_rate, step, steps)
        bar.update()
    return F.normalize(free.detach(), dim=-1), DriverCodes(*(part.detach() for part in own.parts()))


def _fit_generator(
    model: Speak, original: Speak, targets: Tensor, identity: Tensor, codes: DriverCodes, bank: DriverCodes,
    steps: int, config: AdaptConfig, random: torch.Generator, bar: tqdm, half: bool,
) -> None:  # fmt: skip
    parameters = [p.requires_grad_() for p in (*model.generator.synthesis.parameters(),
                                               *model.generator.fuse.parameters())]  # fmt: skip
    with torch.no_grad():
        person = model.encode_identity(targets).mean(0, keepdim=True)
    optimizer = torch.optim.Adam(parameters, lr=config.generator_rate, betas=(0.9, 0.99))
    for step, index in enumerate(_draws(len(targets), steps, config.clip_batch, random)):
        driven = _two_sounds(bank, config.motion_frames, random)
        drawn = DriverCodes(*map(torch.cat, zip(codes[index].parts(), driven.parts(), strict=True)))
        frames = _frames(model, identity, drawn, step, half)
        rebuilt, moved = frames[: len(index)], frames[len(index) :]
        with torch.no_grad():
            true_moved = _frames(original, identity, driven, step, half)
        loss = picture_loss(rebuilt, targets[index], config) + motion_loss(model, moved, true_moved, person, config)
        _step(optimizer, loss, config.generator_rate, step, steps)
        bar.update()
    model.requires_grad_(False)


def picture_loss(
    frames: Tensor,  # [B, 3, H, W]
    truth: Tensor,  # [B, 3, H, W]
    config: AdaptConfig,
) -> Tensor:
    """Weighted sum of mean absolute difference and 1 - SSIM."""
    return config.weight_pixel * F.l1_loss(frames, truth) + config.weight_ssim * (1 - ssim(frames, truth))


def motion_loss(
    model: Speak,
    frames: Tensor,  # of the adapted generator [2 B, 3, H, W]: B poses and emotions with a sound, then with another
    original: Tensor,  # of the frozen one, the same codes and noise
    person: Tensor,  # f_I [1, D_I] of the photo
    config: AdaptConfig,
) -> Tensor:
    """What holds the adapted generator to the original's motion while its looks change."""
    with torch.no_grad():
        true_pose, true_emotion = model.encode_pose(original), model.encode_emotion(original)
    loss = config.weight_pose * F.mse_loss(model.encode_pose(frames), true_pose)
    loss = loss + config.weight_emotion * F.mse_loss(model.encode_emotion(frames), true_emotion)
    loss = loss + config.weight_identity * (1 - F.cosine_similarity(model.encode_identity(frames), person).mean())
    (one, other), (true_one, true_other) = frames.chunk(2), original.chunk(2)
    true_change = true_one - true_other
    change = (one - other - true_change).abs().mean() / (true_change.abs().mean() + 1e-4)
    return loss + config.weight_mouth * change


def ssim(
    frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    truth: Tensor,  # [B, 3, H, W]
) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over all; windows of 7x7, sample covariance. Differentiable."""
    x, y = (frames.clamp(-1, 1) + 1) / 2, (truth + 1) / 2

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, SSIM_WINDOW, 1)

    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = unbiased * (mean(x * x) - mean_x**2), unbiased * (mean(y * y) - mean_y**2)
    both = unbiased * (mean(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


@torch.no_grad()
def motion_bank(head: TalkingHead, speech: Speech | None, count: int, seed: int) -> DriverCodes:
    """`count` poses, emotions and sounds that go with no one another: where the weights know numbers and labels, of
    such; else drawn as the codes are distributed."""
    model, random = head.model, torch.Generator().manual_seed(seed)
    drawn = RenderedConfig()
    if model.pose_mapper.fitted:
        spread = torch.tensor([drawn.yaw, drawn.pitch, drawn.roll, drawn.shift, drawn.shift, drawn.scale])
        numbers = torch.randn(count, 6, generator=random).clamp(-2, 2) * spread + torch.tensor([0, 0, 0, 0, 0, 1.0])
        pose = model.pose_from_numbers(numbers.to(head.device))
    else:
        pose = torch.randn(count, head.config.model.pose.code_dim, generator=random).to(head.device)
    known = [EMOTIONS[i] for i in range(len(EMOTIONS)) if model.emotion_prototypes.known[i]]
    if known:
        picks = torch.randint(len(known), (count,), generator=random).tolist()
        strengths = torch.rand(count, generator=random).tolist()
        emotion = torch.stack([model.emotion_from_names({known[i]: s}) for i, s in zip(picks, strengths, strict=True)])
    else:
        emotion = torch.randn(count, head.config.model.emotion.code_dim, generator=random).to(head.device)
    if speech is None:
        speech = Speech(perform(make_person(seed, 0), 0, 1, (seed, 0), (seed, 1), 6.0).sound())
    sounds: list[Tensor] = []
    for block in speech.encode(model, head.settings):
        sounds.append(block)
        if sum(map(len, sounds)) >= BANK_SECONDS * FRAME_RATE:
            break
    audio = torch.cat(sounds)
    audio = audio[torch.randint(len(audio), (count,), generator=random).to(audio.device)]
    return DriverCodes(pose, emotion, audio)


def _targets(
    head: TalkingHead, photo: Photo, clip: str | Path | None, config: AdaptConfig
) -> tuple[Tensor, DriverCodes]:
    """The pictures to be rebuilt [M, 3, S, S], the photo first, and what the encoders read from them."""
    frames, model = photo.frame, head.model
    audio = model.encode_silence()[None]
    if clip is not None:
        pictures, sounds = _clip(head, clip, config)
        frames, audio = torch.cat([frames, pictures]), torch.cat([audio, sounds])
    with torch.no_grad():
        return frames, DriverCodes(model.encode_pose(frames), model.encode_emotion(frames), audio)


def _clip(head: TalkingHead, clip: str | Path, config: AdaptConfig) -> tuple[Tensor, Tensor]:
    """Frames of the clip [M, 3, S, S], spread over it, and their sounds f_a [M, D]; without sound those of silence."""
    size, info = head.image_size, probe(clip)
    box = Drivers(head.model, size, head.settings, [], head.config.prepare.grow).driver_box(clip, "clip")
    limit = round(config.clip_seconds * FRAME_RATE)
    with VideoReader(clip, frames=limit, box=box, size=(size, size)) as reader:
        pictures = list(reader)
    picks = np.unique(np.linspace(0, len(pictures) - 1, config.clip_frames).round().astype(int))
    frames = as_frames([pictures[pick] for pick in picks], head.device)
    silent = head.model.encode_silence()
    vectors = silent.expand(len(picks), -1)
    if info.sound:
        try:
            sound = Speech(clip, head.settings)
        except SpeakError:  # silent, or shorter than speech can be
            return frames, vectors
        needed, held = int(picks[-1]) + 1, []
        for block in sound.encode(head.model, head.settings):
            held.append(block)
            if sum(map(len, held)) >= needed:
                break
        known = torch.cat(held)
        vectors = torch.stack([known[pick] if pick < len(known) else silent for pick in picks])
    return frames, vectors


def _frames(model: Speak, identity: Tensor, codes: DriverCodes, seed: int, half: bool = False) -> Tensor:
    """Frames [M, 3, S, S] of one person, in float32; the noise is that of `seed`. `half`: made in bfloat16."""
    pose, emotion, audio = (part[None] for part in codes.parts())
    with torch.autocast(identity.device.type, dtype=torch.bfloat16, enabled=half):
        frames = model.generate(identity[None], pose, emotion, audio, model.draw_noise([seed]))[0]
    return frames.float()


def _draws(count: int, steps: int, batch: int, random: torch.Generator) -> list[Tensor]:
    """Which targets each step sees: always the photo (number 0), and with a clip `batch` of its frames."""
    if count == 1:
        return [torch.zeros(1, dtype=torch.long)] * steps
    return [torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(1, count, (batch,), generator=random)])
            for _ in range(steps)]  # fmt: skip


def _two_sounds(bank: DriverCodes, count: int, random: torch.Generator) -> DriverCodes:
    """`count` poses and emotions of the bank with one sound, then the same with another: [2 count]."""
    def pick(number: int) -> Tensor:
        return torch.randint(len(bank.pose), (number,), generator=random)

    pose, emotion = bank.pose[pick(count)], bank.emotion[pick(count)]
    return DriverCodes(pose.repeat(2, 1), emotion.repeat(2, 1), bank.audio[pick(2 * count)])


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, step: int, steps: int) -> None:
    """One step of Adam; the rate falls to nothing along a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = rate * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _kept(model: Speak, original: Speak, identity: Tensor, bank: DriverCodes) -> tuple[float, float]:
    """Shares of the original's response to pose and to sound that the adapted generator has."""
    several = torch.arange(min(16, len(bank.pose)))
    moving = DriverCodes(bank.pose[several], bank.emotion[:1].expand(len(several), -1),
                         bank.audio[:1].expand(len(several), -1))  # fmt: skip
    speaking = DriverCodes(bank.pose[:1].expand(len(several), -1), bank.emotion[:1].expand(len(several), -1),
                           bank.audio[several])  # fmt: skip

    def both(size: Callable[[Tensor], Tensor], codes: DriverCodes) -> float:
        sizes = [size(_frames(each, identity, codes, 0)) for each in (model, original)]
        return (sizes[0] / sizes[1].clamp(min=1e-8)).item()

    pose = both(lambda frames: model.encode_pose(frames).std(0).square().mean().sqrt(), moving)
    sound = both(lambda frames: (frames - frames.mean(0)).abs().mean(), speaking)
    return pose, sound
