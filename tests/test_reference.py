"""A reference vocabulary from the pair set to the record: used, named, refused before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pairprobe import archive, preflight
from pairprobe.commands.compose import composer
from pairprobe.config import Job, build
from pairprobe.records import Pair, PairSet, Word
from pairprobe.report import Report
from pairprobe.runner import measure

ENGLISH = [
    "sun",
    "moon",
    "river",
    "mountain",
    "bread",
    "cheese",
    "window",
    "door",
    "street",
    "king",
    "queen",
    "book",
    "letter",
    "winter",
    "summer",
    "storm",
]
GERMAN = [
    "Sonne",
    "Mond",
    "Fluss",
    "Berg",
    "Brot",
    "Käse",
    "Fenster",
    "Tür",
    "Straße",
    "König",
    "Königin",
    "Buch",
    "Brief",
    "Winter",
    "Sommer",
    "Sturm",
]
COGNATES = [("water", "Wasser"), ("father", "Vater"), ("night", "Nacht"), ("foot", "Fuß"), ("milk", "Milch")]
CONTROLS = [("dog", "Tisch"), ("tree", "Auge"), ("house", "Zahl"), ("stone", "Vogel"), ("skin", "Haus")]
EIGHT = "cosine,centred,zscored,language_centred,all_but_the_top,csls,rank_cosine,euclidean"


@dataclasses.dataclass(frozen=True)
class Mine:
    """A source of pairs with a reference of `n` words of each language."""

    n: int = 16
    also: tuple[Word, ...] = ()
    name: str = "mine"

    def read(self) -> PairSet:
        pairs = [
            Pair(f"{group}{i}", group, Word(a, lang="English"), Word(b, lang="German"))
            for group, members in (("cognate", COGNATES), ("control", CONTROLS))
            for i, (a, b) in enumerate(members)
        ]
        words = [Word(w, lang="English") for w in ENGLISH[: self.n]] + [
            Word(w, lang="German") for w in GERMAN[: self.n]
        ]
        return PairSet("mine", tuple(pairs), "here", reference=(*words, *self.also))


def job_of(pairs: Mine, similarity: str = EIGHT, method: str = "layerwise", primary: str = "cosine") -> Job:
    words = [f"similarity=[{similarity}]", "template=bare", f"method={method}"]
    with composer() as compose:
        job = build(compose([*words, f"experiment.primary.similarity={primary}"]))
    return dataclasses.replace(job, pairs=pairs)


def test_eight_similarities_go_down_the_corridor(tmp_path: Path) -> None:
    job = job_of(Mine())
    plan, problems = preflight.check(job)
    assert problems == []
    result = measure(job, plan, Report(quiet=True))
    assert list(result.similarities) == EIGHT.split(",")
    named = {name: s.reference for name, s in result.similarities.items()}
    for name in ("centred", "zscored", "all_but_the_top", "csls"):
        assert named[name] == "32 words of mine that are in no pair"
    assert named["cosine"] == named["rank_cosine"] == named["euclidean"] == ""
    assert named["language_centred"] == ""  # sixteen of a language are too few, so the run's own are taken
    assert "(English 10, German 10)" in result.similarities["language_centred"].about

    space = result.evidence.geometry
    assert [d.depth for d in space.depths] == list(range(7))
    assert space.n == 10 * 9  # every first word with every second one but its own
    assert result.evidence.xray.depth == 6
    metrics = archive.metrics(result, {}, 0)
    curve = [m for m in metrics if m.key == "geometry/random_cosine"]
    assert [m.step for m in curve] == list(range(7))
    assert {m.key for m in metrics} >= {
        f"geometry/{k}" for k in ("random_cosine_sd", "top3_share", "norm", "largest_norm")
    }
    archive.write_result(tmp_path, result, vectors=False)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["similarities"]["csls"]["reference"] == "32 words of mine that are in no pair"
    assert len(outcome["evidence"]["geometry"]["depths"]) == 7
    table = json.loads((tmp_path / "tables" / "tokens_by_pair.json").read_text())
    assert len(table["data"]) == 10
    assert set(EIGHT.split(",")) <= set(table["columns"])
    assert (tmp_path / "figures" / "token_xray.png").exists()


def test_what_is_lacking_is_told_once_for_all_similarities_before_anything_is_loaded() -> None:
    plan, problems = preflight.check(job_of(Mine(n=0)))
    assert plan is None
    (only,) = problems
    assert [line.split()[0] for line in only.error.problems] == ["all_but_the_top", "csls"]
    assert all("there are none" in line for line in only.error.problems)
    assert only.error.next_step == (
        "Give words that are in no pair: pairs.reference=…, or a pair set that has them. Or leave all_but_the_top and "
        f"csls out: 'similarity=[{','.join(s for s in EIGHT.split(',') if s not in ('all_but_the_top', 'csls'))}]'"
    )


def test_a_primary_similarity_that_cannot_be_computed_is_left_out_as_such_too() -> None:
    job = job_of(Mine(n=0), "csls,cosine,centred", primary="csls")
    _, (only,) = preflight.check(job)
    assert only.error.next_step.endswith(
        "Or leave csls out: 'similarity=[cosine,centred]' experiment.primary.similarity=cosine"
    )
    _, (only,) = preflight.check(job_of(Mine(n=0), "csls", primary="csls"))
    assert only.error.next_step.endswith(
        "Or measure by another similarity: similarity=[cosine] experiment.primary.similarity=cosine"
    )


def test_a_word_of_a_pair_in_the_reference_stops_the_run_and_is_named() -> None:
    plan, problems = preflight.check(job_of(Mine(also=(Word("water", lang="English"),)), "cosine,centred"))
    assert plan is None
    assert problems[0].error.problems == ("1 of the 33 reference words are also in pairs: 'water'.",)
    assert preflight.check(job_of(Mine(also=(Word("water", lang="English"),)), "cosine"))[1] == []  # nobody asks


def test_the_reference_is_part_of_what_was_fixed_in_advance() -> None:
    job = job_of(Mine())
    hashes = {
        archive.tags(job, preflight.Plan(Mine(n).read()), archive.provenance.git(None))["primary_sha256"]
        for n in (0, 15, 16)
    }
    assert len(hashes) == 3
    pairs = Mine(0).read().sha256
    assert archive.primary_sha256(job, pairs) in hashes  # without one it is the hash it was before there were any


@pytest.mark.parametrize(("n", "others"), [(16, "centred, csls"), (0, None)])
def test_the_terminal_names_the_reference_and_the_space(
    n: int, others: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(Mine(n), "cosine,centred,csls" if n else "cosine,centred", "static")
    job = dataclasses.replace(job, experiment=dataclasses.replace(job.experiment, name="x"))
    plan, problems = preflight.check(job)
    assert not problems
    Report(quiet=False).result(measure(job, plan, Report(quiet=True)))
    said = capsys.readouterr().out
    assert "space       random pairs have cosine 0." in said
    assert "of 384 dimensions" in said
    assert (f"reference   32 words of mine that are in no pair: {others}" in said) == bool(others)
