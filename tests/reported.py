"""A run with every kind of evidence, as realistic as by hand, and what it leaves: for tests of report.html."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pairprobe import archive
from pairprobe.evidence import (
    AdjustedDelta,
    Coefficient,
    DepthGeometry,
    FormBaseline,
    FragmentedDelta,
    Geometry,
    Multiverse,
    PairTokens,
    PartnerDepth,
    PartnerTest,
    ScoreCheck,
    Specification,
    TokenXRay,
    WordTokens,
)
from pairprobe.outcomes import GroupTest, Interval
from pairprobe.records import COGNATE, Balance, Pair, PairSet, Similarities, Usage, Word
from pairprobe.result import Evidence, Result
from pairprobe.statistics.group_tests import Statistics
from pairprobe.verdict import verdict

FORMS = [("wasser", "ˈwɔːtə"), ("*ḱwṓ", "犬"), ("meH₁-", "母"), ("<b>Hund</b>", "hound & \"dog\""), ("Zunge", "tongue"),
         ("*pH₂tḗr", "父"), ("Nacht", "naxt"), ("Herz", "hɑːt"), ("Fisch", "fiʃ"), ("شمس", "sun"), ("Stein", "steɪn"),
         ("Feuer", "faɪə")]  # fmt: skip
DEPTHS = tuple(range(7))
ID = "5f3a9c0e7b1d4a2f8c6e0d9b7a513c42"


def pair_set(n: int = 24, m: int = 24, controls: tuple[str, ...] = ("same_concept", "unrelated")) -> PairSet:
    """n cognate pairs and m of each control group; words from FORMS, numbered so that none is used twice."""
    pairs = []
    for group, size in ((COGNATE, n), *((c, m) for c in controls)):
        for i in range(size):
            a, b = FORMS[i % len(FORMS)]
            number = "" if group == COGNATE and i < len(FORMS) else f"{group[0]}{i}"
            pairs.append(
                Pair(f"{group}-{i:02}", group, Word(a + number, "water", "German"),
                     Word(b + number, "water", "English"),
                     score=round(0.1 * (i % 10), 1))
            )  # fmt: skip
    balance = (
        Balance("same_concept", "length of the longer form", 5.1, 5.2, 0.61, -0.04),
        Balance("same_concept", "normalised edit distance", 0.55, 0.78, -1.32, -0.88),
        Balance("unrelated", "length of the longer form", 5.1, 5.0, 0.42, 0.07),
        Balance("unrelated", "script", 1.0, 1.0, None, None),
    )
    return PairSet("germanic", tuple(pairs), "iecor/cldf", "Heggarty et al. (2023)", balance=balance,
                   about={"languages": "German, English", "left_out": "loans, doubtful sets"})  # fmt: skip


def measured(pairs: PairSet, shift: float = 0.08, depths: tuple[int, ...] = DEPTHS) -> dict[str, Similarities]:
    """Similarities in which cognates are closer by `shift` times the depth's share."""
    rng = np.random.default_rng(7)
    found = {}
    for name, level, about in (("cosine", 0.6, "raw cosine"), ("centred", 0.0, "cosine after subtracting the mean")):
        values = level + 0.09 * rng.standard_normal((len(depths), len(pairs.pairs)))
        values += shift * np.linspace(0.2, 1, len(depths))[:, None] * pairs.members(COGNATE)
        found[name] = Similarities(name, values, depths, about, "500 words of the source" if name == "centred" else "")
    return found


def tested(similarities: dict[str, Similarities], pairs: PairSet) -> dict[tuple[str, str], GroupTest]:
    """Group tests, with what later statistics add filled by hand."""
    statistics = Statistics(resamples=200, permutations=200)
    found = {}
    for name, s in similarities.items():
        for (_, control), test in statistics.tests([s], pairs).items():
            depths = tuple(
                replace(at, auc=0.72, auc_ci=Interval(0.58, 0.86), q=0.041,
                        left_out=Interval(at.delta - 0.02, at.delta + 0.01),
                        equivalence_p=0.31, max_t_band=Interval(-0.05, 0.06))
                for at in test.depths
            )  # fmt: skip
            found[name, control] = replace(
                test, depths=depths, units=40, clusters=21, scheme="cluster labels exchanged", sesoi=0.3, family=28,
            )  # fmt: skip
    return found


