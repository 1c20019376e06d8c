"""What came out of a study."""

from __future__ import annotations

from dataclasses import dataclass

from lape.experiments.context import Tables
from lape.study.claims import Judged
from lape.study.register import Standing


@dataclass(frozen=True)
class Studied:
    """What came out."""

    tables: Tables
    judged: list[Judged]
    not_run: dict[str, str]
    """Experiment -> why it was not run."""
    standing: dict[str, Standing]
    """Claim -> whether it is confirmatory here."""
