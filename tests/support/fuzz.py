"""Files damaged by chance, from a seed, and what reads them: bits, JSON, tensors and tables, each changed in its own terms.

`KINDS` is the table of formats, `IMPOSSIBLE` that of contents which are whole and cannot be, each with the words that it is refused by.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import re
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import lape
from lape import cli
from lape.cli.asked import read_questions
from lape.errors import LapeError
from lape.experiments import claim
from lape.experiments.confusion.answers import read_answers
from lape.experiments.confusion.prompts import read_prompts
from lape.measure.ablation import Ablations
from lape.recording.engines.local import Local
from lape.ship import lora
from lape.ship.export import edits_in
from lape.store.run import write_table
from lape.store.tensors import write_tensors
from lape.study.claims import judge
from support.tiny import tiny, tiny_tokenizer

SECONDS = 20
DEEP = "[" * 100_000 + "]" * 100_000
ODD: tuple[Any, ...] = (None, True, -1, 5, 10**30, 1.5, "", "x", "\x1b[2J[/x]", [], [1], ["x"], {}, {"x": 1}, [[[[1]]]])
_RECORD = "record m --text en=en.txt --text fr=fr.txt --document line --row-tokens 64 --batch-tokens 64 --checkpoint-seconds 0 --device cpu"
_TEXTS = "--text en=en2.txt --text fr=fr2.txt --text zh=zh2.txt --document line"
_PERPLEXITY = f"perplexity m r {_TEXTS} --draws 1 --resamples 20 --device cpu"
_IDENTIFY = "identify FILE --method difference --per-language 8 --no-reliability --out OUT.safetensors"

Chance = random.Random


# What is done to files


def whole(content: bytes, _chance: Chance) -> bytes:
    """Nothing."""
    return content


def bits(content: bytes, chance: Chance) -> bytes:
    """One bit changed."""
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def bytes_of(content: bytes, chance: Chance) -> bytes:
    """Cut, emptied, overwritten, repeated or with something put in."""
    a, b = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    some = chance.randbytes(chance.randrange(1, 64))
    return chance.choice(
        [
            content[:a],
            content[a:],
            b"",
            content[:a] + some + content[b:],
            content[:b] + content[a:],
            content[:a] + bytes(b - a) + content[b:],
        ]
    )


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON: its holder, and its key there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield value, key
        yield from nodes(one)


def changed(value: Any, chance: Chance) -> Any:
    """JSON with one part of another kind, missing, or twice."""
    value = copy.deepcopy(value)
    holder, key = chance.choice(list(nodes(value)) or [([value], 0)])
    what = chance.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = copy.deepcopy(chance.choice(ODD))
    return value


def json_of(content: bytes, chance: Chance) -> bytes:
    """The same of a JSON file; or no number, or nothing but depth."""
    if chance.random() < 0.1:
        return re.sub(rb"\d+", chance.choice([b"NaN", b"-Infinity", DEEP.encode()]), content, count=1)
    return json.dumps(changed(json.loads(content), chance)).encode()


def toml_of(content: bytes, chance: Chance) -> bytes:
    """A value of another kind."""
    places = list(re.finditer(rb"(?m)= (.+)$", content))
    at = chance.choice(places)
    new = chance.choice(
        ["5", "-1", "nan", "inf", "1e400", '"x"', "[1]", "[]", "{ x = 1 }", "true", DEEP, "1979-05-27", "9" * 400]
    )
    return content[: at.start(1)] + new.encode() + content[at.end(1) :]


def lines_of(content: bytes, chance: Chance) -> bytes:
    """Text with something odd in a line of it."""
    lines = content.split(b"\n")
    odd = [
        b"\x00",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"<s></s>" * 9,
        b"\xe2\x80\xae",
        b"",
        b" " * 999,
        b'{"text": 5}',
        b"[" * 9999,
    ]
    lines[chance.randrange(len(lines))] = chance.choice(odd)
    return b"\n".join(lines)


def rows_of(content: bytes, chance: Chance) -> bytes:
    """Of JSON lines one with a part of another kind, missing, or twice."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at] = json.dumps(changed(json.loads(lines[at]), chance)).encode()
    return b"\n".join(lines)


def cells_of(content: bytes, chance: Chance) -> bytes:
    """Of comma-separated values some other cells."""
    odd = [
        "",
        "x",
        "-1",
        "1e400",
        '"',
        '"a""b"',
        "\0",
        "9" * 5000,
        "x" * 200_000,
        DEEP,
        "[1]",
        "\u2028",
        "fr,fr",
        "NaN",
    ]
    rows = [line.split(b",") for line in content.split(b"\n")]
    for _ in range(chance.randrange(1, 4)):
        row = chance.choice(rows)
        row[chance.randrange(len(row))] = chance.choice(odd).encode()
    return b"\n".join(b",".join(row) for row in rows)


def header_of(content: bytes, chance: Chance) -> bytes:
    """Of a GGUF file another version, or other numbers of tensors and keys."""
    at, size = chance.choice([(4, 4), (8, 8), (16, 8), (24, 8), (32, 4)])
    number = chance.choice([0, 1, 2, 3, 2**16, 2**31, 2**63, 2**64 - 1]) % 2 ** (8 * size)
    return content[:at] + number.to_bytes(size, "little") + content[at + size :]


