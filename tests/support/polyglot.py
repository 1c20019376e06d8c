"""A made model that goes on in the language it reads, about what it reads: what forcing should do to it is known.

A word is a language and a concept: its embedding is the sum of a direction for each. Attention takes the mean of what was read,
so the next word is likeliest in the language of the text, and about the concept that follows one of its concepts. A few
neurons of each layer see a language and write it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from lape.data.language_id import Guess, Identifier
from lape.data.texts import Documents
from support.tiny import LAYERS, tiny, word_tokenizer

LANGUAGES = ("en", "fr", "id")
CONCEPTS = 40
OWN = 4
"""Neurons of each language and layer that see and write it: the first of the layer, in the order of the languages."""
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
_FRAME = ["Q", "A", ":", "?", "."]
_WIDTH = 1200


def word(language: str, concept: int) -> str:
    """A concept's word: a letter for the language, three for the concept."""
    return language[0] + "".join("abcdefghij"[concept // 10**k % 10] for k in range(3))


@cache
def polyglot_tokenizer() -> Any:
    words = [word(language, concept) for language in LANGUAGES for concept in range(CONCEPTS)]
    return word_tokenizer([*_SPECIAL, *_FRAME, *words])


@cache
def polyglot() -> Any:
    size = len(_SPECIAL) + len(_FRAME) + len(LANGUAGES) * CONCEPTS
    model = tiny("llama", torch.float32, vocab_size=size, num_key_value_heads=4, intermediate_size=_WIDTH)
    generator = torch.Generator().manual_seed(1)
    concepts = torch.zeros(CONCEPTS, 32)
    concepts[:, 3:] = torch.randn(CONCEPTS, 29, generator=generator) * 0.4
    reads, writes = torch.zeros(size, 32), torch.zeros(size, 32)
    reads[: -len(LANGUAGES) * CONCEPTS, 3:] = torch.randn(9, 29, generator=generator) * 0.2
    writes[: -len(LANGUAGES) * CONCEPTS, :3] = -4  # nothing but words is ever written
    for k in range(len(LANGUAGES)):
        words = slice(9 + k * CONCEPTS, 9 + (k + 1) * CONCEPTS)
        reads[words] = concepts
        writes[words] = concepts.roll(1, 0)
        reads[words, k] = writes[words, k] = 2
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(reads)
        model.get_output_embeddings().weight.copy_(writes)
        for layer in model.model.layers:
            _attend_to_the_mean(layer.self_attn)
            _see_and_write_languages(layer.mlp)
    return model


def _attend_to_the_mean(attention: Any) -> None:
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    attention.v_proj.weight.copy_(torch.eye(32))
    attention.o_proj.weight.copy_(torch.diag(torch.tensor([1.0] * 3 + [2.0] * 29)))  # mostly about what was asked


def _see_and_write_languages(mlp: Any) -> None:
    for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        projection.weight.mul_(0.1)
    own = slice(0, OWN * len(LANGUAGES))
    for projection in (mlp.gate_proj, mlp.up_proj):
        projection.weight[own] = 0
    mlp.up_proj.weight[own, :3] = 1  # some language is always there
    mlp.down_proj.weight[:, own] = 0
    for k in range(len(LANGUAGES)):
        mine = slice(OWN * k, OWN * (k + 1))
        mlp.gate_proj.weight[mine, k] = 1
        mlp.down_proj.weight[k, mine] = 0.1


def own_neurons(language: str) -> list[int]:
    """Flat indices of the neurons that see and write a language."""
    k = LANGUAGES.index(language)
    return [_WIDTH * layer + OWN * k + one for layer in range(LAYERS) for one in range(OWN)]


def sentences(language: str, count: int, seed: int, end: str = ".") -> list[str]:
    """Random sentences; those of one seed say the same in every language."""
    generator = random.Random(seed)
    return [
        " ".join(word(language, generator.randrange(CONCEPTS)) for _ in range(generator.randint(4, 7))) + f" {end}"
        for _ in range(count)
    ]


def polyglot_texts(seed: int, count: int = 30) -> dict[str, Documents]:
    return {language: Documents(sentences(language, count, seed)) for language in LANGUAGES}


def polyglot_questions(seed: int, count: int, languages: Sequence[str] = LANGUAGES) -> dict[str, list[str]]:
    return {language: sentences(language, count, seed, "?") for language in languages}


def by_letter(_languages: Sequence[str] = LANGUAGES) -> Identifier:
    """An identifier of these languages: the one most words begin with, if any."""

    def guess(text: str) -> Guess:
        letters = [one[0] for one in text.split() if len(one) == 4]
        best = max(LANGUAGES, key=lambda language: letters.count(language[0]))
        certainty = letters.count(best[0]) / max(len(letters), 1)
        return Guess(best if certainty > 0.3 else None, certainty)

    return lambda texts: [guess(text) for text in texts]
