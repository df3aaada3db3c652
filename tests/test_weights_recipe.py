"""examples/default_weights.py: its commands are ones that `train` takes, in the right order, and on whom."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from speak.config import EMOTIONS, PhotoWarpConfig, parse_settings, preset, with_changes
from speak.models.photo_warp import PhotoWarp, Portrait
from speak.models.speak import Speak
from speak.train import command
from tests.small_training import batch, small
from tests.tolerances import assert_close

RECIPE = Path(__file__).parent.parent / "examples/default_weights.py"
STAGES = ("judge", "perceptual", "audio", "irfd", "syncnet", "speak")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("weights_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def trainings(recipe: ModuleType, data: str = "synthetic:5", init: Path | None = None) -> list[argparse.Namespace]:
    """The commands for 64 and then 128, as `train` reads them."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    found = recipe.commands(Path("run"), "tiny", [64, 128], 0.001, data, init, ["train.workers=0"])
    return [parser.parse_args(words[4:]) for words in found]  # after: python -m speak train


def test_every_size_is_trained_on_other_people_and_begins_with_the_size_before(recipe: ModuleType) -> None:
    first, second = trainings(recipe)[:6], trainings(recipe)[6:]
    assert tuple(one.stage for one in first) == tuple(one.stage for one in second) == STAGES
    assert {one.data for one in first} == {"synthetic:5"} and {one.data for one in second} == {"synthetic:6"}
    assert all(one.init is None for one in first)
    assert [one.init for one in second] == [f"run/64/{stage}/weights.pt" for stage in STAGES]
    for size, of_size in ((64, first), (128, second)):
        for one in of_size:
            config = with_changes(preset("tiny"), parse_settings(one.settings))
            assert config.model.image_size == size and config.train.workers == 0
            assert config.prepare.grow == 0.25


def test_a_corpus_of_videos_is_taken_as_it_is(recipe: ModuleType) -> None:
    found = trainings(recipe, "corpora/mine")
    assert {one.data for one in found} == {"corpora/mine"}
    assert all(not any(setting.startswith("prepare.") for setting in one.settings) for one in found)


def test_the_first_size_begins_with_the_weights_of_the_package_where_they_are_given(recipe: ModuleType) -> None:
    folder = Path(__file__).parent.parent / "speak/weights"
    begun = {one.stage: one.init and Path(one.init).name for one in trainings(recipe, init=folder)[:6]}
    assert begun == {"judge": "judge.pt", "perceptual": "perceptual.pt", "audio": None, "irfd": "speak.pt",
                     "syncnet": "syncnet.pt", "speak": "speak.pt"}  # fmt: skip


def test_stronger_emotions_are_codes_and_prototypes_farther_from_neutral(recipe: ModuleType) -> None:
    torch.manual_seed(0)
    model, stronger = Speak(small()).eval(), Speak(small()).eval()
    model.emotion_prototypes.codes.normal_()
    model.emotion_encoder.norm.running_mean.normal_()
    model.emotion_encoder.norm.running_var.uniform_(0.5, 2)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    recipe.exaggerate(state, 1.4)
    stronger.load_state_dict(state)
    neutral = model.emotion_prototypes.codes[EMOTIONS.index("neutral"), 0]
    frames = batch("speak").emotion_frames
    for weak, strong in ((model.encode_emotion(frames), stronger.encode_emotion(frames)),
                         (model.emotion_prototypes.codes, stronger.emotion_prototypes.codes)):  # fmt: skip
        torch.testing.assert_close(strong - neutral, 1.4 * (weak - neutral), rtol=1e-4, atol=1e-4)
    recipe.exaggerate(state, 1.0)
    assert all(torch.allclose(state[key], value) for key, value in stronger.state_dict().items())


def test_a_firmer_choice_between_photo_and_picture_changes_the_photo_s_share_alone(recipe: ModuleType) -> None:
    torch.manual_seed(0)
    net = PhotoWarp(PhotoWarpConfig(width=6, poses=2), 4)
    for weight in net.last.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    pictures, portrait = torch.randn(2, 3, 64, 64), Portrait(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64),
                                                            torch.randn(2, 4))  # fmt: skip
    flow, share, more, change = net.look(pictures, torch.zeros(2, 4), portrait)
    state = {f"photo_warp.{key}": value.clone() for key, value in net.state_dict().items()}
    recipe.trust_photo(state, 2.0, 1.5)
    net.load_state_dict({key.removeprefix("photo_warp."): value for key, value in state.items()})
    after = net.look(pictures, torch.zeros(2, 4), portrait)
    assert_close(after[1], (2 * share.logit() + 1.5).sigmoid())
    assert all(torch.equal(one, other) for one, other in zip((flow, more, change), (after[0], *after[2:]), strict=True))


@pytest.mark.parametrize("option", ["--emotion-gain", "--photo-firmness"])
@pytest.mark.parametrize("factor", ["0", "-1"])
def test_a_factor_that_is_not_over_0_is_refused_before_anything_is_trained(
    recipe: ModuleType, option: str, factor: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        recipe.main([option, factor])
    assert stopped.value.code == 2 and f"{option} {factor}:" in capsys.readouterr().err
