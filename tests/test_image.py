"""Reading one image file: what is accepted, what is refused, and that every refusal names file and remedy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import image
from bench.errors import UserError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(mode: str, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(stream, kind)
    return stream.getvalue()


def test_grey_and_colour_come_back_as_they_are(tmp_path: Path) -> None:
    for pixels in (GREY, COLOUR):
        (tmp_path / "a.png").write_bytes(png(pixels))
        np.testing.assert_array_equal(image.read_image(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [("RGBA", "PNG", "four channels"), ("P", "PNG", "palette"), ("CMYK", "JPEG", "CMYK"), ("1", "PNG", "one bit")],
)
def test_other_forms_are_refused_or_converted_on_demand(mode: str, kind: str, says: str) -> None:
    data = saved(mode, kind)
    with pytest.raises(UserError, match=says) as caught:
        image.decode(data, "set/a.img")
    assert "set/a.img" in caught.value.message
    assert "8-bit" in caught.value.hint
    assert image.decode(data, "a", convert=True).shape == (6, 8, 3)


@pytest.mark.parametrize("convert", [False, True])
def test_sixteen_bits_are_always_refused(convert: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000).save(stream, "PNG")
    with pytest.raises(UserError, match="16 bits"):
        image.decode(stream.getvalue(), "a.png", convert)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png is missing"):
        image.read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.png is empty"):
        image.read_image(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no picture")
    with pytest.raises(UserError, match=r"c\.png is not a readable image"):
        image.read_image(tmp_path / "c.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(UserError, match=r"loop\.png cannot be read"):
        image.read_image(tmp_path / "loop.png")


@given(st.integers(0, 10**9), st.sampled_from(["PNG", "JPEG"]))
def test_a_truncated_file_is_an_error(cut: int, kind: str) -> None:
    data = saved("RGB", kind)
    with pytest.raises(UserError, match=r"not a readable image|empty"):
        image.decode(data[: cut % (len(data) - 2)], "a")


@given(st.integers(8, 10**9), st.integers(0, 7))
def test_a_flipped_bit_in_a_png_is_an_error(place: int, bit: int) -> None:
    data = bytearray(png(COLOUR))
    data[8 + place % (len(data) - 8)] ^= 1 << bit
    with pytest.raises(UserError, match="not a readable image"):
        image.decode(bytes(data), "a")


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(data: bytes) -> None:
    try:
        found = image.decode(data, "a", convert=True)
    except UserError:
        return
    assert found.dtype == np.uint8
