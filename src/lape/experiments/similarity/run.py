"""How alike translations lie in the residual stream, layer by layer, and how strongly each language dominates there.

After Tang et al. 2024 (mean sentence embedding similarity across layers, each language in turn as the target). Their exact
wording is not at hand, so the definition is ours:

- h_k(s, l): mean of the residual stream after decoder block l over the counted tokens of sentence s in language k.
- v_k(l): mean of h_k(s, l) over the sentences of half A.
- Dom_l(c): mean over languages k != c and sentences s of half B of cos(h_k(s, l) - v_k(l) + v_c(l), h_c(s, l)).

Adding v_c raises every cosine as it grows, so a dominance says little without the same on mismatched pairs, the mean over
all other sentences s' of half B of cos(h_k(s, l) - v_k(l) + v_c(l), h_c(s', l)): their difference is what to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lape.data.corpus import TextOptions
from lape.data.parallel import Parallel, aligned_lines
from lape.errors import MismatchError, TextError
from lape.experiments.similarity.vectors import sentence_vectors
from lape.measure.bootstrap import BLOCK, Resamples
from lape.measure.changes import resampled_ends
from lape.measure.result import Result
from lape.options import Options, Positive
from lape.progress import Progress, each, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEWEST_LINES = 2 * BLOCK
"""One block of lines in each half."""
DOMINANCE = {
    "layer": pl.Int64,
    "language": pl.String,
    **dict.fromkeys(("dominance", "mismatched", "difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("p_at_1", "p_at_1_chance", "norm"), pl.Float64),
}
PAIRS = {
    "layer": pl.Int64,
    **dict.fromkeys(("a", "b"), pl.String),
    **dict.fromkeys(("cosine", "mismatched"), pl.Float64),
}


@dataclass(frozen=True)
class SimilarityOptions(Options):
    """How the similarity of sentences across languages is measured. Each aligned line is a document."""

    column: str = "text"
    """The column of a .jsonl, .parquet or Hub data set that holds the text."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Begin rows with BOS: where the tokenizer adds one, always, or never (the published rule). BOS is never counted."""
    row_tokens: int = 512
    """Tokens in a row, BOS included; a longer sentence is cut."""
    batch_tokens: int = 2048
    """Tokens that run through the model at once."""
    one_per_row: bool = False
    """One sentence a row even where the model could keep several apart."""
    sentences: Positive | None = 400
    """Use the first so many aligned lines. Default: 400, whose vectors take 1.5 GB for a 7B model and 7 languages."""
    resamples: Positive = 2000
    """Bootstrap resamples of the blocks of 8 lines behind the 95 % intervals."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reading()  # checks the rest

    def reading(self) -> TextOptions:
        """The same, for what reads text."""
        names = {field.name for field in fields(TextOptions)} & set(vars(self))
        return TextOptions(**{name: getattr(self, name) for name in names})


def similarity(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    parallel: Parallel,
    options: SimilarityOptions,
    *,
    progress: Progress = shown,
) -> Result:
    """Dominance of each language and similarity of each pair, after each decoder block (after Tang et al. 2024; the definition is ours, see `dominance`).

    `parallel`: language tag -> a file or the lines themselves, line i the same sentence in each. Gives the tables `dominance`, a row per layer and
    target language, and `pairs`, a row per layer and pair of languages, as the functions of these names give them; cosines, −1 to 1.

    All sentence vectors are in memory at once, 4 · layers · width bytes per sentence and language: 1.5 GB for a 7B model
    (32 layers of 4096) with 400 sentences in 7 languages.

    Raises TextError for lines that are not aligned or too few, OptionError, ModelError.

    Example:
        >>> from lape.experiments.similarity.run import SimilarityOptions, similarity
        >>> lines = {language: texts[language].texts[:16] for language in ("en", "fr", "zh")}
        >>> result = similarity(model, tokenizer, lines, SimilarityOptions(resamples=20))
        >>> result["pairs"].columns
        ['layer', 'a', 'b', 'cosine', 'mismatched']
    """
    every = aligned_lines(parallel, column=options.column)
    lines = {language: found[: options.sentences] for language, found in every.items()}
    _check_enough(len(lines), len(next(iter(lines.values()), [])))
    vectors = sentence_vectors(model, tokenizer, lines, options.reading(), progress=progress)
    found = dominance(vectors, resamples=options.resamples, seed=options.seed, progress=progress)
    return Result({"dominance": found, "pairs": pairs(vectors)})


def _check_enough(languages: int, lines: int) -> None:
    if languages < 2:
        raise TextError(f"Aligned lines of {languages} languages were given. Expected two or more to compare.")
    if lines < FEWEST_LINES:
        raise TextError(f"There are {lines} aligned lines. Expected at least {FEWEST_LINES}, a block in each half.")


# --- tables, from vectors alone ---


def dominance(
    vectors: Mapping[str, Tensor], *, resamples: int = 2000, seed: int = 0, progress: Progress = shown
) -> pl.DataFrame:
    """How strongly each language dominates each layer, from (layers, sentences, width) vectors by language.

    A vector h_k(s) is the mean of the residual stream after a decoder block over the counted tokens of sentence s in language k, and v_k the mean of
    h_k over the sentences of half A. The dominance of language c is the mean, over the other languages k and the sentences s of half B, of
    cos(h_k(s) − v_k + v_c, h_c(s)): a sentence's own language taken off and c put on. Adding v_c alone raises every cosine, so the same is measured
    on `mismatched` pairs, with h_c of all other sentences of half B; the `difference` is what to read.

    Lines are split in blocks of 8 aligned ones, the same in every language: even blocks are half A, where the means are
    taken, odd ones half B, where everything else is measured. Columns: `layer` (the decoder block, from 0), `language` (the
    target c), `dominance` and `mismatched` (cosines), `difference` of the two, `low` and `high` (its 95 % interval over the
    blocks of half B, given the means of half A; null under 20 blocks), `p_at_1` (share of shifted sentences to which their
    own translation is nearer by cosine than any other sentence of half B, averaged over the other languages),
    `p_at_1_chance` (1 / sentences of half B), `norm` (‖v_c‖).

    Ours, after Tang et al. 2024. Raises TextError for fewer than 2 languages or 16 sentences, MismatchError for vectors of different shapes.

    Example:
        >>> import torch
        >>> from lape.experiments.similarity.run import dominance
        >>> shared = torch.randn(1, 32, 8, generator=torch.Generator().manual_seed(0))
        >>> table = dominance({"en": shared + torch.eye(8)[0], "fr": shared - torch.eye(8)[0]})
        >>> table["p_at_1"].to_list()  # the means of both languages explain all that is different
        [1.0, 1.0]
    """
    layers, count = _shape(vectors)
    half = _second_half(count)
    unit = np.arange(count)[half.numpy()] // (2 * BLOCK)
    drawn = Resamples(int(unit[-1]) + 1, resamples, seed)
    rows = []
    for layer in each(range(layers), "dominance", progress):
        means = {language: stack[layer][~half].double().mean(0) for language, stack in vectors.items()}
        here = {language: stack[layer][half].double() for language, stack in vectors.items()}
        for language in vectors:
            row = _dominance(here, means, language, unit, drawn)
            rows.append({"layer": layer, "language": language, **row})
    return pl.DataFrame(rows, schema=DOMINANCE)


def _dominance(
    here: dict[str, Tensor], means: dict[str, Tensor], target: str, unit: NDArray[np.int64], drawn: Resamples
) -> dict[str, float | None]:
    own, mismatched, hits = torch.stack(
        [
            _compared(here[language] - means[language] + means[target], here[target])
            for language in here
            if language != target
        ]
    ).mean(0)
    return {
        "dominance": float(own.mean()),
        "mismatched": float(mismatched.mean()),
        "difference": float((own - mismatched).mean()),
        **resampled_ends(unit, (own - mismatched).numpy(), np.ones(len(unit)), drawn),
        "p_at_1": float(hits.mean()),
        "p_at_1_chance": 1 / len(own),
        "norm": float(means[target].norm()),
    }


def _compared(shifted: Tensor, target: Tensor) -> Tensor:
    """(3, sentences): the cosine with the own translation, the mean with all others, and 1 where the own is the nearest."""
    cosines = F.normalize(shifted, dim=1) @ F.normalize(target, dim=1).T
    own = cosines.diagonal().clone()
    mismatched = (cosines.sum(1) - own) / (len(own) - 1)
    nearest = own > cosines.fill_diagonal_(-torch.inf).amax(1)
    return torch.stack([own, mismatched, nearest.to(own.dtype)])


def pairs(vectors: Mapping[str, Tensor]) -> pl.DataFrame:
    """How alike the sentences of two languages are as they lie, nothing shifted, on half B (see `dominance`).

    Columns: `layer`, `a`, `b` (languages, each pair once), `cosine` (mean over translations), `mismatched` (mean over
    sentences that are no translation of each other); cosines, −1 to 1. Raises as `dominance` does.

    Example:
        >>> import torch
        >>> from lape.experiments.similarity.run import pairs
        >>> english = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))  # layers, sentences, width
        >>> pairs({"en": english, "fr": -english})["cosine"].round(3).to_list()
        [-1.0, -1.0]
    """
    layers, count = _shape(vectors)
    half = _second_half(count)
    rows = []
    for layer in range(layers):
        here = {language: F.normalize(stack[layer][half].double(), dim=1) for language, stack in vectors.items()}
        for a, b in combinations(here, 2):
            own = float((here[a] * here[b]).sum())
            every = float(here[a].sum(0) @ here[b].sum(0))
            n = len(here[a])
            row = {"a": a, "b": b, "cosine": own / n, "mismatched": (every - own) / (n * (n - 1))}
            rows.append({"layer": layer, **row})
    return pl.DataFrame(rows, schema=PAIRS)


def _shape(vectors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Layers and sentences of vectors that can be compared."""
    shapes = {language: tuple(stack.shape) for language, stack in vectors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        listed = ", ".join(f"{language} {shape}" for language, shape in shapes.items())
        raise MismatchError(
            f"These vectors have shapes {listed}. Expected one shape (layers, sentences, width) for all languages."
        )
    layers, count, _ = next(iter(shapes.values()), (0, 0, 0))
    _check_enough(len(shapes), count)
    return layers, count


def _second_half(count: int) -> Tensor:
    """(sentences,) bool: the odd blocks of 8 lines."""
    return torch.arange(count) // BLOCK % 2 == 1
