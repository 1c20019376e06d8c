"""The card of an export, README.md beside its weights: what it does, how it is served, how near it is to the edit and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from huggingface_hub import ModelCardData

from lape.ship.server import vllm_options
from lape.signs import many
from lape.values.same import place_of

CARD = "README.md"


def card(said: Mapping[str, Any], name: str) -> str:
    """The card's Markdown, from what the manifest says; `name`: of the folder."""
    base = _base(said["made_from"].get("model", {}))
    adapter = said["kind"] != "exported checkpoint"
    parts = [
        _front(base, said["kind"]),
        f"# {name}",
        f"{said['kind'][0].upper()}{said['kind'][1:]} made by lape from edits of {_units(said)} of `{base}`, without "
        "training.",
        *_what(said),
        *(_use(said, base, name) if adapter else _load(name)),
        *_fit(said),
        *_cost(said),
        *_choices(said),
        *_answers(said),
        *_constants(said),
        "## Limits",
        f"Made for the very weights of `{base}` (checksum {said['made_from'].get('model', {}).get('checksum', 'unknown')[:12]}…): on another model, or another "
        "revision of this one, it does something else. It acts on every token of a request. The licence is that of the base model.",
    ]
    return "\n\n".join(parts) + "\n"


def _base(model: Mapping[str, Any]) -> str:
    """What the base model is called; of one that was loaded from a folder, that folder's name, since its place is no one else's affair."""
    place = place_of(model) or "the base model"
    return Path(place).name if model.get("path") else place


def _front(base: str, kind: str) -> str:
    """The fields that a Hub reads; peft loads none of llama.cpp's files."""
    tags = ["language-neurons", "lape", *(["lora"] if kind != "exported checkpoint" else [])]
    data = ModelCardData(base_model=base, library_name="peft" if kind == "LoRA adapter" else None, tags=tags)
    return f"---\n{data.to_yaml()}\n---"


def _what(said: Mapping[str, Any]) -> Iterator[str]:
    if said["about"]:
        yield "What it is for: " + "; ".join(said["about"]) + "."
    yield "\n".join(f"- {_edit(one)}" for one in said["edits"])


def _units(said: Mapping[str, Any]) -> str:
    """What the edits are of."""
    kinds = {"neurons" if "neurons" in one else "attention heads" for one in said["edits"]}
    return " and ".join(sorted(kinds, reverse=True)) or "neurons"


def _edit(one: Mapping[str, Any]) -> str:
    neurons = many(one["neurons"], "neuron") if "neurons" in one else named_heads(one["heads"])
    if one["edit"] == "off":
        return f"{neurons} switched off (zero ablation)"
    if one["edit"] == "scale":
        return f"{neurons} multiplied by {one['factor']:g}"
    if one["edit"] == "set":
        return f"{neurons} set to a value of their own"
    if one["at"] == "gate":
        return f"the inputs of {neurons} are raised, at strength {one['strength']:g}, toward those that give the values in lape.json"
    return f"the activations of {neurons} are raised by {one['strength']:g} times the values in lape.json"


def named_heads(heads: Sequence[Sequence[int]]) -> str:
    """Attention heads by (layer, head), as they are called in texts.

    Example:
        >>> from lape.ship.card import named_heads
        >>> named_heads([(17, 2)]), named_heads([(3, 0), (17, 2)])
        ('head 2 of layer 17', 'head 0 of layer 3 and head 2 of layer 17')
    """
    return " and ".join(f"head {head} of layer {layer}" for layer, head in heads)


def _use(said: Mapping[str, Any], base: str, name: str) -> Iterator[str]:
    yield "## Use"
    if "llama.cpp" in said["kind"]:
        yield (
            "With llama.cpp, beside the base model in GGUF (the scale, 1 here, is its strength, also per request; what is kept of a prompt would be used for "
            "other scales too):\n\n"
            f"```sh\nllama-server -m base.gguf --lora {name}/adapter.gguf --no-cache-prompt\n```"
        )
        return
    yield f'```python\nfrom peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base_model, "{name}")\n```'
    if "max_lora_rank" in said:
        yield (
            "With vLLM, per request, as the model's name (max-loras is one more than there are adapters: on a CPU, vLLM 0.32 computes requests for the base "
            f"that share a batch with others with whatever lies in the last place){_where(said)}:\n\n"
            f"```sh\n{vllm_command(base, said['max_lora_rank'], name, f'./{name}')}\n```"
        )
    yield f"That the server uses it: `lape doctor http://127.0.0.1:8000 --adapter {name}`."


def vllm_command(model: str, rank: int | str, name: str, folder: str) -> str:
    """Give the line that starts vLLM with an adapter; MODEL stands for a GGUF file, whose weights have other names than the adapter's.

    Example:
        >>> from lape.ship.card import vllm_command
        >>> vllm_command("base.gguf", 8, "fr", "fr-adapter").partition(" --")[0]
        'vllm serve MODEL'
    """
    return f"vllm serve {'MODEL' if is_gguf(model) else quote(model)} {vllm_options(rank, name, folder)}"


