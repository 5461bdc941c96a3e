"""A batch of pictures in the making: coordinates on the head, colour planes and the drawing primitives.

Planes are float32 arrays (B, P), P = size x size pixels; the fields of a face are columns (B, 1). Everything at pixel
level is +, -, *, /, sqrt, floor, min, max: IEEE fixes their results to the last bit, so neither the size of a batch nor
the platform changes a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.synthfer.geometry import CENTRE_Y, JAW_FROM, STRETCH_FROM
from bench.data.synthfer.people import Fields

LUMA = (0.299, 0.587, 0.114)
Plane = np.ndarray
Number = np.ndarray | float
Colour = Sequence[np.ndarray | float]


class Columns:
    """Fields of B faces as (B, 1) float32 columns; colours as one column per channel (one, of luma, where grey).

    Read like attributes: `f.zoom`. Only what is read is taken from the rows.
    """

    def __init__(
        self, numbers: Fields, colours: dict[str, list[np.ndarray]], rows: slice | np.ndarray = slice(None)
    ) -> None:
        self._numbers, self._colours, self._rows = numbers, colours, rows

    @classmethod
    def of(cls, fields: Fields, colour: bool) -> Columns:
        """All N faces of `fields`, see geometry.controls."""
        numbers: Fields = {}
        colours: dict[str, list[np.ndarray]] = {}
        for name, values in fields.items():
            if values.ndim == 1:
                numbers[name] = values.astype(np.float32)[:, None]
                continue
            planes = [values[:, channel] for channel in range(3)]
            if not colour:
                planes = [planes[0] * LUMA[0] + planes[1] * LUMA[1] + planes[2] * LUMA[2]]
            colours[name] = [plane.astype(np.float32)[:, None] for plane in planes]
        return cls(numbers, colours)

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            column: np.ndarray = self.__dict__["_numbers"][name][self.__dict__["_rows"]]
        except KeyError:
            raise AttributeError(name) from None
        self.__dict__[name] = column
        return column

    def colour(self, name: str) -> list[np.ndarray]:
        """The colour `name`, one (B, 1) column per channel."""
        return [plane[self._rows] for plane in self._colours[name]]

    def some(self, rows: slice | np.ndarray) -> Columns:
        """The faces `rows`, counted within these."""
        if isinstance(rows, np.ndarray) and isinstance(self._rows, slice):
            rows = rows + (self._rows.start or 0)
        return Columns(self._numbers, self._colours, rows)


def cover(distance: Plane, per_pixel: np.ndarray | float) -> Plane:
    """Anti-aliased coverage: 1 inside (distance < 0), 0 outside, a ramp over one pixel. Overwrites `distance`."""
    distance *= -per_pixel
    distance += np.float32(0.5)
    np.maximum(distance, 0.0, out=distance)
    np.minimum(distance, 1.0, out=distance)
    return distance


def ramp(x: Plane) -> Plane:
    """x limited to [0, 1], in place."""
    np.maximum(x, 0.0, out=x)
    np.minimum(x, 1.0, out=x)
    return x


def bump(x: Plane, y: Plane, cx: Number, cy: Number, rx: Number, ry: Number) -> Plane:
    """A smooth hill of height 1 on an ellipse: (1 - r^2)^2, zero outside."""
    u = x - cx
    u *= 1.0 / rx
    u *= u
    v = y - cy
    v *= 1.0 / ry
    v *= v
    u += v
    np.subtract(np.float32(1.0), u, out=u)
    np.maximum(u, 0.0, out=u)
    u *= u
    return u


def stroke(distance: Plane, width: np.ndarray | float) -> Plane:
    """A soft line: 1 at distance 0, falling to 0 at `width` on both sides. Overwrites `distance`."""
    distance *= 1.0 / width
    distance *= distance
    np.subtract(np.float32(1.0), distance, out=distance)
    np.maximum(distance, 0.0, out=distance)
    return distance


def wave(x: Plane) -> Plane:
    """A triangle wave of period 1 between 0 (at whole numbers) and 1. Overwrites `x`."""
    x -= np.floor(x + np.float32(0.5))
    np.abs(x, out=x)
    x *= np.float32(2.0)
    return x


class Canvas:
    """B pictures of `size` pixels.

    `px`, `py` are in the head's frame before turning, `x`, `y`, `z` on the head; `root` is the facing of the surface to
    the camera (0 at the outline), `rho` the elliptical radius (1 at the outline), `lambert` the light on the skin.
    """

    lambert: Plane

    def __init__(self, f: Columns, size: int, channels: int) -> None:
        self.f, self.size = f, size
        self.count = len(f.zoom)
        ticks = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2.0 / size)) - np.float32(1.0)
        u, v = np.tile(ticks, size)[None], np.repeat(ticks, size)[None]
        zoom = 1.0 / f.zoom
        self.u, self.v = u, v
        self.per_pixel = np.float32(size / 2) * f.zoom
        self.px = u * (f.cos_roll * zoom) + (v * (f.sin_roll * zoom) + f.origin_x)
        self.py = v * (f.cos_roll * zoom) - u * (f.sin_roll * zoom)
        self.py += f.origin_y
        self.planes: list[Plane] = [np.empty_like(self.px) for _ in range(channels)]
        self._chart()

    def _chart(self) -> None:
        """Undo jaw drop, jaw width and turn: where the ray through each pixel meets the ellipsoid (geometry._pose)."""
        f = self.f
        below = self.py - np.float32(STRETCH_FROM)
        np.maximum(below, 0.0, out=below)
        below *= f.stretch / (1.0 + f.stretch)
        qy = self.py - below
        narrow = qy - np.float32(JAW_FROM)
        np.maximum(narrow, 0.0, out=narrow)
        narrow *= -f.jaw
        narrow += 1.0
        np.maximum(narrow, 0.4, out=narrow)
        ex = self.px / narrow
        qy -= np.float32(CENTRE_Y)
        rho = ex * f.rim_xx
        rho += qy * f.rim_xy
        rho *= ex
        rho += (qy * f.rim_yy) * qy
        root = np.float32(1.0) - rho
        np.maximum(root, 0.0, out=root)
        np.sqrt(root, out=root)
        depth = root * np.sqrt(f.rim_root)
        depth -= ex * f.ray_x
        depth -= qy * f.ray_y
        depth *= f.ray_a
        self.x = ex * f.cos_yaw
        self.x -= depth * f.sin_yaw
        ex *= f.sin_yaw
        depth *= f.cos_yaw
        depth += ex
        self.z = qy * f.sin_pitch
        self.z += depth * f.cos_pitch
        qy *= f.cos_pitch
        depth *= f.sin_pitch
        qy -= depth
        qy += np.float32(CENTRE_Y)
        self.y = qy
        self.root = root
        self.rho = np.sqrt(rho)

    def paint(self, alpha: Plane, colour: Colour) -> None:
        """Lay `colour` (one entry per channel: column, plane or number) over the picture with opacity `alpha`."""
        lay(self.planes, alpha, colour)

    def shade(self, factor: Plane) -> None:
        """Multiply every channel."""
        for plane in self.planes:
            plane *= factor


def lay(planes: list[Plane], alpha: Plane, colour: Colour) -> None:
    """planes += alpha * (colour - planes), channel by channel."""
    for plane, value in zip(planes, colour, strict=True):
        difference = value - plane
        difference *= alpha
        plane += difference


ROOM = 1.12  # windows are this much larger than asked for, for faces that are zoomed in


class Window:
    """A rectangle of the pictures `rows`, placed by each face: small features are drawn on few pixels, then put back.

    Args:
        canvas: the pictures.
        rows: which of them, (R,) int.
        half: half width and half height, face units.
        centre: centre of the window in picture coordinates, two (R, 1).
    """

    def __init__(
        self, canvas: Canvas, rows: np.ndarray, half: tuple[float, float], centre: tuple[np.ndarray, np.ndarray]
    ) -> None:
        size = canvas.size
        wide = min(int(half[0] * size * ROOM) + 2, size)
        tall = min(int(half[1] * size * ROOM) + 2, size)
        left = _corner(centre[0], wide, size)
        top = _corner(centre[1], tall, size)
        offset = (np.arange(tall)[:, None] * size + np.arange(wide)).reshape(1, -1)
        self._flat = (rows * (size * size))[:, None] + top * size + left + offset
        self._canvas = canvas
        whole = len(rows) == canvas.count
        self.f = canvas.f if whole else canvas.f.some(rows)
        self.per_pixel = canvas.per_pixel if whole else canvas.per_pixel[rows]
        self.x, self.y = self.take(canvas.x), self.take(canvas.y)
        self.planes = [self.take(plane) for plane in canvas.planes]

    def take(self, plane: Plane) -> Plane:
        """The window's part of a plane of the canvas."""
        return np.asarray(plane.reshape(-1).take(self._flat))

    def paint(self, alpha: Plane, colour: Colour) -> None:
        """Lay `colour` over the window with opacity `alpha`."""
        lay(self.planes, alpha, colour)

    def shade(self, factor: Plane) -> None:
        """Multiply every channel."""
        for plane in self.planes:
            plane *= factor

    def close(self) -> None:
        """Write the window back into the pictures."""
        for plane, part in zip(self._canvas.planes, self.planes, strict=True):
            plane.reshape(-1)[self._flat] = part


def _corner(centre: np.ndarray, extent: int, size: int) -> np.ndarray:
    """First pixel of a window of `extent` pixels around `centre` (picture coordinates), kept inside the picture."""
    first = np.floor((centre.astype(np.float64) + 1.0) * (size / 2) + 0.5 - extent / 2).astype(np.int64)
    return np.asarray(np.clip(first, 0, size - extent))
