"""How a verb's --help is laid out: its usage as one types it, and its flags in panels, those that matter first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cyclopts import Group
from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel

EXPERT = "Expert"
_LISTED = {
    "Data": "answer avoid run stats neurons with text tokens document column prompts file system to from parallel questions evaluation development pairs "
    "languages sentences tasks limit include-path width adapter name answers served remote",
    "Model": "model place dtype device config-only base-model",
    "Method": "method for sets rate per-language reliability residual attribution histogram per-text tuned until off scale preset parts claims methods sizes "
    "quick plan-only draws families candidates experts strength how value steer new-tokens temperature bare effects keep length "
    "rates forcing confusion thinking seeds top-p line minutes",
    "Output": "out overwrite private format language-names browser port",
}
PANELS = {panel: flags.split() for panel, flags in _LISTED.items()}
"""Panel -> its flags, in this order, for all verbs. All others are for experts, in the order in which they are declared."""
ELSEWHERE = {
    "figures": {"width": "Output"},
    "steer": dict.fromkeys(("tokens", "value", "top-p"), EXPERT),
    "study": dict.fromkeys(("rates", "forcing", "confusion", "limit"), EXPERT),
    **{verb: dict.fromkeys(("languages", "width"), EXPERT) for verb in ("perplexity", "examples", "export")},
}
"""Verb -> flags that mean something else there, or matter less."""


def panel_of(verb: str, flag: str) -> str:
    """The panel of a flag, given without its dashes."""
    usual = next((panel for panel, flags in PANELS.items() if flag in flags), EXPERT)
    return ELSEWHERE.get(verb, {}).get(flag, usual)


def sorted_in_panels(verb: str, flags: Iterable[str]) -> dict[str, list[str]]:
    """Panel -> those of the flags that it holds, in its order; panels without any are left out."""
    order = {flag: at for listed in PANELS.values() for at, flag in enumerate(listed)}
    held: dict[str, list[str]] = {panel: [] for panel in (*PANELS, EXPERT)}
    for flag in sorted(flags, key=lambda flag: order.get(flag, len(order))):
        held[panel_of(verb, flag)].append(flag)
    return {panel: some for panel, some in held.items() if some}


class Laid(DefaultFormatter):
    """Shows the one panel of a verb's parameters as several."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        """Called once for each of cyclopts' panels."""
        if panel.format != "parameter":
            super().__call__(console, options, panel)
            return
        entries = {_flag(entry): entry for entry in panel.entries}
        for title, flags in sorted_in_panels(self.verb, entries).items():
            some = [entries[flag].copy(default=_typed(entries[flag].default)) for flag in flags]
            some.sort(key=lambda entry: not (entry.required or entry.positional_label))
            super().__call__(console, options, panel.copy(title=title, entries=some))


def laid(verb: str) -> dict[str, Any]:
    """What the App of a verb is made with, so that its help is laid out in panels."""
    return {"help_formatter": Laid(verb), **dict.fromkeys(("group_arguments", "group_parameters"), Group("Parameters"))}


def _typed(default: str | None) -> str | None:
    """A default as one types it; None where it says nothing, such as a switch that is off."""
    words = default.strip("()").replace(",", "").replace("'", "") if default else ""
    return None if words in ("", "False") else words


def _flag(entry: HelpEntry) -> str:
    """An entry's first name without its dashes."""
    return (entry.names[0] if entry.names else str(entry.positional_label)).lstrip("-").lower()
