"""What is said, drawn up and tabled beside a verdict."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pairprobe import beside, tracking
from pairprobe.commands.main import run
from pairprobe.evidence import AdjustedDelta, Coefficient, FormBaseline, PartnerDepth, PartnerTest
from pairprobe.outcomes import DepthTest, Interval, Verdict
from pairprobe.records import Balance, Pair, PairSet, Similarities, Word
from pairprobe.result import Evidence

AT = DepthTest(3, 0.6, 0.5, 0.1, 0.1, 0.1, Interval(0.05, 0.15), 1.0, None, 3.0, 0.001, 0.001, 0.01)
SAID = Verdict("closer", ("Cognates lie closer, p = 0.001 by relabelling.", "More."), ("Few.",), "cosine", "control", 3)
ADJUSTED = AdjustedDelta(
    "cosine", "control", 3, 40, 30, 0.1, 0.08, Interval(0.02, 0.14), 0.01, (Coefficient("length", 0.1, None, None),)
)
FORM = FormBaseline("control", 0.9, Interval(0.7, 0.97), "cosine", 3, 0.8, Interval(-0.3, 0.1))


@pytest.mark.parametrize(
    ("form", "as_much"),
    [
        (FORM, True),
        (replace(FORM, auc=0.6, auc_ci=Interval(0.4, 0.7)), False),  # spelling tells nothing
        (replace(FORM, auc=0.7, auc_ci=Interval(0.55, 0.8), model_auc=0.95, gain_ci=Interval(0.1, 0.4)), False),
        (replace(FORM, auc=0.7, auc_ci=Interval(0.55, 0.8), model_auc=0.75, gain_ci=Interval(-0.1, 0.2)), True),
        (replace(FORM, auc=1.0, auc_ci=None), True),  # without fail: no interval
        (replace(FORM, auc=0.1, auc_ci=Interval(0.03, 0.3)), False),  # spelling points the other way
        (replace(FORM, auc=0.1, auc_ci=Interval(0.03, 0.3), model_auc=0.2), True),  # both point away
    ],
)
def test_spelling_tells_as_much_as_the_model(form: FormBaseline, as_much: bool) -> None:
    assert beside.spelling_tells_as_much(form) == as_much
    assert bool(beside.objections(Evidence(form=(form,)), AT, SAID)) == as_much


@pytest.mark.parametrize(
    ("adjusted", "said"),
    [
        (ADJUSTED, ""),
        (replace(ADJUSTED, ci=Interval(-0.01, 0.17)), "what is left may be nothing"),
        (replace(ADJUSTED, adjusted=-0.04, ci=Interval(-0.06, -0.02)), "turns around: +0.100 becomes −0.040"),
        (replace(ADJUSTED, adjusted=-0.02, ci=Interval(-0.06, 0.02)), "what is left may be nothing"),
        (
            replace(ADJUSTED, adjusted=-0.02, ci=None, why_not="few clusters"),
            "with length held equal nothing is left of it: Δ = −0.020, without an interval",
        ),
        (
            replace(ADJUSTED, adjusted=0.049, ci=None, why_not="few"),
            "less than half is left of it: Δ = +0.049, without",
        ),
        (replace(ADJUSTED, adjusted=0.051, ci=None, why_not="few clusters"), ""),
        (replace(ADJUSTED, adjusted=0.049), ""),  # its interval says that something is left
        (replace(ADJUSTED, adjusted=None, ci=None, p=None, why_not="too few"), ""),
        (replace(ADJUSTED, dropped={"same script": "tells cognates from controls without fail"}), "same script alone"),
        (replace(ADJUSTED, depth=2, ci=Interval(-0.01, 0.17)), ""),  # not the primary depth
        (replace(ADJUSTED, control="unrelated", ci=Interval(-0.01, 0.17)), ""),
    ],
)
def test_adjusting_that_takes_the_difference_away_is_told(adjusted: AdjustedDelta, said: str) -> None:
    told = " ".join(beside.objections(Evidence(adjusted=(adjusted,)), AT, SAID))
    assert said in told
    assert bool(told) == bool(said)


@pytest.mark.parametrize("answer", ["cannot tell", "no difference"])
@pytest.mark.parametrize(
    ("adjusted", "said"),
    [
        (ADJUSTED, ()),
        (replace(ADJUSTED, adjusted=None, ci=None, p=None, why_not="too few"), ()),
        (replace(ADJUSTED, adjusted=-0.02, control="unrelated"), ()),
        (
            replace(ADJUSTED, adjusted=-0.04, ci=Interval(-0.06, -0.02)),
            ("With length held equal Δ has the other sign: −0.040 [−0.060, −0.020], where raw Δ = +0.100.",),
        ),
        # signs that are not sure are no news
        (replace(ADJUSTED, adjusted=-0.02, ci=Interval(-0.06, 0.02)), ()),
        (replace(ADJUSTED, raw=0.001, adjusted=-0.006, ci=None, why_not="few clusters"), ()),
    ],
)
def test_a_verdict_that_claims_nothing_says_once_that_adjusting_turns_the_sign(
    answer: str, adjusted: AdjustedDelta, said: tuple[str, ...]
) -> None:
    unclear = replace(AT, delta_ci=Interval(-0.05, 0.25))
    before = replace(SAID, answer=answer, sentences=("Before.",))
    after = beside.settled(before, Evidence(adjusted=(adjusted,)), unclear)
    assert after.sentences == ("Before.", *said)
    assert "turns around" not in " ".join(after.beware)
    clear = beside.settled(before, Evidence(adjusted=(adjusted,)), AT)  # Δ's own interval leaves out 0
    assert clear.sentences == ("Before.", *said)
    assert "turns around" not in " ".join(clear.beware)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("edit distance",), "edit distance held equal"),
        (("edit distance", "tokens", "length"), "edit distance, tokens and length held equal"),
        ((), "nothing held equal"),
    ],
)
def test_what_is_named_as_held_equal_is_what_the_model_held(names: tuple[str, ...], said: str) -> None:
    coefficients = tuple(Coefficient(name, 0.1, None, None) for name in names)
    nothing = replace(NOTHING_LEFT, coefficients=coefficients)
    assert f"with {said} Δ = +0.004" in " ".join(beside.objections(Evidence(adjusted=(nothing,)), AT, SAID))


def test_a_difference_that_was_never_clear_needs_no_such_word() -> None:
    unclear = replace(AT, delta_ci=Interval(-0.05, 0.25))
    assert beside.objections(Evidence(adjusted=(replace(ADJUSTED, ci=Interval(-0.1, 0.2)),)), unclear, SAID) == ()


# ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────

NOTHING_LEFT = replace(ADJUSTED, adjusted=0.004, ci=Interval(-0.023, 0.031))
SPELLED = replace(FORM, model_auc=0.62)


def test_a_claim_that_form_explains_says_so_in_its_answer_and_first_sentence() -> None:
    found = beside.settled(SAID, Evidence(form=(SPELLED,), adjusted=(NOTHING_LEFT,)), AT)
    assert found.answer == "closer, perhaps by form"
    assert found.sentences == (
        "Cognates lie closer, p = 0.001 by relabelling, but spelling alone tells these groups apart better (AUC 0.90 "
        "against 0.62); and with length held equal Δ = +0.004 [−0.023, +0.031]: what is left may "
        "be nothing.",
        "More.",
    )
    assert found.beware == ("Few.",)  # said once
    assert found.claims


@pytest.mark.parametrize(
    ("answer", "evidence", "after"),
    [
        ("closer", Evidence(form=(SPELLED,)), "closer, perhaps by form"),
        ("closer", Evidence(adjusted=(NOTHING_LEFT,)), "closer, perhaps by form"),
        ("farther", Evidence(adjusted=(NOTHING_LEFT,)), "farther, perhaps by form"),
        ("closer", Evidence(form=(replace(SPELLED, control="unrelated"),), adjusted=(ADJUSTED,)), "closer"),
        ("closer", Evidence(), "closer"),
        ("cannot tell", Evidence(form=(SPELLED,), adjusted=(NOTHING_LEFT,)), "cannot tell"),
        ("no difference", Evidence(form=(SPELLED,)), "no difference"),
    ],
)
def test_only_a_claim_that_something_stands_against_changes_its_answer(
    answer: str, evidence: Evidence, after: str
) -> None:
    said = replace(SAID, answer=answer)
    found = beside.settled(said, evidence, AT)
    assert found.answer == after
    against = beside.objections(evidence, AT, said)
    if answer in ("closer", "farther"):
        assert all(text in found.sentences[0] for text in against)
        assert found.beware == said.beware
    else:
        assert found.sentences == said.sentences
        assert found.beware == ("Few.", *(f"{text}." for text in against))


PAIRS = "word_a,word_b,group,lang_a,lang_b,score,freq_a,freq_b\n" + "".join(
    f"{a},{b},{group},English,German,{score},{score + 1},7\n"
    for a, b, group, score in [
        ("water", "Wasser", "cognate", 8), ("father", "Vater", "cognate", 7), ("night", "Nacht", "cognate", 9),
        ("hand", "Hand", "cognate", 10), ("house", "Haus", "cognate", 9), ("stone", "Stein", "cognate", 6),
        ("dog", "Baum", "control", 1), ("tree", "Auge", "control", 2), ("bird", "Zahl", "control", 0),
        ("leg", "Tisch", "control", 1), ("horse", "Wolke", "control", 3), ("bread", "Messer", "control", 4),
    ]
)  # fmt: skip


def test_a_run_leaves_lines_curves_tables_and_the_matrix(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "twelve.csv"
    file.write_text(PAIRS, encoding="utf-8")
    assert run(["method=static", "pairs=table", f"pairs.path={file}", "template=bare"]) == 0
    out = capfd.readouterr().out
    for label in ("partners", "adjusted", "spelling", "scores"):
        assert f"\n{label} " in out
    lines = [line for line in out.splitlines() if not re.search("report.html$|http://", line)]  # these are not broken
    assert max(map(len, lines)) <= 100
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (recorded,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    metrics = recorded.data.metrics
    assert metrics["partners/delta"] == metrics["partners/cosine/delta"]
    assert metrics["partners/chance_precision_at_1"] == pytest.approx(1 / 6)
    assert metrics["form/auc"] == pytest.approx(71 / 72)
    assert metrics["scores/rho"] == metrics["scores/cosine/rho"]
    # twelve pairs are too few for seven terms: no adjusted Δ is given, and the table says why
    assert "adjusted/delta" not in metrics
    store = tracking.Store(f"sqlite:///{home / 'mlflow.db'}", home)
    run_id = recorded.info.run_id
    adjusted = store.table(run_id, "tables/adjusted.json")
    assert "too few for 7 terms" in adjusted[0]["remark"]
    matrix = store.table(run_id, "tables/matrix.json")
    assert len(matrix) == 2 * 6 * 6
    own = [r["similarity"] for r in matrix if r["similarity_kind"] == "cosine" and r["own"]]
    assert np.mean(own) == pytest.approx(metrics["partners/cosine/own"])
    similarities = store.table(run_id, "tables/similarities.json")
    pairs = [r["similarity"] for r in similarities if r["similarity_kind"] == "cosine" and r["group"] == "cognate"]
    assert own == pytest.approx(pairs)
    assert [r["similarity_kind"] for r in store.table(run_id, "tables/partners.json")] == ["cosine", "centred"]
    assert store.table(run_id, "tables/scores.json")[0]["n"] == 12
    assert store.table(run_id, "tables/spelling.json")[0]["auc"] == metrics["form/auc"]
    outcome = json.loads(store.artifact(run_id, "outcome.json").read_text(encoding="utf-8"))
    assert outcome["evidence"]["partners"]["cosine"]["words"] == 6
    assert outcome["evidence"]["form"][0]["auc"] == metrics["form/auc"]
    assert outcome["evidence"]["scores"][0]["rho"] == metrics["scores/rho"]


def test_recorded_similarities_have_no_partners_but_spelling(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["experiment=paper70_published", "method.model=Llama-3.3-70B-Instruct-INT8"]) == 0
    out = capfd.readouterr().out
    assert "\npartners" not in out
    assert "\nspelling " in out


@pytest.mark.parametrize(
    ("p", "delta", "said"),
    [
        (0.01, 0.1, "words lie closer to their own"),
        (0.4, 0.1, "words are not shown to lie closer to their own"),
        (0.4, -0.1, "words are not shown to lie farther from their own"),
        (
            None,
            0.1,
            "not tested: words lie closer to their own",
        ),  # the next line says why
    ],
)
def test_what_partners_show_is_said_by_their_p(p: float | None, delta: float, said: str) -> None:
    at = PartnerDepth(0, 0.5 + delta, 0.5, p, None, p, 2.0, 0.5, None, 0.3, None)
    test = PartnerTest("cosine", 9, 9, 9, (at,), 999, False, 0.001, 5.0, 0.3, 0.1, "exchanged")
    told = [text for _, text in beside._partner_lines(test, 0, 0.05)]
    assert told[0].startswith(said)
    assert any("meaning, spelling and shared tokens can make that" in text for text in told) == (p == 0.01)


def test_drawn_pairs_are_said_to_be_one_draw() -> None:
    pairs = PairSet("some", (), "tests")
    assert beside.of_the_design(pairs) == ()
    few = [Similarities(name, np.zeros((1, 2)), (0,), beware=text) for name, text in (("a", ""), ("b", "b: few."))]
    assert beside.of_the_design(pairs, few) == ("b: few.",)
    (said,) = beside.of_the_design(replace(pairs, seed=7))
    assert "pairs.seed=7" in said
    assert "-m pairs.seed=0,1,2,3,4" in said


def test_rows_that_repeat_a_pair_are_named() -> None:
    def pair(number: int, a: str, b: str, group: str = "cognate", gloss: str = "") -> Pair:
        return Pair(f"p{number}", group, Word(a, gloss, "en"), Word(b, gloss, "de"))

    rows = [("water", "Wasser"), ("night", "Nacht"), ("fire", "Feuer"), ("milk", "Milch"), ("hand", "Hand")]
    once = [pair(i, *words) for i, words in enumerate(rows)]
    others = [
        pair(10, "water", "Wasser", "control"),  # another group: a contradiction, but no repetition
        pair(11, "bank", "Bank", gloss="money"),
        pair(12, "bank", "Bank", gloss="seat"),  # not the same text where the template says what words mean
    ]
    assert beside.of_the_design(PairSet("some", (*once, *others), "tests")) == ()
    (said,) = beside.of_the_design(PairSet("some", (*once, *others, once[1], once[1]), "tests"))
    assert said.startswith("1 pair stands in the set more than once: night – Nacht (cognate). Δ counts every row")
    turned = replace(once[4], a=once[4].b, b=once[4].a)  # the same two words, and so the same similarity
    twice = PairSet("some", (*once, *others, *once[:4], turned), "tests", seed=7)
    said, drawn = beside.of_the_design(twice)
    named = "water – Wasser (cognate), night – Nacht (cognate), fire – Feuer (cognate) and 2 more."
    assert said.startswith(f"5 pairs stand in the set more than once: {named}")
    assert "pairs.seed=7" in drawn


DATA = Path(os.environ.get("PAIRPROBE_DATA") or Path(__file__).parents[2] / "shared" / "data").absolute()


@pytest.mark.skipif(not (DATA / "cldf" / "iecor").is_dir(), reason="no IE-CoR: set PAIRPROBE_DATA")
def test_against_partners_that_are_spelled_less_alike_closeness_is_not_claimed_as_such(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAIRPROBE_DATA", str(DATA))
    words = ["experiment=germanic", "experiment.primary.control=shuffled", "similarity=[cosine]", "method.depths=[-1]"]
    assert run([*words, "statistics.permutations=2000", "statistics.resamples=500", "--quiet"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "closer together than shuffled controls" in out
    assert re.search(r"but spelling alone tells these groups apart better \(AUC 0.\d\d against 0.\d\d\); and with", out)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (recorded,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert recorded.data.tags["verdict"] == "closer, perhaps by form"
    assert recorded.data.metrics["adjusted/ci_low"] < 0 < recorded.data.metrics["adjusted/ci_high"]


@pytest.mark.parametrize(
    ("p", "delta", "told"), [(0.001, 0.2, ""), (0.4, 0.2, "p = 0.400"), (None, 0.2, "no p-value"), (0.001, -0.2, "p =")]
)
def test_no_difference_is_doubted_where_partners_do_not_show_that_anything_is_measured(
    p: float | None, delta: float, told: str
) -> None:
    from types import SimpleNamespace

    depth = SimpleNamespace(depth=3, p=p, delta=delta)
    none = replace(SAID, answer="no difference")
    evidence = replace(Evidence(), partners={"cosine": SimpleNamespace(depths=(depth,))})
    said = beside.objections(evidence, replace(AT, delta_ci=None), none)
    assert any("may know nothing of these words" in s and told in s for s in said) == bool(told)
    assert not beside.objections(evidence, replace(AT, delta_ci=None), SAID)
    (alone,) = beside.objections(Evidence(), replace(AT, delta_ci=None), none)
    assert "no test of partners" in alone


def test_the_balance_line_names_every_control_the_primary_one_first(reported) -> None:
    rows = [
        Balance("shuffled", "edit distance", 0.5, 0.9, None, -1.911),
        *(Balance("form_matched", f"tokens {side}", 2.0, 2.0, None, v) for side, v in (("a", 0.076), ("b", None))),
    ]
    found = [*beside.balanced(reported(rows))]
    assert found[:2] == [
        ("balance", "form_matched: tokens +0.08/all alike"),
        ("", "shuffled: edit distance −1.91"),
    ]
    assert "in standard deviations" in found[2][1]
    assert [*beside.balanced(reported([]))] == []


@pytest.fixture
def reported():
    class Held:
        verdict = replace(SAID, control="form_matched")

        def __init__(self, rows):
            self.pairs = PairSet("s", (), "here", balance=tuple(rows))

    return Held


def test_a_template_that_names_meanings_stands_in_the_answer_itself() -> None:
    meant = ("template 'gloss' names each word's meaning.",)
    found = beside.settled(SAID, Evidence(), AT, meant)
    assert found.answer == "closer, perhaps by meaning"
    assert found.claims
    assert found.sentences[0].endswith("by relabelling, but template 'gloss' names each word's meaning.")
    none = replace(SAID, answer="cannot tell")
    assert beside.settled(none, Evidence(), AT, meant).beware == (*meant, *none.beware)
