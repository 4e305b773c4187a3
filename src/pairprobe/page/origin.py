"""Where the numbers come from, and how to have them again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from pairprobe.page.markup import Child, Html, code, command, facts, folded, paragraph, section, table, tag
from pairprobe.page.stored import Run
from pairprobe.page.words import Glossary

#: By heading: tags and what they are called.
TAGS = {
    "Model": {
        "model": "Model", "checkpoint": "Checkpoint", "checkpoint_from": "Read "
        "from", "checkpoint_stored_as": "Stored as",
        "checkpoint_formats": "Formats", "checkpoint_bits_per_weight": "Bits per weight",
        "checkpoint_activations": "Activations", "checkpoint_unquantised": "Unquantised",
        "checkpoint_caution": "Beware",
    },
    "Computation": {
        "method": "Method", "execution": "Execution", "device": "Device", "computed_in": "Computed in",
        "attention": "Attention", "passes": "Passes over the checkpoint",
    },
    "Machine and code": {
        "hostname": "Machine", "hardware.cpu": "Processor", "hardware.cores": "Cores", "hardware.memory": "Memory",
        "hardware.gpu": "Accelerator", "git_commit": "Commit", "git_dirty": "Uncommitted changes",
    },
}  # fmt: skip
CODES = ("checkpoint", "git_commit")


def provenance(run: Run, _words: Glossary) -> Html:
    parts: list[Child] = []
    for heading, names in TAGS.items():
        rows: list[tuple[Child, Child]] = [
            (name, code(run.tags[key]) if key in CODES else run.tags[key])
            for key, name in names.items()
            if run.tags.get(key, "none") != "none"
        ]
        if heading == "Computation":
            rows += [(k.replace("_", " ").capitalize(), v) for k, v in run.vectors.items()]
            rows += _costs(run)
        if rows:
            parts += [tag("h3", heading), facts(rows)]
    versions = {k.removeprefix("version/"): v for k, v in run.params.items() if k.startswith("version/")}
    settings = [[k, v] for k, v in run.params.items() if not k.startswith("version/")]
    return section(
        "What was recorded",
        *parts,
        folded(f"Versions of {len(versions)} packages and drivers", table("Versions", ["package", "version"],
               list(versions.items()), text=2)) if versions else None,
        folded(f"All {len(settings)} settings", table("Settings", ["setting", "value"], settings, text=2))
        if settings else None,
        anchor="provenance",
    )  # fmt: skip


def _costs(run: Run) -> list[tuple[Child, Child]]:
    seconds = {k.removeprefix("time/"): v for k, v in run.metrics.items() if k.startswith("time/")}
    memory = {k.removeprefix("memory/").replace("_", " "): v for k, v in run.metrics.items() if k.startswith("memory/")}
    rows: list[tuple[Child, Child]] = []
    if seconds:
        rows.append(("Seconds", ", ".join(f"{k} {v:.1f}" for k, v in seconds.items())))
    if memory:
        rows.append(("Peak memory", ", ".join(f"{k} {v / 1e9:.2f} GB" for k, v in memory.items())))
    return rows


def repeat(run: Run, _words: Glossary) -> Html:
    """The commands; a run whose words were not recorded can be repeated from its logged configuration all the same."""
    given = run.tags.get("overrides")
    return section(
        "How to repeat it",
        paragraph("From the run's own logged configuration, comparing every similarity with the recorded one:"),
        command(f"python run.py reproduce {run.id}"),
        *(
            [paragraph("As it was first asked for, with today's defaults for all that was not said:"),
             command(f"python run.py {from_anywhere(given, run.params)}".rstrip())]
            if given is not None else []
        ),
        paragraph("This page again, and beside another run:"),
        command(f"python run.py report {run.id}\npython run.py compare {run.id} RUN_ID"),
        anchor="repeat",
    )  # fmt: skip


def from_anywhere(given: str, params: Mapping[str, str]) -> str:
    """The words a run was asked for with, paths in them whole: a reader need not know in which folder they were typed.

    Args:
        given: overrides, as a shell reads them. params: the run's settings, in which paths are absolute.
    """
    words, asked = [], shlex.split(given)
    for word in asked:
        key, _, value = word.partition("=")
        path = params.get(key.lstrip("+"), "")
        if Path(path).is_absolute() and path != value:
            plain = re.fullmatch(r"[\w./-]+", path)
            word = f"{key}={path}" if plain else "{}='{}'".format(key, path.replace("'", r"\'"))  # as Hydra quotes
        words.append(word)
    return given if words == asked else shlex.join(words)
