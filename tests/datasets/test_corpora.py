"""Small trees of the shape that the four corpora have on users' disks, listed and prepared."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speak.config import PrepareConfig
from speak.datasets.corpora import emotion_of, read_boxes, read_corpus
from speak.errors import SpeakError
from speak.media.prepared import PreparedCorpus
from speak.media.video import write_video
from speak.prepare import prepare
from tests.media.generated import ffmpeg


def empty(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder: Path, layout: str) -> dict[str, tuple]:
    found = read_corpus(folder, layout).sources
    return {s.name: (s.identity, s.emotion, s.level, s.view, s.split, s.sound and s.sound.name) for s in found}


def test_mead_in_its_official_form(tmp_path: Path) -> None:
    empty(
        tmp_path, "M003/video/front/angry/level_1/001.mp4", "M003/video/left_30/surprised/level_3/012.mp4",
        "W011/video/down/neutral/level_1/002.mp4", "M003/audio/angry/level_1/001.m4a",
        "M003/audio/surprised/level_3/012.m4a", "M003/audio/sad/level_1/005.m4a",
    )  # fmt: skip
    assert listed(tmp_path, "mead") == {
        "M003#front#angry#level_1#001": ("M003", "angry", 1, "front", None, "001.m4a"),
        "M003#left_30#surprised#level_3#012": ("M003", "surprised", 3, "left_30", None, "012.m4a"),
        "W011#down#neutral#level_1#002": ("W011", "neutral", 1, "down", None, None),
    }


def test_mead_as_real_copies_have_it(tmp_path: Path) -> None:
    empty(
        tmp_path, "M005/1/right_60/contempt/level_2/003.mp4", "M005/2/top/fear/level_2/003.mp4", "M003_neu_1_001.mp4",
        "W009#disgusted#level_3#030.mp4", "flat/W014_sur_3_011.mp4", "readme.mp4", "M007/video/front/.hidden/x.mp4",
    )  # fmt: skip
    assert listed(tmp_path, "mead") == {
        "M005#right_60#contempt#level_2#003": ("M005", "contempt", 2, "right_60", None, None),
        "M005#top#fear#level_2#003": ("M005", "fear", 2, "top", None, None),
        "M003#front#neutral#level_1#001": ("M003", "neutral", 1, "front", None, None),
        "W009#front#disgusted#level_3#030": ("W009", "disgusted", 3, "front", None, None),
        "W014#front#surprised#level_3#011": ("W014", "surprised", 3, "front", None, None),
    }
    assert [Path(path).name for path, _ in read_corpus(tmp_path, "mead").left_out] == ["readme.mp4"]
    # one person's folder given by itself
    assert set(listed(tmp_path / "M005", "mead")) == {"M005#right_60#contempt#level_2#003", "M005#top#fear#level_2#003"}


def test_mead_abbreviations_are_the_eight_emotions() -> None:
    words = {"ang": "angry", "con": "contempt", "dis": "disgusted", "fea": "fear", "hap": "happy", "neu": "neutral",
             "sad": "sad", "sur": "surprised", "Disgust": "disgusted", "surprised": "surprised"}  # fmt: skip
    assert {word: emotion_of(word) for word in words} == words
    assert emotion_of("front") is None and emotion_of("video") is None and emotion_of("angle") is None


def test_voxceleb_in_all_its_forms(tmp_path: Path) -> None:
    empty(
        tmp_path, "mp4/id00012/21Uxsk56VDQ/00001.mp4", "aac/id00012/21Uxsk56VDQ/00001.m4a",
        "txt/id00012/21Uxsk56VDQ/00001.txt", "train/id10001#-x_9#00002.txt#000.mp4",
        "test/id10280#NXjT3732Ekg#001093#001192.mp4", "txt/id10271/abcdefghijk/00003.txt", "videos/abcdefghijk.mp4",
        "txt/id10271/abcdefghijk/00004.txt", "videos/unknown.mp4",
    )  # fmt: skip
    found = listed(tmp_path, "voxceleb")
    assert found == {
        "id00012#21Uxsk56VDQ#00001": ("id00012", None, None, "front", None, "00001.m4a"),
        "id10001#-x_9#00002.txt#000": ("id10001", None, None, "front", "train", None),
        "id10280#NXjT3732Ekg#001093#001192": ("id10280", None, None, "front", "test", None),
        "id10271#abcdefghijk#00003": ("id10271", None, None, "front", "test", None),  # VoxCeleb1's test people
        "id10271#abcdefghijk#00004": ("id10271", None, None, "front", "test", None),
    }
    sources = {source.name: source for source in read_corpus(tmp_path, "voxceleb").sources}
    assert sources["id00012#21Uxsk56VDQ#00001"].boxes and sources["id10271#abcdefghijk#00003"].boxes
    assert sources["id10001#-x_9#00002.txt#000"].cropped
    assert "unknown.mp4" in str(read_corpus(tmp_path, "voxceleb").left_out)


def test_cremad_names_carry_the_labels(tmp_path: Path) -> None:
    empty(
        tmp_path, "VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1002_IEO_HAP_HI.flv",
        "VideoFlash/1003_IEO_SAD_LO.flv", "VideoFlash/1003_IEO_DIS_MD.flv", "VideoDemographics.csv",
        "VideoFlash/1004_TIE_FEA_X.flv", "VideoFlash/intro.flv",
    )  # fmt: skip
    assert listed(tmp_path, "cremad") == {
        "1001_DFA_ANG_XX": ("1001", "angry", None, "front", None, "1001_DFA_ANG_XX.wav"),
        "1002_IEO_HAP_HI": ("1002", "happy", 3, "front", None, None),
        "1003_IEO_SAD_LO": ("1003", "sad", 1, "front", None, None),
        "1003_IEO_DIS_MD": ("1003", "disgusted", 2, "front", None, None),
        "1004_TIE_FEA_X": ("1004", "fear", None, "front", None, None),
    }


def test_hdtf_pieces_belong_to_one_person_and_find_their_sound_and_crop(tmp_path: Path) -> None:
    empty(tmp_path, "RD_Radio1_000.mp4", "audio/RD_Radio1_000.wav", "RD_Radio1_001#1.mp4", "raw/KatieHill_0.mp4")
    (tmp_path / "HDTF_dataset").mkdir()
    (tmp_path / "HDTF_dataset" / "WDA_crop_wh.txt").write_text("KatieHill_0.mp4 384 40 512 512\nbad line\n")
    assert listed(tmp_path, "hdtf") == {
        "RD_Radio1_000": ("RD_Radio1", None, None, "front", None, "RD_Radio1_000.wav"),
        "RD_Radio1_001#1": ("RD_Radio1", None, None, "front", None, None),
        "KatieHill_0": ("KatieHill", None, None, "front", None, None),
    }
    crops = {source.name: source.crop for source in read_corpus(tmp_path, "hdtf").sources}
    assert crops["KatieHill_0"] == (384, 40, 512, 512) and crops["RD_Radio1_000"] is None


def test_a_plain_folder_names_people_by_folder_or_file_and_reads_labels(tmp_path: Path) -> None:
    empty(tmp_path, "anna/one.mov", "anna/two.MP4", "bob.webm", "bob.wav", "face.png", "song.mp3")
    (tmp_path / "labels.csv").write_text(
        "file,emotion,level,view,split,identity\nanna/two.MP4,Happy,3,left_30,test,\nbob.webm,,,,,Robert\n"
    )
    assert listed(tmp_path, "folder") == {
        "anna#one.mov": ("anna", None, None, "front", None, None),
        "anna#two.MP4": ("anna", "happy", 3, "left_30", "test", None),
        "bob.webm": ("Robert", None, None, "front", None, "bob.wav"),
        "face.png": ("face", None, None, "front", None, None),
    }
    assert "song.mp3" in str(read_corpus(tmp_path, "folder").left_out)
    (tmp_path / "labels.csv").write_text("file,emotion\nbob.webm,furious\n")
    with pytest.raises(SpeakError, match="line 2.*furious"):
        read_corpus(tmp_path, "folder")


def test_wrong_folders_and_layouts_are_one_line(tmp_path: Path) -> None:
    for layout in ("voxceleb", "mead", "cremad", "hdtf", "folder"):
        with pytest.raises(SpeakError, match="nothing that looks like"):
            read_corpus(tmp_path, layout)
    with pytest.raises(SpeakError, match="unknown layout"):
        read_corpus(tmp_path, "grid")
    with pytest.raises(SpeakError, match="no such folder"):
        read_corpus(tmp_path / "missing", "mead")


def annotation(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "Identity  : \tid\nReference : \tref\nOffset    : \t1\nFV Conf   : \t2\nASD Conf  : \t3\n\nFRAME X Y W H\n"
    path.write_text(header + "".join("\t".join(str(value) for value in row) + " \n" for row in rows))


def test_voxceleb_annotations_are_read_in_pixels_and_shares(tmp_path: Path) -> None:
    annotation(tmp_path / "a.txt", [("000012", 1, 2, 30, 40), ("000011", 1, 2, 30, 41), ("bad", 1, 2, 3, 4)])
    numbers, boxes = read_boxes(tmp_path / "a.txt")
    assert numbers.tolist() == [11, 12] and boxes[0].tolist() == [1, 2, 30, 41]
    annotation(tmp_path / "b.txt", [])
    with pytest.raises(SpeakError, match="FRAME X Y W H"):
        read_boxes(tmp_path / "b.txt")


def talking(path: Path, person: int, count: int = 50, size: tuple[int, int] = (160, 120), rate: int = 25) -> None:
    """A video with sound whose colour says who is in it, with a white square where the annotation says the face is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.full((size[1], size[0], 3), 40, np.uint8)
    frame[..., person % 3] = 60 + 10 * person
    frame[30:90, 60:120] = 230
    sound = path.with_name("sound.tmp.wav")
    soundfile.write(sound, np.full((round(count / rate * 44100), 2), 0.1), 44100)
    temporary = path.with_name("video.tmp.mp4")
    write_video(temporary, [frame] * count, sound, rate=rate, speed="ultrafast")
    if path.suffix == ".flv":
        ffmpeg("-i", temporary, "-ar", "44100", path)
        temporary.unlink()
    else:
        temporary.rename(path)
    sound.unlink()


