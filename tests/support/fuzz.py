"""Files damaged by chance, from a seed, and the verbs that read them: bits, JSON, tensors and tables, each changed in its own terms."""

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
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor

from lape import cli
from lape.errors import LapeError
from lape.experiments import claim
from lape.measure.ablation import Ablations
from lape.recording.engines.local import Local
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


# Laws: none of these can be


def _set(name: str, change: Callable[[Tensor], Any]) -> Callable[[Held], None]:
    def act(held: Held) -> None:
        held.tensors[name] = change(held.tensors[name].clone())

    return act


def _head(name: str, change: Callable[[Any], Any]) -> Callable[[Held], None]:
    def act(held: Held) -> None:
        held.header[name] = change(held.header[name])

    return act


def _half_folds(held: Held) -> None:
    for name in ("tokens", "routed", "fires"):
        held.tensors[f"en/{name}"] = held.tensors[f"en/{name}"].reshape(4, 2, -1).sum(1).squeeze(-1)


def _first(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.flatten().index_fill(0, torch.tensor([0]), value).reshape(tensor.shape)


IMPOSSIBLE: dict[str, dict[str, Callable[[Held], None]]] = {
    "stats": {
        "fires above tokens": _set("en/fires", lambda t: t + 10**6),
        "fires below 0": _set("en/fires", _first(-1)),
        "tokens below 0": _set("fr/tokens", lambda t: -t),
        "no tokens": _set("fr/tokens", lambda t: t * 0),
        "empty tokens": _set("fr/tokens", lambda t: t[:0]),
        "routed above tokens": _set("en/routed", lambda t: t + 1),
        "routed below 0": _set("en/routed", _first(-1)),
        "a sum that is no number": _set("zh/sum", _first(torch.nan)),
        "an infinite sum": _set("zh/written", _first(torch.inf)),
        "a square below 0": _set("zh/square", _first(-1)),
        "positive below 0": _set("zh/positive", _first(-1)),
        "a histogram below 0": _set("en/histogram", _first(-1)),
        "fires as float64": _set("en/fires", lambda t: t.double()),
        "counts read as float64": _set(
            "en/sum", lambda _t: torch.full((132,), -1, dtype=torch.int64).view(torch.float64)
        ),
        "folds unlike": _half_folds,
        "a huge space": _head("space", lambda _v: [[0, None, 10**12]]),
        "layers in disorder": _head("space", lambda v: [*v[1:], v[0]]),
        "widths no whole numbers": _head("space", lambda v: [[k, e, w + 0.5] for k, e, w in v]),
        "a format to come": _head("format", lambda _v: 99),
        "a language twice": _head("languages", lambda v: [v[0], v[0]]),
        "a language that is none": _head("languages", lambda v: ["!", *v[1:]]),
        "manifest no object": _head("manifest", lambda _v: [1]),
        "model no object": _head("manifest", lambda v: {**v, "model": 5}),
    },
    "neurons": {
        "indices no whole numbers": _set("set/en", lambda t: t + 0.5),
        "indices out of range": _set("set/en", lambda t: t + 10**6),
        "an index twice": _set("set/en", lambda t: torch.cat([t, t])),
        "scores too short": _set("profile/scores", lambda t: t[1:]),
        "a score that is no number": _set("profile/scores", _first(float("nan"))),
        "a probability above 1": _set("profile/probabilities", _first(1.5)),
        "a mean without end": _set("profile/means", _first(float("inf"))),
        "a firing mean below 0": _set("profile/firing_means", _first(-1)),
        "means of fewer languages": _set("profile/means", lambda t: t[1:]),
        "recorded no list": _head("recorded", lambda _v: "en"),
        "recorded others": _head("recorded", lambda v: v[1:]),
        "stability of another length": _set("stability/en", lambda t: t[1:]),
        "stability above 1": _set("stability/en", lambda t: t + 2),
        "a language twice": _head("languages", lambda _v: ["en", "en"]),
        "a huge space": _head("space", lambda _v: [[0, None, 10**12]]),
        "a format to come": _head("format", lambda _v: 99),
        "manifest no object": _head("manifest", lambda _v: 5),
        "notes no list": _head("notes", lambda _v: "x"),
    },
}


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


@dataclass(frozen=True)
class Kind:
    """A kind of file: where one lies, what is done to it, and the commands that read it."""

    name: str
    file: str
    commands: tuple[str, ...]
    """FILE is the damaged one, HERE the folder it is in, OUT what is written."""
    change: tuple[Callable[..., Any], ...]
    """From bytes to bytes, or of the path."""
    ours: bool = True
    good: bool = True
    """Whether the undamaged one is read."""
    exact: tuple[Callable[..., Any], ...] = ()
    """Of these, those after which there is a refusal, or what the whole file gives."""
    over: str = ""
    """The folder that is copied, with the file in it; default: the file alone."""


_HF = ("doctor HERE --device cpu",)
KINDS = (
    Kind(
        "stats",
        "r/stats.safetensors",
        (_IDENTIFY, "merge FILE --out OUT.safetensors"),
        (bits, bytes_of, tensors_of),
        exact=(bits, bytes_of),
    ),
    Kind(
        "neurons",
        "r/neurons.safetensors",
        ("show FILE", "compare FILE FILE"),
        (bits, bytes_of, tensors_of),
        exact=(bits, bytes_of),
    ),
    Kind("published", "n.pth", ("show FILE --languages en,fr,zh --width 44",), (bits, bytes_of)),
    Kind(
        "reliability",
        "r/neurons.reliability.parquet",
        ("show HERE",),
        (bits, bytes_of, table_of),
        exact=(bits, bytes_of),
        over="r",
    ),
    Kind(
        "perplexity",
        "p/perplexity.parquet",
        ("report HERE --out OUT.html",),
        (bits, bytes_of, table_of),
        exact=(bits, bytes_of),
        over="p",
    ),
    Kind("run.json", "p/run.json", ("report HERE --out OUT.html",), (bytes_of, json_of), over="p"),
    Kind(
        "recorded",
        "o.partial/en.recorded",
        (f"{_RECORD} --out TARGET",),
        (bits, bytes_of, tensors_of),
        exact=(bits, bytes_of, tensors_of),
        over="o.partial",
    ),
    Kind(
        "checkpoint",
        "o.partial/fr.checkpoint",
        (f"{_RECORD} --out TARGET",),
        (bits, bytes_of, tensors_of),
        exact=(bits, bytes_of, tensors_of),
        over="o.partial",
    ),
    Kind(
        "state",
        "o.partial/state.checkpoint",
        (f"{_RECORD} --out TARGET",),
        (bytes_of, json_of),
        exact=(bytes_of, json_of),
        over="o.partial",
    ),
    Kind(
        "cell",
        "q.partial/cells/base.en.safetensors",
        (f"{_PERPLEXITY} --out TARGET",),
        (bits, bytes_of, tensors_of),
        exact=(bits, bytes_of),
        over="q.partial",
    ),
    Kind("claims", "claims.toml", ("judge FILE",), (bytes_of, toml_of)),
    Kind("config.json", "m/config.json", _HF, (bytes_of, json_of), ours=False, over="m"),
    Kind("generation_config.json", "m/generation_config.json", _HF, (bytes_of, json_of), ours=False, over="m"),
    Kind("tokenizer.json", "m/tokenizer.json", _HF, (bytes_of, json_of), ours=False, over="m"),
    Kind("tokenizer_config.json", "m/tokenizer_config.json", _HF, (bytes_of, json_of), ours=False, over="m"),
    Kind("weights", "m/model.safetensors", _HF, (bytes_of,), ours=False, over="m"),
    Kind("gguf", "g.gguf", ("doctor FILE --device cpu",), (bits, bytes_of), ours=False, good=False),
    *(
        Kind(
            name,
            f"t/en.{name}",
            ("record m --text en=FILE --tokens 60 --device cpu --out OUT",),
            (bits, bytes_of, lines_of),
            ours=False,
        )
        for name in ("txt", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")
    ),
)
"""All whose `ours` we write ourselves."""


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
        if change in (tensors_of, table_of):
            change(path, chance)
        elif change is not whole:
            path.write_bytes(change(path.read_bytes(), chance))
        return path

    def run(self, command: str, path: Path) -> Outcome:
        """Give a damaged file to a verb, then delete it."""
        place = path
        while place.parent != self.folder / "damaged":
            place = place.parent
        out, target = place / "out", place / path.relative_to(place).parts[0].removesuffix(".partial")
        names = {"FILE": path, "HERE": path.parent, "TARGET": target, "OUT": out}
        words = [re.sub("FILE|HERE|TARGET|OUT", lambda found: str(names[found[0]]), word) for word in command.split()]
        before = _halves(place)
        with contextlib.chdir(self.folder):
            code, said = called(words) if words[0] != "judge" else judged(path)
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


def called(words: list[str]) -> tuple[int | None, str]:
    """The exit code of a command, run here with a time limit, and all it said."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    said = io.StringIO()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return cli.run(words), said.getvalue()
    except (Exception, SystemExit):
        return None, said.getvalue() + traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judged(path: Path) -> tuple[int | None, str]:
    """What `lape study --claims` does with claims when everything is measured, by the same signs as a command."""
    table = pl.DataFrame(
        {"language": ["en", "fr"], "halvings": [35, 35], "value": [0.5, None], "low": [0.4, None], "high": [0.6, None]}
    )
    try:
        for one in claim.read(path):
            judge(one, {one.table: table}, {}, ["fr"])
            judge(one, {}, {}, ["fr"])
    except LapeError as error:
        return 2, str(error)
    except Exception:
        return None, traceback.format_exc()
    return 0, ""


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


def _good(command: str) -> None:
    code, said = called(command.split())
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
        code, said = called(command.split())
    finally:
        setattr(owner, method, known)
    assert code == 130, said
