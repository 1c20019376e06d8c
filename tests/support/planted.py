"""A made model whose neurons' kinds are known: what every selection method must find in it, and what it must miss.

A word is a language direction, a constant and a random identity. There is no attention, so the next word depends on the last
one alone; the output reads other dimensions than the input writes, so that only neurons can raise a word's probability.
The texts draw words uniformly, but for each language's cue word, which an echo word always follows, and a full stop at the end.
All neurons lie scattered over both layers, so that no tie is broken in favour of what was planted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lape.data.texts import Documents
from lape.values.stats import ActivationStats
from support.tiny import tiny, word_tokenizer

LANGUAGES = ("en", "fr", "id", "zh")
PAIRS = (("en", "fr"), ("id", "zh"))
WORDS = 24
"""Words of each language; a language has its own."""
DEPTH, WIDTH = 2, 1400
KINDS = {"own": 2, "null": 1, "rare": 1, "shared": 1, "everywhere": 2}
"""How many neurons of a kind a layer has: of each language, of each pair for `shared`, in all for `everywhere`.

own: fires on one language and raises its words. null: fires the same way and writes nothing. rare: fires on the cue word of one
language alone and raises the echo. shared: fires on two languages and raises the words of both. everywhere: fires on every
token and raises all words above the junk that is never written.
"""
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
_JUNK = 40
_SIZE = len(_SPECIAL) + _JUNK + 1 + WORDS * len(LANGUAGES)
_HIDDEN, _K = 64, len(LANGUAGES)
_LANGUAGE, _CONSTANT, _CUE = range(_K), _K, range(_K + 1, 2 * _K + 1)
_WORD, RAISED, _ECHO = 2 * _K + 1, range(2 * _K + 2, 3 * _K + 2), range(3 * _K + 2, 4 * _K + 2)
_IDENTITY = slice(4 * _K + 2, _HIDDEN)
_JUNK_LOGIT, _STOP_LOGIT = 3.5, 8.0
_LEVEL = 3.0
"""How strongly an embedding says its language, the constant, and that it is the cue."""


def word(language: str, number: int) -> str:
    """Number 0 is the cue, 1 its echo."""
    return f"{language}{number:02}"


@cache
def planted_tokenizer() -> Any:
    words = [word(language, number) for language in LANGUAGES for number in range(WORDS)]
    return word_tokenizer([*_SPECIAL, *(f"junk{k}" for k in range(_JUNK)), ".", *words])


@cache
def planted() -> Any:
    """The model; tests leave it as it was."""
    generator = torch.Generator().manual_seed(2)
    model = tiny(
        "llama",
        torch.float32,
        vocab_size=_SIZE,
        hidden_size=_HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_key_value_heads=4,
    )
    reads, writes = _embeddings(generator)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(reads)
        model.get_output_embeddings().weight.copy_(writes)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            _background(layer.mlp, generator)
            for neuron, (kind, languages) in kinds(number).items():
                _plant(layer.mlp, neuron, kind, [LANGUAGES.index(k) for k in languages])
    return model


def _embeddings(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a token says, of length √width so that the norm changes nothing at first; and what makes it likely."""
    reads, writes = torch.zeros(_SIZE, _HIDDEN), torch.zeros(_SIZE, _HIDDEN)
    first = _SIZE - WORDS * _K
    reads[:, _CONSTANT] = _LEVEL
    writes[: first - 1, _CONSTANT] = _JUNK_LOGIT / _LEVEL
    writes[first - 1, _CONSTANT] = _STOP_LOGIT / _LEVEL
    writes[first:, _WORD] = 1
    for k in range(_K):
        mine = slice(first + k * WORDS, first + (k + 1) * WORDS)
        reads[mine, _LANGUAGE[k]] = _LEVEL
        reads[mine.start, _CUE[k]] = _LEVEL
        writes[mine, RAISED[k]] = 1
        writes[mine.start + 1, _ECHO[k]] = 1
    identity = torch.randn(_SIZE, _HIDDEN - _IDENTITY.start, generator=generator)
    left = (_HIDDEN - reads.square().sum(1, keepdim=True)).sqrt()
    reads[:, _IDENTITY] = F.normalize(identity) * left
    return reads, writes


def _background(mlp: Any, generator: torch.Generator) -> None:
    """Neurons that fire on some random words of every language and write next to nothing."""
    for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        projection.weight.zero_()
    count = _HIDDEN - _IDENTITY.start
    mlp.gate_proj.weight[:, _IDENTITY] = torch.randn(WIDTH, count, generator=generator) / 7
    mlp.gate_proj.weight[:, _CONSTANT] = -2 * torch.rand(WIDTH, generator=generator) / _LEVEL
    mlp.up_proj.weight[:, _CONSTANT] = 1 / _LEVEL
    mlp.down_proj.weight.copy_(torch.randn(_HIDDEN, WIDTH, generator=generator) * 0.003)


