"""Records → what a run leaves: params, tags, metrics and files. Plain values; MLflow is tracking.py's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pairprobe import beside, figures, figures_tokens, kept, provenance
from pairprobe.config import Job, flatten
from pairprobe.evidence import Multiverse
from pairprobe.figures_multiverse import specification_curve
from pairprobe.outcomes import DepthTest, GroupTest
from pairprobe.page import stored
from pairprobe.page.document import page
from pairprobe.preflight import Plan
from pairprobe.provenance import Git
from pairprobe.records import PairSet
from pairprobe.result import Result
from pairprobe.stores import without_password
from pairprobe.tracking import Metric

REPORT = "report.html"


def params(job: Job) -> dict[str, Any]:
    """The flattened configuration and the version of everything that can change a number."""
    config = _publishable(job)
    flat = {k: json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for k, v in flatten(config)}
    return {
        **flat,
        **{f"version/{name}": version for name, version in provenance.versions(job.method.uses_model).items()},
    }


def _publishable(job: Job) -> dict[str, Any]:
    """The configuration without the password that a store's address may hold."""
    tracking = dict(job.config["tracking"])
    tracking["uri"] = without_password(tracking["uri"]) if tracking["uri"] else None
    return {**job.config, "tracking": tracking}


def tags(job: Job, plan: Plan, code: Git) -> dict[str, Any]:
    """Where the run comes from."""
    hardware = {f"hardware.{k}": v for k, v in provenance.hardware(job.method.uses_model).items()}
    pairs_sha256 = plan.pairs.sha256
    reference_sha256 = reference_key(plan.pairs)
    primary = primary_sha256(job, pairs_sha256, reference_sha256)
    tags: dict[str, Any] = {
        "model": job.model_name,
        "method": job.method.name,
        "pairs": plan.pairs.name,
        "pairs_sha256": pairs_sha256,
        "reference_sha256": reference_sha256,
        "primary_sha256": primary,
        "plan_sha256": plan_sha256(job, primary, plan.checkpoint.identity if plan.checkpoint else job.model_name),
        "hostname": provenance.hostname(),
        "git_commit": code.commit or "none",
        "git_dirty": str(code.dirty).lower(),
        "git_diff_sha256": hashlib.sha256(code.diff.encode()).hexdigest() if code.diff else "none",
        **hardware,
    }
    if code.commit:
        tags["mlflow.source.git.commit"] = code.commit
    if job.experiment.name:
        tags["experiment"] = job.experiment.name
    if plan.checkpoint is not None:
        tags["checkpoint"] = plan.checkpoint.identity
        tags["checkpoint_from"] = plan.checkpoint.where
        tags |= {f"checkpoint_{key}": value for key, value in plan.checkpoint.storage.described.items()}
    if plan.estimate is not None:
        tags["execution"] = plan.estimate.execution
        tags["passes"] = str(plan.estimate.passes)
        if plan.estimate.rounding is not None:
            tags["rounding"] = plan.estimate.rounding.sentence
    elif plan.remark:
        tags["remark"] = plan.remark
    return tags


def reference_key(pairs: PairSet) -> str:
    """Hash of the words in no pair; 'none' where there are none."""
    if not pairs.reference:
        return "none"
    return kept.key({"reference": [[w.lang, w.form, w.gloss] for w in pairs.reference]})


def primary_sha256(job: Job, pairs_sha256: str, reference_sha256: str = "none") -> str:
    """Hash of what was fixed before any weight was read: the primary outcome, how it is tested, and on which words."""
    fixed = {part: job.config[part] for part in ("statistics", "similarity", "method", "template", "tokens")}
    words = {"pairs": pairs_sha256} | ({} if reference_sha256 == "none" else {"reference": reference_sha256})
    return kept.key({**fixed, "primary": job.config["experiment"]["primary"], **words})


def plan_sha256(job: Job, primary: str, model: str) -> str:
    """Hash of all that was fixed before any number: the primary outcome's plan (its hash), the other ways of measuring,
    which model, and how its weights and the inputs of its products are rounded.

    model: identity of the checkpoint, or the name of a model whose similarities are recorded.
    """
    rounding = {key: job.config["execution"].get(key, "as_stored") for key in ("weights", "activations")}
    tokenizer = job.config["model"].get("tokenizer") if job.method.uses_model else None
    return kept.key(
        {"primary": primary, "multiverse": job.config["multiverse"], "model": model, "tokenizer": tokenizer, **rounding}
    )


