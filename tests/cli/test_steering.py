"""`lape steer`, `lape force` and `lape export --scale` as a user meets them, on a made model whose answers are known."""

from __future__ import annotations

import copy
import io
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import lape
from lape.cli import run
from lape.cli.answers import judged
from lape.cli.asked import Question
from lape.cli.common import Terminal
from lape.data import language_id
from lape.data.language_id import Teller
from lape.detect.identify import identify
from lape.errors import OptionError
from lape.experiments.forcing.run import ForcingOptions, forcing
from lape.measure.answers import DEFINITIONS
from lape.measure.bench import Bench
from lape.measure.methods import tried
from lape.options import keywords_of
from lape.recording.record import record
from lape.ship.export import edits_in, said_in
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.stats import ActivationStats
from support.polyglot import (
    LANGUAGES,
    by_letter,
    polyglot,
    polyglot_questions,
    polyglot_texts,
    polyglot_tokenizer,
    sentences,
)
from support.told import without_steps

forcing = keywords_of(ForcingOptions)(forcing)

torch.set_num_threads(1)

QUESTIONS, NATIVE = polyglot_questions(2, 14), polyglot_questions(9, 20)
PROMPT, OTHER = QUESTIONS["en"][:2]
FAMILIES = ("mask", "neurons", "random", "none", "diffmean")
WRITTEN = {
    *(f"{name}.parquet" for name in ("answers", "forcing", "differences", "transfer", "costs", "identification")),
    "forcing.json",
    "run.json",
}


@pytest.fixture(scope="module", autouse=True)
def by_letters():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_id, "lingua", lambda languages, **_: by_letter(languages))
        for name in language_id.IDENTIFIERS:
            patch.setitem(language_id.IDENTIFIERS, name, by_letter)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model, runs of it and of others, texts and questions."""
    folder = tmp_path_factory.mktemp("steering")
    polyglot().save_pretrained(folder / "model")
    polyglot_tokenizer().save_pretrained(folder / "model")
    stats = record(polyglot(), polyglot_tokenizer(), polyglot_texts(1))
    neurons = identify(stats, "difference", per_language=12)
    without = LanguageNeurons(
        stats.space, {**neurons.sets, "fr": NeuronSet(stats.space, torch.empty(0, dtype=torch.int64))}
    )
    foreign = {**stats.manifest, "model": {**stats.manifest["model"], "checksum": "0" * 64}}
    renamed = dict(zip(("de", "sv", "pl"), stats.by_language.values(), strict=True))
    for name, of, found in (
        ("run", stats, neurons),
        ("no-neurons", stats, None),
        ("no-french", stats, without),
        ("foreign", ActivationStats(stats.space, stats.by_language, foreign), None),
        ("renamed", ActivationStats(stats.space, renamed, stats.manifest), None),
    ):
        (folder / name).mkdir()
        of.save(folder / name / "stats.safetensors")
        if found is not None:
            found.save(folder / name / "neurons.safetensors")
    (folder / "empty").mkdir()
    for language in LANGUAGES:
        (folder / f"q.{language}.txt").write_text("\n".join(QUESTIONS[language]) + "\n")
        (folder / f"n.{language}.txt").write_text("\n".join(NATIVE[language]) + "\n")
        (folder / f"text.{language}.txt").write_text("\n".join(sentences(language, 30, 1)))
        (folder / f"other.{language}.txt").write_text("\n".join(sentences(language, 12, 4)))
    (folder / "short.txt").write_text("\n".join(QUESTIONS["fr"][:-1]))
    (folder / "few.txt").write_text("\n".join(QUESTIONS["fr"][:9]))
    (folder / "latin.txt").write_bytes("déjà vu\n".encode("latin-1"))
    return folder


def said_by(capsys, arguments) -> str:
    capsys.readouterr()
    assert run(arguments) == 0
    return " ".join(capsys.readouterr().out.split())


def contents(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*")}


def refused(capsys, place, arguments, *words):
    """Exit code 2, one paragraph that holds the words, and nothing written in the folder."""
    before = contents(place)
    capsys.readouterr()
    assert run(arguments) == 2
    said = without_steps(capsys.readouterr().err).strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    assert len(said) < 1600
    for word in words:
        assert word in said, said
    assert contents(place) == before


# --- steer ---


def steer(folder, *prompts, to="fr", of="run", source=("--from", "en"), more=()):
    where = [] if of is None else ["--run", str(folder / of)]
    start = ["steer", str(folder / "model"), *prompts, "--to", to, *where, *source]
    return [*start, "--sets", "difference:12", "--new-tokens", "6", "--device", "cpu", *more]


def answers(prompt, folder, **options):
    """The model's answer, unsteered and steered."""
    stats = ActivationStats.load(folder / "run")
    neurons = identify(stats, "difference", per_language=12)

    def answer():
        ids = torch.tensor([polyglot_tokenizer()(prompt)["input_ids"]])
        out = polyglot().generate(ids, do_sample=False, max_new_tokens=6, repetition_penalty=1.1, pad_token_id=0)
        return polyglot_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    with lape.steer(polyglot(), neurons, stats=stats, source="en", to="fr", **options):
        steered = answer()
    return answer(), steered


