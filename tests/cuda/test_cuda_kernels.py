"""The CUDA kernels compute what torch does in float64: on the emulator under every thread order, and on a GPU."""

import pytest
import references
import torch
from trials import (
    BFLOAT,
    CLAMPED,
    DTYPES,
    FLOAT,
    HALF,
    IMAGES,
    LAYOUTS,
    LINEAR,
    LRELU,
    check,
    drawn,
    generator_of,
    operands,
    small,
)

from tests.tolerances import assert_close


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize("shape", [(2, 8, 6, 8), (3, 5, 5, 7), (1, 16, 32, 33), (2, 3, 1, 1), (1, 1, 1, 13)], ids=str)
def test_bias_act_and_its_derivative(machine, dtype, layout, shape) -> None:
    g = generator_of(dtype, layout, shape)
    x, b = drawn(g, shape, dtype, layout), drawn(g, shape[1:2], small(dtype))
    check(machine, "bias_act", [x, b, 1, *LRELU])
    check(machine, "bias_act", [x, None, 1, *CLAMPED])
    y = check(machine, "bias_act", [x, b, 1, *CLAMPED])[0].cpu()
    dy = drawn(g, shape, dtype, layout)
    for with_bias in (False, True):
        check(machine, "bias_act_backward", [dy, y, 1, *CLAMPED, with_bias])


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("shape", [(6, 40), (3, 4, 5), (2, 7, 3, 8, 2)], ids=str)
def test_bias_act_takes_any_rank_and_dimension(machine, shape, dim) -> None:
    if dim >= len(shape):
        dim = len(shape) - 1
    g = generator_of(shape, dim)
    x, b = drawn(g, shape, FLOAT), drawn(g, (shape[dim],), FLOAT)
    y = check(machine, "bias_act", [x, b, dim, *LRELU])[0].cpu()
    check(machine, "bias_act_backward", [drawn(g, shape, FLOAT), y, dim, *LRELU, True])


def test_bias_act_on_the_other_dimensions_of_channels_last_data(machine) -> None:
    g = generator_of("dims")
    x = drawn(g, (2, 8, 5, 6), FLOAT, "last")
    for dim in (0, 2, 3):
        b = drawn(g, (x.shape[dim],), FLOAT)
        y = check(machine, "bias_act", [x, b, dim, *LRELU], keeps_format=False)[0].cpu()
        dy = drawn(g, x.shape, FLOAT, "last")
        check(machine, "bias_act_backward", [dy, y, dim, *LRELU, True], keeps_format=False)


