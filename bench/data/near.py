"""Near duplicates between splits: the same picture in another crop, size, brightness or compression.

Each image is kept as a grey thumbnail. A pair is looked at when the low frequencies of its thumbnails agree (cosine of
63 DCT coefficients), and counts when their details, with everything smooth taken away, correlate at some small shift.
Faces in the same pose agree in the first and not in the second.

How far details of different faces can agree depends on the set: more in aligned faces than in snapshots. So the limit
is measured on each set, by comparing its images with each other's mirror images. Mirrored faces agree as faces do and
are seldom the same picture, which makes their number at a limit an estimate of the false pairs there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels of a thumbnail
LOW = 8  # DCT coefficients kept in each direction
ALIKE = 0.75  # cosine of low frequencies from which a pair is looked at
NEAREST = 8  # pairs looked at per image
SMOOTH = 5  # pixels of the mean that is taken away
SHIFT = 2  # pixels of a thumbnail
LIMITS = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9)  # of the correlation; the first with few false pairs is taken
FALSE_SHARE = 0.05
SURE = 0.9  # from here on a mirrored pair is a mirrored copy (flipped before the split), no chance likeness
BLOCK = 1 << 23  # similarities in memory at a time
PAIRS = 2048  # pairs compared at a time

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """Pairs of near duplicates.

    Attributes:
        first, second: row numbers of each pair; `first` has the higher rank.
        score: correlation of their details, 0..1.
        limit: the score from which a pair counts.
        false_share: estimated share of pairs that are different pictures.
        mirrored: pairs (rows) of which one is the other's mirror image.
    """

    first: Ints
    second: Ints
    score: Floats
    limit: float
    false_share: float
    mirrored: list[tuple[int, int]] = field(default_factory=list)


def thumbnail(image: np.ndarray) -> NDArray[np.uint8]:
    """An image, uint8 (H, W) or (H, W, 3), as uint8 (SIDE, SIDE) grey."""
    from PIL import Image

    picture = Image.fromarray(image)
    if image.ndim == 3:
        picture = picture.convert("L")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))


def find(thumbnails: NDArray[np.uint8], rank: Ints, same: Ints) -> Near:
    """Near duplicates among images of different rank.

    Args:
        thumbnails: (N, SIDE, SIDE).
        rank: (N,) of each image's part, e.g. 0 train, 1 val, 2 test; negative ones take no part.
        same: (N,) equal numbers for identical images, whose pairs are left out.

    Returns:
        Pairs, the most alike first. Of the parts of lower rank, each image is compared with its `NEAREST` most alike.
    """
    first, second = _candidates(thumbnails, rank, mirror=False)
    different = same[first] != same[second]
    first, second = first[different], second[different]
    score = _correlation(thumbnails, first, second, mirror=False)
    decoy_first, decoy_second = _candidates(thumbnails, rank, mirror=True)
    decoy = _correlation(thumbnails, decoy_first, decoy_second, mirror=True)
    plain = _correlation(thumbnails, decoy_first, decoy_second, mirror=False)
    # a symmetric face and its copy agree both ways, which is no sign of chance
    limit, share = _limit(score, decoy[(decoy < SURE) & (plain < LIMITS[0])])
    found = np.flatnonzero(score >= limit)
    found = found[np.argsort(-score[found], kind="stable")]
    flipped = np.flatnonzero((decoy >= SURE) & (plain < limit))
    mirrored = [(int(decoy_first[k]), int(decoy_second[k])) for k in flipped]
    return Near(first[found], second[found], score[found], limit, share, mirrored)


def _limit(score: Floats, decoy: Floats) -> tuple[float, float]:
    """The lowest limit at which false pairs are few, and their estimated share there."""
    share = 0.0
    for limit in LIMITS:
        pairs, false = int((score >= limit).sum()), int((decoy >= limit).sum())
        share = min(1.0, false / pairs) if pairs else 0.0
        if false + 1 <= FALSE_SHARE * pairs:  # one more: that none was seen among few pairs says little
            return limit, share
    return LIMITS[-1], share


def _candidates(thumbnails: NDArray[np.uint8], rank: Ints, mirror: bool) -> tuple[Ints, Ints]:
    """Rows of the pairs to look at; `mirror` flips the first of each."""
    taking = np.flatnonzero(rank >= 0)
    none = taking[:0]
    if not len(taking):
        return none, none
    low = np.concatenate([_low(thumbnails[taking[k : k + PAIRS]]) for k in range(0, len(taking), PAIRS)])
    centre = low.mean(axis=0)
    known = _unit(low - centre)
    firsts, seconds = [none], [none]
    for own in np.unique(rank[taking])[1:]:
        rows, below = np.flatnonzero(rank[taking] == own), np.flatnonzero(rank[taking] < own)
        against = np.ascontiguousarray(known[below].T)
        asking = _unit(low[rows] * _MIRROR - centre) if mirror else known[rows]
        step = max(1, BLOCK // len(below))
        for start in range(0, len(rows), step):
            i, j = _nearest(asking[start : start + step] @ against)
            firsts.append(taking[rows[i + start]])
            seconds.append(taking[below[j]])
    return np.concatenate(firsts), np.concatenate(seconds)


def _nearest(alike: Floats) -> tuple[Ints, Ints]:
    """Row and column of the largest entries, at most `NEAREST` a row and none below `ALIKE`."""
    i, j = np.nonzero(alike >= ALIKE)
    order = np.lexsort((-alike[i, j], i))
    i, j = i[order], j[order]
    place = np.arange(len(i)) - np.searchsorted(i, i)
    return i[place < NEAREST], j[place < NEAREST]


def _correlation(thumbnails: NDArray[np.uint8], first: Ints, second: Ints, mirror: bool) -> Floats:
    """Correlation of the details of each pair, the best over small shifts."""
    score = np.zeros(len(first), dtype=np.float32)
    kept = np.r_[0 : SHIFT + 1, SIDE - SHIFT : SIDE]
    for start in range(0, len(first), PAIRS):
        part = slice(start, start + PAIRS)
        one = thumbnails[first[part]]
        a = np.fft.rfft2(_details(one[:, :, ::-1] if mirror else one))
        b = np.fft.rfft2(_details(thumbnails[second[part]]))
        shifted = np.fft.irfft2(a * b.conj(), s=(SIDE, SIDE))
        score[part] = shifted[:, kept][:, :, kept].max(axis=(1, 2))
    return score


def _details(thumbnails: NDArray[np.uint8]) -> Floats:
    """Thumbnails less their local mean, of unit length."""
    pad = SMOOTH // 2
    grey = thumbnails.astype(np.float32)
    total = np.pad(grey, ((0, 0), (pad, pad), (pad, pad)), mode="edge").cumsum(1).cumsum(2)
    total = np.pad(total, ((0, 0), (1, 0), (1, 0)))
    s = SMOOTH
    mean = (total[:, s:, s:] - total[:, :-s, s:] - total[:, s:, :-s] + total[:, :-s, :-s]) / s**2
    rest = (grey - mean).reshape(len(grey), -1)
    return _unit(rest).reshape(grey.shape)


def _low(thumbnails: NDArray[np.uint8]) -> Floats:
    """(N, 63) low DCT coefficients without the mean, weighted by frequency, of unit length: no brightness, contrast."""
    grey = thumbnails.astype(np.float32)
    found = (_COSINES @ grey @ _COSINES.T).reshape(len(grey), -1)[:, 1:] * _WEIGHTS
    return _unit(found.astype(np.float32))


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-3), dtype=np.float32)


_STEPS = np.arange(LOW)
_COSINES = np.cos(np.pi * np.outer(_STEPS, np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
_WEIGHTS = np.sqrt(np.add.outer(_STEPS**2, _STEPS**2)).ravel()[1:].astype(np.float32)
_MIRROR = np.tile((-1.0) ** _STEPS, LOW)[1:].astype(np.float32)  # odd columns change sign
