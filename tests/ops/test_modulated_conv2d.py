"""The modulated convolution and its epilogue: the compiled path against per-sample weights in float64."""

import importlib
import itertools

import numpy as np
import pytest
import torch

from speak import ops
from speak.ops.bias_act import as_vector
from tests.tolerances import assert_close

modulated = importlib.import_module("speak.ops.modulated_conv2d")  # whose name in speak.ops is the function's
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
FILTER = ops.setup_filter([1, 3, 3, 1], separable=True)


def test_the_reference_is_the_paper_s_equations_written_out() -> None:
    torch.manual_seed(0)
    x, w, s = torch.randn(2, 3, 6, 5).double(), torch.randn(4, 3, 3, 3).double(), torch.randn(2, 3).double()
    y = ops.modulated_conv2d_ref(x, w, s, padding=1)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)])
    for n, o, i, j in itertools.product(range(2), range(4), (0, 3, 5), (0, 2, 4)):
        scaled = w[o].numpy() * s[n].numpy()[:, None, None]  # Eq. 1
        scaled = scaled / np.sqrt((scaled**2).sum() + 1e-8)  # Eq. 3
        assert abs((padded[n, :, i : i + 3, j : j + 3] * scaled).sum() - y[n, o, i, j].item()) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("padding", [0, 1, [2, 1, 0, 1]])
@pytest.mark.parametrize("flip_weight", [True, False])
def test_compiled_equals_per_sample_weights(
    dtype: torch.dtype, up: int, down: int, padding: int | list[int], flip_weight: bool, compiled: None
) -> None:
    torch.manual_seed(0)
    x, w, s = torch.randn(2, 12, 7, 8).to(dtype), torch.randn(10, 12, 3, 3).to(dtype) / 10, torch.randn(2, 12)
    for f, demodulate in itertools.product((FILTER, ops.setup_filter([1, 2, 3, 1]), None), (True, False)):
        arguments = (up, down, padding, f, demodulate, flip_weight)
        expected = ops.modulated_conv2d_ref(x.double(), w.double(), s.double(), None, *arguments)
        for noise_batch, layout in itertools.product((0, 1, 2), (torch.contiguous_format, torch.channels_last)):
            noise = torch.randn(noise_batch, 1, *expected.shape[2:]) if noise_batch else None
            y = ops.modulated_conv2d(x.contiguous(memory_format=layout), w, s, noise, *arguments)
            assert_close(y, expected if noise is None else expected + noise, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("up", [1, 2])
def test_a_packed_weight_gives_what_the_weight_gives(dtype: torch.dtype, up: int, compiled: None) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 32, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last)
    w, s, z = torch.randn(16, 32, 3, 3).to(dtype) / 17, torch.rand(3, 32) + 0.5, torch.rand(3, 16)
    keywords = {"up": up, "padding": 1, "resample_filter": FILTER, "flip_weight": up == 1, "act": "lrelu", "clamp": 2.0}
    expected = ops.modulated_layer_ref(x.double(), w.double(), s.double(), next_styles=z.double(), **keywords)
    for shape in (None, tuple(x.shape), (1, 32, 20, 4)):
        packed = ops.pack_weight(w, up, 1, up == 1, shape)
        with torch.no_grad():
            results = ops.modulated_layer(x, packed, s, next_styles=z, **keywords)
            scaled = x * s.to(dtype)[:, :, None, None]
            again = ops.modulated_layer(scaled, packed, s, next_styles=z, prescaled=True, **keywords)
        for actual, wanted in zip((*results, *again), (*expected, *expected), strict=True):
            assert_close(actual, wanted, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 3)])
