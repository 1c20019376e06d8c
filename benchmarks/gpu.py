"""What one GPU does, in under 8 minutes and without a network: every number of speed and memory that the documentation gives of a card.

Parts, each timed in interleaved rounds:
body      LLaMA-2-7B's shape, random weights in bfloat16, 4 × 2,048 tokens: the bare body, the published rule as a hook, and what
          `lape record` does; with the matmul peak measured in the same process
embedded  the embedded model: the published rule as a hook on batches as in recording.py, beside ours on these and on larger ones
experts   the mixture of experts of experts.py: its own experts, watched one after the other, and counted
steering  a decode step of the embedded model, plain and steered
memory    the largest memory of reading a batch with LLaMA-2-7B's shape, bare and recording

Writes one JSON and prints the same as tables. Parts run in a process of their own, which is ended where it takes too long and begun anew
for the other parts where it fails: a part that fails says so in "failed", beside what it had measured by then.
With --tiny all parts run on tiny random models, on a CPU too. With --random the embedded model is its shape with random weights, for where
its packages are not installed. With --study nothing runs but the embedded model's recording, identification and perplexity, as `lape demo`
does them (up to 10 minutes), and "study" is added to a JSON that is there already.
usage: python benchmarks/gpu.py [--out FILE] [--tiny] [--random] [--study]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import experts
import steering
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

import lape
from lape.data import samples
from lape.data.windows import Batch
from lape.edit.steer import PUBLISHED
from lape.model.body import body, device_of, hidden_states, run_batch
from lape.model.find import find
from lape.model.hooks import watching
from lape.recording.counter import Recorder
from lape.recording.engine import RecordOptions
from lape.recording.reader import Reader
from lape.recording.record import record
from recording import OPTIONS, ROUNDS, published

Note: TypeAlias = Callable[[dict[str, Any]], None]
"""Told what a part has measured so far."""

# Seconds, in the order in which parts run: what one leaves over, those behind it may take. The first has a card that nothing lies on.
START = 30
LIMITS = {"memory": 25, "experts": 35, "steering": 45, "embedded": 95, "body": 195}
STUDY = {"study": 550}
FEWEST = 3
"""Rounds that are run however long they take."""
_POLL = 0.05

GEMMA = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "layer_types": [("full" if k % 6 == 5 else "sliding") + "_attention" for k in range(18)],
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
TINY_GEMMA = {**TINY, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
TINY_EXPERTS = {**TINY, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Way:
    """One of the things that are timed."""

    tokens: int
    """That a call of `read` reads or writes."""
    attached: Callable[[], AbstractContextManager[Any]]
    read: Callable[[], object]
    beside: str = "bare"
    """The way that it is to be compared with."""
    calls: int = 1
    """How many are timed as one."""


def timed(ways: Mapping[str, Way], device: torch.device, *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of a call of each way, round by round, for about so many seconds in all."""
    until = time.monotonic() + seconds
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            with torch.inference_mode(), way.attached():
                wait(device)
                began = time.perf_counter()
                for _ in range(way.calls):
                    way.read()
                wait(device)
                times[name].append((time.perf_counter() - began) / way.calls)
        if number >= min(FEWEST, rounds) and time.monotonic() > until:
            break
    return {name: some[1:] for name, some in times.items()}  # the first round warms up


