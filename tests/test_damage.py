"""Damaged checkpoints: one error that names file and tensor, before anything is computed, and never another kind."""

from __future__ import annotations

import copy
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
from safetensors.torch import load_file, save_file
from small_models import write

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.files import read_index
from pairprobe.checkpoints.headers import read_header
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError

INDEX = "model.safetensors.index.json"
TABLE = "model.embed_tokens.weight"
NORM = "model.layers.0.input_layernorm.weight"  # shares its file with others
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama in several files; not to be changed."""
    return write("llama", tmp_path_factory.mktemp("written") / "llama", shards="40KB")


@pytest.fixture
def shards(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(written, tmp_path / "damaged")


def raw(file: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return file


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(call: Callable[[], object]) -> str:
    """The one line of the error."""
    with pytest.raises(CheckpointError) as caught:
        call()
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].isprintable()
    assert len(caught.value.problems[0]) < 600
    return caught.value.problems[0]


def edit_index(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    edit(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


# ── the index ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_index_that_puts_a_tensor_into_another_file_is_refused(shards):
    files = sorted(f.name for f in shards.glob("*.safetensors"))
    own = next(f for f in files if NORM in load_file(shards / f))
    other = next(f for f in files if f != own)
    edit_index(shards, lambda placed: placed.update({NORM: other}))
    said = refused(lambda: Checkpoint.open(shards))
    assert f"{NORM} is in {other} by {INDEX}, but in {own}" in said


def test_an_index_that_names_a_tensor_nobody_has_is_refused(shards):
    edit_index(shards, lambda placed: placed.update({"model.lost.weight": placed[TABLE]}))
    assert "model.lost.weight is in" in refused(lambda: Checkpoint.open(shards))


def test_a_tensor_that_the_index_forgets_is_read_all_the_same(shards):
    # transformers loads whatever a file holds
    edit_index(shards, lambda placed: placed.pop(NORM))
    assert NORM in Checkpoint.open(shards).tensors


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..\\x", "..", "", "a\nb", 3]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(shards, file):
    edit_index(shards, lambda placed: placed.update({TABLE: file}))
    said = refused(lambda: Checkpoint.open(shards))
    assert INDEX in said
    assert TABLE in said


@pytest.mark.parametrize("text", ["[" * 100_000, '{"weight_map": {}}', '{"weight_map": {"a": ' + "9" * 5000 + "}}"])
def test_an_index_that_is_meant_badly_is_refused(shards, text):
    (shards / INDEX).write_text(text)
    assert INDEX in refused(lambda: Checkpoint.open(shards))


def test_an_index_that_is_a_pointer_says_git_lfs_pull(shards):
    (shards / INDEX).write_text(POINTER)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        Checkpoint.open(shards)


# ── small files ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_tokenizer_that_is_a_pointer_says_git_lfs_pull(shards):
    (shards / "tokenizer.json").write_text(POINTER)
    assert "tokenizer.json is a git-lfs pointer" in refused(lambda: Checkpoint.open(shards))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"hidden_size": ' + "9" * 5000 + "}"])
def test_a_config_that_is_meant_badly_is_refused(shards, text):
    (shards / "config.json").write_text(text)
    assert "config.json cannot be read" in refused(lambda: Checkpoint.open(shards))


# ── weight files ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "said", "step"),
    [
        (POINTER.encode(), "git-lfs pointer", "git lfs pull"),
        (b"  \n<!DOCTYPE html><html>", "web page", "licence"),
        (b"<HTML><body>Sign in", "web page", "licence"),
        (b"PK\x03\x04" + bytes(50), "zip archive", "Convert"),
        (b"GGUF", "not a whole safetensors file (4 bytes)", "again"),
    ],
)
def test_another_file_under_this_name_is_called_what_it_is(tmp_path, content, said, step):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(file)
    assert said in caught.value.problems[0]
    assert step in caught.value.next_step


def test_weights_that_cannot_be_opened_are_named(shards):
    file = sorted(shards.glob("*.safetensors"))[0]
    file.unlink()
    file.mkdir()
    assert f"{file.name}: cannot be read" in refused(lambda: Checkpoint.open(shards))


def test_weights_that_vanish_before_their_rows_are_read_are_named(shards):
    opened = Checkpoint.open(shards)
    file = opened.tensors[TABLE].file
    file.unlink()
    assert f"{file.name}: cannot be read" in refused(lambda: opened.rows(TABLE, [3]))


def test_weights_that_are_cut_off_before_their_rows_are_read_are_named(shards):
    opened = Checkpoint.open(shards)
    file = opened.tensors[TABLE].file
    file.write_bytes(file.read_bytes()[: opened.tensors[TABLE].start + 100])
    assert f"{file.name}: ends early" in refused(lambda: opened.rows(TABLE, [200]))


@pytest.mark.parametrize("name", ["a\nb", "a\x00", "\x1b[31mred", "\ud800", "a\u202eb", "\t"])
def test_names_no_tensor_can_have_are_refused_in_one_line(tmp_path, name):
    header = json.dumps({name: entry("F32", [2], 0, 8)}).encode()
    said = refused(lambda: read_header(raw(tmp_path / "x.safetensors", header, bytes(8))))
    assert said.startswith("x.safetensors: its header names a tensor")


def test_a_name_of_a_megabyte_is_not_repeated_in_full(tmp_path):
    header = json.dumps({"a" * 10**6: entry("F32", [3], 0, 8)}).encode()
    assert "aaa…" in refused(lambda: read_header(raw(tmp_path / "x.safetensors", header, bytes(8))))


ONE, TWO = entry("F32", [2], 0, 8), entry("F32", [2], 8, 16)


@pytest.mark.parametrize(
    ("header", "twice"),
    [
        (f'{{"w": {json.dumps(ONE)}, "w": {json.dumps(TWO)}}}', "w"),
        (f'{{"w": {{}}, "w": {json.dumps(ONE)}, "v": {json.dumps(TWO)}}}', "w"),
        (f'{{"w": 1, "w": {json.dumps(ONE)}, "v": {json.dumps(TWO)}}}', "w"),
        (f'{{"w": {json.dumps(ONE)}, "\\u0077": {json.dumps(TWO)}}}', "w"),
        (f'{{"__metadata__": {{"a": "1", "a": "2"}}, "w": {json.dumps(ONE)}, "v": {json.dumps(TWO)}}}', "a"),
        (f'{{"__metadata__": {{}}, "__metadata__": {{}}, "w": {json.dumps(ONE)}}}', "__metadata__"),
        ('{"w": {"dtype": "I8", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', "dtype"),
        (f'{{"a:b": {json.dumps(ONE)}, "v": {json.dumps(TWO)}, "v": {json.dumps(TWO)}}}', "v"),
    ],
)
def test_names_that_a_header_has_twice_are_refused(tmp_path, header, twice):
    file = raw(tmp_path / "x.safetensors", header.encode(), bytes(16))
    assert f"names {twice} twice" in refused(lambda: read_header(file))


@pytest.mark.parametrize("about", [None, {}, {"format": "pt"}, {"made by": "http://somebody:80"}])
@pytest.mark.parametrize("name", ["w", "w:0", "data_offsets"])
def test_names_that_are_there_once_are_not(tmp_path, about, name):
    header = ({} if about is None else {"__metadata__": about}) | {name: ONE, "v": TWO}
    for text in (json.dumps(header), json.dumps(header, separators=(",", ":"))):
        tensors, _ = read_header(raw(tmp_path / "x.safetensors", text.encode(), bytes(16)))
        assert [(n, t.nbytes) for n, t in tensors.items()] == [(name, 8), ("v", 8)]


def test_sizes_that_are_true_are_no_sizes(tmp_path):
    header = b'{"w": {"dtype": "F32", "shape": [true, 2], "data_offsets": [0, 8]}}'
    file = raw(tmp_path / "x.safetensors", header, bytes(8))
    with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(file, framework="pt"):
        pass
    assert "entry for w" in refused(lambda: read_header(file))


def test_shapes_of_a_million_dimensions_are_refused_at_once(tmp_path):
    header = json.dumps({"w": entry("F32", [2**40] * 200_000, 0, 8)}).encode()
    assert "entry for w" in refused(lambda: read_header(raw(tmp_path / "x.safetensors", header, bytes(8))))


def test_values_of_four_bits_are_counted_in_whole_bytes(tmp_path):
    header = json.dumps({"w": entry("F4", [3], 0, 1)}).encode()
    assert "w is said to be F4 [3], but has 1 bytes" in refused(
        lambda: read_header(raw(tmp_path / "x.safetensors", header, bytes(1)))
    )
    good = json.dumps({"w": entry("F4", [2, 3], 0, 3)}).encode()
    assert read_header(raw(tmp_path / "y.safetensors", good, bytes(3)))[0]["w"].nbytes == 3


def test_a_checkpoint_whose_table_is_empty_is_refused(shards):
    file = Checkpoint.open(shards).tensors[TABLE].file
    tensors = load_file(file)
    save_file(tensors | {TABLE: tensors[TABLE][:0].clone()}, file)
    opened = Checkpoint.open(shards)
    assert TABLE in refused(lambda: opened.rows(TABLE, [0]))


# ── at random ────────────────────────────────────────────────────────────────────────────────────────────

HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a.weight": entry("F32", [2, 3], 0, 24),
    "b.weight": entry("BF16", [4], 24, 32),
    "c.bias": entry("F16", [], 32, 34),
    "d.weight": entry("I8", [0, 5], 34, 34),
    "e.weight": entry("I8", [6], 34, 40),
}
KNOWN = ("F64", "F32", "F16", "BF16", "I8")
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 2**31, 2**63, 2**70, 1.5, float("nan"), "", "F32", "F64", "x", "\n", [], [0], [0, 0],
    [0, 8], [[]], {}, {"dtype": "F32"}, {"a.weight": {}},
)  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy with one place replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or chance.random() < 0.3:
            break
        place = place[key]
    match chance.randrange(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[str(chance.choice(ODD))] = place.pop(key)
        case 2 if isinstance(place, list):
            place.insert(key, place[key])
        case _:
            place[key] = chance.choice(ODD)
    return value


def garbled(data: bytes, chance: random.Random) -> bytes:
    """With some bytes changed, taken out or put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(3):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 9)]
            case _:
                changed[at:at] = bytes(chance.choices(b'{}[]",:0159-eE\\\xff\x00ntf', k=chance.randint(1, 9)))
    return bytes(changed)


