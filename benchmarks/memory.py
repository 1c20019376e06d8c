"""The memory that merging and identifying take at the size of a model of 70 billion parameters: 2.3 million neurons, 30 languages.

Writes statistics of random counts (5.7 GiB a file; a third of it with --languages 10), then runs `lape merge` and `lape identify` as a
user would and prints each one's largest memory: in all, and without the pages of files, which the system takes back when it needs them.
usage: python benchmarks/memory.py [--languages 30] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lape.data.corpus import FOLDS
from lape.store.tensors import Later, write_tensors
from lape.values.space import NeuronSpace

LAYERS, WIDTH, TOKENS = 80, 28_672, 1_000_000
TAGS = ["en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "ru", "uk"]
TAGS += ["el", "tr", "ar", "he", "fa", "hi", "bn", "ta", "th", "vi", "id", "ms", "zh", "ja", "ko"]


def write(path: Path, languages: list[str], text: str, layers: int = LAYERS, width: int = WIDTH) -> None:
    """A file as `lape record` writes it, its counts random."""
    space = NeuronSpace.dense(layers, width)
    tensors: dict[str, Later] = {}
    for number, language in enumerate(languages):

        def fires(number: int = number) -> torch.Tensor:
            generator = torch.Generator().manual_seed(number)
            share = torch.rand(len(space), generator=generator).pow(3)
            return (share * TOKENS / FOLDS).long().expand(FOLDS, -1).contiguous()

        like = torch.empty(FOLDS, len(space), dtype=torch.int64, device="meta")
        tensors[f"{language}/fires"] = Later(like, fires)
        for name in ("sum", "square", "positive"):
            one = torch.empty(len(space), dtype=torch.float64, device="meta")
            tensors[f"{language}/{name}"] = Later(one, lambda: torch.ones(len(space), dtype=torch.float64))
        tensors[f"{language}/tokens"] = torch.full((FOLDS,), TOKENS // FOLDS)
        tensors[f"{language}/routed"] = torch.full((FOLDS, layers), TOKENS // FOLDS)
        tensors[f"{language}/fingerprints"] = torch.arange(1000)
    corpus = {language: {"hash": f"{language} {text}", "documents": 1, "tokens": TOKENS} for language in languages}
    header = {"kind": "activation statistics", "format": 1, "languages": languages, "space": space.to_json()}
    write_tensors(path, tensors, {**header, "manifest": {"corpus": corpus}})


def watched(arguments: list[str]) -> tuple[float, float, float]:
    """Run a verb: seconds, and GiB at the most, in all and without the pages of files."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from lape.cli import main; main({arguments!r})"], stdout=subprocess.DEVNULL
    )
    most = {"VmRSS": 0, "RssAnon": 0}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            name, _, value = line.partition(":")
            if name in most:
                most[name] = max(most[name], int(value.split()[0]))
        time.sleep(0.02)
    assert process.wait() == 0, arguments
    return time.perf_counter() - start, most["VmRSS"] / 2**20, most["RssAnon"] / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--languages", type=int, default=30)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    tags = TAGS[: arguments.languages]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        for name in "ab":
            write(folder / f"{name}.safetensors", tags, name)
        parts = [str(folder / f"{name}.safetensors") for name in "ab"]
        verbs = {
            "merge of two": ["merge", *parts, "--out", str(folder / "c.safetensors")],
            "identify": ["identify", str(folder / "c.safetensors"), "--no-reliability", "--overwrite"],
        }
        size = (folder / "a.safetensors").stat().st_size / 2**30
        print(f"{LAYERS * WIDTH:,} neurons, {len(tags)} languages, {size:.1f} GiB a file")
        for name, verb in verbs.items():
            seconds, whole, anonymous = watched(verb)
            print(f"{name:14} {seconds:5.0f} s   peak {whole:.1f} GiB, of which not pages of files {anonymous:.1f} GiB")


if __name__ == "__main__":
    main()
