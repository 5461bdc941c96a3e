"""A batch of pictures in the making: coordinates on the head for every pixel, colour planes, and the few drawing primitives.

Planes are float32 arrays (B, P), P = size x size pixels; the fields of a face are columns (B, 1). Everything at pixel level is
+, -, *, /, sqrt, min, max: IEEE fixes their results to the last bit, so neither batch size nor platform can change a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.synthfer.geometry import CENTRE_Y, JAW_FROM, STRETCH_FROM
from bench.data.synthfer.people import Fields

LUMA = (0.299, 0.587, 0.114)
Plane = np.ndarray
Colour = Sequence[np.ndarray | float]


class Columns:
    """The fields of B faces as (B, 1) float32 columns; colours as one column per channel (one, of luma, where grey)."""

    def __init__(self, fields: Fields, rows: np.ndarray | slice, colour: bool) -> None:
        self._numbers: dict[str, np.ndarray] = {}
        self._colours: dict[str, list[np.ndarray]] = {}
        for name, values in fields.items():
            if values.ndim == 2:
                planes = [values[rows, channel] for channel in range(3)]
                if not colour:
                    planes = [planes[0] * LUMA[0] + planes[1] * LUMA[1] + planes[2] * LUMA[2]]
                self._colours[name] = [plane.astype(np.float32)[:, None] for plane in planes]
            else:
                self._numbers[name] = values[rows].astype(np.float32)[:, None]

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["_numbers"][name]
        except KeyError:
            raise AttributeError(name) from None

    def colour(self, name: str) -> list[np.ndarray]:
        """The colour `name`, one (B, 1) column per channel."""
        return self._colours[name]

    def some(self, rows: np.ndarray) -> Columns:
        """The columns of the faces `rows` only."""
        part = object.__new__(Columns)
        part._numbers = {name: values[rows] for name, values in self._numbers.items()}
        part._colours = {name: [plane[rows] for plane in planes] for name, planes in self._colours.items()}
        return part


def cover(distance: Plane, per_pixel: np.ndarray | float) -> Plane:
    """Anti-aliased coverage of a region: 1 inside (distance < 0), 0 outside, a ramp over one pixel. Overwrites `distance`."""
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


def bump(x: Plane, y: Plane, cx: np.ndarray | float, cy: np.ndarray | float, rx: np.ndarray | float, ry: np.ndarray | float) -> Plane:
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
    """B pictures of `size` pixels: `px`, `py` in the head's frame before turning, `x`, `y` on its front, and colour planes.

    `root` is the facing of the surface to the camera (0 at the outline); `rho` the elliptical radius (1 at the outline).
    """

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
        """Undo jaw drop, jaw width, and turn: the ray through each pixel meets the ellipsoid of the head (geometry._pose)."""
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


class Window:
    """A rectangle of the pictures `rows`, placed by each face: small features are drawn on few pixels, then put back.

    Args:
        canvas: the pictures.
        rows: which of them, (R,) int.
        left, right, top, bottom: what the window must show, offsets in face units from its centre.
        centre_u, centre_v: centre of the window in picture coordinates, (R, 1).
    """

    def __init__(
        self, canvas: Canvas, rows: np.ndarray, half_width: float, half_height: float, centre_u: np.ndarray, centre_v: np.ndarray
    ) -> None:
        size = canvas.size
        wide = min(int(half_width * size * 1.12) + 2, size)
        tall = min(int(half_height * size * 1.12) + 2, size)
        left = _corner(centre_u, wide, size)
        top = _corner(centre_v, tall, size)
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
        return plane.reshape(-1).take(self._flat)

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
    return np.clip(first, 0, size - extent)
