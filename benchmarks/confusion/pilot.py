"""What makes a chat model answer in the language it is asked for: the answers behind docs/studies/confusion, way by way.

    python benchmarks/confusion/pilot.py MODEL RUN --lcb FOLDER --languages de fr ja ko vi zh --out FOLDER

One phrasing of each distinct cross-lingual question of the Language Confusion Benchmark (its rows are rephrasings of 34 and 46 questions), by turns so
that all places of the wish occur; `--monolingual N` questions in the language itself. Every way of `ways.py` answers all; answers are kept way by way,
and `lape confusion --answers` judges them. Beside them the KL divergence of a way's next token from the unedited model's, on the unedited model's
own answers in the right language. RUN: statistics recorded with `--residual`. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from ways import WAYS, Bench, Way, head_put, line

import lape
from lape.data import samples
from lape.data.language_id import identifier
from lape.experiments.confusion.prompts import CROSSLINGUAL, MONOLINGUAL, read_prompts
from lape.measure.answer_loss import answer_losses, ids_of
from lape.measure.generation import SamplingOptions, filler, padded, write
from lape.measure.heads import rank_heads
from lape.measure.prompts import Message, conversation, language_name
from lape.model.body import evaluating, hidden_states
from lape.model.loss import find_head
from lape.store import files
from lape.values.stats import ActivationStats

EVERY = 10_000
"""More questions than there are."""
LONGEST = 400
"""Signs of a monolingual prompt; a longer one makes a whole batch slow."""
KL_ANSWERS = 16
"""Right-language answers of each language on which a way's KL divergence is measured."""
KL_TOKENS = 48


