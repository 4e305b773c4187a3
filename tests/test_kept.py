"""What earlier runs have kept: found where nothing has changed, made anew where anything has, damaged or not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import LAYERS, WORDS, tokens_of, write

from pairprobe import kept as keeping
from pairprobe import locks as locking
from pairprobe.checkpoints import identity
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.streamed import Streamed
from pairprobe.kept import Kept
from pairprobe.methods.layerwise import Layerwise
from pairprobe.records import Vectors

CPU = Streamed(device="cpu", dtype="float32", batch_tokens=50, threads=1)
ABOUT = {"checkpoint": "sha256:00", "dtype": "float32"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write("llama", tmp_path / "llama")


@pytest.fixture
def layers_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each pass over the checkpoint read, in order."""
    passes: list[int] = []
    whole = Feeder.__iter__

    def counted(feeder: Feeder):
        passes.append(0)
        for tensors in whole(feeder):
            passes[-1] += 1
            yield tensors

    monkeypatch.setattr(Feeder, "__iter__", counted)
    return passes


def vectors(
    folder: Path, root: Path | None, execution: Streamed = CPU, words: tuple[str, ...] = WORDS, **method: object
) -> Vectors:
    checkpoint = Checkpoint.open(folder)
    tokens = tokens_of(checkpoint, words)
    return Layerwise(**method).vectors(checkpoint, tokens, execution, kept=Kept(root) if root else None)[0]


def sets(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/"))


# ── found ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_reads_no_layer_and_says_so(folder, tmp_path, layers_read):
    first = vectors(folder, tmp_path / "kept")
    second = vectors(folder, tmp_path / "kept")
    assert layers_read == [LAYERS]
    assert (first.values == second.values).all()
    assert (first.values == vectors(folder, None).values).all()
    assert "kept" not in first.about
    assert second.about["kept"] == "8 of 8 texts were kept from an earlier run"
    assert second.computed_in == "float32"


def test_only_texts_that_are_new_are_run(folder, tmp_path, layers_read):
    vectors(folder, tmp_path / "kept", words=WORDS[:4])
    found = vectors(folder, tmp_path / "kept", words=WORDS[2:])
    assert found.about["kept"].startswith("2 of 6")
    np.testing.assert_allclose(found.values, vectors(folder, None, words=WORDS[2:]).values, atol=1e-5)
    vectors(folder, tmp_path / "kept", words=WORDS)  # from two sets
    assert layers_read == [LAYERS, LAYERS, LAYERS]  # the third of these kept nothing


def test_some_depths_are_served_from_all(folder, tmp_path, layers_read):
    every = vectors(folder, tmp_path / "kept")
    some = vectors(folder, tmp_path / "kept", depths=[1, -1])
    assert layers_read == [LAYERS]
    assert (some.values == every.values[[1, LAYERS]]).all()


def test_all_depths_are_not_served_from_some(folder, tmp_path, layers_read):
    vectors(folder, tmp_path / "kept", depths=[1])
    assert (vectors(folder, tmp_path / "kept").values == vectors(folder, None).values).all()
    assert layers_read == [LAYERS] * 3


def test_texts_that_become_the_same_tokens_are_found_too(tmp_path, layers_read):
    folder = write("bert", tmp_path / "bert")
    words = ("環", "轮", "wheel", "water")  # the first two are unknown to it
    first = vectors(folder, tmp_path / "kept", words=words)
    second = vectors(folder, tmp_path / "kept", words=words)
    assert layers_read == [LAYERS]
    assert (first.values == second.values).all()


# ── made anew ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change",
    [
        {"activations": "weight_only"},
        {"weights": "int8"},
        {"attention": "eager"},
        {"dtype": "bfloat16"},
        {"resume": False},
    ],
)
def test_another_setting_is_computed_anew(folder, tmp_path, layers_read, change):
    vectors(folder, tmp_path / "kept")
    vectors(folder, tmp_path / "kept", replace(CPU, **change))
    assert layers_read == [LAYERS, LAYERS]


@pytest.mark.parametrize("method", [{"pooling": "last"}, {"scope": "text"}])
def test_another_pooling_is_computed_anew(folder, tmp_path, layers_read, method):
    vectors(folder, tmp_path / "kept")
    vectors(folder, tmp_path / "kept", **method)
    assert layers_read == [LAYERS, LAYERS]


