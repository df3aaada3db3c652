"""`animate` from end to end on rendered people and an untrained model: what users see, hear and find on their disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import speak
from speak import precision
from speak.cli import main
from speak.config import AnimateConfig, with_changes
from speak.errors import SpeakError
from speak.generation import TalkingHead, load
from speak.media.audio import read_audio
from speak.media.image import read_image, write_image
from speak.media.video import VideoReader, probe
from tests.animate.inputs import save_model, untrained


def frames_of(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.stack(list(reader))


def animate(head: TalkingHead, inputs: dict, *without: str, **more: object) -> np.ndarray:
    """Frames [N, H, W, 3] of the four inputs, some left out or exchanged."""
    given = {name: path for name, path in inputs.items() if name not in without} | more
    return np.stack(list(head.animate(given.pop("photo"), given.pop("speech"), **given)))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.fixture(scope="module")
def usual(head: TalkingHead, inputs: dict) -> np.ndarray:
    """The video of all four inputs."""
    return animate(head, inputs)


def arguments(inputs: dict, weights: Path, out: Path) -> list[str]:
    return ["animate", *(str(inputs[name]) for name in ("photo", "speech", "pose", "emotion")), "-o", str(out),
            "--weights", str(weights), "--dtype", "float32"]  # fmt: skip


def test_the_command_makes_a_video_of_the_speechs_length_with_its_sound(
    tmp_path: Path, inputs: dict, weights: Path, usual: np.ndarray, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.mp4"
    assert main(arguments(inputs, weights, out)) == 0
    shown = capsys.readouterr()
    assert "scaled up to 256x256" in shown.err and str(out) in shown.out
    sound = read_audio(inputs["speech"])
    info, frames = probe(out), frames_of(out)
    assert info.rate == 30 and frames.shape[1:] == (256, 256, 3)
    assert len(frames) == -(-len(sound) * 30 // 16000)
    assert difference(frames, usual) < 6  # the coder's loss
    heard = read_audio(out)
    shift = np.correlate(heard[:20000], sound[:16000], "valid").argmax()
    assert shift <= 16 and np.corrcoef(heard[shift : shift + 16000], sound[:16000])[0, 1] > 0.95
    assert b"generated" in out.read_bytes() and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_is_taken_of_the_photo_has_the_photos_detail(tmp_path: Path, inputs: dict, usual: np.ndarray) -> None:
    """Weights for 64x64 pictures: scaled up, nothing of them has a detail of a pixel of 256."""
    model = untrained()
    with torch.no_grad():
        for layer in (*model.photo_warp.move, model.photo_warp.last):
            layer.weight.zero_()
            layer.bias.zero_()
        model.photo_warp.last.bias[4], model.photo_warp.last.bias[5] = 20.0, -20.0
    head = load(save_model(tmp_path / "all.pt", model), "cpu", "float32")
    photo = read_image(inputs["photo"])
    large = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    frames = np.stack([next(head.animate(picture, inputs["speech"])) for picture in (photo, large)])
    assert difference(frames[1], large) < 1 and difference(frames[0], usual[0]) > 5
    head.identity, head.person = torch.zeros(head.config.model.identity.code_dim), head.photo(photo).large[0]
    assert difference(next(head.animate(large, inputs["speech"])), frames[0]) < 1  # of whom it is adapted to


def test_a_photo_is_cropped_as_the_pictures_of_the_training_were(head: TalkingHead) -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    for grow, side in ((0.1, 96), (0.25, 120)):
        config = with_changes(head.config, {"prepare.grow": grow})
        photo = TalkingHead(head.model, config, head.device).photo(picture, box=(160, 110, 80, 80))
        assert photo.face.box == (200 - side // 2, 150 - side // 2, side, side)


@pytest.mark.parametrize(("batch", "chunk"), [(7, 0.4), (1000, 1000.0)])
def test_made_in_pieces_it_is_the_same_video(
    weights: Path, inputs: dict, usual: np.ndarray, batch: int, chunk: float
) -> None:
    other = load(weights, "cpu", "float32", AnimateConfig(batch=batch, audio_chunk=chunk))
    frames = animate(other, inputs)
    assert np.abs(frames.astype(int) - usual).max() <= 1 and (frames != usual).mean() < 1e-3
    assert usual.std(0).mean() > 1  # a still picture would be the same too


def test_the_person_is_fitted_to_the_photo_unless_no_steps_are_wanted(
    tmp_path: Path, inputs: dict, weights: Path, usual: np.ndarray
) -> None:
    read = animate(load(weights, "cpu", "float32", AnimateConfig(identity_steps=0)), inputs)
    assert difference(read, usual) > 1
    out = tmp_path / "out.mp4"
    assert main([*arguments(inputs, weights, out), "--identity-steps", "0"]) == 0
    assert difference(frames_of(out), read) < 6  # the coder's loss


@pytest.mark.parametrize("name", ["photo", "speech", "pose", "emotion"])
def test_every_input_changes_the_video(head: TalkingHead, inputs: dict, usual: np.ndarray, name: str) -> None:
    other = {"photo": np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8),
             "speech": np.random.default_rng(0).normal(0, 0.1, 32000), "pose": inputs["emotion"],
             "emotion": inputs["pose"]}[name]  # fmt: skip
    frames = animate(head, inputs, **{name: other})
    count = min(len(frames), len(usual))
    assert difference(frames[:count], usual[:count]) > 1


def test_the_same_seed_is_the_same_video_and_noise_is_drawn_once(head: TalkingHead, inputs: dict) -> None:
    one, again, other = (animate(head, inputs, "pose", "emotion", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and difference(one, other) > 0.1
    model = untrained()
    with torch.no_grad():
        for layer in model.generator.synthesis.convolutions:
            layer.noise_strength.fill_(1.0)
    loud = TalkingHead(model, head.config, torch.device("cpu"))
    silent = np.zeros(16000, np.float32)
    silent[:1600] = np.random.default_rng(0).normal(0, 0.1, 1600)
    still = animate(loud, inputs, speech=silent, pose=inputs["photo"], emotion="neutral")[15:]
    assert difference(still[1:], still[:-1]) == 0  # nothing drives, so nothing flickers


def test_a_driver_that_ends_is_played_back_held_or_cuts_the_video(
    tmp_path: Path, inputs: dict, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    lengths = {}
    for end in ("pingpong", "hold", "cut"):
        assert main([*arguments(inputs, weights, tmp_path / "v.mp4"), "--driver-end", end]) == 0
        lengths[end] = len(frames_of(tmp_path / "v.mp4")), len(read_audio(tmp_path / "v.mp4")) / 16000
    whole = -(-len(read_audio(inputs["speech"])) * 30 // 16000)
    assert lengths["pingpong"][0] == lengths["hold"][0] == whole
    assert lengths["cut"][0] == 25 and abs(lengths["cut"][1] - 25 / 30) < 0.04  # the emotion video's


def test_pasted_back_the_photo_stays_around_the_face(head: TalkingHead, inputs: dict) -> None:
    small = read_image(inputs["photo"])
    photo = np.random.default_rng(0).integers(90, 110, (300, 400, 3), np.uint8)
    photo[50:178, 100:228] = small
    frames = animate(head, inputs, photo=photo, box=(115, 65, 100, 100), paste_back=True)
    found = head.photo(photo, (115, 65, 100, 100))
    x, y, width, height = found.face.box
    assert frames.shape[1:] == photo.shape
    outside = np.ones(photo.shape[:2], bool)
    outside[y : y + height, x : x + width] = False
    assert (frames[:, outside] == photo[outside]).all() and difference(frames[5], photo) > 1
    edge = frames[:, y, x : x + width].astype(int)
    assert np.abs(edge - photo[y, x : x + width]).max() <= 6  # no seam: the border is the photo's


def test_a_crop_as_high_as_the_photo_is_pasted_back_too(head: TalkingHead, inputs: dict) -> None:
    photo = np.pad(read_image(inputs["photo"]), ((0, 0), (40, 90), (0, 0)), constant_values=128)
    frames = animate(head, inputs, photo=photo, box=(40, 0, 128, 128), paste_back=True)
    assert frames.shape[1:] == photo.shape and (frames[:, :, :40] == 128).all() and difference(frames[9], photo) > 1


def test_from_python_frames_come_one_by_one(weights: Path, inputs: dict, usual: np.ndarray) -> None:
    model = speak.load(weights, dtype="float32")
    video = model.animate(inputs["photo"], inputs["speech"], inputs["pose"], inputs["emotion"])
    assert len(video) == len(usual)
    first = next(video)
    assert first.dtype == np.uint8 and np.array_equal(first, usual[0])
    assert sum(1 for _ in video) == len(usual) - 1


def test_half_precision_looks_the_same_and_auto_takes_it_only_where_it_is_fast(
    weights: Path, inputs: dict, usual: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = animate(load(weights, "cpu", "bfloat16"), inputs)
    assert 0 < difference(frames, usual) < 2
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda fast=fast: fast)
        assert load(weights, "cpu").dtype == dtype
    with pytest.raises(SpeakError, match="--dtype float16: is for GPUs"):
        load(weights, "cpu", "float16")


def test_a_table_makes_many_videos_and_goes_on_after_a_bad_row(
    tmp_path: Path, inputs: dict, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, path in inputs.items():
        os.symlink(path, tmp_path / f"{name}{path.suffix}")
    (tmp_path / "jobs.csv").write_text(
        "photo,speech,pose,emotion,out,seed,pose_mode\n"
        "photo.png,speech.wav,,happy:0.5,a.mp4,1,\n"
        "nobody.png,speech.wav,,,b.mp4,,\n"
        "photo.png,speech.wav,pose.mp4,emotion.mp4,c.mp4,2,\n"
        "photo.png,speech.wav,pose.mp4,emotion.mp4,d.mp4,2,absolute\n"
    )
    assert main(["animate", "--batch", str(tmp_path / "jobs.csv"), "--weights", str(weights)]) == 2
    shown = capsys.readouterr().err
    assert "b.mp4: not made: " in shown and "nobody.png: no such file" in shown and "1 of 4 videos" in shown
    made = sorted(path.name for path in tmp_path.glob("*.mp4"))
    assert made == ["a.mp4", "c.mp4", "d.mp4", "emotion.mp4", "pose.mp4"]
    assert difference(frames_of(tmp_path / "c.mp4"), frames_of(tmp_path / "d.mp4")) > 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [("photo,speech\na,b\n", "no column 'out'"), ("photo,speech,out,mood\na,b,c,d\n", "unknown column 'mood'"),
     ("photo,speech,out\na,b\n", "row 1 has 2 columns"), ("photo,speech,out\na,,c.mp4\n", "row 1: no speech"),
     ("photo,speech,out,seed\na,b,c.mp4,x\n", "seed 'x' does not fit"), ("photo,speech,out\n", "no row"),
     ("photo,speech,out\na,b,c.mp4\na,b,./c.mp4\n", "two rows write")],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "jobs.csv").write_text(text)
    assert main(["animate", "--batch", str(tmp_path / "jobs.csv")]) == 2
    assert message in capsys.readouterr().err


def bad_inputs(folder: Path, inputs: dict) -> dict[str, tuple[list[str], str]]:
    """What is wrong -> arguments and a part of the line that is wanted."""
    photo, sound, pose = (str(inputs[name]) for name in ("photo", "speech", "pose"))
    tone = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(folder / "short.wav", tone[:1600], 16000)
    soundfile.write(folder / "silent.wav", 0 * tone, 16000)
    (folder / "text.wav").write_text("these are words")
    (folder / "text.pt").write_text("these are words")
    (folder / "cut.mp4").write_bytes(inputs["pose"].read_bytes()[:9000])
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "angles.csv").write_text("yaw\nup\n")
    (folder / "folder.mp4").mkdir()
    write_image(folder / "wide.png", np.full((100, 300, 3), 128, np.uint8))
    return {
        "no speech": ([photo], "a photo and speech are wanted"),
        "missing photo": ([str(folder / "no.png"), sound], "no.png: no such file"),
        "missing speech": ([photo, str(folder / "no.wav")], "no.wav: no such file"),
        "missing pose": ([photo, sound, str(folder / "no.mp4")], "no.mp4: no such file"),
        "missing emotion": ([photo, sound, "-", str(folder / "no.mp4")], "no.mp4: no such file"),
        "short speech": ([photo, str(folder / "short.wav")], "0.10 s of speech are too short"),
        "silent speech": ([photo, str(folder / "silent.wav")], "silent.wav: silence throughout"),
        "text as speech": ([photo, str(folder / "text.wav")], "text.wav"),
        "text as photo": ([str(folder / "text.wav"), sound], "text.wav: is no picture"),
        "no face": ([str(folder / "wide.png"), sound], "wide.png: no face found"),
        "box outside": ([photo, sound, "--box", "900,900,10,10"], "is not inside"),
        "box in words": ([photo, sound, "--box", "left"], "write it as x,y,w,h"),
        "corrupt pose": ([photo, sound, str(folder / "cut.mp4")], "cut.mp4"),
        "speech as pose": ([photo, sound, sound], "no picture that can be read"),
        "angles in words": ([photo, sound, str(folder / "angles.csv")], "row 1: yaw is 'up'"),
        "unknown emotion": ([photo, sound, "--emotion", "hapy"], "unknown emotion 'hapy'"),
        "emotion twice": ([photo, sound, pose, pose, "--emotion", "sad"], "there is an emotion video already"),
        "strength": ([photo, sound, "--pose-strength", "9"], "from 0 to 2"),
        "unreadable weights": ([photo, sound, "--weights", str(folder / "text.pt")], "text.pt: not a checkpoint"),
        "no such device": ([photo, sound, "--device", "tpu"], "--device tpu"),
        "missing folder": ([photo, sound, "-o", str(folder / "none" / "o.mp4")], "the folder does not exist"),
        "folder that is a file": ([photo, sound, "-o", photo + "/o.mp4"], "the folder is a file"),
        "folder not writable": ([photo, sound, "-o", "/sys/o.mp4"], "o.mp4: not written"),
        "missing weights": ([photo, sound, "--weights", str(folder / "no.pt")], "no.pt: no such file"),
        "garbage as pose": ([photo, sound, str(folder / "garbage.mp4")], "no picture that can be read"),
        "picture as speech": ([photo, photo], "there is none in the file"),
        "folder as output": ([photo, sound, "-o", str(folder / "folder.mp4")], "is a folder"),
        "other suffix": ([photo, sound, "-o", str(folder / "o.avi")], "is an mp4"),
        "input as output": ([photo, sound, pose, "-o", pose], "is one of the inputs"),
        "fewer than no steps": ([photo, sound, "--identity-steps", "-1"], "--identity-steps -1: at least 0"),
        "no adaptation": ([photo, sound, "--save-adapted", str(folder / "a.pt")], "nothing is adapted"),
    }


def test_bad_input_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, inputs: dict, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    cases = bad_inputs(tmp_path / "in", inputs)
    before = sorted((path.name, path.stat().st_size) for path in (tmp_path / "in").rglob("*"))
    for what, (given, message) in cases.items():
        out = [] if "-o" in given else ["-o", str(tmp_path / "out.mp4")]
        chosen = [] if "--weights" in given else ["--weights", str(weights)]
        assert main(["animate", *given, *out, *chosen]) == 2, what
        shown = capsys.readouterr()
        lines = [line for line in shown.err.splitlines() if line.startswith("speak: ")]
        assert len(lines) == 1 and message in lines[0] and "Traceback" not in shown.err, (what, shown.err)
        assert not (tmp_path / "out.mp4").exists(), what
    assert sorted((path.name, path.stat().st_size) for path in (tmp_path / "in").rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_of_two_faces_one_must_be_chosen(tmp_path: Path, inputs: dict, weights: Path, monkeypatch, capsys) -> None:
    from speak.media import face
    from speak.media.face_detection import Box, Face

    class Two:
        name, tracks = "detector of two", False

        def find(self, picture: np.ndarray) -> list[Face]:
            height, width = picture.shape[:2]
            return [Face(Box(x * width, 0.2 * height, 0.3 * width, 0.4 * height), 1.0) for x in (0.1, 0.6)]

    monkeypatch.setattr(face, "best_detector", Two)
    given = arguments(inputs, weights, tmp_path / "o.mp4")
    assert main(given) == 2
    assert "2 faces" in (line := capsys.readouterr().err) and "--face N" in line
    assert main([*given, "--face", "3"]) == 2
    assert "has no face 3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*given, "--face", "2"]) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path: Path, inputs: dict, weights: Path, how: signal.Signals) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 600 * 16000), 16000)
    given = arguments({**inputs, "speech": tmp_path / "long.wav"}, weights, tmp_path / "o.mp4")
    process = subprocess.Popen([sys.executable, "-m", "speak", *given], stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 60
    partial = []
    while not any(path.stat().st_size for path in partial) and time.monotonic() < deadline and process.poll() is None:
        partial = list(tmp_path.glob(".*.part"))
        time.sleep(0.05)
    assert partial and process.poll() is None
    process.send_signal(how)
    assert process.wait(timeout=120) == 130  # machines may be busy
    assert "Traceback" not in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, inputs: dict, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        assert main(arguments(inputs, weights, disk / "o.mp4")) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "o.mp4: not written" in line and ("full" in line or "space" in line)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_importing_the_package_is_light() -> None:
    code = "import sys, speak; print(speak.load is not None, 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


@pytest.mark.long
def test_memory_does_not_grow_with_the_speech(tmp_path: Path, inputs: dict) -> None:
    """Peak memory of three minutes within 5 % of that of ten seconds."""
    save_model(tmp_path / "m.pt", untrained())
    peaks = []
    for seconds in (10, 180):
        sound = np.random.default_rng(0).normal(0, 0.1, seconds * 16000)
        soundfile.write(tmp_path / "s.wav", sound, 16000)
        code = ("import sys, resource; from speak.cli import main; status = main(sys.argv[1:]); "
                "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")  # fmt: skip
        given = arguments({**inputs, "speech": tmp_path / "s.wav"}, tmp_path / "m.pt", tmp_path / "o.mp4")
        done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True)
        status, peak = map(int, done.stdout.split()[-2:])
        assert status == 0
        peaks.append(peak)
    assert peaks[1] <= 1.05 * peaks[0], peaks
