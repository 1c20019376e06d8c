"""`lape report`: a run or a study as one HTML file."""

from __future__ import annotations

from pathlib import Path

from lape.cli.common import out
from lape.cli.flags import Out
from lape.reporting import report as write


def report(run: Path, *, to: Out | None = None) -> None:
    """Write what a run or a study found as one HTML file, to look at and to send: it needs no network and no other file.

    A report that is there already is replaced.

    Parameters
    ----------
    run
        A folder that lape record, demo, perplexity, force or study made.
    to
        The file to write. Default: report.html in the folder.
    """
    path = write(run, out=to)
    out.print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB). Open it in a browser.", soft_wrap=True)