@pytest.mark.parametrize(
    ("source", "more", "asked", "options"),
    [
        (("--from", "en"), (), "Q: {}\nA:", {}),
        ((), (), "Q: {}\nA:", {}),
        (("--from", "eng_Latn"), ("--bare",), "{}", {}),
        (
            (),
            ("--tokens", "generated", "--first", "1"),
            "Q: {}\nA:",
            {"tokens": "generated", "first": 1},
        ),
    ],
    ids=["named source", "told source", "bare", "options"],
)
def test_steer_shows_both_answers_and_the_language_of_each(folder, capsys, source, more, asked, options):
    said = said_by(capsys, steer(folder, PROMPT, OTHER, source=source, more=more))
    expected = []
    for prompt in (PROMPT, OTHER):
        plain, steered = answers(asked.format(prompt), folder, **options)
        (first,), (second,) = by_letter()([plain]), by_letter()([steered])
        assert (first.language, second.language) == ("en", "en" if options else "fr")  # only its first word
        assert steered.split()[0][0] == "f"
        expected += [
            f"{prompt} (en → fr)",
            f"unsteered: {plain.strip()}",
            f"unsteered answer: en, {first.certainty:.0%} certain; cut after 6 tokens (--new-tokens)",
            f"steered: {steered.strip()}",
            f"steered answer: {second.language}, {second.certainty:.0%} certain; cut after 6 tokens (--new-tokens)",
        ]
    count = 0 if options else 2
    assert said == " ".join([*expected, f"Answers in fr: unsteered 0 of 2, steered {count} of 2."])