def _plant(mlp: Any, neuron: int, kind: str, languages: list[int]) -> None:
    """The neuron's gate is about 3 where it fires and about -6 elsewhere; a random part of it differs between words."""
    gate, down = mlp.gate_proj.weight[neuron], mlp.down_proj.weight[:, neuron]
    gate[_IDENTITY] *= 0.5
    gate[_CONSTANT] = 1 if kind == "everywhere" else -2
    seen = _CUE if kind == "rare" else _LANGUAGE
    for k in languages if kind != "everywhere" else []:
        gate[seen[k]] = 3
    down.zero_()
    if kind == "everywhere":
        down[_WORD] = 0.25
    for k in languages if kind in ("own", "shared") else []:
        down[RAISED[k]] = 0.25
    for k in languages if kind == "rare" else []:
        down[_ECHO[k]] = 0.5


@cache
def kinds(layer: int) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Neuron of a layer -> its kind and the languages it serves."""
    todo = [
        (kind, languages)
        for kind, count in KINDS.items()
        for languages in {"shared": PAIRS, "everywhere": (LANGUAGES,)}.get(kind, tuple((k,) for k in LANGUAGES))
        for _ in range(count)
    ]
    places = random.Random(layer).sample(range(WIDTH), len(todo))
    return dict(zip(places, todo, strict=True))


def neurons_of(kind: str, language: str | None = None) -> set[int]:
    """Flat indices of the neurons of a kind, of those that serve a language."""
    return {
        layer * WIDTH + neuron
        for layer in range(DEPTH)
        for neuron, (other, languages) in kinds(layer).items()
        if other == kind and (language is None or language in languages)
    }


def sentences(language: str, count: int, seed: int) -> list[str]:
    generator = random.Random(f"{language}{seed}")
    result = []
    for _ in range(count):
        numbers: list[int] = []
        for _ in range(generator.randint(6, 14)):
            numbers.append(1 if numbers and numbers[-1] == 0 else generator.randrange(WORDS))
        result.append(" ".join(word(language, number) for number in numbers) + " .")
    return result


def planted_texts(seed: int, count: int = 150) -> dict[str, Documents]:
    return {language: Documents(sentences(language, count, seed)) for language in LANGUAGES}


@cache
def planted_stats() -> ActivationStats:
    """Recorded with everything that can be recorded beside counts and sums."""
    from lape import record

    return record(
        planted(),
        planted_tokenizer(),
        planted_texts(0),
        residual=True,
        attribution=10_000,
        per_text=True,
        histogram=True,
        also="columns",
    )


@contextmanager
def zeroed(model: Any, flat: int) -> Iterator[None]:
    """While inside, a neuron writes nothing: exact ablation, without the library."""
    weight = model.model.layers[flat // WIDTH].mlp.down_proj.weight
    column = weight[:, flat % WIDTH].detach().clone()
    with torch.no_grad():
        weight[:, flat % WIDTH] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            weight[:, flat % WIDTH] = column


def losses(model: Any, texts: dict[str, Documents]) -> dict[str, float]:
    """Language -> nats per token, by the model's own logits."""
    result = {}
    for language, documents in texts.items():
        rows = planted_tokenizer()(list(documents.texts), padding=True, return_tensors="pt")
        ids = rows["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].double()
        targets = ids[:, 1:].masked_fill(rows["attention_mask"][:, 1:] == 0, -100)
        result[language] = float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100))
    return result


SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 172, "num_key_value_heads": 4},
    "bloom": {"intermediate_size": 256},
}
"""The proportions of LLaMA-2-7B (a gated MLP of 2.69 times the width, as many heads of keys as of queries) and of BLOOM-7B1 (4 times, biases, ALiBi)."""


@cache
def shaped(kind: str) -> Any:
    """A random model in one of `SHAPES`, with the planted one's vocabulary; tests leave it as it was."""
    return tiny(kind, torch.float32, vocab_size=_SIZE, hidden_size=64, **SHAPES[kind])


def planted_folder(folder: Path, model: Any = None) -> Path:
    """On disk: `model`, the planted one unless another of its vocabulary is given, a `run` with its neurons, `TAG.txt` that was recorded and `TAG2.txt`,
    parallel line by line, that was not.
    """
    from lape import identify, record

    model = planted() if model is None else model
    model.save_pretrained(folder / "model")
    planted_tokenizer().save_pretrained(folder / "model")
    for language in LANGUAGES:
        (folder / f"{language}.txt").write_text("\n".join(sentences(language, 80, 1)) + "\n")
        (folder / f"{language}2.txt").write_text("\n".join(sentences(language, 60, 2)) + "\n")
    texts = {language: folder / f"{language}.txt" for language in LANGUAGES}
    options = {"document": "line", "row_tokens": 64, "residual": True}
    stats = record(model, planted_tokenizer(), texts, out=folder / "run", **options)
    identify(stats, reliability=False).save(folder / "run" / "neurons.safetensors")
    return folder
