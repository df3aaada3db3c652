"""The audio encoder against Hugging Face's Wav2Vec2Model, layer by layer and whole, and its own promises."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from speak.config import WAV2VEC2_PRESETS, Wav2Vec2Config, wav2vec2_preset
from speak.foreign_wav2vec2 import WAV2VEC2_HUGGINGFACE, load_wav2vec2
from speak.foreign_weights import upstream_name
from speak.models.wav2vec2 import Wav2Vec2, attention_mask, interpolate, normalised_input
from tests.tolerances import assert_close

SMALL = {"conv_dim": (32,) * 7, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96,
         "num_hidden_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
BASE = {"num_hidden_layers": 2}  # Hugging Face's defaults are wav2vec2-base
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "feat_extract_norm": "layer",
         "do_stable_layer_norm": True, "conv_bias": True, "num_hidden_layers": 2}
SHAPES = {
    "small": SMALL,
    "small, odd position kernel": {**SMALL, "num_conv_pos_embeddings": 15},
    "small, conv bias": {**SMALL, "conv_bias": True},
    "small, layer norm and pre-norm": {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "small, layer norm and post-norm": {**SMALL, "feat_extract_norm": "layer"},
    "small, group norm and pre-norm": {**SMALL, "do_stable_layer_norm": True},
    "base": BASE,
    "large-lv60": LARGE,
}


def speech(seconds: float, batch: int = 1) -> torch.Tensor:
    """Noise whose loudness changes, [B, S]."""
    samples = round(seconds * 16000)
    envelope = torch.sin(torch.arange(samples) / 3000.0).square()
    return torch.randn(batch, samples) * envelope * 0.2


def pair(tmp_path, shape: dict):
    """Hugging Face's model with random weights everywhere, norms and biases included, and ours read from its files."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**shape)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    ours = load_wav2vec2(tmp_path)
    return theirs, Wav2Vec2(dataclasses.replace(ours.config, normalise_input=False)).eval(), ours


def both(tmp_path, shape: dict):
    theirs, ours, loaded = pair(tmp_path, shape)
    ours.load_state_dict(loaded.state_dict())
    return theirs, ours


def upstream_states(theirs, *arguments, **keywords):
    """What enters their first transformer layer and what leaves each, by hooks; then the model's own output."""
    states, hooks = [], []
    layers = theirs.encoder.layers
    hooks.append(layers[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])))
    for layer in layers:
        hooks.append(layer.register_forward_hook(
            lambda _, __, output: states.append(output[0] if isinstance(output, tuple) else output)))
    last = theirs(*arguments, **keywords).last_hidden_state
    for hook in hooks:
        hook.remove()
    return states, last


def assert_layers_agree(theirs, ours, inputs, mask=None, lengths=None):
    with torch.no_grad():
        expected, last = upstream_states(theirs, inputs, attention_mask=mask)
        actual = ours.hidden_states(inputs, lengths=lengths)
        assert_close(ours.extract_features(inputs), theirs.feature_extractor(inputs).transpose(1, 2))
    assert len(actual) == len(expected) == ours.config.layers + 1
    for ours_state, theirs_state in zip(actual[:-1], expected[:-1], strict=True):
        assert_close(ours_state, theirs_state)
    assert_close(actual[-1], last)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_agrees_with_hugging_face(tmp_path, shape):
    theirs, ours = both(tmp_path, SHAPES[shape])
    assert_layers_agree(theirs, ours, speech(1.3))


@pytest.mark.long
def test_every_layer_agrees_with_hugging_face_at_the_full_depth_of_large_lv60(tmp_path):
    theirs, ours = both(tmp_path, {**LARGE, "num_hidden_layers": 24})
    assert_layers_agree(theirs, ours, speech(2.0))


@pytest.mark.parametrize("shape", [name for name in SHAPES if "odd" not in name])
def test_clips_of_unequal_length_agree_with_hugging_face(tmp_path, shape):
    theirs, ours = both(tmp_path, SHAPES[shape])
    lengths = torch.tensor([14400, 9000, 700])
    inside = torch.arange(14400) < lengths[:, None]
    assert_layers_agree(theirs, ours, speech(0.9, batch=3) * inside, inside.long(), lengths)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_agree_with_hugging_face(tmp_path, shape):
    theirs, ours = both(tmp_path, SHAPES[shape])
    lengths = torch.tensor([8000, 5000])
    inside = torch.arange(8000) < lengths[:, None]
    inputs = speech(0.5, batch=2) * inside
    outputs = ours(inputs, lengths=lengths), theirs(inputs, attention_mask=inside.long()).last_hidden_state
    weight = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weight).mean().backward()
    upstream = {key.replace("conv.parametrizations.weight.original0", "conv.weight_g")
                .replace("conv.parametrizations.weight.original1", "conv.weight_v"): parameter.grad
                for key, parameter in theirs.named_parameters()}
    compared = 0
    for key, parameter in ours.named_parameters():
        expected = upstream[upstream_name(key, WAV2VEC2_HUGGINGFACE)]
        # A softmax leaves key biases no gradient, a group norm none to the bias before it: rounding is all there is.
        grouped = ours.config.conv_norm == "group"
        if key.endswith("key.bias") or (grouped and key == "feature_extractor.0.conv.bias"):
            weight_gradient = upstream[upstream_name(key.replace("bias", "weight"), WAV2VEC2_HUGGINGFACE)].abs().max()
            assert max(parameter.grad.abs().max(), expected.abs().max()) < 1e-3 * weight_gradient
        else:
            assert_close(parameter.grad / expected.abs().max(), expected / expected.abs().max())
        compared += 1
    assert compared == len([key for key in upstream if key != "masked_spec_embed"])


