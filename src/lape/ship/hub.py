"""One thought, publishing and fetching: neurons, statistics, adapters and checkpoints by a name on the Hugging Face Hub, or in a folder of its layout.

`lape.ship.layout` says what is published. Access tokens are the affair of huggingface_hub: HF_TOKEN, or `hf auth login`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import NoReturn

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    is_offline_mode,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo

from lape.errors import FileError, LapeError, OptionError, told
from lape.ship.layout import EXPORTED, HELD, HUB_NAME, REPRODUCE, Source, contents, found_in
from lape.store import files
from lape.store.draft import Draft

SCHEME = "hf:"
"""Before a name on the Hub, where a word may be a path too."""
_OURS = (REPRODUCE, EXPORTED)
"""A repository that may be overwritten holds one of these."""
_EMPTY = (".gitattributes", ".gitignore")
"""What a repository may hold in which nothing was put yet."""
_ONLINE = "Offline mode is on (HF_HUB_OFFLINE=1), so the Hugging Face Hub is not asked. Set HF_HUB_OFFLINE=0 to {what}{instead}."


def write(
    source: Source,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    base_model: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a folder of exactly what `push` would publish, to look at or to pass on without the Hub, and give its path.

    `source`: `LanguageNeurons`, `ActivationStats`, or the folder of a run, or of an adapter or checkpoint that `lape.export` wrote. `repo_id`: what the
    lines of use on its card call it; by default the folder. `base_model`: the model's name on the Hub, where it was loaded from a folder.

    Beside the files themselves: README.md, a card (unless there is one) of the model, the text, the method, the size by language and layer, and the
    measured effect beside its control; and reproduce.json, the versions, commands and options. Paths of this machine are left out of all of it. Raises
    FileError where `folder` exists and `overwrite` is not given, and for a source that holds nothing to publish.

    Example:
        >>> from lape.ship.hub import write
        >>> folder = write("run", "look", repo_id="me/neurons")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'neurons.safetensors', 'reproduce.json', 'stats.safetensors']
        >>> lape.LanguageNeurons.from_pretrained("look") == lape.LanguageNeurons.load("run")
        True
    """
    out = Path(folder)
    files.refuse_existing(out, overwrite)
    if isinstance(source, (str, Path)) and out.resolve() == Path(source).resolve():
        raise FileError(f"{out} is the folder that is to be published, so it is not written over. Choose another name.")
    found = found_in(source)
    with Draft(out, overwrite).anew() as working, files.writing(out):
        for name, path in contents(found, working, repo_id or str(folder), base_model).items():
            if path != working / name:
                (working / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, working / name)
    return out


