"""Ways of choosing neurons: each is one function from statistics to `LanguageNeurons`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lape.detect.alignment import alignment
from lape.detect.ap import ap
from lape.detect.attribution import attribution
from lape.detect.difference import difference
from lape.detect.lap import lap
from lape.detect.lape import lape
from lape.detect.lave import lave
from lape.detect.probability90 import probability90
from lape.detect.random import random
from lape.detect.variation import variation
from lape.values.neurons import LanguageNeurons

Method: TypeAlias = Callable[..., LanguageNeurons]
METHODS: dict[str, Method] = {
    "lape": lape,
    "lap": lap,
    "lave": lave,
    "random": random,
    "alignment": alignment,
    "difference": difference,
    "attribution": attribution,
    "ap": ap,
    "probability90": probability90,
    "variation": variation,
}