def test_up_sampling_in_parts_gives_what_a_transposed_convolution_gives(
    dtype: torch.dtype, columns: bool, size: tuple[int, int], compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(modulated.PARTS_CPU, dtype, {"columns": columns, "tiles": False, "from": 1})
    torch.manual_seed(0)
    height, width = size
    x = torch.randn(2, 24, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    w, s, b = torch.randn(32, 24, 3, 3).to(dtype) / 15, torch.rand(2, 24) + 0.5, torch.randn(32)
    packed = ops.pack_weight(w, 2, 1, False, tuple(x.shape))
    if packed.parts is None:
        pytest.skip(f"this torch and processor have no prepacked convolution in {dtype}")
    assert packed.onednn is None and (packed.parts.even_right is not None) is columns
    assert ops.pack_weight(w, 2, 1, False, tuple(x.shape), in_parts=False).parts is None
    for noises, following, plain, rgb in ((0, 0, 1, 0), (1, 1, 0, 0), (2, 1, 1, 0), (1, 1, 1, 1)):
        noise = torch.randn(noises, 1, 2 * height, 2 * width) if noises else None
        keywords = {
            "noise": noise, "bias": b, "next_styles": torch.rand(2, 32) if following else None, "plain": bool(plain),
            "rgb": torch.randn(2, 3, 32) if rgb else None, "up": 2, "padding": 1, "resample_filter": FILTER,
            "flip_weight": False, "act": "lrelu", "clamp": 1.5,
        }  # fmt: skip
        wide = {name: v.double() if isinstance(v, torch.Tensor) and name != "resample_filter" else v
                for name, v in keywords.items()}  # fmt: skip
        expected = ops.modulated_layer_ref(x.double(), w.double(), s.double(), **wide)
        with torch.no_grad():
            found = ops.modulated_layer(x, packed, s, **keywords)
        for actual, wanted in zip(found, expected, strict=True):
            assert (actual is None) == (wanted is None)
            if actual is not None:
                assert_close(actual, wanted, dtype)
    # What parts cannot do is done otherwise: other paddings and filters, down-sampling.
    odd = ops.setup_filter([1, 2, 1], separable=True)
    for changes in ({"padding": [1, 2, 1, 1]}, {"resample_filter": odd}, {"down": 2}):
        keywords = {"up": 2, "padding": 2, "resample_filter": FILTER, "flip_weight": False, **changes}
        expected, _ = ops.modulated_layer_ref(x.double(), w.double(), s.double(), **keywords)
        with torch.no_grad():
            found, _ = ops.modulated_layer(x, packed, s, **keywords)
        assert_close(found, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("taps", [0, 1, 3, 4, 7])
def test_the_epilogue_equals_its_reference_whatever_is_left_out(
    dtype: torch.dtype, layout: torch.memory_format, taps: int, compiled: None
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 19, 11, 130).to(dtype).contiguous(memory_format=layout)
    f, padding = (torch.rand(taps) / taps, (taps - 1, 2 - taps)) if taps else (None, (0, 0))
    height, width = (11, 130) if not taps else (11 + 2 - taps, 130 + 2 - taps)
    for d, z, b, s, plain in itertools.product((0, 1), (0, 1, 2), (0, 1), (0, 1), (True, False)):
        if not plain and not s:
            continue
        keywords = {
            "f": f, "padding": padding, "demodulation": torch.rand(2, 19) if d else None,
            "noise": torch.randn(z, 1, height, width) if z else None, "bias": torch.randn(19) if b else None,
            "next_styles": torch.randn(2, 19) if s else None, "plain": plain, "clamp": 1.5,
        }  # fmt: skip
        results = ops.layer_epilogue(x, **keywords)
        expected = ops.layer_epilogue_ref(x.double(), **keywords)
        for actual, wanted in zip(results, expected, strict=True):
            assert (actual is None) == (wanted is None)
            if actual is not None:
                assert_close(actual, wanted, dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [96, 50])  # by lanes of sixteen, and otherwise
def test_results_larger_than_the_caches_are_whole(
    layout: torch.memory_format, channels: int, compiled: None
) -> None:
    """They are written past the caches: every one is there when the operator returns, for whoever reads it."""
    torch.manual_seed(3)
    x = torch.randn(1, channels, 301, 303).contiguous(memory_format=layout)
    blur = ops.setup_filter([1, 3, 3, 1], separable=True)
    keywords = {"noise": torch.randn(1, 1, 302, 304), "bias": torch.randn(channels)}
    keywords["next_styles"] = torch.rand(1, channels)
    for _ in range(3 if channels == 96 else 1):
        y = ops.upfirdn2d(x, blur, padding=2)
        assert y.numel() * y.element_size() > 16 << 20
        assert_close(y, ops.upfirdn2d_ref(x, blur, padding=2))
        results = ops.layer_epilogue(x, blur, (2, 2), **keywords)
        for result, expected in zip(results, ops.layer_epilogue_ref(x, blur, (2, 2), **keywords), strict=True):
            assert_close(result, expected)
        del y, results


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shared, dtype", [(True, torch.float32), (False, torch.float32), (True, torch.float64)])
def test_unfiltered_results_larger_than_the_caches_are_whole(
    layout: torch.memory_format, shared: bool, dtype: torch.dtype, compiled: None
) -> None:
    found = []
    for call in (ops.layer_epilogue, ops.layer_epilogue_ref):
        torch.manual_seed(4)
        x = torch.randn(2, 37, 263, 269, dtype=dtype).contiguous(memory_format=layout).requires_grad_(True)
        assert x.numel() * x.element_size() > 16 << 20
        noise = torch.randn(1 if shared else 2, 1, 263, 269, requires_grad=True)
        demodulation, bias, styles = (torch.rand(*shape).requires_grad_(True) for shape in ((2, 37), (37,), (2, 37)))
        y, scaled = call(x, None, (0, 0), demodulation, noise, bias, clamp=1.5, next_styles=styles)
        gradients = [torch.randn(x.shape, dtype=dtype).contiguous(memory_format=layout) for _ in range(2)]
        learned = (x, noise, demodulation, bias, styles)
        found.append((y, scaled, *torch.autograd.grad((y, scaled), learned, gradients)))
    for result, expected in zip(*found, strict=True):
        assert_close(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [16, 19, 64])
def test_a_layer_that_is_only_looked_at_gives_its_picture(
    dtype: torch.dtype, layout: torch.memory_format, channels: int, compiled: None
) -> None:
    torch.manual_seed(0)
    rgb = torch.randn(2, 3, channels) / channels**0.5
    for shape, taps in (((2, channels, 9, 31), 0), ((2, channels, 1, 1), 0), ((2, channels, 8, 8), 4)):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        f = torch.rand(taps) / taps if taps else None
        height, width = (size - (taps and 1) for size in shape[2:])
        for d, z, b, s in itertools.product((0, 1), (0, 1, 2), (0, 1), (0, 1)):
            keywords = {
                "f": f, "padding": (1, 1) if taps else (0, 0), "demodulation": torch.rand(2, channels) if d else None,
                "noise": torch.randn(z, 1, height, width) if z else None, "bias": torch.randn(channels) if b else None,
                "next_styles": torch.randn(2, channels) if s else None, "rgb": rgb, "clamp": 1.5,
            }  # fmt: skip
            with torch.no_grad():
                results = ops.layer_epilogue(x, **keywords)
            expected = ops.layer_epilogue_ref(x.double(), **keywords)
            assert results[0].shape == (2, 3, height, width)
            assert results[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert (results[1] is None) == (not s)
            for actual, wanted in zip(results, expected, strict=True):
                if actual is not None:
                    assert_close(actual, wanted, dtype)
    assert ops.layer_epilogue(x[:0], rgb=rgb[:0])[0].shape == (0, 3, 8, 8)
    with pytest.raises(ValueError, match="rgb must be"):
        ops.layer_epilogue(x, rgb=rgb[:1])
    with pytest.raises(ValueError, match="plain"):
        ops.layer_epilogue(x, rgb=rgb, plain=False, next_styles=torch.ones(2, channels))


def test_a_picture_has_the_gradient_of_its_weights_and_its_layer(compiled: None) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape).double() for shape in ((2, 16, 3, 4), (2, 16), (2, 3, 16), (2, 16))]
    inputs = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    gradients = []
    for epilogue in (ops.layer_epilogue, ops.layer_epilogue_ref):
        x, d, rgb, s = (value.clone().requires_grad_() for value in inputs)
        picture, scaled = epilogue(x, demodulation=d, rgb=rgb, next_styles=s)
        (picture.square().sum() + scaled.cos().sum()).backward()
        gradients.append([value.grad for value in (x, d, rgb, s)])
    for actual, wanted in zip(*gradients, strict=True):
        assert_close(actual, wanted, torch.float64)


def test_random_layers_agree_with_the_reference(compiled: None) -> None:
    torch.manual_seed(3)
    random = np.random.default_rng(3)
    for turn in range(150):
        dtype = DTYPES[random.integers(3)]
        batch, c_in, c_out = 0 if turn % 25 == 0 else int(random.integers(1, 4)), *map(int, random.integers(1, 20, 2))
        size, kernel = random.integers(3, 12, 2).tolist(), random.integers(1, 4, 2).tolist()
        x = torch.randn(batch, c_in, *size).to(dtype)
        last, flat = x.contiguous(memory_format=torch.channels_last), x[:, :1, :1].expand_as(x)
        x = [x, last, x.flip(2)[:, :, :, ::2], flat][random.integers(4)]
        w, s = torch.randn(c_out, c_in, *kernel).to(dtype) / (3 * c_in**0.5), torch.randn(batch, c_in)
        up, down = int(random.integers(1, 4)), int(random.integers(1, 3))
        padding = random.integers(1, 4, 4).tolist()
        f = [FILTER, torch.rand(3), torch.rand(2, 5), None][random.integers(4)]
        arguments = (up, down, padding, f, bool(random.integers(2)), bool(random.integers(2)))
        try:
            expected = ops.modulated_conv2d_ref(x.double(), w.double(), s.double(), None, *arguments)
        except ValueError:  # the filter is larger than the picture
            with pytest.raises(ValueError):
                ops.modulated_conv2d(x, w, s, None, *arguments)
            continue
        assert_close(ops.modulated_conv2d(x, w, s, None, *arguments), expected, dtype)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"x": torch.randn(3, 8, 8)}, "N, C, H, W"),
        ({"weight": torch.randn(4, 5, 3, 3)}, "weight must be"),
        ({"weight": torch.randn(4, 3, 3)}, "weight must be"),
        ({"styles": torch.randn(3, 3)}, "styles must be"),
        ({"styles": torch.randn(2, 4)}, "styles must be"),
        ({"noise": torch.randn(2, 1, 5, 5)}, "noise must be|size"),
        ({"up": 0}, "at least 1"),
        ({"weight": torch.randn(4, 3, 11, 11)}, "smaller than the kernel"),
        ({"padding": -4}, "smaller than the kernel"),
        ({"padding": 1.0}, "whole numbers"),
        ({"weight": torch.empty(4, 3, 3, 3, device="meta")}, "weight must be on the device"),
        ({"noise": torch.empty(1, 1, 8, 8, device="meta")}, "noise must be on the device"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes: dict, words: str, backend: str) -> None:
    arguments = {
        "x": torch.randn(2, 3, 8, 8),
        "weight": torch.randn(4, 3, 3, 3),
        "styles": torch.randn(2, 3),
        "padding": 1,
    }
    with pytest.raises((ValueError, RuntimeError), match=words):
        ops.modulated_conv2d(**{**arguments, **changes})


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rgb": torch.ones(1, 3, 16)}, "rgb must be"),
        ({"rgb": torch.ones(3, 16)}, "rgb must be"),
        ({"rgb": torch.ones(2, 3, 16), "plain": False, "next_styles": torch.ones(2, 16)}, "plain=True"),
        ({"plain": False}, "nothing is asked for"),
        ({"next_styles": torch.ones(1, 16)}, "next_styles must be"),
        ({"bias": torch.ones(1)}, "bias must be"),
        ({"rgb": torch.empty(2, 3, 16, device="meta")}, "rgb must be on the device"),
        ({"bias": torch.empty(16, device="meta")}, "bias must be on the device"),
    ],
)
def test_a_layer_refuses_what_does_not_fit_on_every_path(changes: dict, words: str, backend: str) -> None:
    x, w, s = torch.randn(2, 8, 4, 4), torch.randn(16, 8, 3, 3), torch.ones(2, 8)
    with torch.no_grad(), pytest.raises(ValueError, match=words):
        ops.modulated_layer(x, w, s, padding=1, **changes)