# up_x, up_y, down_x, down_y, pad_x0, pad_x1, pad_y0, pad_y1, and the filter's size
FILTERS = {
    "blur": ([1, 1, 1, 1, 2, 1, 2, 1], (4,)),
    "blur, cropped": ([1, 1, 1, 1, -1, 2, 3, -2], (4, 4)),
    "up": ([2, 2, 1, 1, 2, 1, 2, 1], (4,)),
    "up, odd padding": ([2, 2, 1, 1, 3, 0, 1, 2], (4, 4)),
    "up, cropped": ([2, 2, 1, 1, -3, 4, -2, -1], (4, 4)),
    "down": ([1, 1, 2, 2, 1, 1, 1, 1], (4,)),
    "down, cropped": ([1, 1, 2, 2, -2, 3, 2, -3], (4, 4)),
    "across only": ([2, 1, 1, 1, 2, 1, 0, 0], (1, 4)),
    "up and down": ([3, 2, 2, 3, 4, 3, 2, 5], (5, 3)),
    "long": ([1, 1, 2, 2, 5, 5, 5, 5], (12,)),
    "one tap": ([1, 1, 1, 1, 0, 0, 0, 0], (1, 1)),
    "far padding": ([2, 2, 1, 1, 9, 8, 7, 9], (4,)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", FILTERS)
def test_upfirdn2d(machine, kind, layout, dtype) -> None:
    numbers, taps = FILTERS[kind]
    for shape in [(2, 3, 9, 10), (1, 8, 36, 16)]:
        g = generator_of(kind, layout, dtype, shape)
        x, f = drawn(g, shape, dtype, layout), drawn(g, taps, small(dtype))
        for flip in (False, True):
            check(machine, "upfirdn2d", [x, f, *numbers, flip, 1.7])


@pytest.mark.parametrize("kind", ["blur", "up", "up, odd padding", "down"])
@pytest.mark.parametrize("shape", [(1, 2, 37, 141), (1, 1, 35, 256)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_upfirdn2d_in_wide_tiles(machine, kind, shape, dtype) -> None:
    numbers, taps = FILTERS[kind]
    g = generator_of(kind, shape, dtype)
    check(machine, "upfirdn2d", [drawn(g, shape, dtype), drawn(g, taps, small(dtype)), *numbers, False, 4.0])


@pytest.mark.parametrize("layout", ["shifted", "strided", "expanded"])
def test_upfirdn2d_takes_any_strides(machine, layout) -> None:
    g = generator_of(layout)
    for kind in ("blur", "up", "up and down"):
        numbers, taps = FILTERS[kind]
        x, f = drawn(g, (2, 3, 8, 12), HALF, layout), drawn(g, taps, FLOAT)
        check(machine, "upfirdn2d", [x, f, *numbers, False, 1.0])


def test_upfirdn2d_over_random_sizes_factors_and_paddings(machine) -> None:
    g = generator_of("fuzz")

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=g))

    tried = 0
    while tried < 60:
        up_x, up_y, down_x, down_y = (number(1, 3) for _ in range(4))
        taps = (number(1, 6),) if number(0, 1) else (number(1, 6), number(1, 6))
        height, width = number(1, 12), number(1, 12)
        padding = [number(-4, 8) for _ in range(4)]
        padded = (width * up_x + sum(padding[:2]), height * up_y + sum(padding[2:]))
        if padded[0] < taps[-1] or padded[1] < taps[0]:
            continue
        cropped = [sum(min(p, 0) for p in pair) for pair in (padding[:2], padding[2:])]
        if cropped[0] <= -width * up_x or cropped[1] <= -height * up_y:
            continue  # torch's own pad refuses to crop everything
        tried += 1
        x = drawn(g, (number(1, 2), number(1, 9), height, width), FLOAT, IMAGES[tried % len(IMAGES)])
        numbers = [up_x, up_y, down_x, down_y, *padding]
        check(machine, "upfirdn2d", [x, drawn(g, taps, FLOAT), *numbers, bool(tried % 2), 1.3])


EPILOGUES = [
    ("dmbs", True, CLAMPED),
    ("dnb", True, LRELU),
    ("ns", False, LRELU),
    ("", True, LINEAR),
    ("mb", True, CLAMPED),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize("shape", [(2, 8, 6, 8), (2, 5, 5, 7), (1, 16, 16, 20), (2, 12, 2, 6)], ids=str)
def test_the_epilogue_and_its_derivative(machine, dtype, layout, shape) -> None:
    images, channels, *size = shape
    for which, plain, activation in EPILOGUES:
        g = generator_of(dtype, layout, shape, which)
        x = drawn(g, shape, dtype, layout)
        small_ones = operands(g, which, images, channels, size, small(dtype))
        check(machine, "epilogue", [x, None, 0, 0, *small_ones, *activation, plain])
        y = references.epilogue(x, None, 0, 0, *small_ones, *activation, True)[0].to(dtype)
        dy = drawn(g, shape, dtype, layout) if plain else None
        dscaled = drawn(g, shape, dtype, layout) if "s" in which else None
        noise_batch = 1 if "m" in which else images if "n" in which else 0
        arguments = [dy, dscaled, x, y, small_ones[0], small_ones[3], *activation, noise_batch, "b" in which]
        check(machine, "epilogue_backward", arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [HALF, FLOAT], ids=str)
def test_the_epilogue_derivative_over_many_patches(machine, layout, dtype) -> None:
    g = generator_of(layout, dtype)
    shape = (2, 72, 24, 32) if layout == "last" else (2, 40, 32, 48)
    x, y, dy, dscaled = (drawn(g, shape, dtype, layout) for _ in range(4))
    styles = operands(g, "ds", 2, shape[1], shape[2:], FLOAT)
    for noise_batch in (1, 2):
        arguments = [dy, dscaled, x, y, styles[0], styles[3], *CLAMPED, noise_batch, True]
        check(machine, "epilogue_backward", arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [*LAYOUTS, "shifted"])
@pytest.mark.parametrize("taps, pads", [(4, (1, 1)), (4, (2, 1)), (3, (1, 1)), (1, (0, 0)), (8, (3, 4)), (4, (-1, 2))])
def test_the_blurring_epilogue(machine, dtype, layout, taps, pads) -> None:
    shapes = [(2, 8, 9, 9), (1, 5, 34, 13), (2, 4, 7, 35)]
    for shape, (which, plain, activation) in zip(shapes, EPILOGUES[:3], strict=True):
        images, channels, height, width = shape
        g = generator_of(dtype, layout, taps, pads, shape)
        size = tuple(length + sum(pads) - taps + 1 for length in (height, width))
        x, f = drawn(g, shape, dtype, layout), drawn(g, (taps,), small(dtype))
        small_ones = operands(g, which, images, channels, size, small(dtype))
        check(machine, "epilogue", [x, f, *pads, *small_ones, *activation, plain])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [129, 70, 257])
def test_the_blurring_epilogue_in_wide_tiles(machine, dtype, width) -> None:
    g = generator_of(dtype, width)
    x, f = drawn(g, (1, 2, 37, width), dtype), drawn(g, (4,), small(dtype))
    small_ones = operands(g, "dnbs", 1, 2, (36, width - 1), small(dtype))
    check(machine, "epilogue", [x, f, 1, 1, *small_ones, *CLAMPED, True])


@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize(
    "images, channels_in, channels_out, height, width",
    [(1, 16, 16, 16, 16), (2, 8, 24, 9, 21), (1, 40, 72, 17, 8), (1, 128, 128, 4, 4), (1, 64, 64, 5, 50)],
)
def test_the_narrow_modulated_convolution(machine, layout, images, channels_in, channels_out, height, width) -> None:
    for which, plain, activation in EPILOGUES:
        g = generator_of(layout, channels_in, channels_out, which)
        x = drawn(g, (images, channels_in, height, width), HALF, layout)
        weight = (drawn(g, (9, channels_out, channels_in)) / (9 * channels_in) ** 0.5).to(HALF)
        styles = drawn(g, (images, channels_in), FLOAT)
        small_ones = operands(g, which, images, channels_out, (height, width), FLOAT)
        check(machine, "modulated_conv3x3", [x, weight, styles, *small_ones, *activation, plain])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [16, 32, 64])
def test_the_narrow_modulated_convolution_in_its_largest_blocks(machine, layout, channels) -> None:
    g = generator_of(layout, channels)
    x = drawn(g, (1, 16, 176, 184), HALF, layout)  # 132 tiles of 16 x 16, and edges
    weight = (drawn(g, (9, channels, 16)) / 12).to(HALF)
    small_ones = operands(g, "dmbs", 1, channels, (176, 184), FLOAT)
    check(machine, "modulated_conv3x3", [x, weight, drawn(g, (1, 16), FLOAT), *small_ones, *CLAMPED, True])


def test_the_kernels_run_on_a_gpu_too(gpu) -> None:
    """The tests above ran on it as well; where there is none, this one's reason to skip says so."""
    check(gpu, "bias_act", [drawn(generator_of(), (2, 8, 6, 8), HALF), None, 1, *LRELU])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch_gives_an_empty_result_without_a_launch(machine, layout) -> None:
    g = generator_of(layout)
    x = drawn(g, (0, 8, 6, 8), HALF, layout)
    b, f = drawn(g, (8,), FLOAT), drawn(g, (4,), FLOAT)
    launches = machine.library.emulation_launches() if machine.device == "cpu" else 0
    check(machine, "bias_act", [x, b, 1, *LRELU])
    check(machine, "bias_act_backward", [x, x, 1, *LRELU, True])
    check(machine, "upfirdn2d", [x, f, *FILTERS["blur"][0], False, 1.0])
    small_ones = operands(g, "dmbs", 0, 8, (6, 8), FLOAT)
    check(machine, "epilogue", [x, None, 0, 0, *small_ones, *LRELU, True])
    check(machine, "epilogue_backward", [x, x, x, x, small_ones[0], small_ones[3], *LRELU, 1, True])
    weight = torch.zeros(9, 8, 8, dtype=HALF)
    check(machine, "modulated_conv3x3", [x, weight, torch.zeros(0, 8), *small_ones, *LRELU, True])
    if machine.device == "cpu":
        assert machine.library.emulation_launches() == launches


def test_the_derivatives_are_those_that_autograd_finds(machine) -> None:
    """The kernels' forward and backward in float64 against autograd through the reference's forward."""
    g = generator_of("autograd")
    x, noise = drawn(g, (2, 4, 6, 6)), drawn(g, (1, 6, 6))
    demodulation, styles, bias = drawn(g, (2, 4)), drawn(g, (2, 4)), drawn(g, (4,))
    leaves = [t.clone().requires_grad_() for t in (x, demodulation, noise, bias, styles)]
    t = leaves[0] * leaves[1][:, :, None, None] + leaves[2][:, None] + leaves[3][:, None, None]
    y = references.activated(t, *CLAMPED)
    scaled = y * leaves[4][:, :, None, None]
    dy, dscaled = drawn(g, x.shape), drawn(g, x.shape)
    expected = torch.autograd.grad([y, scaled], leaves, [dy, dscaled])
    moved = [t.to(machine.device) for t in (dy, dscaled, x, y.detach(), demodulation, styles)]
    for actual in machine.runs(lambda: machine.operators.epilogue_backward(*moved, *CLAMPED, 1, True)):
        for ours, theirs in zip(actual, expected, strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=str)
def test_every_number_of_16_bits_is_read_and_rounded_as_torch_does(machine, dtype) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).reshape(1, -1)
    for gain in (1.0, 1 / 3, 0.0009765625):
        expected = (x.float() * gain).to(dtype)
        actual = machine.operators.bias_act(x.to(machine.device), None, 1, 1.0, gain, -1.0).cpu()
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.nan_to_num(1.0), expected.nan_to_num(1.0))


