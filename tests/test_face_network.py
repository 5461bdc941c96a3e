"""Face networks: files of others load completely, pictures get each network's own scale, persons are recognised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from facenet_pytorch import InceptionResnetV1
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench import declare, loop, registry
from bench.data import source
from bench.data.augment import none
from bench.data.synthfer import facts, images, targets
from bench.data.synthfer.actions import EXPRESSIONS
from bench.data.synthfer.adapter import SynthFER
from bench.errors import UserError
from bench.method import Context, Spec
from bench.recipe import RECIPE_FIELDS
from methods.face_network import IDENTITY, SCENE, FaceTraining, recognition
from methods.face_network.networks import KINDS, load_network, make_network

SIZE = 48
PERSONS, SCENES = {"answers": 400, "scale_down": "quick"}, {"answers": targets.SCENE_NUMBERS, "scale_down": "quick"}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 3e-3, "batch_size": 16, "epochs": 4, "input_size": SIZE,
}  # fmt: skip
GOLDEN = {
    IDENTITY: [6.377376, 6.079336, 6.749417, 6.554959],
    SCENE: [1.117025, 1.027805, 1.097706, 0.982776],
}
ROLES = {
    "inception-resnet-v1": "inception-resnet-v1-vggface2", "resnet18": "resnet18-imagenet1k",
    "resnet50": "resnet50-imagenet1k",
}  # fmt: skip


def build(
    backbone: str = "inception-resnet-v1", loss: str = IDENTITY, options: dict[str, Any] = PERSONS, **changes: Any
) -> FaceTraining:
    torch.manual_seed(0)
    spec = Spec("test", backbone, changes.pop("pretraining", "none"), options)
    context = Context((), SIZE, 10, torch.device("cpu"))
    method: FaceTraining = registry.find("method", "face-network").load()(
        spec, {**RECIPE, "loss": loss, **changes}, context
    )
    return method


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, dict[str, Tensor]]:
    """64 rendered faces uint8 (64, 64, 64, 3) with their targets by loss."""
    known = facts("identities", 0, range(64))
    asked = {IDENTITY: targets.persons(known), SCENE: targets.scene(known)}
    return torch.from_numpy(images(known)), {loss: torch.from_numpy(values) for loss, values in asked.items()}


def train(method: FaceTraining, faces: tuple[Tensor, dict[str, Tensor]], numbers: range) -> list[float]:
    """Losses of steps on 16 images each, seeded as the loop seeds them: by their number."""
    method.train()
    found = []
    for number in numbers:
        torch.manual_seed(number)
        rows = (torch.arange(16) + 16 * number) % len(faces[0])
        wanted = faces[1][str(method.recipe["loss"])][rows]
        found.append(float(method.update(loop.prepare(faces[0][rows], method.recipe, none), wanted)["loss"]))
    return found


# ---- the networks


def reference(kind: str) -> nn.Module:
    """The class behind a file of others, with its classifier and with batch norms that have seen something."""
    torch.manual_seed(1)
    if kind == "inception-resnet-v1":
        made: nn.Module = InceptionResnetV1(classify=True, num_classes=11)
    else:
        made = getattr(torchvision.models, kind)(weights=None)
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return made.eval()


def test_facenets_file_loads_and_gives_its_features(tmp_path: Path) -> None:
    theirs = reference("inception-resnet-v1")
    file = tmp_path / "20180402-114759-vggface2.pt"
    torch.save(theirs.state_dict(), file)
    ours = load_network("inception-resnet-v1", file, ROLES["inception-resnet-v1"])
    theirs.classify = False
    pictures = torch.randint(0, 256, (2, 3, 160, 160)).float()
    with torch.inference_mode():
        found, expected = ours(pictures / 255), theirs((pictures - 127.5) / 128)
    assert found.shape == (2, 512)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_torchvisions_file_loads_and_gives_its_pooled_features(kind: str, tmp_path: Path) -> None:
    theirs = reference(kind)
    file = tmp_path / f"{kind}.pth"
    torch.save(theirs.state_dict(), file)
    ours = load_network(kind, file, ROLES[kind])
    theirs.fc = nn.Identity()
    pictures = torch.rand(2, 3, 40, 40)
    mean, std = (torch.tensor(RECIPE[name])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        found, expected = ours(pictures), theirs((pictures - mean) / std)
    assert found.shape == (2, {"resnet18": 512, "resnet50": 2048}[kind])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_names_are_those_that_tell_the_file(kind: str) -> None:
    from bench import weights

    with torch.device("meta"):
        own = {name: list(value.shape) for name, value in make_network(kind).body.state_dict().items()}
    told = {
        name: list(shape)
        for name, shape in weights.record(ROLES[kind]).has.items()
        if not name.startswith(KINDS[kind].classifier)
    }
    assert len(told) == 2
    assert told.items() <= own.items()


@pytest.mark.parametrize("side", [160, 224, 48])
def test_inception_sees_160_pixels_in_facenets_scale(side: int) -> None:
    with torch.device("meta"):
        body = nn.Identity()
    network = make_network("inception-resnet-v1", "quick")
    network.body, network.side = body, KINDS["inception-resnet-v1"].side
    levels = torch.tensor([0.0, 127.5, 255.0])
    seen = network((levels / 255)[:, None, None, None].expand(-1, 3, side, side))
    assert seen.shape == (3, 3, 160, 160)
    assert torch.allclose(seen[:, 0, 5, 7], (levels - 127.5) / 128, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_miniature_has_the_same_interface(kind: str) -> None:
    network = make_network(kind, "short").eval()
    for side in (48, 64, 33):
        found = network(torch.rand(3, 3, side, side))
        assert found.shape == (3, network.features)
    assert (kind == "inception-resnet-v1") == bool(torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5))


def test_a_frozen_network_never_changes_but_lets_gradients_through(tmp_path: Path) -> None:
    save_file(build().net.state_dict(), tmp_path / "model.safetensors")
    network = load_network("inception-resnet-v1", tmp_path / "model.safetensors", "face-inception-synthfer")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pictures = torch.rand(4, 3, SIZE, SIZE, requires_grad=True)
    network.train()
    one = network(pictures)
    nn.ModuleList([network]).train()
    assert torch.equal(network(pictures), one)
    one.square().sum(dim=0)[0].backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_stages_product_loads_with_the_same_features(kind: str, tmp_path: Path) -> None:
    method = build(kind)
    method.train(False)
    save_file(method.net.state_dict(), tmp_path / "model.safetensors")
    pictures = torch.rand(4, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = method.features(loop.prepare((pictures * 255).byte().permute(0, 2, 3, 1), RECIPE, none))
        found = load_network(kind, tmp_path / "model.safetensors", "stage")((pictures * 255).byte().float() / 255)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("resnet18", lambda state: state, "stage.* 2 of another shape: small_linear.weight"),
        ("resnet50", lambda state: state.pop("body.small.0.weight"), "1 missing: small.0.weight"),
        ("resnet50", lambda state: state.update({"body.extra": torch.zeros(1)}), "1 left over: extra"),
        ("resnet51", lambda state: state, "unknown face network 'resnet51'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(kind: str, change: Any, message: str, tmp_path: Path) -> None:
    state = dict(build("resnet50", SCENE, SCENES).net.state_dict())
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_network(kind, tmp_path / "model.safetensors", "stage")


def test_an_encoder_with_another_stem_is_refused(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(UserError, match=r"resnet18-imagenet1k.*conv1\.weight"):
        load_network("resnet18", tmp_path / "grey.pth", "resnet18-imagenet1k")


# ---- what is learnt from


@pytest.mark.parametrize("name", ["synth-identities", "synth-scene"])
def test_splits_share_no_person(name: str) -> None:
    protocol = declare.load().protocol(name)
    data = SynthFER(None, protocol)
    frame = data.index(protocol)
    rows = source.splits_of(frame, protocol, 0)
    assert {split: len(at) for split, at in rows.items()} == {"train": 4000, "test": 512}
    person = data.targets("identity", frame["name"].tolist())
    assert person.dtype == np.int64
    assert set(person[rows["train"]]) == set(range(400))
    assert set(person[rows["test"]]) == set(range(400, 440))


def test_every_test_image_has_the_same_person_in_its_batch() -> None:
    person = targets.persons(facts("identities", 0, range(4000, 4512)))
    assert 512 % loop.EVALUATION_BATCH == 0
    for batch in person.reshape(-1, loop.EVALUATION_BATCH):
        assert np.unique(batch, return_counts=True)[1].min() >= 2


def test_the_scene_is_standardised_and_says_nothing_of_expressions() -> None:
    known = facts("identities", 0, range(4000))
    found = targets.scene(known)
    assert found.shape == (4000, targets.SCENE_NUMBERS)
    assert found.dtype == np.float32
    assert np.abs(found.mean(axis=0)).max() < 0.1
    assert np.abs(found.std(axis=0) - 1).max() < 0.1
    shown = np.array([EXPRESSIONS.index(label) for label in known.label])
    said = np.concatenate([np.eye(8)[shown], known.units], axis=1)
    said = (said - said.mean(axis=0)) / said.std(axis=0)
    related = np.abs(said.T @ ((found - found.mean(axis=0)) / found.std(axis=0)) / len(found))
    assert related.max() < 0.08, "4.9 standard errors"
    assert np.abs(np.corrcoef(found[:, 0], known.yaw)[0, 1]) > 0.99


# ---- training


@pytest.mark.parametrize(("loss", "options"), [(IDENTITY, PERSONS), (SCENE, SCENES)])
def test_losses_of_seeded_steps(loss: str, options: dict[str, Any], faces: tuple[Tensor, dict[str, Tensor]]) -> None:
    """A change here changes results: raise the method's version."""
    found = train(build("inception-resnet-v1" if loss == IDENTITY else "resnet18", loss, options), faces, range(4))
    assert np.allclose(found, GOLDEN[loss], atol=2e-3), found