def verdict_tags(result: Result) -> dict[str, Any]:
    """The verdict in words, where the UI's table and description show it."""
    tags: dict[str, Any] = {
        "verdict": result.verdict.answer,
        "mlflow.note.content": "\n\n".join(
            [*result.verdict.sentences, *(f"Beware: {b}" for b in result.verdict.beware)]
        ),
    }
    if result.vectors:
        tags |= {f"vectors.{key}": value for key, value in result.vectors.about.items()}
    if result.tokens:
        tags["tokenizer"] = result.tokens.tokenizer
    if result.usage:
        tags |= {
            "device": result.usage.device,
            "computed_in": result.usage.dtype,
            "attention": result.usage.attention,
        }
    return tags


def metrics(result: Result, seconds: dict[str, float], peak: int) -> list[Metric]:
    """Curves (step = depth) per similarity, scalars of the primary outcome, peaks in bytes, times in seconds.

    What is undefined is left out. Curves of the primary control group have no group in their name.
    """
    found: list[Metric] = []
    for (similarity, control), test in result.tests.items():
        name = similarity if control == result.verdict.control else f"{similarity}/{control}"
        for at in test.depths:
            found += [Metric(f"{name}/{key}", value, at.depth) for key, value in _numbers(at).items()]
    for space in result.evidence.geometry.depths if result.evidence.geometry else ():
        numbers = {k: v for k, v in asdict(space).items() if k != "depth" and v is not None}
        found += [Metric(f"geometry/{key}", value, space.depth) for key, value in numbers.items()]
    found += [Metric(key, value) for key, value in scalars(result.primary, result.verdict.depth).items()]
    found += [Metric(name, value, depth) for name, value, depth in beside.curves(result)]
    found += [Metric(name, value) for name, value in beside.scalars(result).items()]
    found += [Metric(f"time/{phase}", value) for phase, value in seconds.items()]
    if result.usage:
        found += [Metric(f"memory/{key}", value) for key, value in result.usage.peaks.items()]
        if rounding := result.usage.rounding:
            found.append(Metric("rounding/bits_per_weight", rounding.bits))
            found.append(Metric("rounding/layers", rounding.layers))
            if rounding.error is not None:
                found.append(Metric("rounding/relative_error", rounding.error))
    found.append(Metric("memory/host_peak_rss", peak))
    for group, n in result.pairs.sizes.items():
        found.append(Metric(f"n/{group}", n))
    if result.findings is not None:
        found.append(Metric("tokens/unknown_only_words", len(result.findings.unknown)))
        found.append(Metric("tokens/pairs_sharing_a_piece", result.findings.sharing))
    if result.evidence.multiverse is not None:
        found += [Metric(f"multiverse/{k}", v) for k, v in _shares(result.evidence.multiverse).items()]
    return found


def _shares(found: Multiverse) -> dict[str, float]:
    numbers = {
        "specifications": len(found.specifications), "undefined": len(found.undefined), "agree": found.agree,
        "median_g": found.median_g, "p_median": found.p_median, "significant": found.significant,
        "p_significant": found.p_significant,
    }  # fmt: skip
    return {k: float(v) for k, v in numbers.items() if v is not None}


def _numbers(at: DepthTest) -> dict[str, float]:
    numbers = {
        "delta": at.delta, "cognate": at.mean_cognate, "control": at.mean_control,
        "sd_cognate": at.sd_cognate, "sd_control": at.sd_control,
        "g": at.g, "p": at.p, "p_greater": at.p_greater, "p_less": at.p_less, "p_max_t": at.p_max_t,
        "q": at.q,
        "auc": at.auc, "cliffs_delta": at.cliffs_delta, "equivalence_p": at.equivalence_p,
    }  # fmt: skip
    intervals = {"ci": at.delta_ci, "g_ci": at.g_ci, "auc_ci": at.auc_ci, "left_out": at.left_out}
    for name, interval in intervals.items():
        if interval is not None:
            numbers |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {k: v for k, v in numbers.items() if v is not None}


