"""`data import`: a Hugging Face dataset, local or from the hub, as a folder that can be verified and run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.hub.importing import Imported


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data import`."""
    parser.add_argument(
        "source", metavar="SOURCE", help="folder of a dataset repository or of save_to_disk, or owner/name on the hub"
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new folder")
    parser.add_argument("--config", help="configuration of the dataset, where it has several")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--as", dest="dataset", default="", metavar="DATASET", help="lay it out as this dataset, if it is"
    )
    parser.add_argument("--image", default="", metavar="COLUMN", help="the column of images, where there are several")
    parser.add_argument("--label", default="", metavar="COLUMN", help="the column of labels, where there are several")
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="NAME", help="names of label numbers from 0 on, or a known order"
    )
    parser.add_argument(
        "--splits", nargs="+", default=[], metavar="NAME=PART", help="what its splits are: train, val, test or none"
    )


def main(args: argparse.Namespace) -> int:
    """Exit status 0; what cannot be imported is a UserError, and nothing is written."""
    from bench import declare
    from bench.data.hub import importing as hub
    from bench.data.hub import source as hub_source

    declared = declare.load()
    opened = hub_source.open_source(args.source, args.config, args.revision)
    columns = hub_source.find_columns(opened.features, args.image, args.label, args.classes)
    dest = args.dest.expanduser()
    found = hub.import_dataset(
        opened, columns, dest, declared.protocols, parts=_parts(args.splits), as_dataset=args.dataset
    )
    print(f"{args.source}: images in '{columns.image}', labels in '{columns.label}'")
    for part, classes in found.counts.items():
        print(
            f"  {part or 'all':6} {sum(classes.values()):>9,}  " + ", ".join(f"{c} {n:,}" for c, n in classes.items())
        )
    for remark in found.remarks:
        print(f"note: {remark}")
    if found.exported_as:
        print(f"exported by ferbench from {found.exported_as}: names, labels, splits and images are unchanged")
    _print_alike(found, args.dataset)
    print(f"written to {dest}: {found.protocol}\nnext:\n  python run_all.py data verify {dest}")
    print(f"  python run_all.py --experiment fervt --protocol {found.protocol} --profile short --data-root {dest}")
    return 0


def _parts(texts: list[str]) -> dict[str, str]:
    from bench.errors import UserError

    found = {}
    for text in texts:
        name, equals, part = text.rpartition("=")
        if not equals:
            raise UserError(f"--splits {text}", "write NAME=train, NAME=val, NAME=test or NAME=none")
        found[name] = part
    return found


def _print_alike(found: Imported, imported_as: str) -> None:
    if not found.alike:
        print("the counts are those of no declared protocol")
    elif not imported_as:
        print(f"the counts are those of {', '.join(found.alike)}")
        for name in found.readable_as:
            print(f"  --as {name} lays it out as {name}, to be run as that protocol")