@pytest.mark.parametrize(("loss", "options"), [(IDENTITY, PERSONS), (SCENE, SCENES)])
def test_continued_training_is_the_same_training(
    loss: str, options: dict[str, Any], faces: tuple[Tensor, dict[str, Tensor]]
) -> None:
    whole, first, second = (build("resnet50", loss, options) for _ in range(3))
    expected = train(whole, faces, range(6))
    train(first, faces, range(3))
    second.load_state_dict(first.state_dict())
    assert train(second, faces, range(3, 6)) == expected[3:]


def test_persons_never_seen_are_told_apart_whatever_their_faces_show() -> None:
    """640 images, 40 steps: better than before training, and a face stays near its neutral twin."""
    rows = np.arange(640)
    pictures, person = torch.from_numpy(images(facts("identities", 0, rows))), facts("identities", 0, rows).identity
    method = build(options=PERSONS | {"sharpness": 10.0}, learning_rate=5e-3)
    others = facts("identities", 0, range(4000, 4128))
    held = [loop.prepare(torch.from_numpy(images(others, neutral)), RECIPE, none) for neutral in (False, True)]
    who, before = torch.from_numpy(others.identity), 0.0
    for stage in ("before", "after"):
        method.train(False)
        with torch.inference_mode():
            verified = float(method.validate(held[0], who)["verified"].mean())
            shown, twins = (method.features(part) for part in held)
        if stage == "after":
            break
        before = verified
        method.train()
        order = torch.randperm(640, generator=torch.Generator().manual_seed(0)).repeat(4)
        for number in range(40):
            at = order[number * 64 : number * 64 + 64]
            method.update(loop.prepare(pictures[at], RECIPE, none), torch.from_numpy(person)[at])
    assert verified > before + 8, (before, verified)
    to_twin = 1 - (shown * twins).sum(dim=1).mean()
    to_others = 1 - (shown @ twins.T)[who[:, None] != who].mean()
    assert to_twin < to_others / 4, (to_twin, to_others)


