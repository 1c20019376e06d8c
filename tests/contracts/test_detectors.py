"""What every selection method keeps to, whoever wrote it: found by name, options that travel, honest about what it reads."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape import identify
from lape.cli import app, run
from lape.cli.flags import given_flags
from lape.detect import DETECTORS
from lape.detect.detector import Detector
from lape.errors import LapeError, OptionError
from lape.values.neurons import LanguageNeurons
from lape.values.quantity import EXTRAS
from lape.values.space import NeuronSpace
from lape.values.stats import COUNTS, ActivationStats, LanguageStats
from support.made import EXPERTS, full_stats, made_stats

ROOT = Path(__file__).parents[2]
WIDE = NeuronSpace.dense(2, 40)
LAW = settings(deadline=None, max_examples=10)
SEED = st.integers(0, 2**32)
LAPE = {"rate": 0.01, "filter": 0.95, "bar": 0.95, "per_language": None, "denominator": "tokens"}
DEFAULTS = {
    "lape": LAPE,
    "lap": {"per_language": 100, "denominator": "tokens"},
    "lave": LAPE,
    "random": {"per_language": 100, "seed": 0},
    "alignment": LAPE | {"filter": 0.0, "weight": "auto"},
    "difference": {"per_language": 100, "of": "activation", "against": "mean"},
    "attribution": {"per_language": 100, "by": "product", "matters": 0.05},
    "ap": {"per_language": 100, "side": "both"},
    "probability90": {"per_language": 100, "percentile": 0.9},
    "variation": {"rate": 0.01, "filter": 0.95, "bar": 0.95, "per_language": None},
}
HALVED = {"lape": {"rate": 0.3, "filter": 0.6, "bar": 0.6}, "lap": {}, "alignment": {"rate": 0.3, "bar": 0.6}}
"""The methods that can choose from some of the folds, by default; with options under which they choose some neurons."""
every = pytest.mark.parametrize("detector", DETECTORS.values(), ids=list(DETECTORS))
UNCOUNTED = ("random", "variation", "attribution")
"""The methods that ask no number of tokens of a neuron's expert."""


def with_folds(stats: ActivationStats, folds: list[int]) -> ActivationStats:
    """Keep the counts of some folds alone."""

    def change(tensors: dict[str, torch.Tensor]) -> LanguageStats:
        return LanguageStats({**tensors, **{name: tensors[name][folds] for name in COUNTS}})

    return dataclasses.replace(stats, by_language={k: change(stats[k].tensors) for k in stats.languages})


def with_few_routed(stats: ActivationStats) -> ActivationStats:
    """Let hardly a token of French reach expert 0, whose neurons are 5 to 8."""
    tensors = dict(stats["fr"].tensors)
    tensors["routed"] = tensors["routed"].index_fill(1, torch.tensor([1]), 10)
    tensors["fires"] = torch.minimum(tensors["fires"], stats.space.per_neuron(tensors["routed"]))
    return dataclasses.replace(stats, by_language={**stats.by_language, "fr": LanguageStats(tensors)})


def with_only(stats: ActivationStats, names: set[str]) -> ActivationStats:
    kept = {k: LanguageStats({n: t for n, t in stats[k].tensors.items() if n in names}) for k in stats.languages}
    return dataclasses.replace(stats, by_language=kept)


def other(hint: Any, default: Any) -> Any:
    """A value of a field that is not its default."""
    kinds = (
        [one for one in get_args(hint) if one is not type(None)] if get_origin(hint) in (Union, UnionType) else [hint]
    )
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != default)
    return {int: 7, float: 0.35, bool: not default, str: "other"}[kind]


def changed(detector: Detector[Any]) -> Any:
    """Options of which none is as usual."""
    hints = get_type_hints(detector.options)
    fields = dataclasses.fields(detector.options)
    return detector.options(**{field.name: other(hints[field.name], field.default) for field in fields})


def sets(neurons: LanguageNeurons) -> dict[str, list[int]]:
    return {language: one.flat.tolist() for language, one in neurons.sets.items()}


def identified(stats: ActivationStats, detector: Detector[Any], **options: Any) -> LanguageNeurons:
    return identify(stats, detector.name, reliability=False, **options)


@every
def test_the_record_says_what_it_is(detector):
    assert DETECTORS[detector.name] is detector
    assert re.fullmatch(r"[A-Z].+[^.]\.", detector.about)
    assert dataclasses.is_dataclass(detector.options)
    assert detector.options() == detector.options()
    assert "stats" in inspect.signature(detector.find).parameters
    assert f"| `{detector.name}` |" in (ROOT / "docs/choosing.md").read_text()


@every
@pytest.mark.parametrize("space", [WIDE, EXPERTS], ids=["dense", "experts"])
def test_it_runs_by_its_name_and_chooses_within_the_space(detector, space):
    stats = full_stats(space=space)
    neurons = identified(stats, detector)
    assert (neurons.method, list(neurons), neurons.space) == (detector.name, stats.languages, space)
    assert neurons.options.items() >= dataclasses.asdict(detector.options()).items()
    assert (neurons.manifest, neurons.fingerprints.numel()) == (stats.manifest, 9)
    for flat in sets(neurons).values():
        assert flat == sorted(set(flat))
        assert all(0 <= index < len(space) for index in flat)


