"""Options: frozen, documented, checked."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from typing import Annotated, Literal

import pytest

import lape
from lape.data.corpus import TextOptions
from lape.detect.lape import LapeOptions
from lape.errors import OptionError
from lape.experiments.perplexity.run import PerplexityOptions
from lape.options import Candidates, NotBelowZero, Options, Positive, by_name, flags, keywords_of, within
from lape.recording.engine import RecordOptions
from support.pages import ROOT

MODULES = [
    one.name
    for one in pkgutil.walk_packages(lape.__path__, "lape.")
    if not one.name.startswith(("lape.cli", "lape.__main__"))
]
CLASSES = [
    value
    for module in map(importlib.import_module, MODULES)
    for name, value in vars(module).items()
    if name.endswith("Options")
    and dataclasses.is_dataclass(value)
    and value.__module__ == module.__name__
    and dataclasses.fields(value)
]


def test_every_dataclass_of_options_is_seen():
    assert {"LapeOptions", "ModelOptions", "ClusterOptions", "ForcingOptions", "RecordedOptions"} <= {
        one.__name__ for one in CLASSES
    }
    assert len(CLASSES) > 25


def test_no_option_knows_the_command_line():
    """Nothing outside of `lape.cli` imports cyclopts."""
    asked = set()
    for path in (ROOT / "src" / "lape").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            asked |= {path.relative_to(ROOT / "src" / "lape").parts[0] for name in names if name.startswith("cyclopts")}
    assert asked == {"cli"}


def test_the_defaults_of_lape_are_the_published_thresholds():
    default = LapeOptions()
    assert (default.rate, default.filter, default.bar) == (0.01, 0.95, 0.95)
    assert default.denominator == "tokens"
    assert default.per_language is None


@pytest.mark.parametrize("name", ["rate", "filter", "bar"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, 95, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused_naming_it_and_its_value(name, value):
    with pytest.raises(OptionError, match=f"{name} is {value}"):
        LapeOptions(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (LapeOptions, "per_language", 0),
        (TextOptions, "tokens", 0),
        (TextOptions, "tokens", -5),
        (TextOptions, "batch_tokens", 0),
        (TextOptions, "row_tokens", 7),
        (RecordOptions, "row_tokens", 0),
        (PerplexityOptions, "tokens", 0),
        (PerplexityOptions, "draws", -1),
        (PerplexityOptions, "resamples", 0),
    ],
)
def test_a_number_too_small_is_refused_naming_it(kind, name, value):
    with pytest.raises(OptionError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TextOptions, "document", "lines"),
        (TextOptions, "bos", "no"),
        (RecordOptions, "document", "sentence"),
        (LapeOptions, "denominator", "experts"),
    ],
)
def test_a_word_that_is_no_choice_is_refused_naming_it(kind, name, value):
    with pytest.raises(OptionError, match=value):
        kind(**{name: value})


@pytest.mark.parametrize("kind", CLASSES)
def test_options_are_frozen(kind):
    needed = {field.name: 1 for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    one = kind(**needed)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, dataclasses.fields(kind)[0].name, 1)


def test_every_field_has_a_docstring_below_it():
    for kind in CLASSES:
        for node in ast.parse(inspect.getsource(kind)).body:
            for field, below in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                    assert said, f"{node.name}.{ast.unparse(field.target)}"


def test_the_fields_of_options_are_keywords_of_a_function():
    @keywords_of(LapeOptions)
    def chosen(stats, options, *, folds=None):
        return stats, options, folds

    assert chosen(1, rate=0.02, bar=0.9, folds=(1, 2)) == (1, LapeOptions(rate=0.02, bar=0.9), (1, 2))
    assert chosen(1) == (1, LapeOptions(), None)
    with pytest.raises(OptionError, match="rate is 2"):
        chosen(1, rate=2)
    with pytest.raises(TypeError, match="percentile"):
        chosen(1, percentile=2)
    with pytest.raises(TypeError, match="options"):
        chosen(1, options=LapeOptions())
    parameters = inspect.signature(chosen).parameters
    assert [*parameters] == ["stats", *(field.name for field in dataclasses.fields(LapeOptions)), "folds"]
    assert parameters["rate"].default == 0.01
    assert {one.kind for name, one in parameters.items() if name != "stats"} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"word": "c"}, r"word is 'c'. Expected a, b\."),
        ({"word": 2}, r"word is 2. Expected a, b\."),
        ({"value": "half"}, r"value is 'half'. Expected auto or a number\."),
        ({"several": ("a", "z")}, r"several is 'z'. Expected a, b\."),
        ({"sizes": (3, 0)}, r"sizes is 0. Expected 1 or more\."),
        ({"near": 21}, r"near is 21. Expected 1 to 20\."),
        ({"seconds": -1.0}, r"seconds is -1.0. Expected 0 or more"),
        ({"limit": 0}, r"limit is 0. Expected 1 or more\."),
        ({"candidates": 1}, r"candidates is 1. Expected 2 or more, or 0"),
    ],
)
def test_a_value_that_its_type_does_not_allow_is_refused_saying_what_is_expected(values, message):
    with pytest.raises(OptionError, match=message):
        Every(**values)


def test_values_that_their_types_allow_pass():
    Every()
    Every("b", 0.5, ("a", "b"), (1,), 20, 0.0, 1, 0)


@dataclasses.dataclass(frozen=True)
class Every(Options):
    """A field of each kind."""

    word: Literal["a", "b"] = "a"
    value: float | Literal["auto"] = "auto"
    several: tuple[Literal["a", "b"], ...] = ()
    sizes: tuple[Positive, ...] | None = None
    near: Annotated[int, within(1, 20)] = 1
    seconds: NotBelowZero = 1.0
    limit: Positive | None = None
    candidates: Candidates = 2


def test_an_unknown_option_is_refused_naming_it_and_the_known_ones():
    assert by_name(LapeOptions, {"bar": 0.9}) == LapeOptions(bar=0.9)
    with pytest.raises(OptionError, match=r"percentile.*rate"):
        by_name(LapeOptions, {"percentile": 0.9})


def test_options_by_name_are_checked():
    with pytest.raises(OptionError):
        by_name(LapeOptions, {"rate": 2})


def test_flags_say_what_differs_from_the_defaults_and_come_back():
    """None, defaults and what is no option are left out; lists may come from JSON."""

    @dataclasses.dataclass(frozen=True)
    class Some:
        rate: float = 0.1
        per_language: int | None = None
        residual: bool = False
        known: bool = True
        families: tuple[str, ...] = ("a", "b")
        made: list[int] = dataclasses.field(default_factory=list)

    assert flags(Some, dataclasses.asdict(Some())) == []
    assert flags(Some, {"rate": 0.1, "families": ["a", "b"], "threshold": 3}) == []
    values = {"rate": 0.2, "per_language": 5, "residual": True, "known": False, "families": ["c"], "made": [1, 2]}
    words = "--rate 0.2 --per-language 5 --residual --no-known --families c --made 1 2"
    assert flags(Some, values) == words.split()
