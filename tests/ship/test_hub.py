"""Publishing and fetching, against a Hub on loopback: what is fetched is what was pushed, bit by bit, and nothing is pushed or replaced by halves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lape.cli import app
from lape.cli import run as cli
from lape.errors import FileError, LapeError, OptionError
from lape.ship.hub import fetch, push, write
from lape.ship.layout import EXPORTED, without_places
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats
from support.hub import Hub, fake_hub
from support.planted import LANGUAGES, planted_folder

pytestmark = pytest.mark.usefixtures("one_thread")

LAYOUT = ["README.md", "neurons.safetensors", "reproduce.json", "stats.safetensors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, a `run` with what was measured on it, and a checkpoint, `edited`."""
    folder = planted_folder(tmp_path_factory.mktemp("hub"))
    texts = [word for k in LANGUAGES for word in ("--text", f"{k}={folder}/{k}2.txt")]
    few = ["--draws", "2", "--resamples", "50", "--tokens", "200", "--device", "cpu"]
    assert cli(["perplexity", str(folder / "model"), str(folder / "run"), *texts, *few]) == 0
    out = ["--off", "fr", "--device", "cpu", "--out", str(folder / "edited")]
    assert cli(["export", str(folder / "model"), str(folder / "run"), *out]) == 0
    return folder


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory):
    with fake_hub(tmp_path_factory.mktemp("cache")) as found:
        yield found


