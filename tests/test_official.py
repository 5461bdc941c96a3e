"""Synthetic trees in official layouts: files, formats, and exactly the published counts."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path

import helpers_official
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import declare
from bench.data.base import is_synthetic
from bench.data.ferplus.labels import EMOTIONS, RULES
from bench.data.official import (
    LAYOUTS,
    affectnet_a,
    affectnet_b,
    ckplus,
    ferplus,
    ferplus_votes,
    pictures,
    ran_lists,
    tree,
    writer,
)
from bench.data.synthfer import facts, images, landmarks

ROOT = Path(__file__).resolve().parent.parent
RAF = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
PUBLISHED_ROWS = {"Training": 28_709, "PublicTest": 3_589, "PrivateTest": 3_589}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return helpers_official.write_all(tmp_path_factory.mktemp("trees"))


def published(protocol: str, split: str) -> dict[str, int]:
    return declare.load().protocol(protocol).class_counts[split]


def is_share(found: Counter[str], protocol: str, split: str, share: float) -> None:
    """Every class as often as its share of the published number, rounded up."""
    assert dict(found) == {label: -int(-n * share // 1) for label, n in published(protocol, split).items()}


# ---- the trees


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tree_says_that_it_is_synthetic_and_complete(layout: str, trees: dict[str, Path]) -> None:
    marker = json.loads((trees[layout] / "synthfer.json").read_text())
    assert marker["made by"] == "ferbench data synth"
    assert (marker["layout"], marker["seed"], marker["like_counts"], marker["complete"]) == (layout, 0, False, True)
    assert is_synthetic(trees[layout])
    assert not (trees[layout] / tree.WORK).exists(), "nothing but the tree is left"


def test_rafdb(trees: dict[str, Path]) -> None:
    text = (trees["rafdb"] / "EmoLabel/list_patition_label.txt").read_text()
    assert re.fullmatch(r"(train_\d{5}\.jpg [1-7]\n)+(test_\d{4}\.jpg [1-7]\n)*test_\d{4}\.jpg [1-7]", text)
    rows = [line.split() for line in text.split("\n")]
    for split in ("train", "test"):
        is_share(Counter(RAF[int(k) - 1] for name, k in rows if name.startswith(split)), "raf-db-7", split, 0.002)
    aligned = {path.name.replace("_aligned", "") for path in (trees["rafdb"] / "Image/aligned").iterdir()}
    assert aligned == {name for name, _ in rows} == set(os.listdir(trees["rafdb"] / "Image/original"))
    sizes = set()
    for name, _ in rows:
        with Image.open(trees["rafdb"] / f"Image/aligned/{name[:-4]}_aligned.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 100))
        with Image.open(trees["rafdb"] / "Image/original" / name) as image:
            assert image.format == "JPEG"
            sizes.add(image.size)
    assert len(sizes) > 10, "originals are of all sizes"


def test_affectnet_of_2017(trees: dict[str, Path]) -> None:
    root = trees["affectnet-a"]
    lists = root / "Manually_Annotated_file_lists"
    header, *train = csv.reader((lists / "training.csv").open(newline=""))
    test = list(csv.reader((lists / "validation.csv").open(newline="")))
    assert header == affectnet_a.HEADER.strip().split(",")
    for split, rows, share in (("train", train, 0.0002), ("test", test, 0.004)):
        labels = Counter(int(row[6]) for row in rows)
        is_share(Counter({AFFECTNET[k]: n for k, n in labels.items() if k < 8}), "affectnet-8@4000", split, share)
        without = affectnet_a.WITHOUT[split]
        assert [labels[k] for k in (8, 9, 10)] == [-int(-n * share // 1) for n in without]
    images_of = root / "Manually_Annotated_Images"
    listed = {row[0] for row in train + test}
    assert listed == {str(path.relative_to(images_of)) for path in images_of.rglob("*") if path.is_file()}
    for row in train + test:
        assert re.fullmatch(r"\d+/[0-9a-f]{56}\.(jpg|JPG|jpeg|png)", row[0])
        x, y, width, height = map(int, row[1:5])
        points = np.array(row[5].split(";"), float).reshape(68, 2)
        with Image.open(images_of / row[0]) as image:
            assert x >= 0
            assert y >= 0
            assert x + width <= image.width + 1
            assert y + height <= image.height + 1
            assert width * height < 0.8 * image.width * image.height, "the face does not fill the picture"
        if int(row[6]) < 8:
            assert (
                (points > [x - 0.2 * width, y - 0.2 * height]) & (points < [x + 1.2 * width, y + 1.2 * height])
            ).all()
            assert all(-1 <= float(value) <= 1 for value in row[7:])
    blank = [row[0] for row in train if int(row[6]) > 7]
    assert max((images_of / name).stat().st_nlink for name in blank) > 1


def test_affectnet_of_2021(trees: dict[str, Path]) -> None:
    for folder, split, share in (("train_set", "train", 0.0002), ("val_set", "test", 0.004)):
        base = trees["affectnet-b"] / folder
        names = [name.removesuffix(".jpg") for name in os.listdir(base / "images")]
        assert all(name.isdecimal() for name in names)
        wanted = {f"{name}_{kind}.npy" for name in names for kind in ("exp", "val", "aro", "lnd")}
        assert wanted == set(os.listdir(base / "annotations"))
        labels = Counter(AFFECTNET[int(np.load(base / f"annotations/{name}_exp.npy"))] for name in names)
        is_share(labels, "affectnet-8@3999", split, share)
        for name in names[:5]:
            with Image.open(base / f"images/{name}.jpg") as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (224, 224))
            assert -1 <= float(np.load(base / f"annotations/{name}_val.npy")) <= 1
            marks = np.load(base / f"annotations/{name}_lnd.npy")
            assert marks.shape == (136,)
            assert -30 < marks.min() < marks.max() < 254


def label_csv(path: Path) -> dict[str, list[int]]:
    return {row[0]: [int(n) for n in row[2:]] for row in csv.reader(path.open(newline=""))}


@pytest.mark.parametrize("layout", ["ferplus", "fer2013-csv"])
def test_ferplus(layout: str, trees: dict[str, Path]) -> None:
    root = trees[layout]
    header, *rows = csv.reader((root / "fer2013new.csv").open(newline=""))
    assert header == ["Usage", "Image name", *EMOTIONS, "unknown", "NF"]
    for folder, usage in (("Train", "Training"), ("Valid", "PublicTest"), ("Test", "PrivateTest")):
        votes = label_csv(root / f"FER2013{folder}" / "label.csv")
        named = [row[1] for row in rows if row[0] == usage and row[1]]
        assert list(dict.fromkeys(named)) == list(votes), "the same images in both files, in the same order"
        assert len(named) == len(votes) + 1, "one name stands twice"
        assert sum(row[0] == usage and not row[1] for row in rows) > 0
        assert all(sum(ten) == 10 for ten in votes.values())
        pngs = set(os.listdir(root / f"FER2013{folder}")) - {"label.csv"}
        assert pngs == (set(votes) if layout == "ferplus" else set())
        for name in pngs:
            assert (root / f"FER2013{folder}" / name).stat().st_size == 2420, "as the published files"
            with Image.open(root / f"FER2013{folder}" / name) as image:
                assert (image.mode, image.size) == ("L", (48, 48))
    usages = [row[0] for row in rows]
    assert usages == sorted(usages, key=list(PUBLISHED_ROWS).index)


def test_both_layouts_of_ferplus_show_the_same_faces(trees: dict[str, Path]) -> None:
    names = [row[1] for row in csv.reader((trees["ferplus"] / "fer2013new.csv").open(newline=""))][1:]
    header, *rows = csv.reader((trees["fer2013-csv"] / "fer2013.csv").open(newline=""))
    assert header == ["emotion", "pixels", "Usage"]
    assert len(rows) == len(names)
    first = {name: row for row, name in reversed(list(enumerate(names))) if name}
    folder_of = {"Training": "Train", "PublicTest": "Valid", "PrivateTest": "Test"}
    for name, row in first.items():
        with Image.open(trees["ferplus"] / f"FER2013{folder_of[rows[row][2]]}" / name) as image:
            assert np.asarray(image).ravel().tolist() == [int(value) for value in rows[row][1].split()]


def test_ckplus(trees: dict[str, Path]) -> None:
    root = trees["ckplus"]
    frames = {path.stem: path for path in (root / "cohn-kanade-images").rglob("*.png")}
    assert all(re.fullmatch(r"S\d{3}_\d{3}_\d{8}", stem) for stem in frames)
    assert all(path.parent == root / "cohn-kanade-images" / stem[:4] / stem[5:8] for stem, path in frames.items())
    marks = {path.stem.removesuffix("_landmarks"): path for path in (root / "Landmarks").rglob("*.txt")}
    assert set(marks) == set(frames)
    for stem, path in frames.items():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (640, 490))
        points = np.loadtxt(marks[stem])
        assert points.shape == (68, 2)
        assert ((points > 0) & (points < [640, 490])).all()
    sequences = {stem[:8] for stem in frames}
    last = {sequence: max(stem for stem in frames if stem.startswith(sequence)) for sequence in sequences}
    facs = {path.stem.removesuffix("_facs") for path in (root / "FACS").rglob("*.txt")}
    assert facs == set(last.values())
    order = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    labels = {}
    for path in (root / "Emotion").rglob("*.txt"):
        assert re.fullmatch(r"   \d\.\d{7}e\+00\n", path.read_text())
        labels[path.stem.removesuffix("_emotion")] = order[int(float(path.read_text()))]
    assert set(labels) <= facs
    is_share(Counter(labels.values()), "ckplus-7@last1", "test", 0.01)
    neutral = np.asarray(Image.open(frames[f"{min(labels)[:-1]}1"]), int)
    peak = np.asarray(Image.open(frames[min(labels)]), int)
    assert np.abs(neutral - peak).max() > 60, "the face moves"
    assert np.abs(neutral - peak)[:, :40].max() < 40, "the background does not"


@pytest.mark.parametrize(
    ("layout", "dataset", "name"),
    [
        ("rafdb", "rafdb", "official"),
        ("affectnet-a", "affectnet", "release-2017"),
        ("affectnet-b", "affectnet", "release-2021"),
        ("ferplus", "ferplus", "folders"),
        ("fer2013-csv", "ferplus", "csv+label.csv"),
        ("ckplus", "ckplus", "official"),
    ],
)
def test_the_adapter_reads_every_picture(layout: str, dataset: str, name: str, trees: dict[str, Path]) -> None:
    from bench import registry
    from bench.data.base import find_copies

    adapter = registry.find("dataset", dataset).load()
    assert find_copies(trees[layout], adapter) == [trees[layout]]
    assert adapter.detect(trees[layout]) == name
    protocol = next(p for p in declare.load().protocols.values() if p.dataset == dataset and p.counts)
    copy = adapter(trees[layout], protocol)
    names = copy.names()
    pixels = list(copy.pixels(names))
    assert len(pixels) == len(names) > 30
    assert not copy.missing()
    assert not copy.extra()


# ---- published counts, without drawing anything


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_counts_are_the_published_ones(layout: str) -> None:
    made = writer.open_tree(layout, True, 0)
    rows: Counter[str] = Counter()
    for split, block in made.blocks:
        rows[split] += len(block)
    expected = {
        "rafdb": {"train": 12_271, "test": 3_068},
        "affectnet-a": {"train": 414_799, "test": 5_500},
        "affectnet-b": {"train": 287_651, "test": 3_999},
        "ferplus": {"train": 28_558, "val": 3_579, "test": 3_573},
        "fer2013-csv": {"": 35_887},
        "ckplus": {"test": 593},
    }
    assert rows == expected[layout]
    assert made.pictures == sum(rows.values()) * (8 if layout == "ckplus" else 1)


def test_full_ckplus_has_the_published_people() -> None:
    made = writer.open_tree("ckplus", True, 0)
    assert isinstance(made, ckplus.CKPlus)
    assert len({subject for subject, _ in made.places}) == 123
    posed = [(place[0], made.cast.label(k)) for k, place in enumerate(made.places) if made.known[k]]
    assert len({subject for subject, _ in posed}) == 118
    assert len(set(posed)) == len(posed) == 327, "nobody shows an expression twice"
    assert Counter(label for _, label in posed) == published("ckplus-7@last1", "test")


@pytest.fixture(scope="module")
def full_ferplus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ferplus-labels")
    writer.open_tree("ferplus", True, 0).begin(root)
    return root


@pytest.mark.parametrize("source", ["", "-fer2013new"])
@pytest.mark.parametrize("rule", RULES)
def test_full_ferplus_votes_give_every_protocol_its_counts(rule: str, source: str, full_ferplus: Path) -> None:
    names = {"train": ("Train", "Training"), "val": ("Valid", "PublicTest"), "test": ("Test", "PrivateTest")}
    rows = list(csv.reader((full_ferplus / "fer2013new.csv").open(newline="")))[1:]
    for split, (folder, usage) in names.items():
        if source:
            votes: dict[str, list[int]] = {}
            for row in rows:
                if row[0] == usage and row[1]:
                    votes.setdefault(row[1], [int(n) for n in row[2:]])
        else:
            votes = label_csv(full_ferplus / f"FER2013{folder}" / "label.csv")
        chosen = RULES[rule](np.array(list(votes.values())))
        found = Counter(EMOTIONS[k] for k in chosen if k >= 0)
        assert found == published(f"ferplus-8@{rule}{source}", split)


def test_full_ferplus_has_the_published_rows_and_names(full_ferplus: Path) -> None:
    rows = list(csv.reader((full_ferplus / "fer2013new.csv").open(newline="")))[1:]
    assert Counter(row[0] for row in rows) == PUBLISHED_ROWS
    names = Counter(row[1] for row in rows)
    assert names.pop("") == 173
    assert [name for name, n in names.items() if n == 2] == [f"{name}.png" for name in ferplus.REPEATED]
    numbers = sorted(int(name[3:10]) for name in names)
    assert (numbers[-1], numbers[-1] + 1 - len(numbers)) == (35_801, 92)


def test_full_ferplus_leaks_as_much_as_the_real_one() -> None:
    made = writer.open_tree("ferplus", True, 0)
    assert isinstance(made, ferplus.FERPlusFolders)
    name_of = {row.face: row for row in made.table if row.face >= 0}
    assert len(made.drawn) == len(set(made.drawn.values())) == 3137 - 2870
    assert all(name_of[a].split == "test" and name_of[b].split == "train" for a, b in made.drawn.items())
    leaked = {name_of[face].name for face in made.drawn}
    _, lists = made._lists()
    assert {subset: len(leaked & set(names)) for subset, names in lists.items()} == {
        "occlusion": 605 - 528, "pose30": 1170 - 1081, "pose45": 633 - 596,
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ran_lists.PROTOCOLS)
def test_lists_of_subsets_have_the_published_lines(dataset: str, tmp_path: Path) -> None:
    from bench.data import ran

    start = {"ferplus": "ferplus-8@majority", "rafdb": "raf-db-7", "affectnet": "affectnet-8@4000"}[dataset]
    labels = [label for label, n in published(start, "test").items() for _ in range(n)]
    stems = {"ferplus": "fer{:07d}", "rafdb": "test_{:04d}", "affectnet": "{:056x}"}
    test = {stems[dataset].format(k): label for k, label in enumerate(labels)}
    ran_lists.write_lists(tmp_path, dataset, test, ran_lists.chosen(dataset, test, 0))
    lines = {
        "ferplus": {"occlusion": 605, "pose30": 1170, "pose45": 633},
        "rafdb": {"occlusion": 735, "pose30": 1247, "pose45": 558},
        "affectnet": {"occlusion": 683, "pose30": 1949, "pose45": 985},
    }
    found = {}
    for subset, number in lines[dataset].items():
        _, listed = ran.read(dataset, subset, [tmp_path], published=False)
        assert len(listed) == number
        found[subset] = {one.name: one.label for one in listed}
        protocol = f"{ran_lists.PROTOCOLS[dataset]}-{subset}"
        assert Counter(found[subset].values()) == published(protocol, "test")
    assert set(found["pose45"]) < set(found["pose30"])


# ---- votes


@given(st.sampled_from(EMOTIONS), st.sampled_from(ferplus_votes.NARROWEST), st.integers(0, 99))
def test_votes_put_an_image_where_it_belongs(label: str, rule: str, number: int) -> None:
    votes = np.array([ferplus_votes.votes_for((label, rule), number)])
    assert votes.sum() == 10
    kept = ferplus_votes.NARROWEST.index(rule)
    for k, other in enumerate(ferplus_votes.NARROWEST):
        assert RULES[other](votes)[0] == (EMOTIONS.index(label) if k >= kept else -1)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"))), st.randoms())
def test_regrouping_changes_as_few_images_as_possible(cells: list[tuple[str, str]], random: object) -> None:
    other = [random.choice(cells) for _ in cells]  # type: ignore[attr-defined]
    found = ferplus_votes.regrouped(cells, Counter(other))
    assert Counter(found) == Counter(other)
    same = sum((Counter(cells) & Counter(other)).values())
    assert sum(a == b for a, b in zip(cells, found, strict=True)) == same


# ---- pictures


def test_a_face_in_a_wide_picture_is_the_face_alone() -> None:
    known = facts("affectnet8", 0, range(12))
    known.scene["noise"][:] = 0
    known.scene["blur"][:] = 0
    close, marks = images(known).astype(float), landmarks(known)
    made = list(pictures.wide(known, 160, "test", (1.0, 1.5)))
    assert len({one.picture.shape for one in made}) > 6
    for face, points, one in zip(close, marks, made, strict=True):
        x, y, width, height = one.box
        moved = (points + 0.5) * [width / 64, height / 64] + [x, y] - 0.5
        assert np.abs(moved - one.points).max() < 1.5
        crop = Image.fromarray(one.picture).crop((x, y, x + width, y + height)).resize((64, 64), Image.Resampling.BOX)
        inner = np.asarray(crop, float)[8:56, 8:56]
        away = np.asarray(one.picture.astype(float))[: inner.shape[0], : inner.shape[1]]
        error = np.abs(inner - face[8:56, 8:56]).mean()
        assert error < 12
        assert error < 0.7 * np.abs(away - face[8:56, 8:56]).mean(), "nearer than another part of the picture"


@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), st.sampled_from([0, 1]), st.integers(0, 2**31))
def test_png_files_hold_the_picture(height: int, width: int, colour: bool, level: int, seed: int) -> None:
    import io

    shape = (height, width, 3) if colour else (height, width)
    picture = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(pictures.png(picture, level))) as image:
        assert np.array_equal(np.asarray(image), picture)


def test_npy_files_are_numpys_own(tmp_path: Path) -> None:
    for value in (np.array("-0.25"), np.array("7")):
        np.save(tmp_path / "theirs.npy", value)
        assert affectnet_b.text_npy(str(value)) == (tmp_path / "theirs.npy").read_bytes()
    marks = np.linspace(0, 1, 136)
    np.save(tmp_path / "theirs.npy", marks)
    ours = affectnet_b.npy_header("<f8", (136,)) + marks.tobytes()
    assert ours == (tmp_path / "theirs.npy").read_bytes()
