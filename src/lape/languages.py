"""Language tags: BCP-47, checked by a library; FLORES codes are translated."""

from __future__ import annotations

import langcodes

from lape.errors import TextError


def tag(code: str) -> str:
    """The standard BCP-47 tag of a code: `fr`, `zh-Hant`, `fr-x-shuffled`; `fra_Latn` becomes `fr`.

    Dialect codes stay what they are (`arb` is not widened to `ar`, where `ary` would land too).
    Raises TextError for anything that is no registered language.
    """
    try:
        standard = langcodes.standardize_tag(code.strip(), macro=False)
        valid = langcodes.tag_is_valid(standard)
    except (ValueError, LookupError):
        valid = False
    if not valid:
        raise TextError(
            f"{code!r} is not a language tag. Expected BCP-47 such as fr, zh-Hant, hi-Latn or fr-x-mine, "
            "or a FLORES code such as fra_Latn: --text fr=PATH."
        )
    return standard
