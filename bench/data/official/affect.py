"""Valence and arousal of SynthFER faces: where their expression lies in the circumplex (Russell 1980)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# valence, arousal at full intensity
CENTRES = {
    "neutral": (0.0, 0.0),
    "happiness": (0.85, 0.30),
    "surprise": (0.20, 0.85),
    "sadness": (-0.75, -0.35),
    "anger": (-0.60, 0.70),
    "disgust": (-0.75, 0.45),
    "fear": (-0.20, 0.90),
    "contempt": (-0.60, 0.50),
}


def affect(labels: Sequence[str], intensity: np.ndarray) -> list[tuple[float, float]]:
    """(valence, arousal), each in [-1, 1], rounded to six digits."""
    strength = np.clip(intensity, 0.0, 1.0).tolist()
    scaled = [(CENTRES[label], share) for label, share in zip(labels, strength, strict=True)]
    return [(round(v * share, 6), round(a * share, 6)) for (v, a), share in scaled]
