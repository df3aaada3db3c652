"""What drives: played to any length without a jump, smoothed, followed by time, weakened and strengthened."""

import json
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from speak.config import AnimateConfig, preset
from speak.drivers import Drivers, Taken, as_frames, is_label, parse_emotions, played, smoothed
from speak.errors import SpeakError
from speak.generation import TalkingHead
from speak.media.ffmpeg import executable
from speak.media.image import write_image
from speak.media.video import write_video
from speak.models.speak import Speak
from speak.pose_tables import read_poses
from tests.animate.inputs import untrained
from tests.tolerances import assert_close


def blocks_of(values: Tensor, *sizes: int) -> list[Tensor]:
    """Rows cut into blocks of these sizes, over and over."""
    found, start, turn = [], 0, 0
    while start < len(values):
        found.append(values[start : start + sizes[turn % len(sizes)]])
        start, turn = start + len(found[-1]), turn + 1
    return found


def numbers(stream, count: int) -> list[int]:
    return [int(value) for value in Taken(iter(stream)).take(count)[:, 0]]


@pytest.fixture(scope="module")
def model() -> Speak:
    return untrained()


def drivers(model: Speak, notes: list[str] | None = None, **settings: object) -> Drivers:
    return Drivers(model, preset("tiny").model.image_size, AnimateConfig(**settings), [] if notes is None else notes)


def test_a_short_driver_goes_back_and_forth_one_frame_at_a_time() -> None:
    shown = numbers(played(iter(blocks_of(torch.arange(5.0)[:, None], 2)), "pingpong"), 14)
    assert shown == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]
    long = numbers(played(iter(blocks_of(torch.arange(700.0)[:, None], 16)), "pingpong"), 3000)
    assert {abs(a - b) for a, b in zip(long, long[1:], strict=False)} == {1}
    assert numbers(played(iter([torch.zeros(1, 1)]), "pingpong"), 4) == [0] * 4


def test_a_short_driver_is_held_or_ends() -> None:
    assert numbers(played(iter([torch.arange(3.0)[:, None]]), "hold"), 6) == [0, 1, 2, 2, 2, 2]
    assert numbers(played(iter([torch.arange(3.0)[:, None]]), "cut"), 6) == [0, 1, 2]
    with pytest.raises(SpeakError, match="--driver-end loop: choose pingpong, hold, cut"):
        next(played(iter([]), "loop"))


@pytest.mark.parametrize("sizes", [(1,), (7, 3, 40), (1000,)])
def test_smoothing_is_a_gaussian_whatever_the_blocks(sizes: tuple[int, ...]) -> None:
    values = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    deviation, reach = 2.5, 8
    place = torch.arange(600)[:, None] - torch.arange(600)
    weights = torch.exp(-0.5 * (place / deviation).double() ** 2) * (place.abs() <= reach)
    expected = weights @ values.double() / weights.sum(1, keepdim=True)
    assert_close(torch.cat(list(smoothed(iter(blocks_of(values, *sizes)), deviation))), expected)


def test_no_smoothing_changes_nothing_and_smoothing_takes_noise_out_without_delay() -> None:
    values = torch.randn(50, 2)
    assert torch.equal(torch.cat(list(smoothed(iter(blocks_of(values, 9)), 0.0))), values)
    ramp = torch.arange(60.0)[:, None]
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    result = torch.cat(list(smoothed(iter([ramp + noise]), 3.0)))[12:48] - ramp[12:48]
    assert result.std() < 0.5 * noise.std() and abs(result.mean()) < 0.3


def test_codes_are_taken_in_pieces_of_any_length() -> None:
    taken = Taken(iter(blocks_of(torch.arange(40.0)[:, None], 3, 11)))
    pieces = [taken.take(count) for count in (1, 10, 0, 25, 9, 5)]
    assert [len(piece) for piece in pieces] == [1, 10, 0, 25, 4, 0]
    assert torch.cat(pieces)[:, 0].tolist() == list(range(40))


