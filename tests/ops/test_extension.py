"""Finding the compiled library, and the one setting: auto, reference, compiled."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from speak import SpeakError, ops
from speak.ops import extension

ROOT = Path(__file__).parent.parent.parent
MISSING = extension.Library(None, "the package was installed without a compiler")


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "LIBRARY", MISSING)
    monkeypatch.setattr(extension, "_told", set())


def test_auto_without_a_library_gives_the_reference_and_says_why_once(without_library: None) -> None:
    x, b = torch.randn(2, 3), torch.randn(3)
    with pytest.warns(UserWarning, match="plain PyTorch.*without a compiler"):
        y = ops.bias_act(x, b, act="lrelu")
    assert torch.equal(y, ops.bias_act_ref(x, b, act="lrelu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.upfirdn2d(torch.randn(1, 1, 4, 4), torch.ones(2))


def test_compiled_where_there_is_none_is_an_error(without_library: None) -> None:
    with ops.backend("compiled"), pytest.raises(SpeakError, match="bias_act has no compiled kernel.*compiler"):
        ops.bias_act(torch.randn(2, 3))


def test_compiled_for_a_dtype_without_a_kernel_is_an_error(compiled: None) -> None:
    with pytest.raises(SpeakError, match="float16 is not compiled for CPU"):
        ops.bias_act(torch.randn(2, 3).half())
    with pytest.raises(SpeakError, match="activation tanh"):
        ops.bias_act(torch.randn(2, 3), act="tanh")


def test_reference_never_calls_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a kernel was asked for")

    monkeypatch.setattr(extension, "why_not_compiled", refuse)
    with ops.backend("reference"):
        ops.modulated_conv2d(torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3), torch.randn(1, 2), padding=1)


def test_an_unknown_backend_is_refused_and_the_setting_kept() -> None:
    before = ops.get_backend()
    with pytest.raises(SpeakError, match="auto, reference, compiled"):
        ops.set_backend("cuda")
    assert ops.get_backend() == before


@pytest.mark.parametrize(
    "content, words",
    [
        (b"no tag at all", "is stale"),
        (b"..speak_kernels_build{speak-kernels-0;torch=2.0;cuda=none}..", "speak-kernels-0, wanted"),
        (f"speak_kernels_build{{{extension.KERNELS_TAG};torch=2.13;cuda=none}}".encode(), "cannot be loaded"),
        (b"", "cannot be loaded"),
    ],
)
def test_a_stale_or_broken_library_is_refused_with_the_reason(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "speak_kernels.abi3.so"
    file.write_bytes(content)
    monkeypatch.setattr(
        extension.importlib.util, "find_spec", lambda _: dataclasses.make_dataclass("S", ["origin"])(str(file))
    )
    library = extension.find_library()
    assert library.missing and words in library.missing


def test_the_library_is_found_from_a_clone(compiled: None, tmp_path: Path) -> None:
    code = "import speak, speak.ops; print(speak.__file__); print(speak.ops.LIBRARY.missing)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    where, missing = done.stdout.split()
    assert Path(where).is_relative_to(ROOT) and missing == "None"


def test_importing_speak_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "scipy", "imageio", "soundfile"]
    code = f"import sys, speak, speak.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
