"""A model by name → the checkpoint on this machine, or an account of every place that was looked at."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.files import INDEX, TOKENIZER_FILES, WEIGHTS, stated_bytes, weight_files
from pairprobe.checkpoints.gguf import parts_of
from pairprobe.checkpoints.hub import Repository, listed, offline
from pairprobe.checkpoints.remote import Remote
from pairprobe.checkpoints.url import is_url, open_url
from pairprobe.errors import CheckpointError, ConfigError, OutOfReach, one_of

FETCH = ("cache", "rows", "all")
PATIENCE = 10.0  # seconds that a plan waits for a hub it need not ask


@dataclass(frozen=True)
class Model:
    """What is known about a model before it is found.

    Args:
        name: how runs are called after it; '': after the folder, file or repository.
        source: a local folder with config.json, tokenizer.json and safetensors, or the address of one
            (https://…/), of which method=static reads the rows it needs; wins over the other places.
        package, folder: an installed Python package and the folder in it that holds the checkpoint.
        hub, revision: repository on the Hugging Face hub and commit or branch. file: a GGUF file of it, the first of
            a split one, which is the model in place of the repository's safetensors.
        fetch: what may come from the hub where its cache here does not hold the whole checkpoint. cache: nothing;
            rows: config and tokenizer, then, for method=static, the embedding rows it needs; all: everything.
        tokenizer: a folder whose tokenizer is used in place of the checkpoint's own (GGUF files may hold none that
            transformers can read); null: the checkpoint's own.
        sha256: what the weights (one file) must hash to; null: not checked.
        trust_remote_code: let transformers run Python from the checkpoint's folder. Never on by itself.
    """

    name: str = ""
    source: str | None = None
    package: str | None = None
    folder: str | None = None
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None
    trust_remote_code: bool = False
    fetch: str = "cache"
    tokenizer: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        one_of("model.fetch", self.fetch, FETCH)
        for key in ("source", "tokenizer"):
            if getattr(self, key) == "":
                raise ConfigError(f"model.{key} is empty; allowed: a folder, or null where none is meant.")
        if self.file is not None and not (self.hub and self.file.endswith(".gguf")):
            raise ConfigError(
                f"model.file is '{self.file}'; allowed: a .gguf file of the repository that model.hub names.",
                "A file of this machine is given by model.source=/models/NAME.gguf",
            )
        if not self.name:
            place = (self.source or self.file or self.hub or self.package or "model").rstrip("/")
            object.__setattr__(self, "name", place.rpartition("/")[2].removesuffix(".gguf"))

    @property
    def place(self) -> str:
        """The settings that say where its weights are taken from; equal for models that differ in name alone."""
        keys = ("source",) if self.source else ("package", "folder", "hub", "revision", "file")
        return " ".join(f"model.{key}={value}" for key in keys if (value := getattr(self, key)))

    def settled(self, found: Checkpoint) -> Model:
        """The place that `found` came from, and no other: what a record should name.

        A branch becomes the commit it stood for, so that a repetition asks for the same weights.
        """
        if self.source:
            return replace(self, hub=None, revision=None, file=None, package=None, folder=None)
        if found.revision:
            return replace(self, revision=found.revision)
        return self

    def locate(self) -> Checkpoint:
        """Find the checkpoint and read its config and headers; no weights are read, or fetched.

        With fetch=all and an incomplete cache it lies on the hub still, and `to_come` says so: see `download`.

        Raises:
            CheckpointError: not found, with the places looked at and how to get it; or found and unusable.
        """
        if self.source and is_url(self.source):
            if self.fetch == "all":
                raise CheckpointError(
                    f"{self.name}: model.fetch=all is for the hub; model.source is an address.",
                    "Download the folder, then model.source=/models/…; model.fetch=rows reads rows where they lie.",
                )
            found, files = open_url(self.source, self.name)
            return self._open(found, self.source, None, files)
        if self.source:
            folder = Path(self.source).expanduser()
            if not folder.is_dir() and not (folder.is_file() and folder.suffix == ".gguf"):
                what = "is a file, not a folder" if folder.exists() else "is not there"
                raise CheckpointError(
                    f"{self.name}: model.source={self.source} {what}.",
                    "Point to a folder that holds config.json, tokenizer.json and *.safetensors, or to a .gguf file.",
                )
            return self._open(folder, f"{'folder' if folder.is_dir() else 'file'} {folder}", None)
        looked = []
        if self.package:
            installed = self._in_package()
            if installed:
                return self._open(installed, f"package {self.package} {_version(self.package)}", None)
            looked.append(f"installed package {self.package}")
        if self.hub:
            repository = self._repository()
            cached = self._cached(repository)
            if self.fetch != "cache" and not (cached and _whole(cached)):
                everything = self.fetch == "all"
                return self._afar(*repository.rows(everything), to_come=everything)
            if cached:
                # the snapshot's folder, whatever folders of the repository a file lies in
                snapshot = cached.parents[self.file.count("/")] if self.file else cached
                commit = snapshot.name if snapshot.parent.name == "snapshots" else None
                try:
                    return self._open(cached, f"hub cache {self.on_hub}", commit)
                except CheckpointError as error:
                    if self.fetch == "cache" and not _whole(cached):
                        raise CheckpointError(self._undownloaded(cached, error.problems), self.to_get) from None
                    raise
            raise self._absent(repository, looked)
        looked.append("model.source (unset)")
        raise CheckpointError(f"{self.name}: not found. Looked in: {', '.join(looked)}.", self.to_get)

    def foresee(self) -> Checkpoint:
        """`locate`; and a model of the hub that is not on this machine from its headers there, with `to_come`, though
        model.fetch allows no download.

        Raises:
            CheckpointError: as `locate`, so, too, where the hub cannot be asked; or what the hub says of the model.
        """
        try:
            return self.locate()
        except CheckpointError as absent:
            if not self.hub or self.source or self.fetch != "cache":
                raise
            repository = replace(self._repository(), patience=PATIENCE)
            cached = self._cached(repository)
            if (cached and _whole(cached)) or (self.package and self._in_package()):
                raise
            if offline():
                unknown = (
                    f"{self.name}: what it would read and need is not known: that is in headers on the hub. Without "
                    "HF_HUB_OFFLINE, plan fetches these alone."
                )
                raise CheckpointError([*absent.problems, unknown], absent.next_step) from None
            try:
                return self._afar(*repository.rows(), to_come=True)
            except OutOfReach as reason:
                raise CheckpointError([*absent.problems, *reason.problems], absent.next_step) from None

    def download(self) -> Checkpoint:
        """Fetch the whole checkpoint from the hub into its cache, with a bar for each file, and find it there."""
        self._repository().download()
        return self.locate()

    def _repository(self) -> Repository:
        assert self.hub
        return Repository(self.name, self.hub, self.revision or "main", self.trust_remote_code, self.file)

    def _cached(self, repository: Repository) -> Path | None:
        """What the hub cache holds of it: the GGUF file, or the folder of config.json; perhaps not the whole."""
        if self.file:
            return repository.cached(self.file)
        config = repository.cached("config.json")
        return config.parent if config else None

    def _afar(self, folder: Path, files: Sequence[Remote], *, to_come: bool) -> Checkpoint:
        where = f"hub {self.on_hub}, {'to be downloaded' if to_come else 'rows only'}"
        return replace(self._open(folder, where, folder.name, files), to_come=to_come)

    def _undownloaded(self, folder: Path, problems: Sequence[str]) -> list[str]:
        """The problems of a snapshot; where it holds no weights at all, as `plan`, model.fetch=rows or a download that
        broke off at once leave it, they are not missing from among others."""
        if any(f.suffix in WEIGHTS for f in folder.rglob("*")):
            return list(problems)
        size = stated_bytes(folder)
        how_large = f" ({size / 1e9:.3g} GB by {INDEX})" if size else ""
        said = (
            f"{self.name}: the weights of {self.on_hub}{how_large} have not been downloaded; the hub cache holds only "
            "small files of it."
        )
        return [said, *(p for p in problems if p not in weight_files(folder, self.name)[2])]

    def _absent(self, repository: Repository, looked: Sequence[str]) -> CheckpointError:
        """That the hub cache lacks it, and which GGUF files of the repository it has, if any."""
        if self.file:
            problems = [f"{self.name}: {self.file} of {self.hub} is not in the hub cache."]
        else:
            places = (*looked, f"hub cache for {self.hub} at {self.revision or 'main'}", "model.source (unset)")
            problems = [f"{self.name}: not found. Looked in: {', '.join(places)}."]
        there = repository.cached_ggufs()
        if there:
            problems.append(f"GGUF files of it that are there: {listed(there)}. To use one: model.file={there[0]}")
        if offline():
            problems.append("HF_HUB_OFFLINE is set: nothing can be downloaded before it is unset.")
        return CheckpointError(problems, self.to_get)

    @property
    def on_hub(self) -> str:
        """The repository, and the file of it."""
        return f"{self.hub}, {self.file}" if self.file else str(self.hub)

    @property
    def to_get(self) -> str:
        """How to get it."""
        if self.hub:
            return (
                f"Get it: {self._download}   or model.fetch=all; for method=static model.fetch=rows is "
                "enough; or point to a folder: model.source=/models/…"
            )
        if self.package:
            return f"Get it: pip install {self.package}   or point to a folder: model.source=/models/…"
        return "Point to a folder: model.source=/models/…"

    @property
    def _download(self) -> str:
        file = f" {self.file}" if self.file else ""
        return f"hf download {self.hub}{file}" + (f" --revision {self.revision}" if self.revision else "")

    def _open(
        self, folder: Path, where: str, revision: str | None, files: Sequence[Remote] | None = None
    ) -> Checkpoint:
        return Checkpoint.open(
            folder,
            name=self.name,
            where=where,
            revision=revision,
            trust_remote_code=self.trust_remote_code,
            files=files,
            tokenizer=self._tokenizer(),
        )

    def _tokenizer(self) -> Path | None:
        if self.tokenizer is None:
            return None
        folder = Path(self.tokenizer).expanduser()
        if not folder.is_dir():
            raise CheckpointError(
                f"{self.name}: model.tokenizer={self.tokenizer} is no folder.",
                "Point to one that holds tokenizer.json.",
            )
        return folder

    def _in_package(self) -> Path | None:
        assert self.package
        try:
            distribution = importlib.metadata.distribution(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None
        folder = Path(str(distribution.locate_file(self.folder or "")))
        return folder if folder.is_dir() else None


def _whole(folder: Path) -> bool:
    """Whether all of a snapshot or a GGUF file is in the cache: downloads that broke off leave files out."""
    if folder.suffix == ".gguf":
        return all(folder.with_name(part).is_file() for part in parts_of(folder.name))
    return any((folder / f).exists() for f in TOKENIZER_FILES) and not weight_files(folder, "")[2]


def _version(package: str) -> str:
    return importlib.metadata.version(package)
