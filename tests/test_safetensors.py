"""Safetensors by hand: upstream reads what we write and the reverse; malformed files are refused with the reason."""

import json
import struct
import warnings
from pathlib import Path

import pytest
import torch

from speak import safetensors
from speak.errors import SpeakError

DTYPES = sorted(safetensors.DTYPES.values(), key=str)


def samples() -> dict[str, torch.Tensor]:
    """A tensor of every dtype with its extremes, an empty one, a 0-d one, a transposed one, names beyond ASCII."""
    torch.manual_seed(0)
    tensors = {}
    for dtype in DTYPES:
        if dtype == torch.bool:
            tensor = torch.tensor([True, False, True])
        elif dtype.is_floating_point or dtype.is_complex:
            tensor = torch.randn(3, 5).to(dtype)
            tensor.view(-1)[0] = torch.finfo(dtype).max
        else:
            limits = torch.iinfo(dtype)
            tensor = torch.tensor([limits.min, limits.max, 7], dtype=dtype)
        tensors[f"tensor.{str(dtype).removeprefix('torch.')}"] = tensor
    return {**tensors, "empty": torch.zeros(0, 4), "empty_half": torch.zeros(2, 0, dtype=torch.float16),
            "scalar": torch.tensor(3.5), "scalar_bool": torch.tensor(True), "transposed": torch.randn(4, 6).t(),
            "näme ✓ \"quoted\"": torch.arange(5, dtype=torch.uint8)}


def assert_same(actual: dict, expected: dict) -> None:
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and actual[name].shape == tensor.shape, name
        flat = (t.contiguous().reshape(-1).view(torch.uint8) for t in (actual[name], tensor))
        assert torch.equal(*flat), name


def test_a_round_trip_keeps_every_dtype_and_shape(tmp_path):
    safetensors.save(tmp_path / "a.safetensors", samples())
    assert_same(safetensors.load(tmp_path / "a.safetensors"), samples())


def test_upstream_reads_what_we_write(tmp_path):
    upstream = pytest.importorskip("safetensors.torch")
    safetensors.save(tmp_path / "a.safetensors", samples())
    assert_same(upstream.load_file(tmp_path / "a.safetensors"), samples())
    with pytest.importorskip("safetensors").safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_we_read_what_upstream_writes(tmp_path):
    upstream = pytest.importorskip("safetensors.torch")
    tensors = {name: tensor.contiguous() for name, tensor in samples().items()}
    upstream.save_file(tensors, tmp_path / "a.safetensors", metadata={"about": "ümläute"})
    assert_same(safetensors.load(tmp_path / "a.safetensors"), samples())


