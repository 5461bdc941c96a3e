"""Synthetic faces in the official layout of a dataset: its folders, file names, label files and counts.

A tree made here is laid out as the publisher lays it out, so that everything that reads the dataset can be tried at
full size without its restricted images. `synthfer.json` at its root says that it is no real copy.
"""

from __future__ import annotations

# layout -> what it is; the modules that write them are imported when one is asked for
LAYOUTS = {
    "rafdb": "EmoLabel/list_patition_label.txt, Image/aligned and Image/original",
    "affectnet-a": "release of 2017: training.csv, validation.csv, full pictures with face boxes",
    "affectnet-b": "release of 2021: train_set and val_set of 224 px crops with npy annotations",
    "ferplus": "FER2013Train, FER2013Valid, FER2013Test with label.csv and PNG, and fer2013new.csv",
    "fer2013-csv": "fer2013.csv beside fer2013new.csv and the three label.csv",
    "ckplus": "cohn-kanade-images, Emotion, Landmarks and FACS: sequences from neutral to peak",
}