def test_weights_and_noise_as_other_code_passes_them(backend: str) -> None:
    torch.manual_seed(0)
    x, w, s, noise = torch.randn(2, 8, 6, 5), torch.randn(4, 8, 3, 3) / 8, torch.randn(2, 8), torch.randn(6, 5)
    expected = ops.modulated_conv2d_ref(x.double(), w.double(), s.double(), padding=1) + noise
    assert_close(ops.modulated_conv2d(x, w, s, noise, padding=1), expected, torch.float32)
    half = x.bfloat16()  # with float32 parameters
    expected = ops.modulated_conv2d_ref(half.double(), w.double(), s.double(), noise.double(), padding=1)
    result = ops.modulated_conv2d(half, w, s, noise, padding=1)
    assert result.dtype == torch.bfloat16
    assert_close(result, expected, torch.bfloat16)
    packed = ops.pack_weight(w, padding=1)
    with torch.no_grad(), pytest.raises(ValueError, match="packed weight is"):
        ops.modulated_layer(half, packed, s, padding=1)


@pytest.mark.parametrize("padding", [[-4, 3, 0, 0], [0, 0, -6, 4], -1, [-2, 0, 1, -1]])
def test_negative_padding_crops(padding: int | list[int], backend: str) -> None:
    torch.manual_seed(0)
    x, w, s = torch.randn(2, 3, 6, 5), torch.randn(4, 3, 1, 1), torch.randn(2, 3)
    x0, x1, y0, y1 = [padding] * 4 if isinstance(padding, int) else padding
    wide = torch.zeros(2, 3, 26, 25)
    wide[:, :, 10:16, 10:15] = x
    cropped = wide[:, :, 10 - y0 : 16 + y1, 10 - x0 : 15 + x1]
    demodulated = torch.nn.functional.normalize(w[None, :, :, 0, 0] * s[:, None], dim=2)
    expected = torch.einsum("noc,nchw->nohw", demodulated, cropped)
    assert_close(ops.modulated_conv2d(x, w, s, padding=padding), expected, torch.float32)


