"""Others' torch.save files: both layouts read as torch reads them, nothing in them run, damage refused in one line."""

import argparse
import collections
import io
import os
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speak import foreign_pickles
from speak.errors import SpeakError

LAYOUTS = {"zip": True, "before torch 1.6": False}


def write(path: Path, content, layout: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def tensors() -> dict:
    torch.manual_seed(0)
    big = torch.randn(6, 7)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool)
    return {**{str(kind): (torch.randn(3, 4) * 50).to(kind) for kind in kinds}, "transposed": big.t(),
            "slice": big[2:4, 1:], "same storage": big, "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3),
            "parameter": nn.Parameter(torch.ones(2)), "expanded": torch.ones(1).expand(5, 5)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_of_every_kind_are_read_as_torch_reads_them(tmp_path, layout):
    path = write(tmp_path / "a.pt", tensors(), layout)
    expected, actual = torch.load(path, weights_only=True), foreign_pickles.load(path)
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype and torch.equal(actual[key], value.detach()), key
    actual["same storage"][2, 1] = 99
    assert actual["slice"][0, 0] == 99  # sharing is kept


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_is_read_with_its_order(tmp_path, layout):
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    loaded = foreign_pickles.load(write(tmp_path / "a.pt", state, layout))
    assert isinstance(loaded, collections.OrderedDict) and list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arguments_of_unknown_classes_can_be_looked_into(tmp_path, layout, monkeypatch):
    module = types.ModuleType("omegaconf")

    class Node:
        def __init__(self, content, parent=None):
            self._content, self._parent, self._metadata = content, parent, {"flags": {}}

    class Leaf:
        def __init__(self, value):
            self._val, self._parent = value, None

    class Choice:
        def __init__(self, value):
            self.value = value

        def __reduce__(self):
            return Choice, (self.value,)

    for kind in (Node, Leaf, Choice):
        kind.__module__, kind.__qualname__ = "omegaconf", kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    root = Node({})
    root._content = {"heads": Leaf(12), "mode": Leaf(Choice("layer_norm")), "inner": Node({"x": Leaf(None)}, root)}
    content = {"cfg": root, "args": argparse.Namespace(a=1, b=argparse.Namespace(c=[1, "x"])), "number": np.float64(2)}
    path = write(tmp_path / "a.pt", content, layout)
    monkeypatch.delitem(sys.modules, "omegaconf")
    loaded = foreign_pickles.load(path)
    assert foreign_pickles.plain(loaded["cfg"]) == {"heads": 12, "mode": "layer_norm", "inner": {"x": None}}
    assert foreign_pickles.plain(loaded["args"]) == {"a": 1, "b": {"c": [1, "x"]}}
    assert "omegaconf" not in sys.modules


class Payload:
    """A pickle of this makes a folder when it is loaded in the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("layout", [*LAYOUTS, "plain pickle"])
def test_a_pickle_that_would_run_code_runs_nothing(tmp_path, layout):
    path, target = tmp_path / "a.pt", tmp_path / "executed"
    content = {"args": Payload(target), "model": {"weight": torch.ones(2)}}
    if layout == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(target), protocol=2))
        with pytest.raises(SpeakError, match="a.pt"):
            foreign_pickles.load(path)
    else:
        loaded = foreign_pickles.load(write(path, content, layout))
        assert isinstance(loaded["args"], foreign_pickles.Inert)
        assert torch.equal(loaded["model"]["weight"], torch.ones(2))
    assert not target.exists()
    pickle.loads(path.read_bytes()) if layout == "plain pickle" else torch.load(path, weights_only=False)
    assert target.exists()  # the payload was a working one


def crafted(path: Path, program: bytes) -> Path:
    """An archive of torch.save whose pickle is `program`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", bytes(16))
    return path


def tensor_program(offset: int, size: int, stride: int, count: int = 4) -> bytes:
    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
            b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuI%d\ntQI%d\n(I%d\nt(I%d\nt\x89NtR."
            % (count, offset, size, stride))


def test_a_crafted_tensor_inside_of_its_storage_is_read(tmp_path):
    loaded = foreign_pickles.load(crafted(tmp_path / "a.pt", tensor_program(1, 3, 1)))
    assert torch.equal(loaded, torch.zeros(3))


@pytest.mark.parametrize("layout", [(2, 3, 1, 4), (-1, 2, 1, 4), (0, 2, -1, 4), (0, 3, 2, 4), (0, 4, 1, 5),
                                    (0, 2**62, 1, 4), (0, 2, 2**62, 4)])
def test_a_tensor_that_reaches_outside_of_its_storage_is_refused(tmp_path, layout):
    with pytest.raises(SpeakError, match="a.pt"):
        foreign_pickles.load(crafted(tmp_path / "a.pt", tensor_program(*layout)))


@pytest.mark.parametrize("program", [
    b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00trueR.",  # reduce with no tuple
    b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.", b"\x80\x02.", b"", b"\x80\x02(lp0\n", b"\x80\x02K\x01Q.",
])
def test_odd_pickles_yield_inert_objects_or_one_line(tmp_path, program):
    path = crafted(tmp_path / "a.pt", program)
    try:
        assert isinstance(foreign_pickles.load(path), foreign_pickles.Inert)
    except SpeakError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file_is_refused_with_its_name(tmp_path, layout):
    path = write(tmp_path / "a.pt", {"weight": torch.randn(100), "name": "x" * 50}, layout)
    data = path.read_bytes()
    for size in range(0, len(data) - 1, len(data) // 40):
        path.write_bytes(data[:size])
        with pytest.raises(SpeakError) as caught:
            foreign_pickles.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_raises_nothing_but_one_line(tmp_path, layout):
    torch.manual_seed(0)
    path = write(tmp_path / "a.pt", {"weight": torch.randn(10), "args": argparse.Namespace(a=[1, 2], b="x")}, layout)
    data, refused = path.read_bytes(), 0
    for _ in range(400):
        damaged = bytearray(data)
        damaged[int(torch.randint(len(data), ()))] = int(torch.randint(256, ()))
        path.write_bytes(damaged)
        try:
            foreign_pickles.load(path)
        except SpeakError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 20


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(SpeakError, match="TorchScript"):
        foreign_pickles.load(path)


def test_a_tar_archive_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(SpeakError, match="not a file of torch.save"):
        foreign_pickles.load(path)


def test_text_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(SpeakError, match="not a file of torch.save"):
        foreign_pickles.load(path)


def test_a_storage_larger_than_the_file_is_refused_before_memory_is_taken(tmp_path):
    path = write(tmp_path / "a.pt", {"weight": torch.randn(100)}, "before torch 1.6")
    data = path.read_bytes()
    assert data.count(b"Kd") >= 1  # pickled 100
    path.write_bytes(data.replace(b"Kd", b"\x8a\x06" + struct.pack("<q", 2**45)[:6], 1))
    with pytest.raises(SpeakError, match="left|lies outside"):
        foreign_pickles.load(path)