def questions(folder: Path, language: str, monolingual: int, most: int | None) -> list[dict[str, str]]:
    """One phrasing of each cross-lingual question, and some of one source in the language."""
    every = read_prompts(folder, [language], most=EVERY)
    cross = [one for one in every if one.task == CROSSLINGUAL]
    inside = [one for one in every if one.task == MONOLINGUAL]
    inside = [one for one in inside if one.source == inside[0].source and len(one.text) <= LONGEST]
    found = cross[:: max(1, len(cross) // most)][:most] if most else cross
    found += inside[:: max(1, len(inside) // monolingual)][:monolingual] if monolingual else []
    return [{"task": one.task, "source": one.source, "question": one.question, "prompt": one.text} for one in found]


def named(way: Way) -> str:
    """A way's name in a file's."""
    return re.sub(r"[^\w.+-]+", "_", way.name)


class Pilot:
    """A bench, and what is kept of it in a folder."""

    def __init__(self, bench: Bench, out: Path, new_tokens: int, batch: int, rank: bool) -> None:
        self.bench, self.out, self.batch, self.new_tokens = bench, out, batch, new_tokens
        self.model, self.tokenizer = bench.model, bench.tokenizer
        self.head, self.rank = find_head(bench.model), rank

    def options(self, way: Way, new_tokens: int | None = None) -> SamplingOptions:
        drawn = {} if way.draw is None else {"temperature": 0.3, "top_p": 0.75, "seed": way.draw}
        return SamplingOptions(new_tokens=new_tokens or self.new_tokens, batch=self.batch, **drawn)  # type: ignore[arg-type]

    def prompt(self, way: Way, asked: str, language: str) -> str:
        shown = self.examples(language)[: way.shots] if way.shots else []
        turns: list[Message] = []
        for question, answer in shown:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        turns.append({"role": "user", "content": asked})
        return conversation(self.tokenizer, turns, system=way.told(language))

    def examples(self, language: str) -> list[tuple[str, str]]:
        """Other questions with the model's own answers in the language, of those it gives when the system asks for it too."""
        path = self.out / f"examples-{language}.json"
        if not path.is_file():
            some = samples.questions("development", languages=("en",))["en"][:12]
            asked = [f"{one} Answer in {language_name(language, 'en')}." for one in some]
            prompts = [
                conversation(self.tokenizer, [{"role": "user", "content": one}], system=line(language)) for one in asked
            ]
            answers = [one.text.strip() for one in write(self.model, self.tokenizer, prompts, self.options(WAYS[0]))]
            right = identifier("lingua", [language, "en", "zh"])(answers)
            good = [(q, a) for q, a, guess in zip(asked, answers, right, strict=True) if guess.language == language]
            files.write_json(path, [[q, re.split(r"(?<=[.。!?！？])\s*", a)[0] or a] for q, a in good[:3]])
        return [(q, a) for q, a in json.loads(path.read_text(encoding="utf-8"))]

    def answers(self, way: Way, language: str, asked: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        path = self.out / f"{language}.{named(way)}.jsonl"
        if not path.is_file():
            asked = sorted(asked, key=lambda one: len(one["prompt"]))  # so that little is padded
            prompts = [self.prompt(way, one["prompt"], language) for one in asked]
            with way.under(self.bench, language):
                found = write(
                    self.model,
                    self.tokenizer,
                    prompts,
                    self.options(way),
                    processors=way.processors(self.bench, language),
                )
            rows = [
                {
                    **one,
                    "language": language,
                    "way": way.name,
                    "family": way.family,
                    "answer": answer.text.strip(),
                    "cut": answer.cut,
                }
                for one, answer in zip(asked, found, strict=True)
            ]
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            files.write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return [json.loads(one) for one in path.read_text(encoding="utf-8").splitlines()]

    def kl(self, way: Way, language: str, right: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Mean KL divergence of a way's next token from the unedited model's, nats a token, on answers in the right language."""
        pairs = [ids_of(self.tokenizer, self.prompt(WAYS[0], asked, language), answer) for asked, answer in right]
        theirs = [ids_of(self.tokenizer, self.prompt(way, asked, language), answer) for asked, answer in right]
        before = self._logits(pairs)
        with way.under(self.bench, language):
            after = self._logits(theirs)
        masks = way.processors(self.bench, language)
        found = []
        for one, two in zip(before, after, strict=True):
            for mask in masks:
                two = mask(None, two).clamp_min(-1e4)
            p, q = F.log_softmax(one, -1), F.log_softmax(two, -1)
            found.append((p.exp() * (p - q)).sum(-1))
        every = torch.cat(found)
        return {"kl": float(every.mean()), "kl_median": float(every.median()), "tokens": len(every)}

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Tensor]:
        found = []
        with evaluating(self.model):
            for prompt, answer in pairs:
                answer = answer[:KL_TOKENS]
                hidden = hidden_states(self.model, torch.tensor([prompt + answer]))
                found.append(self.model.get_output_embeddings()(hidden[0, len(prompt) - 1 : -1]).float())
        return found

    # The best attention head

    def find_head(self, languages: Sequence[str], texts: dict[str, Sequence[str]]) -> None:
        """The head whose absence makes answers in the right language least likely, then of the 20 first the one that turns most answers away."""
        path = self.out / "head.json"
        bench, config = self.bench, self.model.config
        bench.head_means = self._head_means(texts)
        if not path.is_file() and self.rank:
            files.write_json(path, self._ranked(languages))
        if not path.is_file():
            some = samples.questions("development", languages=("en",))["en"][12:16]
            asked = [(k, f"{one} Answer in {language_name(k, 'en')}.") for k in languages for one in some]
            prompts = [self.prompt(WAYS[0], one, k) for k, one in asked]
            unedited = [
                one.text.strip() for one in write(self.model, self.tokenizer, prompts, self.options(WAYS[0], 24))
            ]
            tell = identifier("lingua", [*languages, "en", "zh"])
            right = [k for k, guess in enumerate(tell(unedited)) if guess.language == asked[k][0]]
            pairs = []
            for k in right:
                first, rest = ids_of(self.tokenizer, prompts[k], unedited[k])
                pairs.append((first, rest[:8]))
            base = sum(float(one.sum()) for one in answer_losses(self.model, self.head, pairs, filler(self.tokenizer)))
            screened = []
            for layer in range(config.num_hidden_layers):
                for number in range(config.num_attention_heads):
                    with head_put(bench, (layer, number), None):
                        lost = answer_losses(self.model, self.head, pairs, filler(self.tokenizer))
                    screened.append((sum(float(one.sum()) for one in lost) - base, layer, number))
                print("screened layer", layer, flush=True)
            screened.sort(reverse=True)
            generated = []
            for lost_by, layer, number in screened[:20]:
                with head_put(bench, (layer, number), None):
                    answers = [
                        one.text
                        for one in write(
                            self.model, self.tokenizer, [prompts[k] for k in right], self.options(WAYS[0], 24)
                        )
                    ]
                turned = sum(guess.language != asked[k][0] for k, guess in zip(right, tell(answers), strict=True))
                generated.append({"layer": layer, "head": number, "nats": lost_by, "turned": turned, "of": len(right)})
            best = max(generated, key=lambda one: (one["turned"], one["nats"]))
            others = [
                (lost, layer, number)
                for lost, layer, number in screened
                if layer == best["layer"] and number != best["head"]
            ]
            control = others[len(others) // 2]
            files.write_json(
                path,
                {
                    "best": best,
                    "control": {"layer": control[1], "head": control[2], "nats": control[0]},
                    "generated": generated,
                },
            )
        kept = json.loads(path.read_text(encoding="utf-8"))
        bench.head, bench.control = ((kept[k]["layer"], kept[k]["head"]) for k in ("best", "control"))

    def _ranked(self, languages: Sequence[str]) -> dict[str, Any]:
        """The head that makes right answers, as the line gives them, likeliest beside wrong ones without it, as `lape fix` finds it; on our own questions."""
        some = samples.questions("development", languages=("en",))["en"][12:]
        asked = [(k, f"{one} Answer in {language_name(k, 'en')}.") for k in languages for one in some]
        prompts = [self.prompt(WAYS[0], one, k) for k, one in asked]
        told = [self.prompt(WAYS[1], one, k) for k, one in asked]
        tell = identifier("lingua", [*languages, "en", "zh"])
        answers = [
            [one.text.strip() for one in write(self.model, self.tokenizer, each, self.options(WAYS[0], 24))]
            for each in (prompts, told)
        ]
        wrong, right = (
            [guess.language == k for (k, _), guess in zip(asked, tell(each), strict=True)] for each in answers
        )
        turned = [k for k in range(len(asked)) if right[k] and not wrong[k]]
        pairs = [[ids_of(self.tokenizer, prompts[k], each[k]) for k in turned] for each in reversed(answers)]
        ranked = rank_heads(self.model, *pairs)
        best = ranked.row(0, named=True)
        same = ranked.filter(pl.col("head") != best["head"], layer=best["layer"])
        control = same.row(len(same) // 2, named=True)
        print("ranked", len(turned), ranked.head(5).rows(), flush=True)
        return {"best": best, "control": control, "turned": len(turned), "ranked": ranked.head(20).to_dicts()}

    @torch.inference_mode()
    def _head_means(self, texts: dict[str, Sequence[str]]) -> dict[str, Tensor]:
        """(layers, heads, width of a head) of each language: the mean over positions but the first of what goes into the output projection."""
        number = self.model.config.num_attention_heads
        found = {}
        for language, lines in texts.items():
            sums = torch.zeros(len(self.bench.blocks), self.model.config.hidden_size, dtype=torch.float64)
            count = 0
            rows = [self.tokenizer(one)["input_ids"] for one in lines]
            ids, mask = padded(rows, filler(self.tokenizer))
            inner = mask.clone()
            inner[torch.arange(len(rows)), mask.argmax(1)] = 0
            count = int(inner.sum())

            def hook(k: int, sums: Tensor = sums, inner: Tensor = inner) -> Any:
                def see(_m: Any, args: Any) -> None:
                    sums[k] += (args[0].double() * inner[..., None]).sum((0, 1))

                return see

            handles = [
                block.self_attn.o_proj.register_forward_pre_hook(hook(k)) for k, block in enumerate(self.bench.blocks)
            ]
            with evaluating(self.model):
                self.model(input_ids=ids, attention_mask=mask, logits_to_keep=1)
            for handle in handles:
                handle.remove()
            found[language] = (sums / count).view(len(self.bench.blocks), number, -1).float()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("run")
    parser.add_argument("--lcb", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="a folder of TAG.txt, whose first 60 lines give the heads' means")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", help="by default all")
    parser.add_argument("--most", type=int, help="cross-lingual questions; by default all")
    parser.add_argument("--monolingual", type=int, default=0)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument(
        "--rank", action="store_true", help="find the head by gradients, as lape fix does, instead of by its absence"
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    pilot = Pilot(
        Bench(model, tokenizer, ActivationStats.load(given.run)), given.out, given.new_tokens, given.batch, given.rank
    )
    ways = [one for one in WAYS if given.ways is None or one.name in given.ways]
    asked = {k: questions(given.lcb, k, given.monolingual, given.most) for k in given.languages}
    tell = identifier("lingua", [*given.languages, "en", "zh"])
    for way in ways:
        if "head" in way.family and pilot.bench.head is None:
            names = [*given.languages, *(one for one in ("en", "zh") if one not in given.languages)]
            texts = {k: (given.text / f"{k}.txt").read_text(encoding="utf-8").splitlines()[:60] for k in names}
            pilot.find_head(given.languages, texts)
        for language in given.languages:
            found = pilot.answers(way, language, asked[language])
            print(language, way.name, len(found), flush=True)
            path = given.out / f"{language}.{named(way)}.kl.json"
            if way.family == "noise" or path.is_file():
                continue
            base = [one for one in pilot.answers(WAYS[0], language, asked[language]) if one["task"] == "crosslingual"]
            told = tell([one["answer"] for one in base])
            right = [
                (one["prompt"], one["answer"])
                for one, guess in zip(base, told, strict=True)
                if guess.language == language
            ]
            if right:
                files.write_json(
                    path, {"way": way.name, "language": language, **pilot.kl(way, language, right[:KL_ANSWERS])}
                )


if __name__ == "__main__":
    main()
