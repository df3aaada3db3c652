"""Training stages and the data that they draw from: the configuration's dataclasses. Import them from speak.config."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What all training stages share. Steps, batch and learning rate are the stages' own."""

    seed: int = 0  # of the weights to begin with and of the data's order
    dtype: str = "auto"  # auto, float32, bfloat16, float16: of the networks' arithmetic; losses and codes stay float32
    accumulate: int = 1  # a batch goes through in so many parts; what compares its samples does so within a part
    checkpoint_activations: bool = False  # recomputes what the backward pass needs: less memory, a third more work
    beta1: float = 0.9  # Adam's
    beta2: float = 0.99
    epsilon: float = 1e-8  # Adam's
    warm_up: int = 100  # steps in which the learning rate rises
    decay: float = 0.3  # share of the steps, at the end, in which it falls to a hundredth
    clip: float = 5.0  # norm that a step's gradient is cut to; 0: it is not
    ema_decay: float = 0.998  # of the averaged weights, which are the ones that are used afterwards
    workers: int = 1  # processes that make batches; 0, and on a GPU: the training process itself
    log_every: int = 50  # steps
    check_every: int = 1000  # steps between validations and pictures
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # checkpoints that stay
    validation: int = 64  # samples of held-out people


@dataclasses.dataclass(frozen=True)
class JudgeStageConfig:
    """Stages `judge` and `perceptual`: one net that reads a frame, for measuring, and another for L_vgg."""

    steps: int = 20_000
    batch: int = 32
    learning_rate: float = 1e-3
    weight_landmarks: float = 1.0
    weight_pose: float = 1.0
    weight_mouth_opening: float = 4.0
    weight_emotion: float = 1.0
    weight_likeness: float = 0.3  # two frames of one person against the other people of the batch
    temperature: float = 0.1  # of the likeness


@dataclasses.dataclass(frozen=True)
class AudioStageConfig:
    """Stage `audio`: the audio encoder learns phones and mouths where no pretrained weights are given."""

    steps: int = 6_000
    batch: int = 16
    learning_rate: float = 1e-3
    optimizer: str = "muon"  # ours: as in irfd
    weight_phones: float = 0.3
    weight_mouth: float = 3.0


@dataclasses.dataclass(frozen=True)
class IrfdConfig:
    """Stage `irfd`: the weights of SPEAK Eq. 8 and of our terms. 0 switches a loss off and skips its work."""

    steps: int = 60_000
    batch: int = 16  # pairs; four pictures are generated for each
    learning_rate: float = 1e-3
    optimizer: str = "muon"  # ours: of all but D; adam, as published, needs twice the time at first
    generator_rate: float = 2.0  # ours: of G_d's learning rate; its equalised weights hardly move at the encoders'
    weight_identity: float = 0.1  # Eq. 1
    weight_classification: float = 0.3  # Eq. 2
    weight_pose: float = 0.1  # Eq. 3
    weight_emotion: float = 0.1  # Eq. 4
    weight_self: float = 1.0  # Eq. 5-7
    weight_cross: float = 1.0  # ours: A and B against the true picture of the exchange, where there is one
    weight_probe: float = 0.0  # ours: gradient-reversed probes of the other factors
    weight_perceptual: float = 0.0  # ours: features of the pictures that self and cross compare
    weight_reading: float = 0.0  # ours: what the perceptual net reads from them
    weight_adversarial: float = 0.0  # ours: D on the generated pictures
    weight_angles: float = 0.3  # ours: exact poses read from f_P by a linear map, where they are known
    discriminator_r1: float = 0.0  # ours: D's own loss is Eq. 10 + this * its gradient penalty
    face: float = 4.0  # ours: how much more the pixels about eyes and mouth count in self and cross
    # ours: which picture each encoder reads. own: S (or T) itself; other: one that has only that factor in common
    identity_source: str = "other"
    pose_source: str = "other"
    emotion_source: str = "other"
    trunks: str = "perceptual"  # ours: encoders begin as the net of stage `perceptual`, if there is one; or new
    code_losses_from: float = 0.5  # ours: Eq. 1, 3 and 4 join in after this share of the steps, once there are pictures
    perceptual_from: float = 0.5  # ours: "perceptual" and "reading" join in after this share: blurs only mislead them
    erase_pose: bool = True  # ours: at the end, what is linear in the pose is taken out of f_I and f_E
    margin: float = 0.05  # alpha of Eq. 1, in units of L2 / sqrt(D); codes of unit length are at most 2 / sqrt(D) apart
    detach_targets: bool = True  # the codes that Eq. 3 and 4 compare with take no gradient
    freeze_reencoder: bool = True  # generated pictures are encoded again without moving the encoders


