"""Weights that users have already, through the training command: a wav2vec 2.0 for E_a, torchvision's VGG for L_vgg."""

import argparse
from pathlib import Path

import pytest
import torch

from speak import checkpoint
from speak.errors import SpeakError
from speak.foreign_weights import load_resnet, load_stylegan2
from speak.models.resnet import ResNet
from speak.models.speak import Speak
from speak.models.vgg import VGG
from speak.train.command import _Inputs, add_arguments, run, run_stage
from speak.train.perceptual import perceptual_features
from tests.small_training import settings, small
from tests.test_foreign_weights import rosinality_generator, state_of, torchvision_resnet, torchvision_vgg

CPU = torch.device("cpu")


def arguments(out: Path, *more: str, **changes: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--stage", "speak", "--preset", "tiny", "--out", str(out), "--steps", "1", "--batch", "2",
                              "--data", "synthetic:3", "--device", "cpu", *settings(**changes), *more])  # fmt: skip


def test_a_hugging_face_wav2vec2_becomes_the_audio_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(
        conv_dim=(16,) * 7, hidden_size=24, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
    ))  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    run(arguments(
        tmp_path / "run", "--from", f"audio={tmp_path / 'theirs'}", speak__weight_adversarial=0, speak__weight_sync=0,
        speak__weight_perceptual=0, speak__weight_reading=0, speak__train_encoders=True, speak__train_audio=False,
    ))  # fmt: skip
    content = checkpoint.load(tmp_path / "run" / "speak" / "weights.pt")
    assert content["config"]["model"]["audio"]["width"] == 24 and content["config"]["model"]["audio"]["layers"] == 1
    made = content["models"]["speak"]["audio_encoder.layers.0.query.weight"]
    assert torch.equal(made, theirs.encoder.layers[0].attention.q_proj.weight.detach())


def test_torchvisions_vgg_makes_the_features_and_is_asked_for(tmp_path: Path) -> None:
    state = {key: value for key, value in state_of(torchvision_vgg("vgg16")).items() if key.startswith("features")}
    torch.save(state, tmp_path / "vgg16.pth")
    vgg = {"model__perceptual__network": "vgg16", "model__perceptual__layers": "relu1_2,relu2_2"}
    config = small(**vgg)
    features = perceptual_features(config, _Inputs(tmp_path, {}, str(tmp_path / "vgg16.pth")), CPU)
    assert isinstance(features.net, VGG)
    assert torch.equal(features.net.features[2].weight, state["features.2.weight"])
    with pytest.raises(SpeakError, match="--vgg FILE"):
        run_stage("speak", small(**vgg, speak__weight_sync=0, speak__train_encoders=True), "synthetic:3",
                  tmp_path / "run", CPU, steps=1, batch=2)  # fmt: skip


def test_imagenet_and_stylegan2_weights_fit_networks_of_the_papers_shape(tmp_path: Path) -> None:
    state = state_of(torchvision_resnet(18))
    torch.save(state, tmp_path / "resnet18.pth")
    torch.save({"g_ema": rosinality_generator()}, tmp_path / "g.pt")
    model = Speak(small(
        model__identity__width=64, model__identity__norm="batch", model__generator__style_dim=24,
        model__generator__channel_base=256, model__generator__channel_max=32,
    ))  # fmt: skip
    load_resnet(model.identity_encoder.trunk, tmp_path / "resnet18.pth")
    load_stylegan2(model.generator.synthesis, tmp_path / "g.pt")
    assert isinstance(model.identity_encoder.trunk, ResNet)
    assert torch.equal(model.identity_encoder.trunk.conv1.weight, state["conv1.weight"])
    assert torch.equal(model.generator.synthesis.convolutions[0].weight, rosinality_generator()["conv1.conv.weight"][0])
