"""Where the face is, the crop rule, and the way back into the picture.

A face's box is that of the head, from the hairline to under the chin and from ear to ear. The crop rule (preprocessing
of the first-order motion model, which the paper follows) grows it to a square; the square is clamped into the frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from speak.config import PrepareConfig
from speak.errors import SpeakError
from speak.media.face_detection import Box, Detector, best_detector

# A crop that keeps this share of a square picture's side keeps all of it; less where boxes are not exact.
ALREADY_CROPPED, ALREADY_CROPPED_ROUGHLY = 0.75, 0.6
OVERLAPPING = 0.15  # IoU of two heads beyond which they are one


@dataclasses.dataclass(frozen=True)
class FoundFace:
    """The square to cut out of a picture and how it was found."""

    box: tuple[int, int, int, int]  # x, y, w, h in pixels of the picture, inside it; w = h unless the user said so
    how: str  # "given box", a detector's name, or "whole picture"


def crop_box(face: Box, width: int, height: int, grow: float = PrepareConfig().grow) -> tuple[int, int, int, int]:
    """The square (x, y, w, h) of whole pixels to cut out around `face` in a picture of `width` x `height`.

    Each side of the box moves out by max(grow, what makes a square of the longer side so grown). A square that leaves
    the picture is moved inside, and made smaller only where it is larger than the picture.
    """
    grown_w = max(grow, ((1 + 2 * grow) * face.h - face.w) / (2 * face.w)) if face.w > 0 else grow
    side = face.w * (1 + 2 * grown_w)
    side = int(min(round(max(side, (1 + 2 * grow) * face.h, 1)), width, height))
    x = round(min(max(face.x + face.w / 2 - side / 2, 0), width - side))
    y = round(min(max(face.y + face.h / 2 - side / 2, 0), height - side))
    return int(x), int(y), side, side


def whole_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest square in the middle of a wide picture, at the top of a tall one, where heads are."""
    side = min(width, height)
    return (width - side) // 2, 0, side, side


def already_cropped(box: Sequence[int], width: int, height: int, exact: bool = True) -> bool:
    """True where the picture is (nearly) square and `box` would keep most of it: then all of it is kept."""
    share = ALREADY_CROPPED if exact else ALREADY_CROPPED_ROUGHLY
    return abs(width - height) <= 0.02 * max(width, height) and box[2] >= share * min(width, height)


def crop(picture: np.ndarray, box: Sequence[float], size: int) -> np.ndarray:
    """The part `box` (x, y, w, h) of uint8 [H, W, 3], resampled to [size, size, 3]."""
    from PIL import Image

    x, y, width, height = box
    image = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, (x, y, x + width, y + height))
    return np.asarray(image)


def find_face(
    picture: np.ndarray,  # uint8 [H, W, 3]
    box: Sequence[float] | None = None,  # the user's box of the head (x, y, w, h)
    face: int | None = None,  # which one, counted from 1 from left to right
    detector: Detector | None = None,  # default: the best that is installed
    name: str = "the picture",  # for errors
    strict: bool = True,  # False: of several faces the largest, and without one `whole_square`
    grow: float = PrepareConfig().grow,  # of `crop_box`
) -> FoundFace:
    """The crop of the face in a photograph: the user's box, else a detector's, else an already cropped picture whole.

    Raises SpeakError: a box outside the picture; no face in a picture that is not square; several faces and no choice;
    no face of that number.
    """
    height, width = picture.shape[:2]
    if box is not None:
        return FoundFace(crop_box(given_box(box, width, height, name), width, height, grow), "given box")
    detector = detector or best_detector()
    heads: list[Box] = []
    for item in detector.find(picture):  # the most confident first: where two heads overlap so much, one is an error
        if all(item.box.iou(head) <= OVERLAPPING for head in heads):
            heads.append(item.box)
    found = sorted(heads, key=lambda item: item.x + item.w / 2)
    if face is not None:
        if not 1 <= face <= len(found):
            raise SpeakError(f"{name}: has no face {face}, {detector.name} finds {len(found)}")
        found = [found[face - 1]]
    largest = max((item.w * item.h for item in found), default=0.0)
    rivals = [item for item in found if item.w * item.h > largest / 2]
    if len(rivals) > 1 and strict:
        places = "; ".join(f"{found.index(item) + 1} at x {item.x + item.w / 2:.0f}" for item in rivals)
        raise SpeakError(f"{name}: {len(rivals)} faces ({places}): choose with --face N")
    if not rivals:
        if strict and abs(width - height) > 0.02 * max(width, height):
            raise SpeakError(f"{name}: no face found by {detector.name}: say where the head is with --box x,y,w,h")
        return FoundFace(whole_square(width, height), "whole picture")
    head = max(rivals, key=lambda item: item.w * item.h)
    if already_cropped(crop_box(head, width, height), width, height, detector.tracks):
        return FoundFace(whole_square(width, height), "whole picture")
    return FoundFace(crop_box(head, width, height, grow), detector.name)