def test_a_nan_stays_a_nan_and_an_infinity_is_limited(machine) -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]]).to(machine.device)
    for y in machine.runs(lambda: machine.operators.bias_act(x, None, 1, 0.5, 1.0, 3.0)):
        assert y.isnan().tolist() == [[True, False, False, False]]
        assert y[0, 1:].tolist() == [3.0, -3.0, 1.0]


@pytest.mark.parametrize(
    "what, call",
    [
        ("rank", lambda o, x, v: o.upfirdn2d(x[0], v, 1, 1, 1, 1, 0, 0, 0, 0, False, 1.0)),
        ("at least as large", lambda o, x, v: o.upfirdn2d(x, v, 1, 1, 1, 1, -5, 0, 0, 0, False, 1.0)),
        ("finite", lambda o, x, v: o.upfirdn2d(x, v, 1, 1, 1, 1, 0, 0, 0, 0, False, float("nan"))),
        ("float32", lambda o, x, v: o.upfirdn2d(x, v.double(), 1, 1, 1, 1, 0, 0, 0, 0, False, 1.0)),
        ("size 4", lambda o, x, v: o.bias_act(x, v[:3], 1, 1.0, 1.0, -1.0)),
        ("no dimension", lambda o, x, v: o.bias_act(x, v, 4, 1.0, 1.0, -1.0)),
        ("data must be", lambda o, x, v: o.bias_act(x.long(), None, 1, 1.0, 1.0, -1.0)),
        ("shape of x", lambda o, x, v: o.bias_act_backward(x, x[:1], 1, 1.0, 1.0, -1.0, True)),
        ("demodulation", lambda o, x, v: o.epilogue(x, None, 0, 0, v, None, None, None, 1.0, 1.0, -1.0, True)),
        ("8 taps", lambda o, x, v: o.epilogue(x, torch.ones(9), 4, 4, None, None, None, None, 1.0, 1.0, -1.0, True)),
        ("next_styles", lambda o, x, v: o.epilogue_backward(x, x, x, x, None, None, 1.0, 1.0, -1.0, 0, False)),
        ("float16", lambda o, x, v: o.modulated_conv3x3(x, x, v, None, None, None, None, 1.0, 1.0, -1.0, True)),
        (
            "multiples of 8",
            lambda o, x, v: o.modulated_conv3x3(
                x.half(), x.new_zeros(9, 8, 4).half(), v.expand(2, 4), None, None, None, None, 1.0, 1.0, -1.0, True
            ),
        ),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(machine, what, call) -> None:
    x, v = torch.zeros(2, 4, 6, 6, device=machine.device), torch.zeros(4, device=machine.device)
    with pytest.raises(RuntimeError, match=what):
        call(machine.operators, x, v)
