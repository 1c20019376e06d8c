"""`lape run NAME`: one experiment on a run, from the list of experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group

from lape.cli.common import out, progress, provenance, written
from lape.cli.flags import SWITCHES, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_proven, parallel_of
from lape.cli.panels import laid
from lape.cli.tables import section_tables
from lape.data.parallel import Aligned
from lape.errors import OptionError
from lape.experiments import experiments
from lape.experiments.context import Context, SharedOptions
from lape.experiments.experiment import Experiment
from lape.store.draft import Draft
from lape.store.run import Run
from lape.study.options import joined
from lape.study.run import run_one
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


def verb(experiment: Experiment[Any]) -> Callable[..., None]:
    """The command of an experiment: its own options are flags beside those that all experiments share."""
    kind = joined(SharedOptions, [experiment])
    default = kind()

    def command(
        model: str | None = None,
        *,
        run: Path,
        parallel: Several | None = None,
        to: Out | None = None,
        overwrite: Switch = False,
        options: Any = default,
        loading: Loading = LOADING,
    ) -> None:
        """.

        Parameters
        ----------
        model
            A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
        run
            The folder of lape record, demo or identify. Its neurons are studied; without any, LAPE's under the published rule.
        parallel
            TAG=PATH, once per language: other text, line i the same sentence in every language; effects are measured on it.
        to
            The folder to write. Default: the experiment's name, in the run's folder.
        overwrite
            Replace an existing folder.
        """
        draft = Draft(to or run / experiment.name, overwrite)
        folder = Run(run)
        if folder.stats is None:
            raise OptionError(f"{run} holds no statistics. Expected the folder of lape record or lape demo.")
        stats = ActivationStats.load(folder.stats)
        neurons = LanguageNeurons.load(folder.neurons) if folder.neurons else None
        read = parallel_of(parallel) if parallel else Aligned({}, None)
        with progress() as report:
            loaded, tokenizer = load_proven(model, loading, report) if model else (None, None)
            context = Context(
                loaded,
                tokenizer,
                stats,
                read.lines,
                options,
                draft.folder,
                chosen=neurons,
                progress=report,
                documents=read.documents,
            )
            missing = experiment.missing(context, options)
            if missing:
                raise OptionError(f"{experiment.name} cannot be run: {missing}. Type: {experiment.typed(str(run))}")
            told = provenance(experiment.name, options=options, run=str(run), parallel=parallel)
            tables = run_one(context, experiment, told, draft)
        said = experiment.said(tables)
        if said is not None:
            out.print(section_tables(said))
        written(draft.target, context.notes.get(experiment.name, []))

    command.__annotations__["options"] = Annotated[kind, SWITCHES]
    command.__doc__ = f"{experiment.about[0].upper()}{experiment.about[1:]}{command.__doc__}"
    return command


def _runs() -> App:
    about = "Run one experiment on a run, and write its tables there."
    names = Group("Experiments")
    app = App(
        name="run",
        help=about,
        usage="Usage: lape run NAME ...",
        result_action="return_value",
        group_commands=names,
        **laid("run"),
    )
    for one in experiments().values():
        app.command(verb(one), name=one.name)
    return app


runs = _runs()