def test_input_normalisation_agrees_with_hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    clips = [torch.randn(n).numpy() * 0.03 + 0.01 for n in (5000, 3000, 401)]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    actual = normalised_input(padded, expected["attention_mask"].sum(1))
    assert_close(actual, expected["input_values"] * expected["attention_mask"], torch.float32)


@pytest.mark.parametrize(("preset", "parameters"), [("paper", 94_370_944), ("large_lv60", 315_437_696)])
def test_presets_have_the_published_models_parameters(preset, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in Wav2Vec2(wav2vec2_preset(preset)).parameters()) == parameters


def test_the_default_has_less_than_half_a_million_parameters():
    with torch.device("meta"):
        assert 0.4e6 < sum(p.numel() for p in Wav2Vec2(wav2vec2_preset("default")).parameters()) < 0.5e6


@pytest.mark.parametrize("preset", WAV2VEC2_PRESETS)
def test_every_preset_gives_a_vector_for_each_frame(preset):
    config = wav2vec2_preset(preset)
    with torch.device("meta"):
        model = Wav2Vec2(config)
        assert model(torch.zeros(2, 16000), 30).shape == (2, 30, config.width)


@pytest.mark.parametrize(("vectors", "frames"), [(49, 30), (99, 61), (7, 40), (1, 5), (6, 1), (1, 1), (50, 50)])
def test_interpolation_is_linear_between_the_ends_as_faceformer_does_it(vectors, frames):
    torch.manual_seed(0)
    features = torch.randn(2, vectors, 3, dtype=torch.float64)
    expected = F.interpolate(features.transpose(1, 2), size=frames, mode="linear", align_corners=True).transpose(1, 2)
    actual = interpolate(features, frames)
    assert_close(actual, expected)
    assert torch.equal(actual[:, 0], features[:, 0])
    if frames > 1:
        assert torch.equal(actual[:, -1], features[:, -1])


def test_interpolation_does_not_drift_in_an_hour():
    vectors, frames = 179_999, 108_000
    ramp = torch.arange(vectors, dtype=torch.float64)[None, :, None]
    exact = torch.arange(frames, dtype=torch.float64) * (vectors - 1) / (frames - 1)
    assert (interpolate(ramp, frames)[0, :, 0] - exact).abs().max() < 1e-6


@pytest.mark.parametrize("normalise", [False, True])
def test_a_clip_in_a_padded_batch_equals_the_clip_alone(normalise):
    torch.manual_seed(0)
    model = Wav2Vec2(dataclasses.replace(wav2vec2_preset("tiny"), normalise_input=normalise)).eval()
    lengths, frames = torch.tensor([16000, 9001, 300]), torch.tensor([30, 17, 2])
    batch = speech(1.0, batch=3) * (torch.arange(16000) < lengths[:, None])
    with torch.no_grad():
        together = model(batch, frames, lengths)
        assert together.isfinite().all()
        for i in range(3):
            alone = model(batch[i:i + 1, :lengths[i]], int(frames[i]))
            assert_close(together[i, :frames[i]], alone[0])


def test_samples_behind_the_end_of_a_clip_change_nothing():
    torch.manual_seed(0)
    model = Wav2Vec2(wav2vec2_preset("tiny")).eval()
    lengths, frames = torch.tensor([16000, 9000]), torch.tensor([30, 17])
    batch = speech(1.0, batch=2)
    other = batch.clone()
    other[1, 9000:] = 1.0
    with torch.no_grad():
        assert torch.equal(model(batch, frames, lengths)[1, :17], model(other, frames, lengths)[1, :17])


@pytest.mark.parametrize("window", [0, 1, 3, 100])
def test_local_attention_sees_its_window_and_nothing_else(window):
    allowed = attention_mask(12, window, None, torch.device("cpu"))[0, 0]
    assert all(bool(allowed[i, j]) == (abs(i - j) <= window) for i in range(12) for j in range(12))


def test_speech_beyond_the_reach_of_local_attention_changes_nothing():
    torch.manual_seed(0)
    config = wav2vec2_preset("tiny")
    model = Wav2Vec2(config).eval()
    clip = speech(6.0)
    other = clip.clone()
    other[:, :8000] = 0.3  # frames before the 15th, and a vector or two
    reach = 15 + 2 + config.layers * config.attention_window + config.position_kernel // 2
    with torch.no_grad():
        difference = (model(clip, 180) - model(other, 180))[0].abs().amax(1)
    assert difference[reach:].max() < 1e-6 and difference[:reach - config.position_kernel].min() > 1e-6


def test_a_wide_window_equals_attention_over_the_whole_clip():
    torch.manual_seed(0)
    local = Wav2Vec2(dataclasses.replace(wav2vec2_preset("tiny"), attention_window=1000)).eval()
    whole = Wav2Vec2(dataclasses.replace(local.config, attention_window=None)).eval()
    whole.load_state_dict(local.state_dict())
    with torch.no_grad():
        clip = speech(1.0)
        assert_close(local(clip, 30), whole(clip, 30))


def test_speech_shorter_than_one_vector_is_padded_with_silence():
    torch.manual_seed(0)
    model = Wav2Vec2(wav2vec2_preset("tiny")).eval()
    clip = speech(0.02)
    with torch.no_grad():
        assert_close(model(clip, 1), model(F.pad(clip, (0, 80)), 1))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = Wav2Vec2(dataclasses.replace(wav2vec2_preset("tiny"), dropout=0.3))
    clip = speech(0.5)
    assert not torch.equal(model(clip, 15), model(clip, 15))
    model.eval()
    assert torch.equal(model(clip, 15), model(clip, 15))


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="batch"):
        Wav2Vec2(dataclasses.replace(Wav2Vec2Config(), conv_norm="batch"))
