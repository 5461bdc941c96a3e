"""Lists in the manner of RAN's, naming pictures of a synthetic tree, so that its subset protocols can be tried on it.

Files, line forms and counts are those of the published lists; which images are named is drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench import declare
from bench.data.classes import ORDERS
from bench.data.official.tree import declared, shuffled, write_file
from bench.data.ran import FORMS

FOLDER = "Challenge-condition-FER-dataset"
PROTOCOLS = {"ferplus": "ferplus", "rafdb": "raf-db", "affectnet": "affectnet"}
SUBSETS = ("occlusion", "pose30", "pose45")
# number: of the class; kind: a type of occlusion
LINES = {
    ("ferplus", "occlusion"): "{number}_{name}.png 8 {kind}\r\n",
    ("ferplus", "pose30"): "{number}/{name}.jpg\n",
    ("ferplus", "pose45"): "{number}/{name}.jpg\n",
    ("rafdb", "occlusion"): "{name}_aligned {number} {kind}\r\n",
    ("rafdb", "pose30"): "{number}/{name}_aligned.jpg\n",
    ("rafdb", "pose45"): "{number}/{name}_aligned.jpg\n",
    ("affectnet", "occlusion"): "val/{number}/{name}/\n",
    ("affectnet", "pose30"): "{number}/{name}.jpg\n",
    ("affectnet", "pose45"): "{number}/{name}/8.jpg\n",
}


def chosen(dataset: str, test: Mapping[str, str], seed: int) -> dict[str, list[str]]:
    """Names of each subset in the order of `test` (name -> class), as many of each class as declared.

    As in the published lists, 45 degrees is a part of 30 degrees.
    """
    members: dict[str, set[str]] = {subset: set() for subset in SUBSETS}
    counts = {subset: declared(f"{PROTOCOLS[dataset]}-{subset}")["test"] for subset in SUBSETS}
    for label in dict.fromkeys(test.values()):
        names = [name for name, other in test.items() if other == label]
        names = [names[k] for k in shuffled(len(names), "lists", dataset, label, seed)]
        members["pose30"].update(names[: counts["pose30"][label]])
        members["pose45"].update(names[: counts["pose45"][label]])
        members["occlusion"].update(names[len(names) - counts["occlusion"][label] :])
    return {subset: [name for name in test if name in found] for subset, found in members.items()}


def write_lists(root: Path, dataset: str, test: Mapping[str, str], found: Mapping[str, list[str]]) -> None:
    """The files of one dataset, with as many repeats as the published ones have.

    Args:
        test: name without suffix -> class, all test images.
        found: what `chosen` gave for it.
    """
    order, known = ORDERS[FORMS[dataset, "pose30"].order], declare.load().protocols
    for subset, names in found.items():
        raw = known.get(f"{PROTOCOLS[dataset]}-{subset}@ran-raw")
        again = raw.counts["test"] - len(names) if raw else 0
        rows = [
            LINES[dataset, subset].format(name=name, number=order.index(test[name]), kind=k % 4 + 1)
            for k, name in enumerate([*names, *names[:again]])
        ]
        form = FORMS[dataset, subset]
        (root / FOLDER / form.folder).mkdir(parents=True, exist_ok=True)
        write_file(root / FOLDER / form.folder / form.file, "".join(rows).encode())
        if form.labels:
            numbers = [str(order.index(test[name])) for name in names]
            text = "\n".join([f"{len(names)} {len(order)}", *numbers, ""])
            write_file(root / FOLDER / form.folder / form.labels, text.encode())
