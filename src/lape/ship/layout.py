"""One thought, what is published of a folder: its files without this machine's paths, a card (README.md), and reproduce.json."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
from huggingface_hub import ModelCardData, try_to_load_from_cache
from huggingface_hub.repocard import metadata_load

from lape.errors import FileError, OptionError, told
from lape.measure.controlled import CONTROLLED
from lape.signs import many, visible
from lape.store import files
from lape.store.documents import read_json
from lape.store.run import NEURONS, STATS, Run, check_table, read_table
from lape.values import made
from lape.values.neurons import LanguageNeurons, layers_of
from lape.values.stats import ActivationStats

CARD, REPRODUCE, EXPORTED = "README.md", "reproduce.json", "lape.json"
"""The card; how to make it again; and what `lape export` says of an adapter or a checkpoint."""
HELD = (NEURONS, STATS, CARD, REPRODUCE)
"""What is published of a run."""
_log = logging.getLogger("lape")
TAGS = ("language-neurons", "lape")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""OWNER/NAME: what repositories of the Hub are called."""
FORMAT = 1
_LICENCE = ("license", "license_name", "license_link")
_PLACE = re.compile(r"^((?:[^=\s]+=)?)(?:[A-Za-z]:)?[/\\~].*?([^/\\]+)[/\\]*$")
"""A path from a root, also as TAG=PATH; its last part says enough to whoever is elsewhere."""

Source: TypeAlias = "LanguageNeurons | ActivationStats | str | Path"
"""What can be published: a value, or the folder of a run, an adapter or a checkpoint."""


@dataclass(frozen=True)
class Found:
    """What there is to publish."""

    neurons: LanguageNeurons | None = None
    stats: ActivationStats | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """The run.json of the run."""
    effects: pl.DataFrame | None = None
    """With the neurons off: the change of loss less that of control neurons, see `lape.measure.controlled.controlled`."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """The run.json beside `effects`."""
    exported: Mapping[str, Any] = field(default_factory=dict)
    """What lape.json says, of an adapter or a checkpoint."""
    there: Mapping[str, Path] = field(default_factory=dict)
    """Name within the repository -> a file that is published as it is."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Which model, text and options it was made with."""
        value = self.neurons if self.neurons is not None else self.stats
        said: Mapping[str, Any] = value.manifest if value is not None else self.exported.get("made_from") or {}
        return said

    @property
    def model(self) -> Mapping[str, Any]:
        """What the manifest says of the model."""
        model: Mapping[str, Any] = self.manifest.get("model") or {}
        return model

    @property
    def kind(self) -> str:
        """What it is, as a heading says it."""
        if self.exported:
            return "Adapter" if "adapter_config.json" in self.there else str(self.exported.get("kind", "Export"))
        return "Language neurons" if self.neurons is not None else "Activation statistics"

    @property
    def languages(self) -> list[str]:
        """Of the neurons, else of the statistics."""
        value = self.neurons if self.neurons is not None else self.stats
        return value.languages if value is not None else []

    @property
    def made_from(self) -> dict[str, Any]:
        """Short names of the neurons and statistics that are published, and of those that they were made from."""
        values = (self.stats, self.neurons)
        return {key: one for value in values if value is not None for key, one in value.made_from.items()}


