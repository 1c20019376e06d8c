"""What the committed tables say beyond the verdicts of claims.md: `python docs/studies/reread.py` prints the tables of docs/results.md.

docs/ledger.py holds the pages to them."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

STUDIES = Path(__file__).parent
MAIN = "gemma-3-270m"
ROLES = ("source", "target", "third")


@cache
def table(study: str, name: str) -> pl.DataFrame:
    return pl.read_parquet(STUDIES / study / "tables" / f"{name}.parquet")


def others_at(frontier: pl.DataFrame, method: str, language: str, own: float, value: str = "others") -> float | None:
    """Off-target effect (or that on the `worst` other) where the own effect first reaches a level, on straight lines from (0, 0) through the sizes; None
    beyond the last.
    """
    rows = frontier.filter(method=method, language=language).sort("size")
    x, y = np.r_[0.0, rows["own"]], np.r_[0.0, rows[value].clip(0)]
    if own > x.max():
        return None
    end = max(int((x >= own).argmax()), 1)
    return float(np.interp(own, x[end - 1 : end + 1], y[end - 1 : end + 1]))


def forced(name: str) -> pl.DataFrame:
    """A table of forcing.json."""
    return pl.DataFrame(_forcing()[name], infer_schema_length=None)


@cache
def _forcing() -> dict[str, Any]:
    study: dict[str, Any] = json.loads((STUDIES / "forcing/forcing.json").read_text(encoding="utf-8"))
    return study


def forcing_costs() -> pl.DataFrame:
    """What edits cost text of the source, the target and third languages, and good answers over the ceiling's on pairs that were tuned on and others."""
    tuned_on = _forcing()["options"]["development_pairs"].split(",")
    costs, records = forced("costs"), forced("records")
    pairs = records.filter(pl.col("source") != "all", split="report")
    tuned = pl.concat_str("source", "target", separator="-").is_in(tuned_on)
    found = []
    for family in ("neurons", "target only", "prompt", "diffmean", "random"):
        by_role = {role: costs.filter(family=family, role=role)["delta_token"].mean() for role in ROLES}
        good = {name: pairs.filter(which, family=family) for name, which in (("tuned", tuned), ("untuned", ~tuned))}
        means = {name: rows["good_over_ceiling"].mean() for name, rows in good.items()}
        found.append({"family": family, **by_role, **means})
    return pl.DataFrame(found, infer_schema_length=None)


def steering() -> Iterator[str]:
    """What edits cost text of each kind of language, and good answers over the ceiling's on pairs that were tuned on and on the others."""
    yield "| method | cost: source | target | third languages | good ÷ ceiling: pairs tuned on | other pairs |"
    yield "|---|---|---|---|---|---|"
    for row in forcing_costs().iter_rows(named=True):
        cells = ["–" if row[role] is None else f"{row[role]:.1f}" for role in ROLES]
        yield f"| {row['family']} | {' | '.join(cells)} | {row['tuned']:.2f} | {row['untuned']:.2f} |"


def forcing_shares() -> Iterator[str]:
    """Answers in the language and good ones, of every family, over all pairs."""
    for row in forced("records").filter(split="report", source="all", target="all").iter_rows(named=True):
        cells = [row["family"], f"{row['in_language']:.0%}", f"{row['good']:.0%}"]
        for name in ("in_language_over_ceiling", "good_over_ceiling"):
            cells.append(f"{row[name]:.2f} ({row[f'{name}_low']:.2f}–{row[f'{name}_high']:.2f})")
        yield f"| {' | '.join(cells)} |"


def over_targets() -> pl.DataFrame:
    """Good answers over the ceiling's, the mean over target languages, with Student's t interval over them."""
    found = forced("records").filter(split="report", source="all", target="all")
    good = {"good": "good_over_ceiling", "low": "good_over_ceiling_low", "high": "good_over_ceiling_high"}
    return found.select("family", **{name: pl.col(column) for name, column in good.items()})


def settings() -> Iterator[str]:
    """Success against fluency of the neurons' settings, on the development questions."""
    default = "difference:100, off+set, mean, × 2 to 3, first 16, fading by .85"
    named = {
        "asked in the target language": "(ceiling)",
        "lape, off+add, mean, × 1": "LAPE's sets, off+add, mean, every token (the published way)",
        default: f"{default} (`lape steer`'s default)",
    }
    rows = forced("records").filter(
        pl.col("family").is_in(["ceiling", "neurons"]), split="development", source="all", target="all"
    )
    for row in rows.iter_rows(named=True):
        setting = row["setting"].replace("generated tokens, the ", "").replace("by 0.", "by .")
        names = ("in_language_over_ceiling", "fluent", "on_topic", "good_over_ceiling")
        cells = [re.sub("^0", "", f"{row[name]:.2f}") for name in names]
        yield f"| {named.get(setting, setting)} | {' | '.join(cells)} |"


def left_out() -> pl.DataFrame:
    """The median Jaccard of the other sets with what they were, for each language of eleven that is left out."""
    dropped = table("gemma-3-270m-eleven", "dropped").filter(pl.col("dropped") != pl.col("language"))
    return dropped.group_by("dropped", maintain_order=True).agg(pl.col("jaccard").median().alias("median"))


@cache
def bands(draws: int = 4000) -> pl.DataFrame:
    """How many fresh draws of the very same distribution lie within the central 95 % of n draws, on two independent measures at once."""
    rng, found = np.random.default_rng(0), []
    for n in (8, 24, 100, 200):
        low, high = np.quantile(rng.standard_normal((draws, n, 2)), [0.025, 0.975], axis=1)
        fresh = rng.standard_normal((draws, 100, 2))
        within = ((fresh >= low[:, None]) & (fresh <= high[:, None])).all(-1).mean()
        found.append({"answers": n, "fresh": float(within)})
    return pl.DataFrame(found)


def calibration() -> Iterator[str]:
    """How many fresh draws of the very same distribution lie within the central 95 % of n draws, on two independent measures at once."""
    yield f"| answers from which the band is made | {' | '.join(str(n) for n in bands()['answers'])} |"
    yield "|---|---|---|---|---|"
    yield f"| share of fresh answers called fluent | {' | '.join(f'{one:.2f}' for one in bands()['fresh'])} |"


def adapter_fit(which: str) -> Iterator[str]:
    """KL of an adapter from its edit, by where it is read: the target language's mean and median, what the edit does there, and the worst of the others."""
    found, target = table("adapters", f"fit-{which}"), which.split("-")[1]
    for (kind, read_as, position), rows in found.group_by("edit_by", "read_as", "position", maintain_order=True):
        if position != "0":
            own, others = rows.filter(language=target), rows.filter(pl.col("language") != target)
            worst = others.sort("kl").row(-1, named=True)
            name = {"text": "text", "prompt": "question"}[str(read_as)]
            own_figures = (
                f"{_thousandths(own['kl'][0])} | {_thousandths(own['kl_median'][0])} | {_bare(own['edit'][0])}"
            )
            yield f"| {kind}, {name}, {position} | {own_figures} | {_thousandths(worst['kl'])} ({worst['language']}) |"


