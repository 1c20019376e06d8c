"""How time and memory grow: with tokens, languages, neurons and workers.

Tokens and workers are measured with the embedded model on its bundled texts, repeated, the others on statistics of random counts, each by the
verbs that a user types, in processes of their own: seconds with starting, and the largest memory without the pages of files. Exponents are
slopes of least squares on logarithmic scales, of what is taken beyond what the same verb takes for next to nothing ("start"): 1 is in proportion,
0 constant. Takes about 12 minutes on two cores.
usage: python benchmarks/scale.py [--out FILE.json] [--folder FOLDER] [--parts tokens,languages,neurons,workers]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from memory import watched, write

from lape.data import samples
from lape.data.languages import tag

Row: TypeAlias = dict[str, float | int | str]
TOKENS = (256, 8_000, 16_000, 32_000, 64_000)
LANGUAGES = (2, 7, 15, 30, 60, 100)
NEURONS = ((1, 64), (18, 2048), (32, 4608), (48, 12_288), (80, 28_672))
"""Layers and neurons in each: next to none, .04, .15, .59 and 2.3 million."""
CODES = (
    "af am as az ba be bg bn bo br ca ceb cs cv cy da de el en eo es et eu fa fi fo fr fy ga gd gl gu ha haw hi hr "
    "hu hy id ig is it ja ka kk km kn ko ku ky lb ln lo lt lv mg mi mk ml mn mr mt my ne nl nn ny oc om or pa pl "
    "ps pt rm ro ru rw sa sd si sk sl sm sn so sq sr st su sv sw ta te tg th ti tk tn tr tt ug uk ur "
)


def tags(count: int) -> list[str]:
    """So many languages."""
    known = list(dict.fromkeys(tag(code) for code in CODES.split()))
    assert len(known) >= count, len(known)
    return known[:count]


def exponent(rows: Sequence[Row], of: str, against: str) -> float:
    """The slope of least squares on logarithmic scales, of what lies above the first row's, which is for next to nothing."""
    start, *rest = rows
    x = [math.log(float(row[against])) for row in rest]
    y = [math.log(max(float(row[of]) - float(start[of]), 1e-3)) for row in rest]
    mean = sum(x) / len(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def text(folder: Path) -> Path:
    """The French texts that are recorded, over and over, in one file."""
    path = folder / "fr.txt"
    path.write_text("\n".join("\n".join(samples.texts("record")["fr"].texts) for _ in range(20)), encoding="utf-8")
    return path


def tokens(folder: Path) -> list[Row]:
    """`lape record`: of one language, ever more text; the first is the start."""
    rows: list[Row] = []
    for count in TOKENS:
        out = folder / f"tokens-{count}"
        verb = [
            "record",
            "sample",
            "--text",
            f"fr={text(folder)}",
            "--tokens",
            str(count),
            "--out",
            str(out),
        ]
        seconds, _, memory = watched(verb)
        rows.append(
            {
                "tokens": count,
                "seconds": seconds,
                "gib": memory,
                "mib": (out / "stats.safetensors").stat().st_size / 2**20,
            }
        )
    return rows


def made(folder: Path, layers: int, width: int, languages: int) -> Path:
    """Statistics of random counts."""
    path = folder / f"{layers}-{width}-{languages}.safetensors"
    write(path, tags(languages), "a", layers, width)
    return path


def identified(path: Path) -> Row:
    """`lape identify` with all defaults, and without reliability."""
    result: Row = {"gib_on_disk": path.stat().st_size / 2**30}
    for name, more in (("", []), ("bare_", ["--no-reliability"])):
        out = path.with_suffix(f".{name}out.safetensors")
        seconds, _, memory = watched(["identify", str(path), "--out", str(out), *more])
        result |= {f"{name}seconds": seconds, f"{name}gib": memory}
    return result


def languages(folder: Path) -> list[Row]:
    """`lape identify` on 36,864 neurons, with ever more languages."""
    rows: list[Row] = []
    for count in LANGUAGES:
        path = made(folder, *(NEURONS[1] if count > LANGUAGES[0] else NEURONS[0]), count)
        rows.append({"languages": count, **identified(path)})
        path.unlink()
    return rows


def neurons(folder: Path) -> list[Row]:
    """`lape identify` and `lape merge` of seven languages, with ever more neurons."""
    rows: list[Row] = []
    for layers, width in NEURONS:
        path = made(folder, layers, width, 7)
        other = path.with_name("other.safetensors")
        write(other, tags(7), "b", layers, width)
        seconds, _, memory = watched(["merge", str(path), str(other), "--out", str(folder / f"merged-{layers}")])
        rows.append({"neurons": layers * width, **identified(path), "merge_seconds": seconds, "merge_gib": memory})
        for one in (path, other, *(folder / f"merged-{layers}").glob("*")):
            one.unlink()
    return rows


def workers(folder: Path) -> list[Row]:
    """Shards of one recording, as many processes at once as there are, each with its share of the cores; and Ray's workers."""
    rows: list[Row] = []
    usual = ["record", "sample", "--text", f"fr={text(folder)}", "--tokens", str(TOKENS[2])]
    cores = os.cpu_count() or 1
    for count in (1, 2, 4):
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // count))}
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "lape",
                    *usual,
                    "--shard",
                    f"{k}/{count}",
                    "--out",
                    str(folder / f"shard-{count}-{k}"),
                ],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for k in range(1, count + 1)
        ]
        assert [process.wait() for process in running] == [0] * count
        shards = time.perf_counter() - began
        seconds, _, _ = watched(
            [
                *usual,
                "--engine",
                "ray",
                "--workers",
                str(count),
                "--group-batches",
                "1",
                "--out",
                str(folder / f"ray-{count}"),
            ]
        )
        rows.append({"workers": count, "seconds": shards, "ray_seconds": seconds})
    return rows


PARTS: dict[str, tuple[Callable[[Path], list[Row]], str, tuple[str, ...]]] = {
    "tokens": (tokens, "tokens", ("seconds", "gib")),
    "languages": (languages, "languages", ("seconds", "gib", "bare_seconds", "bare_gib", "gib_on_disk")),
    "neurons": (neurons, "neurons", ("seconds", "gib", "bare_seconds", "bare_gib", "merge_seconds", "merge_gib")),
    "workers": (workers, "workers", ()),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("scale.json"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    arguments = parser.parse_args()
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.parts.split(","):
        measure, against, grown = PARTS[name]
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows = measure(Path(folder))
        for row in rows:
            print(
                name,
                "  ".join(
                    f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value:,}"
                    for key, value in row.items()
                ),
                flush=True,
            )
        result[name] = rows
        if grown:
            result[f"{name}_exponents"] = [{of: exponent(rows, of, against) for of in grown}]
            print(
                name,
                "exponents",
                "  ".join(f"{k} {v:.2f}" for k, v in result[f"{name}_exponents"][0].items()),
                flush=True,
            )
        machine = {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
        }
        result["made_on"] = [machine]
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