def is_gguf(model: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return model.lower().endswith(".gguf")


def _where(said: Mapping[str, Any]) -> str:
    """Say where the base model lies, of one that was loaded from this disk."""
    model = said["made_from"].get("model", {})
    base = _base(model)
    if is_gguf(base):
        return f". MODEL is the base model in Hugging Face's format, which the adapter is written for: not `{base}`"
    return f". `{base}` is the base model's folder" if model.get("path") else ""


def _load(name: str) -> Iterator[str]:
    yield "## Use"
    yield f"Any engine that serves the base model serves this folder, `{name}`, in its place."


def _fit(said: Mapping[str, Any]) -> Iterator[str]:
    if "largest_difference" in said:
        yield "## How near it is to the edit"
        yield (
            f"It is the edit: the largest difference of a logit from the model edited at run time is {said['largest_difference']:.1e} of the range of "
            "all logits, on a few fixed tokens."
        )
    if "fit" in said:
        yield "## How near it is to the edit"
        yield (
            "KL divergence of the next token's distribution, the model edited at run time ‖ this adapter, in nats, on text that nothing was fitted to and on "
            "its "
            "beginnings put as questions; the mean, the median, the mean of the worst row, the share of positions with the same likeliest token, and beside "
            "them the same mean against the unedited model: what the edit itself does. What is added at the gate spares position 0 at run time."
        )
        yield _table(
            [
                "language",
                "read as",
                "position",
                "positions",
                "KL",
                "median",
                "worst row",
                "same token",
                "edit ‖ unedited",
            ],
            [
                [
                    row["language"],
                    row["read_as"],
                    row["position"],
                    str(row["positions"]),
                    f"{row['kl']:.4f}",
                    f"{row['kl_median']:.4f}",
                    f"{row['kl_worst']:.4f}",
                    f"{row['agreement']:.3f}",
                    f"{row['edit']:.3f}",
                ]
                for row in said["fit"]
            ],
        )


def _cost(said: Mapping[str, Any]) -> Iterator[str]:
    if "cost" in said:
        yield "## What it costs"
        yield "Change of loss on text while it acts on every token, nats per token, with 95 % intervals over documents."
        yield _table(
            ["language", "tokens", "change of loss"],
            [
                [row["language"], str(row["tokens"]), f"{row['cost']:+.2f}{_between(row, 'low', 'high', '+.2f')}"]
                for row in said["cost"]
            ],
        )


def _choices(said: Mapping[str, Any]) -> Iterator[str]:
    if "choices" in said:
        yield "## How its strength was chosen"
        yield (
            "Greedy answers to development questions, asked in other languages: the share in the language, and of good ones (fluent and on topic too, by "
            "automatic proxies), with 95 % intervals over questions. The strength with the most good answers was taken; it reports on the "
            "questions that it was chosen on."
        )
        yield _table(
            ["", "answers", "in the language", "good"],
            [
                [
                    row["setting"],
                    str(row["answers"]),
                    *(
                        f"{row[share]:.2f}{_between(row, f'{share}_low', f'{share}_high', '.2f')}"
                        for share in ("in_language", "good")
                    ),
                ]
                for row in said["choices"]
            ],
        )


def _answers(said: Mapping[str, Any]) -> Iterator[str]:
    if "answers" in said:
        yield "## Answers with it and without"
        yield (
            f"Answers wanted in {said['answers'][0]['language']}, on other questions than its strength was chosen on (whether to use it was decided on these): "
            "the share that fails in any way (another language or script, a stretch of another language, refused, repeating itself), and the line pass rate "
            f"of the Language Confusion Benchmark (LPR), with 95 % intervals over questions. The line, which the system is told: `{said['line']}`"
        )
        yield _table(
            ["", "questions in", "answers", "failing", "LPR"],
            [
                [
                    row["condition"],
                    row["task"],
                    str(row["answers"]),
                    *(
                        f"{row[rate]:.2f}{_between(row, f'{rate}_low', f'{rate}_high', '.2f')}"
                        for rate in ("failing", "lpr")
                    ),
                ]
                for row in said["answers"]
            ],
        )


def _constants(said: Mapping[str, Any]) -> Iterator[str]:
    if "constants" in said:
        yield "## The constant"
        yield (
            "What is added at the gate stands on a direction along which the gate's input is nearly 1: root mean square of its distance from 1, on text that "
            "was "
            "held out, for the language where it is largest; and the same of its distance from 0 at first positions."
        )
        yield _table(
            ["gate projection", "distance from 1", "language", "at first positions"],
            [
                [
                    f"`{name}`",
                    f"{max(one['spread'].values()):.3f}",
                    max(one["spread"], key=one["spread"].get),
                    f"{one['first']:.3f}",
                ]
                for name, one in said["constants"].items()
            ],
        )


def _between(row: Mapping[str, Any], low: str, high: str, form: str) -> str:
    return "" if row[low] is None or row[high] is None else f" ({row[low]:{form}} to {row[high]:{form}})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """On one line, and no end of a cell within."""
    return " ".join(text.split()).replace("|", "\\|")
