"""Figures: what is drawn is what the tables say, nothing is cut off, fonts are embedded, and the same run gives the same bytes."""

from __future__ import annotations

import importlib.util
import json
import re
import time
import xml.etree.ElementTree as ElementTree
import zlib
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from lape.cli import run as cli
from lape.detect.stability import RELIABILITY
from lape.errors import FileError, LapeWarning, OptionError
from lape.experiments import experiments
from lape.experiments.forcing.cost import COSTS
from lape.experiments.forcing.table import DIFFERENCES, RECORDS
from lape.experiments.perplexity.run import SUMMARY
from lape.figures import fonts
from lape.figures import names as naming
from lape.figures import write as writing
from lape.figures.heat import legible, luminance
from lape.figures.style import STYLE, Paper, inside, number, series, short
from lape.figures.write import FigureOptions
from lape.measure.answers import ANSWERS
from lape.reporting.figures import Drawn, draw
from lape.reporting.gather import gather
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.made import made_stats

STUDY = gather(Path(__file__).parents[2] / "docs" / "studies" / "gemma-3-270m").tables
FIGURES = {figure.name: figure for one in experiments().values() for figure in one.figures}
mpl = pytest.importorskip("matplotlib")

SEVEN = ("en", "zh", "fr", "es", "vi", "id", "ja")
ELEVEN = (*SEVEN, "de", "ru", "ar", "ko")
MODEL = {"id": "made <model>", "revision": "r1", "checksum": "0123456789abcdef"}
RECORD = {
    "verb": "perplexity",
    "command": ["perplexity", "made", "a run"],
    "options": {"resamples": 500},
    "model": MODEL,
}
SPACE = NeuronSpace.dense(6, 200)


def neurons_of(languages: tuple[str, ...] = SEVEN) -> LanguageNeurons:
    """Sets that overlap: language k holds every (k + 5)-th neuron, and `en` four alone."""
    sets = {name: NeuronSet(SPACE, torch.arange(k, len(SPACE), k + 12)) for k, name in enumerate(languages)}
    sets["en"] = NeuronSet(SPACE, torch.tensor([3, 210, 211, 999]))
    return LanguageNeurons(
        SPACE, sets, method="lape", options={"rate": 0.01, "bars": {"en": 0.9}}, manifest={"model": MODEL}
    )


def perplexity_of(languages: tuple[str, ...] = SEVEN, units: int = 30) -> pl.DataFrame:
    random = np.random.default_rng(len(languages))
    rows = []
    for off in languages:
        for language in languages:
            change = random.uniform(1, 5) if off == language else random.normal(0.2, 0.2)
            known = units >= 20
            row = {"off": off, "language": language, "neurons": 4, "tokens": 900, "units": units, "delta_token": change}
            row |= {"low": change - 0.1 if known else None, "high": change + 0.1 if known else None}
            if off == language:
                row |= {"random_mean": 0.01, "random_max": 0.02, "matched_mean": 0.2, "matched_max": 0.3}
            rows.append(row)
    return pl.DataFrame(rows, schema=SUMMARY)


def reliability_of(neurons: LanguageNeurons) -> pl.DataFrame:
    rows = [
        {"language": name, "neurons": len(found), "halvings": 35}
        | (
            {"median": 0.9, "p5": 0.8, "chance": 0.05}
            if len(found) >= 20
            else dict.fromkeys(("median", "p5", "chance"))
        )
        for name, found in {**neurons, "all": neurons.union}.items()
    ]
    return pl.DataFrame(rows, schema=RELIABILITY)


def forcing_of() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    values = {"ceiling": 1.0, "neurons": 0.8, "prompt": 0.7, "random": 0.0}
    rows = []
    for split in ("development", "report"):
        for family, value in values.items():
            row = {"family": family, "source": "all", "target": "all", "split": split, "questions": 40}
            for k, name in enumerate(("in_language", "good")):
                share = value * (1 - 0.1 * k)
                row |= {name: share, f"{name}_over_ceiling": share}
                row |= {f"{name}_over_ceiling_low": share - 0.05, f"{name}_over_ceiling_high": share + 0.05}
            rows.append(row)
    differences = [
        {"family": family, "measure": "good_over_ceiling", "difference": 0.72 - 0.9 * value, "low": 0.0, "high": 0.9}
        for family, value in values.items()
    ]
    costs = [
        {"family": family, "role": role, "language": "fr", "delta_token": k + 0.5 * j, "tokens": 512}
        for j, family in enumerate(("neurons", "random"))
        for k, role in enumerate(("source", "target", "third", "third"))
    ]
    return (
        pl.DataFrame(rows, schema=RECORDS),
        pl.DataFrame(differences, schema=DIFFERENCES),
        pl.DataFrame(costs, schema=COSTS),
    )


