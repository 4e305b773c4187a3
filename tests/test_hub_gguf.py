"""GGUF files on the hub: downloaded by name, planned and read in rows by their headers; named where a name is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import gguf_files
import huggingface_hub
import numpy as np
import pytest
from hub_server import COMMIT, Repository, Server
from mlflow.tracking import MlflowClient
from small_models import _bytes

from pairprobe.checkpoints import gguf_container, remote
from pairprobe.checkpoints.gguf import open_file
from pairprobe.checkpoints.gguf_container import read_container
from pairprobe.checkpoints.model import Model
from pairprobe.commands.main import run
from pairprobe.errors import CheckpointError

HUB = "someone/tiny-GGUF"
FILE = "tiny-Q8_0.gguf"
TEXT = "the dog and the wheel"
FETCHES = pytest.mark.parametrize("fetch", ["rows", "all"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model in two forms, one in three parts, and one with rotary factors among its tensors. Not to be changed."""
    folder = tmp_path_factory.mktemp("gguf")
    for kind in ("Q8_0", "F16"):
        gguf_files.write("llama", folder / f"tiny-{kind}.gguf", kind)
    gguf_files.write("llama", folder / "parts.gguf", "Q8_0", parts=8)
    gguf_files.write("llama3", folder / "long.gguf", "Q8_0")
    (folder / "mmproj-tiny.gguf").write_bytes(b"a vision tower")
    (folder / "README.md").write_bytes(b"#")
    return folder


