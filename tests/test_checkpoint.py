"""Our checkpoints: what goes in comes out, nothing half-written, nothing executed, one clear line for each refusal."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speak import checkpoint
from speak.errors import SpeakError
from speak.models.pose_mapper import PoseMapper


def content() -> dict:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return {"stage": "irfd", "config": {"preset": "tiny", "sizes": (1, 2), "window": None}, "step": 7,
            "models": {"E_i": net.state_dict()}, "optimizers": {"E_i": {"state": {0: {"exp_avg": torch.ones(2)}}}},
            "rng": torch.get_rng_state(), "lr": 1e-4, "notes": ["a", True]}


def saved(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(path, {**content(), **changes})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SpeakError) as caught:
        checkpoint.load(path)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line
    return line


def test_what_is_saved_is_loaded(tmp_path):
    loaded = checkpoint.load(saved(tmp_path))
    expected = content()
    assert loaded["format"] == 1 and loaded["step"] == 7 and loaded["lr"] == 1e-4 and loaded["notes"] == ["a", True]
    assert loaded["config"] == expected["config"]
    assert torch.equal(loaded["rng"], expected["rng"])
    assert torch.equal(loaded["optimizers"]["E_i"]["state"][0]["exp_avg"], torch.ones(2))
    for key, value in expected["models"]["E_i"].items():
        assert torch.equal(loaded["models"]["E_i"][key], value)
        assert loaded["models"]["E_i"][key].dtype == value.dtype


def test_the_file_is_readable_by_torch_alone_with_weights_only(tmp_path):
    assert torch.load(saved(tmp_path), weights_only=True)["stage"] == "irfd"


def test_an_optimizer_goes_on_from_a_checkpoint_as_if_uninterrupted(tmp_path):
    torch.manual_seed(1)
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = saved(tmp_path, models={"net": net.state_dict()}, optimizers={"net": optimizer.state_dict()})
    loaded = checkpoint.load(path)
    other = nn.Linear(2, 2)
    checkpoint.load_into(other, loaded["models"]["net"], path)
    again = torch.optim.Adam(other.parameters())
    again.load_state_dict(loaded["optimizers"]["net"])
    for model, steps in ((net, optimizer), (other, again)):
        model.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        steps.step()
    assert torch.equal(net.weight, other.weight)


def test_half_saves_bytes_and_loads_as_float32(tmp_path):
    weight = torch.randn(100, 100)
    small, large = tmp_path / "half.pt", tmp_path / "full.pt"
    models = {"net": {"weight": weight, "count": torch.tensor(5)}}
    checkpoint.save(small, {**content(), "models": models, "ema": {"weight": weight.clone()}}, half=True)
    checkpoint.save(large, {**content(), "models": models, "ema": {"weight": weight.clone()}})
    loaded = checkpoint.load(small)
    assert large.stat().st_size - small.stat().st_size > 19000
    assert loaded["models"]["net"]["weight"].dtype == torch.float32
    assert torch.equal(loaded["models"]["net"]["weight"], weight.half().float())
    assert loaded["models"]["net"]["count"].dtype == torch.int64
    assert torch.equal(loaded["ema"]["weight"], weight)  # only the models are halved


def test_a_weight_too_large_for_half_is_named(tmp_path):
    models = {"net": {"scale": torch.tensor([1e6])}}
    with pytest.raises(SpeakError, match="models.net.scale.*float16"):
        checkpoint.save(tmp_path / "a.pt", {**content(), "models": models}, half=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "key"), [
    ({"a": [1, {"b": np.float64(1.0)}]}, r"extra.a\[1\].b"),
    ({"array": np.zeros(2)}, "extra.array"),
    ({"path": Path("a")}, "extra.path"),
    ({"dtype": torch.float32}, "extra.dtype"),
    ({("a",): 1}, "extra"),
])
def test_anything_but_tensors_and_plain_types_is_refused_with_its_key(tmp_path, value, key):
    with pytest.raises(SpeakError, match=key):
        saved(tmp_path, extra=value)
    assert list(tmp_path.iterdir()) == []


def test_a_view_is_saved_without_the_rest_of_its_storage(tmp_path):
    path = saved(tmp_path, extra=torch.zeros(1_000_000)[:3])
    assert path.stat().st_size < 100_000
    assert torch.equal(checkpoint.load(path)["extra"], torch.zeros(3))


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.pt")


def test_a_folder_is_refused(tmp_path):
    assert "folder" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.pt"
    path.write_bytes(b"")
    assert "empty" in refusal(path)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, part):
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert "truncated" in refusal(path)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path):
    path = tmp_path / "model.pt"
    weight = torch.arange(1000.0)
    checkpoint.save(path, {**content(), "models": {"net": {"weight": weight}}})
    data = bytearray(path.read_bytes())
    data[data.index(weight.numpy().tobytes()) + 401] ^= 1
    path.write_bytes(data)
    assert "checksum" in refusal(path)


def test_random_damage_raises_nothing_but_one_line(tmp_path):
    torch.manual_seed(0)
    path = saved(tmp_path)
    data = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(data)
        damaged[int(torch.randint(len(data), ()))] ^= 1 << int(torch.randint(8, ()))
        path.write_bytes(damaged)
        try:
            checkpoint.load(path)
        except SpeakError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("data", [b"hello, this is text", bytes(range(256)) * 20, b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_checkpoint_is_refused(tmp_path, data):
    path = tmp_path / "other.pt"
    path.write_bytes(data)
    assert "not a checkpoint" in refusal(path) or "truncated" in refusal(path)


class Payload:
    """A pickle of this creates a file when it is loaded in the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("way", ["torch", "old torch", "pickle", "protocol 4"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, way):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    evil = {**content(), "format": 1, "config": {"a": Payload(target)}}
    if way == "pickle":
        path.write_bytes(pickle.dumps(evil["config"]))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=way != "old torch",
                   pickle_protocol=4 if way == "protocol 4" else 2)
    line = refusal(path)
    assert not target.exists()
    reason = {"torch": "mkdir'; nothing was run", "protocol 4": "nothing was run"}
    assert reason.get(way, "not a checkpoint") in line
    torch.load(path, weights_only=False) if way != "pickle" else pickle.loads(path.read_bytes())
    assert target.exists()  # the payload was a working one


