"""f_I fitted to the photo."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from speak.clip_generation import encode_clip, generate_clip, measuring
from speak.config import InversionConfig, preset
from speak.datasets.rendered import RenderedData, fresh
from speak.models.inversion import fit_identity
from speak.models.speak import Speak
from speak.shipped import load_speak
from tests.tolerances import assert_close

USUAL = InversionConfig()


@pytest.fixture(scope="module")
def model() -> Speak:
    torch.manual_seed(0)
    return Speak(preset("tiny")).eval()


@pytest.fixture(scope="module")
def photos(model: Speak) -> Tensor:
    """Pictures that the generator can make, of two codes that E_i does not read from them."""
    torch.manual_seed(1)
    codes = F.normalize(torch.randn(2, preset("tiny").model.identity.code_dim), dim=-1)
    with torch.no_grad():
        pose, emotion = torch.zeros(2, 1, 24), torch.zeros(2, 1, 32)
        mouth = model.encode_silence().expand(2, 1, -1)
        return model.generate(codes, pose, emotion, mouth, model.draw_noise([0, 0]))[:, 0]


def error(model: Speak, photos: Tensor, identity: Tensor) -> Tensor:
    """Mean squared difference of each photo and what the generator makes of it in silence, [B]."""
    with torch.no_grad():
        pose, emotion = model.encode_pose(photos)[:, None], model.encode_emotion(photos)[:, None]
        mouth = model.encode_silence().expand(len(photos), 1, -1)
        made = model.generate(identity, pose, emotion, mouth, model.draw_noise([0] * len(photos)))[:, 0]
    return (made - photos).square().mean((1, 2, 3))


def test_a_fitted_code_rebuilds_each_photo_better_than_the_one_that_was_read(model: Speak, photos: Tensor) -> None:
    read, fitted = model.encode_identity(photos).detach(), model.read_identity(photos)
    assert_close(fitted.norm(dim=-1), torch.ones(2))
    assert (error(model, photos, fitted) < 0.8 * error(model, photos, read)).all()


def test_a_photo_is_fitted_as_if_it_were_alone(model: Speak, photos: Tensor) -> None:
    together = model.read_identity(photos, 4)
    assert_close(together[1:], model.read_identity(photos[1:], 4))


def test_no_steps_leave_what_the_encoder_reads(model: Speak, photos: Tensor) -> None:
    assert torch.equal(model.read_identity(photos, 0), model.encode_identity(photos))


def test_of_no_photos_there_is_nothing_to_fit(model: Speak, photos: Tensor) -> None:
    """In training every second window is fitted: of a batch of one it may be none."""
    none = model.encode_identity(photos).detach()[:0]
    assert fit_identity(model, photos[:0], none, 2, USUAL).shape == none.shape


def test_fitting_works_where_gradients_are_off_and_leaves_none_behind(model: Speak, photos: Tensor) -> None:
    read = model.encode_identity(photos).detach()
    with measuring(model):
        fitted = fit_identity(model, photos, read, 2, USUAL)
    assert not fitted.requires_grad and (fitted - read).norm(dim=-1).min() > 0.01
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_photo_of_a_person_makes_other_frames_of_them_better_too() -> None:
    """Six people whom the shipped weights have not seen, in poses that the photo does not show; G_g's frames alone."""
    model, config, _ = load_speak(None)
    data = RenderedData("speak", 5, "test", config.model.image_size, fresh(config.rendered, frames=4, emotion_frames=4))
    gains = []
    with measuring(model):
        for number in range(6):
            clip = data.batch([number])
            drivers = encode_clip(model, clip.identity_frame[0], clip.frames[0], clip.emotion_frames[0],
                                  clip.speech[0], clip.context)  # fmt: skip
            drivers = dataclasses.replace(drivers, photo=None)
            read = dataclasses.replace(drivers, identity=model.encode_identity(clip.identity_frame)[0])
            errors = [(generate_clip(model, codes) - clip.frames[0]).square().mean() for codes in (read, drivers)]
            gains.append(10 * torch.log10(errors[0] / errors[1]))
    assert torch.stack(gains).mean() > 0.4
