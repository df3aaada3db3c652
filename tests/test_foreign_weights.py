"""Others' picture networks: upstream's keys and shapes, written out here, load; StyleGAN2's picture is upstream's."""

import argparse
import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak import safetensors
from speak.errors import SpeakError
from speak.foreign_weights import load_resnet, load_stylegan2, load_syncnet, load_vgg
from speak.models.resnet import ResNet
from speak.models.stylegan2 import Generator, MappingNetwork
from speak.models.syncnet import PublishedSyncNet
from speak.models.vgg import VGG
from tests.tolerances import assert_close

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Shapes:
    found: Shapes = {f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**found, f"{name}.num_batches_tracked": ()}


def torchvision_resnet(depth: int) -> Shapes:
    """Keys and shapes of torchvision's resnet18 / resnet50 state dict."""
    blocks, basic = {18: ((2, 2, 2, 2), True), 50: ((3, 4, 6, 3), False)}[depth]
    table: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    before = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        after = width if basic else 4 * width
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            if basic:
                kernels = [(width, before, 3, 3), (width, width, 3, 3)]
            else:
                kernels = [(width, before, 1, 1), (width, width, 3, 3), (after, width, 1, 1)]
            for i, kernel in enumerate(kernels, start=1):
                table[f"{name}.conv{i}.weight"] = kernel
                table.update(norm(f"{name}.bn{i}", kernel[0]))
            if block == 0 and (stage > 0 or not basic):
                table[f"{name}.downsample.0.weight"] = (after, before, 1, 1)
                table.update(norm(f"{name}.downsample.1", after))
            before = after
    return {**table, "fc.weight": (1000, before), "fc.bias": (1000,)}


def torchvision_vgg(name: str) -> Shapes:
    """Keys and shapes of torchvision's vgg16 / vgg19 state dict."""
    convolutions = {"vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
                    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]}[name]
    widths = {"vgg16": [64, 64, 128, 128, *[256] * 3, *[512] * 6],
              "vgg19": [64, 64, 128, 128, *[256] * 4, *[512] * 8]}[name]
    table: Shapes = {}
    for index, before, width in zip(convolutions, [3, *widths], widths, strict=False):
        table[f"features.{index}.weight"], table[f"features.{index}.bias"] = (width, before, 3, 3), (width,)
    for index, before, width in ((0, 512 * 49, 4096), (3, 4096, 4096), (6, 4096, 1000)):
        table[f"classifier.{index}.weight"], table[f"classifier.{index}.bias"] = (width, before), (width,)
    return table


def syncnet_v2() -> Shapes:
    """Keys and shapes of syncnet_python's syncnet_v2.model."""
    layers = {"netcnnaud": {0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3),
                            14: (256, 256, 3, 3), 18: (512, 256, 5, 4)},
              "netcnnlip": {0: (96, 3, 5, 7, 7), 4: (256, 96, 1, 5, 5), 8: (256, 256, 1, 3, 3),
                            11: (256, 256, 1, 3, 3), 14: (256, 256, 1, 3, 3), 18: (512, 256, 1, 6, 6)},
              "netfcaud": {0: (512, 512), 3: (1024, 512)}, "netfclip": {0: (512, 512), 3: (1024, 512)}}
    table: Shapes = {}
    for part, kernels in layers.items():
        for index, kernel in kernels.items():
            table[f"{part}.{index}.weight"], table[f"{part}.{index}.bias"] = kernel, kernel[:1]
            if index != 3:
                table.update(norm(f"{part}.{index + 1}", kernel[0]))
    return table


def state_of(table: Shapes) -> dict[str, Tensor]:
    """Random values; one number for the whole of a classifier's matrix, so that files stay small."""
    torch.manual_seed(0)
    return OrderedDict(
        (key, torch.tensor(7) if shape == () else torch.randn(()).expand(shape) if math.prod(shape) > 5_000_000
         else torch.randn(shape)) for key, shape in table.items())


def parameters(table: Shapes) -> int:
    return sum(math.prod(shape) for key, shape in table.items() if not key.endswith(
        ("running_mean", "running_var", "num_batches_tracked")))


@pytest.mark.parametrize(("table", "published"), [
    (torchvision_resnet(18), 11_689_512), (torchvision_resnet(50), 25_557_032),
    (torchvision_vgg("vgg16"), 138_357_544), (torchvision_vgg("vgg19"), 143_667_240)],
    ids=["resnet18", "resnet50", "vgg16", "vgg19"])
def test_the_tables_have_the_published_numbers_of_parameters(table, published):
    assert parameters(table) == published