@pytest.mark.parametrize("rate", ["25", "30000/1001", "24000/1001", "60"])
def test_driving_videos_are_followed_by_time_whatever_their_rate(tmp_path: Path, model: Speak, rate: str) -> None:
    """The picture brightens by a known amount a second; the codes must do the same a thirtieth at a time."""
    path, seconds = tmp_path / "v.mp4", 3.0
    subprocess.run(
        [executable(), "-y", "-loglevel", "error", "-f", "lavfi", "-i",
         f"color=black:s=64x64:r={rate}:d={seconds},geq=lum='40+60*T':cb=128:cr=128", "-crf", "5", str(path)],
        check=True,
    )  # fmt: skip
    stream = drivers(model)._video(path, lambda frames: frames.mean((1, 2, 3))[:, None], (0, 0, 64, 64))
    seen = torch.cat(list(stream))[:, 0]
    assert abs(len(seen) - 30 * seconds) <= 1
    slope = np.polyfit(np.arange(len(seen)) / 30, seen.numpy(), 1)[0]
    assert slope == pytest.approx(60 / 127.5 * 255 / 219, rel=0.02)


def test_a_pose_strength_of_0_is_the_photo_and_of_2_twice_as_far(model: Speak) -> None:
    table = torch.tensor([[10.0, 0, 0, 0, 0, 1], [20, 5, 0, 0, 0, 1]])
    photo = torch.randn(preset("tiny").model.pose.code_dim)

    def codes(strength: float) -> Tensor:
        stream, ends = drivers(model).pose(table, photo, 2, 0, strength)
        assert ends
        return torch.cat(list(stream))

    assert_close(codes(0), photo.expand(2, -1))
    assert_close(codes(1), model.pose_from_numbers(table).detach())
    assert_close(codes(2) - photo, 2 * (codes(1) - photo))


def test_a_pose_video_moves_the_head_from_its_pose_in_the_photo_on(tmp_path: Path, model: Speak) -> None:
    brightness = np.linspace(40, 200, 60).astype(np.uint8)
    write_video(tmp_path / "v.mp4", [np.full((64, 64, 3), value) for value in brightness])
    photo = torch.randn(preset("tiny").model.pose.code_dim)

    def codes(mode: str, strength: float = 1.0) -> Tensor:
        stream, ends = drivers(model).pose(tmp_path / "v.mp4", photo, 60, 0, strength, mode)
        assert ends
        return torch.cat(list(stream))

    given, moved = codes("absolute"), codes("relative")
    assert_close(moved - moved[:1], given - given[:1])  # the same motion
    spread = (given - given.mean(0)).norm(dim=1).mean()
    assert (moved.mean(0) - photo).norm() < 0.1 * spread < 0.1 * (given.mean(0) - photo).norm()
    assert_close(codes("relative", 2.0) - photo, 2 * (moved - photo))
    with pytest.raises(SpeakError, match="choose relative or absolute"):
        codes("sideways")


def test_a_picture_of_a_pose_is_taken_as_it_is(tmp_path: Path, model: Speak) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "p.png", picture)
    photo = torch.randn(preset("tiny").model.pose.code_dim)
    (code,) = drivers(model).pose(tmp_path / "p.png", photo, 1, 0)[0]
    with torch.no_grad():
        assert_close(code, model.encode_pose(as_frames([picture])))


def test_emotions_by_label_go_through_the_prototypes(model: Speak) -> None:
    photo = torch.zeros(preset("tiny").model.emotion.code_dim)

    def code(source: object, strength: float = 1.0) -> Tensor:
        return torch.cat(list(drivers(model).emotion(source, photo, strength)[0]))[0]

    neutral = model.emotion_from_names({"neutral": 1.0})
    happy, sad = model.emotion_from_names({"happy": 1.0}), model.emotion_from_names({"sad": 0.5})
    assert_close(code(None), neutral)
    assert_close(code("happy"), happy)
    assert_close(code("happy", 0.0), neutral)
    assert_close(code("happy", 2.0) - neutral, 2 * (happy - neutral))
    assert_close(code("happy:1,sad:0.5"), happy + sad - neutral)
    assert_close(code({"sad": 0.5}), sad)


