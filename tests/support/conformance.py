"""Every model type of transformers' causal-LM mapping: is what `lape` finds and does there what the table in `zoo` says?

python tests/support/conformance.py                # examine all types, print the verdicts, write docs/architectures.md
python tests/support/conformance.py llama gpt2     # only these, in full
"""

from __future__ import annotations

import ast
import inspect
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor, nn

from lape.recording.engine import RecordOptions

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.zoo.kinds import Experts, Function, Kind, Mlp, Own
from support.zoo.table import KINDS
from support.zoo.written import affine, build, logits_of, places, rewritten

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
IDS = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Verdict:
    """What was found of one model type."""

    kind: str
    verdict: str
    """proven, not applicable, unsupported, or wrong: a finding that disagrees with the table."""
    found: str = ""
    """The MLPs, in words."""
    packs: bool = False
    why: str = ""
    scaled: str = ""
    """How what is switched off or scaled can be shipped, in words."""
    at_gate: str = ""
    """The same of what is added at the gate."""
    seconds: float = 0.0


def examine(name: str, *, blocks: bool = True) -> Verdict:
    """The verdict on one model type; `blocks`: whole ones are compiled."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if name not in KINDS:
        return Verdict(name, "unsupported", why="New in transformers, not in the table yet.")
    kind, began = KINDS[name], time.monotonic()
    if kind.not_applicable:
        return Verdict(name, "not applicable", why=kind.not_applicable)
    from lape.errors import ModelError
    from lape.model.find import find

    try:
        model = build(name, kind)
        found = find(model)
        for check in CHECKS:
            check(model, kind)
        ways = ships(model, name, kind)
        compiles(model, kind, blocks=blocks)
    except ModelError as error:
        said = kind.unsupported or str(error)
        return Verdict(name, "unsupported" if kind.unsupported else "wrong", why=said, seconds=time.monotonic() - began)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {str(error)[:400]}"
        return Verdict(name, "wrong", why=said, seconds=time.monotonic() - began)
    if kind.unsupported:
        return Verdict(name, "wrong", why="The table says that it is not supported, but it is.")
    return Verdict(name, "proven", in_words(found), found.packs, kind.note, *ways, time.monotonic() - began)


def in_words(found: Any) -> str:
    """What kinds of MLPs a model has."""
    words: dict[str, None] = {}
    for site in found.sites:
        if site.layout is not None:
            words["gated experts" if site.layout.gated else "plain experts"] = None
        else:
            fused = site.up is not None and site.gate is not None and site.up.module == site.gate.module
            form = (
                "gated, with adapters"
                if site.gate is None
                else "gated, fused"
                if fused
                else "gated"
                if site.up
                else "plain"
            )
            words[form + ("" if site.rule == "activation" else f", {site.activation} as a function")] = None
    if any(site.runs > 1 for site in found.sites):
        words["modules shared by layers"] = None
    return "; ".join(words)


def in_order(model: Any, kind: Kind) -> list[int]:
    """The places of the table in the order in which they run."""
    ran: list[int] = []
    with rewritten(model, kind, lambda _p, _e, a, _r: a, ran):
        logits_of(model, IDS)
    return ran


def named(model: Any, block: int, mlp: Mlp | Own | Experts) -> list[tuple[str, int | None]]:
    """(down projection or experts' module, expert) of each stretch of a place."""
    if not isinstance(mlp, Experts):
        return [(canonical(model, mlp.down.format(block)), None)]
    name = mlp.module.format(block)
    module = model.get_submodule(name)
    number = getattr(module, mlp.number) if mlp.number else len(module.get_parameter(mlp.down))
    return [(canonical(model, name), expert) for expert in range(number)]


def canonical(model: Any, name: str) -> str:
    """The first name of a module that has several."""
    module = model.get_submodule(name)
    return next(other for other, one in model.named_modules() if one is module)


def same_places(model: Any, kind: Kind) -> None:
    """The sites are those of the table, in the order in which they run."""
    from lape.model.find import find

    sites = find(model).sites
    listed = places(kind)
    expected = [one for position in in_order(model, kind) for one in named(model, *listed[position])]
    got = [(site.down, site.expert) for site in sites]
    assert got == expected, f"sites {got} where the table has {expected}"
    assert [site.layer for site in sites] == sorted(site.layer for site in sites)


class Written:
    """The activations that the table's formulas give, stretch by stretch, and changes of them."""

    def __init__(self, model: Any, kind: Kind) -> None:
        from lape.model.find import find

        self._inverse: dict[tuple[int, int], Tensor] = {}

        self.model, self.kind, self.space = model, kind, find(model).space
        self.order, listed = in_order(model, kind), places(kind)
        lengths = [len(named(model, *listed[position])) for position in self.order]
        self.starts = [sum(lengths[:k]) for k in range(len(lengths))]
        """Of each run of a place in a forward, its first stretch."""
        self.ran: list[int] = []

    def stretch(self, position: int, expert: int | None) -> int:
        """The stretch of a call of the table's `change`."""
        mine = [start for start, place in zip(self.starts, self.order, strict=True) if place == position]
        return mine[self.ran.count(position) % len(mine)] + (expert or 0)

    def activations(self, ids: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Stretch -> its activations (rows, width) and their tokens."""
        return self._seen(ids)[0]

    def products(self, ids: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """The same of activation times up; without MLPs that a type computes by a function of its own."""
        return self._seen(ids)[1]

    def _seen(self, ids: Tensor) -> tuple[dict[int, tuple[Tensor, Tensor]], dict[int, tuple[Tensor, Tensor]]]:
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        products: dict[int, tuple[Tensor, Tensor]] = {}

        def note(position: int, expert: int | None, a: Tensor, rows: Tensor) -> Tensor:
            seen[self.stretch(position, expert)] = a.clone(), rows
            return a

        def wrote(position: int, expert: int | None, product: Tensor, rows: Tensor) -> None:
            products[self.stretch(position, expert)] = product.clone(), rows

        self.ran.clear()
        with rewritten(self.model, self.kind, note, self.ran, wrote):
            logits_of(self.model, ids)
        return seen, products

    @contextmanager
    def changed(self, edits: Sequence[Any], *, constant: bool = False) -> Iterator[None]:
        """While inside, the MLPs are computed by hand, with edits. `constant`: what is added at a gate is added as often as `direction` · its
        input says, everywhere, rather than once but at the first positions of texts.
        """
        from support.by_hand import apply_to

        gates = [edit for edit in edits if getattr(edit, "at", "") == "gate"]
        first: Tensor | None = None

        def look(_module: Any, args: Any, given: dict[str, Any]) -> None:
            nonlocal first
            first = first_positions(given | ({"input_ids": args[0]} if args else {}))

        def raised(position: int, expert: int | None, x: Tensor, rows: Tensor, function: Function) -> Tensor:
            by = sum((self.at_gate(edit, self.stretch(position, expert), function) for edit in gates), torch.zeros(1))
            often = torch.ones(len(x)).to(x)
            if constant:
                often = x @ direction(x.shape[1]).to(x)
            elif first is not None:
                often[first[rows]] = 0
            return often[:, None] * by.to(x)

        def change(position: int, expert: int | None, a: Tensor, _rows: Tensor) -> Tensor:
            part = self.space.stretches[self.stretch(position, expert)]
            for edit in edits:
                a = a if edit in gates else apply_to(edit, a, part.start, part.stop)
            return a

        self.ran.clear()
        parts = dict.fromkeys((self.model, self.model.base_model))  # RWKV's body is not told what is padding
        handles = [part.register_forward_pre_hook(look, with_kwargs=True) for part in parts]
        try:
            with rewritten(self.model, self.kind, change, self.ran, raised=raised if gates else None):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def at_gate(self, edit: Any, stretch: int, function: Function) -> Tensor:
        """(width,) what an edit adds to the pre-activations of a stretch: its strength times those at which the function gives its value."""
        part, key = self.space.stretches[stretch], (id(edit), stretch)
        if key not in self._inverse:
            mine = edit.neurons.flat[(edit.neurons.flat >= part.start) & (edit.neurons.flat < part.stop)]
            by = torch.zeros(part.width, dtype=torch.float64)
            by[mine - part.start] = (
                edit.strength * inverse(function, edit.value[part.start : part.stop])[mine - part.start]
            )
            self._inverse[key] = by
        return self._inverse[key]


def first_positions(given: dict[str, Any]) -> Tensor | None:
    """(rows · tokens,) bool: the first token that is no padding; None in a forward that goes on from a cache (seen, or shorter than the prompts)."""
    ids, mask, cache = (given.get(name) for name in ("input_ids", "attention_mask", "cache"))
    if ids.shape[1] < IDS.shape[1] or (cache is not None and cache.get_seq_length()):
        return None
    first = torch.zeros_like(ids, dtype=torch.bool)
    first[torch.arange(len(ids)), 0 if mask is None else mask.long().argmax(1)] = True
    return first.flatten()


def direction(size: int) -> Tensor:
    """(size,) some direction, to stand for the one along which a gate's input is nearly 1."""
    return torch.sin(torch.arange(size, dtype=torch.float64) + 1) / size


def inverse(function: Function, values: Tensor) -> Tensor:
    """(width,) activations -> (width,) the inputs between 0 and 4 that give them; every activation function of the table rises there."""
    low, high = torch.zeros_like(values), torch.full_like(values, 4)
    for _ in range(50):
        middle = (low + high) / 2
        below = function(middle[None])[0] < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def counts_agree(model: Any, kind: Kind) -> None:
    """Every stretch is seen once for each token that reaches it, and counts and sums are those of the formulas."""
    from lape.data.windows import Batch
    from lape.model.find import find
    from lape.recording.reader import Reader

    found = find(model)
    reader = Reader(model, found, RecordOptions(), None)
    fold = torch.arange(IDS.numel()).reshape(IDS.shape) % 9 - 1
    with reader.attached():
        reader.read(Batch(IDS, None, torch.arange(IDS.numel()).reshape(IDS.shape), fold))
    state, counted = reader.result(), fold.flatten() >= 0
    by_hand = Written(model, kind)
    activations, products = by_hand.activations(IDS), by_hand.products(IDS)
    for k, (x, rows) in products.items():
        part, x = found.space.stretches[k], x[counted[rows]].double()
        near(state["written"][part.start : part.stop], x.sum(0), kind)
        near(state["written_square"][part.start : part.stop], x.square().sum(0), kind)
    for k, part in enumerate(found.space):
        a, rows = activations.get(k, (torch.zeros(0, part.width), torch.zeros(0, dtype=torch.int64)))
        kept = counted[rows]
        a, columns = a[kept], slice(part.start, part.stop)
        assert torch.equal(state["fires"][:, columns].sum(0), (a > 0).sum(0)), f"stretch {k}: counts differ"
        near(state["sum"][columns], a.double().sum(0), kind)
        near(state["square"][columns], a.double().square().sum(0), kind)
        assert int(state["routed"][:, k].sum()) == int(kept.sum()), f"stretch {k}: tokens differ"


def near(got: Tensor, expected: Tensor, kind: Kind) -> None:
    """Equal up to the rounding of the type's number format."""
    if not expected.numel():
        return
    share = 1e-5 if kind.dtype == torch.float64 else 1e-3
    finite = expected.isfinite()  # forbidden tokens; padding's nonsense
    assert torch.equal(finite, got.isfinite()), "infinite elsewhere"
    if not bool(finite.any()):
        return
    gap, scale = float((got - expected)[finite].abs().max()), float(expected[finite].abs().max())
    assert gap <= share * max(scale, 1e-6), f"{gap:.1e} apart at {scale:.1e}"


def some_edits(space: Any, gates: Tensor | None = None) -> list[Any]:
    """One of each, on random neurons of every stretch; and with `gates` (neurons,) bool something added at some of those gates."""
    from lape.edit.edit import Add, Off, Scale, Set
    from lape.values.neurons import NeuronSet

    generator = torch.Generator().manual_seed(3)

    def some() -> NeuronSet:
        return NeuronSet(space, torch.nonzero(torch.rand(len(space), generator=generator) < 0.2)[:, 0])

    value = torch.randn(len(space), generator=generator, dtype=torch.float64)
    edits = [Off(some()), Set(some(), value), Add(some(), value, -1.5), Scale(some(), -2.0)]
    if gates is None or not bool(gates.any()):
        return edits
    chosen = NeuronSet(space, (gates & (torch.rand(len(space), generator=generator) < 0.3)).nonzero()[:, 0])
    return [Add(chosen, activations_of(space), 1.5, at="gate"), *edits]


def activations_of(space: Any) -> Tensor:
    """(neurons,) float64 some activations that every activation function gives."""
    return 0.05 + 0.4 * torch.rand(len(space), generator=torch.Generator().manual_seed(4), dtype=torch.float64)


ALIKE = "all runs alike"
REASONS = {
    "shares its weights": ALIKE,
    "routed experts'": "routed experts",
    "stands between the neurons": "a norm before the down projection",
    "divides some of its weights": "weights that are changed as the model runs",
    "scaled or clamped": "a gate that is scaled or clamped",
    "more than one projection": "a gate that is no projection",
}
"""What an error says -> in few words."""


def few_words(error: Exception) -> str:
    """Why something is refused; raises the error itself where it is none of the known reasons."""
    for said, reason in REASONS.items():
        if said in str(error):
            return reason
    raise AssertionError(f"refused for a reason that is not expected: {error}") from error


def with_gates(model: Any) -> Tensor:
    """(neurons,) bool: those at whose gates something can be added."""
    from lape.model.find import find

    stretches, able = find(model).space.stretches, torch.zeros(len(find(model).space), dtype=torch.bool)
    for positions, way in ways_of(model, at_gates):
        for part in (stretches[k] for k in positions if way.runs):
            able[part.start : part.stop] = True
    return able


def edits_agree(model: Any, kind: Kind) -> None:
    """Edits are what the formulas give with changed activations; off is the down projection's columns zeroed; all is undone."""
    from lape.edit.edit import Off, edited
    from lape.values.neurons import NeuronSet

    written = Written(model, kind)
    before = logits_of(model, IDS)
    some = some_edits(written.space, with_gates(model))
    every = [Off(NeuronSet(written.space, torch.arange(0, len(written.space), 3)))]
    for edits in (some, every):
        with written.changed(edits):
            expected = logits_of(model, IDS)
        with sparing(model, edits) if edits is some else edited(model, edits):
            got = logits_of(model, IDS)
        near(got, expected, kind)
        assert not torch.equal(got, before), "an edit changes nothing"
    assert torch.equal(logits_of(model, IDS), before), "undone, the logits differ"


@contextmanager
def sparing(model: Any, edits: Sequence[Any]) -> Iterator[None]:
    """While inside, the model is edited; then what passed the gates at the first positions of texts was the same bit for bit, before and after the
    edit, and at others it was not.
    """
    from lape.edit.edit import edited
    from lape.model.find import find
    from lape.model.hooks import at_gate, watching

    first = torch.zeros_like(IDS, dtype=torch.bool)
    first[:, 0] = True
    passed: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def see(k: int, z: Tensor, rows: Tensor | None) -> None:
        mine = first.flatten() if rows is None else first.flatten()[rows]
        passed.setdefault(k, []).append((z.flatten(0, -2)[mine].clone(), z.flatten(0, -2)[~mine].clone()))

    able = [find(model).sites[k] for positions, way in ways_of(model, at_gates) for k in positions if way.runs]
    with watching(model, able, see, at_gate), edited(model, edits), watching(model, able, see, at_gate):
        yield
    assert all(torch.equal(one[0], other[0]) for one, other in passed.values()), "first positions are changed"
    assert not able or not all(torch.equal(one[1], other[1]) for one, other in passed.values()), "nothing is added"


def generates(model: Any, kind: Kind) -> None:
    """`generate` with its cache, two prompts padded on the left: the same tokens as with the MLPs computed by hand."""
    from lape.edit.edit import edited

    written = Written(model, kind)
    edits = some_edits(written.space, with_gates(model))
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    options = {
        "max_new_tokens": 3,
        "do_sample": False,
        "pad_token_id": 0,
        "return_dict_in_generate": True,
        "output_scores": True,
    }

    def answer() -> Any:
        ids = IDS.masked_fill(mask == 0, 0)
        torch.manual_seed(0)
        return model.generate(ids, attention_mask=mask, eos_token_id=None, **options)

    with written.changed(edits):
        expected = answer()
    with edited(model, edits):
        got = answer()
    near(torch.stack(got.scores), torch.stack(expected.scores), kind)
    assert torch.equal(got.sequences, expected.sequences), "other tokens"


def ships(model: Any, name: str, kind: Kind) -> tuple[str, str]:
    """Off and scale, and what is added at the gate, as an adapter and as a checkpoint: the edited model, or refused. Gives in words what was so of
    which MLPs, of either.

    A direction that is made up stands for the constant: the adapter must then add as often as it says. The checkpoint is loaded into a model
    that has not run.
    """
    from lape.edit.edit import by_unit
    from lape.model.find import find
    from lape.ship import checkpoint
    from lape.ship.changes import changes
    from lape.ship.fit import served

    found, written = find(model), Written(model, kind)
    ready: dict[str, Any] = {}
    for form, writer in forms().items():
        able = {edits: [k for at, way in ways_of(model, edits) if form in way.forms for k in at] for edits in EDITS}
        todo = [edit for edits, positions in able.items() if positions for edit in edits(found, positions)]
        if not todo:
            continue
        if str(able) not in ready:
            change = changes(model, by_unit(model, todo), biases=False)
            with written.changed(todo, constant=True):
                ready[str(able)] = change, logits_of(model, IDS)
        change, expected = ready[str(able)]
        parts = writer.updates(model, change, made(model, change))
        if form == "LoRA":
            with served(model, parts):
                got = logits_of(model, IDS)
        else:
            copy = build(name, kind)
            copy.load_state_dict({**model.state_dict(), **checkpoint.changed(model, change, parts)})
            got = logits_of(copy, IDS)
        finite = expected.isfinite()
        gap = float((got - expected)[finite].abs().max() / (expected[finite].max() - expected[finite].min()))
        assert gap <= 1e-4, f"{form}: {gap:.1e} of the range of the logits apart"
    scaling, adding = ("; ".join(dict.fromkeys(str(way) for _, way in ways_of(model, edits))) for edits in EDITS)
    return scaling, adding


@lru_cache(maxsize=2)  # of one model
def ways_of(model: Any, edits: Edits) -> list[tuple[list[int], Way]]:
    """For each weights of down projections (all experts in a module, all runs of it): the positions of its sites, and how edits there ship."""
    from lape.model.find import find

    found = find(model)
    alike: dict[int, list[int]] = {}
    for position, site in enumerate(found.sites):
        alike.setdefault(id(next(model.get_submodule(site.down).parameters())), []).append(position)
    return [(positions, tried(model, found, edits, positions)) for positions in alike.values()]


def forms() -> dict[str, Any]:
    """What writes an adapter, and what a checkpoint."""
    from lape.ship import checkpoint, lora

    return {"LoRA": lora, "checkpoint": checkpoint}


def made(model: Any, todo: Sequence[Any]) -> dict[str, Any]:
    """A constant for every gate that changes need one at: `direction`, fitted to nothing."""
    from lape.ship.changes import gates
    from lape.ship.constant import Constant

    sizes = {name: affine(model.get_submodule(name))[0].shape[1] for name in gates(todo)}
    return {name: Constant(direction(size), torch.zeros(size, size), {}, 0, 0, 0) for name, size in sizes.items()}


def tried(model: Any, found: Any, edits: Edits, positions: Sequence[int]) -> Way:
    """Whether edits of some sites can be made and shipped."""
    from lape.edit.edit import by_unit
    from lape.errors import OptionError
    from lape.ship.changes import changes

    try:
        todo = changes(model, by_unit(model, edits(found, positions)), biases=False)
    except OptionError as error:
        return Way((), False, few_words(error), False)
    able, why, alike = [], "", False
    for form, writer in forms().items():
        try:
            writer.updates(model, todo, made(model, todo))
            able.append(form)
        except OptionError as error:
            why = few_words(error)
    if len({found.sites[k].expert for k in positions}) < len(positions):
        try:
            changes(model, by_unit(model, edits(found, positions[:1])), biases=False)
        except OptionError as error:
            alike = few_words(error) == ALIKE
    return Way(tuple(able), True, why, alike)


@dataclass(frozen=True)
class Way:
    """How edits of some MLPs can be shipped."""

    forms: tuple[str, ...]
    runs: bool
    """Whether they can be made at run time."""
    why: str
    """Why they cannot in other ways."""
    alike: bool
    """Whether only the same in all runs of an MLP."""

    def __str__(self) -> str:
        if not self.why:
            said = ", ".join(self.forms)
        else:
            said = f"{self.forms[0] if self.forms else 'run time' if self.runs else 'refused'}{' only' if self.runs else ''}: {self.why}"
        return said + (f" ({ALIKE})" if self.alike and self.forms else "")


def scaled(found: Any, positions: Sequence[int]) -> list[Any]:
    """Off and scale, of the same neurons in every run of a module."""
    from lape.edit.edit import Off, Scale

    return [Off(every(found, positions, 5, 0)), Scale(every(found, positions, 5, 1), -2.0)]


def at_gates(found: Any, positions: Sequence[int]) -> list[Any]:
    """Something added at the gate, the same in every run of a module."""
    from lape.edit.edit import Add

    local = torch.cat([torch.arange(part.width) for part in found.space.stretches])
    return [Add(every(found, positions, 4, 2), 0.05 + 0.4 * (local.double() * 0.618 % 1), 1.5, at="gate")]


Edits = Callable[[Any, Sequence[int]], list[Any]]
"""(what was found, positions of sites) -> edits there."""
EDITS: tuple[Edits, ...] = (scaled, at_gates)


def every(found: Any, positions: Sequence[int], step: int, start: int) -> Any:
    """Every so many-th neuron of some sites."""
    from lape.values.neurons import NeuronSet

    parts = [found.space.stretches[k] for k in positions]
    return NeuronSet(found.space, torch.cat([torch.arange(part.start + start, part.stop, step) for part in parts]))


def compiles(model: Any, kind: Kind, *, blocks: bool = True) -> None:
    """On a compiled block (the first of each kind) an edit takes effect, and leaves no trace.

    Without `blocks`, on the compiled part of a block that has the MLP: torch leaves a graph at each hook, so that a compiled block
    calls its MLP as Python does, whose code is then compiled by itself. Attention is most of what compiling a block takes. Parts that
    are the same code, as most types' MLPs are, are compiled once in a process.

    A whole model takes seconds to minutes to compile: done here only where blocks share modules, whose runs are counted over a
    whole forward (without `blocks`, of one such type), and elsewhere in test_edit.py and tests/real/test_compiled.py.
    """
    from lape.edit.edit import edited
    from lape.model.find import find

    sites = find(model).sites
    edits = some_edits(find(model).space)
    kinds: dict[tuple[Any, ...], str] = {}
    for site in sites:
        place = site.block if blocks else part_of(model, site)
        kinds.setdefault((site.rule, site.up is None, site.layout and site.layout.halves, site.width), place)
    shared = any(max(site.runs, site.activation_runs) > 1 for site in sites)
    for name in [""] if shared else dict.fromkeys(kinds.values()):
        module = model.get_submodule(name)
        if not blocks:
            code = SHARED if shared else code_of(module)
            if code in COMPILED:
                continue
            COMPILED.add(code)
        args, kwargs = ((), {"input_ids": IDS, "use_cache": False}) if shared else call_of(model, module)
        compiled = torch.compile(module, backend="eager")

        def run(module: Any, args: Any = args, kwargs: Any = kwargs) -> Tensor:
            with torch.no_grad():
                out = module(*args, **kwargs)
            result: Tensor = out if isinstance(out, Tensor) else out.logits if shared else out[0]
            return result

        before = run(compiled)
        near(before, run(module), kind)
        with edited(model, edits):
            got, expected = run(compiled), run(module)
        near(got, expected, kind)
        assert not torch.equal(got, before), f"an edit changes nothing in the compiled {name}"
        assert torch.equal(run(compiled), before), f"undone, the compiled {name} differs"
        torch.compiler.reset()


SHARED = (("", "modules that several blocks share"),)
COMPILED: set[tuple[tuple[str, str], ...]] = set()
"""The parts of blocks that this process has compiled."""


def code_of(module: Any) -> tuple[tuple[str, str], ...]:
    """What a module and those below it run: their names, and the code of each; torch's own by their types."""
    return tuple((name, _forward_of(type(one))) for name, one in module.named_modules())


@cache
def _forward_of(kind: type) -> str:
    if kind.__module__.startswith("torch."):
        return kind.__qualname__
    return ast.dump(ast.parse(dedent(inspect.getsource(inspect.unwrap(kind.forward)))))  # comments differ


def part_of(model: Any, site: Any) -> str:
    """The part of a block that is called and has all modules of a site; the block itself where none has."""
    names = {site.reader, *(branch.module for branch in (site.gate, site.up) if branch)}
    names |= {site.activation} if site.rule == "activation" else set()
    depth = site.block.count(".") + 2
    while len(children := {".".join(name.split(".")[:depth]) for name in names}) == 1:
        child = children.pop()
        if not isinstance(model.get_submodule(child), nn.ModuleList):
            return str(site.block) if child == site.down and site.layout is None else child
        depth += 1
    return str(site.block)


def call_of(model: Any, block: Any) -> tuple[Any, Any]:
    """What a block is called with."""
    calls: list[tuple[Any, Any]] = []
    handle = block.register_forward_pre_hook(lambda _m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        logits_of(model, IDS)
    finally:
        handle.remove()
    return calls[0]


CHECKS = (same_places, counts_agree, edits_agree, generates)


def structures(kind: Kind) -> set[tuple[Any, ...]]:
    """How a type's MLPs are built, whatever their names and functions."""
    found: set[tuple[Any, ...]] = set()
    for mlp in kind.mlps:
        if isinstance(mlp, Mlp):
            found.add(("dense", mlp.up is None, mlp.up == mlp.gate, mlp.glu is not None))
        elif isinstance(mlp, Experts):
            own = mlp.glu is not None, mlp.by_hand is not None
            found.add(("experts", mlp.gated, mlp.transposed, mlp.interleaved, mlp.biases is not None, *own))
        else:
            found.add(("own", mlp.by_hand))
    return found


def representatives(names: Sequence[str]) -> set[str]:
    """Types that have every structure among them: at each step the first of those that add most."""
    built = {name: structures(KINDS[name]) for name in names if name in KINDS and not KINDS[name].unsupported}
    left = set().union(*built.values())
    chosen = set()
    while left:
        best = max(built, key=lambda name: len(built[name] & left))
        chosen.add(best)
        left -= built[best]
    return chosen


def verdicts(
    names: Sequence[str],
    *,
    blocks: Collection[str] | None = None,
    workers: int = 2,
    say: Callable[[Verdict], None] = lambda _one: None,
) -> list[Verdict]:
    """The verdicts on some types, in processes of their own. `blocks`: those of which whole blocks are compiled; None: all."""
    found, whole = [], names if blocks is None else blocks
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for one in pool.map(partial(_examine, whole=frozenset(whole)), names):
            say(one)
            found.append(one)
    return found


def _examine(name: str, whole: frozenset[str]) -> Verdict:
    return examine(name, blocks=name in whole)


def mapped() -> list[str]:
    """All model types that transformers loads as a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def counts(found: Sequence[Verdict]) -> str:
    """How many types have each verdict."""
    each = Counter(one.verdict for one in found)
    return ", ".join(
        f"{each[name]} {name}" for name in ("proven", "unsupported", "not applicable", "wrong") if each[name]
    )


def page(found: Sequence[Verdict], version: str) -> str:
    """docs/architectures.md."""
    head = f"""# Architectures

Does it work for my model? `lape doctor MODEL` says so for yours. Below is every model type that transformers {version} loads as a causal
language model, each as a small random model: {counts(found)}, of {len(found)}.

**Proven**: the sites found are those that a table written by hand from the model's source names; counts and sums equal a recomputation from
each layer's input and weights that shares no code with the finder; off, set, add and scale equal that recomputation with changed
activations, bit for bit undone; so they do in `generate` with its cache and left padding, and on blocks under `torch.compile`. **Not applicable**:
there are no MLP neurons, or no decoder that reads text alone. **Unsupported**: refused, with the reason.

"Off, scale" and "add at the gate" say what `lape export` makes of such edits. **LoRA**: the model with the adapter is the edited one, and
**checkpoint**: a model that loads the weights is (logits against the recomputation, within 1e-4 of their range). What is added at a gate
(`lape.Add(…, at="gate")`) is tried along a direction that is made up; how near to a constant the direction comes that is fitted to text, the
card of each export says. *Run time only*: `lape.edited` does it, equal to the recomputation, in `generate` too, but weights cannot hold it; what
passes a gate at the first position of each text stays the same bit for bit. *Refused*: not at run time either. Where MLPs of a type differ in what
can be done, all of it is listed. Modules that run in several layers are shipped where all runs are edited alike.

peft 0.21 takes a layer named like an expert's projection for the experts' own: beside routed experts, in 20 of these types, it leaves the adapter of a
dense down projection out, with a warning of missing keys. Give such a model as a checkpoint.

A neuron is (layer, index), in routed experts (layer, expert, index). Layers are the decoder blocks in the order in which they run, so that a
block that runs twice has neurons of its own each time; a shared expert is a dense MLP of its layer. Of routed experts both denominators are
recorded, all tokens and those that were sent to the expert (`--denominator routed`), and `lape show RUN --experts` tells which experts each
language's tokens go to. While neurons are watched or changed, experts run one after the other, whatever implementation the model uses: the
same values up to rounding. On two CPU cores that is no slower than the model's own experts (`python benchmarks/experts.py 10`: watched .74 ×, counted
.75 × the time; 64 experts, 8 a token, bfloat16).

Neurons fire on the values that the model computed, in its own number format. Gemma 3 270M ([4- and 5-bit weights](results.md#the-models), unpacked)
recorded in bfloat16 and in float32 on the same 10,000 tokens of news in each of seven languages gives sets with a Jaccard of .989 over the union,
.964 to 1 by language; in bfloat16 and in 8 bits .973, .940 to 1; in bfloat16 and in 4 bits .761, .703 to .882 (`python benchmarks/precision.py`).
These 4 and 8 bits come on top of the file's own 4 and 5, so the step from the original weights was not measured. Find a 4-bit model's neurons in the
4-bit model.

Weights may be quantised by bitsandbytes (`--bits 8`, `--bits 4`, or so stored), come from a GGUF file (unpacked), lie on the CPU or a disk until they
are used (`--device-map auto`), or have a peft adapter. What 8 bits give a row depends a little on the other rows of its batch, which is how LLM.int8 works.
An adapter for 4-bit weights has the columns with which the model computes, so that it is the edit up to the rounding of its number format: on Gemma 3
270M, a fiftieth or a fifth of the neurons off or doubled, the largest difference of a logit is .03 to .08 of their range, and with unquantised weights in
bfloat16 .03 to .07. For 8-bit weights, where what a column gives depends on the whole row, off and scale are refused; what is added at the gate needs no
weights.
Attributions need gradients, which bitsandbytes does not give for 4 bits on every CPU: they are tried first, and refused.

"Packed" says whether documents share a row without seeing each other; elsewhere each has a row of its own, which is slower, not less exact.
"As a function" means that an activation is computed by a function and was recognised by its values. Numbers of blocks in the notes are
those of the small models. Written by `python tests/support/conformance.py`; `tests/contracts/test_architectures.py` fails when it is stale.

| model type | verdict | MLPs | off, scale | add at the gate | packed | note |
|---|---|---|---|---|---|---|
"""
    rows = [
        f"| {one.kind} | {'**proven**' if one.verdict == 'proven' else one.verdict} | {one.found} | "
        f"{one.scaled} | {one.at_gate} | {'yes' if one.packs else ''} | {one.why} |\n"
        for one in found
    ]
    return head + "".join(rows)


def proven_on(text: str) -> set[str]:
    """The types that a page calls proven."""
    return {line.split("|")[1].strip() for line in text.splitlines() if "| **proven** |" in line}


def say(one: Verdict) -> None:
    sys.stdout.write(f"{one.kind}: {one.verdict}; {one.found or one.why} [{one.seconds:.1f} s]\n")
    sys.stdout.flush()


def main(names: Sequence[str]) -> None:
    import transformers

    found = verdicts(names or mapped(), say=say)
    sys.stdout.write(f"{counts(found)}, of {len(found)}; {sum(one.seconds for one in found):.0f} s of processor time\n")
    if not names:
        PAGE.write_text(page(found, transformers.__version__))


if __name__ == "__main__":
    main(sys.argv[1:])
