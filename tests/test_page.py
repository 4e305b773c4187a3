"""report.html: its structure as a browser parses it, what it shows against what was logged, and what it leaves out."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import reported

from pairprobe import archive
from pairprobe.errors import StoreError
from pairprobe.evidence import Specification
from pairprobe.outcomes import PERHAPS, Interval
from pairprobe.page import charts, stored, svg
from pairprobe.page.document import page, page_of_several
from pairprobe.page.markup import Html, chance, escape, number, tag
from pairprobe.page.origin import from_anywhere
from pairprobe.page.precision import model_of, precision_of, series
from pairprobe.page.several import names
from pairprobe.page.spread import MOST, drawn, specification_curve
from pairprobe.page.words import ANSWERS, CONTROLS, TERMS, Glossary, plainly
from pairprobe.records import CONTROLS as KNOWN_CONTROLS
from pairprobe.result import Evidence, Result

VOID = {"meta", "br", "hr", "img", "link", "col"}


@dataclass
class Node:
    """An element as the parser sees it."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    def all(self, name: str) -> list[Node]:
        mine = [self] if self.tag == name else []
        return mine + [n for c in self.children if isinstance(c, Node) for n in c.all(name)]

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def by_id(self, id: str) -> Node | None:
        if self.attributes.get("id") == id:
            return self
        return next((n for c in self.children if isinstance(c, Node) if (n := c.by_id(id))), None)

    def of_class(self, name: str) -> list[Node]:
        mine = [self] if name in (self.attributes.get("class") or "").split() else []
        return mine + [n for c in self.children if isinstance(c, Node) for n in c.of_class(name)]