def test_steer_reads_prompts_from_a_file_and_uses_the_run_s_own_neurons(folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(f"\n {OTHER} \n\n{PROMPT}\n", encoding="utf-8")
    more = ["--file", str(tmp_path / "prompts.txt")]
    said = said_by(capsys, steer(folder, more=more))
    assert said.index(OTHER) < said.index(PROMPT)
    assert said.count("unsteered answer: en") == said.count(" steered answer: fr") == 2
    own = [word if word != "difference:12" else "lape" for word in steer(folder, more=more)]
    assert said_by(capsys, own) == said  # the same neurons, from neurons.safetensors


def test_a_prompt_in_no_language_for_certain_is_taken_for_what_most_of_the_file_are_in(folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\nxxxx ?\n{OTHER}\n", encoding="utf-8")
    capsys.readouterr()
    assert run(steer(folder, source=(), more=["--file", str(tmp_path / "prompts.txt")])) == 0
    said = capsys.readouterr()
    assert said.out.count("(en → fr)") == 3
    assert said.err.startswith("warning: 1 of 3 prompts is of uncertain language ('xxxx ?') and taken to be in en")
    assert "--from TAG" in said.err


def test_one_prompt_that_is_in_the_target_already_stops_no_file_and_is_named(folder, tmp_path, capsys):
    french = QUESTIONS["fr"][0]
    (tmp_path / "prompts.txt").write_text(f"{french}\n{PROMPT}\n", encoding="utf-8")
    capsys.readouterr()
    assert run(steer(folder, source=(), more=["--file", str(tmp_path / "prompts.txt")])) == 0
    said = capsys.readouterr()
    assert said.out.count("(en → fr)") == 2
    assert said.err.startswith(f"warning: 1 of 2 prompts is already in fr ({french!r:.40}) and taken to be in en")
    refused(capsys, tmp_path, steer(folder, french, source=()), f"{french!r:.60} is already in fr", "--from TAG")


@pytest.mark.parametrize("prompt", ["eaaa [/b] ebaa ?", "[red]eaaa[/] ?", "eaaa [ebaa]"])
def test_a_prompt_is_shown_as_it_is(folder, capsys, prompt):
    assert said_by(capsys, steer(folder, prompt)).startswith(f"{prompt} (en → fr)")


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("batch", ["1", "2", "8"])
def test_answers_in_batches_are_those_of_each_prompt_alone_and_are_written_whole(folder, tmp_path, capsys, batch):
    french, english = QUESTIONS["id"][0], QUESTIONS["en"][:4]
    (tmp_path / "p.txt").write_text("\n".join([*english, french]), encoding="utf-8")
    more = ["--file", str(tmp_path / "p.txt"), "--batch", batch, "--out", str(tmp_path / "a.jsonl")]
    said = said_by(capsys, steer(folder, source=(), more=more))
    rows = lines_of(tmp_path / "a.jsonl")
    assert [row["prompt"] for row in rows] == [one for one in (*english, french) for _ in range(2)]
    assert [row["source"] for row in rows] == ["en"] * 8 + ["id"] * 2
    for prompt, pair in zip(english, zip(rows[::2], rows[1::2], strict=True), strict=False):
        assert tuple(row["answer"] for row in pair) == tuple(one.strip() for one in answers(f"Q: {prompt}\nA:", folder))
        assert [row["condition"] for row in pair] == ["unsteered", "steered"]
        assert all(row["target"] == "fr" and row["cut"] and not row["repeats"] for row in pair)
        assert all(row["options"]["batch"] == int(batch) and row["options"]["how"] == "off+set" for row in pair)
    counts = [sum(row["language"] == "fr" for row in rows[at::2]) for at in (0, 1)]
    assert f"Answers in fr: unsteered {counts[0]} of 5, steered {counts[1]} of 5." in said
    assert f"Written: {tmp_path / 'a.jsonl'}" in said
    refused(capsys, tmp_path, steer(folder, source=(), more=more), "a.jsonl", "--overwrite")


def test_a_single_answer_is_counted_too_and_is_the_same_word_by_word_on_a_terminal(folder, capsys, monkeypatch):
    said = said_by(capsys, steer(folder, PROMPT))
    assert said.endswith("Answers in fr: unsteered 0 of 1, steered 1 of 1.")
    file = io.StringIO()
    for module in ("steer", "answers", "common"):
        monkeypatch.setattr(
            f"lape.cli.{module}.out", Terminal(file=file, width=200, force_terminal=True, color_system=None)
        )
    assert run(steer(folder, PROMPT)) == 0
    assert " ".join(file.getvalue().split()) == said


def test_prompts_and_conversations_come_from_json_lines(folder, tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(OTHER)}\n\n{json.dumps({'prompt': PROMPT, 'id': 7})}\n")
    said = said_by(capsys, steer(folder, more=["--file", str(path)]))
    assert said.index(OTHER) < said.index(PROMPT)
    talk = [
        {"role": "user", "content": OTHER},
        {"role": "assistant", "content": "."},
        {"role": "user", "content": PROMPT},
    ]
    path.write_text(f"{json.dumps(talk)}\n{json.dumps({'messages': talk[2:]})}\n")
    refused(capsys, tmp_path, steer(folder, more=["--messages", str(path)]), "no chat template", "-Instruct")
    shutil.copytree(folder / "model", tmp_path / "chat")
    shutil.copytree(folder / "run", tmp_path / "chat-run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path / "chat")
    words = [word.replace(str(folder), str(tmp_path)) for word in steer(folder, more=["--messages", str(path)])]
    words = [word.replace(f"{tmp_path}/model", f"{tmp_path}/chat") for word in words]
    shutil.copytree(folder / "run", tmp_path / "run")
    out = tmp_path / "a.jsonl"
    said = said_by(capsys, [*words, "--system", QUESTIONS["en"][3], "--out", str(out)])
    assert f"{PROMPT} (en → fr after 2 messages)" in said
    rows = lines_of(out)
    assert [len(row["messages"]) for row in rows] == [3, 3, 1, 1]
    assert rows[0]["answer"] != rows[2]["answer"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["p.jsonl, line 2", "is not JSON"]),
        ('{"text": "x"}', ["p.jsonl, line 2", "holds no prompt"]),
        ("[]", ["p.jsonl, line 2", "not a list of messages"]),
        ('[{"role": "user"}]', ["p.jsonl, line 2", "without a role"]),
    ],
)
def test_a_line_that_is_no_prompt_is_named(folder, tmp_path, capsys, line, words):
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(PROMPT)}\n{line}\n")
    refused(capsys, tmp_path, steer(folder, more=["--file", str(tmp_path / "p.jsonl")]), *words)


