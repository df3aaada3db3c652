"""The editing module against float64 numpy, and its independence of a clip's length."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from speak.config import preset, with_changes
from speak.models.codes import Codes
from speak.models.editing import EditingModule
from speak.train.grow import load_or_grow
from tests.tolerances import assert_close

TINY = preset("tiny")
LEVELS, AUDIO, FRAMES = 3, 10, 4


def built(repeat: bool = True) -> tuple[EditingModule, torch.Tensor, Codes, torch.Tensor]:
    torch.manual_seed(0)
    config = with_changes(TINY, {"model.editing.repeat_input": repeat})
    module = EditingModule(config, AUDIO, LEVELS).double()
    for block in module.blocks:
        torch.nn.init.normal_(block.noise_strength)
    audio = torch.randn(2, FRAMES, AUDIO, dtype=torch.float64)
    sizes = [TINY.model.identity.code_dim, TINY.model.pose.code_dim, TINY.model.emotion.code_dim]
    codes = [torch.randn(2, FRAMES, size, dtype=torch.float64) for size in sizes]
    noise = torch.randn(2, LEVELS, TINY.model.editing.width, dtype=torch.float64)
    return module, audio, Codes(F.normalize(codes[0], dim=-1), *codes[1:]), noise


def frame(codes: Codes, index: slice) -> Codes:
    return Codes(codes.identity[:, index], codes.pose[:, index], codes.emotion[:, index])


@pytest.mark.parametrize("repeat", [False, True])
def test_a_frame_is_edited_as_written_down_in_numpy(repeat: bool) -> None:
    module, audio, codes, noise = built(repeat)
    edited = module(audio, codes, noise).detach().numpy()[1, 2]  # clip 1, frame 2
    f_i, f_p, f_e = (code[1, 2].numpy() for code in (codes.identity, codes.pose, codes.emotion))
    condition = np.concatenate([f_i * np.sqrt(len(f_i)), f_p, f_e])
    features = given = np.concatenate([audio[1, 2].numpy(), f_e])
    for level, block in enumerate(module.blocks):
        if level and repeat:
            features = np.concatenate([features, given])
        values = {name: value.detach().numpy() for name, value in block.named_parameters()}
        features = values["linear.weight"] @ features + values["linear.bias"]
        features = np.where(features > 0, features, 0.2 * features)
        features = features + values["noise_strength"] * noise[1, level].numpy()
        features = (features - features.mean()) / np.sqrt(features.var() + 1e-5)
        scale, shift = np.split(values["affine.weight"] @ condition + values["affine.bias"], 2)
        features = features * (1 + scale) + shift
        assert_close(torch.from_numpy(edited[level]), torch.from_numpy(features))


def test_no_statistic_crosses_frames() -> None:
    module, audio, codes, noise = built()
    whole = module(audio, codes, noise)
    assert whole.shape == (2, FRAMES, LEVELS, TINY.model.editing.width)
    for index in range(FRAMES):
        alone = slice(index, index + 1)
        assert_close(module(audio[:, alone], frame(codes, alone), noise), whole[:, alone])


def test_equal_frames_stay_equal_under_the_clips_noise() -> None:
    module, audio, codes, noise = built()
    first = slice(0, 1)
    still = Codes(*(code[:, first].expand(-1, FRAMES, -1) for code in (codes.identity, codes.pose, codes.emotion)))
    edited = module(audio[:, first].expand(-1, FRAMES, -1), still, noise)
    assert_close(edited, edited[:, first].expand_as(edited))
    assert (module(audio, codes, noise * 2) - module(audio, codes, noise)).abs().max() > 1e-2


def test_what_is_said_reaches_every_level_by_itself() -> None:
    for repeat in (False, True):
        module, audio, codes, noise = built(repeat)
        with torch.no_grad():
            module.blocks[0].linear.weight.zero_()  # the first block no longer passes anything on
            change = (module(audio + 1, codes, noise) - module(audio, codes, noise)).abs().amax((0, 1, 3))
        assert change[0] == 0 and all((level > 1e-2) == repeat for level in change[1:])


def test_weights_that_read_the_input_once_begin_with_what_they_made() -> None:
    before, audio, codes, noise = built(repeat=False)
    after = built(repeat=True)[0]
    load_or_grow(torch.nn.ModuleDict({"editing": after}), torch.nn.ModuleDict({"editing": before}).state_dict(), "old")
    assert_close(after(audio, codes, noise), before(audio, codes, noise))
