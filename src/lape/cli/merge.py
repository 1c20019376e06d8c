"""`lape merge`: add statistics of one model made on different text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lape.cli.common import Overwrite, out
from lape.store import files
from lape.values.stats import ActivationStats
from lape.values.stats import merge as merged


def merge(*stats: Path, to: Annotated[Path, Parameter(name="--out")], overwrite: Overwrite = False) -> None:
    """Add statistics of the same model: shards of one language, or different languages.

    Parameters
    ----------
    stats
        Run folders or files of statistics.
    to
        The file to write, .safetensors.
    overwrite
        Replace an existing file.
    """
    files.refuse_existing(to, overwrite)
    result = merged(ActivationStats.load(path) for path in stats)
    result.save(to, overwrite=overwrite)
    for language in result.languages:
        out.print(f"{language}: {int(result[language].tokens.sum()):,} tokens", highlight=False)
    out.print(f"Written: {to}\nNext: lape identify {to}", highlight=False, soft_wrap=True)
