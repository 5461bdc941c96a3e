"""SynthFER's protocols: exact counts, splits that share nobody, and how difficult they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from bench.data.synthfer import facts, images
from bench.data.synthfer.adapter import SynthFER
from bench.declare import ROOT, Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import torch

PROTOCOLS = {
    entry["id"]: Protocol(**entry)
    for entry in yaml.safe_load((ROOT / "bench/data/protocols_synth.yaml").read_text(encoding="utf-8"))["protocols"]
}


# ---- protocols


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_counts_are_exact(name: str) -> None:
    protocol = PROTOCOLS[name]
    frame = SynthFER(None, protocol).index(protocol)  # raises where a count differs
    assert len(frame) == sum(protocol.counts.values())
    assert frame["name"].is_unique
    assert sum(n for classes in protocol.class_counts.values() for n in classes.values()) == len(frame)
    assert set(frame["label"]) == set(protocol.classes or ("unlabelled",))


def test_a_wrong_count_is_refused() -> None:
    protocol = PROTOCOLS["synth-ferplus-8"].model_copy(update={"counts": {"train": 1601, "val": 240, "test": 480}})
    with pytest.raises(UserError, match=r"expected 1,601, found 1,600"):
        SynthFER(None, protocol).index(protocol)


@pytest.mark.parametrize(
    "rule", ["variant=ferplus", "variant=ferplus seed=0 subset=pose90", "variant=fer seed=0", "vairant=own seed=0"]
)
def test_a_wrong_rule_is_refused(rule: str) -> None:
    with pytest.raises(UserError):
        SynthFER(None, PROTOCOLS["synth-ferplus-8"].model_copy(update={"rule": rule}))


def test_splits_share_no_person() -> None:
    frame = SynthFER(None, PROTOCOLS["synth-ferplus-8"]).index(PROTOCOLS["synth-ferplus-8"])
    persons = {split: set(part["identity"]) for split, part in frame.groupby("split")}
    assert not persons["train"] & persons["test"]
    assert not persons["train"] & persons["val"]
    assert not persons["val"] & persons["test"]


def test_folds_share_no_subject_and_keep_sequences_whole() -> None:
    protocol = PROTOCOLS["synth-ckplus-8"]
    frame = SynthFER(None, protocol).index(protocol)
    assert set(frame["fold"]) == {0, 1}
    assert (frame.groupby("subject")["fold"].nunique() == 1).all()
    assert (frame.groupby("sequence").size() == 6).all()
    assert (frame["label"].eq("neutral") == frame["frame"].lt(3)).all()
    halves = frame.groupby("fold").size() / len(frame)
    assert (halves - 0.5).abs().max() < 0.1


def test_subsets_are_part_of_the_parents_test_split() -> None:
    for parent in ("synth-ferplus-8", "synth-rafdb-7"):
        frame = SynthFER(None, PROTOCOLS[parent]).index(PROTOCOLS[parent]).set_index("name")
        found = {}
        for subset in ("occlusion", "pose30", "pose45"):
            part = PROTOCOLS[f"{parent[:-2]}-{subset}"]
            names = SynthFER(None, part).index(part)["name"].tolist()
            assert (frame.loc[names, "split"] == "test").all()
            found[subset] = set(names)
        assert found["pose45"] < found["pose30"]


def test_sequences_grow_from_neutral_to_peak() -> None:
    known = facts("ckplus", 0, range(8 * 20))
    units = known.units.sum(axis=1).reshape(20, 8)
    assert (units[:, :3] == 0).all()
    assert (np.diff(units[:, 2:], axis=1) > 0).all()
    assert (known.identity.reshape(20, 8) == known.identity[::8, None]).all()


def test_the_adapter_serves_pixels_twins_and_landmarks_by_name() -> None:
    protocol = PROTOCOLS["synth-affectnet-8"]
    source = SynthFER(None, protocol)
    names = source.names()
    asked = [names[40], names[3]]
    made = list(source.pixels(asked))
    assert np.array_equal(made[1], images(facts("affectnet8", 0, [3]))[0])
    assert len(list(source.twins(asked))) == 2
    assert source.landmarks(asked).shape == (2, 68, 2)
    assert source.fingerprint() == SynthFER(None, protocol).fingerprint()
    assert source.storage == SynthFER(None, protocol).storage
    with pytest.raises(UserError, match="ferplus-0-000001"):
        source.facts(["ferplus-0-000001"])
    assert SynthFER.detect(ROOT) is None


# ---- difficulty


def small_resnet(channels: int, classes: int, width: int = 16) -> torch.nn.Module:
    """Four residual blocks, 0.3 million parameters."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
            )  # fmt: skip
            self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(self.body(x) + self.skip(x))

    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Block(width, width, 2), Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2), Block(4 * width, 8 * width, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * width, classes),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synth-ferplus-8", "synth-rafdb-7", "synth-affectnet-8", "synth-ckplus-7"])
