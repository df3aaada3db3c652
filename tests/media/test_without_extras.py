import subprocess
import sys
from pathlib import Path

import numpy as np

from speak.media.prepared import ClipRecord, PreparedWriter

BLOCKED = """
import sys
for name in ("soundfile", "imageio_ffmpeg", "imageio", "dlib"):
    sys.modules[name] = None  # importing it raises ImportError
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_prepared_corpus_is_read_without_soundfile_and_ffmpeg(tmp_path: Path) -> None:
    frames = np.full((3, 16, 16, 3), 90, np.uint8)
    PreparedWriter(tmp_path).write(ClipRecord("a", "p", 0), frames, np.full(1600, 0.5))
    out = run(f"""
from speak.media.prepared import PreparedCorpus
corpus = PreparedCorpus({str(tmp_path)!r})
print(corpus.frames(corpus.clips[0], [2]).shape, round(float(corpus.audio(corpus.clips[0], 5, 6)[0]), 3))
""")
    assert out.strip() == "(1, 16, 16, 3) 0.5"


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"some bytes")
    (tmp_path / "s.wav").write_bytes(b"RIFF    WAVEfmt ")
    out = run(f"""
import speak.prepare, speak.bench_data, speak.datasets.clips
from speak.errors import SpeakError
from speak.media.audio import read_audio
from speak.media.face_detection import DlibDetector, best_detector
from speak.media.video import probe
for call in (lambda: probe({str(tmp_path / "v.mp4")!r}), lambda: read_audio({str(tmp_path / "s.wav")!r}), DlibDetector):
    try:
        call()
    except SpeakError as error:
        print(error)
""")
    assert out.splitlines() == [
        "ffmpeg is not installed: pip install imageio-ffmpeg",
        "soundfile is not installed: pip install soundfile",
        "dlib is not installed: pip install 'speak[faces]'",
    ]
