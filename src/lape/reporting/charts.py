"""The report's charts as inline SVG, drawn by Altair: every mark says what it shows, to the pointer and to a screen reader."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from lape.extras import need

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C6D1F",
    "#9B6FD0",
    "#999999",
)
"""Okabe and Ito's palette without black, so that it can be told apart on white and on black, and two more."""
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {"grid": False, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "symbolType": "square", "symbolOpacity": 1},
}
_MARK = re.compile(r'(<path aria-label="([^"]*)"[^>]*)(?:/>|></path>)')
_BLACK = re.compile(r'(fill|stroke)="(?:#000|#000000|black|#888|#ddd|#333)"')


def layers(table: pl.DataFrame, languages: list[str]) -> str:
    """Neurons by layer (`language`, `layer`, `neurons`): stacked bars, or a heat map where there are more languages than colours."""
    alt = _altair()
    rows = table.filter(pl.col("neurons") > 0).with_columns(
        said=pl.format("{}, layer {}: {} neurons", "language", "layer", "neurons")
    )
    described = alt.Description("said:N")
    x = alt.X(
        "layer:O", title="layer", scale=alt.Scale(domain=sorted(table["layer"].unique())), axis=alt.Axis(labelAngle=0)
    )
    if len(languages) > len(COLOURS):
        chart = (
            alt.Chart(_values(rows))
            .mark_rect()
            .encode(
                x=x,
                y=alt.Y("language:N", sort=languages, title=None),
                color=alt.Color("neurons:Q", scale=alt.Scale(scheme="cividis")),
                description=described,
            )
        )
    else:
        chart = (
            alt.Chart(_values(rows))
            .mark_bar()
            .encode(
                x=x,
                y=alt.Y("neurons:Q", title="neurons", axis=alt.Axis(tickMinStep=1)),
                color=_colour(alt, languages),
                order=alt.Order("place:Q"),
                description=described,
            )
            .transform_calculate(place=f"indexof({languages!r}, datum.language)")
        )
    return _svg(chart.properties(width=720, height=260), "Language neurons by layer")


def curves(table: pl.DataFrame, x: str, y: str, titles: tuple[str, str], languages: list[str]) -> str:
    """A line a language, with its 95 % interval (`y`_low, `y`_high) where there is one, over a logarithmic axis."""
    alt = _altair()
    rows = table.filter(pl.col(y).is_not_null()).with_columns(
        said=pl.format("{}, {} = {}: {}", "language", pl.lit(titles[0]), x, pl.col(y).round(3))
    )
    base = alt.Chart(_values(rows)).encode(
        x=alt.X(f"{x}:Q", title=titles[0], scale=alt.Scale(type="log", nice=False)),
        color=_colour(alt, languages),
    )
    value = alt.Y(f"{y}:Q", title=titles[1])
    band = base.mark_area(opacity=0.2).encode(y=alt.Y(f"{y}_low:Q", title=titles[1]), y2=f"{y}_high:Q")
    points = base.mark_point(filled=True, size=50).encode(
        y=value, description=alt.Description("said:N"), shape=_shape(alt, languages)
    )
    return _svg((band + base.mark_line().encode(y=value) + points).properties(width=720, height=280), titles[1])


def _altair() -> Any:
    need("report", "A report", "altair", "vl_convert")
    import altair

    return altair


def _values(table: pl.DataFrame) -> Any:
    return _altair().Data(values=table.to_dicts())


def _colour(alt: Any, languages: list[str]) -> Any:
    scale = alt.Scale(domain=languages, range=[COLOURS[k % len(COLOURS)] for k in range(len(languages))])
    return alt.Color("language:N", title=None, sort=languages, scale=scale)


def _shape(alt: Any, languages: list[str]) -> Any:
    return alt.Shape("language:N", title=None, sort=languages, legend=None)


def _svg(chart: Any, title: str) -> str:
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(
        chart.configure(**_CONFIG).properties(description=title).to_dict(validate=False)
    )
    drawn = _BLACK.sub(r'\1="currentColor"', drawn)
    drawn = _MARK.sub(lambda found: f"{found[1]}><title>{found[2]}</title></path>", drawn)
    return re.sub(r'width="(\d+)" height="(\d+)"', 'style="max-width:\\1px"', drawn, count=1)