@every
def test_its_options_are_these_by_default(detector):
    assert dataclasses.asdict(detector.options()) == DEFAULTS[detector.name]


@every
def test_it_says_how_it_was_found_and_a_file_gives_it_back(detector, tmp_path):
    stats = full_stats()
    neurons = identify(stats, detector.name, per_language=3)
    assert (neurons.method, neurons.manifest) == (detector.name, stats.manifest)
    assert neurons.options.items() >= (DEFAULTS[detector.name] | {"per_language": 3}).items()
    known = {number for language in stats.languages for number in stats[language].fingerprints.tolist()}
    assert set(neurons.fingerprints.tolist()) == known
    lengths = {language: len(values) for language, values in neurons.stability.items()}
    assert lengths == ({k: len(neurons[k]) for k in stats.languages} if detector.name in HALVED else {})
    neurons.save(tmp_path / "neurons.safetensors")
    assert LanguageNeurons.load(tmp_path) == neurons


@every
@LAW
@given(seed=SEED, order=st.permutations(["en", "fr", "zh", "de"]))
def test_the_order_of_languages_changes_no_set(detector, seed, order):
    if detector.name == "random":  # which draws for a language after the other
        return
    stats = full_stats(seed, ["en", "fr", "zh", "de"])
    shuffled = dataclasses.replace(stats, by_language={language: stats[language] for language in order})
    a, b = (identified(one, detector, per_language=5) for one in (stats, shuffled))
    assert all(a[language] == b[language] for language in order)


@every
@LAW
@given(seed=SEED, few=st.integers(1, 10), more=st.integers(1, 10))
def test_a_larger_set_holds_the_smaller(detector, seed, few, more):
    small, large = (identified(full_stats(seed), detector, per_language=n) for n in sorted((few, more)))
    assert all(set(small[language]) <= set(large[language]) for language in small)


@every
@pytest.mark.parametrize("options", [{"per_language": 13}, {"rate": 0.9, "filter": 0.1, "bar": 0.1}], ids=str)
def test_neurons_of_experts_that_few_tokens_reached_are_chosen_only_where_no_token_is_counted(detector, options):
    if not {field.name for field in dataclasses.fields(detector.options)} >= options.keys():
        return
    neurons = identified(with_few_routed(full_stats(space=EXPERTS)), detector, **options)
    assert neurons.union
    assert bool({5, 6, 7, 8} & set(neurons.union)) == (detector.name in UNCOUNTED)