def scalars(test: GroupTest, depth: int) -> dict[str, float]:
    """The runs table's numbers: the primary outcome, and the depth with the largest |t| beside it."""
    numbers = _numbers(test.at(depth))
    names = {
        "delta": "delta", "delta_ci_low": "ci_low", "delta_ci_high": "ci_high", "p": "p", "p_greater": "p_greater",
        "p_less": "p_less", "p_max_t": "p_max_t", "q": "q", "hedges_g": "g",
        "hedges_g_ci_low": "g_ci_low", "hedges_g_ci_high": "g_ci_high",
        "mean_cognate": "cognate", "mean_control": "control", "auc": "auc", "cliffs_delta": "cliffs_delta",
        "equivalence_p": "equivalence_p",
    }  # fmt: skip
    table = {name: numbers[key] for name, key in names.items() if key in numbers}
    table |= {"smallest_p": test.smallest_p, "power": test.power, "detectable_d": test.detectable_d}
    if test.units:
        table |= {"units": test.units, "clusters": test.clusters, "crossing": test.crossing}
    if test.effective_cognate is not None and test.effective_control is not None:
        table |= {"effective_cognate": test.effective_cognate, "effective_control": test.effective_control}
    table["family"] = test.family
    table["primary_depth"] = test.at(depth).depth
    if test.best is not None:
        table |= {"best_depth": test.best.depth, "delta_best": test.best.delta}
    return table


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def write_config(folder: Path, job: Job, code: Git) -> None:
    """config/config.yaml (all that a repetition needs), config/requirements.txt, config/git.diff."""
    from omegaconf import OmegaConf

    config = folder / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(_publishable(job))), encoding="utf-8")
    (config / "requirements.txt").write_text(provenance.freeze(), encoding="utf-8")
    if code.diff:
        (config / "git.diff").write_text(code.diff, encoding="utf-8")


def write_result(folder: Path, result: Result, *, vectors: bool) -> None:
    """outcome.json, tables/*.json, figures/*.png, vectors/vectors.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcome.json").write_text(json.dumps(outcome(result), ensure_ascii=False), encoding="utf-8")
    _write_table(folder / "tables" / "similarities.json", similarity_rows(result))
    _write_table(folder / "tables" / "pairs.json", pair_rows(result.pairs))
    if result.pairs.balance:
        _write_table(folder / "tables" / "balance.json", [asdict(b) for b in result.pairs.balance])
    if result.tokens is not None:
        _write_table(folder / "tables" / "tokens.json", token_rows(result))
    if result.evidence.multiverse is not None:
        _write_table(folder / "tables" / "multiverse.json", specification_rows(result.evidence.multiverse))
        specification_curve(result.evidence.multiverse, folder / "figures" / "specification_curve.png")
    if result.evidence.xray is not None:
        _write_table(folder / "tables" / "tokens_by_pair.json", xray_rows(result))
        figures_tokens.token_xray(result.evidence.xray, folder / "figures" / "token_xray.png")
    for name, rows in beside.tables(result):
        _write_table(folder / "tables" / f"{name}.json", rows)
    verdict = result.verdict
    figures.draw_all(
        folder / "figures", result.tests, result.similarities, result.pairs, result.texts, result.vectors,
        (verdict.control, verdict.depth),
    )  # fmt: skip
    if vectors and result.vectors is not None and result.texts is not None:
        import numpy as np
        from safetensors.numpy import save_file

        file = folder / "vectors" / "vectors.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        mode = file.stat().st_mode & 0o777  # as this user's umask has it; safetensors lets only the owner read
        words = [{"text": t.text, "word": t.word.form, "lang": t.word.lang} for t in result.texts.texts]
        save_file(
            {"vectors": result.vectors.values, "depths": np.array(result.vectors.depths, dtype=np.int64)},
            file,
            metadata={"texts": json.dumps(words, ensure_ascii=False), **result.vectors.about},
        )
        file.chmod(mode)


def write_page(folder: Path, run: Any, original: Any = None) -> None:
    """report.html, from the files of `folder` and the run's entry in the store (`original`: of the one it repeats)."""
    text = page(stored.read(folder, run, original))
    (folder / REPORT).write_text(text, encoding="utf-8")


def outcome(result: Result) -> dict[str, Any]:
    """All records of what was found, as plain values under their fields' names: what reports and comparisons read.

    version: of this layout. Similarities, pairs and tokens stand in tables/, vectors in vectors/.
    """
    pairs = result.pairs
    return {
        "version": 1,
        "verdict": asdict(result.verdict),
        "tests": [asdict(test) for test in result.tests.values()],
        "evidence": asdict(result.evidence),
        "similarities": {name: {"about": s.about, "reference": s.reference} for name, s in result.similarities.items()},
        "pairs": {
            "name": pairs.name, "source": pairs.source, "citation": pairs.citation, "about": pairs.about,
            "sizes": pairs.sizes, "sha256": pairs.sha256, "balance": [asdict(b) for b in pairs.balance],
            "reference": len(pairs.reference),
        },
        "usage": asdict(result.usage) if result.usage else None,
        "vectors": result.vectors.about if result.vectors else None,
    }  # fmt: skip


