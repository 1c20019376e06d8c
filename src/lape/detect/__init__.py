"""Selection methods: each is one function from statistics to `LanguageNeurons`, with a record of itself beside it."""

from __future__ import annotations

from itertools import chain
from pkgutil import resolve_name
from typing import Any

from lape.detect.detector import Detector
from lape.plugins import added, by_name

GROUP = "lape.detectors"
"""The group of entry points by which other packages add theirs: NAME = "package.module:DETECTOR"."""
_OURS = (
    "lape.detect.lape:LAPE",
    "lape.detect.lap:LAP",
    "lape.detect.lave:LAVE",
    "lape.detect.random:RANDOM",
    "lape.detect.alignment:ALIGNMENT",
    "lape.detect.difference:DIFFERENCE",
    "lape.detect.attribution:ATTRIBUTION",
    "lape.detect.ap:AP",
    "lape.detect.probability90:PROBABILITY90",
    "lape.detect.variation:VARIATION",
)


DETECTORS: dict[str, Detector[Any]] = by_name(chain(map(resolve_name, _OURS), added(GROUP, Detector)), "detectors")
"""Every selection method, by name."""