def test_the_four_corpora_prepare_to_the_same_labels(tmp_path: Path) -> None:
    """One happy clip (strongest level) and one without a label, the same films in each corpus's tree."""
    whole = {"smallest_face": 10}
    talking(tmp_path / "mead/M003/video/front/happy/level_3/001.mp4", 1)
    talking(tmp_path / "cremad/VideoFlash/1003_DFA_HAP_HI.flv", 1)
    talking(tmp_path / "hdtf/RD_Radio1_000.mp4", 1)
    talking(tmp_path / "voxceleb/mp4/id00012/21Uxsk56VDQ/00001.mp4", 1)
    annotation(tmp_path / "voxceleb/txt/id00012/21Uxsk56VDQ/00001.txt",
               [(frame, 60 / 160, 30 / 120, 60 / 160, 60 / 120) for frame in range(700, 750)])  # fmt: skip
    talking(tmp_path / "folder/anna/happy.mp4", 1)
    (tmp_path / "folder/labels.csv").write_text("file,emotion,level\nhappy.mp4,happiness,3\n")
    clips = {}
    for layout in ("mead", "cremad", "hdtf", "voxceleb", "folder"):
        report = prepare(tmp_path / layout, layout, tmp_path / "out" / layout, PrepareConfig(size=64, **whole),
                         box=(60, 30, 60, 60), workers=1, quiet=True)  # fmt: skip
        assert report.problems == [] and report.clips == 1
        corpus = PreparedCorpus(tmp_path / "out" / layout)
        clips[layout] = corpus.clips[0]
        frames = corpus.frames(corpus.clips[0], [0, 30])
        assert frames.shape == (2, 64, 64, 3)
        assert frames[:, 12:-12, 12:-12].min() > 200  # the square is in the middle of the crop
        assert frames[:, :3].max() < 120
        heard = corpus.audio(corpus.clips[0], 0, 32000)
        assert abs(np.median(heard) - 0.1) < 0.02
    for layout, clip in clips.items():
        # flv counts in milliseconds and starts its picture a coder's delay after its sound
        assert clip.frames == 60 or (layout == "cremad" and clip.frames == 61)
        assert (clip.sound, clip.fps, clip.view, clip.split) == (True, 30, "front", "train"), layout
        assert clip.box == (54, 24, 72, 72), layout
        labelled = layout in ("mead", "cremad", "folder")
        assert (clip.emotion, clip.level) == (("happy", 3) if labelled else (None, None)), layout
        assert clip.box_from == ("annotation" if layout == "voxceleb" else "given box")
    assert [clips[name].identity for name in ("mead", "cremad", "hdtf", "voxceleb", "folder")] == [
        "M003", "1003", "RD_Radio1", "id00012", "anna",
    ]  # fmt: skip
    assert clips["mead"].source == "M003/video/front/happy/level_3/001.mp4"


