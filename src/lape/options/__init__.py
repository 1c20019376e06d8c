"""Options: one frozen dataclass is the API's keyword, the command line's flag, the config file and the provenance."""

from lape.options.base import (
    check_choices,
    converted,
    count,
    given,
    not_negative,
    positive,
)
from lape.options.choosing import (
    AlignmentOptions,
    ApOptions,
    AttributionOptions,
    ChoosingOptions,
    DifferenceOptions,
    LapeOptions,
    LapOptions,
    Probability90Options,
    RandomOptions,
    VariationOptions,
)
from lape.options.evaluating import (
    AnsweringOptions,
    HarnessOptions,
    PerplexityOptions,
    ScriptOptions,
    SimilarityOptions,
    Writing,
)
from lape.options.reading import (
    ModelOptions,
    RecordOptions,
    TextOptions,
)
from lape.options.steering import (
    BeginningOptions,
    Family,
    ForcingOptions,
    GenerationOptions,
    SteerOptions,
)

__all__ = [
    "AlignmentOptions",
    "AnsweringOptions",
    "ApOptions",
    "AttributionOptions",
    "BeginningOptions",
    "ChoosingOptions",
    "DifferenceOptions",
    "Family",
    "ForcingOptions",
    "GenerationOptions",
    "HarnessOptions",
    "LapOptions",
    "LapeOptions",
    "ModelOptions",
    "PerplexityOptions",
    "Probability90Options",
    "RandomOptions",
    "RecordOptions",
    "ScriptOptions",
    "SimilarityOptions",
    "SteerOptions",
    "TextOptions",
    "VariationOptions",
    "Writing",
    "check_choices",
    "converted",
    "count",
    "given",
    "not_negative",
    "positive",
]