def test_loading_a_large_file_copies_nothing_and_its_tensors_may_be_written(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.save(path, {"a": torch.zeros(1000), "b": torch.ones(3)})
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of read-only memory
        loaded = safetensors.load(path)
    assert loaded["b"].data_ptr() - loaded["a"].data_ptr() == 4000  # both inside of the one mapped file
    loaded["a"] += 1
    assert loaded["a"].sum() == 1000 and path.read_bytes() == before
    path.unlink()
    assert torch.equal(loaded["b"], torch.ones(3))


def test_a_file_without_tensors_is_read(tmp_path):
    safetensors.save(tmp_path / "a.safetensors", {})
    assert safetensors.load(tmp_path / "a.safetensors") == {}


def test_an_unaligned_file_is_read(tmp_path):
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
              "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(header, b"\x07" + struct.pack("<2f", 1.5, -2)))
    loaded = safetensors.load(path)
    assert loaded["a"].item() == 7 and loaded["b"].tolist() == [1.5, -2]


def test_a_dtype_that_the_format_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(SpeakError, match="'a'.*complex128"):
        safetensors.save(tmp_path / "a.safetensors", {"a": torch.zeros(1, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []


def packed(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), begin=0, end=8, **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


GOOD = packed({"a": entry()}, bytes(8))
MALFORMED = {
    "shorter than a length": (b"\x01\x02", "truncated"),
    "header cut": (GOOD[:20], "truncated"),
    "data cut": (GOOD[:-1], "truncated"),
    "header length too short": (packed({"a": entry()}, bytes(8), length=10), "JSON"),
    "header length too long": (packed({"a": entry()}, bytes(8), length=10_000), "wrong header length"),
    "header length beyond the limit": (packed({"a": entry()}, bytes(8), length=2**62), "allowed"),
    "no brace": (packed(b" " + json.dumps({"a": entry()}).encode(), bytes(8)), "does not start with"),
    "not JSON": (packed(b"{'a': 1}"), "JSON"),
    "very deep JSON": (packed(b'{"a":' * 200_000), "JSON"),
    "JSON that goes on": (packed(b"{}{}"), "JSON"),
    "invalid UTF-8": (packed(b'{"\xff\xfe": 1}'), "UTF-8"),
    "a name twice": (packed(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)), "'a' twice"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}, "a": entry()}, bytes(8)), "metadata"),
    "an entry that is a list": (packed({"a": [1]}, bytes(8)), "needs dtype"),
    "no shape": (packed({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "needs dtype"),
    "one key too many": (packed({"a": entry(more=1)}, bytes(8)), "nothing else"),
    "unknown dtype": (packed({"a": entry(dtype="F33")}, bytes(8)), "F33"),
    "dtype not text": (packed({"a": entry(dtype=["F32"])}, bytes(8)), "dtype"),
    "negative offset": (packed({"a": entry(begin=-8, end=0)}, bytes(8)), "offsets"),
    "offset not whole": (packed({"a": entry(end=8.0)}, bytes(8)), "offsets"),
    "negative size": (packed({"a": entry(shape=(-1, -2))}, bytes(8)), "shape"),
    "size that is true": (packed({"a": entry(shape=(True, 2))}, bytes(8)), "shape"),
    "offsets backwards": (packed({"a": entry(begin=8, end=0)}, bytes(8)), "lies at"),
    "offsets beyond the end": (packed({"a": entry(shape=(4,), end=16)}, bytes(8)), "truncated"),
    "shape against offsets": (packed({"a": entry(shape=(3,))}, bytes(8)), "12 bytes, not the 8"),
    "shape that overflows": (packed({"a": entry(shape=(2**62, 4))}, bytes(8)), "not the 8"),
    "overlap": (packed({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "'b' overlaps 'a'"),
    "the same bytes twice": (packed({"a": entry(), "b": entry()}, bytes(8)), "overlaps"),
    "gap": (packed({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), "4 bytes before 'b'"),
    "gap at the start": (packed({"a": entry(begin=4, end=12)}, bytes(12)), "4 bytes before 'a'"),
    "bytes left over": (packed({"a": entry()}, bytes(9)), "1 bytes at the end"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_with_its_name_and_the_reason(tmp_path, case):
    data, reason = MALFORMED[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(SpeakError) as caught:
        safetensors.load(path)
    line = str(caught.value)
    assert str(path) in line and reason in line and "\n" not in line


def test_the_good_file_that_the_malformed_ones_are_made_from_is_read(tmp_path):
    path = tmp_path / "good.safetensors"
    path.write_bytes(GOOD)
    assert safetensors.load(path)["a"].tolist() == [0, 0]


def test_upstream_refuses_nothing_that_we_accept_among_random_damage(tmp_path):
    upstream = pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    path: Path = tmp_path / "a.safetensors"
    safetensors.save(path, {"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.int16)})
    good = path.read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        data[int(torch.randint(len(good) - 20, ()))] = int(torch.randint(256, ()))
        path.write_bytes(data)
        try:
            ours = safetensors.load(path)
        except SpeakError:
            refused += 1
            continue
        assert_same(ours, upstream.load_file(path))
    assert refused > 100
