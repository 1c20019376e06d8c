"""Questions that are reported on once, by the steering study. Nothing else reads them: tests/data/test_reserved.py holds who may."""

from __future__ import annotations

from importlib.resources import files

from lape.data.samples import LANGUAGES


def reserved_questions() -> dict[str, list[str]]:
    """Language -> 160 questions, parallel in the seven languages, other ones than those of `questions`.

    They are what the steering study reports on, once, when its methods, their settings and its measures are fixed. Before that no model answers
    them: not to choose a method or a strength, not to see whether a measure works, not to try them out. What was chosen on questions does better on
    them than on others of their kind, so that a figure on questions that were used before is too high by an amount that nobody can tell afterwards
    (Cawley & Talbot 2010, on selection bias in evaluation). Used once too early, they can't be reserved again. Choose with the part choosing
    of `questions`, and try out with its part development.
    """
    # There is no example, since running it would be reading them.
    bundled = files("lape.data.samples").joinpath("bundled", "reserved")
    return {
        language: bundled.joinpath(f"{language}.txt").read_text(encoding="utf-8").splitlines() for language in LANGUAGES
    }
