"""How many letters another writing changes, on the sentences whose loss the study measured: `changed.tsv`.

    python docs/studies/gemma-3-270m/changed.py zh=data/flores/zh.txt fr=data/flores/fr.txt es=data/flores/es.txt vi=data/flores/vi.txt

A letter is kept where it stands in both writings in the same order; signs, digits and spaces are not counted. The sentences are not kept here.
"""

from __future__ import annotations

import json
import sys
from difflib import SequenceMatcher
from pathlib import Path

import polars as pl

from lape.data.rewriting import converted, romanised, variant_tag

HERE = Path(__file__).parent


def kept(one: str, other: str) -> int:
    """Letters of a line that stand in another in the same order."""
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return sum(sign.isalpha() for block in blocks for sign in one[block.a : block.a + block.size])


def main(given: list[str]) -> None:
    numbers = json.loads((HERE / "run.json").read_text(encoding="utf-8"))["evaluated"]["numbers"]
    rows = []
    for one in given:
        language, _, path = one.partition("=")
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        native = [lines[number] for number in numbers]
        variant = variant_tag(language, "converted" if language == "zh" else "romanised")
        other, _by = converted(native, variant) if language == "zh" else romanised(native, language)
        letters = sum(sign.isalpha() for line in native for sign in line)
        rows.append((language, variant, letters, letters - sum(map(kept, native, other))))
    found = pl.DataFrame(rows, schema=["language", "variant", "letters", "changed"], orient="row")
    found.with_columns((pl.col("changed") / pl.col("letters")).round(4).alias("share")).write_csv(
        HERE / "changed.tsv", separator="\t"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
