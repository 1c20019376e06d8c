"""`lape play`: a page on this machine on which a model answers twice, as it is and steered."""

from __future__ import annotations

import socket
from pathlib import Path

from lape.cli.common import out, progress
from lape.cli.flags import Switch
from lape.cli.inputs import LOADING, Loading, load_proven, run_of
from lape.cli.taken import is_run, recorded_with
from lape.errors import OptionError
from lape.play.page import Place, gradio, serve
from lape.play.session import Session
from lape.values.stats import ActivationStats

_PORT, _TRIED = 7860, 20


def play(
    place: str | None = None,
    *,
    run: Path | None = None,
    model: str | None = None,
    system: str | None = None,
    port: int | None = None,
    browser: Switch = False,
    loading: Loading = LOADING,
) -> None:
    """Serve a page on 127.0.0.1 on which prompts are answered unsteered and steered, side by side.

    Parameters
    ----------
    place
        A run's folder, or a model: a Hugging Face id, a local folder or GGUF file, or sample. Default: sample with the demo's run.
    run
        A run's folder, with statistics, where a model was named first. Default for sample: the demo's.
    model
        The model, where a run was named first. Default: the one that the run was recorded with.
    system
        What a chat model is told before every question, such as "Always answer in French."; other models read it before the question.
    port
        The port. Default: 7860, or the next one that is free.
    browser
        Open the page in the browser.
    """
    gradio()  # where it is missing, that is said before the model is loaded
    chosen = _port(port)
    folder, named = _named(place, run, model)
    stats = ActivationStats.load(folder)
    name = named or recorded_with(stats.manifest, folder)
    with progress() as report:
        session = Session(*load_proven(name, loading, report), stats, system=system)
    page = serve(session, Place(name, str(folder), loading), chosen, browser=browser)
    taken = f"Port {_PORT} is taken. " if port is None and chosen != _PORT else ""
    out.print(f"{taken}The page is at http://127.0.0.1:{chosen}. Ctrl-C ends it.")
    page.block_thread()


def _named(place: str | None, run: Path | None, model: str | None) -> tuple[Path, str | None]:
    """The run, and the model where one was named."""
    if place is not None and is_run(Path(place)):
        if run is not None:
            raise OptionError(
                f"Two runs were named, {place} and {run}. Name one: lape play RUN, or lape play MODEL --run RUN."
            )
        return Path(place), model
    if place is not None and model is not None:
        raise OptionError(
            f"{place} is not a run, so it is taken for a model, and --model {model} names another. Name one: lape play MODEL --run RUN."
        )
    name = place or model
    if name is None and run is not None:
        return run_of("", run), None
    return run_of(name or "sample", run), name or "sample"


def _port(wanted: int | None) -> int:
    """A free port. Raises OptionError where the wanted one is taken."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise OptionError(f"port is {wanted}. Expected 1 to 65535, such as {_PORT}.")
    tried = [wanted] if wanted is not None else list(range(_PORT, _PORT + _TRIED))
    free = next((port for port in tried if _free(port)), None)
    if free is None:
        what = f"Port {wanted} is" if wanted is not None else f"Ports {tried[0]} to {tried[-1]} are"
        raise OptionError(f"{what} taken on 127.0.0.1. Name another: --port 8000.")
    return free


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
