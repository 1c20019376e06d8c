"""`lape merge`: add statistics of one model made on different text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from lape.cli.common import out, provenance
from lape.cli.flags import Out, Switch
from lape.signs import many
from lape.store import files
from lape.store.draft import Draft
from lape.store.run import STATS, read_record
from lape.values.stats import ActivationStats
from lape.values.stats import merge as merged


def merge(*stats: Path, to: Out, overwrite: Switch = False) -> None:
    """Merge statistics of one model: shards of one language, or different languages.

    Parameters
    ----------
    stats
        Run folders or files of statistics.
    to
        The run's folder to write; a name that ends in .safetensors gets the statistics alone.
    overwrite
        Replace what is there.
    """
    alone = to.suffix == ".safetensors"
    if alone:
        files.refuse_existing(to, overwrite)
    draft = None if alone else Draft(to, overwrite)
    result = merged(ActivationStats.load(path) for path in stats)
    if draft is None:
        result.save(to, overwrite=overwrite)
    else:
        with draft.anew() as folder:
            result.save(folder / STATS)
            draft.write({}, run={**result.manifest, **provenance("merge", result, texts=_texts(stats))})
    for language in result.languages:
        out.print(f"{language}: {many(int(result[language].tokens.sum()), 'token')}")
    out.print(f"Written: {to}\nNext: lape identify {quote(str(to))}", soft_wrap=True)


def _texts(paths: Iterable[Path]) -> dict[str, list[str]]:
    """The paths of all texts, as the run.json of each run says them."""
    found: dict[str, list[str]] = {}
    for path in paths:
        said = read_record(path).get("texts")
        for language, several in (said if isinstance(said, dict) else {}).items():
            known = found.setdefault(language, [])
            known += [one for one in several if one not in known] if isinstance(several, list) else []
    return found
