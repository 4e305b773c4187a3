"""A report from top to bottom: what stands in it, in this order. Parts that a run has not are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from pairprobe import __version__
from pairprobe.page import curves, doubts, material, opening, origin, precision, several
from pairprobe.page.markup import Html, code, join, paragraph, tag
from pairprobe.page.stored import Run
from pairprobe.page.words import Glossary

#: One run.
SECTIONS = (
    opening.verdict,
    opening.beware,
    opening.plan,
    curves.curves,
    material.pairs,
    doubts.partners,
    doubts.confounds,
    doubts.scores,
    material.geometry,
    material.tokens,
    doubts.multiverse,
    origin.provenance,
    origin.repeat,
)
#: The hatching of the max-T band, which every curve refers to.
PATTERNS = Html(
    '<svg class="patterns" width="0" height="0" aria-hidden="true" focusable="false"><defs><pattern id="hatch" '
    'width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line y2="6" class="hatch"/>'
    "</pattern></defs></svg>"
)


def page(run: Run) -> str:
    """The report of one run, as the text of an HTML file."""
    words = Glossary()
    sections = [found for make in SECTIONS if (found := make(run, words)) is not None]
    about = [opening.setting(run)]
    if run.began:
        about.append(f"{run.began:%Y-%m-%d %H:%M} UTC")
    return _document(
        f"{run.name} · pairprobe", run.question, join(" · ".join(about), " · run ", code(run.id)), sections
    )


def page_of_several(runs: Sequence[Run], title: str, unfinished: Sequence[tuple[str, str, str]] = ()) -> str:
    """The report of several runs, or of a sweep. unfinished: (name, id, status) of those that have no result."""
    words = Glossary()
    sections = [
        several.summary(runs, unfinished, words),
        precision.precision(runs, words),
        several.cards(runs, words),
    ]
    questions = list(dict.fromkeys(r.question for r in runs))
    about = paragraph_of(runs, title)
    return _document(f"{title} · pairprobe", " / ".join(questions[:3]), about, [s for s in sections if s is not None])


def paragraph_of(runs: Sequence[Run], title: str) -> Html:
    days = sorted(r.began for r in runs if r.began)
    when = f" · {days[0]:%Y-%m-%d %H:%M} UTC" if days else ""
    return join(f"{title} · {len(runs)} runs{when}")


def _document(title: str, question: str, about: Html, sections: Sequence[Html]) -> str:
    style = resources.files("pairprobe.page").joinpath("style.css").read_text(encoding="utf-8")
    body = join(
        PATTERNS,
        tag("a", "To the verdict", href="#main", class_="skip"),
        tag("header", paragraph("pairprobe · what do a model's vectors know about pairs of words?", kind="kicker"),
            tag("h1", question), paragraph(about, kind="about")),
        _contents(sections),
        tag("main", sections, id="main"),
        tag("footer", paragraph(f"Written by pairprobe {__version__} from what the run logged. Every number's full "
                    "digits "
            "stand in the page itself. Colours: Okabe and Ito (2008).")),
    )  # fmt: skip
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _contents(sections: Sequence[Html]) -> Html:
    """Links to the sections, by the anchors and headings they have."""
    found = [re.search(r'<h2 id="([^"]+)-title">(.*?)</h2>', s) for s in sections]
    links = [tag("li", tag("a", Html(m[2]), href=f"#{m[1]}")) for m in found if m]
    return tag("nav", tag("ul", links), aria_label="Contents")