def found_in(source: Source) -> Found:
    """What there is to publish. Raises FileError for a folder that holds none of it, or a damaged file."""
    if isinstance(source, LanguageNeurons):
        return Found(neurons=source)
    if isinstance(source, ActivationStats):
        return Found(stats=source)
    folder = Path(source)
    if (folder / EXPORTED).is_file():
        return Found(exported=read_json(folder / EXPORTED), there=dict(_files_of(folder)))
    run = Run(folder)
    if run.neurons is None and run.stats is None:
        raise FileError(
            f"{folder} holds nothing to publish. Expected the folder of a run with neurons or statistics (lape record, lape identify), or of an "
            "adapter or a checkpoint (lape export)."
        )
    neurons = LanguageNeurons.load(run.neurons) if run.neurons is not None else None
    stats = ActivationStats.load(run.stats) if run.stats is not None else None
    found = Found(neurons=neurons, stats=stats, record=run.record)
    there = {name: place / name for name, place in ((NEURONS, run.neurons), (STATS, run.stats)) if place is not None}
    if _is_laid_out(folder, found):  # its card may have been written on by hand
        return replace(found, there=there | {name: folder / name for name in (CARD, REPRODUCE)})
    return replace(found, there=there, **_effects(run, neurons))


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files at or below a folder, but for hidden ones, by their name within it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def _is_laid_out(folder: Path, found: Found) -> bool:
    """Whether a folder has the card and the reproduce.json of the very neurons and statistics that it holds."""
    if not all((folder / name).is_file() for name in (CARD, REPRODUCE)):
        return False
    return bool(read_json(folder / REPRODUCE).get("made_from") == json.loads(files.as_json(found.made_from)))


def _effects(run: Run, neurons: LanguageNeurons | None) -> dict[str, Any]:
    """What was measured with these very neurons off, in the run or in a study within it, and its run.json; nothing where nothing was."""
    for folder in (run.folder, *sorted(path for path in run.folder.iterdir() if path.is_dir())):
        within = Run(folder)
        place = within.place("controlled", "perplexity/controlled.parquet")
        measured = within.record_of(place) if place is not None else {}
        if place is None or neurons is None or (measured.get("made_from") or {}).get(made.NEURONS) != neurons.digest:
            continue
        return {"effects": check_table("controlled", read_table(place), CONTROLLED, str(place)), "measured": measured}
    return {}


def contents(found: Found, scratch: Path, name: str, base_model: str | None = None) -> dict[str, Path]:
    """Name within the repository -> the file that holds it; those that have to be made are written into the empty folder `scratch`.

    `name`: what the card's lines of use call it. `base_model`: the model's name on the Hub, where it was loaded from a folder.
    Raises OptionError for a `base_model` that cannot be one.
    """
    if base_model is not None and not HUB_NAME.fullmatch(base_model):
        raise OptionError(f"base_model is {base_model!r}. Expected a name on the Hub such as google/gemma-3-270m.")
    held = dict(found.there)
    for file, value in ((NEURONS, found.neurons), (STATS, found.stats)):
        if value is None:
            continue
        elsewhere = _anywhere(value.manifest, base_model)
        if elsewhere != value.manifest or file not in held:
            held[file] = replace(value, manifest=elsewhere).save(scratch / file)
    if found.exported:
        said = without_places(found.exported)
        if said != found.exported:
            files.write_json(scratch / EXPORTED, said)
            held[EXPORTED] = scratch / EXPORTED
    base = base_model or base_of(found.model)
    if CARD not in held:
        files.write_text(scratch / CARD, card(found, name, base))
        held[CARD] = scratch / CARD
    if REPRODUCE not in held:
        files.write_json(scratch / REPRODUCE, reproduce(found, base))
        held[REPRODUCE] = scratch / REPRODUCE
    return dict(sorted(held.items()))


def base_of(model: Mapping[str, Any]) -> str | None:
    """A model's name on the Hub, where it was loaded from there."""
    name = model.get("id")
    return name if model.get("path") is None and isinstance(name, str) and HUB_NAME.fullmatch(name) else None


def _anywhere(manifest: Mapping[str, Any], base_model: str | None) -> dict[str, Any]:
    """A manifest in which the model is called as it is everywhere, not by where it lies on this machine."""
    model = manifest.get("model")
    if not isinstance(model, Mapping) or (model.get("path") is None and base_model in (None, model.get("id"))):
        return dict(manifest)
    return {**manifest, "model": {**model, "id": base_model or model.get("id"), "path": None}}


