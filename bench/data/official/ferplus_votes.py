"""Votes for synthetic FERPlus pictures that give every declared protocol its exact class counts.

The four vote rules keep more and more images: what majority keeps, soft keeps under the same class, and so on to
argmax8. So an image is given a class and the narrowest rule that keeps it, and votes that say just that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.data.ferplus.labels import COLUMNS, EMOTIONS
from bench.data.official.tree import declared, some
from bench.data.synthfer.actions import CONFUSION, RATERS
from bench.errors import UserError

NARROWEST = ("majority", "soft", "argmax10", "argmax8")  # each keeps what the one before keeps, and more
Cell = tuple[str, str]  # class, narrowest rule that keeps the image
NO_FACE = (0,) * (len(COLUMNS) - 1) + (RATERS,)


def cells(source: str, share: float = 1.0) -> dict[str, Counter[Cell]]:
    """How many images of each split lie in each cell.

    Args:
        source: "" for the votes of label.csv, "-fer2013new" for those of the other file.
        share: of every cell, at least one image where there are any.
    """
    found: dict[str, Counter[Cell]] = {}
    within: dict[tuple[str, str], int] = {}
    for rule in NARROWEST:
        for split, classes in declared(f"ferplus-8@{rule}{source}").items():
            for label, number in classes.items():
                new = number - within.get((split, label), 0)
                if new < 0:
                    message = f"protocol ferplus-8@{rule}{source}: fewer {label} images ({split}) than a narrower rule"
                    raise UserError(message, "correct the counts in bench/data/protocols.yaml")
                found.setdefault(split, Counter())[label, rule] = some(new, share)
                within[split, label] = number
    return found


def regrouped(cells: Sequence[Cell], wanted: Counter[Cell]) -> list[Cell]:
    """Cells of the same images under other counts; as few images as possible change.

    Raises:
        UserError: the counts are not of as many images.
    """
    if len(cells) != wanted.total():
        message = f"FERPlus protocols: {len(cells):,} images by label.csv, {wanted.total():,} by fer2013new.csv"
        raise UserError(message, "correct the counts of argmax8 in bench/data/protocols.yaml")
    spare = Counter(wanted)
    stay = []
    for cell in cells:
        stay.append(spare[cell] > 0)
        spare[cell] -= stay[-1]
    left = spare.elements()
    return [cell if same else next(left) for cell, same in zip(cells, stay, strict=True)]


def votes_for(cell: Cell, number: int) -> tuple[int, ...]:
    """Ten votes, in the order of COLUMNS, that put an image into its cell.

    Args:
        number: varies how clear a majority is, from 6 to 10 votes.
    """
    label, rule = cell
    others = [other for other in CONFUSION[label] if other in EMOTIONS]
    if rule == "majority":
        own = 6 + number % 5
        shares = [own, (RATERS - own + 1) // 2, (RATERS - own) // 2]
    elif rule == "soft":  # the three together are kept, none has half
        shares = [4, 3, 3]
    elif rule == "argmax10":  # four columns would be needed for half of the votes
        shares = [3, 2, 2, 2]
    else:  # unknown wins where it may
        shares = [4]
    votes = dict(zip([label, *others], shares, strict=False))
    rest = RATERS - sum(shares)
    if rule == "argmax8":
        votes["unknown"] = rest
    elif rest:
        votes[next(one for one in COLUMNS if one not in votes)] = rest
    return tuple(votes.get(column, 0) for column in COLUMNS)