FORMATS = {"float32": "fit-gemma-fr-float32", "bfloat16": "fit-gemma-fr-bfloat16", "NF4": "fit-gemma-fr-nf4"}


def adapter_formats() -> Iterator[str]:
    """KL of an adapter from its edit on French, and on the worst other language, by the number format of the model's weights."""
    tables = [table("adapters", name) for name in FORMATS.values()]
    keys = tables[0].select("edit_by", "read_as", "position").unique(maintain_order=True)
    for kind, read_as, position in keys.iter_rows():
        if position != "0":
            cells = []
            for found in tables:
                rows = found.filter(edit_by=kind, read_as=read_as, position=position)
                own, others = (
                    rows.filter(language="fr")["kl"].item(),
                    rows.filter(pl.col("language") != "fr")["kl"].max(),
                )
                cells.append(f"{_thousandths(own)} ({_thousandths(others)})")
            yield f"| {kind}, {'text' if read_as == 'text' else 'question'}, {position} | {' | '.join(cells)} |"


def _thousandths(value: float) -> str:
    return f"{max(value, 0.0):.4f}".removeprefix("0")


def _bare(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.2f}"


def _short(value: Any) -> str:
    return f"{value:.3f}".removeprefix("0")


def adapter_answers(model: str) -> Iterator[str]:
    """What answers are by each way, and less those by hooks, with 95 % intervals over questions."""
    found = table("adapters", f"answers-{model}").filter(target="all")
    for way in found["way"].unique(maintain_order=True):
        cells = []
        for share in ("in_language", "good"):
            row = found.filter(way=way, share=share).row(0, named=True)
            apart = f"{row['less_hooks']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
            cells += [f"{row['value']:.3f}", "–" if way == "hooks" else apart.replace("-", "−")]
        yield f"| {way} | {' | '.join(cells)} |"


ENGINES = {
    "vllm": "vLLM",
    "vllm, rank 1": "vLLM, max-lora-rank 1",
    "llamacpp": "llama.cpp",
    "llamacpp, half precision": "llama.cpp, attention in half precision",
    "llamacpp, prompts kept": "llama.cpp, both by default (prompts kept)",
    "transformers": "transformers serve",
}


@cache
def engine_figures() -> dict[tuple[str, str], float]:
    """(Engine, measure) -> what `make serve-test` found."""
    found = json.loads((STUDIES / "adapters/engines.json").read_text(encoding="utf-8"))
    return {(one["engine"], one["measure"]): one["value"] for one in found}


def engine_agreement() -> Iterator[str]:
    """How far an engine's greedy tokens are lape's, and how many of 20 answers change when all are asked at once."""
    found = engine_figures()
    names = ("base", "to-fr", "to-zh", "to-vi", "off-zh")
    for engine in ("vllm", "llamacpp", "llamacpp, half precision", "llamacpp, prompts kept", "transformers"):
        shares = " | ".join(f"{found[engine, f'agreement: {name}']:.3f}" for name in names)
        changed = found.get((engine, "changed at once: mixed"))
        yield f"| {ENGINES[engine]} | {shares} | {'–' if changed is None else f'{changed:.0f}'} |"


def engine_costs() -> Iterator[str]:
    """Speed of engines with adapters, as ratios to the unedited model in the same run."""
    found = engine_figures()
    for engine in ("vllm", "vllm, rank 1", "llamacpp", "transformers"):
        for name in ("base again", "to-fr", "to-zh", "to-vi", "off-zh"):
            measures = ("tokens per second, ratio", "first token, ratio")
            if all((engine, f"{one}: {name}") in found for one in measures):
                ratios = " | ".join(f"{found[engine, f'{one}: {name}']:.2f}" for one in measures)
                yield f"| {ENGINES[engine]} | {name} | {ratios} |"


# Rules chosen on one half of a corpus


RULE_NAMES = {
    "lape": "LAPE",
    "difference": "difference of mean activations",
    "difference:against=largest": "difference from the largest other",
    "difference:of=written,against=largest": "what is written, from the largest other",
    "difference:of=d-prime,against=largest": "d′, from the nearest other",
    "difference:of=log-odds,against=largest": "log-odds with a prior, from the nearest other",
    "difference:of=distribution,against=largest": "distributions, from the nearest other",
    "lave": "LAVE",
    "lap": "LAP",
    "variation": "PV, change of weights under tuning",
    "matched": "as many nearest in energy to LAPE's (one draw)",
    "random": "random neurons (one draw)",
}


def _rules(found: pl.DataFrame) -> list[tuple[str, str]]:
    """The rules of a table, with their names."""
    return [(rule, name) for rule, name in RULE_NAMES.items() if rule in found["method"]]


def rule_sizes(study: str) -> Iterator[str]:
    """Each rule at the sizes measured: own effect, and what others and the worst other lose, nats per sentence, means over all languages but English."""
    found = table(study, "frontier").filter(language="mean").sort("size")
    for rule, name in _rules(found):
        for row in found.filter(method=rule).iter_rows(named=True):
            yield f"| {name} | {row['size']} | {row['own']:.1f} | {row['others']:.1f} | {row['worst']:.1f} | {_short(row['selectivity'])} |"


def rule_levels(study: str) -> Iterator[str]:
    """What each rule costs the others, and the worst other, where its own effect is a share of that of LAPE's published sets, in nats per sentence.

    Means over the languages that reach it (in brackets where not all do). On straight lines between sizes, and from the origin, where no neuron is off
    and nothing changes, to the smallest.
    """
    found = table(study, "frontier").filter(~pl.col("language").is_in(["en", "mean"]))
    whole = dict(found.filter(method="lape, published").select("language", "own").iter_rows())
    for rule, name in _rules(found):
        cells = []
        for level in (0.25, 0.5, 0.75, 1.0):
            costs = [
                [others_at(found, rule, language, level * of, value) for value in ("others", "worst")]
                for language, of in whole.items()
            ]
            costs = [one for one in costs if None not in one]
            others, worst = np.mean(costs, axis=0) if costs else (np.nan, np.nan)
            reached = "" if len(costs) == len(whole) else f" ({len(costs)})"
            cells.append(f"{others:.1f}, {worst:.1f}{reached}")
        yield f"| {name} | {' | '.join(cells)} |"


def rule_english(study: str) -> Iterator[str]:
    """English: own effect with its interval and the mean of the others, in nats per sentence, at each size."""
    found = table(study, "frontier").filter(language="en").sort("size")
    for rule, name in _rules(found):
        cells = [
            f"{row['own']:.1f} ({row['own_low']:.1f} to {row['own_high']:.1f}), {row['others']:.1f}"
            for row in found.filter(method=rule).iter_rows(named=True)
        ]
        yield f"| {name} | {' | '.join(cells)} |"