def rates(ways: Mapping[str, Way], times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Of each way its tokens per second, and how many times those of the way beside it and of the published rule these are."""
    found = {name: ways[name].tokens / statistics.median(some) for name, some in times.items()}
    rule = found.get("published")
    return {
        name: {
            "tokens": ways[name].tokens,
            "tokens_per_second": rate,
            "slowest": ways[name].tokens / max(times[name]),
            "fastest": ways[name].tokens / min(times[name]),
            "rounds": len(times[name]),
            "beside": ways[name].beside,
            "to_beside": rate / found[ways[name].beside],
            **({} if rule is None else {"to_published": rate / rule}),
        }
        for name, rate in found.items()
    }


def failed(error: BaseException | str) -> dict[str, str]:
    """What is written of a part or a way that failed: one line."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return {"failed": textwrap.shorten(said, 400, placeholder=" …")}


def where() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def made(config: Any) -> Any:
    """A model with random weights in bfloat16, made where it is to lie."""
    torch.manual_seed(0)
    with torch.device(where()):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def embedded(tiny: bool, random: bool) -> tuple[str, Any, Any]:
    """What the embedded model is called, it and its tokenizer; or what stands for it, with one of single bytes."""
    if not (tiny or random):
        return "Gemma 3 270M", *lape.load("sample")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "</s>", "<s>", *letters]
    tokenizer = Tokenizer(models.BPE(vocab={name: k for k, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    name = "a tiny Gemma 3" if tiny else "Gemma 3 270M's shape, random weights"
    return name, made(Gemma3TextConfig(**(TINY_GEMMA if tiny else GEMMA))), wrapped


def filled(model: Any, options: RecordOptions) -> Batch:
    """A batch of random ids in full rows, a document each, its tokens in all folds."""
    shape = options.batch_tokens // options.row_tokens, options.row_tokens
    most = min(body(model).get_input_embeddings().num_embeddings, 30_000)
    ids = torch.randint(300, most, shape, generator=torch.Generator().manual_seed(0))
    source = torch.arange(ids.numel()).view(shape)
    return Batch(ids, None, source, source * 8 // ids.numel())


def reading(reader: Reader, one: Batch, **how: Any) -> Way:
    """What `lape record` does with a batch."""
    return Way(one.input_ids.numel(), reader.attached, lambda: reader.read(one), **how)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a product of square matrices."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def firing(reader: Reader, neurons: int) -> float:
    """The share of activations above 0 in what a reader has counted: evidence that what was timed counts. Raises ModelError where it missed some."""
    return float(reader.result()["fires"].sum()) / reader.tokens / neurons


def product(device: torch.device) -> Way:
    """Products of square matrices one behind the other, as long as a model's batch takes: a card that is busy runs at a lower clock than one
    that does a few of them. Its "tokens" are FLOP.
    """
    size, calls = (8192, 200) if device.type == "cuda" else (256, 1)
    a, b, out = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(3))
    return Way(2 * size**3, nullcontext, lambda: torch.mm(a, b, out=out), "product", calls)


def of_body(tiny: bool, note: Note) -> None:
    """The bare body, the published rule and ours, as shares of the matmul peak too."""
    options = RecordOptions(row_tokens=2048, batch_tokens=8192, one_per_row=True)
    if tiny:
        options = replace(options, row_tokens=32, batch_tokens=128)
    model = made(LlamaConfig(**(TINY if tiny else {})))
    found, device, one = find(model), device_of(model), filled(model, options)
    size, calls = one.input_ids.numel(), 1 if tiny else 2
    weights = sum(p.numel() for n, p in body(model).named_parameters() if p.dim() == 2 and "embed" not in n)
    plain, bare = Reader(model, found, options, None), partial(run_batch, model, one)
    ways = {
        "product": product(device),
        "bare": Way(size, nullcontext, bare, calls=calls),
        "published": Way(size, lambda: published(model, found), bare, calls=calls),
        "recorded": reading(plain, one, calls=calls),
    }
    result = rates(ways, timed(ways, device, rounds=1 if tiny else ROUNDS, seconds=40))
    sustained, best = result.pop("product")["tokens_per_second"], peak(device, torch.bfloat16)
    for row in result.values():
        row["of_peak"] = 2 * weights * row["tokens_per_second"] / sustained
        row["of_best"] = 2 * weights * row["tokens_per_second"] / best
    result["recorded"]["firing"] = firing(plain, len(found.space))
    about = {
        "model": "a tiny LLaMA" if tiny else "LLaMA-2-7B's shape, random weights",
        "rows": list(one.input_ids.shape),
        "flop_per_token": 2 * weights,
    }
    note({**about, "peak_flops": sustained, "best_flops": best, "ways": result})


def of_embedded(tiny: bool, random: bool, note: Note) -> None:
    """As of the body, and in larger batches, of which a card has its hands full."""
    called, model, _ = embedded(tiny, random)
    small = replace(OPTIONS, row_tokens=32, batch_tokens=128) if tiny else OPTIONS
    large = replace(small, batch_tokens=(4 if tiny else 16) * small.batch_tokens)
    found, device = find(model), device_of(model)
    little, much = filled(model, small), filled(model, large)
    calls = 1 if tiny else 5
    readers = {"recorded": Reader(model, found, small, None), "recorded_large": Reader(model, found, large, None)}
    few, many = little.input_ids.numel(), much.input_ids.numel()
    ways = {
        "bare": Way(few, nullcontext, partial(run_batch, model, little), calls=calls),
        "published": Way(few, lambda: published(model, found), partial(run_batch, model, little), calls=calls),
        "recorded": reading(readers["recorded"], little, calls=calls),
        "bare_large": Way(many, nullcontext, partial(run_batch, model, much), "bare_large", calls),
        "recorded_large": reading(readers["recorded_large"], much, beside="bare_large", calls=calls),
    }
    result = rates(ways, timed(ways, device, rounds=1 if tiny else ROUNDS, seconds=20))
    for name, reader in readers.items():
        result[name]["firing"] = firing(reader, len(found.space))
    rows = {"rows": list(little.input_ids.shape), "large_rows": list(much.input_ids.shape)}
    note({"model": called, **rows, "ways": result})


def of_experts(tiny: bool, note: Note) -> None:
    if tiny:
        model = made(Qwen3MoeConfig(**TINY_EXPERTS))
    else:
        torch.manual_seed(0)
        with torch.device(where()):
            model = experts.model()
    found, device = find(model), device_of(model)
    one = filled(model, RecordOptions(row_tokens=32, batch_tokens=128) if tiny else RecordOptions(batch_tokens=8192))
    ids = one.input_ids.to(device)
    recorder = Recorder(model, found)

    def counted() -> None:
        recorder.count(one.fold)
        hidden_states(model, ids)

    run = partial(hidden_states, model, ids)
    ways = {
        "bare": Way(ids.numel(), nullcontext, run),
        "watched": Way(ids.numel(), lambda: watching(model, found.sites, lambda _k, _a, _rows: None), run),
        "counted": Way(ids.numel(), recorder.attached, counted),
    }
    result = rates(ways, timed(ways, device, rounds=FEWEST if tiny else ROUNDS, seconds=15))
    called = "a tiny Qwen3 MoE" if tiny else "Qwen3 MoE, 4 layers of 64 experts, random weights"
    note({"model": called, "rows": list(ids.shape), "ways": result})


def of_steering(tiny: bool, random: bool, note: Note) -> None:
    called, model, tokenizer = embedded(tiny, random)
    device = device_of(model)
    texts = samples.texts("record", 2, languages=("en", "fr", "zh"))
    stats = record(model, tokenizer, texts, tokens=200 if tiny else None)
    neurons = lape.identify(stats, "difference", per_language=5 if tiny else 100)
    ids = tokenizer(["How can I manage my time better?"], return_tensors="pt")["input_ids"].to(device)
    steered = {**vars(PUBLISHED), "source": "en", "to": "fr"}
    generate = partial(steering.seconds, model, ids)
    ways = {
        "bare": Way(steering.TOKENS, nullcontext, generate),
        "steered": Way(steering.TOKENS, lambda: lape.steer(model, neurons, stats=stats, **steered), generate),
    }
    result = rates(ways, timed(ways, device, rounds=2 if tiny else ROUNDS, seconds=20))
    for row in result.values():
        row["ms_per_step"] = 1000 / row["tokens_per_second"]
    note({"model": called, "steps": steering.TOKENS, "ways": result})


def of_memory(tiny: bool, note: Note) -> None:
    """Of torch's own count; without a card there is none."""
    options = RecordOptions(row_tokens=2048, batch_tokens=8192, one_per_row=True)
    if tiny:
        options = replace(options, row_tokens=32, batch_tokens=128)
    model = made(LlamaConfig(**(TINY if tiny else {})))
    one, device = filled(model, options), device_of(model)
    found = find(model)

    def most(attached: Callable[[], AbstractContextManager[Any]], read: Callable[[], object]) -> int | None:
        with torch.inference_mode(), attached():
            read()  # what libraries keep once they have run
            wait(device)
            if device.type != "cuda":
                return None
            torch.cuda.reset_peak_memory_stats(device)
            read()
            wait(device)
            return int(torch.cuda.max_memory_allocated(device))

    bare = most(nullcontext, partial(run_batch, model, one))
    reader = Reader(model, found, options, None)
    ours = most(reader.attached, lambda: reader.read(one))
    ratio = None if bare is None or ours is None else ours / bare
    called = "a tiny LLaMA" if tiny else "LLaMA-2-7B's shape, random weights"
    note({"model": called, "rows": list(one.input_ids.shape), "bare": bare, "recording": ours, "ratio": ratio})


def of_study(tiny: bool, random: bool, note: Note) -> None:
    """What `lape demo` computes, with its options."""
    from lape.cli.demo import ROW_TOKENS, demo  # the other parts need not the packages that verbs do
    from lape.cli.perplexity import summaries
    from lape.experiments.perplexity.run import PerplexityOptions, line_losses

    result: dict[str, Any] = {"card": card()}
    began = last = time.monotonic()

    def took(name: str) -> None:
        nonlocal last
        wait(where())
        now = time.monotonic()
        result[f"{name}_seconds"], result["seconds"], last = now - last, now - began, now
        note(result)

    few = {"languages": ("en", "fr", "zh")} if tiny else {}
    result["model"], model, tokenizer = embedded(tiny, random)
    took("load")
    texts = samples.texts("record", 2 if tiny else None, **few)
    stats = record(model, tokenizer, texts, row_tokens=ROW_TOKENS, residual=True)
    result["recorded_tokens"] = sum(int(stats[language].tokens.sum()) for language in stats.languages)
    took("record")
    neurons = lape.identify(stats)
    result["neurons"] = {language: len(some) for language, some in neurons.items()}
    took("identify")
    usual: Any = demo.__kwdefaults__
    options = PerplexityOptions(row_tokens=ROW_TOKENS, draws=1 if tiny else usual["draws"], elsewhere=1)
    evaluated = samples.texts("evaluate", 1 if tiny else None, sentences=1 if tiny else usual["sentences"], **few)
    lines = line_losses(model, tokenizer, neurons, evaluated, options)
    summaries(lines, neurons, options)
    took("perplexity")


def card() -> str | None:
    """The GPU's name; None where there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def work(names: Sequence[str], path: Path, *, tiny: bool, random: bool) -> None:
    """Run parts one after the other, and keep in a file which one is under way and what all have measured.

    Ends after one that fails: a card that has met an error is of no use to the same process.
    """
    parts: dict[str, Callable[[Note], None]] = {
        "memory": partial(of_memory, tiny),
        "experts": partial(of_experts, tiny),
        "steering": partial(of_steering, tiny, random),
        "embedded": partial(of_embedded, tiny, random),
        "body": partial(of_body, tiny),
        "study": partial(of_study, tiny, random),
    }
    measured: dict[str, Any] = {}
    for name in names:
        keep(path, {"begun": name, "parts": measured, "card": card()})
        print(f"{name} …", file=sys.stderr, flush=True)

        def note(result: dict[str, Any], name: str = name) -> None:
            measured[name] = result
            keep(path, {"begun": name, "parts": measured, "card": card()})

        try:
            parts[name](note)
        except Exception as error:
            note({**measured.get(name, {}), **failed(error)})
            raise
        gc.collect()
        torch.cuda.empty_cache()


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write a JSON in one step, so that whoever reads it meanwhile finds a whole one."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def supervised(command: Sequence[str], limits: Mapping[str, float], start: float = START) -> dict[str, Any]:
    """What `command`, called with a file and names of parts, measured of all parts: a process that fails or takes too long is followed by one
    for the parts behind.
    """
    at, until = time.monotonic() + start, {}
    for name, seconds in limits.items():
        at += seconds
        until[name] = at
    state: dict[str, Any] = {"parts": {}, "card": None}
    left = list(limits)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "state.json"
        while left:
            path.unlink(missing_ok=True)
            process = subprocess.Popen([*command, str(path), *left], start_new_session=True)
            why = None
            try:
                while process.poll() is None:
                    begun = _state(path).get("begun", left[0])
                    if time.monotonic() > until[begun]:
                        why = "stopped: it took too long"
                        break
                    time.sleep(_POLL)
            finally:
                _end(process)
            told = _state(path)
            state["parts"] |= told.get("parts", {})
            state["card"] = told.get("card") or state["card"]
            if process.returncode == 0 and why is None:
                break
            begun = told.get("begun", left[0])
            lost = state["parts"].setdefault(begun, {})
            lost.setdefault("failed", why or f"its process ended with {process.returncode}")
            left = left[left.index(begun) + 1 :]
    return state


def _state(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it began."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


NAMES = {
    "bare": "bare body",
    "published": "published rule, a hook",
    "recorded": "lape",
    "bare_large": "bare body, more rows",
    "recorded_large": "lape, more rows",
    "watched": "experts in turn, watched",
    "counted": "counted",
    "steered": "steered",
}
HEADS = {
    "tokens": "tokens",
    "tokens_per_second": "tokens/s",
    "ms_per_step": "ms/step",
    "to_beside": "x bare",
    "to_published": "x published",
    "of_peak": "of peak",
}
GOALS = (
    ("body", "recorded", "to_published", 1.0, "lape, x the published rule"),
    ("embedded", "recorded", "to_published", 1.0, "embedded, lape, x the published rule"),
)


def shown(result: Mapping[str, Any]) -> str:
    """The same to read, in 80 columns."""
    lines = [
        f"{result['card'] or 'CPU'}, torch {result['torch']}, transformers {result['transformers']}, Python {result['python']}",
        f"{result['date']}, {result['seconds']:.0f} s{', tiny models' if result['tiny'] else ''}",
    ]
    for name, part in result["parts"].items():
        lines += ["", _title(name, part)]
        ways = part.get("ways", {})
        heads = [head for head in HEADS if any(head in row for row in ways.values())]
        if ways:
            lines.append(f"{'':25}" + "".join(f"{HEADS[head]:>{_room(head)}}" for head in heads))
        for way, row in ways.items():
            if "failed" in row:
                lines += _failure(f"{NAMES[way]}: {row['failed']}")
            else:
                lines.append(f"{NAMES[way]:25}" + "".join(f"{_cell(head, row):>{_room(head)}}" for head in heads))
        if name == "memory" and part.get("ratio"):
            sizes = ", ".join(f"{way} {part[way] / 2**30:.2f} GiB" for way in ("bare", "recording"))
            lines.append(f"{sizes}, ratio {part['ratio']:.3f} (goal: near 1)")
        elif name == "memory" and "failed" not in part:
            lines.append("not known without a GPU")
        if "peak_flops" in part:
            sizes = [part[name] / 1e12 for name in ("peak_flops", "best_flops")]
            lines.append("matrix product: {:,.1f} TFLOP/s in the same rounds, {:,.1f} the best of a few".format(*sizes))
        lines += _failure(part["failed"]) if "failed" in part else []
    lines += ["", *_goals(result["parts"])]
    if "study" in result:
        study = result["study"]
        seconds = [f"{k.removesuffix('_seconds')} {v:.1f} s" for k, v in study.items() if k.endswith("_seconds")]
        lines += [f"study: {', '.join(seconds)}", *(_failure(study["failed"]) if "failed" in study else [])]
    return "\n".join(wrapped for line in lines for wrapped in textwrap.wrap(line, 80) or [""]) + "\n"


def _title(name: str, part: Mapping[str, Any]) -> str:
    said = [part["model"]] if "model" in part else []
    said += [f"{' x '.join(map(str, part['rows']))} tokens"] if "rows" in part else []
    return f"{name}: {', '.join(said)}"


def _room(head: str) -> int:
    return max(len(HEADS[head]) + 1, {"tokens_per_second": 11, "tokens": 7}.get(head, 0))


def _cell(head: str, row: Mapping[str, Any]) -> str:
    if head not in row:
        return ""
    value = row[head]
    forms = {"of_peak": "{:.1%}", "compile_seconds": "{:.1f} s", "ms_per_step": "{:.2f}"}
    return forms.get(head, "{:.3f}" if head.startswith("to_") else "{:,.0f}").format(value)


def _failure(said: str) -> list[str]:
    return textwrap.wrap(f"failed: {said}", 78, initial_indent="  ", subsequent_indent="  ")


def _goals(parts: Mapping[str, Any]) -> Iterator[str]:
    for part, way, what, least, said in GOALS:
        found = parts.get(part, {}).get("ways", {}).get(way, {}).get(what)
        if found is not None:
            yield f"goal: {said}: {found:.3f}, at least {least}: {'yes' if found >= least else 'no'}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("gpu.json"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--study", action="store_true")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)  # a file and parts: of the process that is watched
    arguments = parser.parse_args()
    if arguments.work:
        path, *names = arguments.work
        work(names, Path(path), tiny=arguments.tiny, random=arguments.random)
        return
    if not (arguments.tiny or torch.cuda.is_available()):
        parser.error("torch sees no GPU here. With --tiny all parts run on a CPU.")
    if not os.access(arguments.out.resolve().parent, os.W_OK):  # rather now than when all is measured
        parser.error(f"nothing can be written to {arguments.out}")
    before = _state(arguments.out)
    began = time.monotonic()
    flags = [f"--{name}" for name in ("tiny", "random") if getattr(arguments, name)]
    limits = STUDY if arguments.study else LIMITS
    found = supervised([sys.executable, __file__, *flags, "--work"], limits)
    result: dict[str, Any] = {
        "card": found["card"],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "tiny": arguments.tiny,
        "seconds": time.monotonic() - began,
        "parts": {name: found["parts"][name] for name in reversed(limits)},
    }
    if arguments.study:
        study = result["parts"].pop("study")
        result = {**(before or result), "study": study}
    elif "study" in before:
        result["study"] = before["study"]
    keep(arguments.out, result)
    print(shown(result), end="")


if __name__ == "__main__":
    main()