def lists_of(path: Path, chance: Chance) -> None:
    """What PyTorch saves, whole, but no neurons' numbers."""
    index, layer = torch.tensor([1, 2]), torch.ones(3, dtype=torch.int64)
    odd = [
        5,
        None,
        {},
        [],
        [[]],
        index,
        [index],
        [[index] * 3] * 2,
        [[[index]] * 3] * 3,
        {"en": index},
        {5: [index] * 3},
    ]
    tensors = [
        layer * -1,
        layer * 99,
        layer / 2,
        layer.to("meta"),
        layer.to_sparse(),
        layer > 0,
        layer.expand(9**6, 3),
        layer * 0,
    ]
    torch.save(chance.choice([*odd, *([[one] * 3] * 3 for one in tensors)]), path)


def weights_of(path: Path, chance: Chance) -> None:
    """An adapter's tensors of another shape, number format or name."""
    weights = load_file(path)
    name = chance.choice(sorted(weights))
    one = weights.pop(name)
    odd = [one[:0], one[:, :1], one.flatten(), one.T, one * torch.nan, one.long(), torch.cat([one, one]), one.double()]
    weights[chance.choice([name, name, name, "x", f"{name}.x"])] = chance.choice(odd).contiguous()
    save_file(weights, path)


@dataclass
class Held:
    """What a tensor file holds."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]


def opened(path: Path) -> Held:
    with safe_open(path, framework="pt") as file:
        return Held(json.loads(file.metadata()["lape"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def tensors_of(path: Path, chance: Chance) -> None:
    """A header or tensors of another kind, under a seal of their own."""
    held = opened(path)
    name = chance.choice(sorted(held.tensors))
    tensor = held.tensors[name]
    what = chance.randrange(6)
    if what < 2:
        held.header = changed(held.header, chance)
    elif what == 2:
        del held.tensors[name]
    elif what == 3:
        held.tensors[name] = tensor[..., : max(tensor.shape[-1] // 2, 0)].clone() if tensor.dim() else tensor[None]
    elif what == 4:
        held.tensors[name] = tensor.to(chance.choice([torch.float32, torch.int32, torch.bool, torch.uint8]))
    else:
        held.tensors[chance.choice(["x", "xx/fires", f"{name}/x"])] = tensor
    write_tensors(path, held.tensors, held.header)


def table_of(path: Path, chance: Chance) -> None:
    """A table with another column, without one, of another kind, or with no number in it."""
    table = pl.read_parquet(path)
    name = chance.choice(table.columns)
    column = pl.col(name)
    new = chance.choice(
        [
            table.drop(name),
            table.rename({name: "x"}),
            table.with_columns(pl.lit("x").alias(name)),
            table.with_columns(pl.lit(None).alias(name)),
            table.with_columns(pl.lit(float("nan")).alias(name)),
            table.with_columns(pl.lit(float("inf")).alias(name)),
            table.with_columns(pl.when(pl.arange(pl.len()) > 0).then(column).alias(name)),
            table.with_columns(column.cast(pl.String)),
            table[:0],
            table.reverse(),
            pl.concat([table, table]),
        ]
    )
    write_table(path, new)


CLAIMS = """
[[claims]]
name = "a"
says = "It is more."
source = "us"
table = "t"
value = "value"
margin = 0.1
rule = "above"
where = { language = ["en", "fr"], halvings = "largest" }
member = "language"
"""

# The files, and who reads them

Reader = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """A kind of file: where one lies, what is done to it, and what reads it."""

    name: str
    file: str
    commands: tuple[str | Reader, ...]
    """FILE is the damaged one, HERE the folder it is in, OUT what is written; or functions of its path."""
    syntax: tuple[Callable[..., Any], ...] = (bits, bytes_of)
    """From bytes to bytes: what comes out is mostly no file of the kind."""
    meaning: tuple[Callable[..., Any], ...] = ()
    """From bytes to bytes, or of the path: what comes out is one, with something else in it."""
    good: bool = True
    """Whether the undamaged one is read."""
    exact: tuple[Callable[..., Any], ...] = ()
    """Of these, those after which there is a refusal, or what the whole file gives."""
    over: str = ""
    """The folder that is copied, with the file in it; default: the file alone."""


def _judged(path: Path) -> None:
    """What `lape study --claims` does with claims when everything is measured."""
    table = pl.DataFrame(
        {"language": ["en", "fr"], "halvings": [35, 35], "value": [0.5, None], "low": [0.4, None], "high": [0.6, None]}
    )
    for one in claim.read(path):
        judge(one, {one.table: table}, {}, ["fr"])
        judge(one, {}, {}, ["fr"])


@cache
def _model() -> Any:
    return tiny("llama", torch.float32)


def _answers(path: Path) -> object:
    return read_answers([path]).rows()


def _adapter(path: Path) -> object:
    return lora.digest(lora.read_for(_model(), path.parent))


def _edits(path: Path) -> object:
    edits = edits_in(path.parent, _model())
    with lape.edited(_model(), edits):
        return [str(one) for one in edits]


_HF = ("doctor HERE --device cpu",)
_SUMS = (bits, bytes_of)
OF_PATH = (tensors_of, table_of, lists_of, weights_of)
KINDS = (
    Kind(
        "stats",
        "r/stats.safetensors",
        (_IDENTIFY, "merge FILE --out OUT.safetensors"),
        _SUMS,
        (tensors_of,),
        exact=_SUMS,
    ),
    Kind("neurons", "r/neurons.safetensors", ("show FILE", "show FILE --with FILE"), _SUMS, (tensors_of,), exact=_SUMS),
    Kind("published", "n.pth", ("show FILE --languages en,fr,zh --width 44",), meaning=(lists_of,)),
    Kind("reliability", "r/neurons.reliability.parquet", ("show HERE",), _SUMS, (table_of,), exact=_SUMS, over="r"),
    Kind(
        "perplexity", "p/perplexity.parquet", ("report HERE --out OUT.html",), _SUMS, (table_of,), exact=_SUMS, over="p"
    ),
    Kind("run.json", "p/run.json", ("report HERE --out OUT.html",), (bytes_of,), (json_of,), over="p"),
    *(
        Kind(
            name,
            f"o.partial/{file}",
            (f"{_RECORD} --out TARGET",),
            syntax,
            meaning,
            exact=(*syntax, *meaning),
            over="o.partial",
        )
        for name, file, syntax, meaning in (
            ("recorded", "en.recorded", _SUMS, (tensors_of,)),
            ("checkpoint", "fr.checkpoint", _SUMS, (tensors_of,)),
            ("state", "state.checkpoint", (bytes_of,), (json_of,)),
        )
    ),
    Kind(
        "cell",
        "q.partial/cells/base.en.safetensors",
        (f"{_PERPLEXITY} --out TARGET",),
        _SUMS,
        (tensors_of,),
        exact=_SUMS,
        over="q.partial",
    ),
    Kind("claims", "claims.toml", (_judged,), (bytes_of,), (toml_of,)),
    Kind("answers", "answers.jsonl", (_answers,), _SUMS, (rows_of, lines_of)),
    Kind("answers.csv", "answers.csv", (_answers,), _SUMS, (cells_of,)),
    Kind("prompts", "prompts.jsonl", (read_prompts, read_questions), _SUMS, (rows_of, lines_of)),
    Kind("prompts.csv", "prompts.csv", (read_prompts,), _SUMS, (cells_of,)),
    Kind("adapter", "a/adapter_config.json", (_adapter,), (bytes_of,), (json_of,), over="a"),
    Kind("adapter weights", "a/adapter_model.safetensors", (_adapter,), (bytes_of,), (weights_of,), over="a"),
    Kind("lape.json", "a/lape.json", (_adapter, _edits), (bytes_of,), (json_of,), over="a"),
    *(
        Kind(name, f"m/{name}", _HF, (bytes_of,), (json_of,), over="m")
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    ),
    Kind("weights", "m/model.safetensors", _HF, (bytes_of,), over="m"),
    Kind("gguf", "g.gguf", ("doctor FILE --device cpu",), _SUMS, (header_of,), good=False),
    *(
        Kind(
            name,
            f"t/en.{name}",
            ("record m --text en=FILE --tokens 60 --device cpu --out OUT",),
            _SUMS,
            (table_of if name == "parquet" else lines_of,),
        )
        for name in ("txt", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")
    ),
)


# What cannot be: whole files, under a seal of their own where they have one


def _held(edit: Callable[[Held], None]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        held = opened(path)
        edit(held)
        write_tensors(path, held.tensors, held.header)

    return act


def _set(name: str, change: Callable[[Tensor], Any]) -> Callable[[Path], None]:
    def edit(held: Held) -> None:
        held.tensors[name] = change(held.tensors[name].clone())

    return _held(edit)


def _head(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(held: Held) -> None:
        held.header[name] = change(held.header[name])

    return _held(edit)


def _half_folds(held: Held) -> None:
    for name in ("tokens", "routed", "fires"):
        held.tensors[f"en/{name}"] = held.tensors[f"en/{name}"].reshape(4, 2, -1).sum(1).squeeze(-1)


def _first(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.flatten().index_fill(0, torch.tensor([0]), value).reshape(tensor.shape)


def _column(name: str, value: Any) -> Callable[[Path], None]:
    """A table whose first row has another value in a column."""

    def act(path: Path) -> None:
        table = pl.read_parquet(path)
        first = (
            pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value, dtype=table.schema[name])).otherwise(pl.col(name))
        )
        write_table(path, table.with_columns(first.alias(name)))

    return act


def _table(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    return lambda path: write_table(path, change(pl.read_parquet(path)))


def _row(**changes: Any) -> Callable[[Path], None]:
    """A file of one line, with other values in it; `...` takes a name out."""

    def act(path: Path) -> None:
        row = {**json.loads(path.read_text().split("\n")[0]), **changes}
        path.write_text(json.dumps({name: value for name, value in row.items() if value is not ...}))

    return act


def _line(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def _json(file: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another file of the folder, in which something was changed in place."""

    def act(path: Path) -> None:
        place = path.parent / file
        value = json.loads(place.read_text())
        edit(value)
        place.write_text(json.dumps(value))

    return act