CASES = {
    "resnet18": (torchvision_resnet(18), lambda: ResNet(18), load_resnet, ("fc.",)),
    "resnet50": (torchvision_resnet(50), lambda: ResNet(50), load_resnet, ("fc.",)),
    "vgg16": (torchvision_vgg("vgg16"), lambda: VGG("vgg16"), load_vgg, ("classifier.",)),
    "vgg19": (torchvision_vgg("vgg19"), lambda: VGG("vgg19"), load_vgg, ("classifier.",)),
    "syncnet_v2": (syncnet_v2(), PublishedSyncNet, load_syncnet, ()),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("case", CASES)
def test_published_weights_load_key_by_key(tmp_path, case, zipped):
    table, build, loader, ignored = CASES[case]
    state, network, path = state_of(table), build(), tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    loader(network, path)
    own = network.state_dict()
    assert set(own) == {key for key in table if not key.startswith(ignored or ("-",))}
    assert all(torch.equal(own[key], state[key]) for key in own)


def test_weights_from_before_batches_were_counted_load(tmp_path):
    state = {key: value for key, value in state_of(torchvision_resnet(18)).items() if "num_batches" not in key}
    path = tmp_path / "resnet18-5c106cde.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    network = ResNet(18)
    load_resnet(network, path)
    assert torch.equal(network.layer4[1].bn2.running_var, state["layer4.1.bn2.running_var"])
    assert network.bn1.num_batches_tracked == 0


def test_safetensors_files_load_too(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    state = state_of(torchvision_resnet(18))
    safetensors.save(path, state)
    network = ResNet(18)
    load_resnet(network, path)
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: {**state, "layer5.0.conv1.weight": torch.ones(1)}, "unknown key 'layer5.0.conv1.weight'"),
    (lambda state: {k: v for k, v in state.items() if k != "layer2.0.bn1.bias"}, "lacks the key 'layer2.0.bn1.bias'"),
    (lambda state: {**state, "conv1.weight": torch.ones(64, 1, 7, 7)}, r"'conv1.weight' of shape \(64, 1, 7, 7\)"),
    (lambda state: {**state, "conv1.weight": "text"}, "'conv1.weight' is no tensor"),
    (lambda state: {"state_dict": state}, "unknown key 'state_dict'"),
    (lambda state: [state], "list"),
])
def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path, change, message):
    path, network = tmp_path / "weights.pth", ResNet(18)
    before = network.bn1.running_mean.clone()
    torch.save(change(state_of(torchvision_resnet(18))), path)
    with pytest.raises(SpeakError, match=f"weights.pth: .*{message}"):
        load_resnet(network, path)
    assert torch.equal(network.bn1.running_mean, before)


def test_a_whole_pickled_module_is_refused(tmp_path):
    path = tmp_path / "syncnet_v2.model"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(SpeakError, match="save the state dict"):
        load_syncnet(PublishedSyncNet(), path)


# StyleGAN2 in the common PyTorch layout: 16x16 here, 32 channels at 4x4 and 8x8, 16 at 16x16, styles of 24.
CHANNELS = {4: 32, 8: 32, 16: 16}
STYLE = 24


