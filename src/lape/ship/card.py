"""Cards, README.md of what is exported or published: Hub metadata and Markdown, from two templates in this folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from lape.ship.format import ExportFormat
from lape.signs import many, visible
from lape.values.same import place_of

CARD = "README.md"
TAGS = ("language-neurons", "lape")


def card(manifest: Mapping[str, Any], name: str, form: ExportFormat) -> str:
    """Return the card of an export in Markdown, from its manifest and its folder's name."""
    base = _base_name(manifest["made_from"].get("model", {}))
    data = ModelCardData(base_model=base, library_name=form.library, tags=[*TAGS, *form.tags])
    kinds = {"neurons" if "neurons" in edit else "attention heads" for edit in manifest["edits"]}
    return render(
        "export_card.md.jinja",
        data,
        m=manifest,
        name=name,
        base=base,
        units=" and ".join(sorted(kinds, reverse=True)) or "neurons",
        edits=[describe_edit(edit) for edit in manifest["edits"]],
        use=form.use(base, manifest, name),
    )


def render(template: str, data: ModelCardData, **values: Any) -> str:
    """Fill in a template of this folder."""
    text = _environment().get_template(template).render(data=data.to_yaml(), **values)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", text)).strip() + "\n"


@cache
def _environment() -> Environment:
    loader = PackageLoader("lape.ship", ".")
    made = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    made.filters.update(plain=plain, code=code, number=_format_number, interval=_format_interval, many=many)
    return made


def plain(text: object) -> str:
    """Escape a text so that Markdown sees no markup in it, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", visible(" ".join(str(text).split())))


def code(text: object) -> str:
    """Return a text as inline code; "" for None."""
    return f"`{visible(' '.join(str(text).split())).replace('`', '').replace('|', '')}`" if text else ""


def _format_number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _format_interval(row: Mapping[str, Any], name: str, form: str) -> str:
    """Return a value of a row with its interval, if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
    return _format_number(row[name], form) + ends


def _base_name(model: Mapping[str, Any]) -> str:
    """Return the base model's name; of one that was loaded from a folder, that folder's name alone."""
    place = place_of(model) or "the base model"
    return Path(place).name if model.get("path") else place


def describe_edit(edit: Mapping[str, Any]) -> str:
    """Describe an edit of the manifest."""
    units = many(edit["neurons"], "neuron") if "neurons" in edit else named_heads(edit["heads"])
    if edit["edit"] == "off":
        return f"{units} switched off (zero ablation)"
    if edit["edit"] == "scale":
        return f"{units} multiplied by {edit['factor']:g}"
    if edit["edit"] == "set":
        return f"{units} set to a value of their own"
    if edit["at"] == "gate":
        return f"the inputs of {units} are raised, at strength {edit['strength']:g}, toward those that give the values in lape.json"
    return f"the activations of {units} are raised by {edit['strength']:g} times the values in lape.json"


def named_heads(heads: Sequence[Sequence[int]]) -> str:
    """Name attention heads, given as (layer, head).

    Example:
        >>> from lape.ship.card import named_heads
        >>> named_heads([(17, 2)]), named_heads([(3, 0), (17, 2)])
        ('head 2 of layer 17', 'head 0 of layer 3 and head 2 of layer 17')
    """
    return " and ".join(f"head {head} of layer {layer}" for layer, head in heads)