FORCED = dict(zip(("forcing", "forcing_differences", "costs"), forcing_of(), strict=True))


def whole_run(folder: Path) -> Path:
    """A run that holds everything but a study's tables, as the verbs leave it."""
    neurons = neurons_of()
    neurons.save(folder / "neurons.safetensors")
    reliability_of(neurons).write_parquet(folder / "neurons.reliability.parquet")
    (folder / "perplexity").mkdir()
    perplexity_of().write_parquet(folder / "perplexity" / "perplexity.parquet")
    (folder / "perplexity" / "run.json").write_text(json.dumps(RECORD))
    (folder / "forcing").mkdir()
    for name, table in zip(("forcing", "differences", "costs"), forcing_of(), strict=True):
        table.write_parquet(folder / "forcing" / f"{name}.parquet")
    (folder / "run.json").write_text(json.dumps({"verb": "record", "model": MODEL}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return whole_run(tmp_path / "run")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of lape perplexity, from which two figures are drawn."""
    folder = tmp_path / "small"
    folder.mkdir()
    perplexity_of().write_parquet(folder / "perplexity.parquet")
    (folder / "run.json").write_text(json.dumps(RECORD))
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Drawn]:
    """A whole run, drawn in all formats."""
    run = whole_run(tmp_path_factory.mktemp("drawn") / "run")
    return run, draw(run, format="pdf,svg,png")


def tables_of(languages: tuple[str, ...] = SEVEN, units: int = 30) -> dict[str, pl.DataFrame]:
    from lape.experiments.overlap import overlap_chance

    neurons = neurons_of(languages)
    forcing, differences, costs = forcing_of()
    return {
        "histogram": neurons.by_layer(),
        "overlap": overlap_chance(neurons),
        "perplexity": perplexity_of(languages, units),
        "reliability": reliability_of(neurons),
        "forcing": forcing,
        "forcing_differences": differences,
        "costs": costs,
    }


def figure_of(name: str, tables: dict[str, pl.DataFrame], paper: Paper | None = None) -> Any:
    with mpl.rc_context({**STYLE, "font.family": [fonts.BASE]}):
        figure = inside(FIGURES[name].draw(tables, paper or Paper()))
        figure.draw_without_rendering()
    return figure


# --- what is drawn is what the tables say ---


def test_bars_are_counts_by_layer():
    tables = tables_of()
    figure = figure_of("layers", tables)
    neurons = neurons_of()
    assert len(figure.axes) == len(SEVEN)
    for axes, language in zip(figure.axes, SEVEN, strict=True):
        layers = (neurons[language].flat // 200).tolist()
        assert [bar.get_height() for bar in axes.patches] == [layers.count(k) for k in range(6)]
        assert [text.get_text() for text in axes.texts][:2] == [language, str(len(layers))]


def test_overlap_shows_shared_above_jaccard_below_and_sizes_between():
    figure = figure_of("overlap", tables_of())
    mesh = figure.axes[0].collections[0].get_array()
    sets = {name: set(found) for name, found in neurons_of().items()}
    said = {
        (round(text.get_position()[1] - 0.5), round(text.get_position()[0] - 0.5)): text.get_text()
        for text in figure.axes[0].texts
    }
    for (i, a), (j, b) in combinations(enumerate(SEVEN), 2):
        jaccard = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        assert mesh[i, j] == mesh[j, i] == pytest.approx(jaccard)
        assert said[i, j] == str(len(sets[a] & sets[b]))
        assert float(said[j, i]) == pytest.approx(jaccard, abs=0.006)
    assert [said[k, k] for k in range(7)] == [str(len(sets[name])) for name in SEVEN]


def test_the_matrix_holds_every_change_and_the_controls():
    table = perplexity_of()
    figure = figure_of("perplexity", {"perplexity": table})
    languages, controls = figure.axes[0].collections[:2]
    cells = {(row["off"], row["language"]): row for row in table.iter_rows(named=True)}
    said = iter(figure.axes[0].texts)
    for i, off in enumerate(SEVEN):
        for j, language in enumerate(SEVEN):
            row, text = cells[off, language], next(said)
            assert languages.get_array()[i, j] == pytest.approx(max(row["delta_token"], 0))
            assert float(text.get_text().replace("−", "-")) == pytest.approx(row["delta_token"], abs=0.0051)
            outside = not row["low"] <= 0 <= row["high"]
            assert text.get_fontweight() == ("bold" if outside else "normal")
        assert controls.get_array()[i].tolist() == pytest.approx([0.01, 0.2])
        assert [next(said).get_text(), next(said).get_text()] == ["0.01", "0.20"]


def test_a_wide_page_has_the_intervals_in_the_cells():
    table = perplexity_of()
    texts = [text.get_text() for text in figure_of("perplexity", {"perplexity": table}, Paper(6.9)).axes[0].texts]
    row = table.row(1, named=True)
    assert texts[1] == f"{number(row['delta_token'])}\n{number(row['low'])}…{number(row['high'])}"


def test_own_effects_stand_at_their_values():
    table = perplexity_of().filter(pl.col("off") == pl.col("language"))
    lines = [line for line in figure_of("own", {"perplexity": table}).axes[0].lines if len(line.get_xdata())]
    dots = [float(line.get_xdata()[0]) for line in lines if line.get_marker() == "o"]
    assert dots == pytest.approx(table["delta_token"].to_list())
    spans = [list(line.get_xdata()) for line in lines if len(line.get_xdata()) == 2 and line.get_color() == "#0072B2"]
    assert spans == [[pytest.approx(low), pytest.approx(high)] for low, high in table.select("low", "high").iter_rows()]
    squares = [float(line.get_xdata()[0]) for line in lines if line.get_marker() == "s" and len(line.get_xdata()) == 1]
    assert squares == [0.2] * 7


def test_a_set_too_small_for_reliability_says_so():
    neurons = neurons_of()
    axes = figure_of("reliability", {"reliability": reliability_of(neurons)}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["4 neurons: too few to say"]
    dots = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o" and len(line.get_ydata()) == 1]
    assert dots == [1, 2, 3, 4, 5, 6, 7], "en has none"


def test_forcing_shows_the_reporting_questions_alone_best_first():
    figure = figure_of("forcing", tables_of())
    for axes, factor in zip(figure.axes, (1.0, 0.9), strict=True):
        dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
        assert dots == pytest.approx([factor * value for value in (1.0, 0.8, 0.7, 0.0)])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "ceiling",
        "neurons",
        "prompt",
        "random",
    ]


def test_costs_are_means_over_pairs_and_languages():
    axes = figure_of("costs", tables_of()).axes[0]
    by_mark = {line.get_marker(): list(line.get_xdata()) for line in axes.lines if line.get_marker() != "None"}
    assert by_mark == {"o": [0.0, 0.5], "s": [1.0, 1.5], "^": [2.5, 3.0]}


def test_what_lies_beyond_the_shown_range_is_marked():
    table = pl.DataFrame(
        {
            "language": ["fr"] * 2,
            "among": ["own"] * 2,
            "estimate": ["first", "second"],
            "passes": [0, 10],
            "size": [0, 0],
            "text": ["same"] * 2,
        }
    ).with_columns(r2=pl.Series([-7.0, 0.5]), r2_low=pl.Series([-9.0, 0.4]), r2_high=pl.Series([-5.0, 0.6]))
    axes = figure_of("predictions", {"damage_predictions": table}).axes[0]
    assert [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "<"] == [-1.0]
    assert axes.get_xlim()[0] == -1.0
    assert axes.get_xlim()[1] < 1


# --- nothing is cut off, nothing touches, everything can be read ---


def texts_in(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    unseen: set[Any] = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        seen = axis._update_ticks()  # those beyond the axis's ends are not drawn
        unseen |= {tick.label1 for tick in [*axis.majorTicks, *axis.minorTicks] if tick not in seen}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


def check(figure: Any, name: str) -> None:
    """All text inside, 6 points or more, and level text apart from other level text."""
    boxes = []
    for text in texts_in(figure):
        assert text.get_fontsize() >= 6, name
        box = text.get_window_extent()
        assert box.x0 >= -0.5, (name, text)
        assert box.y0 >= -0.5, (name, text)
        assert box.x1 <= figure.bbox.x1 + 0.5, (name, text)
        assert box.y1 <= figure.bbox.y1 + 0.5, (name, text)
        if not text.get_rotation():
            boxes.append((text.get_text(), box.shrunk(0.9, 0.6)))
    for (a, first), (b, second) in combinations(boxes, 2):
        assert not first.overlaps(second), (name, a, b)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_label_longer_than_its_axes_is_not_cut(axis):
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "font.family": [fonts.BASE]}):
        figure = Figure(figsize=(3.3, 3.3))
        room = (0.5, 0.2, 0.48, 0.78) if axis == "x" else (0.2, 0.5, 0.78, 0.48)  # as long names leave it, or a legend
        axes = figure.add_axes(room, xticks=[], yticks=[])
        getattr(axes, f"set_{axis}label")("mean change of the others' loss (nats per sentence)")
        inside(figure).draw_without_rendering()
    check(figure, axis)


@pytest.mark.parametrize("languages", [SEVEN, ELEVEN])
@pytest.mark.parametrize("inches", [3.3, 6.9])
@pytest.mark.parametrize("names", ["tags", "english"])
def test_all_text_lies_inside_is_large_enough_and_apart(languages, inches, names):
    tables = tables_of(languages)
    called = naming.names(languages, names)[0]
    paper = Paper(inches, lambda tag: called.get(tag, tag))
    for name in ("layers", "overlap", "perplexity", "own", "reliability", "forcing", "steering", "costs"):
        check(figure_of(name, tables, paper), name)


OLDER = {"layers", "overlap", "own", "perplexity", "resource"}
"""What can still be drawn of tables of an earlier version."""


@pytest.mark.parametrize("study", ["gemma-3-270m", "gemma-3-270m-eleven"])
def test_so_it_does_in_every_figure_of_the_studies(study):
    tables = gather(Path(__file__).parents[2] / "docs/studies" / study).tables
    drawn = [name for name, figure in FIGURES.items() if figure.possible(tables)]
    apart = {"necessity", "predictions", "forcing", "steering", "costs", "confusion", "confusion_kinds"}
    expected = {"gemma-3-270m": set(FIGURES) - apart, "gemma-3-270m-eleven": OLDER}[study]
    assert set(drawn) == expected
    for name in drawn:
        check(figure_of(name, tables), name)


def test_numbers_stand_out_against_every_colour_of_the_map():
    from matplotlib import colormaps

    for colour in colormaps["cividis"](np.linspace(0, 1, 256)):
        behind, before = luminance(colour), {"black": 0.0, "white": 1.0}[legible(colour)]
        assert (max(behind, before) + 0.05) / (min(behind, before) + 0.05) >= 4.5


def test_eighty_lines_differ_in_colour_or_mark():
    assert len({(series(k)["color"], series(k)["marker"]) for k in range(80)}) == 80
    assert len({series(k)["color"] for k in range(8)}) == 8


def test_numbers_are_written_without_a_negative_nought():
    assert [number(x) for x in (-0.001, 0.0, -0.012, 4.371)] == ["0.00", "0.00", "−0.01", "4.37"]
    assert [short(x) for x in (-0.001, 0.05, -0.02, 0.996, 4.37, 9.97, 12.4)] == [
        ".00",
        ".05",
        "−.02",
        "1.0",
        "4.4",
        "10",
        "12",
    ]


def test_thirty_languages_have_a_matrix_without_numbers_that_would_touch():
    tags = tuple(f"l{k}" for k in range(30))
    figure = figure_of("perplexity", {"perplexity": perplexity_of(tags)})
    assert not figure.axes[0].texts
    assert figure.axes[0].collections[0].get_array().shape == (30, 30)


# --- files ---


def test_a_run_is_drawn_with_captions_that_say_of_how_many_and_how(drawn):
    run, drawn = drawn
    made = ("layers", "overlap", "reliability", "perplexity", "own", "forcing", "steering", "costs")
    assert set(drawn.paths) == {f"{name}.{form}" for name in made for form in ("pdf", "svg", "png")}
    assert all(path.is_file() for path in drawn.paths.values())
    assert sorted(path.name for path in (run / "figures").iterdir()) == sorted([*drawn.paths, "figures.json"])
    caption = drawn.captions["perplexity"]
    for word in (
        "n: 900 tokens",
        "over 30 units",
        "95 % bootstrap (BCa under 400 units)",
        "500 resamples",
        "made <model>",
        "revision r1",
        "lape perplexity made 'a run'",
    ):
        assert word in caption
    assert "Chosen by lape: rate 0.01." in drawn.captions["layers"]
    assert "en 4, zh" in drawn.captions["layers"]
    kept = json.loads((run / "figures" / "figures.json").read_text())
    assert {name: one["caption"] for name, one in kept["figures"].items()} == drawn.captions
    assert kept["missing"] == drawn.missing


def test_under_twenty_units_the_caption_says_that_there_is_no_interval(small):
    perplexity_of(units=8).write_parquet(small / "perplexity.parquet")
    caption = draw(small, format="svg").captions["perplexity"]
    assert "No intervals where there are under 20 units of text" in caption
    assert "here 8" in caption
    assert "Bold" not in caption
    legend = figure_of("own", {"perplexity": perplexity_of(units=8)}).legends[0]
    assert legend.get_texts()[0].get_text() == "own (no interval: 8 units)"


def test_what_a_run_lacks_is_named_with_the_command_that_makes_it(run):
    for path in [*(run / "perplexity").iterdir(), *(run / "forcing").iterdir(), run / "neurons.reliability.parquet"]:
        path.unlink()
    drawn = draw(run)
    assert set(drawn.paths) == {"layers.pdf", "overlap.pdf"}
    own = f"lape perplexity {run} --text TAG=PATH"
    assert drawn.missing["own"] == drawn.missing["perplexity"] == own
    assert drawn.missing["forcing"] == f"lape force {run}"
    assert drawn.missing["frontier"] == f"lape run frontier {run} --parallel TAG=PATH"
    assert set(drawn.missing) | {"layers", "overlap", "reliability"} == set(FIGURES)
    assert "reliability" not in drawn.missing, "there are no statistics to measure it in"


def test_a_study_is_drawn_and_names_its_missing_parts(tmp_path):
    folder = tmp_path / "study"
    (folder / "tables").mkdir(parents=True)
    perplexity_of().write_parquet(folder / "tables" / "perplexity.parquet")
    neurons_of().by_layer().write_parquet(folder / "tables" / "histogram.parquet")
    (folder / "run.json").write_text(json.dumps(RECORD | {"verb": "study", "command": ["study", "sample"]}))
    drawn = draw(folder, out=tmp_path / "out")
    assert set(drawn.paths) == {"layers.pdf", "perplexity.pdf", "own.pdf"}
    for name, part in (("frontier", "frontier"), ("reliability", "amount"), ("predictions", "necessity")):
        assert drawn.missing[name] == f"lape --again {folder} --parts {part} --out NEW"
    assert "--forcing" in drawn.missing["forcing"]


def test_the_folder_of_lape_force_is_drawn_by_itself(run):
    """Its answers.parquet is not that of answers with neurons off."""
    pl.DataFrame(schema=ANSWERS).write_parquet(run / "forcing" / "answers.parquet")
    (run / "forcing" / "run.json").write_text(json.dumps(RECORD | {"verb": "force"}))
    assert set(draw(run / "forcing", format="svg").paths) == {"forcing.svg", "steering.svg", "costs.svg"}
    assert {"forced_answers", "forcing"} <= set(gather(run / "forcing").tables)


def streams(pdf: bytes) -> list[bytes]:
    """What the compressed streams of a PDF hold."""
    found = []
    for body in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(body))
        except zlib.error:
            found.append(body)
    return found


def test_every_font_is_embedded_as_truetype(drawn):
    for path in (path for name, path in drawn[1].paths.items() if name.endswith(".pdf")):
        pdf = path.read_bytes()
        assert b"/Type3" not in pdf
        assert b"/FontFile3" not in pdf
        assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0
        assert not any(body.startswith(b"OTTO") for body in streams(pdf))


def test_figures_are_exactly_as_wide_as_asked(drawn, small):
    column = drawn[1].paths
    boxes = {
        re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", column[f"{name}.pdf"].read_bytes())[1] for name in ("layers", "own")
    }  # type: ignore[index]
    assert boxes == {b"237.6"}
    assert int.from_bytes(column["own.png"].read_bytes()[16:20], "big") == 990
    assert int.from_bytes(draw(small, format="png", width=5.0).paths["own.png"].read_bytes()[16:20], "big") == 1500


def test_the_same_run_gives_the_same_bytes(small):
    first = draw(small, format="pdf,svg,png", language_names="own", out=small / "first")
    time.sleep(1.1)  # what says the time says another
    again = draw(small, format="pdf,svg,png", language_names="own", out=small / "again")
    for name, path in first.paths.items():
        assert path.read_bytes() == again.paths[name].read_bytes(), name
    assert (small / "first/figures.json").read_bytes() == (small / "again/figures.json").read_bytes()


def test_svg_has_its_text_as_text_and_says_what_it_shows(drawn):
    drawn = drawn[1]
    for name, path in ((name, path) for name, path in drawn.paths.items() if name.endswith(".svg")):
        root = ElementTree.parse(path).getroot()
        space = root.tag.split("}")[0] + "}"
        assert root.get("role") == "img"
        said = {one.get("id"): one.text for one in root if one.get("id") in ("title", "description")}
        assert list(said) == root.get("aria-labelledby", "").split()
        assert said["title"] == FIGURES[path.stem].title
        assert said["description"] == drawn.captions[path.stem], name
        assert len(root.findall(f"{space}title")) == 1
    text = drawn.paths["perplexity.svg"].read_text(encoding="utf-8")
    assert ">zh</text>" in text
    assert "made &lt;model&gt;" in text
    assert "<model>" not in text


# --- names and fonts ---


def test_own_names_that_a_font_has_are_drawn_and_embedded(small):
    if fonts.missing("日本語中文"):
        pytest.skip("no font with Chinese and Japanese letters here")
    drawn = draw(small, format="pdf,svg", language_names="own")
    assert drawn.notes == []
    assert ">日本語</text>" in drawn.paths["perplexity.svg"].read_text(encoding="utf-8")
    assert ">Tiếng Việt</text>" in drawn.paths["perplexity.svg"].read_text(encoding="utf-8")
    pdf = drawn.paths["perplexity.pdf"].read_bytes()
    assert not any(body.startswith(b"OTTO") for body in streams(pdf)), "PostScript outlines do not pass for TrueType"
    assert b"/Type3" in pdf
    mapped = b"".join(streams(pdf)).upper()
    assert b"<65E5>" in mapped, "日 can be copied out of the PDF"


def test_where_no_font_has_the_letters_the_tag_stands_and_one_line_says_so(small, monkeypatch):
    monkeypatch.setattr(fonts, "_fallbacks", tuple)
    drawn = draw(small, format="svg", language_names="own")
    assert len(drawn.notes) == 1
    assert "zh, ja" in drawn.notes[0]
    assert ".[report]" in drawn.notes[0]
    text = drawn.paths["perplexity.svg"].read_text(encoding="utf-8")
    assert ">ja</text>" in text
    assert "日" not in text
    assert ">français</text>" in text


def test_names_that_would_be_the_same_are_told_apart():
    called, _ = naming.names(["fr", "fr-x-shuffled", "en"], "english")
    assert len(set(called.values())) == 3
    assert "fr-x-shuffled" in called["fr-x-shuffled"]
    assert called["en"] == "English"


def test_fonts_that_were_made_known_are_forgotten_again():
    from matplotlib.font_manager import fontManager

    before = list(fontManager.ttflist)
    with fonts.typeset(["日本語"]) as families:
        assert families[0] == fonts.BASE
    assert fontManager.ttflist == before


# --- mistakes ---


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format": "gif"}, "pdf, svg, png"),
        ({"format": ""}, "pdf"),
        ({"width": 1.0}, "2.5"),
        ({"width": "wide"}, "column"),
        ({"language_names": "french"}, "tags, english, own"),
    ],
)
def test_options_without_sense(changes, word):
    with pytest.raises(OptionError, match=word):
        FigureOptions(**changes)


def refused(capsys: Any, run: Path, arguments: list[str], *words: str) -> None:
    before = sorted(run.parent.rglob("*"))
    capsys.readouterr()
    assert cli(["figures", *arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said.replace("\n", " "), said
    assert sorted(run.parent.rglob("*")) == before


def test_the_command_line_draws_and_says_what_is_missing(small, capsys):
    run = small
    assert cli(["figures", str(run), "--format", "svg", "--width", "page", "--out", str(run / "page")]) == 0
    said = capsys.readouterr().out
    assert "perplexity.svg" in said
    missing = json.loads((run / "page" / "figures.json").read_text())["missing"]
    told = [line for line in said.splitlines() if line.startswith("Not drawn:")]
    assert len(told) == 1
    assert told[0].startswith(f"Not drawn: {len(missing)} figures of what was not measured. ")
    command = told[0].partition("Type: ")[2].removesuffix("; figures.json has the commands of all")
    assert list(missing.values()).count(command) == max(map(list(missing.values()).count, missing.values()))
    assert f"Written: {run / 'page'}" in said.replace("\n", "")
    assert cli(["figures", str(run), "--format", "png", "--out", str(run / "page")]) == 0, "they are drawn anew"
    assert {path.suffix for path in (run / "page").iterdir()} == {".png", ".json"}
    (run / "page" / "notes.txt").write_text("mine")
    refused(capsys, run, [str(run), "--out", str(run / "page")], "holds notes.txt, which lape did not write")
    refused(capsys, run, [str(run), "--out", str(run / "page" / "notes.txt")], "is a file")


def test_mistakes_end_in_one_paragraph(run, tmp_path, capsys):
    refused(capsys, run, [str(tmp_path / "nowhere")], "is not there", "lape demo")
    refused(capsys, run, [str(run / "run.json")], "is JSON")
    refused(capsys, run, [str(run), "--width", "1"], "width is 1")
    refused(capsys, run, [str(run), "--format", "gif"], "format is 'gif'")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(capsys, run, [str(empty)], "nothing that can be drawn")
    made_stats().save(empty / "stats.safetensors")
    refused(capsys, run, [str(empty)], f"lape identify {empty}")
    (run / "perplexity" / "perplexity.parquet").write_bytes(b"PAR1 and nothing")
    refused(capsys, run, [str(run)], "perplexity.parquet is damaged")


def test_a_table_without_a_column_is_refused_by_name(run, capsys):
    perplexity_of().drop("matched_mean").write_parquet(run / "perplexity" / "perplexity.parquet")
    refused(capsys, run, [str(run)], "table perplexity", "lacks matched_mean")


def test_a_folder_of_someone_else_is_not_replaced(run):
    (run / "figures").mkdir()
    (run / "figures" / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="lape did not write"):
        draw(run)
    assert (run / "figures" / "mine.txt").read_text() == "mine"


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert not writing.available()
    with pytest.raises(OptionError, match=r'needs matplotlib\. .*type: pip install "\.\[report\]"'):
        draw(run)
    assert not (run / "figures").exists()
    assert not (run / "figures.partial").exists()


# --- tables that hold little ---


def _nulled(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(
        pl.lit(None, dtype=kind).alias(name) for name, kind in table.schema.items() if kind.is_float()
    )


CUTS = {
    "no row": lambda table: table.clear(),
    "the first row": lambda table: table.head(1),
    "the last row": lambda table: table.tail(1),
    "no number": _nulled,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=list(CUTS))
@pytest.mark.parametrize(
    "figure", [one for one in FIGURES.values() if set(one.needs) <= set(STUDY | FORCED)], ids=lambda one: one.name
)
def test_tables_that_hold_little_are_drawn_or_it_is_said(figure, cut, tmp_path):
    tables = {name: cut((STUDY | FORCED)[name]) for name in figure.needs}
    made = writing.draw_tables([figure], tables, tmp_path, FigureOptions(format="svg"), {})
    said = [f"The figure {figure.name} is not drawn: no row of {figure.needs[0]} has a value for it."]
    assert (made.files, made.empty) in (({figure.name: [f"{figure.name}.svg"]}, []), ({}, said), ({}, []))
    assert bool(made.files or made.empty) == figure.possible(tables)
    assert made.notes == made.empty


@pytest.mark.filterwarnings("error")
def test_a_study_whose_sets_are_all_too_small_is_drawn_without_what_needs_larger_ones(tmp_path):
    """No language reaches 20 neurons: no Jaccard of halves is known, so that a figure has no line."""
    from lape.study.run import draw

    with pytest.warns(LapeWarning, match="figure amount is not drawn: no row of amount has a value"):
        draw({"amount": _nulled(STUDY["amount"])}, tmp_path, {})
    held = json.loads((tmp_path / "figures.json").read_text())
    assert "amount" not in held["figures"] | held["missing"]
    assert held["notes"] == ["The figure amount is not drawn: no row of amount has a value for it."]