def library_reads(file: Path) -> bool:
    try:
        with safetensors.safe_open(file, framework="pt"):
            return True
    except (safetensors.SafetensorError, OSError):
        return False


@pytest.mark.parametrize("seed", range(4))
def test_no_header_however_damaged_raises_anything_else(tmp_path, seed):
    chance = random.Random(seed)
    good = json.dumps(HEADER).encode()
    file = tmp_path / "x.safetensors"
    said = []
    for turn in range(750):
        if turn % 2:
            header, length = json.dumps(mutated(HEADER, chance)).encode(), None
        else:
            whole = garbled(struct.pack("<Q", len(good)) + good, chance)
            header, length = whole[8:], int.from_bytes(whole[:8].ljust(8, b"\0"), "little")
        raw(file, header, bytes(40), length)
        try:
            read_header(file)
        except CheckpointError as error:
            said.append(error.problems[0])
        else:
            # What we take, the library takes: no run fails later. New dtypes it may know before us, or not at all.
            entries = json.loads(header[:length])
            known = all(e["dtype"] in KNOWN for n, e in entries.items() if n != "__metadata__")
            assert library_reads(file) or not known
    assert 300 < len(said) < 750
    assert all(line.startswith("x.safetensors: ") and line.isprintable() for line in said)


def test_no_index_however_damaged_raises_anything_else():
    chance = random.Random(0)
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    said = []
    for turn in range(1500):
        data = json.dumps(mutated(index, chance)).encode() if turn % 2 else garbled(json.dumps(index).encode(), chance)
        try:
            assert all(Path(file).name == file for file in read_index(data, "tiny").values())
        except CheckpointError as error:
            said.append(error.problems[0])
    assert 300 < len(said) < 1500
    assert all(line.startswith(f"tiny: {INDEX} cannot be read") and line.isprintable() for line in said)


