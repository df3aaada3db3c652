"""Defaults of `animate` and `adapt`. Everybody imports these classes from speak.config."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AnimateConfig:
    """How `animate` makes a video; not part of a model's own configuration."""

    output_size: int = 256  # pixels of the video's side; smaller models are scaled up to it
    batch: int = 16  # frames generated at once
    identity_steps: int | None = None  # that fit f_I to the photo; None: the weights' own (model.inversion.steps)
    audio_chunk: float = 2.0  # seconds of speech encoded at once
    shortest_speech: float = 0.2  # seconds; less is refused
    pose_smoothing: float = 1.2  # frames, standard deviation of the Gaussian over pose codes
    emotion_smoothing: float = 9.0  # frames, the same over emotion codes: a feeling changes slowly, a mouth does not
    liveliness: float = 0.6  # of the natural motion without a pose video; 1 is that of the rendered people
    silence_depth: float = 40.0  # dB below the loud speech from which sound counts as silence
    silence_floor: float = -70.0  # dB of full scale below which all sound is silence
    noise_margin: float = 6.0  # dB above steady background noise up to which sound counts as silence
    silence_reach: float = 0.1  # seconds to both sides that must be silent too: closures within words are speech
    silence_ramp: int = 2  # frames over which the mouth closes
    look_at_frames: int = 9  # frames of a driving video in which its face is looked for
    look_at_seconds: float = 30.0  # within its first seconds
    mean_frames: int = 32  # frames of a pose video, there too, about whose mean pose its head moves


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """How `--adapt` fits the weights to a person: pivotal tuning, the codes first, then the generator."""

    steps: int = 400  # both phases together; the default of --adapt without a number
    code_share: float = 0.3  # of the steps that fit the codes
    code_rate: float = 0.02  # Adam's learning rate of the codes
    generator_rate: float = 1e-2  # and of the generator
    motion_frames: int = 2  # poses and emotions a step, each with two sounds, that hold the generator to its motion
    clip_frames: int = 32  # frames of --adapt-clip, spread over it
    clip_batch: int = 2  # of them a step
    clip_seconds: float = 20.0  # of --adapt-clip that are looked at
    bank: int = 256  # poses, emotions and sounds that the motion frames are drawn from
    weight_pixel: float = 1.0  # mean absolute difference
    weight_ssim: float = 0.5  # 1 - SSIM
    weight_codes: float = 0.02  # pose, emotion and sound of the photo stay near what the encoders read
    weight_identity: float = 0.1  # E_i reads the person from every frame
    weight_pose: float = 0.1  # E_p reads the same from adapted and original frames
    weight_emotion: float = 0.1  # and E_e
    weight_mouth: float = 0.3  # what another sound changes in the picture stays the same
