"""Every code block of README.md and docs/*.md is run, page by page, in a folder with a made model and texts of the pages' names.

What a page says is never changed, but for the words in the tables below: names that need a network, what `...` stands for, and options
that make a command small. Blocks marked `soak` are run on the real model by `make soak`, those marked so by `make serve-test`; blocks that
cannot be run here say why, and their options are parsed.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cyclopts import MissingArgumentError
from peft import LoraConfig, get_peft_model

import lape
from lape.cli import app, run
from lape.recording.record import record
from support.hub import fake_hub
from support.pages import PAGES, ROOT, Block, blocks, words
from support.planted import planted, planted_tokenizer, sentences

pytestmark = pytest.mark.usefixtures("one_thread")

LANGUAGES = ("en", "fr", "id", "zh")
TEXTS = " ".join(f"--text {language}={language}.txt" for language in LANGUAGES)
PARALLEL = " ".join(f"--parallel {language}=para-{language}.txt" for language in LANGUAGES)
STANDS_FOR = {
    "hf:wikimedia/wikipedia:20231101.id": "id.txt",
    "--text ...": TEXTS,
    "--text fr=french.txt ... --parallel fr=aligned-fr.txt ...": f"{TEXTS} {PARALLEL}",
    "study MODEL ...": f"study MODEL {TEXTS} {PARALLEL} --out STUDY",
    "study MODEL --run RUN ...": f"study MODEL --run RUN {TEXTS} {PARALLEL} --out STUDY",
    "RUN --parallel fr=aligned-fr.txt ...": f"RUN {PARALLEL}",
    "--text fr=fr.txt …": TEXTS,
    "--evaluation fr=other.txt …": " ".join(f"--evaluation {language}={language}2.txt" for language in LANGUAGES),
    "--native fr=native.txt …": " ".join(f"--native {language}=native-{language}.txt" for language in LANGUAGES),
    "--shard 3/16": "--shard 3/16 --batch-tokens 64 --row-tokens 64",
    "$SLURM_ARRAY_TASK_ID": "3",
    "SmolLM2-135M-Instruct.Q4_1.gguf": "sample",
    "--width 11008": "--width 1400",
    "width=11008": "width=1400",
    "--documents 20": "--documents 1",
    "第一篇。": "zh01 zh02 zh03",
    "第二篇。": "zh04 zh05 zh06",
    "fix MODEL --answer fr": f"fix MODEL --answer fr {TEXTS}",
    "--answer ko --avoid en": f"--answer fr {TEXTS}",
    " ...": "",
}
SMALL = {
    "record": "--overwrite",
    "identify": "--overwrite",
    "perplexity": "--overwrite --draws 1 --resamples 100",
    "export": "--overwrite",
    "merge": "--overwrite",
    "steer": "--from en --new-tokens 4",
    "confusion": "--new-tokens 4 --resamples 20",
    "fix": "--limit 40 --new-tokens 3 --sets difference:4 --strengths 1",
    "force": "--overwrite --pairs en-fr --new-tokens 4 --candidates 2 --resamples 50 --families none neurons ceiling",
    "run": "--overwrite --tokens 150 --resamples 50",
    "study": "--overwrite --quick --tokens 150 --sizes 4 --rates 0.002 --draws 1 --resamples 50 --sentences 20 --domain-tokens 300",
    "demo": "--overwrite --sentences 1 --draws 1",
}
CODES = {"fix": 3}
"""Exit codes that are not 0: no adapter makes the made model write French."""
NOT_RUN = {
    "lape eval ": "lm-eval fetches the data of its tasks",
    "--address ": "there is no cluster to be part of",
    "lape play": "it serves until it is stopped",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("MODEL", "google/gemma-3-270m"):
        planted().save_pretrained(folder / name)
        planted_tokenizer().save_pretrained(folder / name)
    _texts(folder)
    _runs(folder)
    _adapter(folder / "ADAPTER")
    shape = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    shape |= {"num_key_value_heads": 8, "vocab_size": 32000, "model_type": "llama", "torch_dtype": "bfloat16"}
    (folder / "llama-2-70b.json").write_text(json.dumps({**shape, "architectures": ["LlamaForCausalLM"]}))
    return folder


def _texts(folder: Path) -> None:
    for language in LANGUAGES:
        for name, seed in ((f"{language}.txt", 1), (f"{language}2.txt", 2), (f"para-{language}.txt", 3)):
            (folder / name).write_text("\n".join(sentences(language, 150, seed)) + "\n")
        (folder / f"native-{language}.txt").write_text("\n".join(sentences(language, 30, 4)) + "\n")
    for name, language in (("french.txt", "fr"), ("other.txt", "fr"), ("other-zh.txt", "zh")):
        (folder / name).write_text("\n".join(sentences(language, 60, len(name))) + "\n")
    records = [{"text": text} for text in sentences("fr", 40, 5)]
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records[:20]))
    pl.DataFrame(records[20:]).write_parquet(folder / "b.parquet")
    (folder / "zh").mkdir()
    for part in (1, 2):
        with gzip.open(folder / "zh" / f"{part}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in sentences("zh", 40, 5 + part))
    (folder / "prompts.txt").write_text("How are you?\n")
    _answers(folder)
    # a prompt, since the made model has no chat template
    (folder / "conversations.jsonl").write_text(json.dumps({"prompt": "How are you?"}) + "\n")


def _answers(folder: Path) -> None:
    """What `lape confusion` reads: prompts, answers, and the benchmark's test sets and outputs."""
    lines = [{"prompt": "How are you?", "language": "fr"}, {"prompt": "Comment vas-tu ?", "language": "fr"}]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    lines = [{"answer": "Je vais bien, merci beaucoup.", "language": "fr"}]
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    sets = folder / "test_sets/crosslingual/okapi"
    sets.mkdir(parents=True)
    wish = "reply in {language_requested}"
    (sets / "fr.csv").write_text(f"prompt,phrasing,language,source\nReply in French. How are you?,{wish},fr,okapi\n")
    said = "0,mine,Je vais bien et toi aussi.,crosslingual,okapi,fr"
    (folder / "outputs.csv").write_text(f"id,model,completion,task,source,language\n{said}\n")


