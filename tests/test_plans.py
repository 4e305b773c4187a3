"""Was something else asked before? What a store knows of it, and what is said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reported
from mlflow.tracking import MlflowClient

from pairprobe import tracking
from pairprobe.commands.main import run
from pairprobe.errors import StoreError
from pairprobe.page.document import page
from pairprobe.page.opening import planned
from pairprobe.page.stored import read
from pairprobe.plans import Earlier, differences, earlier

TAGS = {"pairs_sha256": "aa", "method": "static", "model": "minilm", "checkpoint": "sha256:1", "primary_sha256": "p1",
        "reference_sha256": "none"}  # fmt: skip
PARAMS = {"experiment.primary.control": None, "experiment.primary.side": "both", "statistics.seed": 0}


def store_in(folder: Path) -> tracking.Store:
    return tracking.Store(f"sqlite:///{folder / 'mlflow.db'}", folder)


def record(store: tracking.Store, experiment: str = "x", fails: bool = False, **changed: str) -> str:
    """A run with these tags; one that `fails` ends so."""
    params = {k: v for k, v in PARAMS.items() if k not in changed}
    params |= {k: changed.pop(k) for k in list(changed) if "." in k}
    with store.start(experiment, "a run", params, {**TAGS, **changed}) as opened:
        pass
    if fails:
        opened.end("FAILED")
    time.sleep(0.002)  # runs are ordered by the millisecond in which they began
    return opened.run_id


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tracking.Store:
    """Making a store takes seconds."""
    return store_in(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(shared: tracking.Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tracking.Store:
    """The shared store, in which no other test has a run on these pairs."""
    monkeypatch.setitem(TAGS, "pairs_sha256", request.node.name.replace("[", "_").replace("]", "_"))
    return shared


# ── what counts ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_store_has_no_earlier_plan(store: tracking.Store) -> None:
    found = earlier(store, PARAMS, TAGS)
    assert (found, found.said, found.tags) == (Earlier(0), (), {"earlier_plans": "0"})


def test_other_plans_are_counted_and_the_first_is_named_with_what_it_asked(store: tracking.Store) -> None:
    first = record(store, primary_sha256="p2", **{"experiment.primary.control": "form_matched"})
    record(store, experiment="another", primary_sha256="p3", **{"experiment.primary.side": "closer"})
    found = earlier(store, PARAMS, TAGS)
    assert (found.n, found.first, found.more) == (2, first, False)
    assert found.differ == (
        "the verdict's control group was form_matched, is the set's first",
        "the side expected was closer, is both",
    )
    (said,) = found.said
    start = "2 earlier runs on these pairs and this model asked something else, one or another of them: the verdict's"
    assert said.startswith(f"{start} control")
    assert first[:8] in said
    assert found.tags["earlier_plans"] == "2"
    assert found.tags["earlier_plans_first"] == first


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"model": "called otherwise"}, True),  # the weights are the same
        ({"primary_sha256": "p1"}, False),
        ({"pairs_sha256": "bb"}, False),
        ({"checkpoint": "sha256:2"}, False),
        ({"method": "layerwise"}, False),
    ],
)
def test_only_the_same_pairs_weights_and_method_count(store: tracking.Store, changed: Any, counts: bool) -> None:
    record(store, **{"primary_sha256": "p2", **changed})
    assert earlier(store, PARAMS, TAGS).n == int(counts)


def test_recorded_similarities_are_told_apart_by_the_name_of_their_model(store: tracking.Store) -> None:
    tags = {k: v for k, v in TAGS.items() if k != "checkpoint"} | {"model": "the author's"}
    record(store, primary_sha256="p2", model="another")
    assert earlier(store, PARAMS, tags).n == 0
    record(store, primary_sha256="p2", model="the author's")
    assert earlier(store, PARAMS, tags).n == 1


def test_a_failed_run_showed_no_number_and_a_deleted_one_did(store: tracking.Store) -> None:
    record(store, fails=True, primary_sha256="p2")
    assert earlier(store, PARAMS, TAGS).n == 0
    store.client.delete_run(record(store, primary_sha256="p3"))
    assert earlier(store, PARAMS, TAGS).n == 1


def test_a_repeated_plan_stays_as_old_as_it_is(store: tracking.Store) -> None:
    record(store)
    record(store, primary_sha256="p2")
    assert earlier(store, PARAMS, TAGS).n == 0
    assert earlier(store, PARAMS, {**TAGS, "primary_sha256": "p2"}).n == 1  # run again, it is still the second one


def test_plans_of_one_sweep_were_all_made_before_it_began(store: tracking.Store) -> None:
    record(store, primary_sha256="p2", sweep_id="s")
    record(store, sweep_id="s")
    assert earlier(store, PARAMS, {**TAGS, "primary_sha256": "p3", "sweep_id": "s"}).n == 0
    assert earlier(store, PARAMS, {**TAGS, "sweep_id": "other"}).n == 0  # first run in that sweep
    assert earlier(store, PARAMS, {**TAGS, "primary_sha256": "p4", "sweep_id": "other"}).n == 2


# ── stores that do not answer ────────────────────────────────────────────────────────────────────────────


def entry(i: int) -> Any:
    return SimpleNamespace(
        info=SimpleNamespace(run_id=f"{i:032x}", start_time=i), data=SimpleNamespace(params={}, tags={})
    )


class Asked:
    """A store that answers as it is told to."""

    def __init__(self, pages: Callable[[], Iterator[list[Any]]]) -> None:
        self.client, self.pages = object(), pages

    def finished(self, *_words: Any, **_named: Any) -> Iterator[list[Any]]:
        return self.pages()


def test_a_slow_store_is_left_and_what_it_said_counts() -> None:
    wait = threading.Event()

    def pages() -> Iterator[list[Any]]:
        yield [entry(1), entry(2)]
        wait.wait(30)

    began = time.perf_counter()
    found = earlier(Asked(pages), PARAMS, TAGS, patience=0.2)  # type: ignore[arg-type]
    wait.set()
    assert time.perf_counter() - began < 5
    assert (found.n, found.more, found.tags["earlier_plans"]) == (2, True, "2 or more")
    assert found.said[0].startswith("2 or more earlier runs on these pairs")


def test_a_store_that_says_nothing_or_breaks_stops_no_run() -> None:
    wait = threading.Event()

    def silent() -> Iterator[list[Any]]:
        wait.wait(30)
        yield []

    def broken() -> Iterator[list[Any]]:
        raise ValueError("no such table")

    class Closed:
        @property
        def client(self) -> Any:
            raise StoreError("it is not there")

    stores: list[Any] = [Asked(silent), Asked(broken), Closed()]
    for store in stores:
        found = earlier(store, PARAMS, TAGS, patience=0.1)
        assert found.tags == {"earlier_plans": "unknown"}
        assert "did not say" in found.said[0]
    wait.set()


# ── what differs ─────────────────────────────────────────────────────────────────────────────────────────


def test_settings_that_no_plan_holds_are_not_named() -> None:
    here = {"tracking.uri": "a", "execution.threads": "1", "statistics.seed": "0", "method._target_": "x"}
    there = {"tracking.uri": "b", "execution.threads": "2", "statistics.seed": "1", "method._target_": "y"}
    assert differences(here, [there, {**there, "statistics.seed": "2"}]) == [
        "the seed of the statistics was 1 or 2, is 0"
    ]


def test_similarities_are_named_as_wholes_and_their_settings_where_both_have_them() -> None:
    here = {"similarity.cosine.name": "cosine", "similarity.csls.k": "10"}
    there = {"similarity.centred.name": "centred", "similarity.csls.k": "5"}
    assert differences(here, [there]) == [
        "centred was a similarity too", "cosine is a similarity too now", "k of csls was 5, is 10",
    ]  # fmt: skip


def test_another_template_is_one_difference_and_not_its_sentences_too() -> None:
    here = {"template.name": "bare", "template.pattern": "{word}"}
    there = {"template.name": "gloss", "template.pattern": "{word}: {gloss}", "template.by_language.Old Norse": "x"}
    assert differences(here, [there]) == ["the template was gloss, is bare"]
    assert differences(here, [{**here, "template.pattern": "a {word}"}, there]) == ["the template was gloss, is bare"]
    assert differences(here, [{**here, "template.pattern": "a {word}"}]) == [
        "the template's sentence was a {word}, is {word}"
    ]
    assert differences(here, [{**here, "template.by_language.Old Norse": "x"}]) == [
        "the sentence for Old Norse was x, is not set"
    ]


def test_what_is_set_by_a_method_of_ones_own_is_called_as_it_is_written() -> None:
    assert differences({"method.window": "3"}, [{"method.window": "5"}]) == ["method.window was 5, is 3"]


def test_many_differences_are_counted() -> None:
    said = Earlier(1, False, "f" * 32, tuple(f"x{i}" for i in range(6))).said[0]
    assert "x3; and 2 more settings" in said
    assert "x4" not in said
    assert "named otherwise" in Earlier(1, False, "f" * 32).said[0]


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"earlier_plans": "0"}, "Fixed before any number of this method was seen in this store: no earlier run"),
        ({"earlier_plans": "0"}, "Another method may have shown a like number"),
        ({"earlier_plans": "0", "sweep_id": "s"}, "in this store, together with the other plans of its sweep"),
        ({}, "is not known"),
        ({"earlier_plans": "unknown"}, "is not known"),
        ({"earlier_plans": "1", "earlier_plans_first": "c0ffee", "earlier_plans_differ": "a was b, is c"},
         "1 earlier run in this store had asked these pairs and this model something else: a was b, is c."),
        ({"earlier_plans": "100 or more", "earlier_plans_first": "c0ffee"}, "100 or more earlier runs"),
    ],
)  # fmt: skip
def test_the_card_says_what_was_fixed_before_what(tags: dict[str, str], said: str, tmp_path: Path) -> None:
    found = reported.result(full=False)
    one = read(reported.left(tmp_path, found), reported.entry(found, **tags))
    assert said in str(planned(one))
    text = page(one)
    assert text.count(said) == 1
    if tags.get("earlier_plans") != "0":
        assert "Fixed before any number" not in text


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────

PAIRS = "word_a,word_b,group,lang_a,lang_b\n" + "".join(
    f"{a},{b},{group},English,German\n"
    for a, b, group in [
        ("water", "Wasser", "cognate"), ("father", "Vater", "cognate"), ("night", "Nacht", "cognate"),
        ("dog", "Tisch", "control"), ("tree", "Auge", "control"),
        ("house", "Zahl", "unrelated"), ("stone", "Vogel", "unrelated"),
    ]
)  # fmt: skip


def test_a_second_question_to_the_same_pairs_is_told_everywhere(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(PAIRS, encoding="utf-8")
    words = ["method=static", "pairs=table", f"pairs.path={file}", "template=bare"]
    assert run(words) == 0
    assert "earlier" not in capfd.readouterr().out
    assert run([*words, "experiment.primary.control=unrelated"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    said = "1 earlier run on these pairs and this model asked something else: the verdict's control group was the set's"
    assert out.count(said) == 2  # before anything is computed, and beside the verdict
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    first, second = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], order_by=["attributes.start_time ASC"]
    )
    assert first.data.tags["earlier_plans"] == "0"
    assert second.data.tags["earlier_plans"] == "1"
    assert second.data.tags["earlier_plans_first"] == first.info.run_id
    assert said in second.data.tags["mlflow.note.content"]
    pages = [store_in(home).artifact(r.info.run_id, "report.html").read_text(encoding="utf-8") for r in (first, second)]
    assert "Fixed before any number of this method was seen in this store" in pages[0]
    assert "Fixed before any number" not in pages[1]
    assert "1 earlier run in this store had asked" in pages[1]


def test_what_is_said_is_the_first_thing_to_beware_of() -> None:
    found = reported.result(full=False)
    before = found.verdict.beware
    told = Earlier(1, False, "f" * 32, ("a was b, is c",))
    assert told.beside(found).verdict.beware == (*told.said, *before)
    assert Earlier(0).beside(found) is found
    assert Earlier(None).beside(found) is found
    assert replace(told, n=0).said == ()
