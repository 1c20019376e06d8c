"""Average precision of a neuron's answer to single texts at telling a language (Kojima et al. 2024, arXiv 2404.02431)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape.detect.common import found, languages_of, largest, short
from lape.detect.detector import Detector
from lape.detect.lape import scored_neurons
from lape.options import Options, Positive, keywords_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

Ints: TypeAlias = NDArray[np.int32]
_CHUNK = 2**8


@dataclass(frozen=True)
class ApOptions(Options):
    """How neurons are chosen by the average precision of their answer to single texts (Kojima et al. 2024)."""

    per_language: Positive = 100
    """Neurons of each language."""
    side: Literal["both", "top", "bottom"] = "both"
    """Those of largest average precision, of smallest, or half of each; of an odd number one more of the largest."""


@keywords_of(ApOptions)
def ap(stats: ActivationStats, options: ApOptions) -> LanguageNeurons:
    """For language k the neurons of largest and of smallest average precision AP_k, half of `per_language` each (Kojima et al. 2024, arXiv 2404.02431).

    A neuron's answer to a text is its mean activation over the text's counted tokens; AP_k is the average precision of that answer
    at telling the texts of k from those of the other languages, as they are (no weights). The smallest AP_k are neurons that
    are quieter in k than anywhere else; `side` takes those of one end alone. Neurons of MLPs only; the paper takes the outputs of all linear layers.
    The order of the texts changes nothing. Texts are documents in a language with 64 or more, else chunks of about 64 tokens:
    see `lape.recording.observers.texts.texts_of`. Raises OptionError for statistics recorded without `per_text`, or of a single language.

    Example:
        >>> from lape.detect.ap import ap
        >>> len(ap(stats, per_language=6, side="top")["fr"])
        6
    """
    languages = languages_of(stats)
    precision = average_precision([stats[language].extra("texts") for language in languages])
    scored = scored_neurons(stats)
    top = {"both": (options.per_language + 1) // 2, "top": options.per_language, "bottom": 0}[options.side]
    chosen = {
        language: _ends(row, top, options.per_language - top, scored)
        for language, row in zip(languages, precision, strict=True)
    }
    return found(stats, "ap", options, chosen, notes=short(chosen, options.per_language, "can be ranked"))


def _ends(precision: Tensor, top: int, bottom: int, scored: Tensor) -> Tensor:
    """The neurons of largest and of smallest average precision, none twice."""
    high = largest(precision, top, scored)
    rest = scored.clone()
    rest[high] = False
    return torch.cat([high, largest(-precision, bottom, rest)])


def average_precision(answers: Sequence[Tensor]) -> Tensor:
    """One (texts, neurons) float16 a language -> (languages, neurons) float64: each neuron's AP at telling each language.

    Σ over thresholds of (recall − recall before) · precision, equal answers being one threshold. That is the mean over the
    texts i of the language of #{texts j of it: r_j ≥ r_i} / #{all texts j: r_j ≥ r_i}. NaN for a language without texts.
    """
    neurons, sizes = answers[0].shape[1], [len(own) for own in answers]
    result = torch.full((len(answers), neurons), torch.nan, dtype=torch.float64)
    for at in range(0, neurons, _CHUNK):
        keys = np.concatenate([_keys(own[:, at : at + _CHUNK], k) for k, own in enumerate(answers)])
        rising = np.sort(np.ascontiguousarray(keys.T), axis=1)
        language, at_least = rising & 0xFFFF, _at_least(rising >> 16)
        for k, size in enumerate(sizes):
            if size:
                everyone = at_least[language == k].reshape(-1, size)
                result[k, at : at + _CHUNK] = torch.from_numpy((_at_least(everyone) / everyone).mean(1))
    return result


def _keys(answers: Tensor, language: int) -> Ints:
    """Numbers that sort as float16 answers do, with the language in their low 16 bits: numpy sorts whole numbers fast."""
    bits: Ints = (answers.half() + 0.0).contiguous().view(torch.int16).numpy().astype(np.int32)  # −0 becomes 0
    keys: Ints = ((bits ^ ((bits >> 31) & 0x7FFF)) << 16) | np.int32(language)
    return keys


def _at_least(ordered: Ints) -> Ints:
    """For each number of (rows, n), sorted so that equal ones are neighbours: how many of its row are equal to it or after it."""
    count = ordered.shape[1]
    first = np.zeros(ordered.shape, dtype=np.int32)
    first[:, 1:] = np.where(ordered[:, 1:] != ordered[:, :-1], np.arange(1, count, dtype=np.int32), 0)
    np.maximum.accumulate(first, axis=1, out=first)
    return np.subtract(count, first, out=first)


AP = Detector(
    "ap",
    "The neurons whose mean activation on single texts best tells a language's from the others'.",
    ApOptions,
    ap,
    published="Kojima et al. 2024, arXiv 2404.02431",
    needs=("texts",),
)
