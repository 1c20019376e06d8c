"""What verbs are given: models, runs, neurons and texts, read from their flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeAlias

from lape.cli.common import err
from lape.cli.flags import SWITCHES
from lape.data import samples
from lape.data.languages import paths_by_tag
from lape.data.parallel import Aligned, aligned
from lape.data.texts import Source, Texts
from lape.errors import FileError, OptionError, TextError
from lape.model.find import find
from lape.model.gguf import place
from lape.model.identity import check_made_with
from lape.model.load import ModelOptions, gguf_file, load
from lape.options import separated
from lape.progress import Progress
from lape.recording.run import checked_texts
from lape.store.run import read_record
from lape.values.neurons import LanguageNeurons

Loading: TypeAlias = Annotated[ModelOptions, SWITCHES]
"""How a model is loaded, field by field."""
LOADING = ModelOptions()
"""As usual: the default of `Loading`."""
DEMO = Path("runs/demo")
"""Where `lape demo` leaves its run, and verbs that are given sample and no run look for one."""


def paths_of(flags: Sequence[str], option: str, example: str = "french.txt") -> dict[str, list[str]]:
    """`["fr=a.txt", "fr=b.txt", "zh=c"]` as paths by language. Raises TextError for a flag without `=`."""
    found: dict[str, list[str]] = {}
    for language, path in paths_by_tag(option, flags, f"{option} fr={example}"):
        found.setdefault(language, []).append(path)
    return found


def texts_of(flags: Sequence[str], option: str = "--text") -> dict[str, Source]:
    """Sources by language. Raises TextError for what `checked_texts` refuses."""
    return checked_texts(dict(paths_of(flags, option)))


def given(option: str, paths: Mapping[str, Iterable[str]]) -> str:
    """Return `--text fr=a.txt --text fr=b.txt` for paths by language."""
    return " ".join(f"{option} {quote(f'{tag}={path}')}" for tag, several in paths.items() for path in several)


def placeholders(option: str, languages: Iterable[str]) -> str:
    """Return the same with PATH for each path."""
    return given(option, {language: ["PATH"] for language in languages})


def texts_in(record: Mapping[str, Any], *names: str) -> dict[str, list[str]]:
    """Return paths by language, as a run.json lists them under the first of `names`; empty where it does not list them all."""
    for name in names:
        texts = record.get(name)
        if isinstance(texts, dict) and texts and all(map(_is_listed, texts.values())):
            return texts
    return {}


def _is_listed(paths: Any) -> bool:
    return isinstance(paths, list) and bool(paths) and all(isinstance(path, str) for path in paths)


def recorded_in(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return paths by language of the text that a run recorded; empty where its run.json does not say it."""
    return texts_in(record, "texts") if record.get("verb") in ("record", "merge", "study") else {}


def evaluation_texts(
    model: str, flags: Sequence[str] | None, place: Path, verb: str, languages: Iterable[str]
) -> Texts:
    """Text that was not recorded, of --text: for sample the bundled one where none is given; for others what was measured on before.

    Raises OptionError, with the line to type, where there is neither.
    """
    if flags:
        return texts_of(flags)
    if model == "sample":
        return {k: text for k, text in samples.texts("evaluate").items() if k in languages}
    for name in ("perplexity", "examples"):
        if texts := texts_in(read_record(place / name), "texts", "sources"):
            err.print(f"Text as in {place / name}: {given('--text', texts)}", soft_wrap=True)
            return checked_texts({language: [*paths] for language, paths in texts.items()})
    typed = f"lape {verb} {quote(model)} {quote(str(place))} {placeholders('--text', languages)}"
    raise OptionError(f"No text was given to measure on. Expected text that was not recorded. Type: {typed}")


def recorded_texts(run: Path) -> dict[str, Source]:
    """The text that a run recorded, a folder or a file within it; nothing where its run.json does not say which."""
    recorded = recorded_in(read_record(run if run.is_dir() else run.parent))
    return checked_texts({language: [*paths] for language, paths in recorded.items()}) if recorded else {}


def tuned_of(flags: Sequence[str]) -> dict[str, str]:
    """Checkpoints by language, of --tuned."""
    refusal = "{} was given {} times. Expected one checkpoint per language."
    return _one_each("--tuned", paths_of(flags, "--tuned", "french-checkpoint"), refusal)


def parallel_of(flags: Sequence[str]) -> Aligned:
    """Lines by language, of --parallel. Raises TextError for what `aligned` refuses."""
    refusal = "names {1} files for {0}. Expected one file for each language."
    return aligned(_one_each("--parallel", paths_of(flags, "--parallel"), refusal))


def _one_each(option: str, found: dict[str, list[str]], refusal: str) -> dict[str, str]:
    """One path by language. Raises TextError for a language given twice."""
    for language, paths in found.items():
        if len(paths) > 1:
            raise TextError(f"{option} {refusal.format(language, len(paths))}")
    return {language: paths[0] for language, paths in found.items()}


def run_of(model: str, run: Path | None) -> Path:
    """The run's folder whose statistics a verb uses; for sample the demo's, where it is."""
    if run is None:
        run = DEMO if model == "sample" and (DEMO / "stats.safetensors").is_file() else None
    if run is None:
        there = model == "sample" or Path(model).exists()
        none = "No run was given" if there else f"{model} does not exist here, and no run was given"
        first = f"Make the demo's, {DEMO}, with lape demo, or record one" if model == "sample" else "Record one"
        raise OptionError(f"{none}. {first} (lape record MODEL --text TAG=PATH --out RUN), then name it: --run RUN.")
    if not run.exists():
        raise FileError(f"There is no run {run}. Expected a folder that lape record or lape demo made.")
    return run


def refuse_missing(path: Path) -> None:
    """Refuse a run or file of neurons that is not there. Raises FileError."""
    if not path.exists():
        place = quote(str(path))
        raise FileError(
            f"{path} does not exist. Expected a run's folder or a file of neurons. To make a run, type: lape record MODEL --text TAG=PATH --out {place}"
        )


def neurons_of(path: Path, languages: str | None, width: int | None) -> LanguageNeurons:
    """Language neurons from a run, a file, or a published .pth."""
    refuse_missing(path)
    names = separated(languages) if languages else None
    if path.is_dir() and not (path / "neurons.safetensors").exists():
        raise FileError(f"{path} holds no neurons yet. Type: lape identify {quote(str(path))}")
    return LanguageNeurons.load(path, languages=names, width=width)


def load_proven(model: str, loading: ModelOptions, progress: Progress) -> tuple[Any, Any]:
    """A model whose neurons are found and proven, which takes long enough to be told, and its tokenizer."""
    file = gguf_file(model)
    kept = file and place(file, loading.dtype)
    new = kept is not None and not kept.exists()
    loaded, tokenizer = load(model, **vars(loading), progress=progress)
    if kept is not None and new and kept.exists():
        err.print(
            f"The weights unpacked from {model} are kept in {kept}, so that they need not be unpacked again. That folder can be deleted at any time.",
            soft_wrap=True,
        )
    if not loading.tensor_parallel:  # a part of a model is proven where it is recorded
        progress("verifying the neurons by running the model", 0, None)
        find(loaded)
    return loaded, tokenizer


def load_matching(model: str, loading: ModelOptions, progress: Progress, **made: Any) -> tuple[Any, Any]:
    """`load_proven`. Raises MismatchError for `neurons=…` or `statistics=…` of another model or tokenizer."""
    loaded, tokenizer = load_proven(model, loading, progress)
    if made:
        progress("checking that this is the model of the run", 0, None)
    check_made_with(loaded, tokenizer, **made)
    return loaded, tokenizer