def _config(**changes: Any) -> Callable[[Path], None]:
    return _json(lora.CONFIG, lambda value: value.update(changes))


def _edit(number: int, **changes: Any) -> Callable[[Path], None]:
    return _json(lora.MANIFEST, lambda value: value["edits"][number].update(changes))


def _made(**changes: Any) -> Callable[[Path], None]:
    return _json(lora.MANIFEST, lambda value: value["made_from"]["model"].update(changes))


def _weight(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        weights = load_file(path.parent / lora.WEIGHTS)
        name = next(name for name in sorted(weights) if name.endswith("lora_A.weight"))
        save_file({**weights, name: change(weights[name]).contiguous()}, path.parent / lora.WEIGHTS)

    return act


def _turns(*turns: Any) -> Callable[[Path], None]:
    return _row(messages=[{"role": role, "content": content} for role, content in turns])


_FEW = torch.full((132,), -1, dtype=torch.int64).view(torch.float64)
IMPOSSIBLE: dict[str, dict[str, tuple[Callable[[Path], None], str]]] = {
    "stats": {
        "fires above tokens": (_set("en/fires", lambda t: t + 10**6), "fires counts more tokens than reached"),
        "fires above tokens in one fold": (_set("en/fires", lambda t: t.flip(0) + t), "fires counts more tokens"),
        "fires below 0": (_set("en/fires", _first(-1)), "fires holds values below 0"),
        "tokens below 0": (_set("fr/tokens", lambda t: -t), "tokens holds values below 0"),
        "no tokens": (_set("fr/tokens", lambda t: t * 0), "no token was counted|routed"),
        "empty tokens": (_set("fr/tokens", lambda t: t[:0]), "fr has"),
        "routed above tokens": (_set("en/routed", lambda t: t + 1), "routed counts more tokens"),
        "routed below tokens": (
            _set("en/routed", lambda t: t - 1),
            "routed is not the number of tokens|holds values below 0",
        ),
        "routed below 0": (_set("en/routed", _first(-1)), "routed holds values below 0"),
        "a sum that is no number": (_set("zh/sum", _first(torch.nan)), "sum holds values that are infinite"),
        "an infinite sum": (_set("zh/written", _first(torch.inf)), "written holds values that are infinite"),
        "a square below 0": (_set("zh/square", _first(-1)), "square holds values below 0"),
        "an infinite square": (_set("zh/square", _first(torch.inf)), "square holds values that are infinite"),
        "a written square below 0": (_set("zh/written_square", _first(-1)), "written_square holds values below 0"),
        "positive below 0": (_set("zh/positive", _first(-1)), "positive holds values below 0"),
        "positive that is no number": (
            _set("zh/positive", _first(torch.nan)),
            "positive holds values that are infinite",
        ),
        "a histogram below 0": (_set("en/histogram", _first(-1)), "histogram holds values below 0"),
        "a histogram above tokens": (_set("en/histogram", lambda t: t + 10**6), "histogram counts more tokens"),
        "fires as float64": (_set("en/fires", lambda t: t.double()), "en has fires"),
        "fires of fewer neurons": (_set("en/fires", lambda t: t[:, 1:]), "en has fires"),
        "counts read as float64": (_set("en/sum", lambda _t: _FEW), "sum holds values that are infinite"),
        "folds unlike": (_held(_half_folds), "different numbers of folds"),
        "no fires": (_held(lambda held: held.tensors.pop("en/fires")), "en has no fires"),
        "a tensor of no language": (_held(lambda held: held.tensors.update({"de/x": torch.ones(1)})), "tensors of de"),
        "a tensor that nobody knows": (
            _held(lambda held: held.tensors.update({"en/x": torch.ones(1)})),
            "nothing says what it is",
        ),
        "a huge space": (_head("space", lambda _v: [[0, None, 10**12]]), "more neurons than"),
        "no space": (_head("space", lambda _v: []), "The space is not"),
        "layers in disorder": (_head("space", lambda v: [*v[1:], v[0]]), "layers in disorder"),
        "a layer below 0": (_head("space", lambda v: [[-1, *v[0][1:]], *v[1:]]), "numbers below 0"),
        "an expert without those before": (_head("space", lambda v: [[k, k, w] for k, _, w in v]), "not all before it"),
        "widths no whole numbers": (
            _head("space", lambda v: [[k, e, w + 0.5] for k, e, w in v]),
            "expected a whole number",
        ),
        "a format to come": (_head("format", lambda _v: 99), "is of format 99"),
        "a language twice": (_head("languages", lambda v: [v[0], v[0]]), "each once|tensors of"),
        "a language that is none": (_head("languages", lambda v: ["!", *v[1:]]), "not a language tag|tensors of"),
        "no language": (_head("languages", lambda _v: []), "Its languages are none"),
        "a language without tensors": (_head("languages", lambda v: [*v, "de"]), "de has no"),
        "manifest no object": (_head("manifest", lambda _v: [1]), "header.manifest is a list"),
        "model no object": (_head("manifest", lambda v: {**v, "model": 5}), "model is a whole number"),
        "model without a checksum": (_head("manifest", lambda v: {**v, "model": {"id": "x"}}), "has no checksum"),
    },
    "neurons": {
        "indices no whole numbers": (_set("set/en", lambda t: t + 0.5), "set/en is"),
        "indices out of range": (_set("set/en", lambda t: t + 10**6), "rising indices"),
        "an index below 0": (_set("set/en", lambda t: t - 10**6), "rising indices"),
        "an index twice": (_set("set/en", lambda t: torch.cat([t, t])), "rising indices|expected"),
        "indices that fall": (_set("set/en", lambda t: t.flip(0)), "rising indices"),
        "no set": (_held(lambda held: held.tensors.pop("set/en")), "It has .* for en"),
        "a set of no language": (
            _held(lambda held: held.tensors.update({"set/de": held.tensors["set/en"]})),
            "It has set/de beside",
        ),
        "a tensor that nobody knows": (
            _held(lambda held: held.tensors.update({"x": torch.ones(1)})),
            "It has x beside",
        ),
        "scores too short": (_set("profile/scores", lambda t: t[1:]), "profile/scores is"),
        "scores in another number format": (_set("profile/scores", lambda t: t.float()), "profile/scores is"),
        "a score that is no number": (_set("profile/scores", _first(float("nan"))), "scores"),
        "a probability above 1": (_set("profile/probabilities", _first(1.5)), "probabilities"),
        "a probability below 0": (_set("profile/probabilities", _first(-0.5)), "probabilities"),
        "a probability that is no number": (_set("profile/probabilities", _first(torch.nan)), "probabilities"),
        "a mean without end": (_set("profile/means", _first(float("inf"))), "means"),
        "a firing mean below 0": (_set("profile/firing_means", _first(-1)), "firing_means"),
        "means of fewer languages": (_set("profile/means", lambda t: t[1:]), "profile/means is"),
        "recorded no list": (_head("recorded", lambda _v: "en"), "recorded"),
        "recorded others": (_head("recorded", lambda v: v[1:]), "expected|recorded"),
        "stability of another length": (_set("stability/en", lambda t: t[1:]), "stability/en is"),
        "stability above 1": (_set("stability/en", lambda t: t + 2), "not between 0 and 1"),
        "stability below 0": (_set("stability/en", lambda t: t - 2), "not between 0 and 1"),
        "stability that is no number": (_set("stability/en", _first(torch.nan)), "not between 0 and 1"),
        "fingerprints no whole numbers": (_set("fingerprints", lambda t: t.double()), "fingerprints is"),
        "a language twice": (_head("languages", lambda _v: ["en", "en"]), "each once"),
        "a language that is none": (_head("languages", lambda _v: ["en", "fr", "no tag"]), "not a language tag"),
        "no language": (_head("languages", lambda _v: []), "Its languages are none"),
        "a huge space": (_head("space", lambda _v: [[0, None, 10**12]]), "more neurons than"),
        "a small space": (_head("space", lambda _v: [[0, None, 1]]), "rising indices"),
        "an expert without those before": (_head("space", lambda v: [[k, k, w] for k, _, w in v]), "not all before it"),
        "a format to come": (_head("format", lambda _v: 99), "is of format 99"),
        "manifest no object": (_head("manifest", lambda _v: 5), "header.manifest is a whole number"),
        "method no text": (_head("method", lambda _v: 5), "header.method is a whole number"),
        "options no object": (_head("options", lambda _v: []), "header.options is a list"),
        "notes no list": (_head("notes", lambda _v: "x"), "header.notes is text"),
        "notes no texts": (_head("notes", lambda _v: [5]), r"header.notes\[0\] is a whole number"),
    },
    "adapter": {
        "rank 0": (_config(r=0, lora_alpha=0), "the rank 0"),
        "rank below 0": (_config(r=-1, lora_alpha=-1), "the rank -1"),
        "rank no whole number": (_config(r=1.5), "r is a number"),
        "a rank that no tensor has": (
            _config(r=511, lora_alpha=511, rank_pattern={}, alpha_pattern={}),
            "not of a rank",
        ),
        "a rank of a module 0": (_config(rank_pattern={"x": 0}, alpha_pattern={"x": 0}), "the rank 0"),
        "alpha without end": (
            lambda path: (
                path.write_text(re.sub(r'"lora_alpha": \d+', '"lora_alpha": Infinity', path.read_text())) and None
            ),
            "Infinity is not a number",
        ),
        "alpha no number": (_config(lora_alpha="x"), "lora_alpha is text"),
        "another factor": (_config(lora_alpha=10**30), "a factor other than 1"),
        "no rank": (_json(lora.CONFIG, lambda value: value.pop("r")), "has no r"),
        "another kind": (_config(peft_type="IA3"), "peft_type, as adapters of lape have not"),
        "biases": (_config(bias="all"), "bias, as adapters"),
        "whole modules": (_config(modules_to_save=["lm_head"]), "modules_to_save, as"),
        "a direction no truth value": (_config(fan_in_fan_out="no"), "fan_in_fan_out is text"),
        "targets elsewhere": (_config(target_modules=["x"]), "not among its target_modules"),
        "a weight that is no number": (_weight(lambda t: t * torch.nan), "not finite"),
        "a weight without end": (_weight(lambda t: t + torch.inf), "not finite"),
        "weights of whole numbers": (_weight(lambda t: t.long()), "not finite numbers"),
        "weights of no rank": (_weight(lambda t: t[:0]), "not of a rank"),
        "weights of two ranks": (_weight(lambda t: torch.cat([t, t])), "not of a rank"),
        "weights in one dimension": (_weight(lambda t: t.flatten()), "not of a rank"),
        "weights of another model": (_weight(lambda t: t[:, 1:]), "Expected an adapter of this model"),
        "another checksum": (_made(checksum="0" * 64, probe=None), "which is not this model: checksum"),
        "another configuration": (_made(config={"hidden_act": "gelu"}), "which is not this model: hidden_act"),
        "other adapters": (_made(adapters="x"), "which is not this model: adapters"),
        "a checksum no text": (_made(checksum=5), "checksum is a whole number"),
        "no model": (_json(lora.MANIFEST, lambda value: value["made_from"].update(model=5)), "model is a whole number"),
        "made from nothing": (_json(lora.MANIFEST, lambda value: value.update(made_from=[])), "made_from is a list"),
        "no object": (lambda path: (path.parent / lora.MANIFEST).write_text("[]") and None, "is damaged"),
        "nested deeply": (lambda path: path.write_text(DEEP) and None, "nested"),
        "no number": (_config(r=None), "r is null"),
    },
    "lape.json": {
        "no edits": (_json(lora.MANIFEST, lambda value: value.pop("edits")), "has no edits"),
        "edits no list": (_json(lora.MANIFEST, lambda value: value.update(edits=5)), "edits is a whole number"),
        "an edit that nobody knows": (_edit(0, edit="erase"), "holds an edit that cannot be read"),
        "a neuron beyond the width": (_edit(0, flat=[10**9]), "neuron 1000000000|holds an edit|damaged"),
        "a neuron below 0": (_edit(0, flat=[-1]), "neuron|holds an edit|damaged"),
        "a neuron twice": (_edit(0, flat=[3, 3]), "twice|holds an edit|damaged"),
        "neurons no numbers": (_edit(0, flat="x"), "flat is text"),
        "half a neuron": (_edit(0, flat=[0.5]), "holds an edit|whole|damaged"),
        "a factor that is no number": (_edit(1, factor="x"), "factor|holds an edit"),
        "a factor without end": (_edit(1, factor=1e308 * 10), "Infinity|factor"),
        "no factor": (_json(lora.MANIFEST, lambda value: value["edits"][1].pop("factor")), "holds an edit"),
        "a value for each of other neurons": (_edit(2, value=[1.0, 2.0, 3.0, 4.0, 5.0]), "holds an edit"),
        "a value that is no number": (_edit(2, value="x"), "value is text"),
    },
    "perplexity": {
        **{
            f"{name} that is no number": (_column(name, float("nan")), f"values in {name} that are")
            for name in ("nll_base", "nll_off", "delta_token", "low", "high", "percent", "matched_mean")
        },
        **{
            f"{name} without end": (_column(name, float("inf")), f"values in {name} that are")
            for name in ("perplexity_off", "delta_sentence", "random_max")
        },
        **{
            f"{name} below 0": (_column(name, -1), f"numbers in {name} that are below 0")
            for name in ("neurons", "tokens", "characters", "sentences", "units")
        },
        **{
            f"no {name}": (_table(lambda table, name=name: table.drop(name)), f"lacks {name}")
            for name in ("off", "language", "tokens", "low", "percent")
        },
        **{
            f"{name} as text": (_table(lambda table, name=name: table.cast({name: pl.String})), f"{name} is String")
            for name in ("neurons", "tokens", "nll_base", "high")
        },
        "no language in a row": (_column("language", None), "do not tell apart"),
        "a row twice": (_table(lambda table: pl.concat([table, table[:1]])), "do not tell apart"),
        "a column that nobody knows": (_table(lambda table: table.with_columns(x=1)), "has unknown x"),
        "columns in another order": (_table(lambda table: table.select(reversed(table.columns))), "in another order"),
        "an interval upside down": (
            _table(lambda table: table.with_columns(low=pl.lit(2.0), high=pl.lit(1.0))),
            "low is above",
        ),
        "tokens no whole numbers": (_table(lambda table: table.cast({"tokens": pl.Float64})), "tokens is Float64"),
    },
    "reliability": {
        "a share above 1": (_column("median", 1.5), "median that are not between 0 and 1"),
        "a share below 0": (_column("p5", -0.5), "p5 that are not between 0 and 1"),
        "chance above 1": (_column("chance", 2.0), "chance that are not between 0 and 1"),
        "a share that is no number": (_column("median", float("nan")), "values in median that are"),
        "halvings below 0": (_column("halvings", -35), "numbers in halvings that are below 0"),
        "neurons below 0": (_column("neurons", -1), "numbers in neurons that are below 0"),
    },
    "answers": {
        "no answer": (_row(answer=...), "holds no answer"),
        "an answer that is a number": (_row(answer=5), "holds no answer"),
        "an answer that is true": (_row(answer=True), "holds no answer"),
        "an answer of no parts": (_row(answer=[]), "holds no answer"),
        "an answer of numbers": (_row(answer=[1, 2]), "holds no answer"),
        "an answer that is an object": (_row(answer={"x": 1}), "holds no answer"),
        "no language": (_row(language=...), "names no language"),
        "a language that is null": (_row(language=None), "names no language"),
        "a language that is a number": (_row(language=5), "language"),
        "a language that is no tag": (_row(language="no tag"), "language"),
        "a language that is blank": (_row(language="  "), "names no language"),
        "two languages in one": (_row(language="fr,ko"), "language"),
        "a list": (_line("[1]"), "not an object"),
        "a text": (_line('"x"'), "not an object"),
        "a number": (_line("5"), "not an object"),
        "no JSON": (_line("{"), "not JSON"),
        "depth": (_line(DEEP), "not JSON"),
        "a number of too many digits": (
            _line('{"answer": "x", "language": "fr", "seed": ' + "9" * 5000 + "}"),
            "not JSON",
        ),
        "nothing": (_line("\n\n"), "no answers"),
    },
    "prompts": {
        "no prompt": (_row(prompt=...), "holds no prompt"),
        "a prompt that is a number": (_row(prompt=5), "holds no prompt"),
        "a prompt that is blank": (_row(prompt=" "), "holds no prompt"),
        "no messages": (_row(messages=[]), "not a list of messages"),
        "messages that are no list": (_row(messages={"x": 1}), "not a list of messages"),
        "messages that are texts": (_row(messages=["x"]), "a message without a role"),
        "a role that nobody has": (_turns(("robot", "x")), "a message without a role"),
        "content that is a number": (_turns(("user", 5)), "a message without a role"),
        "content that is blank": (_turns(("user", " ")), "does not end with something the user says"),
        "the model speaks last": (
            _turns(("user", "x"), ("assistant", "y")),
            "does not end with something the user says",
        ),
        "the system is told late": (_turns(("user", "x"), ("system", "y"), ("user", "z")), "not its first message"),
        "a list of numbers": (_line("[1]"), "not an object|a message without"),
        "no JSON": (_line("{"), "not JSON"),
        "depth": (_line(DEEP), "not JSON"),
    },
}
"""Kind of file -> what it holds -> what makes it so, and the words by which it is refused."""


# What a server may send


def _chat(content: bytes, more: bytes = b"") -> bytes:
    return b'{"choices": [{"message": {"role": "assistant", "content": ' + content + b"}" + more + b"}]}"


def _framed(body: bytes) -> dict[str, bytes]:
    """An answer as a server may put it: whole, as an error, in chunks that are broken, and with a length that is not its own."""
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(body) + 5) + body
    return {
        "": b"HTTP/1.1 200 OK\r\n\r\n" + body,
        "an error": b"HTTP/1.1 500 \xff\x1b[2J\r\n\r\n" + body,
        "broken chunks": b"HTTP/1.1 200 OK\r\n" + chunks,
        "an error in broken chunks": b"HTTP/1.1 503 Busy\r\n" + chunks,
        "too short": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body,
    }


