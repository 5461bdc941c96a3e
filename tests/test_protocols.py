"""The declared protocols of real datasets: counts add up, and RAN's are those of its published lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bench import declare
from bench.data.ferplus.labels import EMOTIONS
from bench.data.subsets import rule_of
from bench.declare import Protocol


@cache
def declared() -> dict[str, Protocol]:
    path = declare.ROOT / "bench" / "data" / "protocols.yaml"
    return declare.load_from([], [path]).protocols


def test_protocols_add_up() -> None:
    known = {*EMOTIONS}
    for name, p in declared().items():
        assert set(p.classes) <= known, name
        assert p.counts or "leak-free" in p.rule, name  # how many have no twin depends on the copy
        assert p.access, name
        for split, classes in p.class_counts.items():
            assert tuple(classes) == p.classes, name
            assert sum(classes.values()) == p.counts[split], name
        if p.subset_of:
            parent = declared()[p.subset_of]
            assert (p.dataset, p.classes) == (parent.dataset, parent.classes), name
            assert set(p.counts) <= {"test"}, name
            for split, classes in p.class_counts.items():
                assert all(n <= parent.class_counts[split][c] for c, n in classes.items()), name


def test_rules_of_subsets_are_known() -> None:
    for p in declared().values():
        if p.subset_of:
            rule = rule_of(p)
            assert rule.list or rule.leak_free, p.id
            assert not declared()[p.subset_of].folds, p.id


def test_variants_are_other_ways_to_report_the_same_claim() -> None:
    for p in declared().values():
        for variant, name in p.variants.items():
            other = declared()[name]
            assert (other.dataset, other.classes) == (p.dataset, p.classes), name
            assert name != p.id
            if variant == "swapped-splits":
                exchanged = {"train": "train", "val": "test", "test": "val"}
                assert other.class_counts == {exchanged[split]: n for split, n in p.class_counts.items()}
            if variant == "augmented-test":
                changed = other.model_copy(update={"test_transform": ""})
                same = ("rule", "counts", "class_counts", "test_transform", "subset_of")
                assert [getattr(changed, name) for name in same] == [getattr(p, name) for name in same]
                assert other.test_transform == "nresizer-code"
            if variant in ("leak-free", "ran-raw"):
                assert other.subset_of == (p.subset_of or p.id), name
            if variant == "leak-free":
                assert rule_of(other).leak_free
                assert rule_of(other).list == (rule_of(p).list if p.subset_of else "")
            if variant == "ran-raw":
                assert rule_of(other) == replace(rule_of(p), raw=True)


def test_every_test_split_can_be_reported_leak_free() -> None:
    """But for folds, where every image is tested once, and lists with repeats, whose plain form has the variant.

    Nor has what released code does to a protocol, declared so that its effect can be measured.
    """
    measured = {p.variants.get(name) for p in declared().values() for name in ("augmented-test", "swapped-splits")}
    for p in declared().values():
        plain = not p.subset_of or not (rule_of(p).raw or rule_of(p).leak_free)
        if "test" in p.counts and not p.folds and plain and p.id not in measured:
            assert "leak-free" in p.variants, p.id


RAN = {
    "ferplus-occlusion": ("FERplus_dir/jianfei_occlusion_list.txt", "{label}_{name}"),
    "ferplus-pose30": ("FERplus_dir/pose_30_ferplus_list.txt", "{label}/{name}"),
    "ferplus-pose45": ("FERplus_dir/pose_45_ferplus_list.txt", "{label}/{name}"),
    "raf-db-occlusion": ("RAF_DB_dir/rafdb_occlusion_list.txt", "{name} {label}"),
    "raf-db-pose30": ("RAF_DB_dir/val_raf_db_list.txt", "{label}/{name}"),
    "raf-db-pose45": ("RAF_DB_dir/val_raf_db_list_45.txt", "{label}/{name}"),
    "affectnet-occlusion": ("AffectNet_dir/occlusion_affectnet_list.txt", "val/{label}/{name}"),
    "affectnet-pose30": ("AffectNet_dir/pose_30_affectnet_list.txt", "{label}/{name}"),
    "affectnet-pose45": ("AffectNet_dir/pose_45_affectnet_list.txt", "{label}/{name}"),
}


@pytest.mark.parametrize("name", RAN)
def test_subset_counts_are_those_of_the_published_lists(ran_lists: Path, name: str) -> None:
    file, form = RAN[name]
    found: dict[str, str] = {}
    for line in (ran_lists / file).read_text().split("\n"):
        words = line.strip().removeprefix("val/").replace("_fer", "/fer").replace(" ", "/").split("/")
        if len(words) > 1:
            label, image = (words[1], words[0]) if form == "{name} {label}" else (words[0], words[1])
            found[image] = label
    wanted = declared()[name]
    counts = Counter(found.values())
    assert [counts[str(i)] for i in range(len(wanted.classes))] == list(wanted.class_counts["test"].values())