def push(
    source: Source,
    repo_id: str,
    *,
    base_model: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Publish neurons, statistics, an adapter or a checkpoint on the Hugging Face Hub, and give its address.

    `source` and `base_model`: as of `write`, which says what is published. `repo_id`: OWNER/NAME; it is made if it is not there, for everyone to see unless
    `private`. All files come in one commit: they are there together, or none is. With `overwrite` that commit also takes away what `lape` put there before.

    Raises OptionError for a name that cannot be one; FileError where the name is taken and `overwrite` is not given, or holds what `lape` did not put there,
    without a token, offline, and where the Hub cannot be reached or refuses.

    Example:
        >>> from lape.ship.hub import push
        >>> push("run", "me/planted").endswith("/me/planted")
        True
        >>> lape.LanguageNeurons.from_pretrained("me/planted") == lape.LanguageNeurons.load("run")
        True
    """
    if not HUB_NAME.fullmatch(repo_id):
        raise _no_name(repo_id)
    found = found_in(source)
    if is_offline_mode():
        raise FileError(_ONLINE.format(what="push", instead=", or write a folder of the same files instead"))
    if get_token() is None:
        raise FileError(
            "There is no access token of the Hugging Face Hub, without which nothing can be pushed. Make one with the right to write at "
            "https://huggingface.co/settings/tokens, then type: hf auth login (or set HF_TOKEN)."
        )
    api = HfApi(library_name="lape", library_version=version("lape"))
    with TemporaryDirectory() as scratch:
        held = contents(found, Path(scratch), repo_id, base_model)
        with _asking(repo_id):
            there = _repository(api, repo_id)
            old = _replaced(repo_id, there, overwrite=overwrite, private=private)
            if there is None:
                api.create_repo(repo_id, private=private or None)  # as its owner has it by default
        with _asking(repo_id, made=there is None):
            _commit(
                api,
                repo_id,
                held,
                [name for name in old if name not in held],
                parent=there.sha if old and there else None,
            )
    return f"{api.endpoint}/{repo_id}"


def _no_name(repo_id: str) -> OptionError:
    """What is said of a name that cannot be one."""
    return OptionError(
        f"{repo_id!r} cannot be a name on the Hugging Face Hub. Expected OWNER/NAME, such as me/gemma-3-270m-neurons."
    )


def _repository(api: HfApi, repo_id: str) -> ModelInfo | None:
    """What is there by that name."""
    try:
        return api.model_info(repo_id)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:  # a token that is none: the Hub says no more
            raise
        return None


def _replaced(repo_id: str, there: ModelInfo | None, *, overwrite: bool, private: bool) -> list[str]:
    """The files of a repository that a push takes away. Raises FileError for one that is not to be touched."""
    if there is None:
        return []
    if private and there.private is False:
        raise FileError(
            f"{repo_id} is on the Hub already, for everyone to see, and a private one was asked for. Make it private there first, or choose another name."
        )
    old = [one.rfilename for one in there.siblings or () if one.rfilename not in _EMPTY]
    if old and not overwrite:
        raise FileError(
            f"{repo_id} is on the Hub already, with {len(old)} files. Choose another name, or give overwrite=True to replace what is in it."
        )
    if old and not any(name in old for name in _OURS):
        raise FileError(
            f"{repo_id} is on the Hub already and holds files that lape did not put there, so it is not replaced. Choose another name."
        )
    return old


def _commit(api: HfApi, repo_id: str, held: Mapping[str, Path], gone: list[str], parent: str | None) -> None:
    """Everything in one commit, on top of `parent` if that is what is there; `upload_folder` makes several of large ones."""
    adding = [CommitOperationAdd(name, path) for name, path in held.items()]
    deleting = [CommitOperationDelete(name, is_folder=False) for name in gone]
    api.create_commit(
        repo_id, [*deleting, *adding], commit_message=f"Push by lape {version('lape')}", parent_commit=parent
    )


def fetch(name: str | Path, *, revision: str | None = None, files: tuple[str, ...] = HELD) -> Path:
    """The folder that holds what was published under a name: that folder itself, or what was fetched from the Hub, once, into its cache.

    `name`: a folder, or OWNER/NAME on the Hub, also as hf:OWNER/NAME. `revision`: a branch, tag or commit of it. `files`: which of its files; those that are
    not there are not fetched. What was fetched before is found offline too.
    Raises FileError where there is neither, and where the Hub cannot be reached; OptionError for a `revision` of a folder.

    Example:
        >>> from lape.ship.hub import fetch, push
        >>> _ = push("run", "me/fetched")
        >>> sorted(path.name for path in fetch("me/fetched").iterdir())
        ['README.md', 'neurons.safetensors', 'reproduce.json', 'stats.safetensors']
        >>> print(fetch("run"))
        run
    """
    word = str(name)
    if Path(word).is_dir():
        if revision is not None:
            raise OptionError(
                f"revision is {revision!r}, but {name} is a folder here, which has no revisions. Leave it out."
            )
        return Path(word)
    repo_id = word.removeprefix(SCHEME)
    if not HUB_NAME.fullmatch(repo_id):
        raise FileError(f"There is no folder {name}. Expected a folder here, or OWNER/NAME on the Hugging Face Hub.")
    with _asking(repo_id, fetching=True):
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(files),
                library_name="lape",
                library_version=version("lape"),
            )
        )


def fetch_file(name: str | Path, file: str, what: str, *, revision: str | None = None) -> Path:
    """The file of that name among what was published. Raises FileError where it holds no such file; `what`: what is in it, in words."""
    folder = fetch(name, revision=revision, files=(file,))
    if (folder / file).is_file():
        return folder / file
    others = (
        sorted(path.name for path in folder.iterdir()) if Path(str(name)).is_dir() else _listed(str(name), revision)
    )
    there = f"It holds {shorten(', '.join(others), 200, placeholder=' …')}." if others else "It is empty."
    raise FileError(f"{name} holds no {what} ({file}). {there}")


def _listed(name: str, revision: str | None) -> list[str]:
    """What a repository holds."""
    with _asking(name, fetching=True):
        return HfApi().list_repo_files(name.removeprefix(SCHEME), revision=revision)


@contextmanager
def _asking(repo_id: str, *, fetching: bool = False, made: bool = False) -> Iterator[None]:
    """Around every call of the Hub: whatever huggingface_hub, or its transport, throws becomes one paragraph.

    `made`: the repository was made for this, and is empty if it fails.
    """
    try:
        yield
    except (LapeError, MemoryError):
        raise
    except Exception as error:
        _refuse(repo_id, error, fetching=fetching, made=made)


def _refuse(repo_id: str, error: Exception, *, fetching: bool, made: bool) -> NoReturn:
    if isinstance(error, HFValidationError):
        raise _no_name(repo_id) from error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    said = shorten(told(error), 200, placeholder=" …")
    before = f" {repo_id} was made and is empty: the same command fills it." if made else ""
    if is_offline_mode():
        text = f"{repo_id} was not fetched before. " + _ONLINE.format(what="fetch it", instead="")
    elif isinstance(error, RevisionNotFoundError):
        text = f"{repo_id} has no such revision on the Hugging Face Hub. Expected a branch, a tag or a commit of it."
    elif fetching and isinstance(error, RepositoryNotFoundError):
        text = (
            f"There is no folder {repo_id} here, and nothing of that name on the Hugging Face Hub, or you have no access to it. "
            "Expected a folder, or OWNER/NAME; for what is private: hf auth login."
        )
    elif status in (401, 403):
        right = "reading" if fetching else "writing"
        text = (
            f"The Hugging Face Hub refused {right} {repo_id}: the access token is not valid, or has no right to it. Make one that has at "
            "https://huggingface.co/settings/tokens, then type: hf auth login (or set HF_TOKEN)."
        )
    elif status in (409, 412):
        text = f"{repo_id} was changed on the Hub meanwhile, so nothing was pushed. Give the same command again."
    elif status is not None or isinstance(error, ValueError):
        text = f"The Hugging Face Hub refused {repo_id}: {said}"
    else:
        text = f"The Hugging Face Hub could not be reached for {repo_id} ({said}). Nothing was {'fetched' if fetching else 'pushed'}; try again later."
    raise FileError(text + before) from error
