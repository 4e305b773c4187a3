"""The Hugging Face hub: its cache on this machine, whole downloads, and rows by Range.

Endpoint, token, offline mode and cache are huggingface_hub's own (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME).
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pairprobe.checkpoints import files
from pairprobe.checkpoints.remote import TIMEOUT, Remote, Web
from pairprobe.errors import CheckpointError

T = TypeVar("T")
SPARE_DISK = 2**30  # bytes left free after a download
#: Small files beside the weights that transformers may want: other forms of a vocabulary, and code where it is trusted.
MORE_SIDES = ("sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Repository:
    """One revision of a repository on the hub.

    name: how errors call the model. revision: branch, tag or commit. code: fetch the repository's Python files, too.
    """

    name: str
    hub: str
    revision: str = "main"
    code: bool = False

    def cached(self, file: str) -> Path | None:
        """A file of it in the hub cache; None where it is not there."""
        _quiet()
        from huggingface_hub import try_to_load_from_cache

        path = self._asked(lambda: try_to_load_from_cache(self.hub, file, revision=self.revision))
        return Path(path) if isinstance(path, str) else None

    def rows(self, all_of_it: bool = False) -> tuple[Path, list[Remote]]:
        """The cache folder that now holds config, tokenizer and index, and the weight files on the hub.

        all_of_it: everything is to be downloaded later; whether the disk has room for it is told now.

        Raises:
            CheckpointError: gated, missing, offline, out of reach, no safetensors, no room.
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
        from huggingface_hub import snapshot_download

        there, commit = self._listed()
        folder = self._sides(there, commit)
        names = self._weights(there, folder)
        self._check_room(there, folder, names)
        patterns = [glob.escape(n) for n in names]
        fetched = self._asked(lambda: snapshot_download(self.hub, revision=commit, allow_patterns=patterns))
        return Path(fetched)

    def _check_room(self, there: Mapping[str, int], folder: Path, names: Iterable[str]) -> None:
        from huggingface_hub import constants

        lacking = sum(there[n] for n in names if not (folder / n).exists())
        place = Path(constants.HF_HUB_CACHE)
        free = shutil.disk_usage(next(p for p in (place, *place.absolute().parents) if p.exists())).free
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
            lambda: HfApi().model_info(self.hub, revision=self.revision, files_metadata=True, timeout=sum(TIMEOUT))
        )
        if not info.sha:
            raise CheckpointError(f"{self.name}: {constants.ENDPOINT} names no commit for {self.hub}.")
        return {s.rfilename: s.size or 0 for s in info.siblings or []}, info.sha

    def _sides(self, there: Mapping[str, int], commit: str) -> Path:
        from huggingface_hub import snapshot_download

        wanted: Iterable[str] = (*files.SIDES, *MORE_SIDES, files.INDEX)
        patterns = [n for n in wanted if n in there]
        if self.code:
            patterns += [glob.escape(n) for n in there if n.endswith(".py") and "/" not in n]
        if "config.json" not in patterns:
            raise CheckpointError(
                f"{self.name}: {self.hub} has no config.json at {self.revision}.",
                "It holds no model for transformers: choose another repository, or a GGUF file of it with model.file=…",
            )
        # by the branch's name, so that the cache remembers which commit it stood for
        folder = Path(self._asked(lambda: snapshot_download(self.hub, revision=self.revision, allow_patterns=patterns)))
        if folder.name != commit:
            raise CheckpointError(
                f"{self.name}: {self.hub} at {self.revision} moved from {commit} to {folder.name} just now.",
                "Run again.",
            )
        return folder

    def _weights(self, there: Mapping[str, int], folder: Path) -> list[str]:
        """Names of the weight files; the index must be in `folder`."""
        if files.SINGLE in there:
            return [files.SINGLE]
        if files.INDEX not in there:
            raise CheckpointError(files.none_of(self.name, sorted(there), self.hub), "Choose another repository.")
        names = sorted(set(files.weight_map(folder, self.name).values()))
        missing = [n for n in names if n not in there]
        if missing:
            raise CheckpointError(files.too_few(self.name, missing, len(names)), "Its repository is incomplete.")
        return names

    @property
    def _log_in(self) -> str:
        from huggingface_hub import constants

        return f"Accept its licence at {constants.ENDPOINT}/{self.hub}, then log in: hf auth login (or set HF_TOKEN)."

    def _offline(self) -> CheckpointError:
        return CheckpointError(
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
            raise CheckpointError(
                f"{at} cannot be had from {constants.ENDPOINT} ({type(error).__name__}: {said}).",
                "Check the network; model.fetch=cache takes only what was downloaded before.",
            ) from error


def _causes(error: BaseException | None) -> list[Any]:
    found: list[Any] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _quiet() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