_BODIES = {
    "nothing": b"",
    "blank": b"  \n",
    "no JSON": b"<html>",
    "half of it": _chat(b'"x"')[:-9],
    "two": _chat(b'"x"') * 2,
    "no UTF-8": _chat(b'"\xff\xfe"'),
    "UTF-16": _chat(b'"x"').decode().encode("utf-16"),
    "half a character": _chat(rb'"bad \ud83d"'),
    "half a character as bytes": _chat(b'"bad \xed\xa0\xbd"'),
    "zeros": _chat(rb'"\u0000\u001b[2J\u202e"'),
    "a long text": _chat(b'"' + b"x" * 10**6 + b'"'),
    "a number": _chat(b"5"),
    "a huge number": _chat(b"1e999"),
    "too many digits": _chat(b"9" * 5000),
    "no number": _chat(b"NaN"),
    "true": _chat(b"true"),
    "null": _chat(b"null"),
    "an object": _chat(b'{"text": "x"}'),
    "texts": _chat(b'["x", "y"]'),
    "parts": _chat(b'[{"type": "text", "text": "x"}]'),
    "parts of numbers": _chat(b'[{"type": "text", "text": 5}]'),
    "parts of images": _chat(b'[{"type": "image_url"}]'),
    "parts without a type": _chat(b'[{"text": "x"}]'),
    "depth in content": _chat(b"[" * 60 + b"]" * 60),
    "depth": DEEP.encode(),
    "many lists": b"[" + b"[]," * 10**5 + b"[]]",
    "thought that is a number": _chat(b'null, "reasoning_content": 5'),
    "thought in a list": _chat(b'"x", "reasoning": [[]]'),
    "an end that is a list": _chat(b'"x"', b', "finish_reason": [1]'),
    "no message": b'{"choices": [{"text": 5}]}',
    "a message that is text": b'{"choices": [{"message": "x"}]}',
    "no choices": b'{"choices": []}',
    "choices that are null": b'{"choices": null}',
    "choices in an object": b'{"choices": {"0": 1}}',
    "a list": b"[1]",
    "a text": b'"x"',
    "an error's words": b'{"error": {"message": {"error": ["\\ud83d"]}}}',
    "models without names": b'{"data": [{}]}',
    "models with numbers": b'{"data": [{"id": 5, "parent": 5, "root": [], "owned_by": {}}]}',
    "models that are texts": b'{"data": ["x"]}',
    "a model with half a character": rb'{"data": [{"id": "\ud83d", "owned_by": "vllm"}]}',
    "a model twice": b'{"data": [{"id": "org/base"}, {"id": "org/base"}]}',
}
REPLIES = {
    f"{body}, {how}".strip(", "): reply for body, text in _BODIES.items() for how, reply in _framed(text).items()
}
REPLIES |= {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is text": b"HTTP/1.1 abc OK\r\n\r\n",
    "a huge status": b"HTTP/1.1 99999 OK\r\n\r\n",
    "a long line": b"HTTP/1.1 200 " + b"x" * 10**5,
    "a thousand headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    "a redirect": b"HTTP/1.1 307 X\r\nLocation: http://192.0.2.1/\xff\r\n\r\n",
    "a redirect nowhere": b"HTTP/1.1 301 X\r\n\r\n",
    "a length below 0": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "nothing at all": b"",
}
"""What it is -> the bytes that a server sends in place of its answer."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int | None
    """None where it ended in an exception, or not in time."""
    said: str
    result: bytes
    left: tuple[str, ...]
    """Half-written files that were not there before."""


class World:
    """A folder with one good file of each kind."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._made = folder, 0
        with contextlib.chdir(folder):
            _make()

    def damaged(self, kind: Kind, change: Callable[..., Any], chance: Chance) -> Path:
        """A copy of the kind's file, changed, with what lies about it."""
        self._made += 1
        place = self.folder / "damaged" / str(self._made)
        place.mkdir(parents=True)
        if kind.over:
            shutil.copytree(self.folder / kind.over, place / kind.over)
            path = place / kind.file
        else:
            path = place / Path(kind.file).name
            shutil.copy(self.folder / kind.file, path)
        if change in OF_PATH:
            change(path, chance)
        elif change is not whole:
            path.write_bytes(change(path.read_bytes(), chance))
        return path

    def run(self, command: str | Reader, path: Path) -> Outcome:
        """Give a damaged file to a verb or a function, then delete it."""
        place = path
        while place.parent != self.folder / "damaged":
            place = place.parent
        if not isinstance(command, str):
            with contextlib.chdir(self.folder):
                code, said = called(partial(command, path))
            shutil.rmtree(place)
            return Outcome(code, said, said.replace(str(place), "").encode(), ())
        out, target = place / "out", place / path.relative_to(place).parts[0].removesuffix(".partial")
        names = {"FILE": path, "HERE": path.parent, "TARGET": target, "OUT": out}
        words = [re.sub("FILE|HERE|TARGET|OUT", lambda found: str(names[found[0]]), word) for word in command.split()]
        before = _halves(place)
        with contextlib.chdir(self.folder):
            code, said = called(partial(cli.run, words))
        places = (
            target / "stats.safetensors",
            target / "perplexity.parquet",
            *(out.with_suffix(end) for end in (".safetensors", ".html")),
        )
        made = next(
            (one for one in places if "OUT" in command or "TARGET" in command if one.is_file() and one != path), None
        )
        result = made.read_bytes() if made and code == 0 else said.encode()
        resumed = "TARGET" in command
        left = () if resumed else tuple(sorted(_halves(place) - before))
        shutil.rmtree(place)
        return Outcome(code, said, result.replace(str(place).encode(), b""), left)