@pytest.mark.parametrize("change", ["weight", "time", "config"])
def test_another_file_is_computed_anew(folder, tmp_path, layers_read, change):
    vectors(folder, tmp_path / "kept")
    file = folder / "model.safetensors"
    if change == "weight":
        stat = file.stat()
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(1, 1))
    else:
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    vectors(folder, tmp_path / "kept")
    assert layers_read == [LAYERS, LAYERS]


@pytest.mark.parametrize("commit", [None, "0" * 40], ids=["sampled", "commit"])
def test_a_change_that_the_identity_misses_is_computed_anew_though_its_time_was_set_back(
    tmp_path, layers_read, monkeypatch, commit
):
    monkeypatch.setattr(identity, "HASHED_WHOLE", 0)
    folder = write("llama", tmp_path / "llama", hidden_size=512, intermediate_size=2048)
    file = folder / "model.safetensors"
    size, tokens = file.stat().st_size, tokens_of(Checkpoint.open(folder), WORDS)
    assert size > 256 * 2 * 65536  # between two samples lies more than one

    def identities() -> str:
        checkpoint = Checkpoint.open(folder, revision=commit)
        Layerwise().vectors(checkpoint, tokens, CPU, kept=Kept(tmp_path / "kept"))
        return checkpoint.identity

    before, stat = identities(), file.stat()
    assert identities() == before
    assert layers_read == [LAYERS]
    with file.open("r+b") as stream:
        stream.seek((size - 65536) * 100 // 255 + 65536 + 1000)  # after the hundredth sample
        stream.write(bytes(8))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identities() == before
    assert layers_read == [LAYERS, LAYERS]


def test_a_copy_of_what_is_hashed_whole_is_the_same(folder, tmp_path, layers_read):
    vectors(folder, tmp_path / "kept")
    vectors(shutil.copytree(folder, tmp_path / "copy"), tmp_path / "kept")
    assert layers_read == [LAYERS]


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_is_computed_anew(folder, tmp_path, layers_read, monkeypatch, package):
    vectors(folder, tmp_path / "kept")
    monkeypatch.setattr(sys.modules[package], "__version__", "99")
    vectors(folder, tmp_path / "kept")
    assert layers_read == [LAYERS, LAYERS]


def test_another_line_of_our_own_code_is_computed_anew(folder, tmp_path, layers_read, monkeypatch):
    vectors(folder, tmp_path / "kept")
    monkeypatch.setattr(keeping, "source_hash", lambda: "another")
    vectors(folder, tmp_path / "kept")
    assert layers_read == [LAYERS, LAYERS]


@pytest.mark.parametrize(
    "part", ["checkpoint", "files", "config", "formats", "device", "dtype", "activations", "weights"]
)
def test_the_key_holds_what_could_change_a_state(folder, part):
    about = CPU.key(Checkpoint.open(folder))
    assert about is not None
    assert part in about
    assert keeping.key(about) != keeping.key({**about, part: "another"})


# ── damaged ──────────────────────────────────────────────────────────────────────────────────────────────


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 5)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, emptied, flipped, Path.unlink])
@pytest.mark.parametrize("name", ["depth-001.npy", "texts.json"])
def test_what_is_damaged_is_made_anew(folder, tmp_path, layers_read, damage, name):
    first = vectors(folder, tmp_path / "kept")
    damage(sets(tmp_path / "kept")[0] / name)
    again = vectors(folder, tmp_path / "kept")
    # a text that alone is made anew is multiplied alone, which moves last digits on some processors
    np.testing.assert_allclose(again.values, first.values, atol=1e-6 * np.abs(first.values).max())
    assert layers_read == [LAYERS, LAYERS]
    vectors(folder, tmp_path / "kept")
    assert layers_read == [LAYERS, LAYERS]  # it has been mended


def test_a_full_disk_stops_the_keeping_and_not_the_run(folder, tmp_path, monkeypatch):
    whole = np.save
    saved = []

    def full(stream, values):
        saved.append(1)
        if len(saved) > 2:
            raise OSError(28, "No space left on device")
        whole(stream, values)

    monkeypatch.setattr(np, "save", full)
    found = vectors(folder, tmp_path / "kept")
    monkeypatch.undo()
    assert (found.values == vectors(folder, None).values).all()
    assert (vectors(folder, tmp_path / "kept").values == found.values).all()


