"""Sets that carry AffectNet's name and are not AffectNet, told by what is in them.

Their labels were made by a model, or their images are of several data sets, so a result on them is comparable with no
paper. They are refused with the reason; as a user's own data they are welcome.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.data.class_folders import count, first_images, head, is_class, look
from bench.data.classes import class_name
from bench.data.listing import entries, is_folder
from bench.errors import UserError

HQ_IMAGES = 27_823  # AffectNet-HQ: train only, seven classes
TRAINING_DATA_IMAGES = 29_042  # the 96x96 set derived from it: eight class folders without split
HQ_CLASSES, TRAINING_DATA_CLASSES = 7, 8
USE = "It can be run as data of your own, not as AffectNet."
# names that the derived sets give; AffectNet's are whole numbers or 56 hex digits, and none of it is from FFHQ
_DERIVED_NAME = re.compile(r"(.*_)?(ffhq_\d+|image\d{7})\.[a-z]+", re.IGNORECASE)


def not_affectnet(root: Path) -> str:
    """What `root` holds instead of AffectNet, in words; "" where it is none of the known sets."""
    try:
        names = {entry.name.lower(): entry for entry in entries(root, 300)}
    except UserError:
        return ""
    folders = {name for name, entry in names.items() if is_folder(entry)}
    return _table(root) or _detection(root, names.keys() - folders, folders) or _tree(root) or _named_lists(root)


def _table(root: Path) -> str:
    """labels.csv of the 96x96 set: pth, label and a share called relFCs or PFC."""
    first = head(root / "labels.csv", 1)
    columns = {cell.strip(' "').lower() for cell in first[0].split(",")} if first else set()
    if "label" in columns and columns & {"relfcs", "pfc"}:
        return (
            f"{root} is a set of about 29,000 faces at 96x96 whose labels a model made from AffectNet-HQ "
            f"(labels.csv with a column relFCs or PFC), not AffectNet. {USE}"
        )
    return ""


def _detection(root: Path, files: set[str], folders: set[str]) -> str:
    """data.yaml with names of expressions over folders of box files: a YOLO data set."""
    config = next((root / name for name in ("data.yaml", "data.yml", "dataset.yaml") if name in files), None)
    if config is None:
        return ""
    words = re.findall(r"[A-Za-z]+", " ".join(head(config, 200)))
    if len({class_name(word) for word in words} - {None}) < 5:
        return ""
    boxes = [root / folder / "labels" for folder in folders] + [root / "labels"]
    if not any(folder.is_dir() for folder in boxes):
        return ""
    return (
        f"{root} is a YOLO set of faces with boxes ({config.name} beside folders 'labels'), mixed from several "
        f"data sets and labelled anew, not AffectNet. {USE}"
    )


def _tree(root: Path) -> str:
    """Class-name folders with the image names or exactly the number of images of a derived set."""
    shape = look(root, is_class)
    if shape is None or shape.numbered:
        return ""
    names = first_images(root, shape)
    derived = [name for name in names if _DERIVED_NAME.fullmatch(name)]
    if names and 2 * len(derived) > len(names):
        return (
            f"{root} has images called {derived[0]}: faces labelled by a model for AffectNet-HQ and the sets made from "
            f"it, not AffectNet. {USE}"
        )
    if shape.splits not in (("train",), ("",)):
        return ""
    limit = TRAINING_DATA_IMAGES + 1
    images = sum(n for tokens in count(root, shape, limit).values() for n in tokens.values())
    if (images, len(shape.tokens)) == (HQ_IMAGES, HQ_CLASSES):
        return f"{root} is AffectNet-HQ ({images:,} images of 7 classes, no test split), relabelled by a model. {USE}"
    if (images, len(shape.tokens)) == (TRAINING_DATA_IMAGES, TRAINING_DATA_CLASSES):
        return f"{root} has the {images:,} images of a set derived from AffectNet-HQ, labelled by a model. {USE}"
    return ""


def _named_lists(root: Path) -> str:
    """POSTER's lists over images of a derived set."""
    from bench.data.affectnet.lists import find_lists

    found = find_lists(root)
    if found is None:
        return ""
    names = [line.split()[0].rpartition("/")[2] for path in found.files.values() for line in head(path)]
    derived = [name for name in names if _DERIVED_NAME.fullmatch(name)]
    if 2 * len(derived) <= len(names):
        return ""
    return (
        f"{root} lists images called {derived[0]}: faces labelled by a model for AffectNet-HQ and the sets made from "
        f"it, not AffectNet. {USE}"
    )