def test_another_version_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "new.pt"
    torch.save({**content(), "format": 2}, path)
    assert "format 2" in refusal(path) and "reads 1" in refusal(path)


def test_a_state_dict_alone_is_refused_as_no_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "no 'format'" in refusal(path)


@pytest.mark.parametrize(("key", "value"), [
    ("step", "7"), ("models", [1]), ("models", {"net": {"a": 1}}), ("stage", None),
])
def test_a_wrong_part_is_refused_by_name(tmp_path, key, value):
    path = tmp_path / "part.pt"
    torch.save({**content(), "format": 1, key: value}, path)
    assert f"'{key}" in refusal(path)


def test_load_into_copies_every_value():
    source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source(torch.randn(8, 3))
    checkpoint.load_into(target, source.state_dict(), "a.pt")
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_weights_from_before_eyes_were_told_load_and_have_none():
    before, now = PoseMapper(8, 16), PoseMapper(8, 16)
    now.eyes.data.fill_(1)
    for mapper in (before, now):
        mapper.fitted.fill_(True)
    holder = nn.ModuleDict({"pose_mapper": now})
    state = {f"pose_mapper.{key}": value for key, value in before.state_dict().items() if key != "eyes"}
    checkpoint.load_into(holder, state, "old.pt")
    pose, eyes = torch.randn(3, 6), torch.rand(3, 4)
    assert torch.equal(now(pose, eyes), before(pose))


def test_load_into_names_the_first_key_that_does_not_fit_and_counts():
    state = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)).state_dict()
    target = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    before = target[0].weight.clone()
    with pytest.raises(SpeakError, match=r"w.pt.*lacks '1.bias' \(1 missing, 0 unknown, 0 of another shape, of 4\)"):
        checkpoint.load_into(target, {k: v for k, v in state.items() if k != "1.bias"}, "w.pt")
    with pytest.raises(SpeakError, match=r"unknown 'extra' \(0 missing, 1 unknown"):
        checkpoint.load_into(target, {**state, "extra": torch.zeros(1)}, "w.pt")
    with pytest.raises(SpeakError, match=r"'0.weight' of shape \(4, 2\), not \(4, 3\) .* 1 of another shape"):
        checkpoint.load_into(target, {**state, "0.weight": torch.zeros(4, 2)}, "w.pt")
    assert torch.equal(target[0].weight, before)


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path):
    path = saved(tmp_path)
    before = path.read_bytes()
    program = f"""
import resource, torch
from speak import checkpoint
from speak.errors import SpeakError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
content = {{"stage": "irfd", "config": {{}}, "step": 1, "models": {{"net": {{"weight": torch.zeros(100_000)}}}}}}
try:
    checkpoint.save({str(path)!r}, content)
except SpeakError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent)
    assert str(path) in done.stdout and "not written" in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def interrupted(value, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, step=8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SpeakError, match="folder does not exist"):
        checkpoint.save(tmp_path / "none" / "a.pt", content())


def test_ordered_dictionaries_and_parameters_become_plain(tmp_path):
    path = saved(tmp_path, extra=OrderedDict(a=nn.Parameter(torch.ones(2))))
    names = b"".join(zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist() if "pkl" in name)
    assert b"Parameter" not in names
    loaded = checkpoint.load(path)["extra"]
    assert type(loaded) is dict and type(loaded["a"]) is torch.Tensor and not loaded["a"].requires_grad
