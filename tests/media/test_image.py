from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from speak.errors import SpeakError
from speak.media.image import read_image, write_image


def quarters() -> np.ndarray:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:10, :15] = (250, 10, 10)
    picture[:10, 15:] = (10, 250, 10)
    picture[10:, :15] = (10, 10, 250)
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    # how a camera stores a picture for each orientation, by the EXIF standard
    stored = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1), 6: lambda p: p.swapaxes(0, 1)[::-1],
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: lambda p: p.swapaxes(0, 1)[:, ::-1],
    }[orientation](quarters())  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "p.png"), quarters())


def test_alpha_is_laid_over_the_background(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0], pixels[:2, :, 3], pixels[2:, :, 3] = 200, 255, 128
    Image.fromarray(pixels, "RGBA").save(tmp_path / "p.png")
    made = read_image(tmp_path / "p.png", background=(0, 100, 0))
    assert tuple(made[0, 0]) == (200, 0, 0)
    assert np.abs(made[3, 3].astype(int) - [100, 50, 0]).max() <= 1
    Image.fromarray(pixels, "RGBA").quantize(8).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (4, 4, 3)


def test_gray_16_bit_palette_and_cmyk_become_rgb(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.abs(read_image(tmp_path / "deep.png")[..., 1].astype(float) - ramp / 257).max() <= 0.5
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "gray.png")
    gray = read_image(tmp_path / "gray.png")
    assert np.array_equal(gray[..., 0], ramp // 257) and np.array_equal(gray[..., 0], gray[..., 2])
    Image.fromarray(quarters()).convert("P").save(tmp_path / "palette.gif")
    assert np.abs(read_image(tmp_path / "palette.gif").astype(int) - quarters()).max() <= 60
    Image.fromarray(quarters()).convert("CMYK").save(tmp_path / "print.tif")
    assert np.abs(read_image(tmp_path / "print.tif").astype(int) - quarters()).max() <= 2
    Image.fromarray(quarters()).convert("1").save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").shape == (20, 30, 3)


def test_a_large_photograph_is_read_and_a_monstrous_one_refused(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 5000), (9, 8, 7)).save(tmp_path / "large.jpg")
    assert read_image(tmp_path / "large.jpg").shape == (5000, 6000, 3)
    Image.new("1", (20000, 20000)).save(tmp_path / "monster.png", compress_level=1)
    with pytest.raises(SpeakError, match=r"monster\.png.*pixels.*scale it down"):
        read_image(tmp_path / "monster.png")


def test_bad_pictures_are_refused_in_one_line(tmp_path: Path) -> None:
    write_image(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8))
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    for name, reason in {"cut.png": "damaged", "text.jpg": "no picture", "empty.jpg": "empty", ".": "folder"}.items():
        with pytest.raises(SpeakError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_written_picture_comes_back(tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", quarters())
    assert np.array_equal(read_image(tmp_path / "p.png"), quarters())
    with pytest.raises(SpeakError, match="folder does not exist"):
        write_image(tmp_path / "missing" / "p.png", quarters())