def _halves(place: Path) -> set[str]:
    return {
        str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith((".tmp", ".partial", ".lock"))
    }


def called(act: Callable[[], object]) -> tuple[int | None, str]:
    """The exit code of a command, or of a function by the same signs, run here with a time limit, and all it said."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    said = io.StringIO()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = act()
        return (found, said.getvalue()) if isinstance(found, int) else (0, f"{said.getvalue()}{found}")
    except LapeError as error:
        return 2, str(error)
    except (Exception, SystemExit):
        return None, said.getvalue() + traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _make() -> None:
    import gzip

    tiny("llama", torch.float32).save_pretrained("m")
    tiny_tokenizer().save_pretrained("m")
    words = {"en": "the cat sat on a mat", "fr": "le chat dort sur un lit", "zh": "猫 在 垫子 上 睡觉"}
    for number, (language, line) in enumerate(words.items()):
        chance = random.Random(number)
        for name in (f"{language}.txt", f"{language}2.txt"):
            lines = [" ".join(chance.choices(line.split(), k=9)) for _ in range(24)]
            Path(name).write_text("\n".join(lines), encoding="utf-8")
    Path("t").mkdir()
    text = Path("en.txt").read_text(encoding="utf-8")
    records = "\n".join(json.dumps({"text": line}) for line in text.split("\n"))
    Path("t/en.txt").write_text(text, encoding="utf-8")
    Path("t/en.jsonl").write_text(records, encoding="utf-8")
    Path("t/en.jsonl.gz").write_bytes(gzip.compress(records.encode()))
    pl.DataFrame({"text": text.split("\n")}).write_parquet("t/en.parquet")
    with contextlib.suppress(ImportError):
        import zstandard

        Path("t/en.jsonl.zst").write_bytes(zstandard.compress(records.encode()))
    Path("g.gguf").write_bytes(
        b"GGUF" + bytes([3, 0, 0, 0]) + (2).to_bytes(8, "little") + (2).to_bytes(8, "little") + bytes(200)
    )
    texts = "--text en=en.txt --text fr=fr.txt --text zh=zh.txt"
    _good(f"record m {texts} --document line --row-tokens 32 --histogram --device cpu --out r")
    _good("identify r --per-language 24")
    _good("identify r --method difference --per-language 24 --no-reliability --out n.pth")
    _good(f"{_PERPLEXITY} --out p")
    _stopped(f"{_PERPLEXITY} --out q", Ablations, "_edited_tensors", lambda *_: True)
    _good(f"{_RECORD} --out whole")
    _stopped(f"{_RECORD} --out o", Local, "_save", lambda corpus, _reader, done: (corpus.language, done) == ("fr", 2))
    Path("claims.toml").write_text(CLAIMS)
    rows = [{"prompt": f"Pourquoi {k} ?", "answer": "Oui, bien sûr.", "language": "fr", "seed": k} for k in range(4)]
    Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pl.DataFrame(rows).write_csv("answers.csv")
    talk = [{"role": "system", "content": "Kurz."}, {"role": "user", "content": "Warum?"}]
    asked = [*rows[:2], {"messages": talk, "language": "ko", "question": "q", "task": "t"}]
    Path("prompts.jsonl").write_text("\n".join(map(json.dumps, asked)))
    pl.DataFrame(rows).select("prompt", "language").write_csv("prompts.csv")
    model = _model()
    neurons = lape.LanguageNeurons.load("r")
    edits = [lape.Off(neurons["en"]), lape.Scale(neurons["fr"], 2.0), lape.Set(neurons["zh"], 0.5)]
    read = {"en": "en.txt", "fr": "fr.txt", "zh": "zh.txt"}
    lape.export(model, edits, "a", format="lora", tokenizer=tiny_tokenizer(), texts=read, tokens=400)


def _good(command: str) -> None:
    code, said = called(partial(cli.run, command.split()))
    assert code == 0, said


def _stopped(command: str, owner: type, method: str, here: Callable[..., bool]) -> None:
    """A run that was stopped after a method was called with what `here` is true of."""
    known = getattr(owner, method)

    def stop(self: Any, *given: Any) -> Any:
        result = known(self, *given)
        if here(*given):
            raise KeyboardInterrupt
        return result

    setattr(owner, method, stop)
    try:
        code, said = called(partial(cli.run, command.split()))
    finally:
        setattr(owner, method, known)
    assert code == 130, said
