"""Which way makes a model answer in another language, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lape.errors import FileError, MismatchError, certain, warn
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import Experiment, named
from lape.experiments.forcing.captions import costs_caption, forcing_caption, steering_caption
from lape.experiments.forcing.cost import COSTS
from lape.experiments.forcing.figures import costs as draw_costs
from lape.experiments.forcing.figures import differences as draw_differences
from lape.experiments.forcing.figures import forcing as draw_families
from lape.experiments.forcing.identification import IDENTIFICATION
from lape.experiments.forcing.run import forcing
from lape.experiments.forcing.section import section
from lape.experiments.forcing.table import ADDED, DIFFERENCES, RECORDS, RENAMED, TRANSFER
from lape.experiments.table import Table
from lape.figures.figure import Figure
from lape.measure.answers import ANSWERS
from lape.store.documents import parse
from lape.values.made import STATISTICS, differs

__all__ = ["EXPERIMENT", "forcing"]


@dataclass(frozen=True)
class ForcingStudy:
    """What of it a study sets."""

    forcing: Path | None = None
    """The folder of lape force, whose results are joined."""

    @property
    def file(self) -> Path | None:
        """The forcing.json at that path, or in the folder there."""
        return self.forcing and (self.forcing / "forcing.json" if self.forcing.is_dir() else self.forcing)


GIVEN = named(
    "forcing",
    "steering takes long and is measured separately: lape force MODEL --run RUN --out FOLDER, then --forcing FOLDER",
    "--forcing FOLDER",
)
"""What `lape force` measured is joined, not measured again."""


def _run(context: Context, options: ForcingStudy) -> Tables:
    """The reported shares of answers in the wanted language and good, and neurons minus each other family, from `lape force`.

    What an earlier version measured lacks what it did not measure: null, or no table.
    """
    found = read_forcing(certain(options.file), context.stats.manifest.get("model", {}))
    command = " ".join(found.get("command", []))
    context.note("forcing", f"measured by: lape {command}")
    other = differs(found.get("made_from"), {**context.neurons.made_from, STATISTICS: None})
    if other is not None:
        said = f"the joined results of lape force were measured with {other}, not with the sets of this study"
        context.note("forcing", said)
        warn(f"{options.file}: {said}. To measure with these: lape force, given the neurons of this study.")
    tables = {
        "forcing": pl.DataFrame(_named(found["records"]), schema=RECORDS).filter(pl.col("split") == "report"),
        "forcing_differences": pl.DataFrame(found["differences"], schema=DIFFERENCES),
    }
    more = {"costs": COSTS, "forcing_transfer": TRANSFER}
    found = {**found, "forcing_transfer": found.get("transfer")}
    return tables | {name: pl.DataFrame(found[name], schema=schema) for name, schema in more.items() if found.get(name)}


def _named(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records with the names of today."""
    return [{RENAMED.get(name, name): value for name, value in row.items()} for row in records]


def _reads(options: ForcingStudy) -> Mapping[str, Path]:
    return {"forcing": options.file} if options.file is not None else {}


def read_forcing(path: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """A `forcing.json`. Raises FileError where it is none, MismatchError of another model."""
    try:
        found: dict[str, Any] = parse(path.read_bytes())
        _ = found["records"], found["differences"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path} holds no results of lape force ({type(error).__name__}). Expected the folder that lape force made, with forcing.json in it."
        ) from error
    known = found.get("model", {}).get("checksum") if isinstance(found.get("model"), dict) else None
    if known is not None and known != model.get("checksum"):
        raise MismatchError(
            f"{path} was measured on a model with the checksum {known[:12]}, the statistics are of {str(model.get('checksum'))[:12]}. "
            "Give the results of lape force on the same model."
        )
    return found


EXPERIMENT = Experiment(
    name="forcing",
    title="Steering",
    about="language forcing, as measured before by lape force",
    options=ForcingStudy,
    run=_run,
    tables={
        "forcing": Table(
            "Shares of answers of each family of methods on each pair of languages; one greedy answer to each question.",
            RECORDS,
            file="forcing/forcing.parquet",
            added=ADDED,
            renamed=RENAMED,
        ),
        "forcing_differences": Table(
            "Share of answers with neurons edited less that of each other family, and the same of the shares over the ceiling's, averaged by target.",
            DIFFERENCES,
            file="forcing/differences.parquet",
        ),
        "forcing_transfer": Table(
            "Shares of answers of each family on the pairs on which settings were chosen (tuned), and on the others.",
            TRANSFER,
            file="forcing/transfer.parquet",
            optional=True,
        ),
        "costs": Table(
            "Change of loss on text while an edit acts on every token, nats per token.",
            COSTS,
            file="forcing/costs.parquet",
            optional=True,
        ),
        "forced_answers": Table(
            "Every answer, with its verdicts.",
            ANSWERS,
            file="forcing/answers.parquet",
            optional=True,
            added=("mixed", "foreign", "calibrated_on"),
            renamed=RENAMED,
        ),
        "identification": Table(
            "How often the identifiers recognise the language of lines whose language is known.",
            IDENTIFICATION,
            file="forcing/identification.parquet",
            optional=True,
        ),
    },
    needs=(GIVEN,),
    figures=(
        Figure("forcing", "Ways of forcing a language", ("forcing",), draw_families, forcing_caption),
        Figure(
            "steering",
            "Neurons beside other ways of forcing",
            ("forcing_differences",),
            draw_differences,
            steering_caption,
        ),
        Figure("costs", "Cost of forcing", ("costs",), draw_costs, costs_caption),
    ),
    section=section,
    claims=beside(__file__),
    command="lape force {run}",
    reads=_reads,
)
