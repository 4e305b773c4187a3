"""When weights are hashed: not before it can matter, once for each state of a file, and leaving no pages behind."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import write

from bench.twins import quantise_folder
from pairprobe.checkpoints import identity
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.commands.main import run
from pairprobe.errors import CheckpointError
from pairprobe.executions.cache import resident
from pairprobe.kept import Kept


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    return quantise_folder(write("llama", root / "dense", hidden_size=64, intermediate_size=96), root / "int8", "int8")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read for a hash, in order; what was written a moment ago counts as settled."""
    names: list[str] = []
    reading = identity._hashed

    def watched(file: Path, hashes: Path | None) -> str:
        names.append(file.name)
        return reading(file, hashes)

    monkeypatch.setattr(identity, "_hashed", watched)
    monkeypatch.setattr(identity, "SETTLED", 0.0)
    return names


def words_for(folder: Path) -> list[str]:
    return ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare"]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ── a plan ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_hashes_no_weights_where_nothing_is_kept_of_them(int8, tmp_path, hashed):
    assert run(["plan", *words_for(int8)]) == 0
    assert hashed == []
    other = write("llama", tmp_path / "other", hidden_size=64, intermediate_size=96)
    assert run([*words_for(other), "execution=streamed", "--quiet"]) == 0
    hashed.clear()
    assert run(["plan", *words_for(int8)]) == 0
    assert hashed == []


def test_what_a_run_hashed_a_plan_and_the_next_run_need_not(int8, home, hashed, capfd):
    assert run([*words_for(int8), "--quiet"]) == 0
    assert hashed == ["model.safetensors"]
    assert run(["plan", *words_for(int8)]) == 0
    assert "nothing is read and run" in capfd.readouterr().out
    assert run([*words_for(int8), "--quiet"]) == 0
    assert hashed == ["model.safetensors"]
    for note in (home / "mlruns" / "kept" / "hashes").iterdir():
        note.unlink()
    assert run(["plan", *words_for(int8)]) == 0  # something is kept of these files: only their content can tell
    assert "nothing is read and run" in capfd.readouterr().out
    assert hashed == ["model.safetensors"] * 2


def test_what_is_kept_is_asked_for_by_files_and_doubt_is_no_absence(tmp_path):
    kept, files = Kept(tmp_path), [["model.safetensors", 10, 12345]]
    assert not kept.may_have(files)
    shelf = kept.shelf({"files": files})
    shelf.writing(["text"])
    assert kept.may_have(files)
    assert not kept.may_have([["model.safetensors", 10, 12346]])
    for damaged in ("{", "[]", "{}"):
        (shelf.folder / "about.json").write_text(damaged)
        assert kept.may_have([["other.safetensors", 1, 1]])


@pytest.mark.skipif(sys.platform != "linux", reason="mincore is Linux's")
def test_a_plan_that_hashes_leaves_the_file_cache_as_it_was(tmp_path):
    folder = write("llama", tmp_path / "large", hidden_size=1024, intermediate_size=1024, num_hidden_layers=4)
    file = folder / "model.safetensors"
    right = sha256(file)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = resident(stream.fileno())
        if before is None or before.any():
            pytest.skip("this file system keeps its pages")
        assert run(["plan", *words_for(folder), f"model.sha256={right}"]) == 0
        after = resident(stream.fileno())
    assert after is not None
    assert after.mean() < 0.05


# ── a file's hash ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    return file


def test_a_noted_hash_is_of_the_file_as_it_is_now(file, tmp_path, hashed):
    notes = tmp_path / "hashes"
    assert [identity.file_sha256(file, notes) for _ in range(2)] == [sha256(file)] * 2
    assert hashed == ["weights"]
    stat = file.stat()
    file.write_bytes(b"two")  # as long, and its time of change set back
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity.file_sha256(file, notes) == sha256(file)
    copy = tmp_path / "copy"
    copy.write_bytes(b"six")
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity.file_sha256(copy, notes) == sha256(copy)
    assert hashed == ["weights", "weights", "copy"]


def test_a_file_that_changed_a_moment_ago_is_not_noted(file, tmp_path):
    # It may change once more within what the file system's clock can tell apart.
    identity.file_sha256(file, tmp_path / "hashes")
    assert not (tmp_path / "hashes").exists()


@pytest.mark.parametrize("damage", ["", "00", "z" * 64])
def test_a_damaged_note_is_not_believed(file, tmp_path, hashed, damage):
    notes = tmp_path / "hashes"
    identity.file_sha256(file, notes)
    (note,) = notes.iterdir()
    note.write_text(damage)
    assert identity.file_sha256(file, notes) == sha256(file)
    assert note.read_text() == sha256(file)
    assert hashed == ["weights"] * 2


def test_where_nothing_can_be_noted_files_are_hashed_all_the_same(file, tmp_path, hashed):
    (tmp_path / "hashes").write_text("a file where the folder would be")
    assert [identity.file_sha256(file, tmp_path / "hashes") for _ in range(2)] == [sha256(file)] * 2
    assert hashed == ["weights"] * 2


def test_the_sha256_of_a_configuration_is_held_against_every_byte_whatever_is_noted(int8, tmp_path, hashed):
    checkpoint = replace(Checkpoint.open(int8), hashes=tmp_path / "hashes")
    right = sha256(int8 / "model.safetensors")
    checkpoint.check_sha256(right)
    (note,) = (tmp_path / "hashes").iterdir()
    note.write_text("0" * 64)
    checkpoint.check_sha256(right)
    with pytest.raises(CheckpointError):
        checkpoint.check_sha256("0" * 64)
    assert hashed == ["model.safetensors"] * 3
