"""Preregistration: written before any data is read, kept when a study goes on, and what it makes of a claim."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lape.cli import run as cli
from lape.errors import FileError, LapeWarning, OptionError
from lape.experiments import experiments
from lape.experiments.claim import Claim, parsed
from lape.store import files
from lape.study.claims import standing
from lape.study.options import study_options
from lape.study.register import measured_before, register, registered, registration, standing_of

OPTIONS = study_options()(tokens=500)
MODEL = {"id": "a/new-1b", "checksum": "ab" * 32}
CLAIM = Claim("c", "It is so.", "ours", "t", "x", 1.0, "above", {}, written=date(2026, 11, 20), seen=("gemma-3-270m",))


def test_it_holds_the_hashes_the_time_the_version_and_the_options(tmp_path):
    found = register(tmp_path, [CLAIM], "toml", OPTIONS)
    kept = json.loads((tmp_path / "registered.json").read_text())
    sha256 = hashlib.sha256(b"toml").hexdigest()
    assert kept["claims"] == {"sha256": sha256, "each": {"c": CLAIM.digest}, "toml": "toml"}
    assert kept["options"]["tokens"] == 500
    assert kept["registered"] == found.at
    assert found.at.endswith("Z")
    assert kept["lape"]
    assert registration(tmp_path) == found


def test_it_is_kept_when_a_killed_study_goes_on_and_other_claims_are_refused(tmp_path):
    first = register(tmp_path, [CLAIM], "toml", OPTIONS)
    path = tmp_path / "registered.json"
    earlier = path.read_text().replace(first.at, "2026-01-01T00:00:00Z")
    path.write_text(earlier)
    files.same_run(tmp_path, {"format": 1})  # begins a run in this folder, and drops what is of none
    assert register(tmp_path, [CLAIM], "toml", OPTIONS).at == "2026-01-01T00:00:00Z"
    other = dataclasses.replace(CLAIM, margin=0.5)
    with pytest.raises(OptionError, match=r"differ in c\..*give the registered ones.*delete"):
        register(tmp_path, [other], "toml", OPTIONS)
    with pytest.raises(OptionError, match="differ in d"):
        register(tmp_path, [CLAIM, dataclasses.replace(CLAIM, name="d")], "toml", OPTIONS)
    assert path.read_text() == earlier


def test_one_that_was_tampered_with_or_damaged_is_refused(tmp_path):
    register(tmp_path, [CLAIM], "toml", OPTIONS)
    (tmp_path / "registered.json").write_text("{}")
    with pytest.raises(FileError, match="damaged"):
        registration(tmp_path)


def test_a_folder_that_was_begun_without_one_is_not_registered_afterwards(tmp_path):
    (tmp_path / "recorded").mkdir()
    with pytest.warns(LapeWarning, match="begun without registering"):
        assert register(tmp_path, [CLAIM], "toml", OPTIONS) is None
    assert registration(tmp_path) is None


def test_it_is_taken_back_where_nothing_was_read(tmp_path):
    folder = tmp_path / "s.partial"

    def stopped(meanwhile: Any) -> None:
        with registered(folder, [CLAIM], "toml", OPTIONS):
            assert (folder / "registered.json").is_file()
            meanwhile()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(lambda: None)
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt):
        stopped(lambda: (folder / "recorded").mkdir())
    assert registration(folder) is not None


@pytest.mark.parametrize(
    ("claim", "model", "before", "why"),
    [
        (CLAIM, MODEL, False, ""),
        (dataclasses.replace(CLAIM, seen=()), MODEL, False, ""),
        (dataclasses.replace(CLAIM, seen=("new-1b",)), MODEL, False, "results on this model were known"),
        (dataclasses.replace(CLAIM, seen=("ab" * 8,)), MODEL, False, "results on this model were known"),
        (dataclasses.replace(CLAIM, seen=None), MODEL, False, "does not say which results"),
        (CLAIM, MODEL, True, "measured before"),
        (CLAIM, {"id": "gemma-3-270m"}, False, "results on this model were known"),
    ],
)
def test_a_claim_is_confirmatory_where_it_came_first(tmp_path, claim, model, before, why):
    found = register(tmp_path, [claim], "toml", OPTIONS)
    said = standing_of(claim, found, model, before=before)
    assert said.kind == ("exploratory" if why else "confirmatory")
    assert why in said.why
    assert (said.written, said.registered) == ("2026-11-20", found.day)
    assert standing_of(claim, None, model, before=before).why == "not registered before the data were read"
    changed = dataclasses.replace(claim, says="It is otherwise.")
    assert standing_of(changed, found, model, before=before).why == "not registered before the data were read"


def test_what_was_measured_before_is_what_is_joined_and_with_a_run_what_is_of_its_statistics_alone():
    bare = SimpleNamespace(options=study_options()())
    assert measured_before(bare, joined=False) == set()
    older = measured_before(bare, joined=True)
    assert {"layer_claims", "amount", "dropped"} <= older
    assert not older & {"controlled", "published", "advantages", "keeping", "drops"}
    forced = SimpleNamespace(options=study_options()(forcing=Path("forcing.json")))
    assert measured_before(forced, joined=False) == set(experiments()["forcing"].tables)


def test_the_study_registers_before_it_reads_anything_and_a_plan_does_not(tmp_path, monkeypatch, capsys):
    """Asked of the command itself: what reads the texts finds the registration there."""
    seen: list[Any] = []

    def parallel_of(_given: Any) -> Any:
        seen.append(registration(tmp_path / "out.partial"))
        raise OptionError("no such text")

    monkeypatch.setattr("lape.cli.study.parallel_of", parallel_of)
    command = ["study", "nowhere", "--text", "en=x", "--parallel", "en=y", "--out", str(tmp_path / "out")]
    assert cli(command) == 2
    assert seen[0].each == {claim.name: claim.digest for claim in parsed(standing(), "the standing claims")}
    assert not (tmp_path / "out.partial").exists()
    assert cli([*command, "--plan-only"]) == 2
    assert seen[1] is None
    capsys.readouterr()
