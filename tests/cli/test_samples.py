"""`lape samples`: what is written is what is bundled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lape.cli import run
from lape.data import samples


def test_bundled_texts_become_files_of_records_that_share_no_document(tmp_path: Path) -> None:
    assert run(["samples", str(tmp_path / "texts")]) == 0
    for language in samples.LANGUAGES:
        parts = [
            [
                json.loads(line)["text"]
                for line in (tmp_path / "texts" / part / f"{language}.jsonl").read_text().splitlines()
            ]
            for part in samples.PARTS
        ]
        assert [len(part) for part in parts] == [samples.RECORDED, samples.EVALUATED]
        assert tuple(parts[0] + parts[1]) == samples.texts("all")[language].texts


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mine.txt").write_text("mine")
    assert run(["samples", str(tmp_path / "texts")]) == 2
    assert str(tmp_path / "texts") in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["mine.txt"]
