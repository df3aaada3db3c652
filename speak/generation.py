"""A model ready to animate photos: what `speak.load()` returns, and the stream of frames that it makes of four inputs.

Memory does not grow with the length of the speech: sound is encoded, drivers decoded and frames generated in batches,
a few seconds at most at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speak import allocator, checkpoint
from speak.config import AnimateConfig, Config, to_dict
from speak.drivers import Drivers, Taken, as_frames, played, smoothed
from speak.errors import SpeakError
from speak.media.face import FoundFace, PasteBack, crop, find_face
from speak.media.image import read_image
from speak.models.photo_warp import Portrait
from speak.models.speak import ClipNoise, Speak
from speak.precision import choose_device, choose_dtype
from speak.shipped import load_speak
from speak.speech import Speech

Source = str | Path | np.ndarray
GIVE_BACK = 16  # batches after which holes in memory are given back
SMALLEST_FACE = 64  # pixels of a crop below which the user is told


@dataclasses.dataclass(frozen=True)
class Photo:
    """The photo of one person: whole, where the face is, and the crop that the model reads."""

    picture: np.ndarray  # uint8 [H, W, 3]
    face: FoundFace
    frame: Tensor  # [1, 3, S, S] in [-1, 1], S the model's image size
    large: Tensor  # the same [1, 3, O, O], O the size of the frames that come out
    name: str


class Animation:
    """The frames of one video, an iterator of uint8 [H, W, 3] at 30 frames/s; they are made as they are taken.

    frames: how many there will be. notes: remarks for the user, complete once the first frame is there.
    """

    def __init__(self, pictures: Iterator[np.ndarray], frames: int, notes: list[str]) -> None:
        self._pictures, self.frames, self.notes = pictures, frames, notes

    def __iter__(self) -> Animation:
        return self

    def __next__(self) -> np.ndarray:
        return next(self._pictures)

    def __len__(self) -> int:
        return self.frames

    def close(self) -> None:
        """Ends the decoders; harmless at any time."""
        self._pictures.close()


class TalkingHead:
    """A whole SPEAK model on a device, with the person it was adapted to, if any.

    Args:
        model: in evaluation mode.
        config: its configuration.
        dtype: of the generator's convolutions; codes and styles are always float32.
        identity: f_I [D_I] fitted by `--adapt`; None: read from each photo.
        person: the photo [3, O, O] that it was fitted to; None: frames are bent from each photo.
    """

    def __init__(
        self, model: Speak, config: Config, device: torch.device, dtype: torch.dtype = torch.float32,
        identity: Tensor | None = None, settings: AnimateConfig | None = None, person: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.model = model.to(device).eval()
        self.config, self.device, self.dtype = config, device, dtype
        self.settings = settings or AnimateConfig()
        self.identity = None if identity is None else identity.to(device)
        self.person = None if person is None else person.to(device)
        self.came_adapted = False  # the identity came with the weights: the photo may show somebody else

    @property
    def image_size(self) -> int:
        """Pixels of the frames that the model itself makes."""
        return self.config.model.image_size

    @property
    def output_size(self) -> int:
        """Pixels of the frames that come out: smaller models are scaled up."""
        return max(self.image_size, self.settings.output_size)

    def photo(self, source: Source, box: Sequence[float] | None = None, face: int | None = None) -> Photo:
        """Reads a photo and finds its face. Raises SpeakError: unreadable, no face, several and no choice."""
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or min(source.shape[:2]) < 2:
                raise SpeakError(f"photo: give uint8 [H, W, 3], not {source.dtype} {list(source.shape)}")
            picture, name = source, "the photo"
        else:
            picture, name = read_image(source), str(source)
        found = find_face(picture, box, face, name=name, grow=self.config.prepare.grow)
        frame, large = (as_frames([crop(picture, found.box, size)], self.device)
                        for size in (self.image_size, self.output_size))
        return Photo(picture, found, frame, large, name)

    def animate(
        self,
        photo: Source | Photo,  # a picture's path, uint8 [H, W, 3], or what `photo` returned
        speech: Source | Speech,  # a sound's or video's path, or float [S] at 16 kHz
        pose: Source | Tensor | None = None,  # video, picture, CSV, JSON, numbers [N, 6]; None: gentle motion
        emotion: str | Path | dict[str, float] | None = None,  # video, picture, "happy:0.5,sad:0.2"; None: neutral
        *,
        box: Sequence[float] | None = None,  # of the head in the photo: x, y, w, h in pixels
        face: int | None = None,  # which face of the photo, from 1, from left to right
        pose_strength: float = 1.0,  # 0 to 2
        pose_mode: str = "relative",  # a pose video moves the head from its pose in the photo on; absolute: as it is
        emotion_strength: float = 1.0,  # 0 to 2
        driver_end: str = "pingpong",  # when a driving video is shorter than the speech: pingpong, hold or cut
        paste_back: bool = False,  # True: frames are the whole photo with the face in it
        seed: int = 0,  # of the noise and of the natural motion
    ) -> Animation:
        """A talking video of the photo, frame by frame. Raises SpeakError before the first frame for what is wrong."""
        notes: list[str] = []
        photo = photo if isinstance(photo, Photo) else self.photo(photo, box, face)
        speech = speech if isinstance(speech, Speech) else Speech(speech, self.settings)
        notes += self._remarks(photo)
        identity = self.read_identity(photo)
        with torch.no_grad():
            pose_of_photo = self.model.encode_pose(photo.frame)[0]
            emotion_of_photo = self.model.encode_emotion(photo.frame)[0]
        drivers = Drivers(self.model, self.image_size, self.settings, notes, self.config.prepare.grow)
        poses, pose_ends = drivers.pose(pose, pose_of_photo, speech.frames, seed, pose_strength, pose_mode)
        emotions, emotion_ends = drivers.emotion(emotion, emotion_of_photo, emotion_strength)
        frames = speech.frames
        if driver_end == "cut":  # how long they are is known when they have been read
            for ends, name in ((pose_ends, "pose"), (emotion_ends, "emotion")):
                if ends:
                    whole = _first(poses if name == "pose" else emotions, frames)
                    frames = min(frames, len(whole))
                    poses, emotions = (iter([whole]), emotions) if name == "pose" else (poses, iter([whole]))
        streams = {
            "pose": smoothed(played(poses, driver_end if pose_ends else "hold"), self.settings.pose_smoothing),
            "emotion": smoothed(played(emotions, driver_end if emotion_ends else "hold"),
                                self.settings.emotion_smoothing),
            "audio": speech.encode(self.model, self.settings),
        }  # fmt: skip
        finish: Callable[[np.ndarray], np.ndarray] | None = None
        if paste_back:
            finish = PasteBack(photo.picture, photo.face.box)
        portrait = self.portrait(photo, identity)
        return Animation(self._pictures(identity, portrait, streams, frames, seed, finish), frames, notes)

    def read_identity(self, photo: Photo) -> Tensor:
        """f_I [1, D_I] of the photo, or of the person whom the weights were adapted to. Always in float32."""
        if self.identity is not None:
            return self.identity[None]
        return self.model.read_identity(photo.frame, self.settings.identity_steps)

    def portrait(self, photo: Photo, identity: Tensor) -> Portrait | None:
        """The person whom frames are bent from, as `read_identity` has them; None where the weights bend no photos."""
        frame, large = photo.frame, photo.large
        if self.person is not None:
            large = self.person[None]
            frame = F.interpolate(large, size=[self.image_size] * 2, mode="area")
        with self.autocast():
            return self.model.portrait(identity, frame, large)

    def frames_of_codes(
        self,
        identity: Tensor,  # f_I [1, D_I]
        pose: Tensor,  # f_P [N, D_P]
        emotion: Tensor,  # f_E [N, D_E]
        audio: Tensor,  # f_a [N, D]
        noise: ClipNoise,
        portrait: Portrait | None = None,
    ) -> np.ndarray:
        """Frames of one batch of codes, uint8 [N, output_size, output_size, 3]."""
        with torch.no_grad(), self.autocast():
            frames = self.model.generate(identity, pose[None], emotion[None], audio[None], noise, portrait)[0]
        frames = frames.float()
        if frames.shape[-1] != self.output_size:
            frames = F.interpolate(frames, size=[self.output_size] * 2, mode="bicubic", align_corners=False)
        pixels = frames.mul_(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def autocast(self) -> contextlib.AbstractContextManager:
        """Half precision for the generator, where it was chosen."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def save(self, path: str | Path) -> None:
        """Writes the weights, with the person they were adapted to, as a checkpoint that `speak.load` reads."""
        content = {"stage": "speak", "config": to_dict(self.config), "step": 0,
                   "models": {"speak": self.model.state_dict()}}  # fmt: skip
        if self.identity is not None:
            content["identity"], content["person"] = self.identity, self.person
        checkpoint.save(path, content, half=True)

    def _remarks(self, photo: Photo) -> list[str]:
        notes = []
        x, y, width, height = photo.face.box
        if photo.face.how == "whole picture":
            notes.append(f"{photo.name}: all of it is taken as the face; --box x,y,w,h says otherwise")
        if min(width, height) < SMALLEST_FACE:
            notes.append(f"{photo.name}: the face has only {min(width, height)} pixels")
        if self.output_size != self.image_size:
            note = (f"these weights make {self.image_size}x{self.image_size} pictures: the video is scaled up to "
                    f"{self.output_size}x{self.output_size} (bicubic), no detail is added")  # fmt: skip
            notes.append(note if self.model.photo_warp is None else f"{note} but the photo's")
        if self.came_adapted:
            notes.append("these weights were adapted to one person: the face is theirs, whoever is in the photo")
        return notes

    def _pictures(
        self, identity: Tensor, portrait: Portrait | None, streams: dict[str, Iterator[Tensor]], frames: int, seed: int,
        finish: Callable[[np.ndarray], np.ndarray] | None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        noise = self.model.draw_noise([seed])
        taken = {name: Taken(stream) for name, stream in streams.items()}
        try:
            for number, first in enumerate(range(0, frames, self.settings.batch), 1):
                if number % GIVE_BACK == 0:
                    allocator.give_back_holes()
                count = min(self.settings.batch, frames - first)
                codes = {name: stream.take(count) for name, stream in taken.items()}
                for picture in self.frames_of_codes(identity, noise=noise, portrait=portrait, **codes):
                    yield picture if finish is None else finish(picture)
        finally:
            for stream in streams.values():
                stream.close()  # a driver's decoder ends with it


def load(
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str = "auto",
    settings: AnimateConfig | None = None,
) -> TalkingHead:
    """The model of a checkpoint, default the shipped one, ready to animate.

    Args:
        weights: a checkpoint of stage `speak`, or one that `--save-adapted` wrote.
        device: cpu or cuda; None: cuda where there is one.
        dtype: auto, float32, bfloat16 or float16.
    Raises:
        SpeakError: no such weights, unreadable, of another stage, a device that is not here.
    """
    chosen = choose_device(device)
    number_format = choose_dtype(dtype, chosen)
    model, config, rest = load_speak(weights)
    head = TalkingHead(model, config, chosen, number_format, rest.get("identity"), settings, rest.get("person"))
    head.came_adapted = head.identity is not None
    return head


def _first(codes: Iterator[Tensor], count: int) -> Tensor:
    """At most the first `count` codes of a stream that ends [n, D]."""
    taken = Taken(codes).take(count)
    codes.close() if hasattr(codes, "close") else None
    return taken
