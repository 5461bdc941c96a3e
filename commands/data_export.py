"""`data export`: a verified protocol as a Hugging Face dataset."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data export`."""
    parser.add_argument("protocol", metavar="PROTOCOL", help="such as raf-db-7 or own/my-faces (see `list datasets`)")
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new folder")
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")


def main(args: argparse.Namespace) -> int:
    """Exit status 0; a copy that is not exactly the protocol is a UserError, and nothing is written."""
    from bench import declare
    from bench.data import source
    from bench.data.hub import exporting as hub_export

    root = source.data_root(args.data_root)
    protocol = declare.load(root).protocol(args.protocol)
    found = hub_export.export(source.locate(protocol, root), protocol, args.dest.expanduser())
    print(f"{found.protocol}: " + ", ".join(f"{split} {n:,}" for split, n in found.counts.items()))
    print(f"manifest sha256 {found.manifest_sha256}{_published(found.published)}")
    for name, size in found.files.items():
        print(f"  {name}  {size / 2**20:,.1f} MiB")
    print(f"written to {args.dest}; read it with datasets.load_dataset({str(args.dest)!r})")
    print("see the terms in its README.md before you pass it on")
    return 0


def _published(published: bool | None) -> str:
    return {None: "", True: "  as published", False: "  NOT the published labels"}[published]
