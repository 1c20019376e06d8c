"""What figures call languages: their tags, their English names, or their own names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import langcodes

from lape.extras import INSTALL, need
from lape.figures.fonts import missing


def names(languages: Sequence[str], style: str) -> tuple[dict[str, str], list[str]]:
    """Return language -> name, and notes for the user. Raises OptionError without the library's names.

    A language whose own name has letters that no font has goes by its tag. Names that two languages share, and those of private tags, are
    followed by the tag.
    """
    if style == "tags":
        return {language: language for language in languages}, []
    need("report", "Writing languages by name", "language_data")
    known = {language: langcodes.Language.get(language) for language in languages}
    called = {tag: str(one.display_name() if style == "english" else one.autonym()) for tag, one in known.items()}
    bare = [language for language in languages if missing(called[language])]
    called |= {language: language for language in bare}
    times = Counter(called.values())
    for tag, name in called.items():
        if name != tag and (times[name] > 1 or "-x-" in tag):
            called[tag] = f"{name} ({tag})"
    if not bare:
        return called, []
    note = (
        f"No installed font has the letters of {', '.join(bare)}, so tags are shown. Install one, such as Noto Sans of that script, "
        f"or for Chinese, Japanese and Korean one that comes with the extra report. {INSTALL.format('report')}"
    )
    return called, [note]
