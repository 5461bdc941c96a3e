"""Ten folds of CK+, which has no official split: by subject, and dealt out image by image.

By subject: the labelled subjects in ascending order of id, every tenth one in the same fold. This is the split the
literature describes as "ID ascending order with step 10", and for the 118 labelled subjects of the official release it
is fold for fold the list published with Emotion-FAN (github.com/Open-Debin/Emotion-FAN). A subject has one fold in all
protocols: with 6, 7 or 8 classes, three frames of a sequence or one, and in every layout.

At random: what papers do that do not speak of subjects. Frames of one person, even of one sequence, come to lie in
train and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# The 118 subjects with a labelled sequence. Their order alone makes the folds; it is written out so that a copy that
# lacks a subject keeps all others where they are.
_NUMBERS = """
005 010 011 014 022 026 028 029 032 034 035 037 042 044 045 046 050 051 052 053 054 055 056 057 058 059 060 061 062
063 064 065 066 067 068 069 070 071 072 073 074 075 076 077 078 079 080 081 082 083 084 085 086 087 088 089 090 091
092 093 094 095 096 097 098 099 100 101 102 105 106 107 108 109 110 111 112 113 114 115 116 117 119 122 124 125 126
127 128 129 130 131 132 133 134 135 136 137 138 139 147 148 149 151 154 155 156 157 158 160 501 502 503 504 505 506
895 999
"""
SUBJECTS = tuple(f"S{number}" for number in _NUMBERS.split())


def by_subject(subjects: Iterable[str], folds: int) -> dict[str, int]:
    """Fold of each subject, from 0.

    Args:
        subjects: ids of the subjects with a labelled sequence, in any order, with repeats. Where one of them is not
            in the official release, the order of those given counts, not that of `SUBJECTS`.
        folds: number of folds.
    """
    own = set(subjects)
    ranks = {subject: rank for rank, subject in enumerate(SUBJECTS if own <= set(SUBJECTS) else sorted(own))}
    return {subject: ranks[subject] % folds for subject in sorted(own)}


def at_random(names: Iterable[str], folds: int) -> dict[str, int]:
    """Fold of each image, from 0: images in the order of their names' SHA-256 are dealt out one by one.

    Not stratified. Folds differ by one image at most; the same names always give the same folds.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(f"ckplus {name}".encode()).digest())
    return {name: rank % folds for rank, name in enumerate(order)}