def evidence(pairs: PairSet, similarity: dict[str, float]) -> Evidence:
    """One of everything."""
    partner = PartnerTest(
        "cosine", 24, 21, 23.5,
        tuple(
            PartnerDepth(d, 0.61 + 0.01 * d, 0.58, 0.012, 0.006, 0.034, 7.4 - 0.3 * d, 0.31 + 0.02 * d,
                         Interval(0.2, 0.45), 0.17 + 0.02 * d, Interval(0.08, 0.33))
            for d in DEPTHS
        ),
        9999, False, 0.0001, 12.2, 0.156, 0.042, "partners exchanged within languages",
    )  # fmt: skip
    adjusted = (
        AdjustedDelta("cosine", "same_concept", 6, 48, 21, 0.083, 0.031, Interval(-0.02, 0.081), 0.226,
                      (Coefficient("normalised edit distance", -0.041, Interval(-0.062, -0.019), 0.0004),
                       Coefficient("shared tokens", 0.022, Interval(0.003, 0.04), 0.021)),
                      {"script": "the same in all pairs"}),
        AdjustedDelta("centred", "unrelated", 6, 48, 21, 0.09, None, None, None, why_not="fewer clusters than "
                    "covariates"),
    )  # fmt: skip
    geometry = Geometry(1000, tuple(
        DepthGeometry(d, 0.41 + 0.03 * d, 0.09, 0.22 + 0.05 * d, 4.5 + d, 9.1 + d, d % 3) for d in DEPTHS))  # fmt: skip
    xray = TokenXRay(
        "cosine", "same_concept", 6,
        tuple(
            PairTokens(
                p.id, p.group,
                WordTokens(p.a.form, ("▁was", "<0xC3>", "ser"), ("was", "C3", "ser"), (i == 1, False, False),
                           (False, True, False), (False, False, False), (3.1, 2.2, 88.0), (False, False, True)),
                WordTokens(p.b.form, ("wa", "##ter"), ("wa", "##ter"), (False, False), (False, False),
                           (i % 3 == 0, False), (3.0, 2.9), (False, False)),
                ("wa",) if i % 3 == 0 else (), similarity.get(p.id, 0.5),
            )
            for i, p in enumerate(pairs.pairs)
        ),
        (FragmentedDelta("2–3", 9, 11, 0.11, Interval(0.02, 0.2)),
         FragmentedDelta("4–5", 10, 9, 0.05, Interval(-0.03, 0.13)),
         FragmentedDelta("6 or more", 5, 4, 0.01, None)), 0.95,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    specifications = tuple(
        Specification(template, pooling, kind, depth, float(g / 10),
                      Interval(float(g / 10) - 0.05, float(g / 10) + 0.05),
                      float(g), float(p), float(min(1, 6 * p)), primary=(template, pooling, kind, depth) ==
                      ("gloss", "mean", "cosine", 6))
        for template in ("bare", "gloss", "pattern") for pooling in ("mean", "last") for kind in ("cosine", "centred")
        for depth in DEPTHS
        for g, p in [(rng.normal(0.4, 0.5), rng.uniform(0, 0.4) ** 2)]
    )  # fmt: skip
    multiverse = Multiverse(
        "same_concept", specifications, 0.05, 0.41, 0.023, 0.31, 0.019, 0.82, 2000, "pairs relabelled"
    )
    return Evidence(
        {"cosine": partner}, adjusted, (FormBaseline("same_concept", 0.81, Interval(0.7, 0.91), "cosine", 6, 0.72,
                                                          Interval(-0.2, 0.02)),),
        (ScoreCheck("cosine", 6, 24, 24, 0.44, Interval(0.05, 0.72), 0.031),), geometry, xray, multiverse,
    )  # fmt: skip


def result(
    n: int = 24, m: int = 24, shift: float = 0.08, full: bool = True, depths: tuple[int, ...] = DEPTHS
) -> Result:
    """A whole result; not full: without evidence, balance and tokens, as of a static run without them."""
    pairs = pair_set(n, m)
    if not full:
        pairs = replace(pairs, balance=(), about={}, citation="")
    similarities = measured(pairs, shift, depths)
    tests = tested(similarities, pairs) if full else {
        key: t for s in similarities.values()
        for key, t in Statistics(resamples=200, permutations=200).tests([s], pairs).items()
    }  # fmt: skip
    said = verdict(tests["cosine", "same_concept"], pairs, -1)
    last = similarities["cosine"].values[-1]
    by_id = {p.id: float(v) for p, v in zip(pairs.pairs, last, strict=True)}
    return Result(
        None, None, None, None, Usage("cpu", "float32", "eager", {"load": 1.2, "forward": 3.4}, {}), pairs,
        similarities, tests, replace(said, beware=(*said.beware, "3 words are <unknown> & cannot be told apart.")),
        evidence(pairs, by_id) if full else Evidence(),
    )  # fmt: skip


def entry(found: Result, id: str = ID, name: str = "minilm-layerwise-germanic", **tags: str) -> Any:
    """The run's entry as the store gives it: MLflow's Run by its fields."""
    metrics = {m.key: m.value for m in archive.metrics(found, {"load": 1.2, "total": 9.9}, 812_000_000)}
    params = {
        "experiment.question": "Do German and English cognates lie closer than words that only mean the same?",
        "experiment.primary.similarity": "cosine", "experiment.primary.depth": "-1",
        "experiment.primary.control": "None",
        "template.name": "gloss", "version/torch": "2.13.0", "version/numpy": "2.4.0",
    }  # fmt: skip
    known = {
        "model": "minilm", "method": "layerwise", "primary_sha256": "ab" * 32, "plan_sha256": "12" * 32,
        "pairs_sha256": found.pairs.sha256,
        "git_commit": "2c9f553e", "git_dirty": "true", "checkpoint": "cd" * 32, "checkpoint_from": "package",
        "checkpoint_stored_as": "fp32", "checkpoint_bits_per_weight": "32.00", "hostname": "reading-room",
        "hardware.cpu": "A processor", "overrides": "'pairs=cldf' statistics.seed=3", **tags,
    }  # fmt: skip
    return SimpleNamespace(
        info=SimpleNamespace(run_id=id, run_name=name, status="FINISHED", start_time=1_795_000_000_000),
        data=SimpleNamespace(params=params, tags=known, metrics=metrics),
    )


def left(folder: Path, found: Result) -> Path:
    """The files of a run that a page is made from, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcome.json").write_text(json.dumps(archive.outcome(found), ensure_ascii=False), encoding="utf-8")
    for name, rows in (("similarities", archive.similarity_rows(found)), ("pairs", archive.pair_rows(found.pairs))):
        archive._write_table(folder / "tables" / f"{name}.json", rows)
    return folder