def without_places(value: Any) -> Any:
    """A value of JSON in which paths from a root are their last part alone: the rest says nothing to others, and may say too much.

    Example:
        >>> from lape.ship.layout import without_places
        >>> without_places(["record", "/home/me/model", "--text", "fr=/home/me/fr.txt", "--out", "runs/fr"])
        ['record', 'model', '--text', 'fr=fr.txt', '--out', 'runs/fr']
    """
    if isinstance(value, Mapping):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(one) for one in value]
    if isinstance(value, str) and (path := _PLACE.match(value)):
        return path[1] + path[2]
    return value


def reproduce(found: Found, base: str | None) -> dict[str, Any]:
    """What reproduce.json holds: with which versions, commands and options it was made, of which texts, from what."""
    manifest, record = found.manifest, found.record
    model = {key: one for key, one in found.model.items() if key not in ("path", "probe")}
    said: dict[str, Any] = {
        "format": FORMAT,
        "kind": found.kind,
        "versions": {name: version(name) for name in ("lape", "torch", "transformers")},
        "model": {**model, "id": base or model.get("id")},
        "tokenizer": manifest.get("tokenizer"),
        "bos": manifest.get("bos"),
        "texts": _texts(manifest, record),
        "recorded": {
            "command": record.get("command"),
            **{name: manifest.get(name) for name in ("options", "counting", "tuned", "until", "clipped", "versions")},
        },
        "made_from": found.made_from,
    }
    if found.neurons is not None:
        said["identified"] = {"method": found.neurons.method, "options": found.neurons.options}
    if found.effects is not None:
        kept = ("verb", "command", "options", "texts", "versions", "made_from")
        said["measured"] = {name: found.measured.get(name) for name in kept}
    if found.exported:
        edits = found.exported.get("edits")
        every = edits if isinstance(edits, list) else []
        plain = [{k: v for k, v in one.items() if k != "flat"} for one in every if isinstance(one, Mapping)]
        said["exported"] = {k: v for k, v in found.exported.items() if k not in ("edits", "made_from")}
        said["exported"] |= {"edits": plain}
    told: dict[str, Any] = without_places({name: one for name, one in said.items() if one not in (None, {}, [])})
    return told


