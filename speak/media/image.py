"""Pictures in and out: whatever Pillow reads among the common formats, as uint8 RGB the right way up."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np

from speak.errors import SpeakError
from speak.media.files import check_readable, one_line, whole_file

# Formats that are decoded by libraries; Pillow also knows some that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".avif")
MOST_PIXELS = 100_000_000  # 300 MB as RGB; a camera's picture has up to 60 million


logging.getLogger("PIL").addHandler(logging.NullHandler())  # its remarks on damaged files are not for the screen


def read_image(path: str | Path, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A picture as uint8 [H, W, 3] RGB: turned as its EXIF says, alpha laid over `background`, gray repeated, 16 bit
    scaled to 8, the first frame of an animation.

    Raises SpeakError: unreadable, damaged, truncated, more than `MOST_PIXELS`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = check_readable(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning of large pictures, odd EXIF, odd palettes
            Image.init()
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise SpeakError(
                        f"{path}: {picture.width}x{picture.height} pixels are more than the {MOST_PIXELS // 1_000_000} "
                        "million that are read: scale it down"
                    )
                picture = ImageOps.exif_transpose(picture)
                return _as_rgb(picture, background)
    except SpeakError:
        raise
    except UnidentifiedImageError:
        raise SpeakError(f"{path}: is no picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise SpeakError(f"{path}: has far too many pixels: scale it down") from None
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they come across
        raise SpeakError(f"{path}: the picture is damaged ({one_line(error)})") from None


def _as_rgb(picture, background: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image

    if picture.mode.startswith(("I", "F")):  # 16 and 32 bit gray
        gray = np.nan_to_num(np.asarray(picture).astype(np.float64))
        white = 65535.0 if gray.max(initial=0) > 255 else 255.0 if gray.max(initial=0) > 1 else 1.0
        gray = np.clip(np.round(gray / white * 255), 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        below = Image.new("RGBA", picture.size, (*background, 255))
        picture = Image.alpha_composite(below, picture)
    return np.array(picture.convert("RGB"))


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG or JPEG (by the suffix), whole or not at all."""
    from PIL import Image

    kind = "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with whole_file(path) as temporary:
        Image.fromarray(picture).save(temporary, kind, **({"quality": 95} if kind == "JPEG" else {}))
