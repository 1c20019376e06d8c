"""`lape doctor`: what was found in a model, and what running it proved; of a server, whether it uses an adapter."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text

from lape.cli.common import out, progress
from lape.cli.flags import SWITCHES, Switch
from lape.cli.inputs import LOADING, Loading, load_proven
from lape.cli.served import is_address, show_served
from lape.data.corpus import bos_id
from lape.errors import ModelError, OptionError
from lape.model.configuration import number_format
from lape.model.find import find
from lape.model.identity import checksum
from lape.model.load import ModelOptions
from lape.model.loss import find_head
from lape.model.site import SiteNames
from lape.model.skeleton import is_bare, skeleton
from lape.model.weights import keeps_sign
from lape.ship.server import ServerOptions

if TYPE_CHECKING:
    from lape.model.site import Site, Sites

_SERVER = ServerOptions()


def doctor(
    model: str,
    *,
    config_only: Switch = False,
    adapter: str | None = None,
    prompts: Path | None = None,
    server: Annotated[ServerOptions, SWITCHES] = _SERVER,
    loading: Loading = LOADING,
) -> None:
    """Find a model's neurons, verify them by running it, and say what was found; or ask a running server whether it uses an adapter.

    A server is asked the same prompts with and without the adapter. Exit code 2 where all answers are the same: it does not use it.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder, a config.json, or sample; or the address of a server, such as http://127.0.0.1:8000.
    config_only
        Load no weights: verify a few layers with random ones. This is also done for a config.json and for a folder without weights.
    adapter
        Of a server: the adapter's name there; of llama.cpp its file's name or number.
    prompts
        Of a server: prompts to ask, one per line; in a .jsonl file also conversations. Default: the bundled development questions in English.
    """
    if is_address(model):
        if adapter is None:
            raise OptionError(f"No adapter was named. Type: lape doctor {quote(model)} --adapter NAME")
        show_served(model, adapter, prompts, server)
        return
    if adapter is not None:
        raise OptionError(
            f"adapter={adapter} is asked of a server, and {model} is no address. Expected one such as http://127.0.0.1:8000."
        )
    if config_only or is_bare(model):
        _bare(model, loading)
        return

    with progress() as report:
        loaded, tokenizer = load_proven(model, loading, report)
        report("reading the parameters", 0, None)
        known = checksum(loaded)
    _say(loaded, find(loaded))
    bos = bos_id(tokenizer, "auto")
    _line(
        f"rows begin with {tokenizer.decode([bos])!r} (never counted)" if bos is not None else "rows begin without BOS"
    )
    try:
        _line(f"LM head: {find_head(loaded).what}, run in slices of the vocabulary")
    except ModelError as error:
        _line(str(error), ("! ", "yellow"))
    _line(f"checksum of the parameters: {known}")
    _line(f"Done. Next: lape record {quote(model)} --text TAG=PATH --out RUN")


def _bare(model: str, loading: ModelOptions) -> None:
    """A model without its weights."""
    with progress() as report:
        report("making a few layers with random weights", 0, None)
        made = skeleton(model, loading.revision)
        report("verifying the neurons by running the model", 0, None)
        found = find(made.model, SiteNames(*loading.sites) if loading.sites else None)
    _say(made.model, found)
    _line(
        f"no weights were loaded: what was checked is {made.layers} of the configuration's {made.of} layers, with random weights",
        ("! ", "yellow"),
    )


def _line(text: str, *before: tuple[str, str]) -> None:
    """A line, after words in a style."""
    out.print(Text.assemble(*before, text), soft_wrap=True)


def _say(model: Any, found: Sites) -> None:
    """Where the neurons are, and what was proven."""
    _line(f" on {model.device}, {number_format(model)}: {found.space}", (type(model).__name__, "bold"))
    kinds: dict[tuple[str, ...], list[Site]] = {}
    for site in found.sites:
        kinds.setdefault(_kind(model, site), []).append(site)
    for (what, where), sites in kinds.items():
        layers = sorted({site.layer for site in sites})
        experts = {site.expert for site in sites} - {None}
        number = f"{len(experts)} experts × {sites[0].width:,}" if experts else f"{sites[0].width:,}"
        _line(f"{_range(layers)}: {number} neurons, {what}")
        _line(f"    {where}")
    for line in found.checked:
        _line(line, ("✓ ", "green"))
    how = (
        "can share a row: they are kept apart in it"
        if found.packs
        else "need a row each: the model was not seen to keep them apart in one"
    )
    _line(f"documents {how}")


def _range(layers: list[int]) -> str:
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if layers == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]}–{layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def _kind(model: Any, site: Site) -> tuple[str, str]:
    """What kind of MLP a site is of, and its modules with * for the layer: alike for all layers of a kind."""
    block = f"{site.block}."

    def inside(name: str) -> str:
        return f"{site.block.rpartition('.')[0]}.*.{name.removeprefix(block)}" if name.startswith(block) else name

    if site.layout is not None:
        gated = "gated" if site.layout.gated else "plain"
        own = "" if site.layout.activation == "_apply_gate" else f" through {site.layout.activation}"
        return (
            f"{gated}, routed experts{own}",
            f"{inside(site.down)} ({site.layout.gate.parameter} → {site.layout.down.parameter})",
        )
    form = (
        "gate and up are not single projections (an adapter, or named by hand)"
        if site.gate is None
        else "gated"
        if site.up
        else "plain"
    )
    if site.rule == "activation":
        module = type(model.get_submodule(site.activation)).__name__
        return f"{form}, {module}{_firing(model, site)}", f"{inside(site.activation)} → {inside(site.down)}"
    return (
        f"{form}, {site.activation} (a function){_firing(model, site)}",
        f"{inside(site.gate.module) if site.gate else ''} → {inside(site.down)}",
    )


def _firing(model: Any, site: Site) -> str:
    """A warning where the activation is above 0 for other inputs than those above 0."""
    return (
        ""
        if keeps_sign(model, site)
        else ": its sign is not always that of its input; a neuron still counts as firing where its activation is above 0"
    )