def test_whole_youtube_videos_are_cut_by_their_annotations(tmp_path: Path) -> None:
    talking(tmp_path / "videos/abcdefghijk.mp4", 1, count=150)
    for utterance, first in (("00001", 10), ("00002", 80)):
        rows = [(frame, 60, 30, 60, 60) for frame in range(first, first + 60)]
        annotation(tmp_path / f"txt/id10271/abcdefghijk/{utterance}.txt", rows)
    config = PrepareConfig(size=64, smallest_face=10)
    report = prepare(tmp_path, "voxceleb", tmp_path / "out", config, workers=1, quiet=True)
    clips = PreparedCorpus(tmp_path / "out").clips
    assert report.made == 2
    assert [clip.name for clip in clips] == ["id10271#abcdefghijk#00001", "id10271#abcdefghijk#00002"]
    assert [clip.frames for clip in clips] == [72, 72] and {clip.split for clip in clips} == {"test"}
    assert [round(clip.start, 3) for clip in clips] == [0.4, 3.2]
    assert all(clip.source == "videos/abcdefghijk.mp4" and clip.box_from == "annotation" for clip in clips)


def test_hdtf_originals_are_cropped_by_the_list_and_take_the_sound_apart(tmp_path: Path) -> None:
    talking(tmp_path / "Radio1_0.mp4", 2)
    ffmpeg("-i", tmp_path / "Radio1_0.mp4", "-an", "-c", "copy", tmp_path / "silent.mp4")
    ffmpeg("-i", tmp_path / "Radio1_0.mp4", "-vn", tmp_path / "Radio1_0.wav")
    (tmp_path / "silent.mp4").replace(tmp_path / "Radio1_0.mp4")
    (tmp_path / "RD_crop_wh.txt").write_text("Radio1_0.mp4 50 20 80 80\n")
    report = prepare(tmp_path, "hdtf", tmp_path / "out", workers=1, quiet=True)
    clip = PreparedCorpus(tmp_path / "out").clips[0]
    assert clip.box == (50, 20, 80, 80) and clip.box_from == "annotation" and clip.sound and report.notes == []
