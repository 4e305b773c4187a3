"""The Hugging Face hub: its cache on this machine, whole downloads, and rows by Range.

Endpoint, token, offline mode and cache are huggingface_hub's own (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME).
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pairprobe.checkpoints import files, gguf
from pairprobe.checkpoints.remote import TIMEOUT, Remote, Web
from pairprobe.errors import CheckpointError, OutOfReach, nearest

T = TypeVar("T")
SHOWN = 24  # names of files in an error
SPARE_DISK = 2**30  # bytes left free after a download
#: Small files beside the weights that transformers may want: other forms of a vocabulary, and code where it is trusted.
MORE_SIDES = ("sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Repository:
    """One revision of a repository on the hub.

    name: how errors call the model. revision: branch, tag or commit. code: fetch the repository's Python files, too.
    file: a GGUF file of it, which is the model in place of its safetensors. patience: seconds until it must answer.
    """

    name: str
    hub: str
    revision: str = "main"
    code: bool = False
    file: str | None = None
    patience: float = sum(TIMEOUT)

    def cached(self, file: str) -> Path | None:
        """A file of it in the hub cache; None where it is not there."""
        _quiet()
        from huggingface_hub import try_to_load_from_cache

        path = self._asked(lambda: try_to_load_from_cache(self.hub, file, revision=self.revision))
        return Path(path) if isinstance(path, str) else None

    def cached_ggufs(self) -> list[str]:
        """The GGUF models of it in the hub cache: names of their first files."""
        found = self._snapshot()
        return _ggufs(f.relative_to(found).as_posix() for f in found.rglob("*.gguf") if f.is_file())

    def _snapshot(self, commit: str | None = None) -> Path:
        """The hub cache's folder for a commit, or for the one that the revision stood for last; it may not exist."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.hub, repo_type="model")
        branch = place / "refs" / self.revision
        known = branch.read_text(encoding="utf-8").strip() if branch.is_file() else self.revision
        return place / "snapshots" / (commit or known)

    def rows(self, all_of_it: bool = False) -> tuple[Path, list[Remote]]:
        """The cache folder that now holds config, tokenizer and index, and the weight files on the hub. Of a GGUF file
        the folder holds the tokenizer that lies beside it, if there is one.

        all_of_it: everything is to be downloaded later; whether the disk has room for it is told now.

        Raises:
            CheckpointError: gated, missing, no safetensors, no such GGUF file, no room.
            OutOfReach: offline, no answer.
        """
        from huggingface_hub import constants, get_token, hf_hub_url

        there, commit = self._listed()
        folder = self._sides(there, commit)
        names = self._weights(there, folder)
        if all_of_it:
            self._check_room(there, folder, names)
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else self._asked(get_token)
        web = Web(constants.ENDPOINT + "/", {"Authorization": f"Bearer {token}"} if token else {}, self._log_in)
        urls = {
            n: hf_hub_url(self.hub, n, revision=commit, endpoint=constants.ENDPOINT)
            for n in names
        }  # fmt: skip
        return folder, files.open_all(urls, web.open, self.name)

    def download(self) -> Path:
        """The cache folder that now holds config, tokenizer and weights; what the cache has is not fetched again.

        Raises:
            CheckpointError: as `rows`; too little room on the disk is told before anything large is fetched.
        """
        there, commit = self._listed()
        folder = self._sides(there, commit)
        names = self._weights(there, folder)
        self._check_room(there, folder, names)
        return self._fetched([glob.escape(n) for n in names], commit)

    def _check_room(self, there: Mapping[str, int], folder: Path, names: Iterable[str]) -> None:
        lacking = sum(there[n] for n in names if not (folder / n).exists())
        place, free = room()
        if lacking and lacking + SPARE_DISK > free:
            raise CheckpointError(
                f"{self.name}: {lacking / 1e9:.1f} GB are to be downloaded to {place}, "
                f"where {free / 1e9:.1f} GB are free.",
                "Set HF_HOME to a larger disk; or method=static with model.fetch=rows, which needs a few MB.",
            )

    # ── its parts ────────────────────────────────────────────────────────────────────────────────────────

    def _listed(self) -> tuple[dict[str, int], str]:
        """File → bytes, and the commit."""
        _quiet()
        from huggingface_hub import HfApi, constants

        if constants.HF_HUB_OFFLINE:
            raise self._offline()
        info = self._asked(
            lambda: HfApi().model_info(self.hub, revision=self.revision, files_metadata=True, timeout=self.patience)
        )
        if not info.sha:
            raise CheckpointError(f"{self.name}: {constants.ENDPOINT} names no commit for {self.hub}.")
        return {s.rfilename: s.size or 0 for s in info.siblings or []}, info.sha

    def _sides(self, there: Mapping[str, int], commit: str) -> Path:
        if files.ADAPTER in there and not self.file:
            raise files.adapted(self.name, self.hub)
        wanted: Iterable[str] = (*files.SIDES, *MORE_SIDES, files.INDEX)
        if self.file:
            # without config.json: the file's own metadata decide, as they do for the file alone
            beside = self.file.rpartition("/")[0]
            beside = f"{beside}/" if beside else ""
            own = any(f"{beside}{n}" in there for n in gguf.TOKENIZER_FILES)
            wanted = [f"{beside}{n}" for n in (*files.SIDES[1:], *MORE_SIDES)] if own else []
        patterns = [glob.escape(n) for n in wanted if n in there]
        if self.code:
            patterns += [glob.escape(n) for n in there if n.endswith(".py") and "/" not in n]
        if not self.file and "config.json" not in patterns:
            what = f"{self.name}: {self.hub} has no config.json at {self.revision}."
            raise self._only_gguf(there, what) or CheckpointError(
                what, "It holds no model for transformers: choose another repository."
            )
        return self._fetched(patterns, commit) if patterns else self._snapshot(commit)

    def _fetched(self, patterns: list[str], commit: str) -> Path:
        """The snapshot's folder, which now holds the files that match."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        # by the branch's name, until the cache remembers which commit it stands for
        revision = commit if self._snapshot().name == commit else self.revision
        if not sys.stderr.isatty():  # its bars are made for a terminal
            disable_progress_bars()
        folder = Path(self._asked(lambda: snapshot_download(self.hub, revision=revision, allow_patterns=patterns)))
        if folder.name != commit:
            raise CheckpointError(
                f"{self.name}: {self.hub} at {self.revision} moved from {commit} to {folder.name} just now.",
                "Run again.",
            )
        return folder

    def _weights(self, there: Mapping[str, int], folder: Path) -> list[str]:
        """Names of the weight files; the index must be in `folder`."""
        if self.file:
            return self._parts(there, self.file)
        if files.SINGLE in there:
            return [files.SINGLE]
        if files.INDEX not in there:
            what = files.none_of(self.name, sorted(there), self.hub)
            raise self._only_gguf(there, what) or CheckpointError(what, "Choose another repository.")
        names = sorted(set(files.weight_map(folder, self.name).values()))
        missing = [n for n in names if n not in there]
        if missing:
            raise CheckpointError(files.too_few(self.name, missing, len(names)), "Its repository is incomplete.")
        return names

    def _parts(self, there: Mapping[str, int], file: str) -> list[str]:
        """Names of the GGUF file's parts, of a whole file its own."""
        if file not in there:
            what = f"{self.name}: {self.hub} has no file {file} at {self.revision}.{nearest(file, _ggufs(there))}"
            raise self._only_gguf(there, what) or CheckpointError(what, "It has no GGUF file: leave model.file out.")
        folder, slash, name = file.rpartition("/")
        parts = [f"{folder}{slash}{part}" for part in gguf.parts_of(name)]
        missing = [n for n in parts if n not in there]
        if missing:
            raise CheckpointError(files.too_few(self.name, missing, len(parts)), "Its repository is incomplete.")
        return parts

    def _only_gguf(self, there: Iterable[str], what: str) -> CheckpointError | None:
        """An error that names the repository's GGUF files; None where it has none."""
        found = _ggufs(there)
        if not found:
            return None
        return CheckpointError([what, f"Its GGUF files: {listed(found)}."], "Choose one: model.file=NAME.gguf")

    @property
    def _log_in(self) -> str:
        from huggingface_hub import constants

        return f"Accept its licence at {constants.ENDPOINT}/{self.hub}, then log in: hf auth login (or set HF_TOKEN)."

    def _offline(self) -> OutOfReach:
        return OutOfReach(
            f"{self.name}: {self.hub} at {self.revision} is not whole in the hub cache, and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE, or point to a folder: model.source=/models/…",
        )

    def _asked(self, call: Callable[[], T]) -> T:
        """What the hub answers, or a CheckpointError for what huggingface_hub raises."""
        from huggingface_hub import constants, errors

        try:
            return call()
        except Exception as error:
            at = f"{self.name}: {self.hub} at {self.revision}"
            for cause in _causes(error):
                if isinstance(cause, errors.OfflineModeIsEnabled):
                    raise self._offline() from None
                if isinstance(cause, errors.GatedRepoError):
                    raise CheckpointError(f"{at} is gated, and you have no access.", self._log_in) from None
                if isinstance(cause, errors.RepositoryNotFoundError):
                    raise CheckpointError(
                        f"{self.name}: {constants.ENDPOINT} has no repository {self.hub}, or it is private.",
                        "Check the spelling of model.hub; for a private one log in: hf auth login",
                    ) from None
                if isinstance(cause, errors.RevisionNotFoundError):
                    raise CheckpointError(
                        f"{self.name}: {self.hub} has no revision {self.revision}.",
                        f"Choose a branch, tag or commit from {constants.ENDPOINT}/{self.hub}/commits/main",
                    ) from None
                if isinstance(cause, errors.HFValidationError):
                    raise CheckpointError(
                        f"{self.name}: model.hub={self.hub} is no repository's name; allowed: owner/name."
                    ) from None
                status = getattr(getattr(cause, "response", None), "status_code", None)
                if status in (401, 403):
                    raise CheckpointError(f"{at}: the hub refuses it ({status}).", self._log_in) from None
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise OutOfReach(
                f"{at} cannot be had from {constants.ENDPOINT} ({type(error).__name__}: {said}).",
                "Check the network; model.fetch=cache takes only what was downloaded before.",
            ) from error


def room() -> tuple[Path, int]:
    """The hub cache, and the bytes that are free where it lies."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    return place, shutil.disk_usage(next(p for p in (place, *place.absolute().parents) if p.exists())).free


def offline() -> bool:
    """Whether the hub may not be asked (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listed(names: Sequence[str]) -> str:
    """Names for an error, not too many of them."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _ggufs(names: Iterable[str]) -> list[str]:
    """The GGUF models among files, sorted: each by its first part, and no vision towers."""
    found = [n for n in names if n.endswith(".gguf") and not n.rpartition("/")[2].lower().startswith("mmproj")]
    return sorted(n for n in found if gguf.parts_of(n.rpartition("/")[2])[:1] == (n.rpartition("/")[2],))


def _causes(error: BaseException | None) -> list[Any]:
    found: list[Any] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _quiet() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
