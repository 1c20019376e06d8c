"""A name as Markdown: heading, signature, docstring, fields and parameters, with links between names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import griffe

from reference_pages.public import ROOT, Entry, at, entries, fields, is_options, methods

WIDTH = 100
"""A signature that is longer takes a line for each parameter."""


def signature(function: griffe.Function, name: str, *, bound: bool = False) -> str:
    """As it is written in code, on one line or a line for each parameter."""
    shown, kinds, keywords = [], griffe.ParameterKind, False
    for parameter in list(function.parameters)[1 if bound else 0 :]:
        kind, star = parameter.kind, ""
        if kind is kinds.var_positional:
            star, keywords = "*", True
        elif kind is kinds.var_keyword:
            star = "**"
        elif kind is kinds.keyword_only and not keywords:
            keywords = True
            shown.append("*")
        annotated = f"{star}{parameter.name}" + (
            f": {parameter.annotation}" if parameter.annotation is not None else ""
        )
        equals = " = " if parameter.annotation is not None else "="
        shown.append(annotated + (f"{equals}{parameter.default}" if parameter.default is not None and not star else ""))
    returns = f" -> {function.returns}" if function.returns is not None and function.name != "__init__" else ""
    shown, returns = [quoted(one) for one in shown], quoted(returns)
    line = f"{name}({', '.join(shown)}){returns}"
    return line if len(line) <= WIDTH else "\n".join([f"{name}(", *(f"    {one}," for one in shown), f"){returns}"])


def described(entry: Entry) -> Iterator[str]:
    """A name: its heading, where it is from, how it is called, what it is."""
    thing = entry.thing
    yield f"## `{entry.name}`"
    source = Path(str(thing.filepath)).relative_to(ROOT)
    yield f"`{entry.path}` · [source](../../{source})"
    if thing.is_function:
        yield from function_shown(entry, thing, thing.name)
    elif thing.is_attribute:
        yield prose(thing, entry)
    else:
        yield from class_shown(entry)


def function_shown(entry: Entry, function: griffe.Function, name: str, *, bound: bool = False) -> Iterator[str]:
    """A function's decorators that matter to a caller, signature, docstring, and what is known of its parameters."""
    matter = [
        str(one.value)
        for one in function.decorators
        if str(one.value) in ("contextmanager", "staticmethod", "classmethod")
    ]
    bound = bound and "staticmethod" not in matter
    yield "```python\n" + "".join(f"@{one}\n" for one in matter) + signature(function, name, bound=bound) + "\n```"
    yield prose(function, entry)
    told = constants(function)
    if told:
        yield table(("columns", ""), [(f"`{name}`", linked(one_line(said), entry)) for name, said in told.items()])
    known = parameter_docs(function)
    rows = [(one.name, one.default, known[one.name]) for one in function.parameters if one.name in known]
    if rows:
        yield table(
            ("parameter", "default", ""),
            [(f"`{name}`", code(default), linked(said, entry)) for name, default, said in rows],
        )


def constants(function: griffe.Function) -> dict[str, str]:
    """What is said of the schemas of tables, and of other constants, that a function's docstring names and no page lists."""
    told = {}
    for name in re.findall(r"`([\w.]*\b[A-Z]{2,}[A-Z_]*)`", function.docstring.value if function.docstring else ""):
        path = name if "." in name else f"{function.module.path}.{name}"
        found = None if path in entries() else _constant(path)
        if found is not None and found.docstring and not found.docstring.value.startswith("Columns of"):
            told[name.rpartition(".")[2]] = found.docstring.value
    return told


def _constant(path: str) -> griffe.Object | None:
    try:
        found = at(path)
    except KeyError:
        return None
    return found if found.is_attribute else None


def parameter_docs(function: griffe.Function) -> dict[str, str]:
    """What is said of parameters: in the docstring, else of the fields of the options that the function makes or takes."""
    said: dict[str, str] = {}
    by_name = {one.thing.name: one.thing for one in entries().values() if is_options(one.thing)}
    if not is_options_parameter(function):
        made = re.findall(r"\b(\w+Options)(?:\(|, locals)", function.source)
        for name in made:
            for field in fields(by_name[name]) if name in by_name else ():
                said.setdefault(field.name, one_line(field.docstring.value) if field.docstring else "")
    for section in function.docstring.parsed if function.docstring else ():
        if section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.other_parameters):
            said |= {one.name: one_line(one.description) for one in section.value}
    return said


def is_options_parameter(function: griffe.Function) -> bool:
    """Whether the options are a parameter: then their fields are read there, by the link in the signature's docstring."""
    return any("Options" in str(one.annotation) for one in function.parameters)