@dataclasses.dataclass(frozen=True)
class SyncNetStageConfig:
    """Stage `syncnet`: SPEAK Eq. 11."""

    steps: int = 10_000
    batch: int = 32
    learning_rate: float = 1e-3
    weight_contrastive: float = 1.0
    weight_matching: float = 1.0  # ours: each window finds its own speech among the batch's, and the speech its window
    temperature: float = 0.07  # of the matching
    trunk: str = "perceptual"  # ours: the video net begins as the net of stage `perceptual`, if there is one; or new
    margin: float = 1.0  # of Eq. 11; embeddings of our SyncNet have unit length, so distances lie in [0, 2]


@dataclasses.dataclass(frozen=True)
class SpeakConfig:
    """Stage `speak`: the weights of SPEAK Eq. 13 and of our terms. 0 switches a loss off and skips its work."""

    steps: int = 60_000
    batch: int = 8  # windows
    learning_rate: float = 1e-3
    optimizer: str = "muon"  # ours: as in irfd
    generator_rate: float = 2.0  # ours: of G_g's learning rate; its equalised weights hardly move at the others'
    discriminator_learning_rate: float = 2e-4
    train_encoders: bool = False  # E_i, E_p and E_e learn on; without stage `irfd` they must
    train_identity: bool = False  # ours: E_i alone learns on
    train_audio: bool = True  # E_a learns on
    train_generator: bool = True  # ours: False: what bends the photo learns alone, all else stays as it is
    # ours: what the encoders read, where there is such a thing (rendered people). own: frames of the clip itself, as in
    # use; other: frames that have only that factor in common with it, so that no code tells what another is to tell
    identity_source: str = "other"
    pose_source: str = "other"
    emotion_source: str = "other"
    inversion_steps: int = 0  # ours: that fit every second f_I to the photo (model.inversion.steps: the same in use)
    warm_generator: bool = True  # ours: G_g begins as G_d, where stage `irfd` has one of its shape
    face: float = 10.0  # ours: how much more the pixels about eyes and mouth count in `pixel`
    mouth: float = 1.0  # ours: how much more of that for the mouth's
    face_features: bool = False  # ours: the same places count more in L_vgg
    weight_adversarial: float = 0.1  # L_GAN, Eq. 10
    weight_feature_matching: float = 0.0  # ours: D's features of both frames alike
    weight_sync: float = 0.1  # L_sync, Eq. 11-12
    weight_perceptual: float = 1.0  # L_vgg
    weight_reading: float = 0.5  # ours: what the perceptual net reads from the frames; without it mouths hardly move
    weight_pixel: float = 1.0  # ours: mean absolute difference
    weight_unaided: float = 0.5  # ours: the same of G_g's own picture, before the photo's part is added
    weight_bent: float = 1.0  # ours: the same of the photo as it is bent, everywhere, also where little is taken of it
    strangers: float = 0.4  # ours: share of windows whose photo and truth, not what E_i reads, are recoloured, reshaped
    # ours: how much they are recoloured, 1 as by any camera, also to grey: then nobody can know the colour of a mouth
    strangers_colour: float = 0.4
    strangers_mistaken: float = 0.5  # ours: share of those for whom E_i is shown somebody else: the window before's
    discriminator_r1: float = 0.0  # ours: D's own loss is Eq. 10 + this * its gradient penalty
    weight_path_length: float = 0.0  # ours: StyleGAN2's path length penalty on the per-level styles


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """How `prepare` cuts clips out of videos (shared crop rule of the first-order-model preprocessing)."""

    size: int = 256  # pixels of a prepared frame's side
    jpeg_quality: int = 95
    # The face's box grows by at least this share on every side. It stays with the weights that are trained: photos and
    # drivers are cropped alike. Rendered people are seen from farther, as with 0.25.
    grow: float = 0.1
    longest_chunk: int = 1024  # frames; a new chunk starts there
    shortest_chunk: int = 64  # frames; shorter pieces of a clip that had to be divided are dropped
    shortest_clip: int = 16  # frames; shorter clips that stay whole are dropped (CREMA-D's are often under 64)
    smallest_face: int = 64  # pixels of the longer side; smaller faces are dropped
    same_place: float = 0.25  # a new chunk starts when the IoU with the chunk's first box falls below this
    detect_every: int = 3  # frames between two detections; boxes in between are interpolated


