"""`lape merge`: add statistics of one model made on different text."""

from __future__ import annotations

from pathlib import Path

from lape.cli.common import out
from lape.cli.flags import Out, Switch
from lape.store import files
from lape.values.stats import ActivationStats
from lape.values.stats import merge as merged


def merge(*stats: Path, to: Out, overwrite: Switch = False) -> None:
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
        out.print(f"{language}: {int(result[language].tokens.sum()):,} tokens")
    out.print(f"Written: {to}\nNext: lape identify {to}", soft_wrap=True)
