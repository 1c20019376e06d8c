"""lape's switches in servers of other projects: vLLM, llama.cpp and transformers, each in an environment of its own.

For each engine one server on loopback with the sample model in float32 and four adapters, three of which write a language:
each request names its adapter and is answered in its language, and the base stays as it was; requests at once are answered as alone; greedy
tokens agree with lape's own; what an adapter costs in throughput and time to the first token. Figures go into figures.json in the folder.
Ends with 1 where something does not hold.

usage: python benchmarks/serving [vllm] [llamacpp] [transformers] [--questions 50] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import polars as pl
from checks import agrees, at_once, costs, switches
from engines import ENGINES
from materials import materials
from server import running
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
    failed, figures = 0, []
    for name in asked.engines:
        engine = ENGINES[name](name, Path(asked.environments.format(name)).resolve())
        print(f"\n## {name}", flush=True)
        with running(engine, made) as server:
            for check in (
                *switches(server, asked.answers, asked.answer_tokens, "lingua"),
                *at_once(server, asked.at_once, asked.tokens),
                *agrees(server, asked.tokens, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]),
            ):
                failed += not check.holds
                print("holds " if check.holds else "FAILS ", check.said, flush=True)
                figures += [(name, *one) for one in check.figures.items()]
            if asked.rounds:
                table, measured = costs(server, asked.rounds, asked.tokens)
                print(*table, sep="\n", flush=True)
                figures += [(name, *one) for one in measured.items()]
    found = pl.DataFrame(figures, schema=["engine", "measure", "value"], orient="row")
    found.write_json(asked.folder / "figures.json")
    print(f"\n{failed} failed" if failed else "\nall hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
