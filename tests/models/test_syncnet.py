"""SyncNet: windows in time, our net, the published layout, and the speech features against their upstream."""

import numpy as np
import pytest
import torch

from speak.config import SAMPLE_RATE, preset, sample_of_frame
from speak.models.speech_features import hertz_to_mel, log_mel, mfcc
from speak.models.syncnet import WINDOW_SAMPLES, PublishedSyncNet, SyncNet, speech_windows, video_windows
from tests.tolerances import assert_close

TINY = preset("tiny").model.syncnet

# The layers of syncnet_v2.model: place in its sequence -> shape of the weight.
PUBLISHED = {
    "netcnnaud": {
        0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3), 14: (256, 256, 3, 3),
        18: (512, 256, 5, 4), 1: (64,), 5: (192,), 9: (384,), 12: (256,), 15: (256,), 19: (512,),
    },
    "netcnnlip": {
        0: (96, 3, 5, 7, 7), 4: (256, 96, 1, 5, 5), 8: (256, 256, 1, 3, 3), 11: (256, 256, 1, 3, 3),
        14: (256, 256, 1, 3, 3), 18: (512, 256, 1, 6, 6), 1: (96,), 5: (256,), 9: (256,), 12: (256,), 15: (256,),
        19: (512,),
    },
    "netfcaud": {0: (512, 512), 1: (512,), 3: (1024, 512)},
    "netfclip": {0: (512, 512), 1: (512,), 3: (1024, 512)},
}  # fmt: skip


def test_a_window_holds_five_frames_and_the_speech_of_the_same_time() -> None:
    frames = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 3, 2, 2)
    speech = torch.arange(float(sample_of_frame(8)))[None]
    video, audio = video_windows(frames), speech_windows(speech, 8)
    assert video.shape == (1, 4, 5, 3, 2, 2) and audio.shape == (1, 4, WINDOW_SAMPLES)
    for window in range(4):
        assert video[0, window, :, 0, 0, 0].tolist() == list(range(window, window + 5))
        assert audio[0, window, 0] == round(window * SAMPLE_RATE / 30)
    assert abs(WINDOW_SAMPLES - 5 * SAMPLE_RATE / 30) < 1


@pytest.mark.parametrize("frames", [1, 4])
def test_a_clip_too_short_for_a_window_has_none(frames: int) -> None:
    net = SyncNet(TINY)
    video = net.embed_video(video_windows(torch.zeros(2, frames, 3, 64, 64)))
    audio = net.embed_audio(speech_windows(torch.zeros(2, sample_of_frame(frames)), frames))
    assert video.shape == audio.shape == (2, 0, TINY.embedding_dim)


def test_speech_that_ends_early_is_followed_by_silence() -> None:
    windows = speech_windows(torch.ones(1, 3000), 8)
    assert windows[0, -1].sum() == 3000 - round(3 * SAMPLE_RATE / 30)


def test_embeddings_have_unit_length_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    net = SyncNet(TINY)
    video = net.embed_video(torch.rand(2, 3, 5, 3, 64, 64))
    audio = net.embed_audio(torch.randn(2, 3, WINDOW_SAMPLES) * 0.1)
    assert video.shape == audio.shape == (2, 3, TINY.embedding_dim)
    assert_close(video.norm(dim=-1), torch.ones(2, 3))
    assert_close(audio.norm(dim=-1), torch.ones(2, 3))
    (video - audio).square().sum(-1)[0, 0].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_only_the_lower_half_of_the_face_is_read_in_the_order_of_its_frames() -> None:
    torch.manual_seed(0)
    net = SyncNet(TINY)
    windows = torch.rand(1, 5, 3, 128, 128)
    expected = net.embed_video(windows)
    upper = windows.clone()
    upper[..., :64, :] = 0
    assert_close(net.embed_video(upper), expected)
    assert (net.embed_video(windows.flip(1)) - expected).abs().max() > 1e-4


def test_silence_is_a_speech_like_any_other() -> None:
    torch.manual_seed(0)
    silence = SyncNet(TINY).embed_audio(torch.zeros(1, WINDOW_SAMPLES))
    assert silence.isfinite().all()
    assert log_mel(torch.zeros(1, 1600), 40).abs().max() < 4


def test_the_published_layout_is_that_of_the_checkpoint() -> None:
    with torch.device("meta"):
        state = PublishedSyncNet().state_dict()
    expected = {}
    for net, layers in PUBLISHED.items():
        for place, shape in layers.items():
            expected[f"{net}.{place}.weight"] = shape
            expected[f"{net}.{place}.bias"] = shape[:1]
            if len(shape) == 1:
                for name in ("running_mean", "running_var"):
                    expected[f"{net}.{place}.{name}"] = shape
                expected[f"{net}.{place}.num_batches_tracked"] = ()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_the_published_net_takes_the_published_inputs() -> None:
    torch.manual_seed(0)
    net = PublishedSyncNet().eval()
    with torch.no_grad():
        video = net.embed_video(torch.rand(1, 3, 5, 224, 224) * 255)
        audio = net.embed_audio(torch.randn(1, 1, 13, 20))
    assert video.shape == audio.shape == (1, 1024)
    assert video.isfinite().all() and audio.isfinite().all()


@pytest.mark.parametrize("samples", [400, 401, 4000, 16000])
def test_mfcc_are_those_of_python_speech_features(samples: int) -> None:
    upstream = pytest.importorskip("python_speech_features")
    integers = np.random.default_rng(samples).integers(-3000, 3000, samples).astype(np.int16)
    integers[: samples // 3] = 0  # silence has its own rule: a small number in place of zero
    found = mfcc(torch.from_numpy(integers / 32768))
    expected = torch.from_numpy(upstream.mfcc(integers, SAMPLE_RATE).T.copy())
    assert_close(found, expected)


def test_a_pure_tone_lights_its_own_mel_band() -> None:
    for hertz in (300, 1000, 3000):
        tone = torch.sin(2 * torch.pi * hertz * torch.arange(8000) / SAMPLE_RATE)
        picture = log_mel(tone, 40)
        assert picture.shape == (40, 51)
        place = hertz_to_mel(hertz) / hertz_to_mel(SAMPLE_RATE / 2) * 41 - 1  # in bands
        assert abs(int(picture[:, 25].argmax()) - place) <= 1
