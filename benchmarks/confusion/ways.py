"""Ways to make a chat model answer in a language, as they are told of in the literature or used by people, each as one context for `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lape.detect.identify import identify
from lape.edit.edit import Off, Scale, Set, edited
from lape.edit.positions import Positions
from lape.edit.steer import SHIPPED, steering
from lape.measure.language_confusion import letters
from lape.measure.mask import VocabularyMask, endings
from lape.measure.prompts import language_name
from lape.model.body import blocks
from lape.model.find import find
from lape.model.heads import heads
from lape.values.stats import ActivationStats


def line(language: str) -> str:
    """What the system is told."""
    return f"Always answer in {language_name(language, 'en')}."


OWN = {
    "de": "Antworte immer auf Deutsch.",
    "id": "Selalu jawab dalam bahasa Indonesia.",
    "ja": "必ず日本語で答えてください。",
    "ko": "항상 한국어로 대답하세요.",
    "vi": "Luôn trả lời bằng tiếng Việt.",
    "zh": "请始终用中文回答。",
}
"""The same in the language itself."""


class Bench:
    """A model with what the ways need: statistics, sets of neurons, scripts of tokens, heads."""

    def __init__(self, model: Any, tokenizer: Any, stats: ActivationStats) -> None:
        self.model, self.tokenizer, self.stats = model, tokenizer, stats
        self.sets = {"difference": identify(stats, "difference", per_language=100, reliability=False)}
        self.sets["lape"] = identify(stats, "lape", per_language=100, reliability=False)
        self.head: tuple[int, int] | None = None
        self.control: tuple[int, int] | None = None
        self.head_means: dict[str, Tensor] = {}

    @cached_property
    def blocks(self) -> list[nn.Module]:
        return list(blocks(self.model, find(self.model)))

    def residual(self, language: str) -> Tensor:
        """(layers, width) mean residual stream after each block."""
        one = self.stats[language]
        mean: Tensor = one.sums("residual") / int(one.tokens.sum())
        return mean

    @cached_property
    def pieces(self) -> list[bytes]:
        """Each token's bytes, of a byte-level vocabulary."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        back = {sign: byte for byte, sign in bytes_to_unicode().items()}
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return [bytes(back[sign] for sign in name) if all(sign in back for sign in name) else b"" for name in names]

    def unwanted(self, language: str) -> tuple[Tensor, Tensor]:
        """(vocabulary,) bool: tokens with a letter of another script than the language's; and tokens that are pieces of such letters alone."""
        _, foreign = letters(language)
        size = self.model.get_output_embeddings().weight.shape[0]
        whole, broken = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        for k, piece in enumerate(self.pieces):
            try:
                whole[k] = bool(foreign.search(piece.decode("utf-8")))
            except UnicodeDecodeError:
                broken[k] = True
        return whole, broken

    def broken_shares(self, language: str, most: int = 200) -> Tensor:
        """(vocabulary,) float: for a piece of a letter, how often it gives one of an unwanted script when a random other piece follows (bigrams alone)."""
        whole, broken = self.unwanted(language)
        ids = broken.nonzero()[:, 0].tolist()
        shares = torch.zeros(len(whole))
        generator = torch.Generator().manual_seed(0)
        _, foreign = letters(language)
        for k in ids:
            others = torch.randint(len(ids), (most,), generator=generator).tolist()
            texts = [(self.pieces[k] + self.pieces[ids[other]]).decode("utf-8", "ignore") for other in others]
            good = [text for text in texts if text]
            shares[k] = sum(bool(foreign.search(text)) for text in good) / max(1, len(good))
        return shares


Under = Callable[[Bench, str], "AbstractContextManager[Any]"]


def _nothing(_bench: Bench, _language: str) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True)
class Way:
    """A way: what is told to the system, shown before, and how the model is changed."""

    name: str
    family: str
    line: bool = False
    own: bool = False
    """Whether the line is in the language itself."""
    shots: int = 0
    under: Under = field(default=_nothing)
    mask: bool = False
    draw: int | None = None
    """Seed of a draw at temperature .3 and top-p .75, as the benchmark draws; None: greedy."""

    def told(self, language: str) -> str | None:
        """What the system is told."""
        return None if not self.line else OWN[language] if self.own else line(language)

    def processors(self, bench: Bench, language: str) -> list[Any]:
        if not self.mask:
            return []
        whole, _ = bench.unwanted(language)
        allowed = ~whole
        allowed[torch.tensor(endings(bench.tokenizer))] = True
        return [VocabularyMask(allowed)]


