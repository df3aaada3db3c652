"""Others' wav2vec 2.0 into ours: Hugging Face and fairseq, pretrained or fine-tuned, by written key maps."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speak import foreign_pickles
from speak.config import Wav2Vec2Config
from speak.errors import SpeakError
from speak.foreign_weights import KeyMap, load, read, upstream_name
from speak.media.files import check_readable
from speak.models.wav2vec2 import NORM_EPSILON, Wav2Vec2

# layers.3.query.weight           <- encoder.layers.3.attention.q_proj.weight
# feature_extractor.0.norm.weight <- feature_extractor.conv_layers.0.layer_norm.weight
WAV2VEC2_HUGGINGFACE: KeyMap = (
    ("feature_extractor.{i}.conv.", "feature_extractor.conv_layers.{i}.conv."),
    ("feature_extractor.{i}.norm.", "feature_extractor.conv_layers.{i}.layer_norm."),
    ("feature_norm.", "feature_projection.layer_norm."),
    ("projection.", "feature_projection.projection."),
    ("position.", "encoder.pos_conv_embed.conv."),
    ("norm.", "encoder.layer_norm."),
    ("layers.{i}.query.", "encoder.layers.{i}.attention.q_proj."),
    ("layers.{i}.key.", "encoder.layers.{i}.attention.k_proj."),
    ("layers.{i}.value.", "encoder.layers.{i}.attention.v_proj."),
    ("layers.{i}.output.", "encoder.layers.{i}.attention.out_proj."),
    ("layers.{i}.attention_norm.", "encoder.layers.{i}.layer_norm."),
    ("layers.{i}.expand.", "encoder.layers.{i}.feed_forward.intermediate_dense."),
    ("layers.{i}.contract.", "encoder.layers.{i}.feed_forward.output_dense."),
    ("layers.{i}.feed_forward_norm.", "encoder.layers.{i}.final_layer_norm."),
)
# What pretraining and fine-tuning leave beside the encoder; its own keys then start with `wav2vec2.`.
WAV2VEC2_HUGGINGFACE_IGNORED = (
    "masked_spec_embed", "lm_head.", "quantizer.", "project_hid.", "project_q.", "projector.", "classifier.",
    "layer_weights",
)
# The newer spelling of the weight norm -> the older one.
WEIGHT_NORM = {"conv.parametrizations.weight.original0": "conv.weight_g",
               "conv.parametrizations.weight.original1": "conv.weight_v"}

# layers.3.query.weight           <- encoder.layers.3.self_attn.q_proj.weight
# feature_extractor.0.norm.weight <- feature_extractor.conv_layers.0.2.weight     (group norm)
# feature_extractor.0.norm.weight <- feature_extractor.conv_layers.0.2.1.weight   (layer norm)
WAV2VEC2_FAIRSEQ: KeyMap = (
    ("feature_extractor.{i}.conv.", "feature_extractor.conv_layers.{i}.0."),
    ("feature_norm.", "layer_norm."),
    ("projection.", "post_extract_proj."),
    ("position.", "encoder.pos_conv.0."),
    ("norm.", "encoder.layer_norm."),
    ("layers.{i}.query.", "encoder.layers.{i}.self_attn.q_proj."),
    ("layers.{i}.key.", "encoder.layers.{i}.self_attn.k_proj."),
    ("layers.{i}.value.", "encoder.layers.{i}.self_attn.v_proj."),
    ("layers.{i}.output.", "encoder.layers.{i}.self_attn.out_proj."),
    ("layers.{i}.attention_norm.", "encoder.layers.{i}.self_attn_layer_norm."),
    ("layers.{i}.expand.", "encoder.layers.{i}.fc1."),
    ("layers.{i}.contract.", "encoder.layers.{i}.fc2."),
    ("layers.{i}.feed_forward_norm.", "encoder.layers.{i}.final_layer_norm."),
)
WAV2VEC2_FAIRSEQ_NORMS = {"group": ("feature_extractor.{i}.norm.", "feature_extractor.conv_layers.{i}.2."),
                          "layer": ("feature_extractor.{i}.norm.", "feature_extractor.conv_layers.{i}.2.1.")}
# Fine-tuned: the encoder's own keys start with `w2v_encoder.w2v_model.`.
WAV2VEC2_FAIRSEQ_IGNORED = (
    "mask_emb", "quantizer.", "input_quantizer.", "project_q.", "project_inp.", "final_proj.", "target_glu.",
    "w2v_encoder.proj.",
)


def load_wav2vec2(path: str | Path, attention_window: int | None = None) -> Wav2Vec2:
    """wav2vec 2.0 from Hugging Face (a folder, model.safetensors or pytorch_model.bin) or fairseq (.pt), as a network
    of ours with its own configuration, in evaluation mode.

    The shape is read from config.json beside the file, or from fairseq's arguments in it, and inferred from the
    tensors where there is neither (then: 64 channels a head, strides 5 and 2, pre-norm with the layer-norm extractor).
    attention_window: local attention in place of attention over the whole clip, which others' weights were trained
    with. Raises SpeakError, one line with the file and the reason.
    """
    path = _wav2vec2_file(Path(path))
    content = read(path)
    model = content.get("model")
    settings = None
    if isinstance(model, Mapping):  # fairseq
        state = _own(model, "w2v_encoder.w2v_model.")
        settings = _fairseq_settings(content, path)
        norm = "layer" if "feature_extractor.conv_layers.1.2.1.weight" in state else "group"
        keys, ignored = (*WAV2VEC2_FAIRSEQ, WAV2VEC2_FAIRSEQ_NORMS[norm]), WAV2VEC2_FAIRSEQ_IGNORED
    else:
        state = _own(content, "wav2vec2.")
        for new, old in WEIGHT_NORM.items():
            state = {key.replace(new, old): value for key, value in state.items()}
        settings = _huggingface_settings(path)
        keys, ignored = WAV2VEC2_HUGGINGFACE, WAV2VEC2_HUGGINGFACE_IGNORED
    config = _wav2vec2_shape(_renamed(state, keys), path)
    config = dataclasses.replace(config, **settings, attention_window=attention_window)
    with torch.device("meta"):
        network = Wav2Vec2(config)
    network.to_empty(device="cpu")
    load(network, state, path, keys, ignored)
    return network.eval()


def _renamed(state: Mapping[str, Any], keys: KeyMap) -> dict[str, Tensor]:
    """The tensors by our names; those that no line of the map fits are left out."""
    swapped = tuple((theirs, ours) for ours, theirs in keys)
    return {upstream_name(key, swapped): value for key, value in state.items() if isinstance(value, Tensor)}


def _own(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The keys without the `prefix` that fine-tuned weights have; heads beside the encoder keep theirs."""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _wav2vec2_file(path: Path) -> Path:
    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (path / name).is_file():
                return path / name
        raise SpeakError(f"{path}: no model.safetensors or pytorch_model.bin in this folder")
    return check_readable(path)


