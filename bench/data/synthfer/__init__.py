"""SynthFER: deterministic 2.5-D faces with known expression, action units, votes, landmarks and neutral twin.

>>> from bench.data.synthfer import facts, images
>>> known = facts("ferplus", seed=0, indices=[7])
>>> images(known).shape
(1, 48, 48)
"""

from bench.data.synthfer.sample import RENDERER_VERSION, Facts, facts, images, landmarks
from bench.data.synthfer.variants import VARIANTS, Variant

__all__ = ["RENDERER_VERSION", "VARIANTS", "Facts", "Variant", "facts", "images", "landmarks"]