@every
@LAW
@given(seed=SEED, folds=st.sets(st.integers(0, 7), min_size=1).map(sorted))
def test_some_folds_are_statistics_of_those_folds_alone_or_are_refused(detector, seed, folds):
    if "folds" not in inspect.signature(detector.find).parameters or detector.name == "random":
        return
    stats = full_stats(seed, space=WIDE)
    if detector.name in HALVED:
        ours = detector.find(stats, folds=folds, **HALVED[detector.name])
        assert sets(ours) == sets(detector.find(with_folds(stats, folds), **HALVED[detector.name]))
    else:
        with pytest.raises(OptionError, match="folds"):
            detector.find(stats, folds=folds)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        *((name, {"per_language": 0}, "1 or more") for name in DETECTORS),
        *(
            (name, {option: 2}, f"{option} is 2")
            for name in ("lape", "lave", "alignment", "variation")
            for option in ("rate", "bar")
        ),
        *((name, {"filter": 2}, "filter is 2") for name in ("lape", "lave", "variation")),
        ("lap", {"denominator": "all"}, "routed"),
        ("alignment", {"weight": "most"}, "weight is 'most'.*auto"),
        ("alignment", {"weight": -0.1}, "weight is -0.1"),
        ("alignment", {"weight": math.nan}, "weight is nan"),
        ("alignment", {"weight": math.inf}, "weight is inf"),
        ("alignment", {"filter": 1.0}, "filter is 1.0.*no filter"),
        ("alignment", {"filter": -0.5}, "filter is -0.5"),
        ("alignment", {"bar": 0.0}, "bar is 0.0"),
        ("attribution", {"by": "size"}, "by is"),
        ("attribution", {"matters": 0}, "matters is"),
        ("ap", {"side": "left"}, "both, top, bottom"),
        ("probability90", {"percentile": 90}, "percentile is 90.*0 and 1"),
        ("probability90", {"percentile": math.nan}, "percentile is nan"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(name, options, says):
    with pytest.raises(OptionError, match=says):
        identified(full_stats(), DETECTORS[name], **options)


@every
def test_the_same_statistics_give_the_same_neurons(detector):
    a, b = (identified(full_stats(), detector, per_language=9) for _ in range(2))
    assert a == b
    assert all(len(flat) <= 9 for flat in sets(a).values())
    assert any(sets(a).values())
    if "seed" in {field.name for field in dataclasses.fields(detector.options)}:
        assert sets(identified(full_stats(), detector, per_language=9, seed=1)) != sets(a)


@every
def test_it_reads_counts_and_what_it_says_it_needs(detector):
    stats = full_stats()
    fewer = with_only(stats, {*COUNTS, "fingerprints", *detector.needs})
    assert sets(identified(fewer, detector)) == sets(identified(stats, detector))


@every
def test_statistics_without_what_it_needs_are_refused_saying_what_to_type(detector, tmp_path, capsys):
    for need in detector.needs:
        command = f"lape record {EXTRAS.get(need, '')}".strip()
        lacking = with_only(full_stats(), set(full_stats()["en"].tensors) - {need})
        with pytest.raises(OptionError, match=f"no '{need}'.*{re.escape(command)}"):
            identified(lacking, detector)
        path = lacking.save(tmp_path / f"{need}.safetensors")
        assert run(["identify", str(path), "--method", detector.name]) == 2
        assert command in " ".join(capsys.readouterr().err.split())
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


@every
def test_one_language_alone_is_refused(detector):
    with pytest.raises(LapeError, match=r"Only en was recorded.*two or more"):
        identified(full_stats(languages=("en",)), detector)


@every
def test_options_travel_through_json(detector):
    options = changed(detector)
    again = detector.options(**json.loads(json.dumps(dataclasses.asdict(options))))
    assert again == options
    stats = full_stats()
    assert identified(stats, detector, **dataclasses.asdict(options)) == detector.find(stats, **vars(options))


@every
def test_options_travel_through_the_flags(detector):
    options = changed(detector)
    words = ["identify", "run", "--method", detector.name]
    for field in dataclasses.fields(options):
        words += [f"--{field.name.replace('_', '-')}", str(getattr(options, field.name))]
    verb, bound, *_ = app().parse_args(words, exit_on_error=False, print_error=False)
    assert (verb.__name__, bound.arguments["method"]) == ("identify", detector.name)
    assert detector.options(**given_flags(bound.arguments["options"])) == options


@every
def test_an_option_that_it_has_not_is_refused_naming_those_it_has(detector):
    with pytest.raises(OptionError, match=r"no option loudness.*per_language"):
        identified(full_stats(), detector, loudness=3)


def test_the_help_says_of_each_flag_whose_it_is(capsys):
    assert run(["identify", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"How to choose: {', '.join(list(DETECTORS)[:-1])} or {list(DETECTORS)[-1]};" in said
    assert "lape, lave, alignment, variation: share of all neurons that is kept" in said
    assert "random: seed of the draw. Default: 0." in said
    for detector in DETECTORS.values():
        for field in dataclasses.fields(detector.options):
            assert f"--{field.name.replace('_', '-')} " in said


# --- detectors of other packages -----------------------------------------------------------------------------------

LOUDEST = '''
from dataclasses import dataclass

from lape.detect.common import each, found
from lape.detect.detector import Detector
from lape.options import Options, keywords_of


@dataclass(frozen=True)
class LoudOptions(Options):
    """How the loudest are chosen."""

    per_language: int = 100
    """Neurons of each language."""
    loudness: float = 0.5
    """What is loud."""


@keywords_of(LoudOptions)
def loudest(stats, options):
    return found(stats, "loudest", options, each(stats, stats.mean, options.per_language))


LOUDEST = Detector("loudest", "The loudest neurons.", LoudOptions, loudest, needs=("sum",))
'''


def elsewhere(folder: Path, value: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where a package `loud` is installed whose entry point `loudest` is `value`."""
    (folder / "loud.py").write_text(LOUDEST)
    about = folder / "loud-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lape.detectors]\nloudest = {value}\n")
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_detector_of_another_package_is_found_by_name_and_has_its_flags(tmp_path):
    path = made_stats(sums=True).save(tmp_path / "stats.safetensors")
    words = ["identify", str(path), "--method", "loudest", "--per-language", "3", "--loudness", "0.7"]
    done = elsewhere(
        tmp_path, "loud:LOUDEST", f"from lape.cli import run; sys.exit(run({words!r}) or run(['identify', '--help']))"
    )
    assert done.returncode == 0, done.stderr
    assert "loudest: what is loud. Default: 0.5." in " ".join(done.stdout.replace("│", " ").split())
    neurons = LanguageNeurons.load(tmp_path / "neurons.safetensors")
    assert (neurons.method, neurons.options) == ("loudest", {"per_language": 3, "loudness": 0.7})
    assert [len(one) for one in neurons.sets.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("loud:SILENCE", "loud adds loud:SILENCE to lape.detectors, which cannot be imported"),
        ("nowhere:LOUDEST", "No module named 'nowhere'. Fix the package, or uninstall it."),
        ("loud:loudest", "Expected a lape.detect.detector.Detector, found function"),
        ("lape.detect.lape:LAPE", "Two detectors are called lape. Uninstall"),
    ],
)
def test_a_package_whose_detector_cannot_be_used_is_named(tmp_path, value, words):
    done = elsewhere(tmp_path, value, "from lape.cli import run; sys.exit(run(['identify', 'x']))")
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
