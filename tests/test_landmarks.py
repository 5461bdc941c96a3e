"""The landmark stage: points move with the pixels, errors are what their names say, numbers do not drift."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench import declare, matrix, registry
from bench.data.synthfer import facts, images, landmarks
from bench.declare import PROFILES, RECIPE_FIELDS
from bench.errors import UserError
from bench.method import Context, Method, Spec
from methods.landmarks import WING_WIDTH, normalised_error, wing
from methods.landmarks_augment import MIRROR, geometric, photometric, recolour
from methods.poster.mobilefacenet import MobileFaceNet
from methods.poster.options import Options

SMALL = {"width": 4, "channels": 16}
SIZE = 32
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 5e-3, "batch_size": 16, "epochs": 4, "input_size": SIZE, "loss": "wing",
}  # fmt: skip
GOLDEN = [0.2832362, 0.2594737, 0.2493870, 0.2477528]


def build(
    options: dict[str, Any] = SMALL, backbone: str = "mobilefacenet", pretraining: str = "none", **recipe: Any
) -> Method:
    torch.manual_seed(0)
    context = Context((), SIZE, 10, torch.device("cpu"))
    spec = Spec("test", backbone, pretraining, options)
    return registry.find("method", "landmarks").load()(spec, {**RECIPE, **recipe}, context)


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, Tensor]:
    """32 rendered faces (32, 3, 32, 32) in [0, 1] and their points as fractions of the side."""
    known = facts("landmarks", 0, range(32))
    pixels = torch.from_numpy(images(known)).permute(0, 3, 1, 2).float() / 255
    points = (torch.from_numpy(landmarks(known)) + 0.5) / 112
    return torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="area"), points


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(RECIPE[name])[:, None, None] for name in ("mean", "std"))
    return (pictures - mean) / std


def steps(method: Method, faces: tuple[Tensor, Tensor], numbers: range) -> list[float]:
    """Losses of steps seeded as the loop seeds them: by their number."""
    method.train()
    found = []
    for number in numbers:
        torch.manual_seed(number)
        half = slice(0, 16) if number % 2 == 0 else slice(16, 32)
        found.append(float(method.update(normalised(faces[0][half]), faces[1][half])["loss"]))
    return found


# ---- augmentation


def test_the_mirror_exchanges_left_and_right(faces: tuple[Tensor, Tensor]) -> None:
    mirror = torch.tensor(MIRROR)
    assert torch.equal(mirror[mirror], torch.arange(68))
    assert [MIRROR[k] for k in (0, 8, 17, 27, 31, 36, 37, 41, 48, 60, 66)] == [
        16,
        8,
        26,
        27,
        35,
        45,
        44,
        46,
        54,
        64,
        66,
    ]
    # the average drawn face is symmetric, so its mirror image is itself
    known = facts("landmarks", 0, range(2000))
    average = torch.from_numpy(landmarks(known)).mean(dim=0)
    average = average - average[27:31].mean(dim=0)
    mirrored = average[mirror] * torch.tensor([-1.0, 1.0])
    assert (mirrored - average).abs().max() < 2


def test_a_dot_ends_where_its_point_says() -> None:
    torch.manual_seed(1)
    count, side, nose = 64, 96, 30  # the tip of the nose is its own mirror image
    points = torch.full((count, 68, 2), 0.5) + 0.1 * torch.randn(count, 1, 2)
    centres = (torch.arange(side) + 0.5) / side
    away = [(centres - points[:, nose, k, None]).square() for k in (0, 1)]
    dots = torch.exp(-(away[0][:, None, :] + away[1][:, :, None]) / (2 * 0.03**2))[:, None]
    moved, where = geometric(dots, points)
    mass = moved.sum(dim=(1, 2, 3))
    found = torch.stack(
        [(moved.sum(dim=(1, 2)) * centres).sum(dim=1) / mass, (moved.sum(dim=(1, 3)) * centres).sum(dim=1) / mass],
        dim=1,
    )
    inside = (where[:, nose] - 0.5).abs().amax(dim=1) < 0.3  # dots cut off by the border have another centre
    assert inside.sum() > 30
    assert (found - where[:, nose])[inside].abs().max() < 0.005
    assert (where[:, nose] - points[:, nose]).norm(dim=1).median() > 0.05, "hardly anything moved"


def test_left_stays_left_in_a_mirrored_face() -> None:
    torch.manual_seed(2)
    known = facts("ckplus", 0, range(60))  # frontal
    points = (torch.from_numpy(landmarks(known)) + 0.5) / 48
    moved = geometric(torch.zeros(60, 1, 16, 16), points)[1]
    for left, right in ((36, 45), (17, 26), (48, 54), (0, 16), (60, 64), (31, 35)):
        assert (moved[:, left, 0] < moved[:, right, 0]).all()
    assert (moved[:, 51, 1] < moved[:, 57, 1]).all(), "upper lip above lower lip"


def test_colour_is_kept_exchanged_or_dropped() -> None:
    torch.manual_seed(3)
    red = torch.zeros(4000, 3, 2, 2)
    red[:, 0] = 1
    found = recolour(red)[:, :, 0, 0]
    grey = (found[:, 0] == found[:, 2]).float().mean()
    exchanged = (found[:, 2] == 1).float().mean()
    assert abs(grey - 0.4) < 0.03
    assert abs(exchanged - 0.3) < 0.03


def test_pictures_stay_pictures(faces: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(4)
    changed = photometric(faces[0])
    assert changed.shape == faces[0].shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - faces[0]).abs().flatten(1).mean(dim=1).min() > 0.005
    torch.manual_seed(4)
    assert torch.equal(photometric(faces[0]), changed), "drawn from the global generator only"


# ---- what is measured and learnt


def test_normalised_error_of_known_points() -> None:
    points = torch.zeros(2, 68, 2)
    points[:, 36, 0], points[:, 45, 0] = -0.1, 0.1  # outer eye corners 0.2 apart
    found = points.clone()
    found[0, :, 1] += 0.01  # all points off by 0.01: 5 % of the distance of the eyes
    found[1, 7] += torch.tensor([0.03, 0.04])  # one point of 68 off by 0.05
    assert torch.allclose(normalised_error(found, points), torch.tensor([5.0, 25 / 68]))


def test_wing_is_logarithmic_then_linear() -> None:
    def at(error: float) -> float:
        return float(wing(torch.full((1, 68, 2), error), torch.zeros(1, 68, 2)))

    assert at(0.0) == 0
    assert at(WING_WIDTH + 1e-5) == pytest.approx(at(WING_WIDTH - 1e-5), abs=1e-4), "no jump"
    assert at(0.6) - at(0.4) == pytest.approx(0.2, abs=1e-5)
    assert at(0.01) > 3 * 0.01, "steeper near zero"


def test_validate_compares_with_the_targets(faces: tuple[Tensor, Tensor]) -> None:
    method = build()
    method.train(False)
    with torch.inference_mode():
        error = method.validate(normalised(faces[0]), faces[1])["nme"]
        found = method.predict(normalised(faces[0]))
    assert error.shape == (32,)
    assert torch.equal(error, normalised_error(found, faces[1]))
    assert not method.classifies


def test_it_learns(faces: tuple[Tensor, Tensor]) -> None:
    method = build()
    losses = steps(method, faces, range(40))
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_golden_losses(faces: tuple[Tensor, Tensor]) -> None:
    found = steps(build(), faces, range(4))
    assert found == pytest.approx(GOLDEN, abs=1e-4), f"numbers changed: raise the method's version ({found})"


def test_continued_training_is_the_same_training(faces: tuple[Tensor, Tensor]) -> None:
    whole, first, second = build(), build(), build(learning_rate=5e-3)
    expected = steps(whole, faces, range(6))
    steps(first, faces, range(3))
    second.load_state_dict(first.state_dict())
    assert steps(second, faces, range(3, 6)) == expected[3:]
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, second.net.state_dict()[name]), name


# ---- what it is built of


def test_the_product_is_a_mobilefacenet() -> None:
    MobileFaceNet(width=4, channels=16, inner_size=SIZE).load_state_dict(build().net.state_dict())
    net = build({}, input_size=112).net
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_007_248
    assert net.state_dict().keys() == MobileFaceNet().state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"witdh": 3}}, "unknown option of landmarks 'witdh'\n  -> did you mean width"),
        ({"backbone": "resnet18"}, "unknown backbone of landmarks 'resnet18'"),
        ({"pretraining": "ms1m"}, "unknown pretraining of landmarks 'ms1m'"),
        ({"loss": "cross-entropy"}, "unknown loss of landmarks 'cross-entropy'"),
        ({"input_size": 40}, "input_size 40 is not a multiple of 16"),
    ],
)
def test_wrong_entries_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**arguments)
    assert message in str(error.value)


def test_poster_loads_the_stage_under_every_profile() -> None:
    """Sizes of the landmark net in the stage's recipe and in POSTER's, which are declared apart."""
    declared = declare.load()
    compared = set()
    for experiment in declared.experiments.values():
        for profile in PROFILES:
            if experiment.method != "poster" or profile not in ("paper", *declared.recipe(experiment.recipe).profiles):
                continue
            entry = matrix.running_entry(declared, experiment.id, "ferplus-8@majority", profile)
            for run in matrix.runs_of(declared, entry, profile, [0]):
                for stage in run.stages.values():
                    wanted = Options.parse(run.options)
                    with torch.device("meta"):
                        there = MobileFaceNet(wanted.landmark_width, wanted.dims[0], wanted.inner_size)
                        made = MobileFaceNet(**stage.options, inner_size=stage.recipe["input_size"])
                    shapes = [
                        {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
                        for net in (there, made)
                    ]
                    assert shapes[0] == shapes[1], (experiment.id, profile)
                    compared.add(profile)
    assert "paper" in compared