def similarity_rows(result: Result) -> list[dict[str, Any]]:
    """One row per similarity, depth and pair."""
    return [
        {
            "similarity_kind": name, "depth": depth, "pair_id": pair.id, "group": pair.group,
            "word_a": pair.a.form, "word_b": pair.b.form, "similarity": float(s.values[i, j]),
        }
        for name, s in result.similarities.items()
        for i, depth in enumerate(s.depths)
        for j, pair in enumerate(result.pairs.pairs)
    ]  # fmt: skip


def specification_rows(found: Multiverse) -> list[dict[str, Any]]:
    """One row per way of measuring, the primary one marked; `control` is the group the cognates are held against."""
    return [
        {
            "template": s.template, "pooling": s.pooling, "similarity_kind": s.similarity, "depth": s.depth,
            "control": found.control, "delta": s.delta, "ci_low": s.ci.low if s.ci else None,
            "ci_high": s.ci.high if s.ci else None, "g": s.g, "p": s.p, "p_max_t": s.p_max_t, "primary": s.primary,
        }
        for s in found.specifications
    ]  # fmt: skip


def pair_rows(pairs: PairSet) -> list[dict[str, Any]]:
    """One row per pair, built controls beside the cognate pair they were built for."""
    return [
        {
            "pair_id": p.id, "group": p.group, "word_a": p.a.form, "word_b": p.b.form, "gloss_a": p.a.gloss,
            "gloss_b": p.b.gloss, "lang_a": p.a.lang, "lang_b": p.b.lang, "concept": p.concept, "score": p.score,
            "cogset": p.cogset, "matched": p.matched, "concept_a": p.a.concept, "concept_b": p.b.concept,
        }
        for p in pairs.pairs
    ]  # fmt: skip


def token_rows(result: Result) -> list[dict[str, Any]]:
    """One row per distinct text: what the model was given for the word."""
    assert result.tokens is not None
    rows = []
    for text, tokens in zip(result.tokens.texts.texts, result.tokens.of, strict=True):
        word = [i for i, inside in enumerate(tokens.word) if inside]
        rows.append(
            {
                "word": text.word.form, "lang": text.word.lang, "text": text.text,
                "tokens": len(tokens),
                "pieces": " ".join(tokens.pieces[i] for i in word),
                "ids": " ".join(str(int(tokens.ids[i])) for i in word),
                "span": f"{word[0]}–{word[-1]}" if word else "",
                "unknown_pieces": int(tokens.unknown[tokens.word].sum()),
                "all_pieces": " ".join(tokens.pieces),
            }
        )  # fmt: skip
    return rows


def xray_rows(result: Result) -> list[dict[str, Any]]:
    """One row per pair: what the model was given for both words, and every similarity at the primary depth."""
    found = result.evidence.xray
    assert found is not None
    rows = []
    for i, pair in enumerate(found.pairs):
        row: dict[str, Any] = {"pair_id": pair.pair_id, "group": pair.group, "pieces": pair.pieces}
        for side, word in (("a", pair.a), ("b", pair.b)):
            row |= {
                f"word_{side}": word.word, f"pieces_{side}": " ".join(word.pieces),
                f"read_as_{side}": " | ".join(word.shown), f"unknown_{side}": sum(word.unknown),
                f"parts_of_characters_{side}": sum(word.byte),
                f"norms_{side}": None if word.norms is None else " ".join(f"{n:.4g}" for n in word.norms),
                f"sinks_{side}": None if word.sinks is None else sum(word.sinks),
            }  # fmt: skip
        row["shared"] = " ".join(pair.shared)
        for name, s in result.similarities.items():
            row[name] = float(s.values[s.depths.index(found.depth), i])
        rows.append(row)
    return rows


def _write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    """The layout MLflow's UI reads: {"columns": […], "data": [[…], …]}."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0]) if rows else []
    data = [[row[c] for c in columns] for row in rows]
    file.write_text(json.dumps({"columns": columns, "data": data}, ensure_ascii=False), encoding="utf-8")
