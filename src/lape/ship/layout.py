"""One thought, what is published of a folder: its files without this machine's paths, a card (README.md), and reproduce.json."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
from huggingface_hub import ModelCardData, try_to_load_from_cache
from huggingface_hub.repocard import metadata_load

from lape.errors import FileError, OptionError, told
from lape.measure.controlled import CONTROLLED
from lape.ship.card import CARD, TAGS, code, plain, render
from lape.ship.export import MANIFEST, card_of
from lape.signs import many
from lape.store import files
from lape.store.documents import read_json
from lape.store.run import NEURONS, STATS, Run, check_table, read_table
from lape.values import made
from lape.values.neurons import LanguageNeurons, layers_of
from lape.values.stats import ActivationStats

REPRODUCE, EXPORTED = "reproduce.json", MANIFEST
"""How to make it again; and what `lape export` says of an adapter or a checkpoint."""
HELD = (NEURONS, STATS, CARD, REPRODUCE)
"""What is published of a run."""
_log = logging.getLogger("lape")
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
        text = card_of(_anywhere_exported(found, base), name) if found.exported else _run_card(found, name, base)
        files.write_text(scratch / CARD, text)
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


def _anywhere_exported(found: Found, base: str | None) -> dict[str, Any]:
    """Return the manifest of an export without paths of this machine."""
    made_from = {**found.manifest, "model": {**found.model, "id": base or found.model.get("id"), "path": None}}
    return {**without_places(found.exported), "made_from": without_places(made_from)}


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


def _run_card(found: Found, name: str, base: str | None) -> str:
    """Return the card of neurons and statistics."""
    licence = licence_of(found.model, base)
    neurons = found.neurons
    data = ModelCardData(
        language=list(dict.fromkeys(language.partition("-")[0] for language in found.languages)) or None,  # ISO 639
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        library_name="lape",
        tags=[*TAGS],
        base_model=base,
    )
    with_neurons = [language for language, chosen in (neurons or {}).items() if chosen]
    measured_on = without_places(found.measured.get("texts") or {})
    return render(
        "run_card.md.jinja",
        data,
        kind=found.kind,
        name=name,
        base=base,
        model=found.model,
        about=_about(found, base),
        neurons=neurons,
        layers_of=layers_of,
        effects=[] if found.effects is None else found.effects.filter(pl.col("draws") > 0).to_dicts(),
        measured_on="; ".join(f"{language}: {', '.join(map(str, paths))}" for language, paths in measured_on.items()),
        shown=next((language for language in with_neurons if language != "en"), (with_neurons or ["fr"])[0]),
        texts=_texts(found.manifest, found.record),
        licence=licence,
        reproduce=REPRODUCE,
    )


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


def _about(found: Found, base: str | None) -> dict[str, str]:
    """Say what the neurons or statistics were made from: label -> Markdown, "" where it is not known."""
    model, manifest = found.model, found.manifest
    versions = manifest.get("versions") or {}
    rows = {
        "model": code(base or model.get("id") or "not known"),
        "revision": code(model.get("revision")),
        "number format": code(model.get("dtype")),
        "SHA-256 of its parameters": code(model.get("checksum")),
        "SHA-256 of its tokenizer": code((manifest.get("tokenizer") or {}).get("hash")),
        "made with": plain(", ".join(f"{package} {number}" for package, number in versions.items())),
    }
    if found.neurons is not None:
        kept = {name: value for name, value in found.neurons.options.items() if isinstance(value, (str, int, float))}
        options = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in kept.items()
        )
        rows["method"] = code(found.neurons.method) + (f" ({plain(options)})" if options else "")
    if found.stats is not None:
        tokens = sum(int(statistics.tokens.sum()) for statistics in found.stats.by_language.values())
        rows["statistics"] = f"{many(tokens, 'token')} of {many(len(found.stats.languages), 'language')} (`{STATS}`)"
    return rows