@pytest.fixture
def hub(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The hub, which has them; first requests are short, so that what is asked for shows."""
    monkeypatch.setattr(remote, "FIRST", 64)
    monkeypatch.setattr(gguf_container, "STEP", 1000)
    server.repositories[HUB] = Repository.of(folder)
    return server


def model(file: str | None = FILE, fetch: str = "all", **more: str) -> Model:
    return Model("tiny", hub=HUB, file=file, fetch=fetch, **more)


def in_cache() -> set[str]:
    root = Path(huggingface_hub.constants.HF_HUB_CACHE)
    return {f.name for f in root.rglob("snapshots/*/**/*") if f.is_file()}


# ── from headers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", [FILE, "long.gguf", "parts-00001-of-00003.gguf"])
def test_a_file_on_the_hub_is_opened_by_its_header_alone(hub: Server, folder: Path, file: str) -> None:
    found = model(file).locate()
    here = open_file(folder / file)
    assert (found.remote, found.to_come, found.identity) == (True, True, f"commit:{COMMIT}")
    assert found.config == here.config
    assert {n: (t.dtype, t.shape, t.nbytes, t.start) for n, t in found.tensors.items()} == {
        n: (t.dtype, t.shape, t.nbytes, t.start) for n, t in here.tensors.items()
    }
    assert found.to_download == sum(f.stat().st_size for f in here.files)
    most = {f.name: len(read_container(f).raw) + 1000 for f in here.files}
    asked: dict[str, int] = {}
    for one in hub.of("storage"):
        name = one.path.partition("?")[0].rpartition("/")[2]
        asked[name] = asked.get(name, 0) + one.sent
    factors = 4096 if file == "long.gguf" else 0  # the rotary factors lie among the weights, and are some hundred bytes
    assert asked.keys() == most.keys()
    assert all(sent <= most[name] + 64 + factors for name, sent in asked.items())
    assert not {name for name in in_cache() if name.endswith(".gguf")}


def test_the_tokenizer_is_made_of_the_header(hub: Server, folder: Path) -> None:
    found = model().locate().tokenizer()
    assert found(TEXT).input_ids == _bytes("<bos>")(TEXT).input_ids
    header = len(read_container(folder / FILE).raw)
    assert sum(a.sent for a in hub.of("storage")) <= header + 1000 + 64


@pytest.mark.usefixtures("hub")
def test_rows_are_read_where_they_lie(folder: Path) -> None:
    found = model(fetch="rows").locate()
    assert not found.to_come
    before = found.fetched_bytes
    rows = found.rows(found.embedding_name, [0, 100, 289])
    here = Model("here", source=str(folder / FILE)).locate()
    expected = here.rows(here.embedding_name, [0, 100, 289])
    assert all(np.array_equal(rows[i], expected[i]) for i in expected)
    # Q8_0: 34 bytes for 32 weights; 0 and 100 lie near each other: one request with the rows between them
    assert found.fetched_bytes - before == (101 + 1) * 256 // 32 * 34


@pytest.mark.usefixtures("hub")
def test_a_plan_of_a_file_on_the_hub_is_that_of_the_file_itself(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def planned(*words: str) -> str:
        assert run(["plan", *words, "execution.device=cpu", "template=bare"]) == 0
        return " ".join(capfd.readouterr().out.split())

    ways = r"(?:streamed|resident) (?:← )?[\d.]+ [kM]B +[\d.]+ [kM]B"
    said = planned("model=hub", f"model.hub={HUB}", f"model.file={FILE}")
    here = planned("model=local", f"model.source={folder / FILE}")
    assert len(re.findall(ways, here)) == 2
    assert re.findall(ways, said) == re.findall(ways, here)
    size = (folder / FILE).stat().st_size
    assert f"download {size / 1e6:.0f} MB from {HUB}, {FILE} to " in said
    assert f"hf download {HUB} {FILE} --revision main or model.fetch=all" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: b"GGML" + raw[4:], "not a GGUF file"),
        (lambda raw: raw[:16] + b"\xff" * 6 + b"\0\0" + raw[24:], "cut off in|is not readable|is of kind"),
        (lambda raw: raw[: len(raw) // 2], "cut off"),
    ],
    ids=["magic", "count", "half"],
)
def test_a_damaged_header_is_named(hub: Server, folder: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    hub.repositories[HUB].files[FILE] = change((folder / FILE).read_bytes())
    with pytest.raises(CheckpointError, match=rf"{FILE}: .*(?:{said})"):
        model().locate()


def test_a_header_without_end_is_not_fetched_for_ever(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_container, "LARGEST_HEADER", 3000)
    with pytest.raises(CheckpointError, match=rf"{FILE}: 3000 bytes and more of header"):
        model().locate()
    assert sum(a.sent for a in hub.of("storage")) <= 3000 + 64


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────


def test_all_fetches_that_file_and_no_other(hub: Server, folder: Path) -> None:
    found = model().download()
    assert in_cache() == {FILE}
    assert (found.remote, found.to_come, found.identity) == (False, False, f"commit:{COMMIT}")
    assert found.tokenizer()(TEXT).input_ids == _bytes("<bos>")(TEXT).input_ids
    here = Model("here", source=str(folder / FILE)).locate()
    assert np.array_equal(found.rows(found.embedding_name, [7])[7], here.rows(here.embedding_name, [7])[7])
    hub.asked.clear()
    for fetch in ("cache", "rows", "all"):
        assert not model(fetch=fetch).locate().remote
    assert hub.asked == []


@pytest.mark.usefixtures("hub")
def test_all_parts_of_a_split_file_are_fetched(folder: Path) -> None:
    parts = {f.name for f in folder.glob("parts-*.gguf")}
    assert len(parts) == 3
    found = model("parts-00001-of-00003.gguf").download()
    assert in_cache() == parts
    assert found.layers == 2
    lost = next(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("snapshots/*/parts-00003-of-00003.gguf"))
    size = lost.stat().st_size
    lost.unlink()
    with pytest.raises(CheckpointError, match="1 of 3 parts are missing") as caught:
        model("parts-00001-of-00003.gguf", "cache").locate()
    assert "model.fetch=all" in caught.value.next_step
    assert model("parts-00001-of-00003.gguf").locate().to_download == size
    assert model("parts-00001-of-00003.gguf").download().layers == 2


@pytest.mark.parametrize("inside", ["", "Q8_0/"])
def test_a_tokenizer_beside_the_file_comes_with_it(hub: Server, folder: Path, tmp_path: Path, inside: str) -> None:
    _bytes(None).save_pretrained(tmp_path / "own")  # it sets no <bos>, so that its texts are shorter
    own = {f"{inside}{f.name}": f.read_bytes() for f in (tmp_path / "own").iterdir()}
    files = {f"{inside}{FILE}": (folder / FILE).read_bytes(), "config.json": b"{}", "other/vocab.json": b"{}", **own}
    hub.repositories[HUB] = Repository(files)
    expected = _bytes(None)(TEXT).input_ids
    assert model(f"{inside}{FILE}").locate().tokenizer()(TEXT).input_ids == expected
    found = model(f"{inside}{FILE}").download()
    assert found.tokenizer()(TEXT).input_ids == expected
    assert in_cache() == {FILE, *(name.removeprefix(inside) for name in own)}
    assert found.identity == f"commit:{COMMIT}"


@pytest.mark.usefixtures("hub")
def test_a_base_models_tokenizer_that_is_named_is_used(tmp_path: Path) -> None:
    _bytes(None).save_pretrained(tmp_path / "base")
    found = model(tokenizer=str(tmp_path / "base"))
    for checkpoint in (found.locate(), found.download()):
        assert checkpoint.tokenizer()(TEXT).input_ids == _bytes(None)(TEXT).input_ids


@pytest.mark.usefixtures("hub")
def test_a_run_downloads_the_file_and_records_it(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["model=hub", f"model.hub={HUB}", f"model.file={FILE}", "model.fetch=all", "template=bare"]
    assert run([*words, "execution=streamed", "execution.device=cpu"]) == 0
    assert re.search(rf"download +{HUB}, {FILE}, 1 MB", " ".join(capfd.readouterr().out.split()))
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (done,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert done.info.status == "FINISHED"
    assert (done.data.params["model.file"], done.data.params["model.revision"]) == (FILE, COMMIT)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────

THERE = "Its GGUF files: long.gguf, parts-00001-of-00003.gguf, tiny-F16.gguf, tiny-Q8_0.gguf."


def refused(found: Model) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        found.locate()
    return caught.value


@FETCHES
@pytest.mark.usefixtures("hub")
def test_a_wrong_name_is_answered_with_those_that_are_there(fetch: str) -> None:
    error = refused(model("tiny-Q8.gguf", fetch))
    assert f"{HUB} has no file tiny-Q8.gguf at main. Did you mean 'tiny-Q8_0.gguf'?" in error.problems[0]
    assert error.problems[1] == THERE
    assert "model.file=" in error.next_step


@FETCHES
@pytest.mark.parametrize("sides", [{}, {"config.json": b"{}"}])
def test_a_missing_name_is_asked_for(hub: Server, fetch: str, sides: dict[str, bytes]) -> None:
    hub.repositories[HUB].files |= sides
    error = refused(model(None, fetch))
    assert ("no weights" if sides else "has no config.json") in error.problems[0]
    assert error.problems[1] == THERE
    assert "Choose one: model.file=" in error.next_step


@FETCHES
def test_a_repository_without_such_files_says_so(hub: Server, fetch: str) -> None:
    hub.repositories[HUB].files = {"model.safetensors": b"", "config.json": b"{}"}
    error = refused(model(fetch=fetch))
    assert len(error.problems) == 1
    assert error.next_step == "It has no GGUF file: leave model.file out."


@FETCHES
def test_a_part_that_the_hub_lacks_is_named(hub: Server, fetch: str) -> None:
    del hub.repositories[HUB].files["parts-00002-of-00003.gguf"]
    assert (
        "1 of 3 weight files are missing: parts-00002" in refused(model("parts-00001-of-00003.gguf", fetch)).problems[0]
    )


def test_the_cache_names_what_it_has_and_nobody_is_asked(hub: Server) -> None:
    model().download()
    hub.asked.clear()
    error = refused(model("tiny-F16.gguf", "cache"))
    assert "tiny-F16.gguf of someone/tiny-GGUF is not in the hub cache" in error.problems[0]
    assert "GGUF files of it that are there: tiny-Q8_0.gguf." in error.problems[1]
    assert f"hf download {HUB} tiny-F16.gguf   or model.fetch=all" in error.next_step
    error = refused(model(None, "cache"))
    assert "not found" in error.problems[0]
    assert "To use one: model.file=tiny-Q8_0.gguf" in error.problems[1]
    assert hub.asked == []
