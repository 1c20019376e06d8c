"""`export`: edits of neurons and attention heads as files, for engines that know nothing of lape."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import polars as pl
import torch
from torch import Tensor, nn

from lape.data.corpus import BosRule
from lape.data.texts import DocumentRule, Texts
from lape.edit.edit import Add, Edit, Off, Scale, Set, by_unit, values_at
from lape.errors import FileError, MismatchError, OptionError
from lape.model.body import unwrapped
from lape.model.find import find
from lape.model.heads import find_heads
from lape.model.identity import describe
from lape.progress import Progress, shown
from lape.ship import checkpoint, gguf_lora, lora
from lape.ship.card import CARD, card
from lape.ship.changes import canonical, changes, gates
from lape.ship.constant import TOKENS, Constant, Read, constants, read
from lape.ship.cost import cost
from lape.ship.fit import Reference, fit, largest_difference, logits_of, served
from lape.ship.format import ExportFormat, Prepared
from lape.store import files
from lape.store.documents import Whole, read_json
from lape.store.draft import Draft
from lape.values.heads import HeadSpace
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Format: TypeAlias = Literal["checkpoint", "lora", "gguf-lora"]
MANIFEST = lora.MANIFEST
"""Beside the weights: which model this was, what was done to it, and how near the files are to the edit."""
FORMATS: dict[str, ExportFormat] = {
    "checkpoint": checkpoint.FORMAT,
    "lora": lora.FORMAT,
    "gguf-lora": gguf_lora.FORMAT,
}
"""Every export format by name."""


def export(
    model: PreTrainedModel | nn.Module,
    edits: Edit | Sequence[Edit],
    out: str | Path,
    *,
    format: Format = "checkpoint",
    tokenizer: PreTrainedTokenizerBase | None = None,
    texts: Texts | None = None,
    tokens: int = TOKENS,
    document: DocumentRule = "file",
    column: str = "text",
    bos: BosRule = "auto",
    evaluation: Texts | None = None,
    cost_tokens: int = 5000,
    choices: pl.DataFrame | None = None,
    about: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = shown,
) -> Path:
    """Write edits as files that any engine serves; the model itself is not changed. Gives the folder.

    `format`: *checkpoint*, the whole model with the edits in its weights; *lora*, an adapter in PEFT's format, which peft, vLLM and SGLang load
    beside the base model and use per request; *gguf-lora*, the same for llama.cpp.

    A neuron's contribution is its activation times its column of the down projection, and an attention head's its channels times theirs of the output
    projection, so `Off` and `Scale` are exact: scaled columns, as an adapter an update of as many ranks as there are neurons, or channels, in the layer
    (512 at most). `Add(…, at="gate")` is an update of the gate projection of rank one,
    and `Set` one of a rank for each neuron: both need a constant, which a linear layer without bias does not have, and take for it the direction
    along which its input is nearly 1 on `texts`, `tokens` of each of several languages, such as were recorded, read as they were then: `document`,
    `column` and `bos` as of `lape.record`. In a plain MLP whose
    down projection has a bias, a checkpoint holds `Set` and `Add` exactly, there. `Add` at the activation of a gated MLP cannot be written.

    Beside the weights lie `lape.json` and a card, README.md: from which model, which edits, how near the files are to the edit (on a part of `texts`
    that nothing is fitted to), and where `evaluation` is given, other text by language, what they cost there, on `cost_tokens` of each. For the card
    too: `choices`, how the strength was chosen, as `lape.ship.strength.strengths` gives it, and `about`, what the edits are for, such as "writes
    fr". With `tokenizer` a checkpoint has that too.

    Raises OptionError for an edit that cannot be written, or text that is missing, ModelError for weights that cannot be read, FileError where
    `out` exists and `overwrite` is not given. Ours.

    Example:
        >>> folder = lape.export(model, [lape.Off(neurons["fr"])], "no-fr", format="lora")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'lape.json']
    """
    if format not in FORMATS:
        raise OptionError(f"format is {format!r}. Expected {', '.join(get_args(Format))}.")
    draft = Draft(Path(out), overwrite)
    listed = list(edits) if isinstance(edits, Sequence) else [edits]
    reading: dict[str, Any] = {"document": document, "column": column, "bos": bos}
    rows = {**reading, "tokens": tokens}
    plan = _planned(unwrapped(model), listed, FORMATS[format], tokenizer, texts, rows, progress)
    said = {
        "kind": plan.format.kind,
        "about": list(about),
        "made_from": describe(plan.prepared.model, tokenizer),
        "edits": [_described(edit) for edit in listed],
        **({"constants": _spreads(plan.fitted)} if plan.fitted else {}),
        **_near(plan, progress),
        **_costs(plan, evaluation, {**reading, "tokens": cost_tokens}, progress),
        **({"choices": choices.to_dicts()} if choices is not None else {}),
    }
    with draft.anew() as working:
        with files.writing(working):
            said |= plan.format.write(plan.prepared, working)
            (working / CARD).write_text(card_of(said, Path(out).name), encoding="utf-8")
        files.write_json(working / MANIFEST, said)
    return Path(out)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is written: edits as changes of weights, with the constants that they need."""

    format: ExportFormat
    prepared: Prepared
    reference: Reference
    """The same at run time."""
    known: Mapping[str, Read]
    """The text that constants were fitted to, or none."""
    fitted: Mapping[str, Constant]


