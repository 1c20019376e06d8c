"""Ways of choosing neurons: each is one function from statistics to `LanguageNeurons`, with a record of itself beside it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from lape.detect.detector import Detector
from lape.errors import OptionError

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


def _added() -> Iterator[Detector[Any]]:
    """Those of other packages."""
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist else "A package"
        try:
            detector = point.load()
        except Exception as error:
            raise OptionError(
                f"{package} adds a detector, {point.value}, that cannot be imported: {error}. Mend the package, or uninstall it."
            ) from error
        if not isinstance(detector, Detector):
            raise OptionError(
                f"{package} adds {point.value} as a detector. Expected a lape.detect.detector.Detector, found {type(detector).__name__}."
            )
        yield detector


def _every() -> dict[str, Detector[Any]]:
    found: dict[str, Detector[Any]] = {}
    for detector in (*map(resolve_name, _OURS), *_added()):
        if detector.name in found:
            raise OptionError(f"Two detectors are called {detector.name}. Uninstall the package that adds the second.")
        found[detector.name] = detector
    return found


DETECTORS = _every()
"""Every way of choosing neurons, by name."""
