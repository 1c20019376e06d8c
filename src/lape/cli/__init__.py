"""The command line: one file a verb, imported when the verb is given: nothing here imports torch before."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError

from lape.cli.flags import FromFile, readable
from lape.cli.said import flags_by_name, in_flags, mistake
from lape.errors import FileError, LapeError, LapeWarning, OptionError

VERBS = (
    "demo",
    "record",
    "identify",
    "show",
    "perplexity",
    "steer",
    "force",
    "merge",
    "compare",
    "study",
    "examples",
    "report",
    "figures",
    "play",
    "export",
    "plan",
    "doctor",
    "evaluate",
)
"""The functions of the verbs, each in a file of its name here, which is imported when the verb is given."""
_CALLED = {"evaluate": "eval"}
EPILOGUE = (
    "Every verb takes --config FILE.toml: its options by name, for instance  tokens = 1_000_000  or  text = ['fr=a.txt']. One file serves several "
    "verbs: each takes what it knows, and all of the table of its own name, such as [record]."
)


def app() -> App:
    """All verbs."""
    verbs = App(
        name="lape",
        help="Find the neurons a language model uses for each human language, prove that they matter, and switch them.",
        help_epilogue=EPILOGUE,
        version_flags=["--version"],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        config=readable,
    )
    for verb in VERBS:
        verbs.command(f"lape.cli.{verb}:{verb}", name=_CALLED.get(verb, verb), help=_docstring(verb))
    verbs.command("lape.cli.experiment:runs", name="run", help="Run one experiment on a run: lape run lists them.")
    return verbs


def _docstring(verb: str) -> str:
    """What a verb's file says of it, read without importing it."""
    parsed = ast.parse((Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8"))
    body = [node for node in parsed.body if isinstance(node, ast.FunctionDef) and node.name == verb]
    return (ast.get_docstring(body[0]) or "").partition("\nParameters\n")[0].strip()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit code 2, and one paragraph on stderr, for anything a user can mend."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and give its exit code: 2 for what a user can mend, 130 after Ctrl-C."""
    from rich.text import Text

    from lape.cli.common import err

    if not err.is_terminal:
        os.environ.setdefault("TQDM_DISABLE", "1")  # other libraries' bars are noise in a file
    code, flags = 2, dict[str, str]()
    try:
        verbs = app()
        words = _with_config(verbs, arguments)
        verbs.config = (*verbs.config, lambda _app, _commands, known: flags.update(flags_by_name(known)))
        with _warnings_said(flags):
            verbs(words, exit_on_error=False, print_error=False)
    except LapeError as error:
        message = in_flags(str(error), flags)
    except CycloptsError as error:
        ours = error.__cause__  # of an option's value: cyclopts takes every ValueError for its own
        message = in_flags(str(ours), flags) if isinstance(ours, LapeError) else mistake(error)
    except KeyboardInterrupt:
        code = 130  # as shells do: 128 and the signal's number
        message = "Stopped by Ctrl-C. A run that had begun to record or measure is kept in its .partial folder; the same command goes on from there."
    except MemoryError:
        message = "Out of memory. Lower --batch-tokens, or use a smaller model."
    except BrokenPipeError:
        return 0
    except OSError as error:
        message = f"{error.filename or 'A file'}: {error.strerror or error}. Free some space, or check the path and its permissions."
    except RuntimeError as error:
        if "out of memory" not in str(error).lower() and "alloc" not in str(error).lower():
            raise
        message = (
            f"Out of memory on the device. Lower --batch-tokens, or use a smaller model. ({str(error).splitlines()[0]})"
        )
    else:
        return 0
    err.print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)
    return code


@contextmanager
def _warnings_said(flags: Mapping[str, str]) -> Iterator[None]:
    """While inside, a warning of lape's is a paragraph on stderr, each text once; others are as they were."""
    from rich.text import Text

    from lape.cli.common import err

    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LapeWarning)
        show = warnings.showwarning

        def said(message: Warning | str, category: type[Warning], *where: object) -> None:
            if not issubclass(category, LapeWarning):
                show(message, category, *where)  # type: ignore[arg-type]
            elif str(message) not in told:
                told.add(str(message))
                err.print(Text.assemble(("warning:", "yellow"), f" {in_flags(str(message), flags)}"), soft_wrap=True)

        warnings.showwarning = said  # type: ignore[assignment]
        yield


def _with_config(verbs: App, arguments: list[str]) -> list[str]:
    """Take `--config FILE` out of the arguments and let that file give the options not named there."""
    words = list(arguments)
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--config":
            continue
        if not equals and at + 1 >= len(words):
            raise OptionError("--config names no file. Expected --config run.toml.")
        path = Path(value if equals else words[at + 1])
        if not path.is_file():
            raise FileError(f"There is no file {path}. Expected a TOML file with options by name.")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{path} is not TOML: {error}. Expected lines such as  tokens = 1_000_000.") from error
        verbs.config = (FromFile(verbs, path, values), readable)
        return words[:at] + words[at + (1 if equals else 2) :]
    return words
