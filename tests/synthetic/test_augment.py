"""Domain randomisation: by each picture's own seed, true to what it imitates, and it leaves geometry alone."""

import io

import numpy as np
import torch
from PIL import Image

from speak.synthetic.augment import _behind, augment, draw, jpeg, recoloured, reshaped


def picture(size: int = 64) -> torch.Tensor:
    """[1, 3, size, size] in [0, 1]: smooth colours with an edge."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    base = torch.stack([0.5 + 0.4 * torch.sin(6 * x + 2 * y), 0.3 + 0.5 * y, 0.6 - 0.4 * x * y])
    base[:, 20:40, 24:44] = torch.tensor([0.8, 0.6, 0.5])[:, None, None]
    return base.unsqueeze(0)


def test_what_happens_to_a_picture_depends_on_its_seed_alone() -> None:
    frames = (picture() * 2 - 1).repeat(4, 1, 1, 1)
    together = augment(frames, torch.tensor([5, 6, 7, 5]))
    alone = augment(frames[:1], torch.tensor([7]))
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[1])
    assert torch.allclose(together[2], alone[0], atol=1e-5)
    assert together.min() >= -1 and together.max() <= 1


def test_another_persons_colours_and_shape_depend_on_the_seed_alone_whatever_the_picture() -> None:
    seeds, frames = torch.tensor([5, 6, 5]), (picture() * 2 - 1).repeat(3, 1, 1, 1)
    for change in (recoloured, reshaped):
        together = change(frames, seeds)
        assert torch.equal(together[0], together[2])
        assert (together[0] - together[1]).abs().mean() > 0.02 and (together - frames).abs().mean() > 0.02
        assert torch.allclose(change(frames[:1], seeds[1:2])[0], together[1], atol=1e-5)
    changes = [(recoloured(frames, seeds, strength) - frames).abs().mean() for strength in (0.0, 0.4, 1.0)]
    assert changes[0] < 1e-4 < changes[1] < 0.6 * changes[2]  # colours change less where less is asked for
    # places move, values stay: where each pixel went is read from a picture of coordinates, and holds for any other
    x = torch.linspace(-1, 1, 64).expand(64, 64)
    places = reshaped(torch.stack([x, x.T])[None], seeds[:1])
    moved = torch.nn.functional.grid_sample(frames[:1], places.permute(0, 2, 3, 1), align_corners=True)
    assert (moved - reshaped(frames[:1], seeds[:1])).abs().mean() < 0.01
    large = reshaped((picture(256) * 2 - 1), seeds[:1])  # the same at any size
    small = reshaped(torch.nn.functional.avg_pool2d(picture(256) * 2 - 1, 4), seeds[:1])
    assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean() < 0.02


def test_no_strength_is_nearly_no_change() -> None:
    frames = picture() * 2 - 1
    assert (augment(frames, torch.tensor([1]), strength=0.0) - frames).abs().mean() < 0.02


def test_texture_lies_behind_the_person_only() -> None:
    number = draw(torch.arange(12))
    visible = torch.zeros(12, 64, 64)
    visible[:, 16:48, 16:48] = 1
    before = picture().repeat(12, 1, 1, 1)
    after = _behind(before, visible, number, 1.0)
    assert torch.equal(after[:, :, 16:48, 16:48], before[:, :, 16:48, 16:48])
    assert ((after - before).abs().amax((1, 2, 3)) > 0.05).sum() >= 6


def test_jpeg_loses_as_much_as_a_real_jpeg_of_the_same_quality() -> None:
    noise = 0.05 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    original = (picture() + noise).clamp(0, 1)
    pixels = (original[0].permute(1, 2, 0) * 255).round().byte().numpy()
    for quality in (15, 40, 75):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
        real = np.asarray(Image.open(buffer), np.float64) / 255
        ours = jpeg(original, torch.tensor([(quality - 1) / 99]))[0].permute(1, 2, 0).numpy()
        loss = [10 * np.log10(1 / np.mean((version - pixels / 255) ** 2)) for version in (real, ours)]
        assert abs(loss[0] - loss[1]) < 1.0, (quality, loss)
        assert 10 * np.log10(1 / np.mean((real - ours) ** 2)) > loss[0] + 1