def _wav2vec2_shape(state: Mapping[str, Tensor], path: Path) -> Wav2Vec2Config:
    """What the shapes of the tensors (by our names) tell, and the released models' habits for what they don't."""
    try:
        convolutions = []
        while f"feature_extractor.{len(convolutions)}.conv.weight" in state:
            convolutions.append(state[f"feature_extractor.{len(convolutions)}.conv.weight"])
        width, group_width, position_kernel = state["position.weight_v"].shape
        layers = 0
        while f"layers.{layers}.query.weight" in state:
            layers += 1
        norm = "layer" if "feature_extractor.1.norm.weight" in state else "group"
        return Wav2Vec2Config(
            conv_channels=tuple(weight.shape[0] for weight in convolutions),
            conv_kernels=tuple(weight.shape[2] for weight in convolutions),
            conv_strides=(5, *(2,) * (len(convolutions) - 1)), conv_norm=norm,
            conv_bias="feature_extractor.0.conv.bias" in state, width=width, layers=layers, heads=max(width // 64, 1),
            feed_forward=state["layers.0.expand.weight"].shape[0], pre_norm=norm == "layer",
            position_kernel=position_kernel, position_groups=width // group_width, attention_window=None,
            normalise_input=True,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise SpeakError(f"{path}: not the weights of a wav2vec 2.0 ({error} is absent or misshapen)") from None


def _huggingface_settings(path: Path) -> dict[str, Any]:
    """The fields that config.json and preprocessor_config.json beside the weights give; none where they are absent."""
    settings: dict[str, Any] = {}
    file = path.parent / "config.json"
    if file.is_file():
        values = _json(file)
        fixed = {"model_type": "wav2vec2", "hidden_act": "gelu", "feat_extract_activation": "gelu",
                 "layer_norm_eps": NORM_EPSILON, "add_adapter": False, "adapter_attn_dim": None}
        for name, wanted in fixed.items():
            if values.get(name, wanted) != wanted:
                raise SpeakError(f"{file}: {name} is {values[name]!r}, only {wanted!r} is built here")
        names = {"conv_dim": "conv_channels", "conv_kernel": "conv_kernels", "conv_stride": "conv_strides",
                 "feat_extract_norm": "conv_norm", "conv_bias": "conv_bias", "hidden_size": "width",
                 "num_hidden_layers": "layers", "num_attention_heads": "heads", "intermediate_size": "feed_forward",
                 "do_stable_layer_norm": "pre_norm", "num_conv_pos_embeddings": "position_kernel",
                 "num_conv_pos_embedding_groups": "position_groups"}
        settings = {ours: values[theirs] for theirs, ours in names.items() if theirs in values}
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    file = path.parent / "preprocessor_config.json"
    if file.is_file() and "do_normalize" in (values := _json(file)):
        settings["normalise_input"] = bool(values["do_normalize"])
    return settings


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SpeakError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise SpeakError(f"{file}: not a configuration")
    return values


def _fairseq_settings(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields that the pickled arguments give: `args`, a namespace, or `cfg`, a tree with `model` and `task`."""
    whole = foreign_pickles.plain(content.get("cfg") or content.get("args")) or {}
    arguments, task = whole.get("model") or whole, whole.get("task")
    if isinstance(arguments, dict) and isinstance(arguments.get("w2v_args"), dict):  # fine-tuned: the pretraining's own
        inner = arguments["w2v_args"]
        arguments = inner.get("model") if isinstance(inner.get("model"), dict) else inner
    if not isinstance(arguments, dict):
        return {}
    # Fairseq normalises the input only where the task says so.
    settings: dict[str, Any] = {"normalise_input": bool((task if isinstance(task, dict) else whole).get("normalize"))}
    if arguments.get("activation_fn", "gelu") != "gelu":
        raise SpeakError(f"{path}: activation_fn is {arguments['activation_fn']!r}, only 'gelu' is built here")
    for theirs, ours in (("encoder_attention_heads", "heads"), ("layer_norm_first", "pre_norm")):
        if arguments.get(theirs) is not None:
            settings[ours] = arguments[theirs]
    if isinstance(arguments.get("conv_feature_layers"), str):
        layers = _conv_layers(arguments["conv_feature_layers"], path)
        settings["conv_strides"] = tuple(stride for _, _, stride in layers)
    return settings


def _conv_layers(text: str, path: Path) -> list[tuple[int, int, int]]:
    """fairseq's "[(512, 10, 5)] + [(512, 3, 2)] * 4" as a list of (channels, kernel, stride), read and not run."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            items, times = value(node.left), value(node.right)
            if not (isinstance(items, list) and type(times) is int and times < 100):
                raise ValueError
            return items * times
        return ast.literal_eval(node)

    try:
        return [(int(channels), int(kernel), int(stride))
                for channels, kernel, stride in value(ast.parse(text.strip(), mode="eval").body)]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise SpeakError(f"{path}: conv_feature_layers {text!r} is not a list of (channels, kernel, stride)") from None