def _planned(
    model: Any,
    edits: Sequence[Edit],
    format: ExportFormat,
    tokenizer: Any,
    texts: Texts | None,
    rows: Mapping[str, Any],
    progress: Progress,
) -> _Plan:
    by = by_unit(model, edits)
    todo = changes(model, by, biases=format.find_weights is not None)
    modules = gates(todo)
    if modules and (texts is None or tokenizer is None):
        raise OptionError(
            "What is set, or added at the gate, needs a constant, which is fitted to text: give texts= of several languages, and tokenizer=."
        )
    if not modules:
        format.find_updates(model, todo, {})  # refuses before text is read
    known = read(tokenizer, texts, **rows) if modules and texts is not None else {}
    reference = Reference(*canonical(by, todo))
    with reference.on(model):  # what comes to later layers is what an edited model gives
        fitted = constants(model, modules, known, progress=progress) if modules else {}
    parts = format.find_updates(model, todo, fitted)
    weights = format.find_weights(model, todo, parts) if format.find_weights is not None else {}
    return _Plan(format, Prepared(model, tokenizer, parts, weights), reference, known, fitted)


def _near(plan: _Plan, progress: Progress) -> dict[str, Any]:
    """How near the files are to the edit: with a constant in them by the next token's distribution on text, else to the last digits."""
    made = plan.prepared
    if plan.known:
        rows = {language: text.apart for language, text in plan.known.items() if text.apart}
        found = fit(made.model, made.tokenizer, plan.reference, made.parts, rows, progress=progress)
        return {"fit": found.to_dicts()}

    def exported(ids: Tensor) -> Tensor:
        if plan.format.find_weights is not None:
            return logits_of(made.model, ids, made.weights)
        with served(made.model, made.parts):
            return logits_of(made.model, ids)

    return {"largest_difference": largest_difference(made.model, plan.reference, exported)}


