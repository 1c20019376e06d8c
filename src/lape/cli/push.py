"""`lape push`: neurons, statistics, an adapter or a checkpoint on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from lape.cli.common import err, out
from lape.cli.flags import Out, Switch
from lape.ship.hub import SCHEME, write
from lape.ship.hub import push as published


def push(
    run: Path,
    name: str,
    *,
    base_model: str | None = None,
    private: Switch = False,
    to: Out | None = None,
    overwrite: Switch = False,
) -> None:
    """Publish what a folder holds on the Hugging Face Hub, with a card: a run's neurons and statistics, an adapter or a checkpoint.

    Parameters
    ----------
    run
        A run's folder, or that of an adapter or a checkpoint that lape export wrote.
    name
        OWNER/NAME on the Hub. It is made if it is not there, for everyone to see unless --private.
    base_model
        The model's name on the Hub, such as google/gemma-3-270m, where it was loaded from a folder.
    private
        Make it visible to its owner alone.
    to
        Push nothing: write a folder of exactly what would be pushed, to look at. It can be pushed as it is.
    overwrite
        Replace what lape pushed under that name before, or the folder of --out.
    """
    if to is not None:
        write(run, to, repo_id=name, base_model=base_model, overwrite=overwrite)
        found = sorted(path for path in to.rglob("*") if path.is_file())
        for path in found:
            out.print(f"{path.relative_to(to)}: {path.stat().st_size:,} bytes")
        out.print(f"Written: {to}\nNext: lape push {quote(str(to))} {name}", soft_wrap=True)
        return
    err.print(f"pushing {run} to {name} …", soft_wrap=True)
    address = published(run, name, base_model=base_model, private=private, overwrite=overwrite)
    out.print(f"Pushed: {address}\nFetched by: lape show {SCHEME}{name}", soft_wrap=True)
