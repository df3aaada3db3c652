"""The operators inside torch: opcheck, torch.compile without graph breaks, meta tensors, autocast."""

import pytest
import torch

from speak import ops
from speak.models.stylegan2 import Generator
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(bool(ops.LIBRARY.missing), reason=f"no compiled library: {ops.LIBRARY.missing}")


def samples() -> list[tuple]:
    """(operator, arguments), planar and channels-last, with and without each optional operand."""
    cases = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 6, 5).contiguous(memory_format=layout).requires_grad_()
        still = x.detach()
        b, d, s = (torch.rand(*shape, requires_grad=True) for shape in ((3,), (2, 3), (2, 3)))
        z, f = torch.randn(1, 6, 5), torch.rand(4)
        bend = (0.2, 1.4, 2.0)
        cases += [
            ("bias_act", (x, b, 1, *bend)),
            ("bias_act", (x, None, 0, *bend)),
            ("bias_act", (x, torch.rand(6), 2, *bend)),
            ("bias_act_backward", (x, still, 1, *bend, True)),
            ("bias_act_backward", (x, still, 1, *bend, False)),
            ("upfirdn2d", (x, f, 2, 1, 1, 2, 1, 2, 3, 1, False, 1.5)),
            ("upfirdn2d", (x, torch.rand(2, 3), 1, 1, 1, 1, 0, 0, 0, 0, True, 1.0)),
            ("epilogue", (x, None, 0, 0, d, z, b, s, *bend, True)),
            ("epilogue", (x, None, 0, 0, None, None, None, None, *bend, True)),
            ("epilogue", (still, f, 1, 2, d.detach(), None, b.detach(), s.detach(), *bend, False)),
            ("epilogue_backward", (still, still, still, still, d.detach(), s.detach(), *bend, 1, True)),
            ("epilogue_backward", (None, still, still, still, None, s.detach(), *bend, 0, False)),
        ]
    wide, rgb = torch.randn(2, 16, 6, 5).contiguous(memory_format=torch.channels_last), torch.rand(2, 3, 16)
    small = (torch.rand(2, 16), torch.randn(2, 6, 5), torch.rand(16))
    cases += [("epilogue_rgb", (wide, *small, torch.rand(2, 16), rgb, *bend))]
    cases += [("epilogue_rgb", (wide, None, None, None, None, rgb, *bend))]
    parts = [torch.randn(2, 16, height, width).contiguous(memory_format=torch.channels_last)
             for width in (4, 3) for height in (3, 2)]  # fmt: skip
    vectors = (torch.rand(2, 16), torch.randn(2, 4, 6), torch.rand(16), torch.rand(2, 16))
    cases += [("epilogue_of_parts", (*parts, f, 1, 1, *vectors, *bend, True))]
    pairs = [torch.randn(2, 32, height, 4).contiguous(memory_format=torch.channels_last) for height in (3, 2)]
    cases += [("epilogue_of_parts", (*pairs, None, None, f, 1, 1, *vectors, *bend, False))]
    return cases


@pytest.mark.parametrize("name, arguments", samples())
def test_opcheck_finds_nothing(name: str, arguments: tuple) -> None:
    torch.library.opcheck(getattr(torch.ops.speak, name).default, arguments)


def layer(x, w, s, z, b):  # noqa: ANN001, ANN201
    y, _ = ops.modulated_layer(
        x, w, s, z, b, up=2, padding=1, resample_filter=FILTER, act="lrelu", flip_weight=False, next_styles=None
    )
    return ops.upfirdn2d(ops.bias_act(y, b, act="relu"), FILTER, down=2, padding=1)


FILTER = ops.setup_filter([1, 3, 3, 1], separable=True)


def test_torch_compile_traces_the_whole_layer_and_its_gradient() -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 4, 8, 8),
        torch.randn(6, 4, 3, 3),
        torch.randn(2, 4),
        torch.randn(1, 1, 16, 16),
        torch.randn(6),
    ]
    inputs = [t.requires_grad_() for t in inputs]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected, actual = layer(*inputs), compiled(*inputs)
    assert_close(actual, expected)
    for one, two in zip(
        torch.autograd.grad(actual.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        assert_close(one, two)


def test_meta_tensors_have_the_shape_of_the_result() -> None:
    x, w, s = (
        torch.empty(2, 4, 8, 8, device="meta"),
        torch.empty(6, 4, 3, 3, device="meta"),
        torch.empty(2, 4, device="meta"),
    )
    y = ops.modulated_conv2d(x, w, s, up=2, padding=1, resample_filter=FILTER.to("meta"))
    assert y.device.type == "meta" and y.shape == (2, 6, 16, 16)


def test_the_fused_convolution_of_cuda_has_a_shape_on_meta() -> None:
    x, w, s = (torch.empty(*shape, dtype=torch.float16, device="meta") for shape in ((2, 8, 6, 5), (9, 16, 8), (2, 8)))
    for plain, styles in ((True, None), (False, s[:, :1].expand(2, 16)), (True, s[:, :1].expand(2, 16))):
        results = torch.ops.speak.modulated_conv3x3(x, w, s, None, None, None, styles, 0.2, 1.0, -1.0, plain)
        assert [tuple(r.shape) for r in results] == [(2, 16, 6, 5) if f else (0,) for f in (plain, styles is not None)]


def test_a_generator_compiles_as_one_graph_and_sees_new_weights() -> None:
    torch.manual_seed(0)
    generator = Generator(16, 8, channel_base=256, channel_max=16).eval()
    styles = torch.randn(2, generator.num_styles, 8)
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(styles), generator(styles))
            for parameter in generator.parameters():
                parameter.mul_(1.1)


def test_forward_mode_derivatives_are_those_of_the_reference() -> None:
    torch.manual_seed(0)
    x, v = torch.randn(2, 2, 16, 4, 4).double().contiguous(memory_format=torch.contiguous_format)
    rgb = torch.randn(2, 3, 16).double()
    for function in (
        lambda q: ops.layer_epilogue(q, rgb=rgb)[0], lambda q: ops.bias_act(q, act="lrelu"),
        lambda q: ops.upfirdn2d(q, FILTER, up=2, padding=3),
    ):  # fmt: skip
        _, actual = torch.func.jvp(function, (x,), (v,))
        assert_close(actual, (function(x + 1e-6 * v) - function(x - 1e-6 * v)) / 2e-6, torch.float32)


def test_a_generator_is_built_and_run_under_a_default_meta_device() -> None:
    with torch.device("meta"):
        generator = Generator(16, 8, channel_base=64, channel_max=8)
        styles = torch.empty(2, generator.num_styles, 8)
        images = [generator(styles, "random"), generator(styles, dtype=torch.bfloat16)]
        with torch.no_grad():
            images.append(generator(styles))
        assert ops.setup_filter([1, 2, 1]).device.type == "meta"
    for image in images:
        assert image.device.type == "meta" and image.shape == (2, 3, 16, 16) and image.dtype == torch.float32
    images[0].sum().backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in generator.parameters())


def test_under_autocast_a_layer_runs_in_bfloat16_with_float32_parameters() -> None:
    torch.manual_seed(0)
    x, w, s = torch.randn(2, 16, 8, 8), torch.randn(16, 16, 3, 3) / 12, torch.rand(2, 16) + 0.5
    expected = ops.modulated_conv2d_ref(x, w, s, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ops.bias_act(ops.modulated_conv2d(x, w, s, padding=1), torch.zeros(16), act="linear")
    assert y.dtype == torch.bfloat16
    assert_close(y, expected, torch.bfloat16)