# What sets cause: needed, enough, and beside other methods


def hardest_hit(study: str) -> pl.DataFrame:
    """With each language's set off, how many `neurons` that are, what it loses by itself (`own`), and the other that loses most (`other`, `lost`), in nats
    per sentence.
    """
    lost = table(study, "perplexity")
    own = lost.filter(pl.col("off") == pl.col("language")).select("neurons", language="off", own="delta_sentence")
    others = (
        lost.filter(pl.col("off") != pl.col("language"))
        .sort("delta_sentence", descending=True)
        .unique("off", keep="first")
    )
    most = others.select(language="off", other="language", lost="delta_sentence")
    return own.join(most, on="language", maintain_order="left")


def needed(study: str) -> Iterator[str]:
    """Each language's set off: neurons; own loss in nats per token, that with matched neurons off, and the difference; in nats per sentence own, the
    other language that loses most, and own − others less that of the control; written energy over the control's.
    """
    hit = {row["language"]: row for row in hardest_hit(study).iter_rows(named=True)}
    for row in table(study, "controlled").filter(control="matched").iter_rows(named=True):
        by = hit[row["language"]]
        cells = [
            f"{by['neurons']}",
            f"{row['own']:.2f}",
            f"{row['of_control']:.2f}",
            _with_interval(row, "difference", 2),
            f"{by['own']:.1f}",
            f"{by['other']} {by['lost']:.1f}",
            _with_interval(row, "more", 1),
            f"{row['energy_ratio']:.2f}",
        ]
        yield f"| {row['language']} | {' | '.join(cells)} |"


def otherwise(study: str) -> pl.DataFrame:
    """Own − others of each language in nats per sentence: with three quarters of the set's activity taken (`taken`), and with all of its control's
    (`control`, the mean of its draws); `own_taken` and `own_control`, the own losses; less the control's where both are at their mean (`more` …), and by how
    much that changes the set over its control (`at_mean`).
    """
    mean = (
        table(study, "patched_controlled")
        .filter(control="matched")
        .select("language", "more", "more_low", "more_high", at_mean="energy_ratio")
    )
    taken = table(study, "doses").filter(of="set", dose=75)
    taken = taken.select("language", own_taken="own", taken=pl.col("own") - pl.col("others"))
    own = table(study, "perplexity").filter(pl.col("off") == pl.col("language"))
    sentence = own.select("language", tokens=pl.col("delta_sentence") / pl.col("delta_token"))
    control = table(study, "controlled").filter(control="matched").join(sentence, on="language")
    control = control.select("language", control="control_more", own_control=pl.col("of_control") * pl.col("tokens"))
    return control.join(taken, on="language").join(mean, on="language", maintain_order="left")


def needed_otherwise(study: str) -> Iterator[str]:
    """The rows of `otherwise`."""
    for row in otherwise(study).iter_rows(named=True):
        cells = [f"{row[name]:.1f}" for name in ("own_taken", "own_control", "taken", "control")]
        yield f"| {row['language']} | {_with_interval(row, 'more', 1)} | {row['at_mean']:.2f} | {' | '.join(cells)} |"


def enough(study: str) -> Iterator[str]:
    """What a set alone restores of what its language loses with all else of the layers at its mean, in each place where some set has neurons: how many of
    the set there are, the loss, the share, other languages' (mean, and that which restores most), control neurons', the set's less theirs, and how much the
    mean changes it over them.
    """
    for row in table(study, "keeping").drop_nulls("restored").iter_rows(named=True):
        share, over = (_with_interval(row, one, 2) for one in ("restored", "over_control"))
        known = [row.get(name) for name in ("by_others", "most_by_others", "by_control", "energy_ratio")]
        others, most, by, ratio = ("–" if one is None else f"{one:.2f}" for one in known)
        cells = [str(row["neurons"]), f"{row['lost']:.2f}", share, f"{others}, {most}", by, over, ratio]
        yield f"| {row['place']} | {row['language']} | {' | '.join(cells)} |"


CONTROLS = {
    "matched": "written energy",
    "matched-apart": "written energy, apart",
    "gate": "gate energy",
    "gate-apart": "gate energy, apart",
}


def beside_controls(study: str) -> Iterator[str]:
    """Each kind of control: own loss less the control's in nats per token, own − others less the control's in nats per sentence, and the energies' ratio."""
    found = table(study, "controlled").filter(pl.col("language") != "en")
    for control, name in CONTROLS.items():
        rows = found.filter(control=control).to_dicts()
        yield f"| {name}: own loss, difference | {' | '.join(_with_interval(row, 'difference', 2) for row in rows)} |"
        yield f"| {name}: own − others, difference | {' | '.join(_with_interval(row, 'more', 1) for row in rows)} |"
        ratios = [f"{row['energy_ratio']:.2f}" for row in rows]
        yield f"| {name}: energy, set ÷ control | {' | '.join(ratios)} |"


def seeds(study: str) -> Iterator[str]:
    """Jaccard of what variation selects of two seeds of one language, and of it and another language, beside that by chance."""
    for row in table(study, "seeds").iter_rows(named=True):
        shares = [_short(row[name]) for name in ("jaccard_seeds", "jaccard_languages", "chance")]
        yield f"| {row['language']}, {row['other']} | {row['neurons']} | {' | '.join(shares)} |"


def over_languages() -> pl.DataFrame:
    """What other methods cost the others over LAPE at equal own effect, in nats per sentence: the mean over languages, with the 95 % t interval of the
    languages' values; the same of the worst other; and the share of the levels, .25 to 1, that both methods were measured at.

    Of the languages' values alone, without their sentences' own spread, which is in the values already.
    """
    every = [study for some in COMPARED.values() for study in some]
    return pl.concat(
        [_over_languages(study) for study in every if (STUDIES / study / "tables/advantages.parquet").exists()]
    )


def _areas(study: str) -> pl.DataFrame:
    """Other methods against LAPE over all levels, a row for each language that could be compared but English."""
    found = table(study, "advantages").filter(~pl.col("language").is_in(["en", "mean"]), method="lape", at="area")
    return found.drop_nulls("difference")


def spared() -> pl.DataFrame:
    """What LAVE and the difference from the largest other cost the others over LAPE on Gemma, in each language, over all levels, on every corpus but the one
    that chose the rules.
    """
    studies = ("gemma-3-270m", "gemma-3-270m-reversed", "selection-finalists/documents", "selection-finalists/flores")
    rules = pl.col("against").is_in(["lave", "difference:against=largest"])
    found = [_areas(study).filter(rules).with_columns(pl.lit(study).alias("study")) for study in studies]
    return pl.concat([some.select("study", "against", "language", "difference", "high", "covered") for some in found])


