"""Checkpoints that are not on this machine: what is fetched, from whom, and what is said when it cannot be."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
from hub_server import COMMIT, Repository, Server
from safetensors.torch import load_file
from small_models import tokens_of, write

from pairprobe.checkpoints import remote, url
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError, ConfigError

TABLE = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"
HUB = "someone/tiny"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with a table of 290 rows of 1 KB, so that rows are far less than the table. Not to be changed."""
    return write("llama", tmp_path_factory.mktemp("written") / "one", hidden_size=256)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in several files."""
    return write("llama", tmp_path_factory.mktemp("written") / "many", hidden_size=256, shards="300KB")


def on_hub(server: Server, folder: Path, fetch: str = "rows", **more: object) -> Model:
    server.repositories[HUB] = Repository.of(folder, **more)  # type: ignore[arg-type]
    return Model("tiny", hub=HUB, fetch=fetch)


def behind_url(server: Server, folder: Path) -> Model:
    server.repositories[HUB] = Repository.of(folder)
    return Model("tiny", source=f"{server.endpoint}/plain/{HUB}/")


PLACES = pytest.mark.parametrize("place", [on_hub, behind_url], ids=["hub", "url"])
Place = Callable[[Server, Path], Model]


# ── rows from afar ───────────────────────────────────────────────────────────────────────────────────────


@PLACES
@pytest.mark.parametrize("files", ["written", "sharded"])
def test_rows_are_the_tables_own_and_little_else_is_fetched(server, place: Place, files, request):
    folder = request.getfixturevalue(files)
    found = place(server, folder).locate()
    table = next(t[TABLE] for f in folder.glob("*.safetensors") if TABLE in (t := load_file(f)))
    assert found.remote
    assert {n: (t.shape, t.dtype, t.nbytes) for n, t in found.tensors.items()} == {
        n: (t.shape, t.dtype, t.nbytes) for n, t in Checkpoint.open(folder).tensors.items()
    }
    before = found.fetched_bytes
    rows = found.rows(found.embedding_name, [100, 280, 150, 289])
    for i, row in rows.items():
        assert np.array_equal(row, table[i].numpy())
    # 280 and 289 lie near each other: one request with the eight rows between them
    assert found.fetched_bytes - before == (1 + 1 + 10) * 1024
    weights = [a for a in server.asked if ".safetensors" in a.path and "index" not in a.path]
    assert sum(a.sent for a in weights) < 0.5 * found.nbytes


@PLACES
def test_bytes_are_counted_as_the_server_counts_them(server, place, sharded):
    found = place(server, sharded).locate()
    found.rows(TABLE, range(40))
    ours = [a for a in server.asked if a.role == "storage"] if place is on_hub else server.asked
    skipped = 0 if place is on_hub else sum(a.sent for a in ours if a.sent < 40)  # pages that say 404
    assert found.fetched_bytes == sum(a.sent for a in ours) - skipped


@PLACES
def test_the_tokenizer_from_afar_is_the_checkpoints_own(server, place, written):
    here, there = tokens_of(Checkpoint.open(written)), tokens_of(place(server, written).locate())
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(here.of, there.of, strict=True))


def test_large_places_come_in_requests_of_a_bounded_size(server, written, monkeypatch):
    monkeypatch.setattr(remote, "LARGEST_REQUEST", 50_000)
    found = on_hub(server, written).locate()
    rows = found.rows(TABLE, range(290))  # 297 kB
    assert np.array_equal(np.stack(list(rows.values())), load_file(written / "model.safetensors")[TABLE].numpy())
    assert max(a.sent for a in server.of("storage")) == 50_000


def test_a_commit_is_the_identity_of_what_the_hub_has(server, written):
    found = on_hub(server, written).locate()
    assert (found.revision, found.identity) == (COMMIT, f"commit:{COMMIT}")
    assert found.folder.name == COMMIT
    assert not (found.folder / "model.safetensors").exists()


def test_the_hub_states_the_hash_of_weights_that_were_never_fetched(server, written):
    found = on_hub(server, written).locate()
    found.check_sha256(hashlib.sha256((written / "model.safetensors").read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="has sha256"):
        found.check_sha256("0" * 64)


def test_the_hash_of_weights_behind_an_address_is_not_made_up(server, written):
    with pytest.raises(CheckpointError, match="unknown"):
        behind_url(server, written).locate().check_sha256("0" * 64)


def test_the_identity_behind_an_address_follows_the_servers_tag(server, written):
    model = behind_url(server, written)
    first, again = model.locate().identity, model.locate().identity
    assert first == again
    assert first.startswith("tagged:")
    changed = bytearray(server.repositories[HUB].files["model.safetensors"])
    changed[-1] ^= 1
    server.repositories[HUB].files["model.safetensors"] = bytes(changed)
    assert model.locate().identity != first


# ── who is asked, and with what ──────────────────────────────────────────────────────────────────────────


def test_the_token_goes_to_the_hub_and_to_nobody_else(server, written, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", server.token)
    on_hub(server, written, gated=True).locate().rows(TABLE, [1, 200])
    assert {a.authorization for a in server.of("hub", "model.safetensors")} == {f"Bearer {server.token}"}
    assert server.of("storage")
    assert {a.authorization for a in server.of("storage")} == {None}


def test_a_stored_token_is_found(server, written, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(server.token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert on_hub(server, written, gated=True).locate().remote


def test_a_redirect_is_followed_and_its_servers_tag_counts(server, written):
    model = behind_url(server, written)
    with Server({HUB: Repository.of(written)}) as other:
        server.elsewhere = other.endpoint
        found = model.locate()
        assert found.rows(TABLE, [250])
        other.faults["model.safetensors"] = ["changed"]
        with pytest.raises(CheckpointError, match="it changed while it was read"):
            found.rows(TABLE, [250])


def test_netrc_opens_an_address(server, written, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    behind_url(server, written).locate()
    assert {a.authorization for a in server.asked} == {"Basic " + base64.b64encode(b"me:mine").decode()}


def test_netrc_does_not_take_the_tokens_place(server, written, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("HF_TOKEN", server.token)
    on_hub(server, written, gated=True).locate()
    assert {a.authorization for a in server.of("hub", "resolve")} == {f"Bearer {server.token}"}


def test_a_signed_address_that_has_run_out_is_asked_for_anew(server, written):
    found = on_hub(server, written).locate()
    before = len(server.of("hub", "model.safetensors"))
    server.faults["storage"] = ["expired"]
    assert sorted(found.rows(TABLE, [3])) == [3]
    assert len(server.of("hub", "model.safetensors")) == before + 1


def test_the_cache_comes_first_when_it_is_whole(server, written):
    on_hub(server, written, "all").download()
    server.asked.clear()
    for fetch in ("cache", "rows", "all"):
        assert not Model("tiny", hub=HUB, fetch=fetch).locate().remote
    assert server.asked == []


def test_rows_alone_do_not_count_as_a_checkpoint_in_the_cache(server, written):
    on_hub(server, written).locate()
    with pytest.raises(CheckpointError, match="have not been downloaded") as caught:
        Model("tiny", hub=HUB).locate()
    assert "model.fetch=all" in caught.value.next_step


def test_nothing_is_fetched_unasked(server, written):
    with pytest.raises(CheckpointError, match=r"not found(.|\n)*model\.fetch=rows"):
        on_hub(server, written, "cache").locate()
    assert server.asked == []


def test_another_word_for_fetch_is_refused():
    with pytest.raises(ConfigError, match=r"model\.fetch is 'row'; allowed: cache, rows, all\. Did you mean 'rows'"):
        Model("tiny", hub=HUB, fetch="row")


# ── whole downloads ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("files", ["written", "sharded"])
def test_all_fetches_the_checkpoint_and_nothing_beside_it(server, files, request):
    folder = request.getfixturevalue(files)
    model = on_hub(server, folder, "all")
    server.repositories[HUB].files |= {
        "pytorch_model.bin": b"pickle", "consolidated.safetensors": b"again", "original/consolidated.00.pth": b"x",
        "README.md": b"#", "modeling_tiny.py": b"raise SystemExit",
    }  # fmt: skip
    coming = model.locate()
    assert (coming.remote, coming.to_come) == (True, True)
    assert all(a.sent <= 16384 for a in server.of("storage"))  # headers alone: preflight downloads nothing
    found = model.download()
    assert (found.remote, found.to_come) == (False, False)
    assert found.identity == f"commit:{COMMIT}"
    wanted = {f.name for f in folder.iterdir()} & {f.name for f in found.folder.iterdir()}
    assert {f.name for f in found.folder.iterdir()} == wanted
    assert {f.name for f in folder.glob("*.safetensors*")} <= wanted
    assert found.rows(TABLE, [5])[5].shape == (256,)


def test_a_disk_that_is_too_small_is_told_before_anything_large_is_fetched(server, written, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12, 1_000_000_000))
    with pytest.raises(CheckpointError, match=r"0\.0 GB are to be downloaded to .*1\.0 GB are free"):
        on_hub(server, written, "all").locate()
    assert server.of("storage") == []


def test_code_is_fetched_where_it_is_trusted_and_only_there(server, written):
    server.repositories[HUB] = Repository.of(written)
    server.repositories[HUB].files["modeling_tiny.py"] = b"1"
    assert not (Model("tiny", hub=HUB, fetch="rows").locate().folder / "modeling_tiny.py").exists()
    trusted = Model("tiny", hub=HUB, fetch="rows", trust_remote_code=True).locate()
    assert (trusted.folder / "modeling_tiny.py").exists()


# ── what cannot be had ───────────────────────────────────────────────────────────────────────────────────


BOTH = pytest.mark.parametrize("fetch", ["rows", "all"])


def refused(model: Model) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        model.locate()
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]
    return caught.value


@BOTH
def test_a_gated_repository_says_where_to_accept_and_how_to_log_in(server, written, fetch):
    error = refused(on_hub(server, written, fetch, gated=True))
    assert "is gated" in error.problems[0]
    assert f"{server.endpoint}/{HUB}" in error.next_step
    assert "hf auth login" in error.next_step


@BOTH
@pytest.mark.usefixtures("server")
def test_a_repository_that_is_not_there_asks_for_its_spelling(fetch):
    error = refused(Model("tiny", hub="someone/tinny", fetch=fetch))
    assert "no repository someone/tinny" in error.problems[0]
    assert "spelling" in error.next_step


@BOTH
def test_a_revision_that_is_not_there_is_named(server, written, fetch):
    on_hub(server, written)
    error = refused(Model("tiny", hub=HUB, revision="v9", fetch=fetch))
    assert f"{HUB} has no revision v9" in error.problems[0]


@BOTH
@pytest.mark.usefixtures("server")
def test_a_name_that_is_none_is_refused(fetch):
    assert "no repository's name" in refused(Model("tiny", hub="a/b/c d", fetch=fetch)).problems[0]


@BOTH
def test_a_branch_that_moves_meanwhile_is_not_mixed_with_itself(server, written, fetch, monkeypatch):
    model = on_hub(server, written, fetch)
    asked = huggingface_hub.HfApi.model_info

    def moves(*args: object, **kwargs: object) -> object:
        answer = asked(*args, **kwargs)  # type: ignore[arg-type]
        server.repositories[HUB].commit = "f" * 40
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", moves)
    assert f"moved from {COMMIT} to {'f' * 40}" in refused(model).problems[0]


@BOTH
def test_offline_says_so(server, written, fetch, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = refused(on_hub(server, written, fetch))
    assert "HF_HUB_OFFLINE" in error.problems[0]
    assert server.asked == []


@BOTH
def test_no_network_says_so(server, written, fetch, monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = refused(on_hub(server, written, fetch))
    assert "cannot be had from http://127.0.0.1" in error.problems[0]
    assert "model.fetch=cache" in error.next_step


@BOTH
def test_a_repository_of_pickles_is_refused(server, written, fetch):
    model = on_hub(server, written, fetch)
    files = server.repositories[HUB].files
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    assert "is a pickle" in refused(model).problems[0]


@BOTH
def test_a_repository_without_a_config_is_refused(server, written, fetch):
    model = on_hub(server, written, fetch)
    del server.repositories[HUB].files["config.json"]
    assert "no config.json" in refused(model).problems[0]


@BOTH
def test_a_repository_with_an_adapter_is_refused_by_its_list_of_files(server, written, fetch, tmp_path):
    folder = Path(shutil.copytree(written, tmp_path / "tuned"))
    (folder / "adapter_config.json").write_text("{}")
    error = refused(on_hub(server, folder, fetch))
    assert error.problems == (
        f"tiny: {HUB} holds adapter_config.json: transformers would put that adapter upon the weights; here none is.",
    )
    assert "merge_and_unload" in error.next_step
    assert not [a for a in server.asked if "config.json" in a.path or ".safetensors" in a.path]


@BOTH
def test_a_repository_that_lacks_shards_is_refused(server, sharded, fetch):
    model = on_hub(server, sharded, fetch)
    last = sorted(f for f in server.repositories[HUB].files if f.endswith(".safetensors"))[-1]
    del server.repositories[HUB].files[last]
    error = refused(model)
    assert "1 of" in error.problems[0]
    assert last in error.problems[0]


def test_a_url_that_lacks_shards_or_weights_or_config_is_refused(server, sharded):
    model = behind_url(server, sharded)
    files = server.repositories[HUB].files
    last = sorted(f for f in files if f.endswith(".safetensors"))[-1]
    del files[last]
    assert last in refused(model).problems[0]
    del files[INDEX]
    assert "no weights" in refused(model).problems[0]
    del files["config.json"]
    assert "no config.json at" in refused(model).problems[0]


@pytest.mark.usefixtures("server")
def test_a_url_that_nobody_answers_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/model"
        error = refused(Model("tiny", source=address))
    assert "cannot be reached" in error.problems[0]
    assert "in 4 tries" in error.problems[0]


@pytest.mark.parametrize(
    "address", ["https://me:secret@host/x", "https://host/x?token=secret", "https://host/x#secret", "https:///secret"]
)
def test_an_address_with_a_secret_or_without_a_host_is_refused_unsaid(address):
    error = refused(Model("tiny", source=address))
    assert "host:" not in error.problems[0]
    assert "secret" not in error.problems[0].replace("https:///secret", "")


def test_an_address_whose_port_is_none_is_refused():
    assert "no address" in refused(Model("tiny", source="http://host:port/x")).problems[0]


def test_fetch_all_is_not_for_addresses(server, written):
    model = Model("tiny", source=behind_url(server, written).source, fetch="all")
    assert "model.fetch=all is for the hub" in refused(model).problems[0]


def test_a_cache_that_cannot_be_written_is_named(server, written, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAIRPROBE_CACHE", str(tmp_path / "file"))
    assert "PAIRPROBE_CACHE" in refused(behind_url(server, written)).next_step


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("PAIRPROBE_CACHE", raising=False)
    monkeypatch.setattr(url.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert url.cache() == tmp_path / "pairprobe"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert url.cache() == tmp_path / ".cache" / "pairprobe"
    monkeypatch.setattr(url.sys, "platform", "darwin")
    assert url.cache() == tmp_path / "Library" / "Caches" / "pairprobe"
    monkeypatch.setattr(url.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert url.cache() == tmp_path / "local" / "pairprobe"


# ── bad servers, bad lines ───────────────────────────────────────────────────────────────────────────────


@PLACES
@pytest.mark.parametrize("fault", [429, 503, 502, "cut"])
def test_what_goes_wrong_once_is_tried_again(server, place, written, fault):
    found = place(server, written).locate()
    server.faults["model.safetensors"] = [fault, fault]
    row = found.rows(TABLE, [250])[250]
    assert np.array_equal(row, load_file(written / "model.safetensors")[TABLE][250].numpy())


@PLACES
@pytest.mark.parametrize(("fault", "said"), [(503, "answers 503"), ("cut", "breaks off")])
def test_what_goes_wrong_always_is_an_error_with_a_number_of_tries(server, place, written, fault, said):
    found = place(server, written).locate()
    server.faults["model.safetensors"] = [fault] * 50
    with pytest.raises(CheckpointError, match=f"{said}.*in 4 tries"):
        found.rows(TABLE, [250])


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(server, written):
    found = behind_url(server, written).locate()
    server.faults["model.safetensors"] = [429]
    server.retry_after = "3600"
    with pytest.raises(CheckpointError, match="asks to wait 3600 s"):
        found.rows(TABLE, [250])


def test_a_server_may_ask_for_a_moment(server, written, monkeypatch):
    slept = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    found = behind_url(server, written).locate()
    server.faults["model.safetensors"] = [429]
    server.retry_after = "3"
    assert found.rows(TABLE, [250])
    assert slept == [3.0]


@PLACES
def test_a_server_without_ranges_is_refused_and_sends_no_whole_file(server, place, written):
    model = place(server, written)
    server.ranges = False
    error = refused(model)
    assert "sends the whole file" in error.problems[0]
    assert "Range" in error.next_step


def test_a_file_that_changes_between_requests_is_an_error(server, written):
    found = behind_url(server, written).locate()
    server.faults["model.safetensors"] = ["changed"]
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it changed while it was read"):
        found.rows(TABLE, [250])


@PLACES
def test_a_file_that_grows_between_requests_is_an_error(server, place, written):
    found = place(server, written).locate()
    server.etags = False
    server.repositories[HUB].files["model.safetensors"] += b"more"
    with pytest.raises(CheckpointError, match="it changed while it was read"):
        found.rows(TABLE, [250])


def test_a_file_that_vanishes_between_requests_is_an_error(server, written):
    found = behind_url(server, written).locate()
    del server.repositories[HUB].files["model.safetensors"]
    with pytest.raises(CheckpointError, match="no longer at"):
        found.rows(TABLE, [250])


@pytest.mark.parametrize("status", [401, 403])
def test_a_url_that_forbids_says_how_to_log_in(server, written, status):
    model = behind_url(server, written)
    server.faults["config.json"] = [status]
    assert "netrc" in refused(model).next_step


def test_a_status_nobody_expects_is_named(server, written):
    model = behind_url(server, written)
    server.faults["model.safetensors"] = [418]
    assert "answers 418" in refused(model).problems[0]


@pytest.mark.parametrize(
    ("elsewhere", "said"), [("ftp://127.0.0.1", "no https address"), ("", "redirects more than 5 times")]
)
def test_redirects_that_lead_nowhere_are_refused(server, written, elsewhere, said):
    model = behind_url(server, written)
    server.elsewhere = elsewhere or server.endpoint
    assert said in refused(model).problems[0]


def test_a_web_page_for_every_address_is_no_checkpoint(server, written):
    model = behind_url(server, written)
    for name in server.repositories[HUB].files:
        server.repositories[HUB].files[name] = b"<!DOCTYPE html><title>Please log in</title>"
    assert "no config.json" in refused(model).problems[0]


def test_a_web_page_instead_of_weights_is_called_one(server, written):
    model = behind_url(server, written)
    server.repositories[HUB].files["model.safetensors"] = b"\n<html><title>Please log in</title></html>"
    assert "a web page saved under this name" in refused(model).problems[0]


def test_an_empty_file_is_no_weights(server, written):
    model = behind_url(server, written)
    server.repositories[HUB].files["model.safetensors"] = b""
    assert "not a whole safetensors file (0 bytes)" in refused(model).problems[0]


def test_small_files_beyond_reason_are_not_taken(server, written, monkeypatch):
    monkeypatch.setattr(remote, "LARGEST_SIDE", 100)
    assert "more than the 100 bytes" in refused(behind_url(server, written)).problems[0]
