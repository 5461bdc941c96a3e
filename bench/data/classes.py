"""Names of expressions, and the orders in which public code numbers them.

At least ten orders are in use. A number is turned into a name once, when a copy is read, by the copy's own order; from
then on only names are used. Orders are facts of the public code named beside them.
"""

from __future__ import annotations

EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

_WORDS = {
    "neutral": ("neutrality", "natural", "normal"),
    "happiness": ("happy", "happines", "joy", "smile"),
    "surprise": ("surprised", "suprise", "suprised"),
    "sadness": ("sad",),
    "anger": ("angry",),
    "disgust": ("disgusted", "disgusting"),
    "fear": ("fearful", "afraid", "scared"),
    "contempt": ("contemptuous",),
}
_NAME_OF = {word: name for name, words in _WORDS.items() for word in (name, *words)}

# name of the order -> expressions from number 0 on
ORDERS: dict[str, tuple[str, ...]] = {
    # RAF-DB's own ids less one: POSTER, SCN, EAC, DAN, RAN on RAF-DB
    "raf": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    # AffectNet's own ids: POSTER and DAN on AffectNet, DDAMFN and EfficientFace also on RAF-DB
    "affectnet": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    # columns of the FER+ votes: RAN on FERPlus, Neural Resizer
    "ferplus": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    # ids of fer2013.csv
    "fer2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
    # any folder-per-class tree read in name order
    "alphabetical-7": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    "alphabetical-8": ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    # CK+'s own ids
    "ckplus": ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
    # the same without neutral (CK+48 in name order)
    "ckplus-7": ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
    "ckextended": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt"),
    "apvit": ("anger", "disgust", "fear", "sadness", "happiness", "surprise", "neutral", "contempt"),
    "resemotenet": ("happiness", "surprise", "sadness", "anger", "disgust", "fear", "neutral"),
}


def class_name(word: str) -> str | None:
    """The expression a folder, file part or label cell names ("Happy" -> "happiness"); None when it names none."""
    return _NAME_OF.get(word.strip().lower())
