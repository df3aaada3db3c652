"""What bends the photo learns in stage `speak`: with the generator, or alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speak import losses
from speak.errors import SpeakError
from speak.synthetic.augment import recoloured, reshaped
from speak.train.grow import load_or_grow
from tests.small_training import batch, build
from tests.tolerances import assert_close


def shown(trained: Path, share: float, windows: object) -> tuple[object, Tensor]:
    """The windows that frames are compared with, and the frames."""
    stage, memory = build("speak", trained, speak__strangers=share, speak__strangers_mistaken=0.0), {}
    stage.phases[0].losses(windows, memory)
    return memory["shown"], memory["frames"]


def test_it_can_learn_alone(trained: Path) -> None:
    stage = build("speak", trained, speak__train_generator=False, speak__weight_adversarial=0.0)
    model, windows = stage.networks["speak"], batch("speak")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(parameter)].startswith("photo_warp.") for parameter in stage.phases[0].parameters)
    losses.total_loss(stage.phases[0].losses(windows, {}), stage.phases[0].weights).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("photo_warp."):
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    with pytest.raises(SpeakError, match="nothing is left to learn"):
        build("speak", trained, speak__train_generator=False, model__photo_warp__width=0)


def test_the_generators_own_picture_counts_too(trained: Path) -> None:
    """Also where nothing else is asked for: the photo is bent to it, whatever share it has in the frame."""
    off = {f"speak__weight_{name}": 0.0 for name in ("adversarial", "sync", "perceptual", "reading", "pixel", "bent")}
    stage = build("speak", trained, **off)
    losses.total_loss(stage.phases[0].losses(batch("speak"), {}), stage.phases[0].weights).backward()
    model = stage.networks["speak"]
    assert model.generator.synthesis.constant.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.photo_warp.parameters())


def test_of_strangers_the_generator_learns_nothing(trained: Path) -> None:
    """It cannot know their colours: what it would learn is to mix them."""
    for share, learns in ((1.0, False), (0.0, True)):
        stage = build("speak", trained, speak__strangers=share, speak__weight_unaided=0.0)
        losses.total_loss(stage.phases[0].losses(batch("speak"), {}), stage.phases[0].weights).backward()
        model = stage.networks["speak"]
        assert model.photo_warp.last.weight.grad.abs().max() > 0
        grad = model.generator.synthesis.constant.grad
        assert bool(grad is not None and grad.abs().max() > 0) is learns


def stranger(pictures: Tensor, seeds: Tensor) -> Tensor:
    return reshaped(recoloured(pictures, seeds, strength=0.4), seeds)


def test_photo_and_truth_of_some_windows_are_shown_as_somebody_else(trained: Path) -> None:
    windows = batch("speak", 8)
    changed, _ = shown(trained, 0.5, windows)
    moved = (changed.frames - windows.frames).abs().mean((1, 2, 3, 4)) > 1e-3
    assert 0 < moved.sum() < 8
    for name in ("identity_frame", "identity_frame_other"):
        before, after = getattr(windows, name), getattr(changed, name)
        assert torch.equal((after - before).abs().mean((1, 2, 3)) > 1e-3, moved)
        for row in moved.nonzero()[:, 0].tolist():
            assert_close(after[row : row + 1], stranger(before[row : row + 1], windows.number[row : row + 1]))
    count = windows.frames.shape[1]
    for row in moved.nonzero()[:, 0].tolist():
        expected = stranger(windows.frames[row], windows.number[row : row + 1].repeat(count))
        assert_close(changed.frames[row], expected)


def test_who_is_a_stranger_does_not_depend_on_the_rest_of_the_batch(trained: Path) -> None:
    windows = batch("speak", 8)
    half = dataclasses.replace(windows, **{
        field.name: value[4:] for field in dataclasses.fields(windows)
        if isinstance(value := getattr(windows, field.name), Tensor)
    }, labels=dataclasses.replace(windows.labels, **{
        field.name: value[4:] for field in dataclasses.fields(windows.labels)
        if (value := getattr(windows.labels, field.name)) is not None
    }))  # fmt: skip
    whole, frames = shown(trained, 0.5, windows)
    part, half_frames = shown(trained, 0.5, half)
    assert_close(part.frames, whole.frames[4:])
    assert_close(half_frames, frames[4:])


def test_for_some_strangers_another_is_made_in_frames_and_photo(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = build("speak", trained, speak__strangers=1.0, speak__strangers_mistaken=0.5, speak__inversion_steps=0)
    model, windows, used = stage.networks["speak"], batch("speak", 8), []
    whole = model.generate
    monkeypatch.setattr(model, "generate", lambda codes, *more: used.append(codes) or whole(codes, *more))
    found = stage.phases[0].losses(windows, {})
    with torch.no_grad():
        own = model.encode_identity(windows.identity_frame_other)
    apart = [(codes - own).abs().amax(1) > 1e-6 for codes in used]
    assert len(used) == 2 and torch.equal(*apart) and 0 < apart[0].sum() < 8
    for codes in used:
        assert_close(codes[apart[0]], own.roll(1, 0)[apart[0]])
    assert found["unaided"] > 0


def test_of_what_it_makes_of_somebody_else_nothing_is_asked(trained: Path) -> None:
    for share, asked in ((1.0, False), (0.0, True)):
        stage = build("speak", trained, speak__strangers=1.0, speak__strangers_mistaken=share)
        found = stage.phases[0].losses(batch("speak"), {})
        assert bool(found["unaided"] > 0) is asked and found["pixel"] > 0


def test_weights_without_it_go_on_with_a_new_one(tmp_path: Path, trained: Path) -> None:
    before = build("speak", trained, model__photo_warp__width=0).networks["speak"]
    after = build("speak", trained).networks["speak"]
    new = {key: value.clone() for key, value in after.photo_warp.state_dict().items()}
    load_or_grow(after, before.state_dict(), "weights")
    assert all(torch.equal(value, new[key]) for key, value in after.photo_warp.state_dict().items())
    own = after.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in before.state_dict().items())
    lacking = after.state_dict()
    lacking.pop("photo_warp.last.bias")
    with pytest.raises(SpeakError, match=r"photo_warp\.last\.bias"):
        load_or_grow(after, lacking, "weights")


@torch.no_grad()
def test_weights_whose_photos_are_bent_without_reading_poses_make_the_same_frames_at_first(trained: Path) -> None:
    before = build("speak", trained, model__photo_warp__poses=0).networks["speak"].eval()
    after = build("speak", trained).networks["speak"].eval()
    load_or_grow(after, before.state_dict(), "weights")
    photos = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames = [model(photos, photos[:, None], photos.flip(0)[:, None], torch.zeros(2, 534), [0, 0])
              for model in (before, after)]  # fmt: skip
    assert torch.equal(*frames)
