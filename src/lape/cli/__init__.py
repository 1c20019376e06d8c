"""The command line: one file a verb, imported when the verb is given: nothing here imports torch before."""

from __future__ import annotations

import ast
import logging
import os
import re
import shlex
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group
from cyclopts.completion.detect import ShellDetectionError

from lape.cli.flags import FromFile, readable
from lape.cli.panels import laid
from lape.cli.said import flags_by_name, in_flags, mistake, usage
from lape.cli.taken import fetched, from_preset, from_run
from lape.errors import FileError, LapeError, LapeWarning, OptionError

ORDER = {
    "Start here": ("demo", "samples", "doctor"),
    "Find: which neurons a model uses for each language": ("record", "identify", "show"),
    "Measure: what they do, beside control neurons": ("perplexity", "examples", "evaluate"),
    "Switch: the language a model writes": ("confusion", "fix", "steer", "play", "force"),
    "Ship": ("export", "push"),
    "Write up": ("report", "figures", "study"),
    "More": ("merge",),
}
"""The functions of the verbs in the order of work, each in a file of its name here, which is imported when the verb is given."""
VERBS = tuple(verb for verbs in ORDER.values() for verb in verbs)
_CALLED = {"evaluate": "eval"}
_OF_PYTHON = re.compile(r" [^.]*: \w+='\w+'\.$")
"""A last sentence that advises an option which the verb does not have."""
ABOUT = (
    "Find the neurons a language model uses for each human language, measure what they do beside control neurons, and switch them.\n\n"
    "Start with `lape demo`, which does all of it on a small model. With a model of your own, begin with `lape doctor MODEL` and go down this page. "
    "`lape VERB --help` lists what a verb takes. A verb that is given a run takes from it the model and how texts are read: "
    "`lape steer RUN 'How are you?' --to fr`."
)
EPILOGUE = (
    "Every verb takes `--config FILE.toml`: its options by name, for instance `tokens = 1_000_000` or `text = ['fr=a.txt']`. One file can "
    "serve several verbs: each reads the options that it has, and everything in the table of its own name, such as `[record]`. "
    "`lape --again PATH` runs the command that made a result once more, with the options that follow."
)


def app() -> App:
    """All verbs."""
    verbs = App(
        name="lape",
        help=ABOUT,
        usage="Usage: lape VERB ...",
        help_epilogue=EPILOGUE,
        version_flags=["--version"],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        config=(from_preset, fetched, from_run, readable),
        group_commands=Group("Options", sort_key=len(ORDER)),
    )
    for at, (title, some) in enumerate(ORDER.items()):
        group = Group(title, sort_key=at)
        for verb in some:
            name = _CALLED.get(verb, verb)
            more: dict[str, Any] = {"group": group, "sort_key": VERBS.index(verb), **laid(name)}
            verbs.command(f"lape.cli.{verb}:{verb}", name=name, help=_docstring(verb), **more)
    one = "Run one experiment of the study on a run; lape run alone lists them."
    verbs.command("lape.cli.experiment:runs", name="run", help=one, group=group, sort_key=len(VERBS))
    verbs.register_install_completion_command(help="Let the Tab key complete verbs and options in this shell.")
    return verbs


def _docstring(verb: str) -> str:
    """What a verb's file says of it, read without importing it."""
    parsed = ast.parse((Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8"))
    body = [node for node in parsed.body if isinstance(node, ast.FunctionDef) and node.name == verb]
    return (ast.get_docstring(body[0]) or "").partition("\nParameters\n")[0].strip()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, whose process this is. Exit code 2, and one paragraph on stderr, for anything a user can mend."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # other libraries' bars are noise in a file
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every layer of every pass
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and give its exit code: 2 for what a user can mend, 130 after Ctrl-C."""
    from rich.text import Text

    from lape.cli.common import COMMAND, err

    code, flags = 2, dict[str, str]()
    try:
        verbs = app()
        if arguments[:1] == ["--again"]:
            from lape.cli.again import recall

            arguments = recall(arguments[1:])
            err.print(shlex.join(["lape", *arguments]), soft_wrap=True)
        COMMAND[:] = arguments
        words = _with_config(verbs, arguments)
        verbs.config = (*verbs.config, lambda _app, _commands, known: flags.update(flags_by_name(known)))
        with _warnings_said(flags), _starting(verbs, words), _usage_shown(verbs, words):
            verbs(words, exit_on_error=False, print_error=False)
    except LapeError as error:
        message = in_flags(str(error), flags)
    except CycloptsError as error:
        ours = error.__cause__  # of an option's value: cyclopts takes every ValueError for its own
        message = in_flags(str(ours), flags) if isinstance(ours, LapeError) else mistake(error)
    except ShellDetectionError:
        message = "The shell could not be recognised. Name it: SHELL=/bin/bash lape --install-completion"
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
    before = () if code == 130 else (("error:", "bold red"), " ")
    err.print(Text.assemble(*before, message), soft_wrap=True)
    return code


@contextmanager
def _usage_shown(verbs: App, words: list[str]) -> Iterator[None]:
    """While inside, the help of the verb that is asked about begins with its usage. Apps of experiments outlive a command, so it is taken back."""
    if {"--help", "-h"}.isdisjoint(words):
        yield
        return
    chain, apps, _ = verbs.parse_commands([word for word in words if word not in ("--help", "-h")])
    asked = apps[-1]
    before = asked.usage
    if chain and asked.default_command is not None:
        command = " ".join(["lape", *chain])
        asked.usage = f"Usage: {usage(command, asked.assemble_argument_collection(parse_docstring=True))}"
    try:
        yield
    finally:
        asked.usage = before


@contextmanager
def _starting(verbs: App, words: list[str]) -> Iterator[None]:
    """While a verb and what it needs is imported, which takes seconds, a terminal says that lape is at it."""
    from lape.cli.common import err

    if not words or words[0].startswith("-") or not {"--help", "-h"}.isdisjoint(words):
        yield
        return
    with err.status("starting") as status:
        verbs.config = (lambda *_: status.stop(), *verbs.config)
        yield


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
                known = _OF_PYTHON.sub("", in_flags(str(message), flags))
                err.print(Text.assemble(("warning:", "yellow"), f" {known}"), soft_wrap=True)

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
            raise OptionError("--config was given no file. Expected one such as --config run.toml.")
        path = Path(value if equals else words[at + 1])
        if not path.is_file():
            raise FileError(f"There is no file {path}. Expected a TOML file with options by name.")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{path} is not TOML: {error}. Expected lines such as  tokens = 1_000_000.") from error
        verbs.config = (FromFile(verbs, path, values), *verbs.config)
        return words[:at] + words[at + (1 if equals else 2) :]
    return words