@cache
def _over_languages(study: str) -> pl.DataFrame:
    whole = table(study, "advantages").filter(language="mean", method="lape", at="area").drop_nulls("difference")
    ends = [f"{name}{end}" for name in ("difference", "worst_difference") for end in ("", "_low", "_high")]
    return whole.rename({"low": "difference_low", "high": "difference_high"}).select(
        *ends, "covered", "languages", study=pl.lit(study), rule="against", lape_better="favoured"
    )


def rivals(study: str) -> Iterator[str]:
    """Other methods against LAPE at equal own effect: how much more their sets cost the others, at each level, and over all (`over_languages`)."""
    found = table(study, "advantages").filter(method="lape", language="mean")
    over = {row["rule"]: row for row in _over_languages(study).iter_rows(named=True)}
    for rule in found["against"].unique(maintain_order=True):
        rows = found.filter(pl.col("at") != "area", against=rule).iter_rows(named=True)
        at = [f"{row['difference']:+.1f} ({row['languages']})" if row["languages"] else "–" for row in rows]
        row = over[rule]
        whole = [_with_interval(row, one, 1) for one in ("difference", "worst_difference")]
        counted = f"{row['lape_better']} of {row['languages']}"
        yield f"| {RULE_NAMES[rule]} | {' | '.join([*at, *whole])} | {_bare(row['covered'])} | {counted} |"


def rivals_by_language(study: str) -> Iterator[str]:
    """The same over all levels, in each language by itself."""
    found = _areas(study)
    for rule in found["against"].unique(maintain_order=True):
        cells = [_with_interval(row, "difference", 2) for row in found.filter(against=rule).iter_rows(named=True)]
        yield f"| {RULE_NAMES[rule]} | {' | '.join(cells)} |"


def _with_interval(row: dict[str, Any], name: str, digits: int) -> str:
    ends = f"{name}_" if f"{name}_low" in row else ""
    value, low, high = (row[one] for one in (name, f"{ends}low", f"{ends}high"))
    if value is None:
        return "–"
    if low is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def kept_after(study: str) -> Iterator[str]:
    """Sentences written otherwise: how much of the damage by a language's neurons stays, what the writings cost, how alike the sets are, and what
    a set found in the other writing costs in both.
    """
    names = {
        "romanised": "in Latin letters",
        "converted": "in traditional characters",
        "shuffled": "with words shuffled",
        "noised": "with letters replaced",
    }
    marks = {"vi-x-ascii", "fr-x-ascii", "es-x-ascii"}
    for row in table(study, "scripts").iter_rows(named=True):
        name = "without marks" if row["variant"] in marks else names[row["kind"]]
        costs = f"{row['nats_native']:.0f} | {row['nats_variant']:.0f}"
        alike = f"{_short(row['jaccard'])} of {_short(row['ceiling'])}"
        found = f"{row['variant_on_variant']:.1f} | {row['variant_on_native']:.1f}"
        yield f"| {row['language']} | {name} | {_with_interval(row, 'kept', 3)} | {costs} | {alike} | {found} |"


def letters_changed(study: str) -> pl.DataFrame:
    """How many letters another writing changes, in percent, in one row with a column for each language (changed.tsv)."""
    known = pl.read_csv(STUDIES / study / "changed.tsv", separator="\t")
    return pl.DataFrame({language: [100 * share] for language, share in known.select("language", "share").iter_rows()})


def answers_lost(study: str) -> Iterator[str]:
    """Good answers with nothing off; lost with a language's neurons off and with matched neurons off, in it, in the others, and in the other that loses
    most; the language that answers turn to; and the energies' ratio.
    """
    before = {row["language"]: row["good"] for row in table(study, "generation").filter(off="none").to_dicts()}
    for row in table(study, "drops").iter_rows(named=True):
        cells = [f"{before[row['language']]:.2f}" if row["language"] in before else "–"]
        cells += [f"{row[name]:.2f}" for name in ("own", "control")] + [_with_interval(row, "value", 2)]
        cells += [f"{row[name]:.2f}" for name in ("others", "control_others")]
        some = row["worst_other"] is not None
        cells += [f"{row['worst_other']} {row['worst']:.2f}", f"{row['control_there']:.2f}"] if some else ["–", "–"]
        turned = row["turned_to"] is not None
        cells += [f"{row['turned_to']} {row['turned']:.2f}", f"{row['control_turned']:.2f}"] if turned else ["–", "–"]
        cells += ["–" if row["energy_ratio"] is None else f"{row['energy_ratio']:.2f}"]
        yield f"| {row['language']} | {' | '.join(cells)} |"


def _condition(row: dict[str, Any]) -> str:
    return f"{row['condition']}, draw {row['draw'] + 1}" if row["condition"] == "control" else row["condition"]


def passages(study: str) -> Iterator[str]:
    """Questions about passages in each language and condition: exact answers and F1; the change of F1, and how much lower it is than with control neurons
    off; the share of answers with a letter that English does not have; the set's written energy over the control's.
    """
    for row in table(study, "answering").iter_rows(named=True):
        cells = [f"{row['questions']}", _bare(row["exact"])]
        cells += [_with_interval(row, one, 2) for one in ("f1", "difference_f1", "below_control")]
        cells += [_bare(marked(study, row["language"], row["condition"], row["draw"]))]
        cells += ["–" if row["energy_ratio"] is None else f"{row['energy_ratio']:.2f}"]
        yield f"| {row['language']} | {_condition(row)} | {' | '.join(cells)} |"


@cache
def plainly_answered(study: str) -> pl.DataFrame:
    """The table `answering` of the questions alone whose answer is written as it would be in English (plain.tsv), made with lape at 8b941f4."""
    return pl.read_parquet(STUDIES / study / "plain.parquet")


def passages_plain(study: str) -> Iterator[str]:
    """Those questions, in each language and condition: F1, its change, and how much lower it is than with control neurons off."""
    for row in plainly_answered(study).iter_rows(named=True):
        cells = [_with_interval(row, one, 2) for one in ("f1", "difference_f1", "below_control")]
        yield f"| {row['language']} | {_condition(row)} | {row['questions']} | {' | '.join(cells)} |"


def lettered(study: str) -> pl.DataFrame:
    """`marked` of every language and condition, in one row with a column for each."""
    known = table(study, "answered").filter(draw=0).select("language", "condition").unique(maintain_order=True)
    return pl.DataFrame({f"{language} {name}": [marked(study, language, name)] for language, name in known.iter_rows()})


def choices(study: str) -> Iterator[str]:
    """Tasks of lm-eval (reading/): the share of right answers in each condition, its change, and less the mean of the control's draws."""
    for row in table(f"{study}/reading", "tasks").sort("metric", maintain_order=True).iter_rows(named=True):
        cells = [row["metric"], _condition(row), f"{row['value']:.3f}"]
        cells += [_with_interval(row, name, 3) for name in ("difference", "less_control")]
        yield f"| {' | '.join(cells)} |"


