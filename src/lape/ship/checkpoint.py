"""Bake edits into weights: a plain checkpoint that any engine can serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lape.edit.edit import Add, Edit, Scale, Set, affine, check_edits
from lape.errors import ModelError, OptionError
from lape.model.body import unwrapped
from lape.model.experts import Layout
from lape.model.find import find
from lape.model.identity import describe
from lape.model.site import Site, Sites
from lape.model.weights import has_adapter
from lape.store import files
from lape.store.draft import Draft

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MANIFEST = "lape.json"
"""Beside the weights: which model this was, and what was done to it."""
_AT_RUN_TIME = "Use lape.edited(...) or lape.steer(...) at run time, or bake Off or Scale instead."


def export(
    model: PreTrainedModel | nn.Module,
    edits: Edit | Sequence[Edit],
    out: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model with edits baked into its down projections, a plain checkpoint; the model itself is not changed. Gives the folder.

    A neuron's contribution is its activation times its column of the down projection, so to scale it (`Off`, zero ablation: by 0) is to
    scale the column, exactly but for the rounding of the weights. In a plain MLP whose down projection has a bias, a value
    that is set or added is a constant and goes into the bias. In a gated MLP it is multiplied by the up branch, which
    differs from token to token: `Set` and `Add` are refused there, and where there is no bias.

    Writes `lape.json` beside the weights, and with `tokenizer` that too. Raises OptionError for an edit that cannot be baked, FileError where `out`
    exists and `overwrite` is not given.

    Example:
        >>> folder = lape.export(model, [lape.Off(neurons["zh"])], "no-zh", tokenizer=tokenizer)
        >>> (folder / "model.safetensors").is_file()
        True
    """
    out = Path(out)
    draft = Draft(out, overwrite)
    todo = list(edits) if isinstance(edits, Sequence) else [edits]
    inner: Any = unwrapped(model)
    found = find(inner)
    check_edits(model, todo, found.space)
    changed = _changed(inner, found, todo)
    with draft.anew() as working:
        with files.writing(working):
            type(inner).save_pretrained(inner, working, state_dict={**inner.state_dict(), **changed})
            if tokenizer is not None:
                tokenizer.save_pretrained(working)
        files.write_json(working / MANIFEST, _manifest(inner, tokenizer, todo))
    return out


def _manifest(model: Any, tokenizer: Any, edits: Sequence[Edit]) -> dict[str, Any]:
    """Where the checkpoint comes from."""
    done = [
        {
            "edit": type(edit).__name__.lower(),
            "neurons": len(edit.neurons),
            **({"factor": edit.factor} if isinstance(edit, Scale) else {}),
            **({"strength": edit.strength} if isinstance(edit, Add) else {}),
            "flat": edit.neurons.flat.tolist(),
        }
        for edit in edits
    ]
    return {"kind": "exported checkpoint", "made_from": describe(model, tokenizer), "edits": done}


def _changed(model: Any, found: Sites, edits: Sequence[Edit]) -> dict[str, Tensor]:
    """The parameters that differ, by name."""
    changed: dict[str, Tensor] = {}
    maps: dict[tuple[int, int | None], tuple[Tensor, Tensor]] = {}
    todo = affine(edits, found.space)
    for position, site in enumerate(found.sites):
        ones = torch.ones(site.width, dtype=torch.float64)
        keep, shift = todo.get(position, (ones, torch.zeros_like(ones)))
        linear = model.get_submodule(site.down)
        weight = linear.weight if site.layout is None else linear.get_parameter(site.layout.down.parameter)
        _refuse_one_depth(site, maps.setdefault((id(weight), site.expert), (keep, shift)), (keep, shift))
        if site.layout is not None:
            _scale_expert(model, site, site.layout, keep, shift, edits, changed)
            continue
        if bool((keep != 1).any()) or bool((shift != 0).any()):
            _refuse_quantised(site, linear)
            _refuse_norm(site)
        if bool((shift != 0).any()):
            _refuse_values(site, linear, edits)
            changed[f"{site.down}.bias"] = _biased(linear, shift)
        if bool((keep != 1).any()):
            changed[f"{site.down}.weight"] = _scaled(linear, keep)
    return changed


def _scale_expert(
    model: Any,
    site: Site,
    layout: Layout,
    keep: Tensor,
    shift: Tensor,
    edits: Sequence[Edit],
    changed: dict[str, Tensor],
) -> None:
    """Scale one expert's columns in the stacked down projection."""
    if bool((shift != 0).any()):
        raise OptionError(
            f"{_kinds(edits)} cannot be baked into layer {site.layer}: its neurons are routed experts'. {_AT_RUN_TIME}"
        )
    if bool((keep == 1).all()) or site.expert is None:
        return
    name = f"{site.down}.{layout.down.parameter}"
    if name not in changed:
        changed[name] = model.get_parameter(name).detach().clone()
    layout.down.of(changed[name], site.expert).mul_(keep.to(changed[name]))


def _refuse_one_depth(site: Site, first: tuple[Tensor, Tensor], here: tuple[Tensor, Tensor]) -> None:
    if not all(torch.equal(a, b) for a, b in zip(first, here, strict=True)):
        raise OptionError(
            f"Layer {site.layer} shares its weights with another layer, so an edit of one of them alone cannot be baked in. "
            f"Edit both alike. {_AT_RUN_TIME}"
        )


def _refuse_values(site: Site, linear: nn.Module, edits: Sequence[Edit]) -> None:
    if site.gate is None or site.up is not None:
        reason = (
            "its MLP is gated: what is set or added is multiplied by the up branch, which differs from token to token"
        )
    elif getattr(linear, "bias", None) is None:
        reason = "its down projection has no bias to hold it"
    else:
        return
    raise OptionError(f"{_kinds(edits)} cannot be baked into layer {site.layer}: {reason}. {_AT_RUN_TIME}")


def _kinds(edits: Sequence[Edit]) -> str:
    return " and ".join(sorted({type(edit).__name__ for edit in edits if isinstance(edit, (Set, Add))}))


def _refuse_norm(site: Site) -> None:
    if site.norm is not None:
        raise OptionError(
            f"{site.norm} stands between the neurons of layer {site.layer} and {site.down}, so no edit of the weights has the same effect. {_AT_RUN_TIME}"
        )


def _refuse_quantised(site: Site, linear: Any) -> None:
    if has_adapter(linear):
        raise ModelError(f"{site.down} has an adapter. Merge it first: model = model.merge_and_unload().")
    if linear.weight.device.type == "meta":
        raise ModelError(
            f"{site.down} is kept on disk or in main memory until it is used. Load the model without offloading to export it."
        )
    if not linear.weight.is_floating_point():
        raise ModelError(
            f"{site.down} is quantised; its weights cannot be changed exactly. Load the model unquantised to export it."
        )


def _scaled(linear: Any, keep: Tensor) -> Tensor:
    weight: Tensor = linear.weight.detach()
    by = keep.to(weight.dtype).to(weight.device)
    return weight * (by[:, None] if hasattr(linear, "nx") else by)


def _biased(linear: Any, shift: Tensor) -> Tensor:
    """The bias with the constant contribution of what is set or added."""
    weight: Tensor = linear.weight.detach().cpu().double()
    added = shift @ weight if hasattr(linear, "nx") else weight @ shift
    bias: Tensor = linear.bias.detach()
    return (bias.cpu().double() + added).to(bias.dtype).to(bias.device)