def _costs(plan: _Plan, evaluation: Texts | None, rows: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    made = plan.prepared
    if evaluation is None or made.tokenizer is None or not made.parts:
        return {}
    found = cost(made.model, made.tokenizer, made.parts, evaluation, **rows, progress=progress)
    return {"cost": found.to_dicts()}


def _described(edit: Edit) -> dict[str, Any]:
    space = edit.neurons.space
    return {
        "edit": type(edit).__name__.lower(),
        **(
            {"heads": space.heads(edit.neurons.flat)}
            if isinstance(space, HeadSpace)
            else {"neurons": len(edit.neurons)}
        ),
        **({"factor": edit.factor} if isinstance(edit, Scale) else {}),
        **({"strength": edit.strength, "at": edit.at} if isinstance(edit, Add) else {}),
        **({"value": values_at(edit.value, edit.neurons.flat).tolist()} if isinstance(edit, (Set, Add)) else {}),
        "flat": edit.neurons.flat.tolist(),
    }


def placed(made: Path, target: Path, **more: Any) -> None:
    """Put a folder that `export` made in another place, with more said in its manifest and on its card. What is in that place goes."""
    said = said_in(made) | more
    with files.writing(target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)
        (target / CARD).write_text(card_of(said, target.name), encoding="utf-8")
    files.write_json(target / MANIFEST, said)


def card_of(manifest: Mapping[str, Any], name: str) -> str:
    """Return the card of an exported folder, from its manifest and its name. Raises FileError for a kind that no format has."""
    for form in FORMATS.values():
        if form.kind == manifest["kind"]:
            return card(manifest, name, form)
    kinds = ", ".join(form.kind for form in FORMATS.values())
    raise FileError(
        f"{MANIFEST} says that {name} is {manifest['kind']!r}. Expected one of: {kinds}. Export it again: lape export."
    )


def edits_in(folder: str | Path, model: nn.Module) -> list[Edit]:
    """The edits that an exported folder stands for, of a model's neurons and heads; raises FileError where it says none, MismatchError of another model.

    What is set acts at run time on the first position of a text too, unless `edited(..., spare=True)`.

    Example:
        >>> from lape.ship.export import edits_in
        >>> folder = lape.export(model, lape.Scale(neurons["fr"], 2.0), "more-fr", format="lora")
        >>> edits_in(folder, model)
        [Scale(...)]
    """
    said = said_in(folder)
    return [
        _edit(one, (find_heads if "heads" in one else find)(model).space, said["made_from"], Path(folder) / MANIFEST)
        for one in said["edits"]
    ]


_EDIT = Whole(
    {
        "edit": str,
        "flat": [int],
        "neurons": int,
        "heads": [[int]],
        **dict.fromkeys(("factor", "strength"), float),
        "value": (float, [float]),
        "at": str,
    },
    "edit",
    "flat",
)
"""What is read of an edit in the manifest."""


def said_in(folder: str | Path) -> dict[str, Any]:
    """What an exported folder says of itself. Raises FileError where it says nothing."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileError(
            f"There is no {path}, which says which edits the files make. Expected a folder that lape export wrote."
        )
    said: dict[str, Any] = read_json(
        path, Whole({"kind": str, "edits": [_EDIT], "made_from": dict, ...: object}, "kind", "edits", "made_from")
    )
    return said


def _edit(said: Mapping[str, Any], space: NeuronSpace, made_from: Mapping[str, Any], path: Path) -> Edit:
    try:
        neurons = NeuronSet(space, torch.tensor(said["flat"], dtype=torch.int64), made_from)
        if len(neurons) != len(said["flat"]):
            raise ValueError("a neuron is named twice")
        elsewhere = isinstance(space, HeadSpace) and [list(one) for one in space.heads(neurons.flat)] != said["heads"]
        value = torch.zeros(len(space), dtype=torch.float64)
        value[neurons.flat] = torch.tensor(said.get("value", 0.0), dtype=torch.float64)
        made: dict[str, Callable[[], Edit]] = {
            "off": lambda: Off(neurons),
            "scale": lambda: Scale(neurons, said["factor"]),
            "set": lambda: Set(neurons, value),
            "add": lambda: Add(neurons, value, said["strength"], said["at"]),
        }
        edit = made[said["edit"]]()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{path} holds an edit that cannot be read ({type(error).__name__}). Export it again: lape export."
        ) from error
    if elsewhere:
        raise MismatchError(
            f"{path} names attention heads {said['heads']}, which in this model have other channels than where it was made. Export it again."
        )
    return edit


def _spreads(fitted: Mapping[str, Constant]) -> dict[str, Any]:
    """How far the constant is from one, by module and language."""
    return {
        name: {"spread": one.spread, "first": one.first, "ridge": one.ridge, "tokens": one.tokens}
        for name, one in fitted.items()
    }
