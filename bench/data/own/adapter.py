"""A user's own images: class folders or a list, and a ferbench.yaml that says what the labels mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.listed import ListedDataset
from bench.data.listing import Layout
from bench.data.own import file as own_file
from bench.data.own.file import FILE
from bench.data.own.layouts import OwnFolders, OwnList
from bench.data.preprocess import Preprocessing
from bench.declare import Protocol
from bench.errors import UserError
from bench.registry import dataset

if TYPE_CHECKING:
    import pandas as pd


@dataset("own", version=1)
class Own(ListedDataset):
    """A folder with a ferbench.yaml: any images, any classes."""

    formats: ClassVar[tuple[Layout, ...]] = (OwnFolders(), OwnList())
    layouts: ClassVar[tuple[str, ...]] = ("folders", "list")
    looked_for: ClassVar[str] = f"a {FILE} beside class folders or a list of images and labels"
    own_data: ClassVar[bool] = True

    def __init__(self, root: Path | None, protocol: Protocol) -> None:
        super().__init__(root, protocol)
        declared = own_file.read(self.folder)
        assert declared is not None  # a layout was found by it
        self.declared = declared
        self.default_preprocessing = declared.preprocessing  # type: ignore[misc]  # this folder's own

    @classmethod
    def serves(cls, root: Path, protocol: Protocol) -> bool:
        own = own_file.read(root)
        return own is not None and own.protocol_id in (protocol.id, protocol.subset_of)

    @property
    def profile(self) -> Preprocessing:
        """How pixels are made; as the folder's file says, unless a recipe asks for another way."""
        try:
            return super().profile
        except UserError as error:
            if self.preprocessing:
                raise
            raise UserError(f"{self.folder / FILE}: {error.message}", error.hint) from None

    def select(self, frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
        """All images; those in folds count as test images once.

        Raises:
            UserError: a class has no image, or none to train on, or nothing is left to test classes on.
        """
        if "fold" in frame:
            frame = frame.assign(split="test")
        trained = frame["label"][frame["split"] != "test"] if "fold" not in frame else _in_two_folds(frame)
        for label in protocol.classes:
            if label not in set(frame["label"]):
                message = f"{self.folder}: class '{label}' has no image"
                raise UserError(message, f"remove it from classes in {FILE}, or add images")
            if label not in set(trained):
                where = "lies in one fold alone" if "fold" in frame else "has no train image"
                raise UserError(f"{self.folder}: class '{label}' {where}", f"see `split` in {FILE}, or add images")
        if protocol.classes and not (frame["split"] == "test").any():
            raise UserError(f"{self.folder}: there is no test image", f"see `split` in {FILE}, or name a folder `test`")
        return frame


def _in_two_folds(frame: pd.DataFrame) -> pd.Series[str]:
    """Classes with images in more than one fold: each fold's training has some."""
    folds = frame.groupby("label")["fold"].nunique()
    return folds.index[folds > 1].to_series()