def test_a_bare_prompt_has_no_system_prompt(folder, tmp_path, capsys):
    refused(
        capsys,
        tmp_path,
        steer(folder, PROMPT, more=["--bare", "--system", "x"]),
        "--bare gives the model each prompt as it is",
    )


def test_an_answer_that_repeats_the_prompt_is_said_to():
    names = Teller(LANGUAGES)
    for answer, expected in ((f"{PROMPT.upper()} eaaa", True), ("eaaa ebaa", False), ("", False)):
        found = judged(Question(PROMPT), ("en", "fr"), "steered", answer, names, cut=False)
        assert found.repeats is expected
        assert ("repeats the prompt" in found.remark(9, told=True)) is expected
        assert ("nothing was written" in found.remark(9, told=True)) == (not answer)


def test_without_an_identifier_languages_are_named_by_hand(folder, tmp_path, capsys, monkeypatch):
    def missing(_languages):
        raise OptionError('lape force needs lingua. Type: pip install ".[lid]"')

    monkeypatch.setattr(language_id, "lingua", missing)
    said = said_by(capsys, steer(folder, PROMPT))
    assert said.count("language not identified (needs the extra lid)") == 2
    refused(capsys, tmp_path, steer(folder, PROMPT, source=()), 'pip install ".[lid]"', "--from en")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"prompts": ()}, ["No prompt was given", 'lape steer MODEL "How are you?" --to fr']),
        ({"prompts": (" ",)}, ["No prompt was given"]),
        ({"to": "zh"}, ["zh was not recorded", "en, fr, id"]),
        ({"to": "frunch"}, ["'frunch' is not a language tag", "such as fr"]),
        ({"source": ("--from", "zh")}, ["zh was not recorded", "en, fr, id"]),
        ({"to": "en"}, ["both en", "Name two languages"]),
        ({"to": "en", "source": ()}, ["both en", "Name another target"]),
        ({"prompts": ("xxxx ?",), "source": ()}, ["The language of", "is uncertain", "en, fr, id", "--from en"]),
        ({"of": None}, ["No run was given", "lape record MODEL --text", "--run RUN"]),
        ({"of": "nowhere"}, ["There is no run", "nowhere", "lape record"]),
        ({"of": "empty"}, ["stats.safetensors"]),
        ({"of": "foreign"}, ["checksum 000000000000…", "lape record"]),
        ({"of": "no-french", "more": ("--sets", "lape")}, ["fr", "--per-language"]),
        ({"more": ("--sets", "difference:few")}, ["'difference:few'", "difference:100"]),
        ({"more": ("--sets", "magic")}, ["magic", "xpected"]),
        ({"more": ("--how", "fly")}, ["fly", "off+add"]),
        ({"more": ("--value", "much")}, ["much"]),
        ({"more": ("--file", "{}/nowhere.txt")}, ["There is no file", "nowhere.txt", "one per line"]),
        ({"more": ("--file", "{}/latin.txt")}, ["latin.txt is not UTF-8"]),
    ],
)  # fmt: skip
def test_what_steer_cannot_do_is_said_in_a_paragraph(folder, tmp_path, capsys, monkeypatch, how, words):
    monkeypatch.chdir(tmp_path)
    prompts = how.get("prompts", (PROMPT,))
    more = [word.format(folder) for word in how.get("more", ())]
    arguments = steer(folder, *prompts, **{**{k: v for k, v in how.items() if k != "prompts"}, "more": more})
    if "--sets" in more:
        at = arguments.index("--sets")
        del arguments[at : at + 2]
    refused(capsys, folder, arguments, *words)


# --- force ---


def force(folder, out, *more, of="run", questions="q.{}.txt", languages=("en", "fr"), without=()):
    flags = []
    files = {
        "--questions": questions,
        "--native": "n.{}.txt",
        "--text": "text.{}.txt",
        "--evaluation": "other.{}.txt",
    }
    for flag, name in files.items():
        for language in () if flag in without else languages:
            flags += [flag, f"{language}={folder}/{name.format(language)}"]
    small = {"--development": "8", "--new-tokens": "6", "--resamples": "20", "--pairs": "en-fr"}
    small = [word for flag, value in small.items() if flag not in more for word in (flag, value)]
    chosen = [] if "--families" in more else [word for family in FAMILIES for word in ("--families", family)]
    start = ["force", str(folder / "model"), "--run", str(folder / of), "--out", str(out), "--device", "cpu"]
    return [*start, *flags, *small, *chosen, *more]


