"""Listings of large copies, kept as parquet under the cache folder: AffectNet has a million small label files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from bench import store
from bench.data.listing import Bad, Listing

FORMAT = 1  # of the files; another number is read again
KEEP_FROM = 20_000  # rows; smaller copies are read again faster than it takes to trust a cache


def get(identity: str, read: Callable[[], Listing]) -> Listing:
    """The listing of a copy, from the cache where one with this identity lies there.

    Args:
        identity: everything the listing depends on (dataset, version, folder, fingerprint).
        read: makes it.
    """
    digest = hashlib.sha256(f"{FORMAT} {identity}".encode()).hexdigest()[:24]
    path = store.cache_root() / "listings" / f"{digest}.parquet"
    found = _load(path)
    if found is None:
        found = read()
        if len(found.frame) >= KEEP_FROM:
            _save(path, found)
    return found


def _load(path: Path) -> Listing | None:
    """A kept listing; None where there is none or it does not read back whole."""
    if not path.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"ferbench"])
        frame = table.replace_schema_metadata(None).to_pandas()
        files = {name: Path(file) for name, file in about.pop("label_files").items()}
        bad = [Bad(**one) for one in about.pop("bad")]
        return Listing(frame, bad, label_files=files, **about)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def _save(path: Path, listing: Listing) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {
        "bad": [dataclasses.asdict(one) for one in listing.bad],
        "extra": listing.extra,
        "label_files": {name: str(file) for name, file in listing.label_files.items()},
        "remarks": listing.remarks,
        "order": listing.order,
    }
    table = pa.Table.from_pandas(listing.frame, preserve_index=False)
    table = table.replace_schema_metadata({"ferbench": json.dumps(about)})
    store.write_stream(path, lambda stream: pq.write_table(table, stream, compression="zstd"))