def given_box(box: Sequence[float], width: int, height: int, name: str) -> Box:
    """The user's box as a Box. Raises SpeakError where it has no size or lies outside."""
    x, y, w, h = (float(value) for value in box)
    if not (w >= 2 and h >= 2 and x < width and y < height and x + w > 0 and y + h > 0):
        raise SpeakError(f"{name}: the box {x:g},{y:g},{w:g},{h:g} is not inside its {width}x{height} pixels")
    return Box(x, y, w, h)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """`--box x,y,w,h`. Raises SpeakError for anything but four numbers."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise SpeakError(f"--box {text}: write it as x,y,w,h in pixels") from None
    if not np.isfinite([x, y, w, h]).all():
        raise SpeakError(f"--box {text}: write it as x,y,w,h in pixels")
    return x, y, w, h


class PasteBack:
    """Puts generated faces back where the crop was cut out: feathered border, colours matched to the picture.

    The colours are matched once, on the border of the first face, so that later faces do not flicker.

    Args:
        picture: uint8 [H, W, 3] that the crop was cut from.
        box: the crop's x, y, w, h in it.
        feather: width of the border over which it fades, as a share of the box.
    """

    def __init__(self, picture: np.ndarray, box: Sequence[int], feather: float = 0.12) -> None:
        self.picture = picture
        self.x, self.y, self.w, self.h = (int(value) for value in box)
        self._below = picture[self.y : self.y + self.h, self.x : self.x + self.w].astype(np.float32)
        sides = self.x > 0, self.x + self.w < picture.shape[1], self.y > 0, self.y + self.h < picture.shape[0]
        across = _fade(self.w, feather, sides[0], sides[1])
        down = _fade(self.h, feather, sides[2], sides[3])
        self._mask = (down[:, None] * across)[..., None]  # [h, w, 1]: 1 inside, 0 at borders that touch the picture
        self._match: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """The whole picture with `face` (uint8 [size, size, 3]) in it, uint8 [H, W, 3]."""
        from PIL import Image

        above = Image.fromarray(face).resize((self.w, self.h), Image.Resampling.BICUBIC)
        above = np.asarray(above).astype(np.float32)
        if self._match is None:
            self._match = self._colour_match(above)
        gain, offset = self._match
        above = np.clip(above * gain + offset, 0, 255)
        blended = self._below + self._mask * (above - self._below)
        result = self.picture.copy()
        result[self.y : self.y + self.h, self.x : self.x + self.w] = np.round(blended).astype(np.uint8)
        return result

    def _colour_match(self, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset a channel that give the border of `above` the mean and spread of the picture's."""
        border = (self._mask[..., 0] > 0) & (self._mask[..., 0] < 1)
        if not border.any():
            return np.ones(3, np.float32), np.zeros(3, np.float32)
        there, here = self._below[border], above[border]
        # a border of one colour says nothing of contrast; beyond a third the two are not the same scene
        gain = np.clip((there.std(0) + 4) / (here.std(0) + 4), 0.75, 1.33)
        return gain, there.mean(0) - gain * here.mean(0)


def _fade(length: int, feather: float, low: bool, high: bool) -> np.ndarray:
    """float32 [length]: 0 at an end that fades, rising as a raised cosine to 1 over `feather` of the length."""
    width = max(1.0, feather * length)
    place = np.arange(length, dtype=np.float32) + 0.5
    beyond = np.full(length, np.inf, np.float32)
    near = np.minimum(place if low else beyond, length - place if high else beyond)
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(near / width, 0, 1))).astype(np.float32)