@pytest.fixture(scope="module")
def forced(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("forced") / "out"
    assert run(force(folder, out)) == 0
    return out


@pytest.fixture(scope="module")
def expected(folder):
    """The same, called from Python."""
    texts, evaluation = (
        {language: [f"{folder}/{name}.{language}.txt"] for language in ("en", "fr")} for name in ("text", "other")
    )
    first, rest = (
        {language: QUESTIONS[language][part] for language in ("en", "fr")} for part in (slice(8), slice(8, None))
    )
    return forcing(
        polyglot(),
        polyglot_tokenizer(),
        ActivationStats.load(folder / "run"),
        first,
        rest,
        native={language: NATIVE[language] for language in ("en", "fr")},
        texts=texts,
        evaluation=evaluation,
        neurons=LanguageNeurons.load(folder / "run"),
        pairs="en-fr",
        families=FAMILIES,
        new_tokens=6,
        resamples=20,
    )


def test_force_writes_the_tables_and_where_they_came_from(forced, expected, folder):
    assert {path.name for path in forced.iterdir()} == WRITTEN
    assert not forced.with_name("out.partial").exists()
    files = {"answers": "forced_answers", "differences": "forcing_differences", "transfer": "forcing_transfer"}
    for name in ("forcing", "answers", "differences", "transfer", "costs", "identification"):
        table = pl.read_parquet(forced / f"{name}.parquet")
        assert table.equals(expected[files.get(name, name)])
        assert len(table)
    manifest = json.loads((forced / "run.json").read_text())
    assert (manifest["verb"], manifest["development"], manifest["options"]["pairs"]) == ("force", 8, "en-fr")
    assert manifest["questions"] == {language: QUESTIONS[language] for language in ("en", "fr")}
    assert manifest["native"] == {language: NATIVE[language] for language in ("en", "fr")}
    assert manifest["model"]["checksum"] == ActivationStats.load(folder / "run").manifest["model"]["checksum"]


def test_force_s_json_holds_the_records_and_what_they_mean(forced, expected):
    found = json.loads((forced / "forcing.json").read_text())
    assert found["definitions"] == DEFINITIONS
    assert found["notes"] == list(expected.notes)
    assert "bounded by 20 native answers" in expected.notes[0]
    assert "--residual" in expected.notes[1]
    for name, table in (
        ("records", expected["forcing"]),
        ("costs", expected["costs"]),
        ("differences", expected["forcing_differences"]),
        ("transfer", expected["forcing_transfer"]),
    ):
        assert [list(row) for row in found[name]] == [sorted(table.columns)] * len(table)
        for row, of in zip(found[name], table.to_dicts(), strict=True):
            assert {k: row[k] for k in of} == pytest.approx(of, abs=6e-5)


def test_force_says_what_came_out(folder, forced, expected, tmp_path, capsys):
    said = said_by(capsys, force(folder, tmp_path / "out"))
    shown = ("good − ceiling", "good ÷ ceiling", "chosen on", "source", "target", "third")
    for word in (*shown, "mask", "neurons", "random", "ceiling", expected.notes[0], f"Written: {tmp_path}/out"):
        assert word in said
    for name in WRITTEN - {"run.json", "forcing.json"}:
        assert pl.read_parquet(tmp_path / "out" / name).equals(pl.read_parquet(forced / name))


def test_a_killed_force_goes_on_where_it_was_and_no_other_command_does(folder, forced, tmp_path, capsys, monkeypatch):
    asked, inner = [], Bench.answers

    def counted(self, setting, questions, source, target, examples=()):
        if len(asked) in stops:
            stops.remove(len(asked))
            raise KeyboardInterrupt
        asked.append((setting, len(questions["en"]), source, target))
        return inner(self, setting, questions, source, target, examples)

    monkeypatch.setattr(Bench, "answers", counted)
    stops = [3, 9, 14]
    while stops:
        capsys.readouterr()
        assert run(force(folder, tmp_path / "out")) == 130
        assert "the same command goes on" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    for change, what in (
        (("--new-tokens", "7"), "options"),
        (("--development", "9"), "questions"),
        (("--text", f"en={folder}/other.en.txt"), "texts"),
        (("--evaluation", f"fr={folder}/text.fr.txt"), "evaluation"),
    ):
        refused(
            capsys,
            tmp_path,
            force(folder, tmp_path / "out", *change),
            f"in which {what} was",
            "the same command",
            "delete",
        )
    assert run(force(folder, tmp_path / "out")) == 0
    assert len(asked) == len(set(asked))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
    for name in WRITTEN - {"run.json", "forcing.json"}:
        assert pl.read_parquet(tmp_path / "out" / name).equals(pl.read_parquet(forced / name))


def test_force_takes_bundled_questions_and_writes_beside_the_run_where_nothing_is_named(folder, tmp_path, monkeypatch):
    seen = {}

    def spy(model, tokenizer, stats, development, reporting, options, **more):
        seen.update(development=development, reporting=reporting, **more)
        raise OptionError("enough")

    monkeypatch.setattr("lape.cli.force.forcing", spy)
    shutil.copytree(folder / "no-neurons", tmp_path / "r")
    assert run(["force", str(folder / "model"), "--run", str(tmp_path / "r"), "--device", "cpu"]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["r", "stats.safetensors"]
    assert seen["folder"] == tmp_path / "r" / "forcing.partial"
    assert {k: len(v) for k, v in seen["development"].items()} == {"en": 24, "fr": 24, "id": 24}
    assert {k: len(v) for k, v in seen["reporting"].items()} == {"en": 40, "fr": 40, "id": 40}
    assert set(seen["texts"]) == set(seen["evaluation"]) == set(LANGUAGES)
    assert not set(seen["texts"]["fr"].texts) & set(seen["evaluation"]["fr"].texts)
    assert set(seen["neurons"]) == set(LANGUAGES)


@pytest.mark.parametrize(
    ("more", "how", "words"),
    [
        ((), {"of": "nowhere"}, ["nowhere"]),
        ((), {"of": "empty"}, ["stats.safetensors"]),
        ((), {"of": "foreign"}, ["checksum 000000000000…", "lape record"]),
        ((), {"of": "renamed", "without": ("--questions",)}, ["en, zh, fr", "de, sv, pl", "--questions TAG=PATH"]),
        ((), {"of": "renamed"}, ["no language", "At least two languages"]),
        (("--questions", "en={}/q.en.txt", "--questions", "fr={}/short.txt"), {"without": ("--questions",)},
         ["en 14, fr 13", "Give as many lines to each"]),
        (("--questions", "en={}/few.txt", "--questions", "fr={}/few.txt"), {"without": ("--questions", "--native")},
         ["only 9 questions", "at least 21", "--native"]),
        (("--native", "en={}/few.txt", "--native", "fr={}/few.txt"), {"without": ("--native",)},
         ["only 9 native questions", "at least 19"]),
        (("--native", "en={}/n.en.txt"), {"without": ("--native",)}, ["no native questions in fr"]),
        (("--native", "fr"), {}, ["--native fr"]),
        (("--questions", "en={}/q.en.txt"), {"without": ("--questions",)}, ["At least two languages"]),
        (("--questions", "fr"), {}, ["--questions fr", "--questions fr=french.txt"]),
        (("--questions", "id={}/nothing.txt"), {}, ["no text at", "nothing.txt"]),
        (("--development", "13"), {}, ["development is 13. Expected 2 to 12", "14 questions"]),
        (("--development", "1"), {}, ["development is 1. Expected 2 to 12"]),
        (("--families", "magic"), {}, ["magic", "neurons"]),
        (("--pairs", "en-zh"), {}, ["'en-zh' is not a pair", "en, fr", "en-fr,zh-id"]),
        (("--pairs", "fr-fr"), {}, ["source and target are the same", "Name two languages"]),
        (("--identifier", "nobody"), {}, ["no identifier 'nobody'", "lingua or langid"]),
        (("--text", "id={}/nothing.txt"), {}, ["no text at", "nothing.txt"]),
        (("--evaluation", "id"), {}, ["--evaluation id"]),
        (("--candidates", "1"), {}, ["candidates is 1"]),
    ],
)  # fmt: skip
def test_what_force_cannot_do_is_said_in_a_paragraph(folder, capsys, more, how, words):
    refused(capsys, folder, force(folder, folder / "out", *(word.format(folder) for word in more), **how), *words)


def test_force_replaces_what_it_wrote_only_when_told(folder, forced, tmp_path, capsys):
    refused(capsys, forced.parent, force(folder, forced), str(forced), "--overwrite")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    refused(capsys, tmp_path, force(folder, tmp_path / "thesis", "--overwrite"), str(tmp_path / "thesis"))


def test_force_goes_on_without_settings_that_a_language_lacks_neurons_for(folder, tmp_path, capsys):
    said = said_by(
        capsys, force(folder, tmp_path / "out", "--families", "neurons", of="no-french", without=("--evaluation",))
    )
    assert "was not tried: en → fr: " in said
    assert "lape identify RUN --per-language" in said
    answers = pl.read_parquet(tmp_path / "out" / "answers.parquet").filter(family="neurons")
    assert set(answers["setting"]) == {setting.name for setting in tried("neurons", 3) if setting.sets != "lape"}


# --- export --scale ---


def export(folder, out, *more, of="run"):
    return ["export", str(folder / "model"), str(folder / of), "--out", str(out), "--device", "cpu", *more]


def test_export_scales_the_columns_of_a_language_s_neurons(folder, tmp_path, capsys):
    neurons = LanguageNeurons.load(folder / "run")
    said = said_by(capsys, export(folder, tmp_path / "out", "--scale", "fr=1.5", "--off", "en", "--scale", "id=-2"))
    assert "exported checkpoint" in said
    assert "without en, with fr=1.5, with id=-2" in said
    assert "Largest difference of a logit from the edit at run time" in said
    expected = copy.deepcopy(polyglot()).state_dict()
    for language, factor in (("fr", 1.5), ("en", 0), ("id", -2)):
        for flat in neurons[language].flat.tolist():
            expected[f"model.layers.{flat // 1200}.mlp.down_proj.weight"][:, flat % 1200] *= factor
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-6, atol=0)
    assert not torch.equal(
        state["model.layers.0.mlp.down_proj.weight"], polyglot().model.layers[0].mlp.down_proj.weight
    )


def test_export_writes_a_language_as_an_adapter_of_rank_one(folder, tmp_path, capsys):
    """Read with peft, it is the edit at the gate: the very neurons, raised as they are at run time."""
    from peft import PeftModel

    texts = [
        word
        for tag in LANGUAGES
        for word in ("--text", f"{tag}={folder}/text.{tag}.txt", "--evaluation", f"{tag}={folder}/other.{tag}.txt")
    ]
    more = ["--to", "fr", "--strength", "2", "--sets", "lape", "--format", "lora", *texts]
    said = said_by(capsys, export(folder, tmp_path / "to-fr", *more))
    assert "LoRA adapter" in said
    assert "rank 1: writes fr (strength 2)" in said
    fit = pl.DataFrame(said_in(tmp_path / "to-fr")["fit"])

    def mean(name, language):
        rows = fit.filter(language=language)
        return (rows[name] * rows["positions"]).sum() / rows["positions"].sum()

    far = max(set(fit["language"]) - {"fr"}, key=lambda language: mean("edit", language))
    assert (
        f"KL from the edit at run time {mean('kl', 'fr'):.3f} nats in fr, where the edit moves the model by {mean('edit', 'fr'):.2f}; it moves text in "
        f"{far} by {mean('edit', far):.2f}, the most of {len(LANGUAGES) - 1} other languages. README.md has all languages."
    ) in said
    assert f"Next: look at its answers: lape confusion {folder}/model --adapter {tmp_path}/to-fr --languages fr" in said
    assert "Change of loss on text" in said
    assert "--max-lora-rank 1 " in said
    model, neurons = polyglot(), LanguageNeurons.load(folder / "run")
    (edit,) = edits_in(tmp_path / "to-fr", model)
    assert edit.neurons == neurons["fr"]
    ids = torch.randint(5, len(polyglot_tokenizer()), (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), lape.edited(model, edit):
        expected = model(ids).logits
    with torch.no_grad():
        plain = model(ids).logits
        found = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "to-fr")(ids).logits
    assert float((found - expected).abs().mean()) < 0.2 * float((plain - expected).abs().mean())


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("0.1=inf", "inf is not a finite number"),
        ("0.9=2", "Layer 0 has attention heads 0 to 3, not 9"),
        ("9.0=2", "There is no layer 9 with attention heads"),
    ],
)
def test_heads_that_are_not_there_are_refused_in_a_paragraph(attentive, capsys, head, words):
    refused(capsys, attentive, export(attentive, attentive / "out", "--head", head, of="no-neurons"), words)