def _runs(folder: Path) -> None:
    texts = {language: folder / f"{language}.txt" for language in LANGUAGES}
    made = lape.load(str(folder / "MODEL"))  # from there, so that the run knows its model
    stats = record(*made, texts, residual=True, out=folder / "RUN")
    neurons = lape.identify(stats)
    neurons.save(folder / "RUN" / "neurons.safetensors")
    for name in ("A.safetensors", "B.pth"):
        three = lape.LanguageNeurons(neurons.space, {k: neurons[k] for k in ("en", "zh", "fr")})
        three.save(folder / name)
    both = {language: texts[language] for language in ("fr", "zh")}
    for shard in range(1, 17):
        if shard != 3:  # the one that the page records
            options = {"shard": f"{shard}/16", "batch_tokens": 64, "row_tokens": 64}
            record(planted(), planted_tokenizer(), both, out=folder / "shards" / str(shard), **options)


def _adapter(folder: Path) -> None:
    low_rank = LoraConfig(target_modules=["gate_proj", "down_proj"])
    get_peft_model(copy.deepcopy(planted()), low_rank).save_pretrained(folder)


@pytest.mark.parametrize("page", [page for page in PAGES if any(one.is_code and not one.mark for one in blocks(page))])
def test_a_page_runs(page: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with fake_hub(tmp_path / "cache"):
        _run([one for one in blocks(page) if not one.mark])


@pytest.fixture(scope="module")
def demo(made: Path) -> Iterator[Path]:
    """The same folder with what `make demo` leaves, of less text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert run(["demo", "--out", "runs/demo", "--sentences", "1", "--draws", "0"]) == 0
    return made


@pytest.mark.soak
@pytest.mark.parametrize("page", [page for page in PAGES if any(one.mark == "soak" for one in blocks(page))])
def test_a_page_runs_on_the_real_model(page: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(demo, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    _run([one for one in blocks(page) if one.mark == "soak"])


def _run(todo: list[Block]) -> None:
    """The blocks of a page, one after the other, in one namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in todo:
        try:
            if block.language == "python":
                exec(compile("\n" * block.line + _meant(block.text), block.page, "exec"), names)
            elif block.language == "toml":
                _write(block)
            for command in block.commands() if block.is_code and block.language != "python" else []:
                _do(command)
        except BaseException as error:
            error.add_note(f"in {block}")
            raise


def _write(block: Block) -> None:
    """A file whose first line is a comment with its name."""
    tomllib.loads(block.text)
    name = block.text.splitlines()[0].removeprefix("# ")
    assert re.fullmatch(r"[\w-]+\.toml", name), f"{block}: expected a first line such as  # run.toml"
    Path(name).write_text(block.text, encoding="utf-8")


def _do(command: str) -> None:
    program, *arguments = words(_meant(command))
    if program == "make":
        assert arguments[0] in re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    elif program == "pip":
        _installs(arguments)
    elif any(part in command for part in NOT_RUN):
        _parse(command)
    else:
        assert program == "lape", command
        assert _code([*arguments, *_small(arguments)]) == CODES.get(arguments[0], 0), command


def _code(arguments: list[str]) -> int:
    try:
        return run(arguments)
    except SystemExit as ended:
        return int(str(ended.code))


def _meant(command: str) -> str:
    for word, meaning in STANDS_FOR.items():
        command = command.replace(word, meaning)
    return command


def _small(arguments: list[str]) -> list[str]:
    """The options that make a verb small, but for those that the page gives."""
    options = re.findall(r"--\S+(?: (?!--)\S+)*", SMALL.get(arguments[0], ""))
    return [word for option in options if option.split()[0] not in arguments for word in option.split()]


def _installs(arguments: list[str]) -> None:
    """The extras of lape that are named exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert arguments[0] == "install"
    for one in re.findall(r"(?:lape|\.)\[(.+?)\]", " ".join(arguments)):
        assert set(one.split(",")) <= set(extras), one


def _parse(command: str) -> None:
    """The options of a `lape` command, wherever in the line it stands, are known and have values that fit."""
    found = words(_meant(command))
    app().parse_args(found[found.index("lape") + 1 :], exit_on_error=False, print_error=False)


def _commands(mark: str) -> list[tuple[Block, str]]:
    """The commands of blocks with a mark, or with one that begins so."""
    return [
        (block, command)
        for page in PAGES
        for block in blocks(page)
        if block.is_code and block.mark.startswith(mark)
        for command in block.commands()
    ]


@pytest.mark.parametrize(("block", "command"), [(b, c) for b, c in _commands("not run") if "lape " in c], ids=str)
def test_what_is_not_run_parses(block: Block, command: str) -> None:
    _parse(command)


@pytest.mark.parametrize(
    ("block", "command"), [(b, c) for b, c in _commands("soak") if b.language == "sh" and "lape " in c], ids=str
)
def test_what_make_soak_alone_runs_has_known_options(block: Block, command: str) -> None:
    with suppress(MissingArgumentError):  # what the run of an earlier command would tell
        _parse(command)


def test_what_a_cluster_is_told_to_run_parses() -> None:
    told = [
        line.split(":", 1)[1]
        for page in PAGES
        for one in blocks(page)
        for line in one.text.splitlines()
        if "entrypoint:" in line
    ]
    assert told
    for command in told:
        _parse(command)


def test_few_blocks_are_not_run() -> None:
    code = [block for page in PAGES for block in blocks(page) if block.is_code]
    left = {block for block, _ in _commands("not run")}
    assert len(code) > 30
    assert len(left) <= 6
    for word in NOT_RUN:
        assert sum(word in command for block in code for command in block.commands()) <= 5, word


def test_make_serve_test_starts_and_asks_each_engine_that_a_page_serves_with() -> None:
    served: dict[str, list[Block]] = {}
    for block in (block for page in PAGES for block in blocks(page)):
        if block.mark.startswith("run by "):
            served.setdefault(block.mark.rpartition(" ")[2], []).append(block)
    assert served
    makes = (ROOT / "Makefile").read_text()
    for engine, found in served.items():
        assert f"\n.venv-{engine}/made:" in makes
        assert f" .venv-{engine}/made" in re.search("^serve-test: (.+)  ##", makes, re.MULTILINE)[1]
        assert "127.0.0.1" in found[0].text, "it listens on loopback alone"
        assert found[-1].commands()[-1].startswith("curl ")


def test_every_block_is_of_a_kind_that_is_known() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("python", "sh", "toml", "yaml", ""), block
            assert block.is_code or not block.mark, f"{block}: a mark on what is not run anyway"