def test_no_config_however_damaged_raises_anything_else(shards):
    chance = random.Random(0)
    config = json.loads((shards / "config.json").read_text())
    said: list[str] = []
    for turn in range(200):
        data = (
            json.dumps(mutated(config, chance)).encode() if turn % 2 else garbled(json.dumps(config).encode(), chance)
        )
        (shards / "config.json").write_bytes(data)
        try:
            opened = Model("tiny", source=str(shards)).locate()
            _ = opened.max_tokens, opened.layers, opened.declared, opened.quantisation
        except CheckpointError as error:
            said += error.problems
    assert said
    assert all(line.startswith("tiny: ") for line in said)


@pytest.mark.parametrize("target", ["../blobs/0123abcd", "model.safetensors"])
def test_a_link_that_leads_nowhere_is_called_so(tmp_path, target):
    """A hub's cache whose blobs were not copied, or a link to itself."""
    folder = write("llama", tmp_path / "linked")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(target)
    with pytest.raises(CheckpointError, match=r"linked: model\.safetensors in .*linked is no file: a link that leads"):
        Checkpoint.open(folder)


def test_a_tokenizer_that_is_cut_off_is_told_with_its_folder_and_what_to_do(tmp_path):
    folder = write("llama", tmp_path / "cut")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"cannot be read from {folder}") as caught:
        Checkpoint.open(folder).tokenizer()
    assert "model.tokenizer=" in caught.value.next_step