def test_a_place_that_cannot_be_written_stops_the_keeping_and_not_the_run(folder, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder would be")
    assert (vectors(folder, tmp_path / "kept").values == vectors(folder, None).values).all()


# ── interrupted ──────────────────────────────────────────────────────────────────────────────────────────

CHILD = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from pairprobe import kept
    kept.WORTH = 0
    whole = kept.Writing.state
    def state(self, depth, save):
        whole(self, depth, save)
        if depth == {depth}:
            os.kill(os.getpid(), signal.SIGKILL)
    kept.Writing.state = state
    {more}
    import test_kept
    test_kept.vectors(Path({folder!r}), Path({root!r}))
"""


def killed(folder: Path, root: Path, depth: int, more: str = "") -> None:
    code = textwrap.dedent(CHILD).format(
        tests=str(Path(__file__).parent), depth=depth, folder=str(folder), root=str(root), more=more
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(checkpoint, what a run that was killed at depth 2 has kept); to be copied."""
    root = tmp_path_factory.mktemp("interrupted")
    folder = write("llama", root / "llama")
    killed(folder, root / "kept", 2)
    return folder, root / "kept"


@pytest.fixture
def left(interrupted, tmp_path) -> tuple[Path, Path, Path]:
    """(checkpoint, copy of what was kept, the set in it)."""
    folder, root = interrupted
    shutil.copytree(root, tmp_path / "kept")
    (found,) = sets(tmp_path / "kept")
    return folder, tmp_path / "kept", found


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same(left, layers_read):
    folder, root, found = left
    assert [f.name for f in found.glob("state-*")] == ["state-002"]
    again = vectors(folder, root)
    assert layers_read == [LAYERS - 2]
    assert re.search(r"^(\d) of \1 went on from depth 2, where an earlier run was interrupted$", again.about["kept"])
    assert "kept" not in vectors(folder, None).about
    assert (again.values == vectors(folder, None).values).all()
    assert not list(found.glob("state-*"))  # not needed any more
    assert (vectors(folder, root).values == again.values).all()
    assert layers_read == [LAYERS - 2, LAYERS, LAYERS]


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
@pytest.mark.parametrize("name", ["state-002", "depth-001.npy"])
def test_a_killed_run_whose_files_are_damaged_begins_anew(left, layers_read, damage, name):
    folder, root, found = left
    damage(found / name)
    assert (vectors(folder, root).values == vectors(folder, None).values).all()
    assert layers_read == [LAYERS, LAYERS]


def test_states_that_another_process_removes_meanwhile_are_not_missed(left, layers_read, monkeypatch):
    folder, root, _ = left
    whole = keeping.Writing.last_state

    def removed(writing):
        last = whole(writing)
        if last is not None:
            last[1].unlink()
        return last

    monkeypatch.setattr(keeping.Writing, "last_state", removed)
    assert (vectors(folder, root).values == vectors(folder, None).values).all()
    assert layers_read == [LAYERS, LAYERS]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_of_half_the_size_are_taken_up_as_they_were(tmp_path, monkeypatch, dtype):
    folder = write("llama", tmp_path / "llama")
    monkeypatch.setattr(keeping, "WORTH", 0)
    execution = replace(CPU, dtype=dtype)
    reference = vectors(folder, None, execution)

    whole = keeping.Writing.state

    def stopped(writing, depth, save):
        whole(writing, depth, save)
        if depth == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping.Writing, "state", stopped)
    with pytest.raises(KeyboardInterrupt):
        vectors(folder, tmp_path / "kept", execution)
    monkeypatch.setattr(keeping.Writing, "state", whole)
    assert (vectors(folder, tmp_path / "kept", execution).values == reference.values).all()


