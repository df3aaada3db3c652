"""VGG's published layout, and the perceptual features over it."""

import dataclasses

import pytest
import torch

from speak.config import ModelConfig, PerceptualConfig, preset
from speak.errors import SpeakError
from speak.models.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG, PerceptualFeatures, perceptual_net
from tests.tolerances import assert_close

# Places of the convolutions in torchvision's `features`, and the parameters there.
PUBLISHED = {
    "vgg16": ((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 14_714_688),
    "vgg19": ((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), 20_024_384),
}
TINY = preset("tiny").model


def perceptual(**changes: object) -> ModelConfig:
    return dataclasses.replace(TINY, perceptual=PerceptualConfig(image_size=0, **changes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_keys_and_sizes_are_those_of_torchvision(name: str) -> None:
    places, parameters = PUBLISHED[name]
    with torch.device("meta"):
        net = VGG(name)
    assert list(net.state_dict()) == [f"features.{place}.{leaf}" for place in places for leaf in ("weight", "bias")]
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_layers_are_found_by_their_names_in_the_papers() -> None:
    net = VGG("vgg16")
    pictures = torch.randn(1, 3, 32, 32)
    first, third = net(pictures, ("relu1_2", "conv3_1"))
    expected = torch.relu(net.features[2](torch.relu(net.features[0](pictures))))
    assert_close(first, expected)
    assert third.shape == (1, 256, 8, 8) and third.min() < 0  # before its ReLU


def test_nothing_behind_the_last_layer_asked_for_is_computed() -> None:
    net = VGG("vgg19")
    net.features[3] = torch.nn.Identity()  # relu1_2
    net.features[5] = None  # would fail if it were called
    assert len(net(torch.randn(1, 3, 16, 16), ("relu1_1",))) == 1


def test_a_vgg_sees_frames_as_its_weights_expect_them() -> None:
    features = PerceptualFeatures(perceptual(network="vgg16", layers=("conv1_1",)))
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    frames = ((mean + std * 0.5) * 2 - 1).expand(1, 3, 8, 8)  # half a standard deviation above the mean
    (found,) = features(frames)
    expected = torch.nn.functional.conv2d(
        torch.full((1, 3, 8, 8), 0.5), features.net.features[0].weight, features.net.features[0].bias, padding=1
    )
    assert_close(found, expected)


def test_gradients_reach_the_frames_and_never_the_weights() -> None:
    features = PerceptualFeatures(perceptual(layers=("layer1", "layer3"))).train()
    assert not features.training
    frames = torch.randn(1, 3, 64, 64, requires_grad=True)
    sum(layer.square().mean() for layer in features(frames)).backward()
    assert frames.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in features.parameters())


def test_the_trunk_of_a_judge_serves_as_it_is_and_pictures_are_brought_to_its_size() -> None:
    torch.manual_seed(0)
    judge = perceptual_net(TINY.judge)
    features = PerceptualFeatures(dataclasses.replace(TINY, perceptual=PerceptualConfig(image_size=32)))
    features.net.load_state_dict(judge.state_dict())
    frames = torch.rand(1, 3, 64, 64)
    halves = frames.reshape(1, 3, 32, 2, 32, 2).mean((3, 5))
    for found, expected in zip(features(frames), list(judge.trunk.stages(halves).values()), strict=False):
        assert_close(found, expected)


def test_a_layer_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(SpeakError, match="rendered has no relu1_1"):
        PerceptualFeatures(perceptual(layers=("layer1", "relu1_1")))
    with pytest.raises(SpeakError, match="unknown VGG 'vgg11'"):
        VGG("vgg11")
