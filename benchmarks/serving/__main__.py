"""lape's switches in servers of other projects: vLLM, llama.cpp and transformers, each in an environment of its own.

For each engine one server on loopback with the sample model in float32 and four adapters, three of which write a language:
each request names its adapter and is answered in its language, and the base stays as it was; requests at once are answered as alone; greedy
tokens agree with lape's own; what an adapter costs in throughput and time to the first token. Figures go into figures.json in the folder.
Ends with 1 where something does not hold.

usage: python benchmarks/serving [vllm] [llamacpp] [transformers] [--questions 50] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checks import Check, agrees, at_once, costs, switches
from engines import ENGINES
from materials import materials
from server import Server, running
from transformers import AutoTokenizer


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", nargs="*", default=[*ENGINES])
    parser.add_argument("--folder", type=Path, default=Path("runs/serving"))
    parser.add_argument("--environments", default=".venv-{}", help="where an engine is installed")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--answers", type=int, default=8, help="how many answers are read by language")
    parser.add_argument("--answer-tokens", type=int, default=24, help="and how long they are")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="of the costs; 0 for none")
    asked = parser.parse_args()
    made = materials(asked.folder.resolve(), asked.questions, asked.tokens, asked.engines)
    tokenizer = AutoTokenizer.from_pretrained(made.folder / "base")
    failed = 0
    for name in asked.engines:
        engine, figures = ENGINES[name](name, Path(asked.environments.format(name)).resolve()), {}
        print(f"\n## {name}", flush=True)
        with running(engine, made) as server:
            for check in looked_at(server, asked, tokenizer):
                failed += not check.holds
                print("holds " if check.holds else "FAILS ", check.said, flush=True)
                figures |= check.figures
            if asked.rounds:
                table, measured = costs(server, asked.rounds, asked.tokens)
                print(*table, sep="\n", flush=True)
                figures |= measured
        keep(asked.folder / "figures.json", name, figures)
    print(f"\n{failed} failed" if failed else "\nall hold")
    return 1 if failed else 0


def looked_at(server: Server, asked: argparse.Namespace, tokenizer: Any) -> Iterator[Check]:
    """All checks of a server, each as it is made."""
    yield from switches(server, asked.answers, asked.answer_tokens, "lingua")
    yield from at_once(server, asked.at_once, asked.tokens)
    yield from agrees(server, asked.tokens, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])


def keep(path: Path, engine: str, figures: Mapping[str, float]) -> None:
    """Put an engine's figures into the table, beside those of others."""
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [row for row in rows if row["engine"] != engine]
    rows += [{"engine": engine, "measure": measure, "value": value} for measure, value in figures.items()]
    path.write_text(json.dumps(rows, indent=0))


if __name__ == "__main__":
    sys.exit(main())