def test_two_processes_at_once_keep_the_same_set(folder, tmp_path):
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pairprobe import kept
        kept.WORTH = 0
        import test_kept
        test_kept.vectors(Path({str(folder)!r}), Path({str(tmp_path / "kept")!r}))
        """
    )
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
    assert vectors(folder, tmp_path / "kept").about["kept"].startswith("8 of 8")


# ── left over ────────────────────────────────────────────────────────────────────────────────────────────

#: The process ends between writing a temporary file and giving it its name.
WHILE_WRITING = "Path.replace = lambda self, to: os.kill(os.getpid(), signal.SIGKILL) if 'state' in str(to) else "\
    "os.rename(self, to)"  # fmt: skip


def unfinished(root: Path) -> list[str]:
    """Names of the files in the making, without who makes them."""
    return sorted(f.name.split(".")[1] for f in root.glob("*/*/.*"))


def test_what_a_killed_process_was_writing_is_removed_by_the_next_run_and_changes_nothing(folder, tmp_path):
    root = tmp_path / "kept"
    killed(folder, root, LAYERS, WHILE_WRITING)
    assert unfinished(root) == ["state-001"]
    (found,) = sets(root)
    there = {f.name for f in found.iterdir() if not f.name.startswith(".")}
    os.utime(found, (1, 1))
    Kept(root).clear()
    assert unfinished(root) == []
    assert {f.name for f in found.iterdir()} == there  # finished depths serve the next run
    assert found.stat().st_mtime == 1  # clearing is no use


def test_any_run_removes_what_a_killed_one_was_writing(folder, tmp_path):
    killed(folder, tmp_path / "kept", LAYERS, WHILE_WRITING)
    vectors(folder, tmp_path / "kept", words=("another", "set"))
    assert unfinished(tmp_path / "kept") == []
    assert (vectors(folder, tmp_path / "kept").values == vectors(folder, None).values).all()


def test_what_a_living_process_is_writing_stays_however_old_until_it_ends(tmp_path):
    code = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from pairprobe.kept import Kept
        def write(file):
            file.write_bytes(b"half of it")
            print("now", flush=True)
            time.sleep(600)
        Kept(Path({str(tmp_path)!r})).shelf({{"a": 1}}).writing(["x"]).state(1, write)
        """
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "now\n"
        (file,) = tmp_path.glob("*/*/.state-001.*")
        os.utime(file, (1, 1))
        Kept(tmp_path).clear()
        assert file.read_bytes() == b"half of it"
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    Kept(tmp_path).clear()
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "locks"),
    [(".state-001.another.12", True), (".depth-001.npy.12", True), (f".state-001.{keeping.HOST}.12", False)],
    ids=["elsewhere", "older version", "no locks"],
)
def test_what_nobody_knows_the_writer_of_stays_for_a_week(tmp_path, monkeypatch, name, locks):
    def refuse(*_):
        raise OSError("no locks available")

    if not locks:
        monkeypatch.setattr(locking.fcntl, "flock", refuse)
    file = tmp_path / "key" / "set" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of it")
    now = file.stat().st_mtime
    os.utime(file, (now, now - 6 * 24 * 3600))
    Kept(tmp_path).clear()
    assert unfinished(tmp_path) == [name.split(".")[1]]
    os.utime(file, (now, now - 8 * 24 * 3600))
    Kept(tmp_path).clear()
    assert unfinished(tmp_path) == []


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_used_longest_ago_makes_room(tmp_path):
    kept = Kept(tmp_path / "kept", limit=25_000)
    values = np.ones((2, 1000), np.float32)  # 8 kB
    for i in range(3):
        writing = kept.shelf(ABOUT).writing([f"{i}a", f"{i}b"])
        writing.depth(0, values)
        os.utime(writing.folder, (i, i))
    assert kept.shelf(ABOUT).find(["0a"], [0])  # used just now
    last = kept.shelf(ABOUT).writing(["3a", "3b"])
    last.depth(0, values)
    last.finish()
    there = [bool(kept.shelf(ABOUT).find([f"{i}a"], [0])) for i in range(4)]
    assert there == [True, False, True, True]


def test_a_set_larger_than_the_limit_stays_until_the_next(tmp_path):
    kept = Kept(tmp_path / "kept", limit=10)
    writing = kept.shelf(ABOUT).writing(["a"])
    writing.depth(0, torch.ones(1, 4).numpy())
    writing.finish()
    assert kept.shelf(ABOUT).find(["a"], [0])
