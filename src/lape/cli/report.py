"""`lape report`: a run or a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lape.cli.common import Overwrite, out
from lape.reporting import report as write


def report(
    run: Path, *, to: Annotated[Path | None, Parameter(name="--out")] = None, overwrite: Overwrite = False
) -> None:
    """Write what a run or a study found as one HTML file, to look at and to send: no network, nothing beside it.

    Parameters
    ----------
    run
        A folder that lape record, demo, perplexity, force or study made.
    to
        The file to write. Default: report.html in the folder.
    overwrite
        Replace an existing file.
    """
    path = write(run, out=to, overwrite=overwrite)
    out.print(
        f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB). Open it in a browser.", highlight=False, soft_wrap=True
    )