def test_the_kernel_itself_refuses_what_the_front_would(compiled: None) -> None:
    x = torch.randn(2, 3, 4, 4)
    rest = (0.2, 1.0, -1.0, True)
    for arguments, words in [
        ((x[0], None, 0, 0, None, None, None, None, *rest), "N, C, H, W"),
        ((x, torch.ones(9), 4, 4, None, None, None, None, *rest), "at most 8"),
        ((x, torch.ones(5), 0, 0, None, None, None, None, *rest), "as large as the filter"),
        ((x, None, 0, 0, torch.ones(2, 4), None, None, None, *rest), "demodulation"),
        ((x, None, 0, 0, None, torch.ones(2, 4, 5), None, None, *rest), "noise"),
        ((x, None, 0, 0, None, None, torch.ones(3, 1), None, *rest), "bias"),
        ((x, None, 0, 0, None, None, None, torch.ones(3), *rest), "next_styles"),
        ((x, None, 0, 0, None, None, None, None, 0.2, 1.0, -1.0, False), "nothing is asked for"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.speak.epilogue(*arguments)
    x, rgb, rest = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 16), (0.2, 1.0, -1.0)
    for arguments, words in [
        ((x[0], None, None, None, None, rgb, *rest), "N, C, H, W"),
        ((x[:, :8], None, None, None, None, rgb, *rest), "multiple of 16"),
        ((x, torch.ones(2, 4), None, None, None, rgb, *rest), "demodulation"),
        ((x, None, torch.ones(2, 4, 5), None, None, rgb, *rest), "noise"),
        ((x, None, None, None, None, rgb[:1], *rest), "rgb"),
        ((x, None, None, None, None, rgb.double(), *rest), "rgb"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.speak.epilogue_rgb(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [False, True])
def test_the_epilogue_of_parts_is_that_of_the_whole_image(dtype: torch.dtype, columns: bool, compiled: None) -> None:
    torch.manual_seed(0)
    for channels, height, width in ((16, 9, 11), (48, 65, 3), (16, 3, 301)):
        image = torch.randn(3, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
        if columns:
            parts = (image[:, :, ::2, ::2], image[:, :, 1::2, ::2], image[:, :, ::2, 1::2], image[:, :, 1::2, 1::2])
        else:
            spare = torch.cat([image, torch.full_like(image[..., :1], torch.inf)], 3)  # that nobody may read
            pairs = spare.permute(0, 2, 3, 1).reshape(3, height, (width + 1) // 2, 2 * channels).permute(0, 3, 1, 2)
            parts = (pairs[:, :, ::2], pairs[:, :, 1::2], None, None)
        f, d, z, b, s = torch.rand(4), torch.rand(3, channels), torch.randn(3, height, width), torch.rand(channels), \
            torch.rand(3, channels)  # fmt: skip
        rest = (0.2, 1.4, 2.0, True)
        expected = torch.ops.speak.epilogue(image, as_vector(f, image), 1, 2, *(
            as_vector(v, image) for v in (d, z, b, s)), *rest)  # fmt: skip
        found = torch.ops.speak.epilogue_of_parts(*parts, as_vector(f, image), 1, 2, *(
            as_vector(v, image) for v in (d, z, b, s)), *rest)  # fmt: skip
        for actual, wanted in zip(found, expected, strict=True):
            assert torch.equal(actual, wanted)


def test_the_kernel_refuses_parts_that_are_not_those_of_an_image(compiled: None) -> None:
    even, odd, f = torch.randn(2, 32, 4, 5), torch.randn(2, 32, 3, 5), torch.rand(4)
    columns = (torch.randn(2, 32, 4, 4), torch.randn(2, 32, 3, 4))
    rest = (0.2, 1.0, -1.0, True)
    for arguments, words in [
        ((even[0], odd, None, None, f, 1, 1, None, None, None, None, *rest), "N, C, H, W"),
        ((even, odd[:, :, 1:], None, None, f, 1, 1, None, None, None, None, *rest), "not parts of one image"),
        ((even, odd.double(), None, None, f, 1, 1, None, None, None, None, *rest), "not parts of one image"),
        ((even, odd, columns[0], None, f, 1, 1, None, None, None, None, *rest), "two parts, or four"),
        ((even, odd, *columns[::-1], f, 1, 1, None, None, None, None, *rest), "not parts of one image"),
        ((even[:, :24], odd[:, :24], None, None, f, 1, 1, None, None, None, None, *rest), "multiple of 16"),
        ((even, odd, None, None, f[:3], 1, 1, None, None, None, None, *rest), "taps 4"),
        ((even, odd, None, None, f, -9, 1, None, None, None, None, *rest), "as large as the filter"),
        ((even, odd, *columns, f, 1, 1, torch.rand(2, 16), None, None, None, *rest), "demodulation"),
        ((even, odd, None, None, f, 1, 1, None, torch.rand(2, 6, 6), None, None, *rest), "noise"),
        ((even, odd, None, None, f, 1, 1, None, None, None, None, 0.2, 1.0, -1.0, False), "nothing is asked for"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.speak.epilogue_of_parts(*arguments)
