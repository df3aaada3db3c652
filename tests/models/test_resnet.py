"""ResNet trunks against an independent implementation and the published sizes."""

import pytest
import torch

from speak.errors import SpeakError
from speak.models.resnet import ResNet, resize_for_reading
from tests.tolerances import assert_close

PUBLISHED_PARAMETERS = {18: 11_689_512, 50: 25_557_032}  # with the 1000-class layer


def upstream_name(name: str) -> str:
    """torchvision's key as the `transformers` ResNet spells it."""
    part, _, rest = name.partition(".")
    if part in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if part == 'conv1' else 'normalization'}.{rest}"
    index, module, *tail = rest.split(".")
    prefix = f"encoder.stages.{int(part[-1]) - 1}.layers.{index}."
    if module == "downsample":
        kind, leaf = ("convolution", "normalization")[int(tail[0])], tail[1]
        return f"{prefix}shortcut.{kind}.{leaf}"
    kind = "convolution" if module.startswith("conv") else "normalization"
    return f"{prefix}layer.{int(module[-1]) - 1}.{kind}.{tail[0]}"


@pytest.mark.parametrize("depth", [18, 50])
def test_a_trunk_computes_what_the_upstream_library_computes(depth: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(depth)
    expansion, blocks = (1, [2, 2, 2, 2]) if depth == 18 else (4, [3, 4, 6, 3])
    upstream = transformers.ResNetModel(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8 * expansion * 2**stage for stage in range(4)], depths=blocks,
            layer_type="basic" if depth == 18 else "bottleneck", downsample_in_first_stage=False,
        )
    ).eval()  # fmt: skip
    trunk = ResNet(depth, width=8).eval()
    values = upstream.state_dict()
    for name in values:
        if name.endswith(("running_mean", "normalization.bias")):
            values[name] = torch.randn_like(values[name]) * 0.1
        if name.endswith(("running_var", "normalization.weight")):
            values[name] = torch.rand_like(values[name]) + 0.5
    upstream.load_state_dict(values)
    trunk.load_state_dict({name: values[upstream_name(name)] for name in trunk.state_dict()})
    frames = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_close(trunk(frames), upstream(frames).last_hidden_state)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_trunk_of_width_64_has_the_published_parameters_without_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        trunk = ResNet(depth)
    classifier = (trunk.channels + 1) * 1000
    assert sum(p.numel() for p in trunk.parameters()) == PUBLISHED_PARAMETERS[depth] - classifier


def test_the_keys_are_those_of_torchvision() -> None:
    keys = set(ResNet(50, width=8).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.conv3.weight"} <= keys
    assert "layer3.5.bn2.num_batches_tracked" in keys
    assert {key.split(".")[0] for key in keys} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert len(keys) == 318  # of torchvision's 320, fc.weight and fc.bias are left out


def test_with_group_norm_a_frame_reads_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    trunk = ResNet(18, width=16, norm="group").double()
    frames = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    assert_close(trunk(frames)[1:2], trunk(frames[1:2]))


@pytest.mark.parametrize("size", [32, 16])
def test_shrinking_averages_areas(size: int) -> None:
    frames = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    step = 64 // size
    expected = frames.reshape(2, 3, size, step, size, step).mean((3, 5))
    assert_close(resize_for_reading(frames, size), expected)
    channels_last = frames.to(memory_format=torch.channels_last)
    assert_close(resize_for_reading(channels_last, size), expected)


def test_small_frames_are_enlarged_and_fitting_ones_left_alone() -> None:
    frames = torch.full((1, 3, 20, 20), 0.25, dtype=torch.bfloat16)
    assert torch.equal(resize_for_reading(frames, 64), torch.full((1, 3, 64, 64), 0.25, dtype=torch.bfloat16))
    assert resize_for_reading(frames, 20) is frames


def test_an_unknown_depth_or_norm_is_refused() -> None:
    with pytest.raises(SpeakError, match="ResNet-34"):
        ResNet(34)
    with pytest.raises(SpeakError, match="unknown norm 'layer'"):
        ResNet(18, norm="layer")