@dataclasses.dataclass(frozen=True)
class SynthConfig:
    """What `synth` writes: a corpus of rendered people."""

    identities: int = 8
    clips: int = 22  # a person: seven emotions at three levels and neutral; more are further takes
    seed: int = 0
    size: int = 256  # pixels of a frame's side
    seconds: float = 3.0  # of a clip, about, at an ordinary tempo
    jpeg_quality: int = 95
    lifelike: float = 0.0  # share of people with the proportions of adults; the others are figurines
    voices: str = "own"  # own: formant synthesis, the same everywhere; installed: espeak-ng and flite speak as well


@dataclasses.dataclass(frozen=True)
class RenderedConfig:
    """What batches of rendered people are drawn from (`--data synthetic`)."""

    identities: int = 200_000  # people of each split; those of val and test are others than those of train
    lifelike: float = 0.0  # share of people with the proportions of adults; the others are figurines
    yaw: float = 16.0  # degrees, standard deviation of single frames' poses, cut at 40
    pitch: float = 9.0  # degrees, cut at 30
    roll: float = 6.0  # degrees, cut at 20
    shift: float = 0.03  # image widths, standard deviation of x and y, cut at 0.1
    scale: float = 0.05  # standard deviation of scale about 1, cut at 0.15
    nearest: float = 1.0  # clips and single frames are zoomed by a factor of 1 to this; real crops want about 1.55
    resting_mouths: float = 0.25  # share of single frames whose mouth is at rest
    blinks: float = 0.1  # share of single frames with closing eyes
    frames: int = 5  # N of a window of stages `syncnet` and `speak`
    # M, frames from elsewhere in the clip, whose emotion codes are averaged. In use they are a video's: a code of one
    # frame is noisier, and G_g learns to make less of it.
    emotion_frames: int = 3
    context: int = 60  # frames of speech to each side of a window of stage `speak`
    sentence_seconds: float = 6.0  # of the sentences that windows are cut from
    speech_frames: int = 90  # frames of a clip of stage `audio`
    matched: float = 0.5  # share of stage `syncnet`'s windows with their own speech; the rest shifted or foreign
    longest_shift: int = 15  # frames
    augmented_frames: float = 0.5  # strength of what happens to stage `judge`'s frames: light, blur, noise, occluders
    installed_voices: float = 0.0  # share of sentences spoken by espeak-ng or flite; above 0 data depend on the machine
    augmented_speech: float = 0.8  # share of stage `audio`'s and `syncnet`'s clips with noise, rooms, equalisation
    uses: int = 16  # samples made, on average, of what was rendered once; 1: every sample is new
    frame_uses: int = 16  # the same for stages `judge` and `perceptual`, which learn pictures by heart sooner
    kept: int = 8192  # units (pairs, windows) that samples are drawn from at a time
    kept_gigabytes: float = 4.0  # of memory at most for their pictures
    chunk: int = 64  # pictures rendered at once, about


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
class DisentanglementConfig:
    """How many rendered samples disentanglement is measured with; the defaults take about two minutes of two cores."""

    probe_frames: int = 2000  # single frames, about as many people: two thirds fit the probes, the rest tests them
    people: int = 20  # of the identity probe
    lifelike: float = 0.0  # share of people with the proportions of adults
    person_frames: int = 24  # of each of them: two thirds fit, the rest tests
    exchange_pairs: int = 96
    audio_clips: int = 12
    clip_frames: int = 60  # of a clip whose audio is exchanged
    grid_rows: int = 2  # pairs a factor in the Figure 5 grid
    batch: int = 32


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """The self-driven protocol of `evaluate` and the conventions of its figures (speak.metrics)."""

    psnr: str = "rgb"  # rgb or legacy_uint8
    ssim: str = "uniform"  # uniform (scikit-image's default) or gaussian (Wang et al. 2004)
    lmd: str = "mean"  # mean or sum over the points
    lengths: str = "common"  # of a pair: common: the frames that both have; resample: the generated one stretched
    clips: int = 24  # at most; 0: all of the split
    frames: int = 150  # of a clip, at most; 0: all
    emotion_frames: int = 4  # spread over the clip, for the emotion code
    rendered_frames: int = 90  # of a rendered clip (--data synthetic)
    lifelike: float = 0.0  # share of rendered people with the proportions of adults
    shown: int = 4  # clips whose stills and videos stand in the page