def test_export_joins_a_language_to_write_with_one_to_do_without(folder, tmp_path, capsys):
    texts = [word for tag in LANGUAGES for word in ("--text", f"{tag}={folder}/text.{tag}.txt")]
    said = said_by(
        capsys,
        export(folder, tmp_path / "out", "--to", "fr", "--strength", "1", "--off", "en", "--sets", "lape", *texts),
    )
    assert "writes fr (strength 1), without en" in said
    kinds = [type(one).__name__ for one in edits_in(tmp_path / "out", polyglot())]
    assert kinds == ["Off", "Add"]


@pytest.fixture(scope="module")
def attentive(tmp_path_factory) -> Path:
    """The same with attention, which the made model has none of; a run of statistics alone, and one of neurons alone."""
    folder = tmp_path_factory.mktemp("attentive")
    model = copy.deepcopy(polyglot())
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                getattr(layer.self_attn, name).weight.normal_(0, 0.1)
    model.save_pretrained(folder / "model")
    polyglot_tokenizer().save_pretrained(folder / "model")
    stats = record(model, polyglot_tokenizer(), polyglot_texts(1))
    for name, kept in (("no-neurons", stats), ("neurons-alone", identify(stats, "difference", per_language=12))):
        (folder / name).mkdir()
        kept.save(folder / name / ("stats.safetensors" if kept is stats else "neurons.safetensors"))
    return folder