def test_the_margin_makes_the_right_person_harder(faces: tuple[Tensor, dict[str, Tensor]]) -> None:
    plain, hard = (train(build(options=PERSONS | {"margin": margin}), faces, range(1))[0] for margin in (0.0, 0.3))
    assert hard > plain + 16 * 0.3 * 0.9


def test_the_full_inception_takes_a_step() -> None:
    method = build(options={"answers": 3, "scale_down": "full"})
    method.train()
    before = method.net.body.conv2d_1a.conv.weight.detach().clone()
    loss = method.update(torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 2]))["loss"]
    assert torch.isfinite(loss)
    assert not torch.equal(method.net.body.conv2d_1a.conv.weight, before)


# ---- what is measured


def test_recognition_by_hand() -> None:
    angles = torch.tensor([0.0, 10.0, 25.0, 90.0, 180.0]).deg2rad()
    features = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    found = recognition(features, torch.tensor([7, 7, 9, 9, 4]))
    assert found["nearest"].tolist() == [100, 100, 0, 100, 0]
    # 9 at 25 degrees: its mate at 65 is farther than 15 and 25, nearer than 155; 9 at 90: 65 is nearer than 80, 90, 90
    assert found["verified"][:3].tolist() == pytest.approx([100, 100, 100 / 3])
    assert found["verified"][3:].tolist() == pytest.approx([100, 50])


def test_recognition_by_chance() -> None:
    torch.manual_seed(0)
    found = recognition(F.normalize(torch.randn(256, 64)), torch.arange(256) % 32)
    assert abs(float(found["verified"].mean()) - 50) < 3
    assert float(found["nearest"].mean()) < 8


def test_the_mean_explains_nothing_and_the_truth_all(faces: tuple[Tensor, dict[str, Tensor]]) -> None:
    method, truth = build("resnet18", SCENE, SCENES), faces[1][SCENE]
    nn.init.zeros_(method.head.weight)
    nn.init.zeros_(method.head.bias)
    method.train(False)
    pictures = loop.prepare(faces[0], RECIPE, none)
    with torch.inference_mode():
        assert abs(float(method.validate(pictures, truth)["explained"].mean())) < 15
        assert method.validate(pictures, torch.zeros_like(truth))["explained"].tolist() == [100.0] * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet19"}, "unknown backbone of face-network 'resnet19'"),
        ({"pretraining": "imagenet"}, "unknown pretraining of face-network 'imagenet'"),
        ({"loss": "cross-entropy"}, "unknown loss 'cross-entropy'"),
        ({"options": {"scale_down": "tiny"}}, "unknown scale_down of face-network 'tiny'"),
        ({"options": {"answers": 0}}, "answers of face-network is 0, less than 1"),
        ({"options": {"margins": 0.1}}, "unknown option of face-network 'margins'"),
    ],
)
def test_wrong_entries_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(("loss", "other", "options"), [(IDENTITY, SCENE, PERSONS), (SCENE, IDENTITY, SCENES)])
def test_targets_of_another_protocol_are_refused(
    loss: str, other: str, options: dict[str, Any], faces: tuple[Tensor, dict[str, Tensor]]
) -> None:
    method = build("resnet18", loss, options)
    with pytest.raises(UserError, match="take a protocol with targets"):
        method.update(loop.prepare(faces[0][:16], RECIPE, none), faces[1][other][:16])
