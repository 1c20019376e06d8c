"""`lape samples`: the bundled texts as files."""

from __future__ import annotations

import json
from pathlib import Path

from lape.cli.common import written
from lape.cli.flags import Switch
from lape.data import samples as bundled
from lape.store import files
from lape.store.draft import Draft


def samples(to: Path = Path("texts"), /, *, overwrite: Switch = False) -> None:
    """Write the bundled texts to files: short parallel documents, some to record in twelve languages, others to measure on in seven.

    Parameters
    ----------
    to
        The folder to write, with record/TAG.jsonl and evaluate/TAG.jsonl. Document i says the same in every language.
    overwrite
        Replace an existing folder.
    """
    with Draft(to, overwrite).anew() as folder:
        for part in bundled.PARTS:
            (folder / part).mkdir()
            languages = bundled.EVERY if part == "record" else bundled.LANGUAGES
            for language, documents in bundled.texts(part, languages=languages).items():
                lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents.texts]
                files.write_text(folder / part / f"{language}.jsonl", "".join(lines))
    written(to)
