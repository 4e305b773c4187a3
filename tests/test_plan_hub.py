"""Plans of models that are on the hub alone: made from headers, before anything large is fetched."""

from __future__ import annotations

import re
import shutil
import socket
import struct
from collections import namedtuple
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import COMMIT, Repository, Server
from small_models import write

from pairprobe.checkpoints import remote
from pairprobe.checkpoints.model import Model
from pairprobe.commands.main import run
from pairprobe.errors import CheckpointError

HUB = "someone/tiny"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama in several files. Not to be changed."""
    return write("llama", tmp_path_factory.mktemp("written") / "many", hidden_size=256, shards="300KB")


@pytest.fixture
def tiny(server: Server, many: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The hub, which has it; a first request is shorter than any header."""
    monkeypatch.setattr(remote, "FIRST", 64)
    server.repositories[HUB] = Repository.of(many)
    return server


def words(*more: str, hub: str = HUB) -> list[str]:
    return ["model=hub", f"model.hub={hub}", "execution.device=cpu", "template=bare", *more]


def planned(capfd: pytest.CaptureFixture[str], *more: str, code: int = 0) -> str:
    """What is said on the terminal, without its line breaks."""
    assert run(["plan", *more]) == code
    said = capfd.readouterr()
    return " ".join((said.out if code == 0 else said.err).split())


def header(file: Path) -> int:
    """Bytes before the first weight."""
    return 8 + int(struct.unpack("<Q", file.read_bytes()[:8])[0])


