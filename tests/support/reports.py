"""Runs that reports are made of, and text that means no good."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

import lape
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.experiments.examples.contexts import CONTEXTS
from lape.experiments.perplexity.run import perplexity
from lape.recording.record import record
from support.brute import model_of, some_texts, tokenizer_of

STUDY = Path(__file__).parents[2] / "docs" / "studies" / "gemma-3-270m"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202eevil\x00" + "x" * 100_000


@pytest.fixture(scope="module")
def texts():
    return {language: Documents(some_texts(60, seed)) for seed, language in enumerate(("en", "fr", "zh-Hant"))}


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory) -> Path:
    """Recorded and identified."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    stats = record(model_of("llama"), tokenizer_of(), texts, out=folder)
    identify(stats, rate=0.2, reliability=False).save(folder / "neurons.safetensors")
    return folder


@pytest.fixture
def whole(run, tmp_path) -> Path:
    """With a table of losses, and texts on which neurons fire."""
    folder = tmp_path / "run"
    folder.mkdir()
    for one in run.iterdir():
        (folder / one.name).write_bytes(one.read_bytes())
    neurons = lape.LanguageNeurons.load(folder)
    texts = {language: Documents(some_texts(30, seed + 7)) for seed, language in enumerate(neurons)}
    table = perplexity(model_of("llama"), tokenizer_of(), neurons, texts, draws=1, resamples=100, allow_recorded=True)
    table.write_parquet(folder / "perplexity.parquet")
    contexts_of(neurons).write_parquet(made(folder / "examples") / "contexts.parquet")
    return folder


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def contexts_of(neurons, text: str = "hello", contexts: int = 7) -> pl.DataFrame:
    rows = [
        {
            "flat": flat,
            "rank": rank,
            "value": 2.0 - rank / 10,
            "language": "fr",
            "document": 0,
            "start": 32 * rank,
            "pieces": [text, " you"],
            "activations": [2.0 - rank / 10, -1.0],
        }
        for flat in neurons.union
        for rank in range(contexts)
    ]
    return pl.DataFrame(rows, schema=CONTEXTS)


def data_of(html: str) -> dict:
    """What a page embeds."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def text_of(html: str) -> str:
    """What a reader of a page reads."""
    return re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", html, flags=re.S))
