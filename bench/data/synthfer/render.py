"""From fields to pixels: every layer in order, then the camera."""

from __future__ import annotations

import numpy as np

from bench.data.synthfer import features, head, occluders
from bench.data.synthfer.canvas import Canvas, Columns, Plane
from bench.data.synthfer.people import Fields
from bench.data.synthfer.rng import pixel_noise

CHUNK_PIXELS = 48 * 1024  # pixels in flight: the planes at work stay in the caches, and Python's share stays small


def render(fields: Fields, size: int, colour: bool, noise_key: int, indices: np.ndarray) -> np.ndarray:
    """Draw N faces.

    Args:
        fields: see geometry.controls, (N,) numbers and (N, 3) colours.
        size: height and width in pixels.
        colour: three channels, else one of luma drawn natively.
        noise_key, indices: stream of the sensor noise of each picture.

    Returns:
        uint8 (N, size, size, 3) or (N, size, size).
    """
    count = len(indices)
    out = np.empty((count, size, size, 3) if colour else (count, size, size), np.uint8)
    step = max(1, CHUNK_PIXELS // (size * size))
    everyone = Columns.of(fields, colour)
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        canvas = Canvas(everyone.some(rows), size, 3 if colour else 1)
        draw(canvas)
        planes = [blur(plane, canvas) for plane in expose(canvas)]
        sensor(planes, canvas, noise_key, np.asarray(indices)[rows])
        for channel, plane in enumerate(planes):
            target = out[rows, :, :, channel] if colour else out[rows]
            target[...] = plane.reshape(target.shape)  # truncation; the half was added by the sensor
    return out


def draw(c: Canvas) -> None:
    """All layers, from back to front."""
    head.background(c)
    head.back_hair(c)
    head.body(c)
    head.ears(c)
    head.skin(c)
    head.beard(c)
    features.forehead(c)
    features.centre(c)
    features.moustache(c)
    features.mouth(c)
    for sign in (-1.0, 1.0):
        features.eye(c, sign)
    head.front_hair(c)
    occluders.glasses(c)
    occluders.sunglasses(c)
    occluders.mask(c)
    occluders.hand(c)


def expose(c: Canvas) -> list[Plane]:
    """Gain, lift and white balance."""
    f = c.f
    warmth = (1.0, 0.0, -1.0) if len(c.planes) == 3 else (0.0,)
    for plane, sign in zip(c.planes, warmth, strict=True):
        plane *= f.gain * (1.0 + sign * f.warm)
        plane += f.lift
    return c.planes


def blur(plane: Plane, c: Canvas) -> Plane:
    """Three-tap blur along both axes; `blur` is the weight taken from the centre, borders keep their own value."""
    weight = (c.f.blur * 0.5)[:, :, None]
    image = plane.reshape(c.count, c.size, c.size)
    around = image[:, :, :-2] + image[:, :, 2:]
    around -= image[:, :, 1:-1] * 2.0
    around *= weight
    image[:, :, 1:-1] += around
    around = image[:, :-2] + image[:, 2:]
    around -= image[:, 1:-1] * 2.0
    around *= weight
    image[:, 1:-1] += around
    return plane


def sensor(planes: list[Plane], c: Canvas, key: int, indices: np.ndarray) -> None:
    """Noise of light and of colour, then the grey scale 0..255 with half a level added for rounding."""
    light, tint = pixel_noise(key, indices, c.size * c.size)
    light *= c.f.noise * 255.0
    tint *= c.f.noise * 120.0
    for plane, sign in zip(planes, (1.0, 0.0, -1.0), strict=False):
        plane *= 255.0
        plane += light
        if len(planes) == 3 and sign:
            plane += tint * np.float32(sign)
        plane += 0.5
        np.maximum(plane, 0.0, out=plane)
        np.minimum(plane, 255.0, out=plane)