def ways(said: str) -> list[str]:
    """Bytes read and memory of each way."""
    return re.findall(r"(?:streamed|resident) (?:← )?[\d.]+ [kMG]?B +[\d.]+ [kMG]B", said)


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_from_the_hub_is_that_of_the_files_themselves_and_fetches_no_weight(
    tiny: Server, many: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = planned(capfd, *words())
    files = sorted(many.glob("*.safetensors"))
    asked = tiny.of("storage")
    assert {f.name for f in files} == {a.path.partition("?")[0].rpartition("/")[2] for a in asked}
    ends = {f.name: header(f) for f in files}
    for one in asked:
        name = one.path.partition("?")[0].rpartition("/")[2]
        assert one.range is not None
        assert int(one.range.rpartition("-")[2]) < ends[name]
    assert sum(a.sent for a in asked) <= sum(ends.values()) + 2 * 64 * len(files)  # lengths are read first
    assert list(home.iterdir()) == []
    assert list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*.safetensors")) == []
    here = planned(capfd, "model=local", f"model.source={many}", "execution.device=cpu", "template=bare")
    assert len(ways(here)) == 2
    assert ways(said) == ways(here)
    assert "download" not in here


def test_a_plan_says_how_much_is_to_be_downloaded_where_to_and_how(
    tiny: Server, many: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = planned(capfd, *words())
    wanted = sum(f.stat().st_size for f in many.glob("*.safetensors"))
    place = re.escape(huggingface_hub.constants.HF_HUB_CACHE)
    assert re.search(rf"download {wanted / 1e6:.0f} MB from {HUB} to {place}, where [\d.]+ GB are free\. ", said)
    assert "So far only headers and the tokenizer were fetched." in said
    assert "The disk's cannot be before the files are on it: 1.0 GB a second is supposed." in said
    assert f"hf download {HUB} --revision main or model.fetch=all" in said
    assert tiny.asked


@pytest.mark.usefixtures("tiny")
def test_a_plan_with_leave_to_fetch_says_that_the_run_begins_so(capfd: pytest.CaptureFixture[str]) -> None:
    said = planned(capfd, *words("model.fetch=all"))
    assert "A run begins with this download (model.fetch=all)." in said
    assert "hf download" not in said
    assert "kept" not in said


@pytest.mark.usefixtures("tiny")
def test_what_the_cache_holds_of_it_is_not_counted(many: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = Model("tiny", hub=HUB, fetch="all").download()
    last = sorted(found.folder.glob("*.safetensors"))[-1]
    size = last.stat().st_size
    last.unlink()
    said = planned(capfd, *words())
    assert size < 1e6 < sum(f.stat().st_size for f in many.glob("*.safetensors"))
    assert f"download {size / 1e3:.0f} kB from" in said


def test_a_model_that_is_here_is_planned_from_its_files(tiny: Server, capfd: pytest.CaptureFixture[str]) -> None:
    Model("tiny", hub=HUB, fetch="all").download()
    tiny.asked.clear()
    assert "download" not in planned(capfd, *words())
    assert tiny.asked == []


@pytest.mark.usefixtures("tiny")
def test_a_plan_of_rows_says_that_they_can_be_read_where_they_lie(capfd: pytest.CaptureFixture[str]) -> None:
    said = planned(capfd, *words("method=static"))
    assert re.search(r"plan \d+ rows of the embedding table", said)
    assert "download not needed: model.fetch=rows reads these rows where they lie. All of it: " in said
    assert "supposed" not in said


@pytest.mark.usefixtures("tiny")
def test_a_disk_that_is_too_small_is_told_beside_the_plan(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12, 1_000_000_000))
    said = planned(capfd, *words())
    assert "where 1.0 GB are free, which is too little: set HF_HOME to a larger disk." in said
    assert len(ways(said)) == 2


def test_a_sweep_shows_every_model_and_asks_once_for_each(tiny: Server, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.repositories["someone/other"] = Repository(tiny.repositories[HUB].files, commit="f" * 40)
    said = planned(capfd, "-m", *words("method=layerwise,static", hub=f"{HUB},someone/other"))
    assert (said.count("tiny × "), said.count("other × ")) == (2, 2)
    assert len(re.findall(r"download (?:not needed|[\d.]+ [kM]B from)", said)) == 4
    asked = [(a.path, a.range) for a in tiny.of("storage")]
    assert len(asked) == len(set(asked))
    assert {path.split("/")[1] for path, _ in asked} == {"someone--tiny", "someone--other"}


# ── where it cannot be ───────────────────────────────────────────────────────────────────────────────────

ABSENT = f"tiny: not found. Looked in: hub cache for {HUB} at main, model.source (unset)."


def test_a_run_still_asks_for_nothing(tiny: Server, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(words())
    assert ABSENT in " ".join(capfd.readouterr().err.split())
    assert tiny.asked == []


def test_a_plan_offline_says_why_it_knows_no_size_beside_what_a_run_says(
    tiny: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as before:
        Model("tiny", hub=HUB, revision="main").locate()
    said = planned(capfd, *words(), code=2)
    assert said.startswith(
        f"preflight {ABSENT} HF_HUB_OFFLINE is set: nothing can be downloaded before it is unset. "
        "tiny: what it would read and need is not known: that is in headers on the hub. "
        "Without HF_HUB_OFFLINE, plan fetches these alone."
    )
    assert said.endswith(" ".join(before.value.next_step.split()))
    assert tiny.asked == []


@pytest.mark.usefixtures("tiny", "home")
def test_a_run_after_a_plan_says_that_the_weights_were_not_downloaded(
    many: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planned(capfd, *words())
    with pytest.raises(CheckpointError) as refused:
        Model("tiny", hub=HUB, revision="main").locate()
    stored = sum(f.stat().st_size - header(f) for f in many.glob("*.safetensors"))
    assert refused.value.problems == (
        f"tiny: the weights of {HUB} ({stored / 1e9:.3g} GB by model.safetensors.index.json) have not been "
        "downloaded; the hub cache holds only small files of it.",
    )
    assert f"Get it: hf download {HUB}" in refused.value.next_step
    some = next(iter(sorted(many.glob("*.safetensors"))))
    (snapshot,) = Path(huggingface_hub.constants.HF_HUB_CACHE).glob("*/snapshots/*")
    shutil.copy(some, snapshot / some.name)  # a download that broke off
    with pytest.raises(CheckpointError, match=rf"weight files are missing: (?!{some.name})"):
        Model("tiny", hub=HUB, revision="main").locate()


def test_a_plan_without_a_network_says_so_beside_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        said = planned(capfd, *words(), code=2)
    assert ABSENT in said
    assert "cannot be had from http://127.0.0.1" in said
    assert f"Get it: hf download {HUB}" in said
    assert server.asked == []


def test_a_storage_that_does_not_answer_is_told_the_same_way(tiny: Server, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.faults["storage"] = [503] * 100
    said = planned(capfd, *words(), code=2)
    assert ABSENT in said
    assert "answers 503" in said
    assert f"Get it: hf download {HUB}" in said


def test_a_gated_repository_is_explained(tiny: Server, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.repositories[HUB].gated = True
    said = planned(capfd, *words(), code=2)
    assert "is gated, and you have no access. Accept its licence" in said
    assert "not found" not in said


@pytest.mark.usefixtures("tiny")
def test_a_repository_or_a_revision_that_is_not_there_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert "has no repository someone/tinny" in planned(capfd, *words(hub="someone/tinny"), code=2)
    assert "has no revision v9" in planned(capfd, *words("model.revision=v9"), code=2)


def test_what_lies_in_a_folder_is_not_looked_for_on_the_hub(
    tiny: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = planned(capfd, *words(f"model.source={tmp_path / 'nowhere'}"), code=2)
    assert "nowhere is not there" in said
    assert tiny.asked == []


def test_the_foreseen_checkpoint_is_to_come(tiny: Server) -> None:
    found = Model("tiny", hub=HUB).foresee()
    assert (found.remote, found.to_come, found.revision) == (True, True, COMMIT)
    assert tiny.of("storage")