def marked(study: str, language: str, condition: str, draw: int = 0) -> float:
    """The share of answers to questions about passages with a letter that English does not have."""
    answers = table(study, "answered").filter(language=language, condition=condition, draw=draw)["answer"]
    return sum(any(sign.isalpha() and not sign.isascii() for sign in answer) for answer in answers) / len(answers)


def at_mean(study: str = MAIN) -> pl.DataFrame:
    """The sets' own − others at the mean over the other languages, as a `share` of that at 0."""
    zero, mean = (
        table(study, name).filter(control="matched").select("language", "own_more")
        for name in ("controlled", "patched_controlled")
    )
    both = zero.join(mean, on="language", suffix="_mean")
    return both.select("language", share=pl.col("own_more_mean") / pl.col("own_more"))


JUDGED = {
    "Gemma 3 270M": (MAIN, "selection-finalists/documents"),
    "the other way round": ("gemma-3-270m-reversed",),
    "SmolLM2 135M": ("smollm2-135m", "pv-smollm2"),
    "Qwen2.5-Coder 0.5B": ("qwen2.5-coder-0.5b", "xquad-qwen2.5-coder-0.5b"),
    "Qwen2.5-Coder 1.5B": ("qwen2.5-coder-1.5b",),
}
"""The studies of each model whose verdicts docs/results.md sets side by side."""
KNOWN = {
    ("smollm2-135m", "LAPE above LAP and LAVE"),
    *(
        ("qwen2.5-coder-0.5b", name)
        for name in (
            "own",
            "own loss alone",
            "two languages come apart",
            "two languages come apart both ways",
            "main language",
        )
    ),
}
"""Claims registered before their study that are exploratory all the same: the sizes of the curve were changed after a first run; LAPE's sets had been
switched off on the model, without controls, by the first edition."""


@cache
def _claims(study: str) -> dict[str, Any]:
    found = json.loads((STUDIES / study / "run.json").read_text(encoding="utf-8"))["claims"]
    for one in found:
        one["confirmatory"] = one["standing"]["kind"] == "confirmatory" and (study, one["name"]) not in KNOWN
    return {one["name"]: one for one in found}


def judged() -> Iterator[str]:
    """Each claim judged on some model, and its verdict on each: in bold where it is confirmatory, with the members that were judged otherwise. A claim is
    its text: one that was put otherwise has another row.
    """
    said = {study: _says(study) for some in JUDGED.values() for study in some}
    compared = {claim["says"] for study in said for claim in _written(study) if claim["table"] == "advantages"}
    for name, says in dict.fromkeys(one for some in said.values() for one in some.items()):
        if says in compared:  # by `methods_judged`
            continue
        cells = []
        for some in JUDGED.values():
            known = [_claims(study)[name] for study in some if said[study].get(name) == says and name in _claims(study)]
            found = [one for one in known if one["verdict"] != "not run"]
            cells.append(_verdict(found[0]) if found else "–")
        if set(cells) != {"–"}:
            yield f"| {says} | {' | '.join(cells)} |"


COMPARED = {
    **JUDGED,
    "Gemma 3 270M, 200 sentences of FLORES": ("selection-finalists/flores",),
    "Gemma 3 270M, the 60 sentences of NTREX that chose the rules": ("selection-choice",),
}
"""The studies that compared methods; the last chose those that others were to measure again."""


def methods_judged() -> Iterator[str]:
    """Today's claims on methods, each for every language by itself, judged by the committed tables; they were put after these had been read."""
    from lape.experiments import frontier
    from lape.experiments.claim import beside, read

    for claim in read(beside(frontier.__file__)):
        cells = []
        for some in COMPARED.values():
            found = [_measured(partial(_judged_again, claim), study) for study in some]
            cells.append(next((one for one in found if one), "–"))
        if set(cells) != {"–"}:
            yield f"| {claim.says} | {' | '.join(cells)} |"


def _judged_again(claim: Any, study: str) -> str:
    """The verdict on a claim by a study's tables; nothing where there are none that it is of."""
    from lape.study.claims import judge

    found = table(study, "advantages")
    over = [one for one in found["language"].unique(maintain_order=True) if one not in ("en", "mean")]
    one = judge(claim, {"advantages": found}, {}, over)
    if one.verdict == "not run":
        return ""
    return _verdict({"verdict": one.verdict, "members": one.members.to_dicts(), "confirmatory": False})


def _written(study: str) -> list[dict[str, Any]]:
    """The claims of a study, as its TOML has them."""
    found: list[dict[str, Any]] = tomllib.loads((STUDIES / study / "claims.toml").read_text(encoding="utf-8"))["claims"]
    return found


def _says(study: str) -> dict[str, str]:
    """What each claim of a study says."""
    return {claim["name"]: claim["says"] for claim in _written(study)}


def _verdict(claim: dict[str, Any]) -> str:
    said = claim["verdict"]
    otherwise = [f"{one['member']} {one['verdict']}" for one in claim["members"] if one["verdict"] != said]
    known = f" ({', '.join(otherwise)})" if otherwise else ""
    return f"**{said}**{known}" if claim["confirmatory"] else f"{said}{known}"


# The paper's own sets beside ours


OURS = {
    "Gemma 3 270M": MAIN,
    "SmolLM2 135M": "smollm2-135m",
    "Qwen2.5-Coder 0.5B": "qwen2.5-coder-0.5b",
    "Qwen2.5-Coder 1.5B": "qwen2.5-coder-1.5b",
}
AKIN = (("zh", "ja"), ("fr", "es"), ("vi", "id"))
"""Pairs of languages that are akin, or share a script and neighbours."""


