"""Others' wav2vec 2.0: whatever Hugging Face and fairseq store gives the outputs of Hugging Face's own model."""

import argparse
import dataclasses
import json
import os
import sys
import types

import pytest
import torch

from speak import safetensors
from speak.errors import SpeakError
from speak.foreign_wav2vec2 import load_wav2vec2
from tests.tolerances import assert_close

transformers = pytest.importorskip("transformers")

# Widths that the released models' habits fit (64 channels a head), so that the shape can be inferred from the tensors.
POST_NORM = {"conv_dim": (32,) * 7, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 96,
             "num_hidden_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
PRE_NORM = {**POST_NORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SHAPES = {"base-like": POST_NORM, "large-lv60-like": PRE_NORM}


def upstream(shape: dict, kind: str = "Wav2Vec2Model"):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.Wav2Vec2Config(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def assert_same_outputs(path, model, normalised: bool = True) -> None:
    ours = load_wav2vec2(path)
    assert ours.config.normalise_input is normalised and not ours.training
    ours.config = dataclasses.replace(ours.config, normalise_input=False)
    torch.manual_seed(1)
    speech = torch.randn(1, 8000) * 0.1
    with torch.no_grad():
        assert_close(ours(speech), getattr(model, "wav2vec2", model)(speech).last_hidden_state)


def old_spelling(state: dict) -> dict:
    return {key.replace("parametrizations.weight.original0", "weight_g")
            .replace("parametrizations.weight.original1", "weight_v"): value for key, value in state.items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining",
                                  "Wav2Vec2ForSequenceClassification"])
def test_hugging_face_folders_pretrained_and_fine_tuned(tmp_path, shape, kind):
    model = upstream(SHAPES[shape], kind)
    model.save_pretrained(tmp_path)
    assert_same_outputs(tmp_path, model)
    assert_same_outputs(tmp_path / "model.safetensors", model)


@pytest.mark.parametrize("spelling", [dict, old_spelling], ids=["parametrizations", "weight_g"])
@pytest.mark.parametrize("layout", ["bin", "bin before torch 1.6", "safetensors"])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_spellings_of_the_weight_norm_in_every_file_format(tmp_path, shape, layout, spelling):
    model = upstream(SHAPES[shape])
    state = spelling(model.state_dict())
    assert any("weight_g" in key for key in state) == (spelling is old_spelling)
    if layout == "safetensors":
        safetensors.save(tmp_path / "model.safetensors", state)
    else:
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=layout == "bin")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    assert_same_outputs(tmp_path, model)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_config_the_shape_is_inferred_from_the_tensors(tmp_path, shape):
    model = upstream(SHAPES[shape])
    path = tmp_path / "renamed.anything"
    safetensors.save(path, model.state_dict())
    assert_same_outputs(path, model)


def test_a_config_tells_what_shapes_cannot(tmp_path):
    model = upstream({**POST_NORM, "num_attention_heads": 8, "do_stable_layer_norm": True,
                      "conv_stride": (4, 3, 2, 2, 2, 2, 2)})
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert_same_outputs(tmp_path, model, normalised=False)


def test_half_precision_weights_become_float32(tmp_path):
    model = upstream(POST_NORM).half()
    model.save_pretrained(tmp_path)
    ours = load_wav2vec2(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert torch.equal(ours.projection.weight, model.feature_projection.projection.weight.float())


def test_an_unknown_key_is_named(tmp_path):
    state = {**upstream(POST_NORM).state_dict(), "encoder.layers.0.adapter_layer.norm.weight": torch.ones(3)}
    safetensors.save(tmp_path / "model.safetensors", state)
    with pytest.raises(SpeakError, match="model.safetensors: unknown key 'encoder.layers.0.adapter_layer.norm.weight'"):
        load_wav2vec2(tmp_path)


def test_a_missing_key_is_named(tmp_path):
    state = upstream(POST_NORM).state_dict()
    del state["encoder.layers.1.feed_forward.output_dense.bias"]
    safetensors.save(tmp_path / "model.safetensors", state)
    with pytest.raises(SpeakError, match="lacks the key 'encoder.layers.1.feed_forward.output_dense.bias'"):
        load_wav2vec2(tmp_path)


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    state = upstream(POST_NORM).state_dict()
    state["encoder.layers.1.attention.k_proj.bias"] = torch.zeros(5)
    safetensors.save(tmp_path / "model.safetensors", state)
    with pytest.raises(SpeakError, match=r"'layers.1.key.bias' of shape \(5,\), not \(128,\)"):
        load_wav2vec2(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("hidden_act", "relu"), ("model_type", "hubert"), ("add_adapter", True)])
def test_a_config_that_is_not_built_here_is_refused_by_field(tmp_path, name, value):
    upstream(POST_NORM).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(SpeakError, match=f"config.json: {name} is {value!r}"):
        load_wav2vec2(tmp_path)


@pytest.mark.parametrize("content", [{"a": torch.ones(1)}, [torch.ones(1)], {"model": {"b": torch.ones(1)}}, {}])
def test_other_weights_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(SpeakError) as caught:
        load_wav2vec2(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(SpeakError, match="no model.safetensors"):
        load_wav2vec2(tmp_path)


def test_local_attention_can_be_asked_for(tmp_path):
    upstream(PRE_NORM).save_pretrained(tmp_path)
    assert load_wav2vec2(tmp_path).config.attention_window is None
    assert load_wav2vec2(tmp_path, attention_window=25).config.attention_window == 25


# fairseq's name of each of Hugging Face's tensors, written out from fairseq's modules (wav2vec2.py): a conv layer is
# Sequential(conv, dropout, norm, GELU), its layer norm Sequential(transpose, norm, transpose).
def fairseq_state(model, grouped: bool) -> dict:
    names = {"feature_projection.layer_norm": "layer_norm", "feature_projection.projection": "post_extract_proj",
             "encoder.pos_conv_embed.conv": "encoder.pos_conv.0", "encoder.layer_norm": "encoder.layer_norm"}
    for i in range(7):
        theirs, ours = f"feature_extractor.conv_layers.{i}", f"feature_extractor.conv_layers.{i}"
        names[f"{theirs}.conv"] = f"{ours}.0"
        names[f"{theirs}.layer_norm"] = f"{ours}.2" if grouped else f"{ours}.2.1"
    for i in range(2):
        layer = f"encoder.layers.{i}."
        names.update({f"{layer}attention.{p}_proj": f"{layer}self_attn.{p}_proj" for p in ("k", "v", "q", "out")})
        names.update({f"{layer}layer_norm": f"{layer}self_attn_layer_norm",
                      f"{layer}feed_forward.intermediate_dense": f"{layer}fc1",
                      f"{layer}feed_forward.output_dense": f"{layer}fc2",
                      f"{layer}final_layer_norm": f"{layer}final_layer_norm"})
    state = {}
    for key, value in old_spelling(model.state_dict()).items():
        if key != "masked_spec_embed":
            module, leaf = key.rsplit(".", 1)
            state[f"{names[module]}.{leaf}"] = value
    assert len(state) == len(model.state_dict()) - 1
    pretraining = {"mask_emb": torch.ones(128), "quantizer.vars": torch.ones(1, 8, 4), "final_proj.bias": torch.ones(4),
                   "quantizer.weight_proj.weight": torch.ones(8, 32), "project_q.weight": torch.ones(4, 8)}
    return {"mask_emb": pretraining.pop("mask_emb"), **state, **pretraining}


CONV = "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] * 2"


def arguments(pre_norm: bool) -> dict:
    return {"arch": "wav2vec2", "extractor_mode": "layer_norm" if pre_norm else "default", "encoder_layers": 2,
            "encoder_attention_heads": 2, "layer_norm_first": pre_norm, "conv_bias": pre_norm,
            "conv_feature_layers": CONV, "activation_fn": "gelu", "latent_temp": (2, 0.5, 0.999995)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fairseq_with_a_pickled_namespace(tmp_path, shape, zipped):
    model, pre_norm = upstream(SHAPES[shape]), shape != "base-like"
    content = {"args": argparse.Namespace(**arguments(pre_norm), normalize=pre_norm), "cfg": None,
               "model": fairseq_state(model, not pre_norm), "extra_state": {"epoch": 3},
               "optimizer_history": [{"criterion_name": "Wav2vecCriterion"}]}
    path = tmp_path / "wav2vec.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same_outputs(path, model, normalised=pre_norm)


@pytest.mark.parametrize("inner", ["namespace", "cfg"])
def test_fairseq_fine_tuned_with_the_pretraining_arguments_inside(tmp_path, inner):
    model = upstream(PRE_NORM)
    state = {f"w2v_encoder.w2v_model.{key}": value for key, value in fairseq_state(model, False).items()
             if not key.startswith(("quantizer", "project_q", "final_proj"))}
    state = {**state, "w2v_encoder.proj.weight": torch.ones(32, 128), "w2v_encoder.proj.bias": torch.ones(32)}
    pretraining = argparse.Namespace(**arguments(True)) if inner == "namespace" else {"model": arguments(True)}
    content = {"args": None, "model": state, "cfg": {
        "model": {"_name": "wav2vec_ctc", "w2v_args": pretraining}, "task": {"normalize": True}}}
    path = tmp_path / "wav2vec_960h.pt"
    torch.save(content, path)
    assert_same_outputs(path, model)


def test_fairseq_with_classes_that_are_not_installed_and_code_that_is_not_run(tmp_path, monkeypatch):
    model, target = upstream(PRE_NORM), tmp_path / "executed"

    class DictConfig:
        def __init__(self, content):
            self._content, self._parent = content, None

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    fake = types.ModuleType("omegaconf.dictconfig")
    fake.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", fake)
    path = tmp_path / "new.pt"
    task = DictConfig({"normalize": True})
    torch.save({"cfg": DictConfig({"model": DictConfig(arguments(True)), "task": task}),
                "task_state": Payload(), "model": fairseq_state(model, False)}, path)
    monkeypatch.delitem(sys.modules, "omegaconf.dictconfig")
    assert_same_outputs(path, model)
    assert not target.exists()


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "[(1, 2)]", "[(1, 2, 3)] * 10**9", "((", "5"])
def test_fairseq_convolutions_are_read_and_not_run(tmp_path, text):
    content = {"args": argparse.Namespace(**{**arguments(True), "conv_feature_layers": text}),
               "model": fairseq_state(upstream(PRE_NORM), False)}
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(SpeakError, match="conv_feature_layers"):
        load_wav2vec2(path)


def test_fairseq_without_arguments_is_inferred_from_the_tensors(tmp_path):
    model = upstream(POST_NORM)
    path = tmp_path / "a.pt"
    torch.save({"model": fairseq_state(model, True)}, path)
    assert_same_outputs(path, model, normalised=False)
