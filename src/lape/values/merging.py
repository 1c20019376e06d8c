"""How what was recorded of one language in two texts adds up: tensor by tensor, as each is described; and what their manifests say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lape.errors import MismatchError
from lape.store import shards
from lape.store.lazy import Join, Together
from lape.values.quantity import EXTRAS, WRITTEN, Quantity

CLIPPED = "clipped"
"""In a manifest: language -> cells of its `fires` that were above its tokens, and were set to them (`ActivationStats.from_counts`)."""
_JOINS: dict[str, Join] = {
    "add": torch.add,
    "join": lambda first, second: torch.cat([first, second]),
    "same": lambda first, _: first,
}


def added(
    language: str, known: Mapping[str, Quantity], a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The tensors of both texts, added when they are asked for. Raises MismatchError for those that cannot be."""
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        older = " (files of format 1 have none)" if set(odd) & set(WRITTEN) else ""
        raise MismatchError(
            f"{language}: only one of the two holds {', '.join(odd)}{older}. Record both with the same options and version."
        )
    joins: dict[str, Join] = {}
    for name in a:
        if name not in known:
            raise MismatchError(
                f"{language}: nothing says how {name} is merged. Describe it in manifest['quantities']."
            )
        merge = known[name].merge
        if merge == "same" and not torch.equal(a[name], b[name]):
            how = EXTRAS.get(name, "options").replace("TAG", language)
            raise MismatchError(
                f"{language}: {name} is not the same in both: they were recorded with different tuned checkpoints or options. "
                f"Record both with the same {how}."
            )
        joins[name] = _union(a[name], b[name]) if merge == "union" else _JOINS[merge]
    return Together(a, b, joins)


def _union(a: Tensor, b: Tensor) -> Join:
    """Made at once, since its length says how long the whole is."""
    every = torch.unique(torch.cat([a, b]))
    return lambda first, _: every.to(first.device)


def joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Manifests of merged statistics: corpora are listed, tuned checkpoints of all languages kept, clipped cells added,
    the rest is the same.
    """
    result = dict(a)
    if a.get("corpus") or b.get("corpus"):
        result["corpus"] = shards.joined(a.get("corpus", {}), b.get("corpus", {}))
    if "options" in a:  # the corpora say which shards there are
        result["options"] = {**a["options"], "shard": None}
    result.pop("until", None)  # where one of the two recordings stopped
    for name in ("tuned", "quantities"):
        if name in a or name in b:
            result[name] = {**b.get(name, {}), **a.get(name, {})}
    if CLIPPED in a or CLIPPED in b:
        first, second = a.get(CLIPPED, {}), b.get(CLIPPED, {})
        result[CLIPPED] = {k: first.get(k, 0) + second.get(k, 0) for k in (*first, *second)}
    return result
