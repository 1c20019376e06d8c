"""Options of figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lape.errors import OptionError
from lape.options.base import check_choices

FORMATS = ("pdf", "svg", "png")
_WIDTHS = {"column": 3.3, "page": 6.9}
_NARROWEST, _WIDEST = 2.5, 20.0


@dataclass(frozen=True)
class FigureOptions:
    """What figures are written as, how wide they are, and what they call languages."""

    format: str = "pdf"
    """pdf, svg or png, or several with commas between, such as pdf,png."""
    width: Literal["column", "page"] | float = "column"
    """column (3.3 inches), page (6.9 inches), or a number of inches."""
    language_names: Literal["tags", "english", "own"] = "tags"
    """What languages are called: tags (ja), english (Japanese), or by their own names, in their own letters."""

    def __post_init__(self) -> None:
        check_choices(self)
        unknown = [one for one in self.formats if one not in FORMATS]
        if unknown or not self.formats:
            raise OptionError(f"format is {self.format!r}. Expected {', '.join(FORMATS)}, or several: pdf,png.")
        if isinstance(self.width, str) and self.width not in _WIDTHS:
            raise OptionError(f"width is {self.width!r}. Expected column, page or a number of inches, such as 5.")
        if not _NARROWEST <= self.inches <= _WIDEST:
            raise OptionError(f"width is {self.inches:g} inches. Expected {_NARROWEST:g} to {_WIDEST:g}.")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, each once."""
        return tuple(dict.fromkeys(one.strip() for one in self.format.split(",") if one.strip()))

    @property
    def inches(self) -> float:
        """The width."""
        return _WIDTHS[self.width] if isinstance(self.width, str) else float(self.width)