def _texts(manifest: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Language -> the texts that were recorded: their content by hash, documents and tokens, and what they are called, where that is known."""
    corpus, named = manifest.get("corpus") or {}, record.get("texts")
    found: dict[str, list[dict[str, Any]]] = {}
    for language, held in corpus.items():
        every = [held] if isinstance(held, Mapping) else held
        paths = named.get(language) if isinstance(named, Mapping) else None
        names = without_places(paths) if isinstance(paths, list) else []
        found[language] = [{**one, "names": names} if k == 0 and names else dict(one) for k, one in enumerate(every)]
    return found


def card(found: Found, name: str, base: str | None) -> str:
    """What README.md says: Markdown, with the Hub's metadata in front."""
    licence = licence_of(found.model, base)
    said = licence.get("license_name") or licence.get("license") or "see the base model"
    parts = [
        _metadata(found, base, licence),
        f"# {found.kind} of {_code(base or found.model.get('id') or 'a model')}",
        _about(found, base),
        *(_of_neurons(found.neurons) if found.neurons is not None else ()),
        *(_of_effects(found) if found.neurons is not None else ()),
        *_of_edits(found.exported),
        "## Use",
        f"```python\n{_use(found, name, base)}\n```",
        *_of_texts(_texts(found.manifest, found.record)),
        "## Licence",
        f"The numbers here were computed from the base model. Its licence: {_plain(said)}.",
        f"`{REPRODUCE}` holds the versions, commands, options and hashes of texts with which this was made.",
    ]
    return "\n\n".join(parts) + "\n"


def licence_of(model: Mapping[str, Any], base: str | None) -> dict[str, str]:
    """What the base model's own card, as far as it lies on this machine, says of its licence; nothing where it does not."""
    path = Path(str(model["path"])) if model.get("path") else None
    place: Any = None if path is None else (path if path.is_dir() else path.parent) / CARD
    if place is None and base is not None:
        place = try_to_load_from_cache(base, CARD, revision=model.get("revision"))
    if not isinstance(place, (str, Path)) or not Path(place).is_file():
        return {}
    try:
        said = metadata_load(place) or {}
    except Exception as error:  # whatever reading somebody else's file raises
        _log.warning("%s could not be read (%s), so the card says nothing of the licence.", place, told(error))
        return {}
    return {key: said[key] for key in _LICENCE if isinstance(said.get(key), str)}


def _metadata(found: Found, base: str | None, licence: Mapping[str, str]) -> str:
    data = ModelCardData(
        language=_codes(found.languages) or None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        library_name="lape",
        tags=[*TAGS],
        base_model=base,
    )
    return f"---\n{data.to_yaml()}\n---"


def _codes(languages: Iterable[str]) -> list[str]:
    """ISO 639 codes, which is all that the Hub knows of languages."""
    return list(dict.fromkeys(language.partition("-")[0] for language in languages))


def _about(found: Found, base: str | None) -> str:
    model, manifest = found.model, found.manifest
    tokenizer = (manifest.get("tokenizer") or {}).get("hash")
    versions = manifest.get("versions") or {}
    rows = {
        "model": _code(base or model.get("id") or "not known"),
        "revision": _code(model.get("revision")),
        "number format": _code(model.get("dtype")),
        "SHA-256 of its parameters": _code(model.get("checksum")),
        "SHA-256 of its tokenizer": _code(tokenizer),
        "made with": _plain(", ".join(f"{package} {number}" for package, number in versions.items())),
    }
    if found.neurons is not None:
        plain = {k: one for k, one in found.neurons.options.items() if isinstance(one, (str, int, float))}
        options = ", ".join(f"{k} {one:.4g}" if isinstance(one, float) else f"{k} {one}" for k, one in plain.items())
        rows |= {"method": _code(found.neurons.method) + (f" ({_plain(options)})" if options else "")}
    if found.stats is not None:
        tokens = sum(int(one.tokens.sum()) for one in found.stats.by_language.values())
        rows |= {"statistics": f"{many(tokens, 'token')} of {many(len(found.stats.languages), 'language')} (`{STATS}`)"}
    return _table(["", ""], [[name, said] for name, said in rows.items() if said])


def _of_neurons(neurons: LanguageNeurons) -> Iterator[str]:
    yield "## Neurons"
    yield f"{many(len(neurons.union), 'neuron')} of {len(neurons.space):,}. Unshared: those that no other language has."
    rows = [
        [language, f"{len(chosen):,}", f"{len(neurons.only(language)):,}", _plain(layers_of(chosen))]
        for language, chosen in neurons.items()
    ]
    yield _table(["language", "neurons", "unshared", "by layer"], rows)
    by_layer = {language: chosen.by_layer() for language, chosen in neurons.items()}
    counts = [
        [str(layer), *(str(len(of.get(layer, ()))) for of in by_layer.values())] for layer in neurons.space.layers
    ]
    yield f"<details><summary>How many in each layer</summary>\n\n{_table(['layer', *by_layer], counts)}\n\n</details>"


def _of_effects(found: Found) -> Iterator[str]:
    """The change of loss with the neurons off, never without that of control neurons."""
    yield "## What switching them off does"
    measured = None if found.effects is None else found.effects.filter(pl.col("draws") > 0)
    if measured is None or not len(measured):
        yield "Not measured here. `lape perplexity` measures it, beside control neurons."
        return
    yield (
        "Change of the language's own loss with its neurons off (zero ablation), in nats per token, beside as many control neurons of the same layers: "
        "matched ones are those that write as nearly as much, random ones any (energy: the set's over the control's; where it is not within 0.8 and 1.25 the "
        "control is another than the set). Difference: of the two, with its 95 % interval over units of text and draws."
    )
    columns = ["language", "own", "control", "draws", "energy", "control's mean", "largest draw", "difference"]
    rows = [
        [
            row["language"],
            _number(row["own"]),
            row["control"],
            str(row["draws"]),
            _number(row["energy_ratio"], 2),
            _number(row["of_control"]),
            _number(row["largest"]),
            _number(row["difference"]) + _ends(row["difference_low"], row["difference_high"]),
        ]
        for row in measured.iter_rows(named=True)
    ]
    yield _table(columns, rows)
    texts = found.measured.get("texts")
    if isinstance(texts, Mapping) and texts:
        names = {language: ", ".join(map(str, without_places(paths))) for language, paths in texts.items()}
        yield f"Measured on: {_plain('; '.join(f'{language}: {some}' for language, some in names.items()))}."


def _of_edits(exported: Mapping[str, Any]) -> Iterator[str]:
    """What was done to the weights."""
    edits = [one for one in exported.get("edits") or () if isinstance(one, Mapping)]
    if not edits:
        return
    yield "## What was changed"
    plain = [{k: v for k, v in one.items() if k not in ("flat", "edit", "neurons")} for one in edits]
    rows = [
        [
            str(one.get("edit", "")),
            str(one.get("neurons", "")),
            _plain(", ".join(f"{k} {v}" for k, v in rest.items() if isinstance(v, (str, int, float)))),
        ]
        for one, rest in zip(edits, plain, strict=True)
    ]
    yield _table(["edit", "neurons", ""], rows)


def _use(found: Found, name: str, base: str | None) -> str:
    """A few lines that use it."""
    if found.exported:
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model, tokenizer = (kind.from_pretrained("{name}") for kind in (AutoModelForCausalLM, AutoTokenizer))\n'
            'answer = model.generate(**tokenizer("How are you?", return_tensors="pt"), max_new_tokens=40)\n'
            "print(tokenizer.decode(answer[0]))"
        )
    if found.neurons is None:
        return (
            "import lape\n\n"
            f'stats = lape.ActivationStats.from_pretrained("{name}")\n'
            "neurons = lape.identify(stats)\n"
            "print(neurons)"
        )
    some = [language for language, chosen in found.neurons.items() if chosen]
    language = next((one for one in some if one != "en"), (some or found.languages or ["fr"])[0])
    profile = found.neurons.profile
    steers = profile is not None and profile.means is not None
    edit = (
        f'neurons.steer(model, to="{language}")' if steers else f'lape.edited(model, lape.Off(neurons["{language}"]))'
    )
    return (
        "import lape\n\n"
        f'model, tokenizer = lape.load("{base or "MODEL"}")\n'
        f'neurons = lape.LanguageNeurons.from_pretrained("{name}")\n'
        f"with {edit}:\n"
        '    answer = model.generate(**tokenizer("How are you?", return_tensors="pt"), max_new_tokens=40)\n'
        "print(tokenizer.decode(answer[0]))"
    )


def _of_texts(texts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    if not texts:
        return
    yield "## Text"
    rows = [
        [
            language,
            _plain(", ".join(map(str, one.get("names") or ()))),
            f"{one.get('documents', 0):,}",
            f"{one.get('tokens', 0):,}",
            _code(one.get("hash")),
        ]
        for language, several in texts.items()
        for one in several
    ]
    yield _table(["language", "text", "documents", "tokens", "SHA-256"], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({_number(low)} to {_number(high)})"


def _plain(text: object) -> str:
    """Text that no Markdown is seen in, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", visible(" ".join(str(text).split())))


def _code(text: object) -> str:
    """A name or a number in full, as code; nothing of nothing."""
    return f"`{visible(' '.join(str(text).split())).replace('`', '').replace('|', '')}`" if text else ""
