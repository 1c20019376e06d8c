"""Long rounds, run by `make soak`."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

import lape
from tiny import tiny, tiny_tokenizer

LINE = "the cat sat on the mat and the dog ate the rat; le chat dort sur le lit et le chien mange.\n"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.soak
def test_ten_million_tokens_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama", torch.float32), tiny_tokenizer()
    per_line = len(tokenizer(LINE, add_special_tokens=False)["input_ids"])
    path = tmp_path / "en.txt"
    with path.open("w") as file:
        for _ in range(10_000_000 // per_line // 1000 + 1):
            file.write(LINE * 1000)
    lape.record(model, tokenizer, {"en": path}, tokens=200_000, row_tokens=256, batch_tokens=16_384)
    before = _peak()
    stats = lape.record(model, tokenizer, {"en": path}, tokens=10_000_000, row_tokens=256, batch_tokens=16_384)
    assert int(stats["en"].tokens.sum()) == 10_000_000
    assert _peak() - before < 200 * 1024  # kilobytes: the token file is mapped, not held
