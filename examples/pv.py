"""The way of choosing "variation" from start to end: tune a model on each language, see which weights move, choose neurons, control.

usage: python examples/pv.py sample --text en=en.txt --text fr=fr.txt --text zh=zh.txt --again fr --out runs/pv

Every language is tuned from the same weights with plain AdamW (no weight decay), in float32, with the same seed, number of steps and
number of tokens; its text is cut to as many tokens as the shortest language has. One language is tuned once more with another seed,
which draws other windows of its text: if that moves other neurons than the first time, the draw chose them, not the language. Windows
start with BOS where the tokenizer adds one. In parallel text one seed draws about the same content in every language, and the second seed
another: expect languages to look somewhat more alike than in other text. Each checkpoint
takes 4 bytes a parameter on the disk. The text is a .txt file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

import lape
from lape.detect.variation import VariationOptions
from lape.measure.seeds import compare_seeds
from lape.model.find import find
from lape.recording.weight_change import weight_changes


def main(arguments: list[str] | None = None) -> pl.DataFrame:
    given = parsed(arguments)
    model, tokenizer = lape.load(given.model, dtype="float32", device=given.device)
    texts = dict(one.split("=", 1) for one in given.text)
    ids = {language: tokens_of(tokenizer, path) for language, path in texts.items()}
    fewest = min(len(one) for one in ids.values())
    what = "all weights" if given.all else "the weights of the MLPs"
    seen = given.steps * given.rows * given.length
    print(
        f"Tuning {what}, {given.steps} steps of {given.rows} × {given.length} tokens ({seen:,}) from {fewest:,} tokens per language."
    )

    bos = tokenizer("")["input_ids"][:1] if tokenizer.bos_token_id in tokenizer("")["input_ids"] else []
    runs = [(language, given.seed) for language in ids] + [(given.again or next(iter(ids)), given.seed + 1)]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folders = []
    for language, seed in runs:
        folder = Path(given.out) / f"{language}-seed{seed}"
        before, after = tune(model, ids[language][:fewest], bos, seed, given)
        model.save_pretrained(folder)
        model.load_state_dict(weights)  # the next one starts where this one did
        folders.append(folder)
        print(f"{language}, seed {seed}: loss {before:.3f} -> {after:.3f} nats per token, {folder}", flush=True)

    tuned = dict(zip(ids, map(str, folders), strict=False))
    stats = lape.record(model, tokenizer, texts, tuned=tuned, tokens=given.tokens)
    neurons = lape.identify(stats, method="variation", rate=given.rate)
    neurons.save(Path(given.out) / "neurons.safetensors", overwrite=True)
    for language, chosen in neurons.items():
        print(
            f"{language}: {len(chosen)} neurons; median δ of all neurons {float(stats.variation(language).median()):.2e}"
        )

    again = weight_changes(model, {runs[-1][0]: folders[-1]})
    table = compare_seeds(stats, again, VariationOptions(rate=given.rate))
    table.write_parquet(Path(given.out) / "control.parquet")
    with pl.Config(tbl_cols=-1, tbl_rows=-1, tbl_width_chars=160, tbl_hide_dataframe_shape=True, float_precision=3):
        print(
            "Two seeds of one language, beside two languages (Jaccard of what is chosen, of the largest δ, rank correlation):"
        )
        print(table)
    return table


def parsed(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face id, a local folder, or sample")
    parser.add_argument("--text", action="append", required=True, metavar="TAG=PATH", help="once for each language")
    parser.add_argument("--again", metavar="TAG", help="the language that gets a second seed; default: the first")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=2, help="windows of text in a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a window")
    parser.add_argument("--rate", type=float, default=0.01, help="share of all neurons that is kept")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--all", action="store_true", help="tune all weights, not those of the MLPs alone")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of each language that are recorded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--out", required=True)
    return parser.parse_args(arguments)


def tokens_of(tokenizer: Any, path: str) -> Tensor:
    text = Path(path).read_text(encoding="utf-8")
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])


def tune(model: Any, ids: Tensor, bos: list[int], seed: int, given: Any) -> tuple[float, float]:
    """Tune in place; the mean loss of the first and of the last quarter of the steps, in nats per token."""
    torch.manual_seed(seed)  # dropout, where a model has it
    generator = torch.Generator().manual_seed(seed)
    chosen = list(model.parameters()) if given.all else mlp_weights(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(chosen, lr=given.learning_rate, weight_decay=0.0)
    losses = []
    model.train()
    for _ in range(given.steps):
        starts = torch.randint(len(ids) - given.length, (given.rows,), generator=generator)
        windows = [
            torch.cat([torch.tensor(bos, dtype=ids.dtype), ids[at : at + given.length]]) for at in starts.tolist()
        ]
        rows = torch.stack(windows).to(model.device)
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    part = max(given.steps // 4, 1)
    return sum(losses[:part]) / part, sum(losses[-part:]) / part


def mlp_weights(model: Any) -> list[Tensor]:
    """The weights of all projections that make up neurons."""
    names = {
        name: None
        for site in find(model).sites
        for name in (site.gate and site.gate.module, site.up and site.up.module, site.down)
        if name
    }
    return [model.get_submodule(name).weight for name in names]


if __name__ == "__main__":
    main()