def test_natural_motion_stays_about_the_photo_and_depends_on_the_seed(model: Speak) -> None:
    photo = torch.randn(preset("tiny").model.pose.code_dim)

    def codes(seed: int) -> Tensor:
        return torch.cat(list(drivers(model).pose(None, photo, 300, seed)[0]))

    assert torch.equal(codes(1), codes(1)) and not torch.equal(codes(1), codes(2))
    moved = codes(1) - photo
    assert moved.shape == (300, len(photo)) and moved.std(0).max() > 1e-3
    assert (codes(1)[1:] - codes(1)[:-1]).abs().max() < 0.3 * (moved.max(0).values - moved.min(0).values).max()


def test_in_natural_motion_eyes_blink_and_look_about_where_the_weights_know_of_them() -> None:
    blind, seeing = untrained(), untrained()
    width = preset("tiny").model.pose.code_dim
    with torch.no_grad():  # what eyes do goes into numbers of their own
        seeing.pose_mapper.eyes.copy_(100 * torch.eye(width)[:4])

    def codes(model: Speak) -> Tensor:
        return torch.cat(list(drivers(model).pose(None, torch.zeros(width), 300, 1)[0]))

    eyes = (codes(seeing) - codes(blind))[:, :4] / 100
    assert eyes[:, :2].min() >= -1e-4 and eyes[:, :2].max() > 0.6  # ten seconds: a blink or more
    assert 0.02 < (eyes[:, 0] > 0.5).float().mean() < 0.3 and eyes[:, 2].std() > 0.02
    assert torch.equal(codes(seeing)[:, 4:], codes(blind)[:, 4:])


def test_weights_without_controls_hold_the_head_still_and_say_so() -> None:
    plain, notes = untrained(controls=False), []
    photo = torch.randn(preset("tiny").model.pose.code_dim)
    stream, ends = drivers(plain, notes).pose(None, photo, 50, 0)
    assert not ends and torch.equal(next(stream), photo[None]) and "stays as in the photo" in notes[0]
    with pytest.raises(SpeakError, match="cannot take a pose in numbers"):
        drivers(plain).pose(torch.zeros(4, 6), photo, 4, 0)
    with pytest.raises(SpeakError, match="cannot take an emotion by name"):
        drivers(plain).emotion("happy", photo)