def _ours(name: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """A table of each of our studies that is there."""
    for model, study in OURS.items():
        if (STUDIES / study / f"tables/{name}.parquet").exists():
            yield model, table(study, name)


@cache
def paper_layers() -> pl.DataFrame:
    """`model`, `published`, `language`, `layer`, `neurons` and `depth`, how many layers there are.

    Published is what the masks of Tang et al. (github.com/RUCAIBox/Language-Specific-Neurons) hold, counted by layer; paper/shared.tsv counts pairs.
    """
    columns = ("model", "language", "layer", "neurons")
    published = pl.read_csv(STUDIES / "paper/layers.tsv", separator="\t").select(columns)
    ours = [found.with_columns(model=pl.lit(model)).select(columns) for model, found in _ours("histogram")]
    every = pl.concat([one.with_columns(published=pl.lit(not k)) for k, one in enumerate([published, *ours])])
    return every.with_columns(depth=pl.col("layer").max().over("model") + 1)


@cache
def paper_shared() -> pl.DataFrame:
    """`model`, `published`, `a`, `b` and `jaccard` of their sets."""
    counts = pl.read_csv(STUDIES / "paper/shared.tsv", separator="\t")
    alone = counts.filter(language=pl.col("other"))
    size = {(row["model"], row["language"]): row["neurons"] for row in alone.iter_rows(named=True)}
    rows = [
        (model, True, a, b, both / (size[model, a] + size[model, b] - both))
        for model, a, b, both in counts.filter(pl.col("language") != pl.col("other")).iter_rows()
    ]
    for model, found in _ours("overlap"):
        rows += [(model, False, a, b, both) for a, b, both in found.select("a", "b", "jaccard").iter_rows()]
    return pl.DataFrame(rows, schema=["model", "published", "a", "b", "jaccard"], orient="row")


def paper_places() -> Iterator[str]:
    """Of each model: languages, assignments in all, English ones, and how many lie in the first layer, the second and the top quarter, over an even spread."""
    for some in paper_layers().partition_by("model", maintain_order=True):
        by_layer = some.group_by("layer").agg(pl.col("neurons").sum()).sort("layer")["neurons"].to_numpy()
        share, depth = by_layer / by_layer.sum(), len(by_layer)
        quarter = max(1, depth // 4)
        over = [share[0] * depth, share[1] * depth, share[-quarter:].sum() * depth / quarter]
        english, languages = some.filter(language="en")["neurons"].sum(), some["language"].n_unique()
        cells = [
            f"{languages}",
            f"{depth}",
            f"{by_layer.sum():,}",
            f"{english:,}",
            *(f"{one:.2f}" for one in over),
            f"{by_layer.argmax()}",
        ]
        yield f"| {some['model'][0]} | {' | '.join(cells)} |"


def paper_pairs() -> Iterator[str]:
    """Of each model: the Jaccard of akin pairs, and the means over all other pairs without English and over English with any."""
    for some in paper_shared().partition_by("model", maintain_order=True):
        known = {frozenset((a, b)): jaccard for a, b, jaccard in some.select("a", "b", "jaccard").iter_rows()}
        akin = {frozenset(pair) for pair in AKIN}
        rest = [value for pair, value in known.items() if pair not in akin and "en" not in pair]
        english = [value for pair, value in known.items() if "en" in pair]
        values = [known.get(frozenset(pair)) for pair in AKIN] + [float(np.mean(one)) for one in (rest, english)]
        yield f"| {some['model'][0]} | {' | '.join('–' if one is None else f'{one:.3f}' for one in values)} |"


def paper_losses() -> Iterator[str]:
    """What every language loses with each one's neurons off, nats a token, ours on Gemma; in brackets what is known of the paper's (paper/losses.tsv)."""
    ours, theirs = table(MAIN, "perplexity"), pl.read_csv(STUDIES / "paper/losses.tsv", separator="\t")
    published = {(off, on): value for off, on, value in theirs.iter_rows()}
    languages = [row["language"] for row in _own(MAIN, main=True)]
    for off in languages:
        lost = {row["language"]: row["delta_token"] for row in ours.filter(off=off).iter_rows(named=True)}
        cells = []
        for on in languages:
            known = f" ({_bare(published[off, on])})" if (off, on) in published else ""
            cells.append(f"{_bare(lost[on])}{known}")
        yield f"| {off} | {' | '.join(cells)} |"


def paper_scores() -> Iterator[str]:
    """By how much less GPT-4 scored answers in each language (1 to 10) with one's neurons off, as the paper has it (paper/scores.tsv)."""
    scores = pl.read_csv(STUDIES / "paper/scores.tsv", separator="\t")
    before, languages = scores.filter(off="none").row(0, named=True), scores.columns[1:]
    for row in scores.filter(pl.col("off") != "none").iter_rows(named=True):
        yield f"| {row['off']} | {' | '.join(_bare(before[on] - row[on]) for on in languages)} |"


def paper_ours() -> Iterator[str]:
    """What the paper's figures and tables are about, measured by our studies: a row for each measure, a cell for each model."""
    studies = [study for study in OURS.values() if (STUDIES / study / "tables/dissociated.parquet").exists()]
    for name, cell in _MEASURES.items():
        yield f"| {name} | {' | '.join(_measured(cell, study) or '–' for study in studies)} |"


def _measured(cell: Callable[[str], str], study: str) -> str:
    """Nothing where the study did not run what the measure reads."""
    try:
        return cell(study)
    except FileNotFoundError:
        return ""


def _sizes(study: str) -> str:
    return ", ".join(f"{row['neurons']:.0f} {row['language']}" for row in _own(study, main=True))


def _shared(study: str) -> str:
    every = sum(row["neurons"] for row in _own(study, main=True))
    return f"{every / table(study, 'published')['size'][0]:.2f}"


def shared_neurons() -> pl.DataFrame:
    """How many languages a neuron of Gemma's sets belongs to, on average."""
    return pl.DataFrame({"languages": [float(_shared(MAIN))]})


def _own(study: str, *, main: bool) -> list[dict[str, Any]]:
    rows = table(study, "perplexity").filter(pl.col("off") == pl.col("language")).iter_rows(named=True)
    return [row for row in rows if main or row["language"] != "en"]


def _lost(study: str) -> str:
    return ", ".join(f"{row['language']} {_bare(row['delta_token'])}" for row in _own(study, main=False))


def _english_lost(study: str) -> str:
    (row,) = (one for one in _own(study, main=True) if one["language"] == "en")
    return _bare(row["delta_token"])


def _next(study: str) -> str:
    """The five largest losses of a language with another's neurons off."""
    rows = table(study, "perplexity").filter(pl.col("off") != pl.col("language")).sort("delta_token", descending=True)
    return ", ".join(
        f"{row['off']} → {row['language']} {_bare(row['delta_token'])}" for row in rows.head(5).iter_rows(named=True)
    )


def _apart(study: str) -> str:
    row = table(study, "dissociated").row(by_predicate=pl.col("language") == "mean", named=True)
    return _with_interval(row, "difference", 1)


def _swept(study: str) -> str:
    rows = table(study, "sweep").filter(language="fr").sort("neurons").iter_rows(named=True)
    return "; ".join(f"{row['neurons']:,.0f}: {row['own']:.1f}, {row['others']:.1f}" for row in rows)


def _beside(rule: str, elsewhere: Mapping[str, str] | None = None) -> Any:
    """How much more another rule's sets cost the others than LAPE's; `elsewhere`: studies that have it in a study of its own."""

    def cell(study: str) -> str:
        found = _over_languages((elsewhere or {}).get(study, study)).filter(rule=rule)
        return "".join(_with_interval(row, "difference", 1) for row in found.to_dicts())

    return cell


def _good(study: str) -> str:
    rows = table(study, "drops").filter(~pl.col("language").is_in(["en", "mean"])).iter_rows(named=True)
    return ", ".join(f"{row['language']} {_bare(-row['own'])}" for row in rows)


def _retrieved(study: str) -> str:
    """The share of sentences whose translation is nearest, by layer: in the first, where it is largest, in the last."""
    rows = table(study, "dominance").group_by("layer").agg(pl.col("p_at_1").mean()).sort("layer")
    shares = rows["p_at_1"].to_list()
    at = int(np.argmax(shares))
    return f"first layer {_bare(shares[0])}, layer {at} {_bare(shares[at])}, last {_bare(shares[-1])}"


def _alike(study: str) -> str:
    """Dominance (mean SES) by target language, from the least to the most: in the first layer, in the one where it is largest, in the last."""
    rows = table(study, "dominance").sort("layer")
    means = rows.group_by("layer", maintain_order=True).agg(pl.col("dominance").mean())["dominance"].to_list()
    at = {"first layer": 0, f"layer {int(np.argmax(means))}": int(np.argmax(means)), "last": len(means) - 1}
    found = []
    for name, layer in at.items():
        of = rows.filter(layer=layer)
        low, high = of["dominance"].min(), of["dominance"].max()
        (english,) = of.filter(language="en")["dominance"]
        found.append(f"{name} {_thousandths(low)} to {_thousandths(high)}, en {_thousandths(english)}")
    return "; ".join(found)


def _ranked_alike(study: str) -> str:
    """Spearman's correlation of bits per sentence and own effect per sentence, over languages."""
    found = table(study, "resource")
    return f"{_bare(found.select(pl.corr('bits_per_sentence', 'own_per_sentence', method='spearman')).item())} of {len(found)}"


def _without(study: str) -> str:
    """The Jaccard of a language's set with the one found without one other language: the median of each language left out, from least to most."""
    found = table(study, "dropped").group_by("dropped").agg(pl.col("jaccard").median()).sort("jaccard")
    return ", ".join(f"{language} {_bare(value)}" for language, value in found.iter_rows())


def _by_language(rule: str) -> Any:
    """How much more another rule's sets cost the others than LAPE's, in each language by itself."""

    def cell(study: str) -> str:
        found = _areas(study).filter(against=rule)
        return ", ".join(f"{row['language']} {_with_interval(row, 'difference', 1)}" for row in found.to_dicts())

    return cell


def _halves(study: str) -> str:
    row = table(study, "amount").filter(language="all").sort("folds").to_dicts()[-1]
    return f"{_bare(row['median'])} ({_bare(row['low'])} to {_bare(row['high'])}) with {row['tokens']:,} tokens"


def _domains(study: str) -> str:
    row = table(study, "domain").row(by_predicate=pl.col("language") == "all", named=True)
    return f"{_bare(row['within'])}, {_bare(row['across'])}"


_MEASURES = {
    "neurons of each language": _sizes,
    "languages of a neuron, mean": _shared,
    "own loss with a language's neurons off, nats a token": _lost,
    "of English": _english_lost,
    "the others that lose most, off → measured": _next,
    "two languages come apart, less the control's, nats a sentence": _apart,
    "French neurons off: own, others, nats a sentence": _swept,
    "LAP's sets cost the others more by, nats a sentence": _beside("lap"),
    "LAP's, in each language": _by_language("lap"),
    "LAVE's": _beside("lave"),
    "LAVE's, in each language": _by_language("lave"),
    "PV's": _beside("variation", {"smollm2-135m": "pv-smollm2"}),
    "good answers, change of the share": _good,
    "a translation is nearest, share": _retrieved,
    "dominance (mean SES), from the least to the most language": _alike,
    "sets from halves of the text, Jaccard": _halves,
    "the same kind of text, another kind": _domains,
    "with one language left out, Jaccard of the other sets": _without,
    "bits and own effect per sentence, Spearman over languages": _ranked_alike,
}


def confused(model: str) -> pl.DataFrame:
    """Rates of cross-lingual answers, the mean over sources."""
    return table("confusion", f"{model}-confusion").filter(task="crosslingual", source="all")


def ways(model: str) -> Iterator[str]:
    """Every way of making a model answer in a language: the share in a wrong language or script, LPR, the share that fails with its interval, KL from the
    unedited model, failures by language, and those on questions that are asked in the language itself.
    """
    found, near = confused(model), table("confusion", f"{model}-kl")
    inside = table("confusion", f"{model}-confusion").filter(task="monolingual", source="all", language="all")
    monolingual = dict(inside.select("condition", "failing").iter_rows())
    kl = {way: "∞" if far is None else _short(far) for way, far in _mean_kl(near).iter_rows()}
    languages = [one for one in found["language"].unique(maintain_order=True) if one != "all"]
    for row in found.filter(language="all").iter_rows(named=True):
        each = found.filter(condition=row["condition"])
        shares = [_bare(each.filter(language=one)["failing"].item()) for one in languages]
        failing = f"{_bare(row['failing'])} ({_bare(row['failing_low'])} to {_bare(row['failing_high'])})"
        own = monolingual.get(row["condition"])
        wrong = sum(row[kind] for kind in ("other_language", "other_script", "slipped"))
        cells = [
            _bare(wrong),
            _bare(row["lpr"]),
            failing,
            kl.get(row["condition"], "–"),
            *shares,
            "–" if own is None else _bare(own),
        ]
        yield f"| {row['condition']} | {' | '.join(cells)} |"


def _mean_kl(near: pl.DataFrame) -> pl.DataFrame:
    return near.group_by("way", maintain_order=True).agg(pl.col("kl").mean())


def ranked_heads(model: str) -> Iterator[str]:
    """Of each language the attention heads that make right answers likeliest beside wrong ones, as layer.head with nats, and the first over the second."""
    for (language,), some in table("confusion", f"{model}-heads").group_by("language", maintain_order=True):
        first, *others = some.head(3).iter_rows(named=True)
        named = [f"{row['layer']}.{row['head']} ({row['nats']:.1f})" for row in (first, *others)]
        yield f"| {language} | {first['answers']} | {' | '.join(named)} | {first['nats'] / others[0]['nats']:.1f} |"


def served(model: str) -> Iterator[str]:
    """An adapter at hand and in a server: rates of both, and their difference paired over questions."""
    rates, changes = (table("confusion", f"{model}-{name}") for name in ("served", "served_changes"))
    here, there = rates["condition"].unique(maintain_order=True)
    for task in ("crosslingual", "monolingual"):
        some = rates.filter(pl.col("source") == "all", pl.col("language") != "all", task=task)
        change = changes.filter(pl.col("language") != "all", task=task).row(0, named=True)
        cells = []
        for rate in ("lpr", "failing"):
            cells += [_short(some.filter(condition=one)[rate].item()) for one in (here, there)]
            low, at, high = (
                f"{change[f'{rate}_change{end}']:+.3f}".replace("0.", ".").replace("-", "−")
                for end in ("_low", "", "_high")
            )
            cells.append(f"{at} ({low} to {high})")
        yield f"| {task} | {some['answers'][0]} | {' | '.join(cells)} |"


def kinds_of_failure(model: str) -> Iterator[str]:
    """How cross-lingual answers fail, the mean over languages, of every way."""
    kinds = ("other_language", "other_script", "slipped", "refused", "repeats", "line", "word", "empty")
    for row in confused(model).filter(language="all").iter_rows(named=True):
        yield f"| {row['condition']} | {' | '.join(_bare(row[kind]) for kind in kinds)} |"


def halved(model: str) -> Iterator[str]:
    """Two sides and what they are compared in: the shares of the best of each, chosen on half of the questions and measured on the other, many times over."""
    for row in table("confusion", f"{model}-chosen").filter(language="all").iter_rows(named=True):
        shares = [_short(row[name]) for name in ("none", "line", "failing", "rival_failing")]
        ratio = (
            "–"
            if row["ratio"] is None
            else f"{_bare(row['ratio'])} ({_bare(row['ratio_low'])} to {_bare(row['ratio_high'])})"
        )
        cells = [
            f"{row['side']}, {row['rival']}",
            row["measure"],
            *shares,
            _apart(row, "difference_"),
            _ends(row, "over_languages_"),
        ]
        yield f"| {' | '.join([*cells, ratio])} |"


def halved_by_language(model: str, measure: str) -> Iterator[str]:
    """The same of edits and others in each language, as one text: tables of the same page share some of their rows."""
    found = table("confusion", f"{model}-chosen").filter(
        pl.col("language") != "all", side="edits", rival="others", measure=measure
    )
    lines = []
    for row in found.iter_rows(named=True):
        shares = [_short(row[name]) for name in ("none", "line", "failing", "rival_failing")]
        ways = [f"{row[f'{side}way']} ({row[f'{side}tried']})" for side in ("", "rival_")]
        lines.append(f"| {' | '.join([row['language'], *ways, *shares, _apart(row, 'difference_')])} |")
    yield "\n".join(lines)


def _ends(row: Mapping[str, Any], name: str) -> str:
    low, high = (f"{row[f'{name}{end}']:+.3f}".replace("0.", ".").replace("-", "−") for end in ("low", "high"))
    return f"{low} to {high}"


def _apart(row: Mapping[str, Any], name: str) -> str:
    at = f"{row['difference']:+.3f}".replace("0.", ".").replace("-", "−")
    return f"{at} ({_ends(row, name)})"


def right_as_a_whole(model: str) -> Iterator[str]:
    """Per language, answers that fail by the benchmark's line and word rules, and how many of these are right as a whole: all ways, then the unedited model."""
    found = table("confusion", f"{model}-rule")
    total = pl.col("failing", "right_as_a_whole").sum()
    for (language,), answers in found.group_by("language", maintain_order=True):
        cells = []
        for some in (answers, answers.filter(condition="none")):
            for kind in ("line", "word"):
                row = some.filter(kind=kind).select(total, pl.col("answers").sum()).row(0, named=True)
                cells.append(f"{row['right_as_a_whole']} of {row['failing']}")
            cells.append(f"{row['answers']:,}")
        yield f"| {language} | {' | '.join(cells)} |"


def rule_total(model: str) -> pl.DataFrame:
    """Answers that fail by the line or word rule under any way, and how many of these are right as a whole."""
    return table("confusion", f"{model}-rule").select(pl.col("failing", "right_as_a_whole").sum())


def agreement(model: str) -> pl.DataFrame:
    """Per task, the share of answers that are the same text at hand and in a server, and the share with the same verdict."""
    answers = table("confusion", f"{model}-served_answers")
    rows = []
    for (task,), some in answers.group_by("task", maintain_order=True):
        here, there = (some.filter(condition=name) for name in some["condition"].unique(maintain_order=True))
        if not here.select("source", "question").equals(there.select("source", "question")):
            raise ValueError(f"{model}: the answers to {task} prompts are not in the same order")
        verdicts = [answer["kind"].is_null() for answer in (here, there)]
        rows.append(
            {
                "task": task,
                "texts": (here["answer"] == there["answer"]).mean(),
                "verdicts": (verdicts[0] == verdicts[1]).mean(),
            }
        )
    return pl.DataFrame(rows)


def drawn(model: str) -> Iterator[str]:
    """Ways that were drawn: rates over all seeds, each with its noise floor (and that of the noisiest language), beside greedy decoding's."""
    found = confused(model)
    for row in found.filter(pl.col("failing_floor").is_not_null(), language="all").iter_rows(named=True):
        greedy = row["condition"].removesuffix(", drawn")
        each = found.filter(pl.col("language") != "all", condition=row["condition"])["failing_floor"].max()
        beside = found.filter(condition=greedy, language="all")
        cells = [_bare(row["lpr"]), _short(row["lpr_floor"]), _bare(beside["lpr"].item())]
        cells += [_bare(row["failing"]), _short(row["failing_floor"]), _short(each), _bare(beside["failing"].item())]
        yield f"| {greedy} | {row['seeds']} | {' | '.join(cells)} |"


def mended(model: str) -> Iterator[str]:
    """What `lape fix` chose of each family on one half of the questions, how it did on the other, and on its cross-lingual ones; what it uses in bold."""
    for path in sorted((STUDIES / "confusion/tables").glob(f"{model}-*-cures.parquet")):
        language = path.stem.removeprefix(f"{model}-").removesuffix("-cures")
        rated = table("confusion", path.stem.replace("-cures", "-fixed")).filter(
            source="all", language=language, task="crosslingual"
        )
        crosslingual = dict(rated.select("condition", "failing").iter_rows())
        for row in table("confusion", path.stem).filter("chosen").iter_rows(named=True):
            low, at, high = (row[f"gain{end}"] for end in ("_low", "", "_high"))
            gain = "–" if at is None else f"{at:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")
            name = f"**{row['setting']}**" if row["used"] else row["setting"]
            kl = "–" if row["kl"] is None else _short(row["kl"])
            shares = (row["failing"], row["reported_failing"], crosslingual[row["setting"]])
            yield f"| {language} | {name} | {kl} | {' | '.join(map(_bare, shares))} | {gain} |"


def suffered(model: str) -> Iterator[str]:
    """What the model is good at under a way, less what it is unedited: Python that runs, and F1 on passages."""
    found = table("confusion", f"{model}-tasks")
    for (way, task), some in found.group_by("way", "task", maintain_order=True):
        cells = []
        for row in some.iter_rows(named=True):
            ends = "" if row["low"] is None or way == "none" else f" ({row['low']:+.2f} to {row['high']:+.2f})"
            cells.append(f"{row['language']} {_bare(row['right'])}{ends.replace('-', '−')}")
        yield f"| {way} | {task} | {'; '.join(cells)} |"


TABLES = (judged, steering, calibration)

if __name__ == "__main__":
    for make in TABLES:
        sys.stdout.write("\n".join(["", str(make.__doc__), "", *make(), ""]))