# Neurons


def _add(strength: float, sets: str = "difference") -> Under:
    return lambda bench, language: edited(
        bench.model,
        steering(bench.sets[sets], bench.stats, replace(SHIPPED, strength=strength), to=language),
    )


def _set(strength: float) -> Under:
    def under(bench: Bench, language: str) -> AbstractContextManager[Any]:
        value = bench.stats.mean(language) * strength
        return edited(bench.model, Set(bench.sets["difference"][language], value), spare=True)

    return under


def _off(bench: Bench, language: str) -> AbstractContextManager[Any]:
    neurons = bench.sets["difference"]
    return edited(bench.model, Off(neurons["en"] - neurons[language]))


# The residual stream


@contextmanager
def _after_blocks(bench: Bench, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    def hook(k: int) -> Callable[..., Any]:
        def put(_module: nn.Module, _args: Any, out: Any) -> Any:
            return change(k, out) if isinstance(out, Tensor) else (change(k, out[0]), *out[1:])

        return put

    handles = [block.register_forward_hook(hook(k)) for k, block in enumerate(bench.blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _diffmean(depth: float) -> Under:
    """CLaS-Bench (Gurgurov et al. 2026): the difference of means at unit norm × 5 after one block."""

    def under(bench: Bench, language: str) -> AbstractContextManager[Any]:
        at = round(depth * len(bench.blocks)) - 1
        apart = bench.residual(language)[at] - bench.residual("en")[at]
        amount = apart / apart.norm() * 5.0
        return _after_blocks(bench, lambda k, hidden: hidden + amount.to(hidden.dtype) if k == at else hidden)

    return under


@contextmanager
def _recover(bench: Bench, language: str) -> Iterator[None]:
    """ReCoVeR (Sterz et al. 2025): after every block the target's vector less the source's, at unit norm, and the old norm restored; not at position 0."""
    middle = torch.stack([bench.residual(one) for one in bench.stats.languages]).mean(0)
    vectors = (bench.residual(language) - middle) - (bench.residual("en") - middle)
    units = vectors / vectors.norm(dim=-1, keepdim=True)

    def change(k: int) -> Callable[[Tensor, Any], Tensor]:
        def moved(hidden: Tensor, _rows: Any) -> Tensor:
            there = hidden + units[k].to(hidden.dtype)
            return there * (hidden.norm(dim=-1, keepdim=True) / there.norm(dim=-1, keepdim=True))

        return moved

    with Positions(bench.model, "both").followed() as where:
        changes = [where.only(change(k), spare=True) for k in range(len(units))]
        with _after_blocks(bench, lambda k, hidden: changes[k](hidden, None)):
            yield


# The LM head


@contextmanager
def _smoothie(bench: Bench, language: str) -> Iterator[None]:
    """Smoothie-Qwen (2025): rows of tokens of unwanted scripts × .5, pieces of letters by how likely they become one; embeddings untied."""
    whole, _ = bench.unwanted(language)
    shares = bench.broken_shares(language)
    least, base = 0.5, 10.0
    scale = 1 - (1 - least) * torch.log(1 + (base - 1) * shares) / torch.log(torch.tensor(base))
    scale[whole] = least
    head = bench.model.get_output_embeddings()

    def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        return out * scale.to(out.dtype)  # row × scale is logit × scale, where there is no bias

    handle = head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


# Attention heads


def _both(*ways: Under) -> Under:
    """Several at once."""

    @contextmanager
    def under(bench: Bench, language: str) -> Iterator[None]:
        with ExitStack() as stack:
            for way in ways:
                stack.enter_context(way(bench, language))
            yield

    return under


def _head_scaled(factor: float) -> Under:
    """The best head gives so much more than it does."""

    def under(bench: Bench, _language: str) -> AbstractContextManager[Any]:
        assert bench.head is not None  # `find_head` was called
        return edited(bench.model, Scale(heads(bench.model, [bench.head]), factor))

    return under


def head_put(bench: Bench, place: tuple[int, int], value: Tensor | None) -> AbstractContextManager[Any]:
    """While inside, a head gives a constant at every position: (head width,) or, where None, zero."""
    chosen = heads(bench.model, [place])
    if value is None:
        return edited(bench.model, Off(chosen))
    whole = torch.zeros(len(chosen.space))
    whole[chosen.flat] = value
    return edited(bench.model, Set(chosen, whole))


def _head(what: str) -> Under:
    """The best head, or one of the same layer as a control: zero, its mean over languages, or its mean in the language."""

    def under(bench: Bench, language: str) -> AbstractContextManager[Any]:
        assert bench.head is not None  # `find_head` was called
        assert bench.control is not None
        place = bench.control if what == "control" else bench.head
        means = {k: mean[place[0], place[1]] for k, mean in bench.head_means.items()}
        value = {"zero": None, "mean": torch.stack([*means.values()]).mean(0)}.get(what, means[language])
        return head_put(bench, place, value)

    return under


WAYS: Sequence[Way] = (
    Way("none", "none"),
    Way("line", "prompt", line=True),
    Way("line in the language", "prompt", line=True, own=True),
    Way("line + add × .25", "neurons", line=True, under=_add(0.25)),
    Way("few-shot", "prompt", shots=3),
    Way("add × .25", "neurons", under=_add(0.25)),
    Way("add × .5", "neurons", under=_add(0.5)),
    Way("lm_head × .5", "output", under=_smoothie),
    Way("line + lm_head × .5", "output", line=True, under=_smoothie),
    Way("script mask", "output", mask=True),
    Way("line + script mask", "output", line=True, mask=True),
    Way("line + add × .5", "neurons", line=True, under=_add(0.5)),
    Way("add × 1", "neurons", under=_add(1.0)),
    Way("ReCoVeR", "residual", under=_recover),
    Way("line + ReCoVeR", "residual", line=True, under=_recover),
    Way("DiffMean 5, 1/2", "residual", under=_diffmean(1 / 2)),
    Way("DiffMean 5, 2/3", "residual", under=_diffmean(2 / 3)),
    Way("line + DiffMean 5, 1/2", "residual", line=True, under=_diffmean(1 / 2)),
    Way("head × 2", "head", under=_head_scaled(2.0)),
    Way("line + head × 2", "head", line=True, under=_head_scaled(2.0)),
    Way("line + head × 2 + add × .25", "neurons and head", line=True, under=_both(_head_scaled(2.0), _add(0.25))),
    Way("head × 2 + add × .25", "neurons and head", under=_both(_head_scaled(2.0), _add(0.25))),
    Way("head × 3", "head", under=_head_scaled(3.0)),
    Way("line + head × 1.5", "head", line=True, under=_head_scaled(1.5)),
    Way("line + DiffMean 5, 2/3", "residual", line=True, under=_diffmean(2 / 3)),
    Way("line + add × .25 of LAPE", "neurons", line=True, under=_add(0.25, "lape")),
    Way("head mean", "head", under=_head("steer")),
    Way("line + head mean", "head", line=True, under=_head("steer")),
    Way("set × 1", "neurons", under=_set(1.0)),
    Way("off en", "neurons", under=_off),
    Way("head zero", "head", under=_head("zero")),
    Way("head mean, control", "head", under=_head("control")),
    Way("add × .5 of LAPE", "neurons", under=_add(0.5, "lape")),
    Way("line + few-shot", "prompt", line=True, shots=3),
    *(Way(f"line, seed {seed}", "noise", line=True, draw=seed) for seed in range(2)),
    *(Way(f"none, seed {seed}", "noise", draw=seed) for seed in range(2)),
    Way("line + add × .35", "neurons", line=True, under=_add(0.35)),
    Way("line + head × 1.5 + add × .25", "neurons and head", line=True, under=_both(_head_scaled(1.5), _add(0.25))),
    Way("head, mean over languages", "head", under=_head("mean")),
)
"""All of them, those that matter most first."""
