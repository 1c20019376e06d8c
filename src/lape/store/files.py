"""Writing so that nothing half-written is ever seen, and saying so plainly when a disk or a file fails."""

from __future__ import annotations

import glob
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lape.errors import FileError, LapeError, warn
from lape.store.documents import AGAIN, read_json
from lape.store.lock import sweep

STATE = "state.checkpoint"
"""The file of a half-full folder that says which run it belongs to."""
CELLS, PARTS = "cells", "parts"
"""Folders in it of finished parts, from which a run that was stopped goes on."""
"""What a study wrote down before it read any data: it outlasts whatever is begun anew."""
_SHOWN = 300
"""Characters of a command that are shown."""
_FINISHED = (".parquet", ".safetensors", ".json")
"""What a part that is no folder ends in."""
OURS = ("run.json", "config.json", "figures.json", "lape.json", "reproduce.json")
"""A folder that may be overwritten holds one of these: it is a run, a checkpoint, figures, what was exported, or what is published."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (full disk, no permission) into an error that names the file."""
    try:
        yield
    except LapeError:
        raise
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(
            f"{path} could not be written: {reason}. Free some space or choose another place, then run the same command again."
        ) from error


def cache() -> Path:
    """The cache folder: LAPE_CACHE, or ~/.cache/lape."""
    return Path(
        os.environ.get("LAPE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lape"
    ).expanduser()


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a temporary file beside `path`, then put it in place in one step; on failure leave nothing."""
    with staged(path, save):
        pass


@contextmanager
def staged(path: Path, save: Callable[[Path], object] | None) -> Iterator[None]:
    """Let `save` write a temporary file beside `path`, which takes its place when the block ends, and is gone when it fails.

    So that what belongs together is written before any of it takes an older one's place. Without `save`, nothing takes the place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if save is None:
            yield
            path.unlink(missing_ok=True)
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            mode = _mode_of_new(temporary)
            save(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            _share(temporary, mode)
        yield
        with writing(path):
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Delete what processes that were killed left of this very file."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = old.name.split(".")[-2]
        if number.isdigit() and not _runs(int(number)):
            with suppress(OSError):
                old.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _share(path: Path, mode: int) -> None:
    """Give a file the mode of any new one: safetensors makes its files private."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def _mode_of_new(path: Path) -> int:
    """Make an empty file, and give its mode: the kernel applies the umask, which nobody can ask for without changing it."""
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


def write_text(path: Path, text: str) -> None:
    """Write text in one step."""
    write(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable, in one step. Raises ValueError for NaN and infinities, which JSON has not."""
    write_text(path, as_json(value) + "\n")


def as_json(value: Any) -> str:
    """As it is written."""
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=str, allow_nan=False)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write over something unless told, and over what `lape` did not write even then."""
    if path.name in ("", "..") or path.is_symlink():
        raise FileError(f"{path} cannot be the output. Name a new folder or file.")
    if path.exists() and not overwrite:
        sweep(path)
        raise FileError(
            f"{path} exists already{_made_by(path)}. Choose another name, or give overwrite=True to replace it."
        )
    if path.is_dir() and any(path.iterdir()) and not any((path / name).is_file() for name in OURS):
        raise FileError(f"{path} holds files that lape did not write, so it is not replaced. Choose another name.")
    if path.parent.exists() and not path.parent.is_dir():
        raise FileError(f"{path.parent} is a file. Choose another name.")


def _made_by(path: Path) -> str:
    """Say which command made a folder, so that it can be compared with the one that was typed."""
    try:
        command = read_json(path / "run.json", {"command": [str], ...: object}).get("command")
    except (LapeError, OSError):
        return ""
    return f", made by: lape {shlex.join(command)[:_SHOWN]}" if command else ""


def refuse_unwritable(folder: Path) -> None:
    """Refuse a place for a new folder where nothing can be written. Leaves nothing there."""
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    with writing(folder), tempfile.TemporaryFile(dir=there):
        pass


def partial(path: Path) -> Path:
    """The name under which a run's folder is filled before it is whole."""
    return path.with_name(path.name + ".partial")


def fresh(working: Path) -> None:
    """Empty the place where a folder is filled, unless a stopped recording is kept there."""
    if (working / STATE).exists():
        raise FileError(f"{working} holds a recording that was stopped. Finish it, delete it, or choose another name.")
    with writing(working):
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)


def state_of(working: Path) -> dict[str, Any] | None:
    """Which run a folder that is half full belongs to; None where nothing says so. What is damaged is said, and nothing says so then."""
    path = working / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = read_json(path, {"format": int, ...: object})
    except FileError as error:
        dropped(path, error)
        return None
    return state


def dropped(path: Path, error: FileError) -> None:
    """Without a finished part of a run that was stopped, since it is damaged, and say so."""
    warn(f"{str(error).removesuffix(AGAIN).rstrip()} It is dropped, and what it held is made again.")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def same_run(working: Path, ours: dict[str, Any]) -> None:
    """Note in a folder that is filled step by step which run it belongs to; refuse one that belongs to another.

    Finished parts of which nothing says what they belong to are removed.
    """
    plain = json.loads(json.dumps(ours, default=str))
    theirs = state_of(working)
    if theirs is None:
        for path in working.iterdir() if working.exists() else ():
            if path.name in (CELLS, PARTS):
                shutil.rmtree(path)
            elif path.suffix in _FINISHED:
                path.unlink()
        write_json(working / STATE, plain)
        return
    refuse_other_run(working, theirs, plain)


def refuse_other_run(working: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a folder that is half full of another run, as far as `ours` says which one this is."""
    for key, value in json.loads(json.dumps(ours, default=str)).items():
        if theirs.get(key) != value:
            there, now = (f"{json.dumps(v, ensure_ascii=False):.600}" for v in _apart(theirs.get(key), value))
            raise FileError(
                f"{working} holds a run that was stopped, in which {key} was {there}; now it is {now}. "
                f"Give the same command to go on, choose another place, or delete {working}."
            )


def _apart(there: Any, now: Any) -> tuple[Any, Any]:
    """Of two values of JSON what differs: of objects, the keys that do."""
    if not (isinstance(there, dict) and isinstance(now, dict)):
        return there, now
    keys = [key for key in dict.fromkeys([*there, *now]) if there.get(key) != now.get(key)]
    pairs = {key: _apart(there.get(key), now.get(key)) for key in keys}
    return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}


def finish(working: Path, path: Path) -> None:
    """Rename a whole run folder into place, replacing an older one (whose refusal came earlier).

    Its files get the mode of any new file, whoever wrote them.
    """
    with writing(path):
        probe = working / ".mode.tmp"
        mode = _mode_of_new(probe)
        probe.unlink()
        for file in working.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _share(file, mode)
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        os.replace(working, path)