def test_a_large_frame_with_a_small_face_is_cropped_to_it(tmp_path: Path, inputs: dict, model: Speak) -> None:
    subprocess.run([executable(), "-y", "-loglevel", "error", "-i", str(inputs["pose"]), "-vf",
                    "scale=200:200,pad=640:360:300:100:gray", str(tmp_path / "wide.mp4")], check=True)  # fmt: skip
    x, y, width, height = drivers(model).driver_box(tmp_path / "wide.mp4", "pose")
    middle_x, middle_y = x + width / 2, y + height / 2
    assert 300 < middle_x < 500 and 100 < middle_y < 300 and 80 <= width <= 300
    assert drivers(model).driver_box(inputs["pose"], "pose") == (0, 0, 64, 64)  # cropped already: all of it
    farther = Drivers(model, 64, AnimateConfig(), [], grow=0.25).driver_box(tmp_path / "wide.mp4", "pose")
    assert farther[2] == pytest.approx(width * 1.5 / 1.2, rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [("hapy", "unknown emotion 'hapy'"), ("happy:1.5", "goes from 0 to 1"), ("happy:x", "is no number"),
     ("happy:nan", "goes from 0 to 1"), ("happy,happy", "is there twice"), ("", "unknown emotion ''")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpeakError, match=message):
        parse_emotions(text)


def test_labels_are_told_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_emotions("happy:0.5, sad") == {"happy": 0.5, "sad": 1.0}
    assert is_label("happy") and is_label("fear:0.2,sad") and not is_label("happy.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "happy").touch()
    assert not is_label("happy")


def test_pose_tables_are_read_by_time(tmp_path: Path) -> None:
    def table(name: str, text: str) -> Tensor:
        (tmp_path / name).write_text(text)
        return read_poses(tmp_path / name)

    bare = table("a.csv", "10,0,0\n20,1,2\n")
    assert bare.tolist() == [[10, 0, 0, 0, 0, 1], [20, 1, 2, 0, 0, 1]]
    timed = table("b.csv", "Time, yaw, scale\n5.0, 0, 1.0\n6.0, 30, 1.3\n")
    assert len(timed) == 31
    assert_close(timed[:, 0], torch.arange(31.0))
    assert_close(timed[:, 5], 1 + torch.arange(31.0) / 100)
    columns = table("c.json", json.dumps({"fps": 15, "yaw": [0, 2, 4], "pitch": [1, 1, 1]}))
    assert_close(columns[:, 0], torch.arange(5.0))
    assert table("d.json", json.dumps([{"yaw": 3}, {"yaw": 4, "roll": 1}]))[1].tolist() == [4, 0, 1, 0, 0, 1]
    assert table("e.json", "[[1,2,3,0.1,0.2,1.1]]").tolist()[0] == pytest.approx([1, 2, 3, 0.1, 0.2, 1.1])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("a.csv", "yaw,pich\n1,2\n", "unknown column 'pich'"), ("a.csv", "yaw\nabc\n", "row 1: yaw is 'abc'"),
     ("a.csv", "1,2\n", "row 1 has 2 numbers"), ("a.csv", "yaw,roll\n1\n", "row 1 has 1 columns"),
     ("a.csv", "time,x\n0,1\n", "no column of angles"), ("a.csv", "time,yaw\n1,0\n1,0\n", "times do not rise"),
     ("a.csv", "yaw\nnan\n", "not a number"), ("a.csv", "yaw\n", "no row of angles"), ("a.json", "{", "is not JSON"),
     ("a.json", '{"yaw": [1], "roll": []}', "different lengths"), ("a.json", '{"fps": 0, "yaw": [1]}', "fps"),
     ("a.json", "[1, 2]", "list of rows"), ("a.csv", "time,yaw\n0,1\n99999999,1\n", "too many")],
)  # fmt: skip
def test_pose_tables_that_do_not_fit_are_refused_with_their_name(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpeakError, match=message) as caught:
        read_poses(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_driving_frames_are_decoded_as_they_are_needed(inputs: dict, model: Speak) -> None:
    asked = []

    def encode(frames: Tensor) -> Tensor:
        asked.append(len(frames))
        return torch.zeros(len(frames), 1)

    four = drivers(model, batch=4)
    stream = four._video(inputs["pose"], encode, four.driver_box(inputs["pose"], "pose"))
    assert asked == [4]  # the first batch shows that there is a picture
    list(islice(stream, 2))
    assert asked == [4, 4]


def test_gradients_are_as_they_were_while_a_video_is_made_and_after_it(head: TalkingHead, inputs: dict) -> None:
    """Two driving videos are read in turns: neither may leave the other's mode behind."""
    video = head.animate(inputs["photo"], inputs["speech"], inputs["pose"], inputs["emotion"])
    next(video)
    assert torch.is_grad_enabled()
    video.close()
    assert torch.is_grad_enabled()


def test_frames_are_scaled_to_the_models_range() -> None:
    picture = np.array([[[0, 255, 51]]], np.uint8)
    assert_close(as_frames([picture]), torch.tensor([-1.0, 1.0, -0.6])[None, :, None, None])
