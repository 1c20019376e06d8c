"""What leaves the repository: versions agree, the package's description stands by itself, `python -m lape` is `lape`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import yaml
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_that_of_the_changelog_and_the_citation() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## (.+?)(?: - (\d{4}-\d\d-\d\d))?$", changelog, re.MULTILINE)
    assert newest[0] == ("Unreleased", "")
    assert newest[1][0] == PROJECT["version"]
    assert all(date for _, date in newest[1:])
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == PROJECT["version"]


def test_the_description_stands_by_itself() -> None:
    readme = ProjectMetadata(str(ROOT), PluginManager()).core.readme
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert not [link for link in links if not link.startswith("https://")]
    at = f"{PROJECT['urls']['Repository']}/{{}}/v{PROJECT['version']}/"
    own = [link for link in links if link.startswith(PROJECT["urls"]["Repository"])]
    assert own
    for link in own:
        kind = "raw" if f"]({link})" in "".join(re.findall(r"!\[[^\]]*\]\([^)]*\)", readme)) else "blob"
        assert link.startswith(at.format(kind))
        assert (ROOT / link.removeprefix(at.format(kind)).partition("#")[0]).exists(), link
    kept = re.sub(rf"\({re.escape(PROJECT['urls']['Repository'])}/\w+/v[\w.]+/", "(", readme)
    assert kept == (ROOT / "README.md").read_text(encoding="utf-8"), "but for links nothing is changed"


def test_the_wheel_holds_every_file_of_the_package() -> None:
    """Texts and questions too, not code alone."""
    held = {one.distribution_path for one in WheelBuilder(str(ROOT)).recurse_included_files()}
    files = [path for path in (ROOT / "src/lape").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT / "src").as_posix() for path in files} == held
    assert len([one for one in held if "/data/samples/" in one and one.endswith("/zh.txt")]) == 4


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "lape", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: Unknown command "nothing".')


def test_make_says_what_there_is() -> None:
    told = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split()[1] for line in told.splitlines()] == targets[1].split()