def rosinality_generator() -> dict[str, Tensor]:
    """A `g_ema` state dict with random values in every parameter."""
    torch.manual_seed(0)

    def convolution(name: str, before: int, after: int) -> Shapes:
        return {f"{name}.conv.weight": (1, after, before, 3, 3), f"{name}.conv.modulation.weight": (before, STYLE),
                f"{name}.conv.modulation.bias": (before,), f"{name}.noise.weight": (1,),
                f"{name}.activate.bias": (after,)}

    def picture(name: str, channels: int) -> Shapes:
        return {f"{name}.bias": (1, 3, 1, 1), f"{name}.conv.weight": (1, 3, channels, 1, 1),
                f"{name}.conv.modulation.weight": (channels, STYLE), f"{name}.conv.modulation.bias": (channels,)}

    table: Shapes = {"input.input": (1, 32, 4, 4), **convolution("conv1", 32, 32), **picture("to_rgb1", 32)}
    for level, (size, channels) in enumerate(list(CHANNELS.items())[1:]):
        table |= convolution(f"convs.{2 * level}", CHANNELS[size // 2], channels)
        table |= convolution(f"convs.{2 * level + 1}", channels, channels)
        table |= picture(f"to_rgbs.{level}", channels)
    for i in range(2):
        table |= {f"style.{i + 1}.weight": (STYLE, STYLE), f"style.{i + 1}.bias": (STYLE,)}
    state = {key: torch.randn(shape) for key, shape in table.items()}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 16  # the sum is 4: both kinds follow an upsampling
    for level in range(2):
        state |= {f"convs.{2 * level}.conv.blur.kernel": kernel, f"to_rgbs.{level}.upsample.kernel": kernel}
    return state | {f"noises.noise_{i}": torch.randn(1, 1, 4 << (i + 1) // 2, 4 << (i + 1) // 2) for i in range(5)}


def upstream_picture(state: dict[str, Tensor], styles: Tensor, noise: list[Tensor]) -> Tensor:
    """What upstream computes from its state dict, in float64: styles [B, levels, STYLE] -> [B, 3, 16, 16]."""
    state = {key: value.double() for key, value in state.items()}

    def blurred(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
        padded = F.pad(x, (before, after, before, after))
        return F.conv2d(padded, kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])

    def modulated(x: Tensor, name: str, style: Tensor, demodulate: bool) -> Tensor:
        scales = style @ state[f"{name}.modulation.weight"].T / math.sqrt(STYLE) + state[f"{name}.modulation.bias"]
        weight = state[f"{name}.weight"]
        weight = weight / math.sqrt(weight[0, 0].numel()) * scales[:, None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        outputs = []
        for picture, kernel in zip(x, weight, strict=True):
            if f"{name}.blur.kernel" in state:
                up = F.conv_transpose2d(picture[None], kernel.transpose(0, 1), stride=2)
                outputs.append(blurred(up, state[f"{name}.blur.kernel"], 1, 1))
            else:
                outputs.append(F.conv2d(picture[None], kernel, padding=kernel.shape[-1] // 2))
        return torch.cat(outputs)

    def layer(x: Tensor, name: str, style: Tensor, added: Tensor) -> Tensor:
        x = modulated(x, f"{name}.conv", style, True) + state[f"{name}.noise.weight"] * added
        return F.leaky_relu(x + state[f"{name}.activate.bias"][:, None, None], 0.2) * math.sqrt(2)

    def picture(x: Tensor, name: str, style: Tensor) -> Tensor:
        return modulated(x, f"{name}.conv", style, False) + state[f"{name}.bias"]

    x = layer(state["input.input"].expand(styles.shape[0], -1, -1, -1), "conv1", styles[:, 0], noise[0])
    skip = picture(x, "to_rgb1", styles[:, 1])
    for level in range(2):
        x = layer(x, f"convs.{2 * level}", styles[:, 2 * level + 1], noise[2 * level + 1])
        x = layer(x, f"convs.{2 * level + 1}", styles[:, 2 * level + 2], noise[2 * level + 2])
        spread = skip.new_zeros(*skip.shape[:2], 2 * skip.shape[2], 2 * skip.shape[3])
        spread[:, :, ::2, ::2] = skip
        skip = blurred(spread, state[f"to_rgbs.{level}.upsample.kernel"], 2, 1)
        skip = skip + picture(x, f"to_rgbs.{level}", styles[:, 2 * level + 3])
    return skip


@pytest.mark.parametrize("whole", [True, False], ids=["training's file", "state dict alone"])
def test_stylegan2_makes_the_picture_that_upstream_makes(tmp_path, whole):
    state, path = rosinality_generator(), tmp_path / "550000.pt"
    content = {"g": state, "d": {}, "g_ema": state, "g_optim": {}, "args": argparse.Namespace(size=16)}
    torch.save(content if whole else state, path)
    generator = Generator(16, STYLE, channel_base=256, channel_max=32)
    mapping = MappingNetwork(STYLE, STYLE, 2)
    load_stylegan2(generator, path, mapping)
    torch.manual_seed(1)
    code, styles = torch.randn(2, STYLE), torch.randn(2, generator.num_styles, STYLE)
    noise = [torch.randn(1, 1, *shape) for shape in generator.noise_shapes]
    with torch.no_grad():
        assert_close(generator(styles, noise),
                     upstream_picture(state, styles.double(), [added.double() for added in noise]))
        hidden = code.double() * (code.double().square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in (1, 2):
            weight, bias = state[f"style.{i}.weight"].double(), state[f"style.{i}.bias"].double()
            hidden = hidden @ weight.T * (0.01 / math.sqrt(STYLE)) + bias * 0.01
            hidden = F.leaky_relu(hidden, 0.2) * math.sqrt(2)
        assert_close(mapping(code), hidden)


def test_stylegan2_without_its_mapping_network_and_with_other_channels(tmp_path):
    state, path = rosinality_generator(), tmp_path / "g.pt"
    torch.save({"g_ema": state, "latent_avg": torch.zeros(STYLE)}, path)
    load_stylegan2(Generator(16, STYLE, channel_base=256, channel_max=32), path)
    with pytest.raises(SpeakError, match=r"g.pt: .*of shape"):
        load_stylegan2(Generator(16, STYLE, channel_base=512, channel_max=32), path)
    with pytest.raises(SpeakError, match="unknown key 'convs.2"):
        load_stylegan2(Generator(8, STYLE, channel_base=256, channel_max=32), path)
    torch.save({"g_ema": {**state, "convs.9.conv.weight": torch.ones(1)}}, path)
    with pytest.raises(SpeakError, match="unknown key 'convs.9.conv.weight'"):
        load_stylegan2(Generator(16, STYLE, channel_base=256, channel_max=32), path)