def test_a_small_resnet_learns_much_but_not_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The source of the numbers in docs/synthfer.md: 600 steps of 64 (flip, shift by 3 px, AdamW, one cycle)."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    protocol, batch = PROTOCOLS[name], 64
    source = SynthFER(None, protocol)
    frame = source.index(protocol)
    if protocol.folds:
        frame["split"] = np.where(frame["fold"] == 0, "test", "train")
    pixels = torch.from_numpy(np.stack(list(source.pixels(frame["name"].tolist())))).float() / 255
    pixels = (pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)) * 4 - 2
    if pixels.shape[-1] > 64:
        pixels = functional.interpolate(pixels, size=64, mode="area")
    target = torch.tensor([protocol.classes.index(label) for label in frame["label"]])
    part = {split: torch.from_numpy(np.flatnonzero(frame["split"] == split)) for split in ("train", "test")}
    net = small_resnet(pixels.shape[1], len(protocol.classes))
    steps = len(part["train"]) // batch
    epochs = 600 // steps
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        order = part["train"][torch.randperm(len(part["train"]))]
        for rows in order[: steps * batch].split(batch):
            flip = (torch.rand(batch) < 0.5)[:, None, None, None]
            faces = torch.where(flip, pixels[rows].flip(3), pixels[rows])
            faces = faces.roll(torch.randint(-3, 4, (2,)).tolist(), (2, 3))
            loss = functional.cross_entropy(net(faces), target[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        said = torch.cat([net(rows).argmax(1) for rows in pixels[part["test"]].split(128)])
    truth, classes = target[part["test"]], len(protocol.classes)
    confusion = torch.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes).numpy()
    accuracy = confusion.trace() / confusion.sum()
    share = confusion.sum(axis=1).max() / confusion.sum()
    with capsys.disabled():
        recall = confusion.diagonal() / confusion.sum(axis=1)
        print(f"\n{name}: accuracy {accuracy:.3f}, mean class {recall.mean():.3f}, largest class {share:.3f}")
        for label, row in zip(protocol.classes, confusion, strict=True):
            print(f"  {label:10}", *(f"{count:4d}" for count in row))
        test = frame.iloc[part["test"].numpy()]
        right = (said == truth).numpy()
        turned = np.maximum(test["yaw"].abs(), test["pitch"].abs()).to_numpy() >= 30
        hidden = test["occlusion"].ne("none").to_numpy()
        weak = test["intensity"].to_numpy() < 0.5
        groups = {"turned": turned, "hidden": hidden, "weak": weak, "none of these": ~(turned | hidden | weak)}
        for word, rows in groups.items():
            print(f"  {word}: {right[rows].mean() if rows.any() else float('nan'):.3f} of {rows.sum()}")
    assert accuracy > share + 0.15, "no better than naming the largest class"
    assert accuracy < 0.97
