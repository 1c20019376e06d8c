"""Options: frozen, documented, checked."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import lape
from lape.data.corpus import TextOptions
from lape.detect.lape import LapeOptions
from lape.errors import OptionError
from lape.experiments.perplexity.run import PerplexityOptions
from lape.options import by_name, flags, given
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


def test_options_are_taken_out_of_a_functions_parameters():
    def some(stats, *, rate=0.02, filter=0.95, bar=0.9, per_language=None, denominator="tokens", folds=None):
        return given(LapeOptions, locals())

    assert some(1) == LapeOptions(rate=0.02, bar=0.9)
    with pytest.raises(OptionError, match="rate is 2"):
        some(1, rate=2)


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