def made(thing: griffe.Object) -> str:
    """How one is made where that is by calling the class; a dataclass whose fields need a table is only named."""
    bases = ", ".join(str(one) for one in thing.bases if str(one) not in ("Protocol", "ABC"))
    named = f"class {thing.name}" + (f"({bases})" if bases else "")
    if "dataclass" not in thing.labels:
        init = thing.functions.get("__init__")
        return signature(init, thing.name, bound=True) if init else named
    given = [
        one.name if one.value is None else f"{one.name}={one.value}"
        for one in fields(thing)
        if "property" not in one.labels
    ]
    line = quoted(f"{thing.name}({', '.join(given)})")
    return line if len(line) <= WIDTH and not is_options(thing) and "field(" not in line else named


def class_shown(entry: Entry) -> Iterator[str]:
    """A class: how it is made, what it is, its fields and its methods."""
    thing = entry.thing
    yield f"```python\n{made(thing)}\n```"
    yield prose(thing, entry)
    rows = fields(thing)
    if rows:
        shown = [
            (
                f"`{one.name}`",
                code(one.annotation),
                code(one.value) if "property" not in one.labels else "",
                linked(one_line(one.docstring.value) if one.docstring else "", entry),
            )
            for one in rows
        ]
        yield table(("field", "type", "default", ""), shown)
    for method in methods(thing) if not is_options(thing) else ():
        name = f"{entry.name}.{method.name}"
        yield f"### `{name}`"
        yield from function_shown(entry, method, method.name, bound=True)


def prose(thing: griffe.Object, entry: Entry) -> str:
    """A docstring: its text, examples as code, and what is returned and raised."""
    kinds, parts = griffe.DocstringSectionKind, []
    for section in thing.docstring.parsed if thing.docstring else ():
        kind, value = section.kind, section.value
        if kind is kinds.text:
            parts.append(linked(fenced(value), entry))
        elif kind is kinds.examples:
            parts += [f"```pycon\n{said}\n```" if part is kind else linked(said, entry) for part, said in value]
        elif kind is kinds.admonition:
            title = "" if value.kind.startswith("example") else f"**{section.title}**\n\n"
            parts.append(title + linked(fenced(value.description), entry))
        elif kind in (kinds.returns, kinds.yields):
            parts += [f"**{kind.value.title()}**: {linked(one_line(one.description), entry)}" for one in value]
        elif kind is kinds.raises:
            parts += [f"**Raises** `{one.annotation}`: {linked(one_line(one.description), entry)}" for one in value]
    return "\n\n".join(parts)


def fenced(text: str) -> str:
    """Examples in running text as blocks of code, and everything else as it is."""
    if "```" in text:
        return text
    return re.sub(r"(?m)^>>> .*(?:\n(?!\s*$).*)*", lambda match: f"```pycon\n{match[0]}\n```", text)


def linked(text: str, entry: Entry) -> str:
    """Names in backticks that are documented lead there: classes, whole paths, and names of the same module."""
    parts = re.split(r"(?s)(```.*?```)", text)
    return "".join(one if one.startswith("```") else re.sub(r"(?<!\[)`([\w.]+)`", _link(entry), one) for one in parts)


def _link(entry: Entry) -> Callable[[re.Match[str]], str]:
    def link(match: re.Match[str]) -> str:
        name = match[1]
        near = f"{entry.thing.module.path}.{name}"
        same = [one for one in entries().values() if one.thing.name == name and name[0].isupper()]
        whole = {one.path: one for one in entries().values()} | entries()
        to = whole.get(name) or whole.get(near) or (same[0] if len(same) == 1 else None)
        own = {one.name for one in entry.thing.parameters} if entry.thing.is_function else set()
        if to is None or to == entry or name in own:
            return match[0]
        where = f"#{to.anchor}" if to.page == entry.page else f"{to.page}.md#{to.anchor}"
        return f"[`{name}`]({where})"

    return link


def one_line(text: str) -> str:
    """Docstrings as they fit into a cell."""
    return " ".join(text.split())


def quoted(text: str) -> str:
    """Strings in double quotes, as the formatter sets them on every page."""
    return re.sub(r"'([^'\"\\]*)'", r'"\1"', text)


def code(value: object) -> str:
    """A type or a default, in a cell."""
    text = "" if value is None else re.sub(r"^field\(default_factory=(\w+)\)$", r"\1()", quoted(one_line(str(value))))
    return f"`{text}`" if text else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without the columns that say nothing."""
    used = [k for k in range(len(head)) if any(row[k] for row in rows)]
    lines = [
        [head[k] for k in used],
        ["---" for _ in used],
        *([row[k].replace("|", "\\|") for k in used] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
