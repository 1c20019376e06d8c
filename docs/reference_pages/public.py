"""The public names as griffe reads them from the code; nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import griffe

from reference_pages.names import DETECTORS, EXPERIMENTS, PAGES, TOP

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """A documented name, and where."""

    path: str
    """As it is imported: lape.edit.steer.steering, lape.load."""
    thing: griffe.Object
    page: str
    name: str
    """Its heading: steering, LanguageNeurons.save."""

    @property
    def anchor(self) -> str:
        """As GitHub and the site name it."""
        return re.sub(r"[^\w\- ]", "", self.name.lower()).replace(" ", "-")


@cache
def package() -> griffe.Object:
    """The package, parsed, never imported."""
    return griffe.load("lape", search_paths=[ROOT / "src"], docstring_parser="google", resolve_aliases=True)


def at(path: str) -> griffe.Object:
    """What a dotted name is."""
    thing = package()[path.removeprefix("lape").removeprefix(".")] if path != "lape" else package()
    return thing.final_target if isinstance(thing, griffe.Alias) else thing


def text_of(path: str) -> list[str]:
    """The strings of a tuple or list in the code."""
    return [str(one) for one in ast.literal_eval(str(at(path).value))]


def is_options(thing: griffe.Object) -> bool:
    """Whether it belongs to the page of options."""
    return thing.is_class and thing.name.endswith("Options")


def public(thing: griffe.Object) -> Iterator[griffe.Object]:
    """A name, or the names a module defines for others: functions and classes with a docstring, in the order of the file."""
    if not thing.is_module:
        yield thing
        return
    members = [one for one in thing.members.values() if not one.is_alias and (one.is_function or one.is_class)]
    yield from (one for one in sorted(members, key=_line) if _told(one) and not one.name.endswith(("Options", "Study")))


def _line(thing: griffe.Object) -> int:
    return thing.lineno or 0


def _told(thing: griffe.Object) -> bool:
    return thing.name[0] != "_" and thing.docstring is not None


def top() -> Iterator[tuple[str, griffe.Object]]:
    """The names of `lape` itself, in the order of work, as its `_HOMES` has them; LapeError last."""
    homes = ast.literal_eval(str(at("lape._HOMES").value)) | {"LapeError": "lape.errors"}
    yield from ((f"lape.{name}", at(f"{module}.{name}")) for name, module in homes.items())


def listed(names: Sequence[str]) -> Iterator[tuple[str, griffe.Object]]:
    """What a page's names stand for: as it is imported, and what it is."""
    for name in names:
        if name == DETECTORS:
            modules = [one.partition(":")[0] for one in text_of(DETECTORS)]
            yield from ((f"{one}.{one.rpartition('.')[2]}", at(f"{one}.{one.rpartition('.')[2]}")) for one in modules)
        elif name == EXPERIMENTS:
            yield from (one for experiment in text_of(EXPERIMENTS) for one in asked(experiment))
        else:
            yield from ((one.path, one) for one in public(at(name)))


def asked(experiment: str) -> list[tuple[str, griffe.Object]]:
    """The functions that an experiment offers, and the classes of what they give."""
    module = at(f"lape.experiments.{experiment}")
    offered = [str(one) for one in module.exports or ()]
    if not offered:
        return [(one.path, one) for one in public(module)]
    functions = {f"{module.path}.{one}": _function(module.path, one) for one in offered if one != "EXPERIMENT"}
    given = {one.path: one for function in functions.values() for one in public(function.module) if one.is_class}
    return [*functions.items(), *((path, one) for path, one in given.items() if _is_given(one, functions.values()))]


def _function(module: str, name: str) -> griffe.Object:
    """A function that a package offers, which may have the name of its own module."""
    found = at(f"{module}.{name}")
    return found[name] if found.is_module else found


def _is_given(thing: griffe.Object, functions: Iterable[griffe.Object]) -> bool:
    return any(re.search(rf"\b{thing.name}\b", str(one.returns)) for one in functions)


@cache
def entries() -> dict[str, Entry]:
    """Everything that is documented, by where it is defined: at top level, else on the first page that lists it, else as options."""
    found: dict[str, Entry] = {}

    def take(page: str, things: Iterable[tuple[str, griffe.Object]]) -> None:
        for path, thing in things:
            found.setdefault(thing.path, Entry(path, thing, page, thing.name))

    take(TOP, top())
    for page, (_, _, names) in PAGES.items():
        take(page, listed(names))
    take("options", ((one.path, one) for one in all_options()))
    return _named_apart(found)


def _named_apart(found: dict[str, Entry]) -> dict[str, Entry]:
    """Where two names of a page would have one anchor, a class says that it is one, and functions say their modules."""
    named: dict[tuple[str, str], list[Entry]] = {}
    for one in found.values():
        named.setdefault((one.page, one.name.lower()), []).append(one)
    same: list[Entry] = []
    for several in named.values():
        functions = [one for one in several if one.thing.is_function]
        same += [one for one in several if len(several) > 1 and (one.thing.is_class or len(functions) > 1)]
    return found | {one.thing.path: replace(one, name=_longer(one.thing)) for one in same}


def _longer(thing: griffe.Object) -> str:
    module = re.sub(r"\.(run|table)$", "", thing.module.path).rpartition(".")[2]
    return f"class {thing.name}" if thing.is_class else f"{module}.{thing.name}"


def all_options() -> list[griffe.Object]:
    """Every dataclass of options of the package, by module."""
    found, left = [], [package()]
    while left:
        module = left.pop()
        left += [one for one in module.modules.values() if not one.is_alias]
        found += [one for one in module.classes.values() if not one.is_alias and is_options(one) and _told(one)]
    return sorted(found, key=lambda one: (one.module.path, _line(one)))


def fields(thing: griffe.Object) -> list[griffe.Attribute]:
    """The fields of a class, inherited ones too, in the order of the code, and its properties; of a class that is no dataclass those with a docstring."""
    classes = [*reversed(thing.mro()), thing]
    merged = {
        name: field for one in classes for name, field in sorted(one.attributes.items(), key=lambda it: _line(it[1]))
    }
    kept = "dataclass" in thing.labels
    return [one for one in merged.values() if _told(one) or (kept and one.name[0] != "_" and one.annotation)]


def methods(thing: griffe.Object) -> list[griffe.Function]:
    """The methods of a class that have something to say: public ones, and operators with a docstring."""
    special = re.compile(r"__(?!init|post_init|repr|str|hash|eq|setattr|delattr|reduce|getstate|setstate)\w+__")
    own = sorted(thing.functions.values(), key=_line)
    return [one for one in own if _told(one) or (one.docstring and special.fullmatch(one.name))]
