"""What PF-ViT starts from: one masked autoencoder for three networks, a file for the constraint, and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pfvit import MAE_ROLE, ROLES, SIZE, build_small, faces, write_weights
from safetensors.torch import load_file, save_file

from bench.errors import UserError
from bench.method import Context
from methods.mae.vit import Encoder
from methods.pfvit.constraint import make_constraint
from methods.pfvit.options import Options

NETWORK = {"constraint_network": "resnet18"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("role", [MAE_ROLE, "mae-t-ferplus"])
@pytest.mark.parametrize("stem", ["own", "encoder"])
def test_three_networks_start_from_one_masked_autoencoder(role: str, stem: str, files: dict[str, Path]) -> None:
    state = load_file(files[MAE_ROLE])
    net = build_small({"discriminator_stem": stem}, files, weights={role: files[MAE_ROLE]}).net
    for name, tensor in net.encoder.state_dict().items():
        assert torch.equal(tensor, state[f"encoder.{name}"]), name
    for name, tensor in net.generator.decoder.state_dict().items():
        assert torch.equal(tensor, state[f"decoder.{name}"]), name
    for part in ("blocks", "norm"):
        for name, tensor in getattr(net.discriminator, part).state_dict().items():
            assert torch.equal(tensor, state[f"decoder.{part}.{name}"]), name
    images = faces(2)
    embedded = net.generator.decoder.embed(net.encoder.patch_embed.proj(images).flatten(2).transpose(1, 2))
    alike = torch.allclose(net.discriminator.embed(images).flatten(2).transpose(1, 2), embedded, atol=1e-4)
    assert alike == (stem == "encoder")


def test_without_pretraining_everything_is_random(files: dict[str, Path]) -> None:
    first, second, other = (build_small(seed=seed).net.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    name = "encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], build_small(files=files).net.state_dict()[name])


def test_while_restoring_no_file_is_needed() -> None:
    method = build_small({"constraint_network": "inception-resnet-v1"}, pretraining="mae-affectnet", restoring=True)
    assert method.constraint is None
    assert method.predict(faces()).shape == (5, 4)
    method.load_released(build_small(seed=3).net.state_dict())
    assert torch.equal(method.predict(faces()), build_small(seed=3).predict(faces()))


def test_wrong_files_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    network = ROLES["resnet18"]

    def refused(told: str, options: dict[str, Any], roles: dict[str, Path], **changes: Any) -> None:
        with pytest.raises(UserError, match=told):
            build_small(options, weights=roles, **changes)

    masked = {MAE_ROLE: files[MAE_ROLE]}
    pretrained = {"pretraining": "mae-affectnet"}
    refused("the masked autoencoder that pfvit starts from is not at hand\n  -> name its role", {}, {}, **pretrained)
    refused(f"'{MAE_ROLE}' have no place in pfvit, with pretraining none", {}, masked)
    both = masked | {"mae-t-ferplus": files[MAE_ROLE]}
    refused(f"'mae-t-ferplus' have no place in pfvit, which already has '{MAE_ROLE}'", {}, both, **pretrained)
    refused("'ir50-ms1m' have no place in pfvit with constraint_network none", {}, {"ir50-ms1m": tmp_path})
    refused(f"'{network}' have no place in pfvit with constraint_network resnet50",
            {"constraint_network": "resnet50"}, {network: files[network]})  # fmt: skip
    refused("'resnet18-imagenet1k' are not at hand", NETWORK, masked, **pretrained)
    refused("'resnet18-imagenet1k' and 'face-resnet18-synthfer' are both for resnet18", NETWORK,
            masked | {network: files[network], "resnet18-imagenet1k": files[network]}, **pretrained)  # fmt: skip
    refused(rf"resnet50-synthfer.safetensors \({network}\)", NETWORK,
            masked | {network: files[ROLES["resnet50"]]}, **pretrained)  # fmt: skip
    refused("unknown pretraining of pfvit 'mea-affectnet'\n  -> did you mean mae-affectnet", {}, {},
            pretraining="mea-affectnet")  # fmt: skip
    refused("mae-encoder is a copy of a pretrained encoder", {"constraint_network": "mae-encoder"}, {})
    only = {name: tensor for name, tensor in load_file(files[MAE_ROLE]).items() if name.startswith("encoder.")}
    save_file(only, tmp_path / "encoder.safetensors")
    refused("encoder without", {}, {MAE_ROLE: tmp_path / "encoder.safetensors"}, **pretrained)
    refused("another size", {}, masked, backbone="vit_base_patch16", **pretrained)
    refused("needs a linear patch embedding", {"discriminator_stem": "encoder"}, {}, backbone="vit_small_patch16")


@pytest.mark.parametrize(("options", "told"), [
    ({"fusion": "crossed"}, "unknown fusion of pfvit"), ({"discriminator_betas": [0.5, 0.9]}, "unknown option"),
    ({"train_mask": 0.5}, "Multi-Task MAE's"), ({"multitask": True, "test_mask": 1.0}, "leaves nothing to see"),
])  # fmt: skip
def test_wrong_options_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Options.parse(options)


def test_a_miniature_is_remarked() -> None:
    assert build_small().remark == "a miniature of vit_tiny_patch16"
    with pytest.raises(UserError, match="unknown backbone 'vit_large_patch16'"):
        build_small(backbone="vit_large_patch16")


def test_public_face_networks_fill_the_constraint(tmp_path: Path) -> None:
    """Files as published, with their classifiers: torchvision's ResNet-18, at the size of the faces."""
    import torchvision

    torch.manual_seed(0)
    published = torchvision.models.resnet18(weights=None)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    context = Context(
        ("neutral",), SIZE, 1, torch.device("cpu"), weights={"resnet18-imagenet1k": tmp_path / "resnet18.pth"}
    )
    recipe = {"mean": [0.5] * 3, "std": [0.25] * 3, "colour": "rgb"}
    constraint = make_constraint("resnet18", Encoder.__new__(Encoder), recipe, context)
    assert constraint is not None
    images = torch.rand(2, 3, SIZE, SIZE)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    published.fc = torch.nn.Identity()
    expected = published.eval()((images - mean) / std)
    torch.testing.assert_close(constraint((images - 0.5) / 0.25), expected, atol=1e-4, rtol=1e-4)