def same_stats(a: ActivationStats, b: ActivationStats) -> bool:
    return (
        (a.space, a.languages, a.digest) == (b.space, b.languages, b.digest)
        and all(a[k].tensors.keys() == b[k].tensors.keys() for k in a.languages)
        and all(torch.equal(a[k].tensors[name], b[k].tensors[name]) for k in a.languages for name in a[k].tensors)
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_fetched_is_what_was_pushed(made: Path, hub: Hub) -> None:
    assert push(made / "run", "me/planted").endswith("/me/planted")
    assert sorted(set(hub.files("me/planted")) - {".gitattributes"}) == LAYOUT
    assert LanguageNeurons.from_pretrained("me/planted") == LanguageNeurons.load(made / "run")
    for name in ("me/planted", "hf:me/planted"):
        assert same_stats(ActivationStats.from_pretrained(name), ActivationStats.load(made / "run"))
    commits = [path for method, path in hub.asked if method == "POST" and "/commit/" in path]
    assert len(commits) == 1


def test_values_push_themselves(made: Path, hub: Hub) -> None:
    neurons, stats = LanguageNeurons.load(made / "run"), ActivationStats.load(made / "run")
    neurons.push_to_hub("me/neurons", private=True)
    stats.push_to_hub("me/stats")
    assert hub.private == {"me/neurons"}
    assert LanguageNeurons.from_pretrained("me/neurons") == neurons
    assert same_stats(ActivationStats.from_pretrained("me/stats"), stats)
    for name, kind in (("me/stats", LanguageNeurons), ("me/neurons", ActivationStats)):
        with pytest.raises(FileError, match=rf"{name} holds no .*It holds .*README\.md"):
            kind.from_pretrained(name)


def test_a_revision_is_that_of_then(made: Path, hub: Hub) -> None:
    neurons = LanguageNeurons.load(made / "run")
    fewer = LanguageNeurons(neurons.space, {"fr": neurons["fr"]})
    neurons.push_to_hub("me/neurons")
    first = hub.repositories["me/neurons"][-1][0]
    fewer.push_to_hub("me/neurons", overwrite=True)
    assert LanguageNeurons.from_pretrained("me/neurons", revision=first) == neurons
    assert list(LanguageNeurons.from_pretrained("me/neurons")) == ["fr"]
    with pytest.raises(FileError, match="no such revision"):
        LanguageNeurons.from_pretrained("me/neurons", revision="v7")


def test_a_folder_of_the_layout_is_what_is_pushed_and_needs_no_network(made: Path, tmp_path: Path, hub: Hub) -> None:
    folder = write(made / "run", tmp_path / "look", repo_id="me/planted")
    assert hub.asked == []
    assert LanguageNeurons.from_pretrained(folder) == LanguageNeurons.load(made / "run")
    assert same_stats(ActivationStats.from_pretrained(folder), ActivationStats.load(made / "run"))
    assert hub.asked == []
    push(made / "run", "me/planted")
    pushed = hub.files("me/planted")
    pushed.pop(".gitattributes")
    assert files_of(folder) == pushed


def test_what_is_published_is_not_written_over(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    before = files_of(tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "run" / ".." / "run"):
        with pytest.raises(FileError, match="not written over"):
            write(tmp_path / "run", folder, overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="did not write"):
        write(made / "run", tmp_path / "notes", overwrite=True)
    with pytest.raises(FileError, match="overwrite=True"):
        write(made / "run", tmp_path / "run")
    assert files_of(tmp_path / "run") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run"]


def test_a_folder_that_was_looked_at_is_pushed_as_it_is(made: Path, tmp_path: Path, hub: Hub) -> None:
    folder = write(made / "run", tmp_path / "look", repo_id="me/planted")
    with (folder / "README.md").open("a") as file:
        file.write("And a word of mine.\n")
    push(folder, "me/planted")
    assert hub.files("me/planted")["README.md"].endswith(b"And a word of mine.\n")
    neurons = LanguageNeurons.load(folder)  # the card speaks of others than these
    LanguageNeurons(neurons.space, {"fr": neurons["fr"]}).save(folder / "neurons.safetensors", overwrite=True)
    push(folder, "me/planted", overwrite=True)
    card = hub.files("me/planted")["README.md"].decode()
    assert "a word of mine" not in card
    assert "| zh | 8 |" not in card


def test_an_exported_folder_is_pushed_as_it_is_with_how_it_was_made(made: Path, hub: Hub) -> None:
    (made / "edited" / ".cache").mkdir(exist_ok=True)
    (made / "edited" / ".cache" / "x").write_text("mine")
    push(made / "edited", "me/edited")
    pushed = hub.files("me/edited")
    before = files_of(made / "edited")
    assert set(pushed) - {".gitattributes"} == set(before) - {".cache/x"} | {"README.md", "reproduce.json"}
    assert all(pushed[name] == before[name] for name in ("model.safetensors", "config.json", "tokenizer.json"))
    assert json.loads(pushed["reproduce.json"])["exported"]["edits"][0]["edit"] == "off"
    assert "switched off (zero ablation)" in pushed["README.md"].decode()


def test_an_adapter_keeps_its_card(tmp_path: Path, hub: Hub) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    said = {"kind": "adapter", "made_from": {"model": {"id": "a/b", "path": None, "checksum": "c" * 64}}, "edits": []}
    content = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\0" * 8, "README.md": b"# Mine\n"}
    for name, one in {**content, EXPORTED: json.dumps(said).encode()}.items():
        (adapter / name).write_bytes(one)
    push(adapter, "me/adapter")
    pushed = hub.files("me/adapter")
    assert {name: pushed[name] for name in (*content, EXPORTED)} == files_of(adapter)
    assert json.loads(pushed["reproduce.json"])["kind"] == "Adapter"


def test_no_path_of_this_machine_leaves_it(made: Path, hub: Hub) -> None:
    texts = [word for k in LANGUAGES for word in ("--text", f"{k}={made}/{k}.txt")]
    recorded = ["record", str(made / "model"), *texts, "--document", "line", "--row-tokens", "64", "--device", "cpu"]
    assert cli([*recorded, "--overwrite", "--out", str(made / "mine")]) == 0
    assert cli(["identify", str(made / "mine"), "--no-reliability", "--overwrite"]) == 0
    push(made / "mine", "me/mine", base_model="them/their-model")
    push(made / "edited", "me/edited")
    for name in ("me/mine", "me/edited"):
        for file, content in hub.files(name).items():
            assert str(made).encode() not in content, file
    fetched, here = LanguageNeurons.from_pretrained("me/mine"), LanguageNeurons.load(made / "mine")
    assert {k: one.flat.tolist() for k, one in fetched.items()} == {k: one.flat.tolist() for k, one in here.items()}
    assert (fetched.digest, fetched.made_from, fetched.profile) == (here.digest, here.made_from, here.profile)
    assert fetched.manifest["model"] == {**here.manifest["model"], "id": "them/their-model", "path": None}
    assert "base_model: them/their-model" in hub.files("me/mine")["README.md"].decode()


@given(
    st.lists(st.text("ab .", min_size=1).filter(lambda part: part.strip(" .")), min_size=1, max_size=4), st.booleans()
)
def test_only_the_last_part_of_a_place_is_left(parts: list[str], labelled: bool) -> None:
    before = "fr=" if labelled else ""
    assert without_places({"a": [f"{before}/{'/'.join(parts)}"]}) == {"a": [before + parts[-1]]}
    assert without_places([f"{before}{'/'.join(parts)}", 1, None, "https://a.b/c"]) == [
        f"{before}{'/'.join(parts)}",
        1,
        None,
        "https://a.b/c",
    ]


def refused(kind: type[LapeError], match: str, *given_: object, **how: object) -> None:
    with pytest.raises(kind, match=match) as told:
        push(*given_, **how)
    assert "\n" not in str(told.value)


def test_a_name_that_is_taken_is_left_alone(made: Path, hub: Hub) -> None:
    hub.put("me/model", {".gitattributes": b"", "config.json": b"{}"})
    push(made / "run", "me/planted")
    before = {name: list(commits) for name, commits in hub.repositories.items()}
    refused(FileError, "already, with 4 files.*overwrite=True", made / "run", "me/planted")
    refused(FileError, "did not put there", made / "run", "me/model", overwrite=True)
    refused(FileError, "for everyone to see, and a private", made / "run", "me/planted", private=True, overwrite=True)
    assert hub.repositories == before
    hub.put("me/empty", {".gitattributes": b""})
    push(made / "run", "me/empty")
    assert LanguageNeurons.from_pretrained("me/empty") == LanguageNeurons.load(made / "run")


def test_overwriting_takes_away_what_is_no_more(made: Path, hub: Hub) -> None:
    push(made / "run", "me/planted")
    LanguageNeurons.load(made / "run").push_to_hub("me/planted", overwrite=True)
    assert sorted(hub.files("me/planted")) == [".gitattributes", *LAYOUT[:3]]
    assert len(hub.repositories["me/planted"]) == 3  # made, pushed, and replaced in one commit


def test_what_somebody_else_pushed_meanwhile_is_not_replaced(made: Path, hub: Hub) -> None:
    push(made / "run", "me/planted")
    hub.meanwhile.append(lambda: hub.put("me/planted", {"reproduce.json": b"{}", "theirs": b"theirs"}))
    refused(FileError, "changed on the Hub meanwhile", made / "run", "me/planted", overwrite=True)
    assert sorted(hub.files("me/planted")) == ["reproduce.json", "theirs"]


def test_what_cannot_be_pushed_is_one_paragraph(made: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("planted", "me/", "me/a b", "me/a--b", "a/b/c", "me/x.git"):
        refused(OptionError, "OWNER/NAME", made / "run", name)
    refused(FileError, "holds nothing to publish", made / "model", "me/x")
    refused(FileError, "not there", made / "nothing", "me/x")
    refused(OptionError, "base_model", made / "run", "me/x", base_model="gemma")
    refused(FileError, "no right to it.*hf auth login", made / "run", "others/planted")
    assert hub.repositories == {}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(FileError, "not valid.*hf auth login", made / "run", "me/x")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(made / "no-token"))
    refused(FileError, "There is no access token.*hf auth login", made / "run", "me/x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(FileError, "HF_HUB_OFFLINE=0", made / "run", "me/x")
    assert hub.repositories == {}


@pytest.mark.parametrize("down", ["validate-yaml", "preupload", "/commit/"])
def test_a_push_that_fails_midway_leaves_an_empty_repository_that_the_next_fills(
    made: Path, hub: Hub, down: str
) -> None:
    hub.down = (down,)
    refused(FileError, "me/planted was made and is empty: the same command fills it", made / "run", "me/planted")
    assert set(hub.files("me/planted")) == {".gitattributes"}
    hub.down = ()
    push(made / "run", "me/planted")
    assert sorted(set(hub.files("me/planted")) - {".gitattributes"}) == LAYOUT


def test_a_hub_that_cannot_be_reached_is_one_paragraph(made: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(made / "run", "me/planted")
    fetch("me/planted")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    refused(FileError, "could not be reached for me/other.*Nothing was pushed", made / "run", "me/other")
    with pytest.raises(FileError, match=r"could not be reached for me/other.*Nothing was fetched"):
        fetch("me/other")
    assert LanguageNeurons.from_pretrained("me/planted") == LanguageNeurons.load(made / "run"), "it was fetched before"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert LanguageNeurons.from_pretrained("me/planted") == LanguageNeurons.load(made / "run")
    with pytest.raises(FileError, match=r"me/other was not fetched before.*HF_HUB_OFFLINE=0 to fetch it"):
        fetch("me/other")


def test_a_name_with_nothing_behind_it_is_said(tmp_path: Path, made: Path, hub: Hub) -> None:
    with pytest.raises(FileError, match=r"no folder nobody/there here, and nothing of that name"):
        LanguageNeurons.from_pretrained("nobody/there")
    with pytest.raises(FileError, match=r"no folder nowhere\. Expected"):
        LanguageNeurons.from_pretrained("nowhere")
    with pytest.raises(OptionError, match="no revisions"):
        LanguageNeurons.from_pretrained(made / "run", revision="main")
    with pytest.raises(
        FileError, match=r"holds no language neurons \(neurons\.safetensors\)\. It holds .*config\.json"
    ):
        LanguageNeurons.from_pretrained(made / "model")
    with pytest.raises(FileError, match="It is empty"):
        LanguageNeurons.from_pretrained(tmp_path)


# The card


def test_the_card_says_which_model_text_and_method(made: Path, tmp_path: Path) -> None:
    card = (write(made / "run", tmp_path / "look", repo_id="me/planted") / "README.md").read_text()
    neurons = LanguageNeurons.load(made / "run")
    for said in (
        neurons.manifest["model"]["checksum"],
        neurons.manifest["tokenizer"]["hash"],
        "rate 0.01",
        "- language-neurons",
        "- lape",
    ):
        assert said in card
    for language in LANGUAGES:
        text = neurons.manifest["corpus"][language]
        assert f"| {language} | {language}.txt | {text['documents']} | {text['tokens']:,} | `{text['hash']}` |" in card
        assert f"| {language} | {len(neurons[language])} | {len(neurons.only(language))} |" in card
    by_layer = [[str(layer), *(str(len(neurons[k].by_layer().get(layer, ()))) for k in LANGUAGES)] for layer in (0, 1)]
    assert all(f"| {' | '.join(row)} |" in card for row in by_layer)
    assert "Its licence: see the base model." in card
    assert "license" not in card.partition("\n---\n")[0]


def test_no_effect_stands_without_its_control(made: Path, tmp_path: Path) -> None:
    import polars as pl

    card = (write(made / "run", tmp_path / "look", repo_id="me/x") / "README.md").read_text()
    measured = pl.read_parquet(made / "run" / "perplexity" / "controlled.parquet")
    assert len(measured.filter(pl.col("draws") > 0))
    for row in measured.iter_rows(named=True):
        said = f"| {row['language']} | {row['own']:.3f} | {row['control']} | {row['draws']} |"
        assert (said in card) == (row["draws"] > 0)
        assert f"| {row['of_control']:.3f} | {row['largest']:.3f} | {row['difference']:.3f}" in card
    neurons = LanguageNeurons.load(made / "run")
    others = LanguageNeurons(neurons.space, {"fr": neurons["fr"]}, manifest=neurons.manifest)
    shutil.copytree(made / "run", tmp_path / "run")
    own = tmp_path / "run" / "neurons.safetensors"
    others.save(own, overwrite=True)
    assert "Not measured here" in (write(tmp_path / "run", tmp_path / "other") / "README.md").read_text()
    neurons.save(own, overwrite=True)  # and measured by a study, within the run
    (tmp_path / "run" / "study").mkdir()
    (tmp_path / "run" / "perplexity" / "run.json").rename(tmp_path / "run" / "study" / "run.json")
    (tmp_path / "run" / "perplexity").rename(tmp_path / "run" / "study" / "tables")
    assert (write(tmp_path / "run", tmp_path / "studied", repo_id="me/x") / "README.md").read_text() == card


def test_the_base_models_licence_is_said_where_its_card_is_at_hand(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    neurons = LanguageNeurons.load(made / "run")
    model = {**neurons.manifest["model"], "path": str(tmp_path / "model"), "id": "model"}
    here = LanguageNeurons(neurons.space, dict(neurons.sets), manifest={**neurons.manifest, "model": model})
    for content, said in (
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2\\.0|apache-2.0"),
        ("---\nlicense: other\nlicense_name: planted\n---\n", "planted"),
        ("---\nlicense: [1, 2]\n---\n", "see the base model"),
        ("---\n: : :\n  - [\n---\n", "see the base model"),
        ("no metadata", "see the base model"),
    ):
        (tmp_path / "model" / "README.md").write_text(content)
        card = (here.save_pretrained(tmp_path / "look", overwrite=True) / "README.md").read_text()
        assert any(f"Its licence: {one}." in card for one in said.split("|")), content


def test_lines_of_use_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Those of neurons that carry activations, of sets alone, and of statistics; the model is one's own."""
    neurons = LanguageNeurons.load(made / "run")
    sets = {k: NeuronSet(one.space, one.flat) for k, one in neurons.items()}
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "model", tmp_path / "MODEL")
    for one in (neurons, LanguageNeurons(neurons.space, sets), ActivationStats.load(made / "run")):
        card = (one.save_pretrained("look", overwrite=True) / "README.md").read_text()
        code = card.partition("```python\n")[2].partition("```")[0].replace('"How are you?"', '"en02 en03"')
        assert len(code.strip().splitlines()) <= 7
        exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_what_stands_in_a_manifest_is_no_markup(tmp_path: Path) -> None:
    space = NeuronSpace.dense(2, 5)
    manifest = {"model": {"id": "a|b`<script>`", "checksum": "c" * 64}, "versions": {"<b>": "1 | 2"}}
    neurons = LanguageNeurons(space, {"fr": NeuronSet(space, torch.tensor([1]))}, manifest=manifest)
    card = (neurons.save_pretrained(tmp_path / "look") / "README.md").read_text()
    assert "`ab<script>`" in card
    assert "\\<b\\> 1 \\| 2" in card


# On the command line


def test_a_run_is_pushed_looked_at_and_used_by_its_name(made: Path, tmp_path: Path, hub: Hub, capsys) -> None:
    assert cli(["push", str(made / "run"), "me/planted", "--out", str(tmp_path / "look")]) == 0
    assert hub.repositories == {}
    assert cli(["push", str(tmp_path / "look"), "me/planted"]) == 0
    assert "/me/planted" in capsys.readouterr().out
    assert cli(["show", "hf:me/planted"]) == 0
    assert "Language neurons (lape)" in capsys.readouterr().out
    steer = ["steer", str(made / "model"), "fr01 fr02", "--run", "hf:me/planted", "--from", "fr", "--to", "en"]
    assert cli([*steer, "--new-tokens", "2", "--device", "cpu"]) == 0
    push(made / "run", "me/other", base_model="them/their-model")
    _, bound, *_ = app().parse_args(["steer", "hf:me/other", "hello", "--to", "fr"], exit_on_error=False)
    assert (bound.arguments["model"], bound.arguments["run"]) == ("them/their-model", fetch("me/other"))
    assert cli(["show", str(made / "run"), "--with", "hf:me/planted"]) == 0
    capsys.readouterr()
    assert cli(["push", str(made / "run"), "me/planted"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli(["identify", "hf:me/planted", "--per-language", "4"]) == 2
    assert "hf download me/planted --local-dir planted" in capsys.readouterr().err
    assert cli(["identify", "hf:me/planted", "--no-reliability", "--out", str(tmp_path / "four.safetensors")]) == 0
    assert cli(["show", "hf:nobody/there"]) == 2
    assert "Traceback" not in capsys.readouterr().err