@pytest.mark.parametrize("of", ["no-neurons", "neurons-alone"])
def test_export_scales_attention_heads(attentive, tmp_path, capsys, of):
    """Heads need no neurons: a run with statistics, or with neurons, says of which model they are."""
    folder = attentive
    more = ["--head", "0.1=2", "--head", "1.3=0", "--format", "lora"]
    said = said_by(capsys, export(folder, tmp_path / "out", *more, of=of))
    assert "head 1 of layer 0 × 2, head 3 of layer 1 × 0" in said
    assert "It is the edit" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    first, second = edits_in(tmp_path / "out", model)
    assert (first.factor, second.factor) == (2.0, 0.0)
    assert first.neurons.space.heads(first.neurons.flat) == [(0, 1)]
    assert second.neurons.space.heads(second.neurons.flat) == [(1, 3)]


@pytest.mark.parametrize(
    ("more", "of", "words"),
    [
        ((), "run", ["No edit was given", "--to TAG", "--off TAG", "--scale TAG=FACTOR"]),
        (("--to", "fr"), "run", ["does not say which text was recorded", "--text en=PATH --text fr=PATH"]),
        (("--to", "zh"), "run", ["zh"]),
        (("--to", "fr", "--format", "exe"), "run", ["lora"]),
        (("--scale", "fr"), "run", ["--scale fr has no factor", "--scale fr=1.5"]),
        (("--scale", "fr="), "run", ["has no factor", "--scale fr=1.5"]),
        (("--scale", "fr=much"), "run", ["fr=much has no factor", "--scale fr=1.5"]),
        (("--scale", "fr=inf"), "run", ["inf is not a finite number", "such as 0.5"]),
        (("--scale", "zh=2"), "run", ["no neurons of zh", "en, fr, id"]),
        (("--scale", "frunch=2"), "run", ["'frunch' is not a language tag"]),
        (("--scale", "=2"), "run", ["is not a language tag"]),
        (("--head", "0.1"), "run", ["--head 0.1 is not LAYER.HEAD=FACTOR", "--head 17.2=2"]),
        (("--head", "0.1=much"), "run", ["--head 0.1=much is not LAYER.HEAD=FACTOR"]),
        (("--head", "0=2"), "run", ["--head 0=2 is not LAYER.HEAD=FACTOR"]),
        (("--off", "zh"), "run", ["no neurons of zh", "en, fr, id"]),
        (("--scale", "fr=2"), "no-neurons", ["holds no neurons yet", "lape identify"]),
        (("--scale", "fr=2"), "nowhere", ["nowhere"]),
    ],
)  # fmt: skip
def test_what_export_cannot_do_is_said_in_a_paragraph(folder, capsys, more, of, words):
    refused(capsys, folder, export(folder, folder / "out", *more, of=of), *words)