class Parser(HTMLParser):
    """A tree; an element that is not closed by its own tag is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("document", {})]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(attributes) == len(dict(attributes)), f"an attribute of <{name}> is given twice"
        node = Node(name, dict(attributes))
        self.open[-1].children.append(node)
        if name not in VOID:
            self.open.append(node)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop().tag == name, f"</{name}> closes another element"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(text: str) -> Node:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert len(parser.open) == 1
    return parser.open[0]


def run_of(folder: Path, found: Result, **tags: str) -> stored.Run:
    return stored.read(reported.left(folder, found), reported.entry(found, **tags))


@pytest.fixture(scope="module")
def found() -> Result:
    return reported.result()


@pytest.fixture(scope="module")
def run(found: Result, tmp_path_factory: pytest.TempPathFactory) -> stored.Run:
    return run_of(tmp_path_factory.mktemp("full"), found)


@pytest.fixture(scope="module")
def text(run: stored.Run) -> str:
    return page(run)


@pytest.fixture(scope="module")
def tree(text: str) -> Node:
    return parsed(text)


# ── markup ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_markup_is_escaped_wherever_it_is_put() -> None:
    bad = "<b>&\"'</b>"
    assert tag("p", bad, [bad], title=bad) == (
        '<p title="&lt;b&gt;&amp;&quot;&#x27;&lt;/b&gt;">&lt;b&gt;&amp;&quot;&#x27;&lt;/b&gt;&lt;b&gt;&amp;&quot;&#x27;'
        "&lt;/b&gt;</p>"
    )
    assert tag("p", Html("<i>x</i>")) == "<p><i>x</i></p>"


def test_what_no_page_may_hold_is_shown_as_a_replacement() -> None:
    assert escape("a\x00b\x1b\ud800\x85c\n") == "a�b���c\n"


def test_a_number_is_rounded_for_people_and_whole_for_machines() -> None:
    assert number(-0.03649, sign=True) == '<data value="-0.03649">−0.036</data>'
    assert chance(0.0004) == '<data value="0.0004">&lt; 0.001</data>'
    assert "not defined" in number(None)


# ── the whole page ───────────────────────────────────────────────────────────────────────────────────────


def test_it_needs_nothing_but_itself(text: str, tree: Node) -> None:
    assert not tree.all("script")
    assert not tree.all("link")
    assert not tree.all("img")
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    for a in tree.all("a"):
        target = str(a.attributes["href"])
        assert target.startswith("#")
        assert tree.by_id(target[1:]) is not None


def test_sections_come_in_the_order_of_the_questions_a_reader_has(tree: Node) -> None:
    order = [s.attributes["id"] for s in tree.all("main")[0].children if isinstance(s, Node)]
    assert order == ["verdict", "beware", "plan", "curves", "pairs", "partners", "confounds", "scores", "geometry",
                     "tokens", "multiverse", "provenance", "repeat"]  # fmt: skip


def test_the_test_of_partners_names_what_else_may_make_it(tree: Node) -> None:
    assert "Meaning, spelling and shared tokens can, as well as ancestry." in tree.by_id("partners").text


@pytest.mark.parametrize(
    ("given", "path", "shown"),
    [
        ("method=static pairs.path=mine.csv", "/data/mine.csv", "method=static pairs.path=/data/mine.csv"),
        ("+pairs.path=~/mine.csv", "/somewhere/mine.csv", "+pairs.path=/somewhere/mine.csv"),
        ("pairs.path=/data/mine.csv", "/data/mine.csv", "pairs.path=/data/mine.csv"),
        ("pairs.path=a,b.csv", "/data/a,b.csv", "'pairs.path='\"'\"'/data/a,b.csv'\"'\"''"),
        ("'similarity=[cosine,centred]' template=bare", "", "'similarity=[cosine,centred]' template=bare"),
        ("", "", ""),
    ],
)
def test_paths_in_the_words_a_run_was_asked_for_with_are_whole(given: str, path: str, shown: str) -> None:
    params = {"pairs.path": path, "method.name": "static", "template.name": "bare"}
    assert from_anywhere(given, params) == shown


def test_headings_go_down_one_step_at_a_time(tree: Node) -> None:
    assert len(tree.all("h1")) == 1
    levels = [int(m) for m in re.findall(r"<h([1-6])", page_text(tree))]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def page_text(node: Node) -> str:
    """Tags alone, in order."""
    inner = "".join(page_text(c) for c in node.children if isinstance(c, Node))
    return f"<{node.tag}>{inner}"


def test_ids_are_given_once_and_every_picture_and_table_says_what_it_is(tree: Node) -> None:
    def ids(node: Node) -> list[str]:
        mine = [str(node.attributes["id"])] if "id" in node.attributes else []
        return mine + [i for c in node.children if isinstance(c, Node) for i in ids(c)]

    assert [i for i, n in Counter(ids(tree)).items() if n > 1] == []
    pictures = [s for s in tree.all("svg") if s.attributes.get("aria-hidden") != "true"]
    assert len(pictures) > 15
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        assert picture.attributes["aria-label"] == picture.all("title")[0].text != ""
    for table in tree.all("table"):
        assert table.all("caption")[0].text
        assert {th.attributes["scope"] for th in table.all("thead")[0].all("th")} == {"col"}
        width = len(table.all("thead")[0].all("th"))
        for row in table.all("tbody")[0].all("tr"):
            assert [c.tag for c in row.children if isinstance(c, Node)] == ["th", *["td"] * (width - 1)]
            assert row.all("th")[0].attributes["scope"] == "row"


def test_the_question_and_the_verdict_come_first_and_words_before_numbers(tree: Node, run: stored.Run) -> None:
    assert tree.all("h1")[0].text == "Do German and English cognates lie closer than words that only mean the same?"
    card = tree.by_id("verdict").of_class("card")[0]
    assert card.all("h3")[0].text == ANSWERS[run.verdict.answer][1]
    assert (
        card.text.index(ANSWERS[run.verdict.answer][2])
        < card.text.index("Δ =")
        < card.text.index(run.verdict.sentences[0])
    )
    for warning in run.verdict.beware:
        assert warning in tree.by_id("beware").text


def test_every_term_is_explained_once(tree: Node) -> None:
    explained = Counter(dt.text for g in tree.of_class("glossary") for dt in g.all("dt"))
    assert set(explained.values()) == {1}
    assert set(explained) == set(TERMS)


def test_a_claim_that_form_may_explain_is_not_headed_as_one(found: Result, tmp_path: Path) -> None:
    said = replace(found.verdict, answer="closer" + PERHAPS)
    node = parsed(page(run_of(tmp_path, replace(found, verdict=said))))
    card = node.by_id("verdict").of_class("card")[0]
    assert card.all("h3")[0].text == "Cognates lie closer together, perhaps by form alone"
    assert "no evidence that the model knows anything beyond form" in card.text
    assert ANSWERS["closer"][2] not in card.text
    assert card.attributes["class"] == "card perhaps"


def test_an_answer_that_this_version_does_not_know_is_shown_as_it_is() -> None:
    assert plainly("cannot decide")[1] == "cannot decide"
    assert plainly("farther, and how" + PERHAPS)[1] == "farther, and how, perhaps by form alone"
    assert "less alike" in plainly("farther" + PERHAPS)[2]
    assert plainly("closer, perhaps by meaning")[1] == "Cognates lie closer together, perhaps by meaning alone"
    assert "name their meaning" in plainly("closer, perhaps by meaning")[2]


def test_every_answer_and_kind_of_control_has_plain_words() -> None:
    assert set(ANSWERS) == {"cannot tell", "no difference", "closer", "farther", "undefined"}
    assert set(CONTROLS) == set(KNOWN_CONTROLS)


def test_a_term_asked_for_again_is_not_explained_again() -> None:
    words = Glossary()
    assert "Delta" in str(words.explain("Δ"))
    assert words.explain("Δ") is None
    assert "Delta" not in str(words.explain("Δ", "p"))


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────


def values(node: Node) -> list[float]:
    return [float(str(d.attributes["value"])) for d in node.all("data")]


def test_the_card_shows_the_numbers_that_were_logged(tree: Node, run: stored.Run) -> None:
    card = tree.by_id("verdict").of_class("card")[0]
    m = run.metrics
    wanted = [m["delta"], m["delta_ci_low"], m["delta_ci_high"], m["p"], m["p_greater"]]
    assert values(card) == wanted
    assert card.all("data")[0].text == f"{m['delta']:+.3f}"


@pytest.mark.parametrize(("side", "shown"), [("both", "closer"), ("closer", "closer"), ("farther", "farther")])
def test_the_one_sided_p_is_of_the_side_that_was_asked_about(
    side: str, shown: str, found: Result, tmp_path: Path
) -> None:
    partners = found.evidence.partners["cosine"]
    partners = replace(partners, depths=tuple(replace(d, p_greater=0.006, p_less=0.994) for d in partners.depths))
    asked = replace(
        found,
        verdict=replace(found.verdict, side=side),
        evidence=replace(found.evidence, partners={"cosine": partners}),
    )
    read = run_of(tmp_path, asked)
    tree = parsed(page(read))
    assert read.at.p_less != read.at.p_greater
    card = tree.by_id("verdict").of_class("card")[0]
    assert f"cognates {shown} (one-sided)" in card.text
    assert values(card)[-1] == (read.at.p_less if shown == "farther" else read.at.p_greater)
    said = next(dd for dd in tree.by_id("partners").all("dd") if "one-sided p" in dd.text)
    assert f"own partner {shown}" in said.text
    assert values(said)[-1] == (0.994 if shown == "farther" else 0.006)


def test_the_table_of_the_primary_outcome_shows_every_depth_as_tested(tree: Node, found: Result) -> None:
    test = found.primary
    table = tree.by_id("curves").all("table")[0]
    rows = table.all("tbody")[0].all("tr")
    assert len(rows) == len(test.depths)
    for row, at in zip(rows, test.depths, strict=True):
        assert at.delta_ci is not None
        assert at.max_t_band is not None
        band = at.max_t_band.low, at.max_t_band.high
        assert values(row) == pytest.approx(
            [at.mean_cognate, at.mean_control, at.delta, at.delta_ci.low, at.delta_ci.high, at.g, at.p, at.p_max_t,
             at.q,
             at.auc, at.equivalence_p, *band], rel=1e-12)  # fmt: skip
    assert "primary" in rows[-1].text
    assert rows[-1].attributes["class"] == "marked"


def test_primary_and_exploratory_are_kept_apart_and_labelled(tree: Node, run: stored.Run) -> None:
    curves = tree.by_id("curves")
    heads = [h.text for h in curves.all("h3")]
    assert heads == [
        "Primary: cosine against same_concept controlsprimary",
        "Exploratory: what else was looked atexploratory",
    ]
    assert [h.text for h in curves.all("h4")] == [
        "cosine against unrelated controls",
        "centred against same_concept controls",
        "centred against unrelated controls",
    ]
    assert len(run.exploratory) == 3
    assert curves.text.index("cosine against unrelated") > curves.text.index("Exploratory")


def test_all_evidence_is_shown_as_recorded(tree: Node, found: Result) -> None:
    e = found.evidence
    partner = e.partners["cosine"].depths[-1]
    assert {partner.delta, partner.p, partner.rank, partner.mrr} <= set(values(tree.by_id("partners")))
    confounds = set(values(tree.by_id("confounds")))
    for a in e.adjusted:
        assert {v for v in (a.raw, a.adjusted, a.p) if v is not None} <= confounds
        assert {c.estimate for c in a.coefficients} <= confounds
        assert a.why_not in tree.by_id("confounds").text
    assert {b.auc for b in e.form} <= confounds
    assert {s.rho for s in e.scores} <= set(values(tree.by_id("scores")))
    assert e.geometry is not None
    assert {d.random_cosine for d in e.geometry.depths} <= set(values(tree.by_id("geometry")))
    assert e.multiverse is not None
    assert {e.multiverse.median_g, e.multiverse.p_median, e.multiverse.agree} <= set(values(tree.by_id("multiverse")))
    balance = set(values(tree.by_id("pairs")))
    for b in found.pairs.balance:
        assert {v for v in (b.before, b.after, b.cognate_mean) if v is not None} <= balance


def test_provenance_and_how_to_repeat_it(tree: Node, run: stored.Run) -> None:
    recorded = tree.by_id("provenance").text
    for said in ("cd" * 32, "2c9f553e", "reading-room", "fp32", "2.13.0", "0.81 GB", "total 9.9", "template.name"):
        assert said in recorded
    commands = [c.text for c in tree.by_id("repeat").of_class("command")]
    assert commands[0] == f"python run.py reproduce {run.id}"
    assert commands[1] == "python run.py 'pairs=cldf' statistics.seed=3"


# ── escaping, scripts, directions ────────────────────────────────────────────────────────────────────────


def test_a_form_stands_as_it_stands(tmp_path: Path) -> None:
    tree = parsed(page(run_of(tmp_path, reported.result(12, 8))))  # few enough that all are shown
    forms = {f.text for f in tree.of_class("form")}
    # forms after the first dozen carry a number, so that none is in two pairs
    assert {"<b>Hund</b>", 'hound & "dog"', "*ḱwṓ", "犬", "ˈwɔːtə", "شمس"} <= forms
    assert not tree.all("b")
    assert all(f.tag == "bdi" and f.attributes["translate"] == "no" for f in tree.of_class("form"))
    assert "3 words are <unknown> & cannot be told apart." in tree.by_id("beware").text


def test_markup_in_tags_and_params_and_names_is_text(found: Result, tmp_path: Path) -> None:
    bad = "</style><script>alert(1)</script>"
    folder = reported.left(tmp_path, found)
    entry = reported.entry(found, name=bad, hostname=bad, git_commit=bad, overrides=bad)
    entry.data.params |= {"experiment.question": bad, bad: bad}
    node = parsed(page(stored.read(folder, entry)))
    assert not node.all("script")
    assert node.all("h1")[0].text == bad
    assert bad in node.all("title")[0].text


# ── what was planned ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("plan", "whole", "said"),
    [
        ("ab" * 32, "12" * 32, "the plan is unchanged"),
        ("ab" * 32, "ef" * 32, "the plan of the primary outcome is unchanged, but not all of the plan"),
        ("ab" * 32, "", "the plan of the primary outcome is unchanged; of the rest nothing was recorded"),
        ("ef" * 32, "ef" * 32, "the plan was changed"),
    ],
)
def test_a_reproduction_says_whether_its_plan_is_the_same(
    plan: str, whole: str, said: str, found: Result, tmp_path: Path
) -> None:
    again = reported.entry(found, reproduces="77" * 16, reproduces_same="true")
    first = reported.entry(found, id="77" * 16, primary_sha256=plan, plan_sha256=whole)
    node = parsed(page(stored.read(reported.left(tmp_path, found), again, first)))
    assert said in node.by_id("plan").text
    assert "its similarities are the same" in node.by_id("plan").text


def test_changed_code_is_visible_and_clean_code_is_said_to_be(found: Result, tree: Node, tmp_path: Path) -> None:
    assert "changed since its last commit" in tree.by_id("plan").text
    clean = parsed(page(run_of(tmp_path, found, git_dirty="false")))
    assert "as committed" in clean.by_id("plan").text
    assert "ab" * 32 in clean.by_id("plan").text
    assert "12" * 32 in clean.by_id("plan").text


# ── what a run has not ───────────────────────────────────────────────────────────────────────────────────


def bare(found: Result) -> Result:
    """As of a run whose tests gave neither AUC nor equivalence, q or band."""
    less = {"auc": None, "auc_ci": None, "left_out": None, "equivalence_p": None, "q": None, "max_t_band": None}
    tests = {k: replace(t, depths=tuple(replace(d, **less) for d in t.depths)) for k, t in found.tests.items()}
    return replace(found, tests=tests)


def test_parts_that_a_run_has_not_are_left_out(tmp_path: Path) -> None:
    found = bare(reported.result(full=False))
    node = parsed(page(run_of(tmp_path, found)))
    order = [s.attributes["id"] for s in node.all("main")[0].children if isinstance(s, Node)]
    assert order == ["verdict", "beware", "plan", "curves", "pairs", "provenance", "repeat"]
    for heading in node.all("h3"):
        assert "alike cognates and controls are" not in heading.text
    columns = [th.text for th in node.by_id("curves").all("table")[0].all("thead")[0].all("th")]
    assert columns == ["depth", "cognate", "same_concept", "Δ", "95 % interval", "g", "p", "p max-T"]
    assert "max-T" not in "".join(f.text for f in node.all("figcaption"))
    assert not node.of_class("maxt")


@pytest.mark.parametrize("kept", list(Evidence.__dataclass_fields__))
def test_each_evidence_is_shown_alone(kept: str, found: Result, tmp_path: Path) -> None:
    anchors = {"partners": "partners", "adjusted": "confounds", "form": "confounds", "scores": "scores",
               "geometry": "geometry", "xray": "tokens", "multiverse": "multiverse"}  # fmt: skip
    alone = replace(found, evidence=replace(Evidence(), **{kept: getattr(found.evidence, kept)}))
    node = parsed(page(run_of(tmp_path, alone)))
    shown = {s.attributes["id"] for s in node.all("main")[0].children if isinstance(s, Node)}
    assert shown & set(anchors.values()) == {anchors[kept]}


def test_one_depth_has_no_curve(tmp_path: Path) -> None:
    node = parsed(page(run_of(tmp_path, reported.result(full=False, depths=(0,)))))
    assert not node.of_class("line")
    assert "0 ← primary" in node.by_id("curves").text


def test_what_is_undefined_is_a_dash_and_never_a_zero(tmp_path: Path) -> None:
    found = bare(reported.result(full=False))
    test = found.primary
    at = replace(test.depths[-1], delta_ci=None, g=None, g_ci=None, t=None, p=None, p_greater=None, p_max_t=None)
    tests = {**found.tests, ("cosine", "same_concept"): replace(test, depths=(*test.depths[:-1], at), why_no_p="of x")}
    said = replace(found.verdict, answer="undefined", sentences=("Undefined.",))
    node = parsed(page(run_of(tmp_path, replace(found, tests=tests, verdict=said))))
    last = node.by_id("curves").all("table")[0].all("tbody")[0].all("tr")[-1]
    assert [c.text for c in last.all("td")][3:] == ["—", "—", "—", "—"]
    assert "Undefined" in node.by_id("verdict").all("h3")[0].text


def test_groups_too_small_for_an_interval_show_none_and_say_why(tmp_path: Path) -> None:
    found = reported.result(9, 3, full=False)
    node = parsed(page(run_of(tmp_path, found)))
    why = found.primary.why_no_interval
    assert "each group" in why
    assert f"no interval: {why}" in node.by_id("verdict").text
    assert "95 % interval" not in node.by_id("verdict").text
    assert "95 % interval" not in node.by_id("curves").all("figcaption")[0].text
    assert not [m for m in archive.metrics(found, {}, 0) if "_ci_" in m.key]  # nor has MLflow any


def test_tokens_without_an_x_ray_come_from_the_table_of_tokens(tmp_path: Path) -> None:
    found = reported.result(full=False)
    folder = reported.left(tmp_path, found)
    words = [
        {
            "word": f"<w{i}>",
            "lang": "X",
            "text": "",
            "tokens": 5,
            "pieces": "a b" + " c" * (i % 4),
            "unknown_pieces": i % 2,
        }
        for i in range(200)
    ]
    archive._write_table(folder / "tables" / "tokens.json", words)
    node = parsed(page(stored.read(folder, reported.entry(found))))
    rows = node.by_id("tokens").all("tbody")[0].all("tr")
    assert len(rows) == stored.WORDS
    assert all(row.all("td")[2].text == "1" for row in rows)  # those with unknown pieces first
    assert "60 of 200" in node.by_id("tokens").text


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────


def test_records_come_back_as_they_were(run: stored.Run, found: Result) -> None:
    assert run.verdict == found.verdict
    assert run.tests == tuple(found.tests.values())
    assert run.evidence == found.evidence
    assert run.pairs.balance == found.pairs.balance
    assert run.usage == found.usage


def test_fields_of_other_versions_are_passed_over_or_take_their_defaults() -> None:
    assert stored.restored(Interval, {"low": 1.0, "high": 2.0, "new": 3}) == Interval(1.0, 2.0)
    assert stored.restored(stored.Measure, {}) == stored.Measure("", "")
    with pytest.raises(KeyError, match="high"):
        stored.restored(Interval, {"low": 1.0})


@pytest.mark.parametrize("damage", ["{", '{"version": 1}', '{"verdict": {"answer": "closer"}}', "[]"])
def test_a_damaged_outcome_is_one_clear_error(damage: str, found: Result, tmp_path: Path) -> None:
    folder = reported.left(tmp_path, found)
    (folder / "outcome.json").write_text(damage)
    with pytest.raises(StoreError, match="cannot be read") as error:
        stored.read(folder, reported.entry(found))
    assert "reproduce" in error.value.next_step


def test_a_run_from_before_outcomes_were_recorded_says_so(found: Result, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no outcome\.json"):
        stored.read(tmp_path, reported.entry(found))


@pytest.mark.parametrize("chunk", [7, 40, 77, 1 << 20])
def test_a_table_is_read_row_by_row_whatever_the_chunk(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "CHUNK", chunk)
    rows = [{"a": i, "b": 'x],"[' * (i % 3), "c": None if i % 2 else -1.5e-7} for i in range(50)]
    archive._write_table(tmp_path / "t.json", rows)
    assert list(stored.rows(tmp_path / "t.json")) == rows
    text = (tmp_path / "t.json").read_text()
    (tmp_path / "t.json").write_text(text[: len(text) // 2])
    with pytest.raises(StoreError, match=r"t\.json.*damaged"):
        list(stored.rows(tmp_path / "t.json"))


# ── many pairs ───────────────────────────────────────────────────────────────────────────────────────────


def test_of_ten_thousand_pairs_the_extremes_are_shown_and_the_page_stays_small(tmp_path: Path) -> None:
    found = reported.result(5000, 2500)
    run = run_of(tmp_path, found)
    text = page(run)
    assert len(text.encode()) < 1_000_000
    node = parsed(text)
    assert "10\u202f000 are in tables/pairs.json" in node.by_id("pairs").text
    mine = [r for r in node.by_id("pairs").all("table")[-1].all("tbody")[0].all("tr") if "cognate" in r.text]
    shown = [values(r)[0] for r in mine]
    every = np.sort(found.similarities["cosine"].values[-1, found.pairs.members("cognate")])[::-1]
    assert shown == [*every[: stored.EXTREMES], *every[-stored.EXTREMES :]]
    assert "of 10\u202f000" in node.by_id("tokens").text


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_is_well_formed_xml(found: Result) -> None:
    pictures = [
        charts.curve(found.primary, 6, "a < b"),
        charts.love(found.pairs.balance, "x"),
        charts.groups({"cognate": [0.1, 0.2], "control": [0.3] * 200}, "cosine"),
        specification_curve(found.evidence.multiverse.specifications, 0.05),  # type: ignore[union-attr]
    ]
    for picture in pictures:
        ET.fromstring(f"<x>{picture}</x>")


@pytest.mark.parametrize("wide", [True, False])
def test_no_name_of_a_forest_plot_lies_on_its_zero_line(wide: bool) -> None:
    rows = [
        charts.Row(f"a run with a name as long as names of runs can be {i}", 0.01, Interval(-0.1, 0.1)) for i in "ab"
    ]
    both = ET.fromstring(f"<x>{charts.forest(rows, 't', 'Δ')}</x>").findall("div")
    picture = both[0 if wide else 1]
    (zero,) = [p for p in picture.iter("path") if p.get("class") == "zero"]
    drawn = [tuple(float(v.split()[1]) for v in part.split("L")) for part in str(zero.get("d")).split("M")[1:]]
    assert len(drawn) == len(rows)
    for text in (t for t in picture.iter("text") if t.get("class") in ("row plain", "value")):
        top, bottom = float(str(text.get("y"))) - 9, float(str(text.get("y"))) + 2
        assert not any(low < bottom and top < high for low, high in drawn)


def test_ticks_are_round_and_within() -> None:
    assert svg.Axis(-0.052, 0.131, 0, 100).ticks(4) == pytest.approx([-0.05, 0.0, 0.05, 0.1])
    assert svg.Axis(0, 6, 0, 100).ticks(6) == [0, 1, 2, 3, 4, 5, 6]
    assert svg.Axis(2, 2, 0, 100).ticks() == [2]
    assert [svg.shown(v, [0, 0.05, 0.1]) for v in (0.05, -0.05, 1e-12)] == ["0.05", "−0.05", "0.00"]


def test_the_curve_is_where_the_numbers_are(found: Result) -> None:
    test = found.primary
    picture = ET.fromstring(charts.curve(test, 6, "t"))
    (line,) = [p for p in picture.iter("path") if p.get("class") == "line"]
    points = [tuple(map(float, p.split())) for p in str(line.get("d"))[1:].split("L")]
    x, y = np.array(points).T
    deltas = [at.delta for at in test.depths]
    # pixels are an affine image of the numbers, y turned round, to the tenth of a pixel
    slope, start = np.polyfit(deltas, y, 1)
    assert slope < 0
    assert np.abs(slope * np.array(deltas) + start - y).max() < 0.15
    assert np.abs(np.diff(x) - np.diff(x)[0]).max() < 0.15


def test_of_too_many_specifications_evenly_spaced_ones_and_the_primary_are_drawn() -> None:
    many = [
        Specification("t", "p", "cosine", i, i / 100, None, i / 10, 0.5, 0.9, primary=i == 4321) for i in range(9000)
    ]
    shown = drawn(many)
    assert MOST <= len(shown) <= MOST + 1
    assert shown[0].depth == 0
    assert shown[-1].depth == 8999
    assert sum(s.primary for s in shown) == 1
    assert len(specification_curve(many, 0.05)) < 400_000


# ── several runs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def runs(tmp_path: Path) -> list[stored.Run]:
    made = []
    for i, weights in enumerate(("as_stored", "int8", "nf4")):
        found = reported.result(shift=0.08 - 0.04 * i, full=False)
        entry = reported.entry(found, id=f"{i}" * 32)
        entry.data.params["execution.weights"] = weights
        made.append(stored.read(reported.left(tmp_path / str(i), found), entry))
    return made


def test_a_sweep_begins_with_all_runs_and_shows_precision_and_each_verdict(runs: list[stored.Run]) -> None:
    node = parsed(page_of_several(runs, "Sweep s", [("minilm", "9" * 32, "FAILED")]))
    order = [s.attributes["id"] for s in node.all("main")[0].children if isinstance(s, Node)]
    assert order == ["runs", "precision", "cards"]
    rows = node.by_id("runs").all("tbody")[0].all("tr")
    for row, run in zip(rows, runs, strict=True):
        assert values(row)[:3] == [run.metrics["delta"], run.metrics["delta_ci_low"], run.metrics["delta_ci_high"]]
        card = node.by_id(f"run-{run.id}").of_class("card")[0]
        assert values(card)[0] == run.metrics["delta"]
    assert "1 run has no result: minilm (99999999) is FAILED" in node.by_id("runs").text
    assert "int8" in node.by_id("precision").text
    assert len(node.all("h1")) == 1


def test_runs_of_one_name_are_told_apart_by_what_was_set(runs: list[stored.Run]) -> None:
    assert names(runs) == [f"minilm-layerwise-germanic · execution.weights={w}" for w in ("as_stored", "int8", "nf4")]
    assert names(runs[:1]) == ["minilm-layerwise-germanic"]
    twice = [runs[0], replace(runs[0], id="f" * 32)]
    assert names(twice) == ["minilm-layerwise-germanic · 00000000", "minilm-layerwise-germanic · ffffffff"]


def test_precision_is_as_rounded_else_as_stored(runs: list[stored.Run]) -> None:
    assert [precision_of(r) for r in runs] == ["fp32 (32.00 bits)", "int8", "nf4"]


def test_runs_of_one_precision_have_no_chart_of_it(runs: list[stored.Run]) -> None:
    node = parsed(page_of_several([runs[0], replace(runs[0], id="f" * 32)], "Two runs"))
    assert node.by_id("precision") is None


def tagged(run: stored.Run, params: dict[str, str] | None = None, **tags: str) -> stored.Run:
    return replace(run, params={**run.params, **(params or {})}, tags={**run.tags, **tags})


def test_precision_is_asked_of_one_model_and_method_alone(runs: list[stored.Run]) -> None:
    # as the README's sweep: two models, stored in two formats, by two methods
    other = tagged(runs[1], checkpoint="ee" * 32, model="llama")
    assert series([runs[0], other]) == []
    assert series([runs[0], tagged(runs[1], primary_sha256="ff" * 32, method="static")]) == []
    assert series([runs[0], tagged(runs[1], {"model.tokenizer": "/another"})]) == []
    assert parsed(page_of_several([runs[0], other], "Two models")).by_id("precision") is None
    (told,) = series([other, runs[2], runs[0]])
    assert [(run.id[0], words) for run, words in told] == [("0", "fp32 (32.00 bits)"), ("2", "nf4")]
    node = parsed(page_of_several([*runs, tagged(other, {"execution.weights": "as_stored"}), other], "s"))
    first, second = node.by_id("precision").all("figure")
    assert "minilm × layerwise × " in first.text
    assert "template gloss" in first.text
    assert "llama × layerwise × " in second.text


def test_one_model_in_two_files_is_known_by_its_name_on_the_hub(runs: list[stored.Run]) -> None:
    def stored_as(hub: str, check: str, source: str = "None") -> stored.Run:
        return tagged(runs[0], {"model.hub": hub, "model.source": source}, checkpoint=check)

    llama = {model_of(stored_as(hub, check)) for check, hub in zip("12345", (
        "meta-llama/Llama-3.3-70B-Instruct", "RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8",
        "x/Llama-3.3-70B-Instruct-AWQ-INT4", "x/Llama-3.3-70B-Instruct-GGUF", "x/Llama-3.3-70B-Instruct-FP8-dynamic",
    ), strict=True)}  # fmt: skip
    assert llama == {"llama-3.3-70b-instruct"}
    assert model_of(stored_as("x/Llama-3.1-70B-Instruct-AWQ", "1")) not in llama
    assert (
        model_of(stored_as("meta-llama/Llama-3.3-70B-Instruct", "ab", "/a/folder")) == "ab"
    )  # which weights, who knows


def test_the_dtype_of_the_arithmetic_is_a_precision_too(runs: list[stored.Run]) -> None:
    two = [tagged(runs[0], computed_in=dtype) for dtype in ("float32", "bfloat16")]
    (told,) = series(two)
    assert [w for _, w in told] == [f"fp32 (32.00 bits), computed in {d}" for d in ("float32", "bfloat16")]


def test_runs_that_measure_different_things_are_compared_by_g(runs: list[stored.Run]) -> None:
    other = replace(runs[1], verdict=replace(runs[1].verdict, similarity="centred"))
    node = parsed(page_of_several([runs[0], other], "Two runs"))
    assert "The runs measure different things, so g is shown" in node.by_id("runs").text


def test_a_changed_plan_among_several_is_visible(runs: list[stored.Run]) -> None:
    changed = replace(runs[1], tags={**runs[1].tags, "primary_sha256": "00" * 32, "reproduces": runs[0].id},
                      original_plan="ab" * 32)  # fmt: skip
    said = parsed(page_of_several([runs[0], changed], "Two runs")).by_id("runs").text
    assert "2 different plans of the primary outcome" in said
    assert "one plan in everything" in said
    assert f"reproduces {runs[0].id}: the plan was changed" in said
    assert "one commit for all runs" in said


# ── style ────────────────────────────────────────────────────────────────────────────────────────────────


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_letters_stand_out_from_what_is_behind_them() -> None:
    style = (Path(stored.__file__).parent / "style.css").read_text(encoding="utf-8")
    names = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style))
    colours = {c if c.startswith("#") else names[c[6:-1]] for c in re.findall(r"(?<![-\w])color: ([^;} ]+)", style)
               if c.startswith(("#", "var"))}  # fmt: skip
    letters = re.findall(r"(?:text|\.tick|\.axis|\.note)[^{}]*\{[^}]*?(?<![-\w])fill: ([^;} ]+)", style)
    colours |= {c if c.startswith("#") else names[c[6:-1]] for c in letters}
    assert len(colours) >= 5
    for colour in colours - {"#fff"}:  # white is on ink
        for behind in ("#ffffff", names["wash"], names["mark"]):
            dark, light = sorted((luminance(colour), luminance(behind)))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (colour, behind)


def test_the_page_is_written_from_the_stored_files_alone(found: Result, tmp_path: Path) -> None:
    """Plain JSON on disk is all: no record of the process is needed."""
    folder = reported.left(tmp_path, found)
    json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    archive.write_page(folder, reported.entry(found))
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
