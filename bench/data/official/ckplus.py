"""CK+ as its authors lay it out: sequences of frames from neutral to peak, by subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.classes import ORDERS
from bench.data.official import pictures
from bench.data.official.tree import Tree, cast, declared, in_blocks, shuffled, some, spread, write_file
from bench.data.synthfer.actions import UNITS
from bench.data.synthfer.rng import Draws, key_of
from bench.data.synthfer.sample import images, landmarks
from bench.data.synthfer.variants import VARIANTS

FOLDERS = ("cohn-kanade-images", "Emotion", "Landmarks", "FACS")
SEQUENCES, SUBJECTS, LABELLED_SUBJECTS = 593, 123, 118
FIRST_SUBJECT = 5
SMALL = 0.1
WIDTH, HEIGHT = 640, 490
SIDE = (WIDTH - HEIGHT) // 2  # a square is drawn; its outer columns are drawn out to the frame's sides
DRAWN = 164  # pixels a side of that square, before it is enlarged three times
BLOCK = 8  # sequences


class CKPlus(Tree):
    """cohn-kanade-images, Emotion, Landmarks and FACS. A row is a sequence.

    Sequences are numbered by subject; two in five have no Emotion file, as published.
    """

    pictures_each = VARIANTS["ckplus"].frames
    bytes_each = 800_000
    files_each = 2 * VARIANTS["ckplus"].frames + 2

    def __init__(self, like_counts: bool, seed: int) -> None:
        super().__init__(like_counts, seed)
        share = 1.0 if like_counts else SMALL
        counts = declared("ckplus-7@last1", share)["test"]
        labelled = spread(counts, "ckplus", seed)
        subjects, with_label = some(SUBJECTS, share), some(LABELLED_SUBJECTS, share)
        total = max(some(SEQUENCES, share), len(labelled))
        # by class, then dealt out in turn: a subject shows no expression twice
        labelled.sort(key=list(counts).index)
        posed: list[list[str]] = [[] for _ in range(subjects)]
        for k, label in enumerate(labelled):
            posed[k % with_label].append(label)
        self.places: list[tuple[int, int]] = []  # subject, number of the sequence (from 1)
        self.known: list[bool] = []  # has an Emotion file
        labels: list[str] = []
        for subject, k in enumerate(shuffled(subjects, "subjects", seed)):
            number = max(total // subjects + (subject < total % subjects), len(posed[k]))
            rest = [list(counts)[(subject + more) % len(counts)] for more in range(number - len(posed[k]))]
            self.places += [(subject, more + 1) for more in range(number)]
            self.known += [True] * len(posed[k]) + [False] * len(rest)
            labels += posed[k] + rest
        persons = [subject for subject, _ in self.places]
        self.cast = cast("ckplus", "ckplus", {"test": labels}, seed, persons)
        self.blocks = in_blocks({"test": len(labels)}, BLOCK)

    def begin(self, root: Path) -> None:
        for folder in FOLDERS:
            (root / folder).mkdir(exist_ok=True)

    def write(self, root: Path, block: int) -> None:
        _, rows = self.blocks[block]
        frames = self.cast.variant.frames
        known = self.cast.facts(range(rows.start * frames, rows.stop * frames))
        known = pictures.set_back(known, DRAWN, *_camera(known.sequence, f"ckplus/{self.seed}"))
        grown = HEIGHT / DRAWN
        points = (landmarks(known) + 0.5) * grown - 0.5 + np.array([SIDE, 0])
        for k, face in enumerate(images(known)):
            row, frame = int(known.sequence[k]), int(known.frame[k]) + 1
            subject, number = self.places[row]
            place = f"S{subject + FIRST_SUBJECT:03d}/{number:03d}"
            stem = f"{place.replace('/', '_')}_{frame:08d}"
            folders = {name: root / name / place for name in FOLDERS}
            if frame == 1:
                for name, folder in folders.items():
                    if name != "Emotion" or self.known[row]:
                        folder.mkdir(parents=True, exist_ok=True)
            picture = np.pad(pictures.resized(face, HEIGHT, HEIGHT), ((0, 0), (SIDE, SIDE)), mode="edge")
            write_file(folders["cohn-kanade-images"] / f"{stem}.png", pictures.png(picture, level=1))
            write_file(folders["Landmarks"] / f"{stem}_landmarks.txt", numbers(points[k]))
            if frame == frames:
                write_file(folders["FACS"] / f"{stem}_facs.txt", numbers(action_units(known.units[k])))
                if self.known[row]:
                    emotion = np.array([[ORDERS["ckplus"].index(self.cast.label(row))]])
                    write_file(folders["Emotion"] / f"{stem}_emotion.txt", numbers(emotion))


def numbers(table: np.ndarray) -> bytes:
    """Rows of numbers as CK+ prints them: 16 characters each."""
    return "".join("".join(f"{value:16.7e}" for value in row) + "\n" for row in table.tolist()).encode()


def action_units(strength: np.ndarray) -> np.ndarray:
    """Unit and level (1 to 5 for A to E) of the units (15,) that are to be seen."""
    levels = np.ceil(strength * 5)
    return np.array([[unit, level] for unit, level in zip(UNITS, levels, strict=True) if level]).reshape(-1, 2)


def _camera(sequence: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments of `set_back`, the same in all frames of a sequence."""
    draws = Draws(key_of("camera", key), sequence)
    return draws.uniform(0.55, 0.65), draws.uniform(-0.12, 0.12), draws.uniform(-0.2, 0.1)
