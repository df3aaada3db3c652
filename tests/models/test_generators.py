"""G_d and G_g: how codes become styles; compiled and reference operators; gradients."""

import pytest
import torch
import torch.nn.functional as F

from speak import ops
from speak.config import preset
from speak.losses import path_length_penalty
from speak.models.codes import Codes
from speak.models.generators import DisentanglementGenerator, GlobalGenerator, LevelMLP
from speak.models.stylegan2 import ModulatedConvolution
from tests.tolerances import assert_close

TINY = preset("tiny")


def codes_of(count: int, dtype: torch.dtype = torch.float32) -> Codes:
    torch.manual_seed(count)
    model = TINY.model
    sizes = (model.identity.code_dim, model.pose.code_dim, model.emotion.code_dim)
    identity, pose, emotion = (torch.randn(count, size, dtype=dtype) for size in sizes)
    return Codes(F.normalize(identity, dim=1), pose, emotion)


def both(dtype: torch.dtype = torch.float32) -> list:
    """(generator, its arguments) of G_d and of G_g."""
    torch.manual_seed(0)
    irfd, whole = DisentanglementGenerator(TINY).to(dtype), GlobalGenerator(TINY).to(dtype)
    edited = torch.randn(2, whole.synthesis.num_styles, TINY.model.editing.width, dtype=dtype)
    return [(irfd, (codes_of(2, dtype),)), (whole, (codes_of(2, dtype), edited))]


@pytest.mark.parametrize("hidden", [0, 7])
def test_every_level_has_an_mlp_of_its_own(hidden: int) -> None:
    torch.manual_seed(0)
    mlp = LevelMLP(levels=3, width=4, style_dim=5, hidden=hidden).double()
    for bias in mlp.biases:
        torch.nn.init.normal_(bias)
    edited = torch.randn(2, 3, 4, dtype=torch.float64)
    for level in range(3):
        expected = edited[:, level]
        for layer, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            expected = F.leaky_relu(expected, 0.2) * 2**0.5 if layer else expected
            expected = expected @ weight[level] + bias[level]
        assert_close(mlp(edited)[:, level], expected)


def test_g_g_adds_each_levels_edited_vector_to_one_base_style_that_ignores_emotion() -> None:
    _, (generator, (codes, edited)) = both(torch.float64)
    base = generator.fuse(codes.fused("identity", "pose"))
    styles = generator.styles(codes, edited)
    assert_close(styles, base[:, None] + generator.additions(edited))
    other = Codes(codes.identity, codes.pose, codes.emotion + 1)
    assert torch.equal(generator.styles(other, edited), styles)
    moved = edited.clone()
    moved[:, 3] += 1
    difference = (generator.styles(codes, moved) - styles).abs().amax((0, 2))
    assert difference[3] > 1e-3 and difference.sum() == difference[3]


def test_g_d_gives_every_level_the_same_style_from_all_three_codes() -> None:
    (generator, (codes,)), _ = both()
    styles = generator.styles(codes)
    assert torch.equal(styles, styles[:, :1].expand_as(styles))
    for factor in ("identity", "pose", "emotion"):
        moved = {name: getattr(codes, name) + (name == factor) for name in ("identity", "pose", "emotion")}
        assert (generator.styles(Codes(**moved)) - styles).abs().max() > 1e-3


@pytest.mark.parametrize("which", [0, 1])
def test_compiled_and_reference_operators_generate_the_same(which: int) -> None:
    if ops.LIBRARY.missing:
        pytest.skip(f"compiled operators are an extra: {ops.LIBRARY.missing}")
    generator, arguments = both()[which]
    for convolution in generator.synthesis.convolutions:
        torch.nn.init.constant_(convolution.noise_strength, 0.1)
    noise = [torch.randn(1, 1, *shape) for shape in generator.synthesis.noise_shapes]
    outcomes = []
    for backend in ("reference", "compiled"):
        generator.zero_grad()
        with ops.backend(backend):
            frames = generator(*arguments, noise)
            frames.square().mean().backward()
            with torch.no_grad():
                assert_close(generator(*arguments, noise), frames)
        outcomes.append((frames, {name: p.grad for name, p in generator.named_parameters()}))
    (expected, gradients), (frames, found) = outcomes
    assert_close(frames, expected)
    for name, gradient in gradients.items():
        assert_close(found[name], gradient)


def test_the_path_length_of_g_g_can_be_learned_from_with_compiled_and_reference_operators() -> None:
    if ops.LIBRARY.missing:
        pytest.skip(f"compiled operators are an extra: {ops.LIBRARY.missing}")
    _, (generator, (codes, edited)) = both(torch.float64)
    directions = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found = []
    for backend in ("reference", "compiled"):
        generator.zero_grad()
        with ops.backend(backend):
            styles = generator.styles(codes, edited)
            frames = generator.synthesis(styles)
            penalty, _ = path_length_penalty(frames, styles, torch.zeros([], dtype=torch.float64), directions)
            penalty.backward()
        found.append((penalty, generator.synthesis.convolutions[1].weight.grad, generator.additions.weights[0].grad))
    for expected, value in zip(*found, strict=True):
        assert expected.abs().max() > 0
        assert_close(value, expected)


@pytest.mark.parametrize("which", [0, 1])
def test_every_parameter_of_a_generator_learns(which: int) -> None:
    generator, arguments = both()[which]
    frames = generator(*arguments, "random")
    assert frames.shape == (2, 3, 64, 64)
    frames.square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_a_weight_made_ready_is_made_anew_when_the_weight_changes() -> None:
    torch.manual_seed(0)
    layer, x, scales = ModulatedConvolution(16, 16, 8), torch.randn(1, 16, 8, 8), torch.ones(1, 16)

    def agree() -> None:
        with torch.no_grad():
            ready = layer(x, scales)[0]
        assert_close(ready, layer(x, scales)[0])  # where gradients are wanted nothing is kept

    agree()
    with torch.no_grad():
        layer.weight.mul_(-1)
    agree()
    layer.load_state_dict({name: torch.randn_like(value) for name, value in layer.state_dict().items()})
    agree()
    layer.bfloat16().float()
    agree()

    def with_weight(seed: int) -> torch.Tensor:  # temporary, so its memory is used again
        torch.manual_seed(seed)
        with torch.no_grad():
            return torch.func.functional_call(layer, {"weight": torch.randn(16, 16, 3, 3)}, (x, scales))[0]

    first = [with_weight(seed) for seed in range(4)]
    assert all(not torch.equal(a, b) for a, b in zip(first[:-1], first[1:], strict=True))
    with torch.inference_mode():
        ModulatedConvolution(16, 16, 8)(x, scales)
