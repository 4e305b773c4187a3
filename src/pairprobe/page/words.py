"""The plain words of a report: what an answer means to somebody without statistics, and each term explained once."""

from __future__ import annotations

from pairprobe.outcomes import BY_MEANING, PERHAPS
from pairprobe.page.markup import Html, facts, tag

#: By answer: a sign that needs no colour, a heading, and what it means.
ANSWERS = {
    "cannot tell": (
        "?",
        "Cannot tell",
        "These pairs do not say whether cognates lie closer together than controls in this model. That is not the same "
        "as saying that they do not.",
    ),
    "no difference": (
        "=",
        "No difference of the size looked for",
        "In this model any difference between these cognates and controls is smaller than what was fixed beforehand as "
        "worth finding. A smaller one is not ruled out.",
    ),
    "closer": (
        "→←",
        "Cognates lie closer together",
        "In this model the cognate pairs are more alike than the control pairs, by more than chance would readily "
        "make. "
        "Why they are is another question: read on.",
    ),
    "farther": (
        "←→",
        "Cognates lie farther apart",
        "In this model the cognate pairs are less alike than the control pairs, by more than chance would readily "
        "make. "
        "Why they are is another question: read on.",
    ),
    "undefined": (
        "∅",
        "Undefined",
        "The pairs within each group are all equally similar, so that there is nothing to hold a difference against.",
    ),
}

#: What an answer that ends in PERHAPS means: by which side is claimed.
BY_FORM = (
    "In this model the cognate pairs are {} than the control pairs, but what was measured beside it (spelling, shared "
    "tokens, length) may explain all of that. It is no evidence that the model knows anything beyond form."
)

MEANT = (
    "In this model the cognate pairs are {} than the control pairs, but the sentences that the words stood in name "
    "their meaning, which only cognates share: that may be all of it. It is no evidence that the model knows anything "
    "of the words themselves."
)


def plainly(answer: str) -> tuple[str, str, str]:
    """An answer's sign, heading and meaning."""
    for ending, means in ((PERHAPS, BY_FORM), (BY_MEANING, MEANT)):
        base, perhaps, _ = answer.partition(ending)
        if perhaps:
            sign, heading, _ = ANSWERS.get(base, ("·", base, ""))
            alike = "more alike" if base.startswith("closer") else "less alike"
            return sign, f"{heading}{perhaps} alone", means.format(alike)
    return ANSWERS.get(answer, ("·", answer, ""))


#: By kind of control: what its pairs are.
CONTROLS = {
    "control": "pairs that the source itself gives as controls",
    "same_concept": "words that mean the same but are not cognate",
    "form_matched": "words that mean different things but are as alike in spelling as cognates are",
    "shuffled": "the cognate pairs' own words with their partners exchanged",
    "unrelated": "words that share neither meaning nor ancestry",
}

TERMS = {
    "Δ": "Delta, the difference: the mean similarity of the cognate pairs minus that of the control pairs. Above 0, "
    "cognates lie closer together; below 0, farther apart.",
    "similarity": "One number for how alike the model's vectors of two words are; larger is more alike. Its unit "
    "depends on which similarity it is, so that Δ in two of them cannot be compared directly.",
    "interval": "The differences that are compatible with these pairs. At a level of 95 %, 95 of 100 intervals made "
    "this "
    "way would hold the true difference. One that holds 0 leaves open on which side of 0 it lies.",
    "p": "How often a difference at least this large comes about when the labels “cognate” and “control” are dealt out "
    "to the pairs by chance. A small p says that chance alone rarely does this. It is not the probability that there "
    "is no difference.",
    "primary": "The one comparison that the settings named before the run began. The verdict rests on it alone. All "
    "others are exploratory: they may suggest what to test next, on other pairs.",
    "depth": "How many layers of the model a text has passed: 0 is before the first.",
    "p max-T": "p, corrected for having looked at many depths (and similarities) at once: how often the largest of all "
    "chance differences is at least this large. Among many depths, only this p counts.",
    "q": "p, adjusted so that among all results with q at most 0.05 about one in twenty is a false alarm (Benjamini "
    "and "
    "Hochberg).",
    "g": "Δ as a multiple of how much pairs within one group differ from each other, corrected for few pairs (Hedges' "
    "g). It has no unit. By custom 0.2 is called small and 0.8 large.",
    "AUC": "The chance that a cognate pair drawn at random is more alike than a control pair drawn at random. 0.5 is a "
    "coin, 1 is always, 0 is never.",
    "standardised difference": "How far cognates and controls lie apart in something that is not ancestry, as "
    "length, in "
    "standard deviations. Within ±0.1 they are usually taken for alike.",
    "own partner": "The word that a word is paired with; the test asks whether it is closer to it than to the other "
    "pairs' words, as a cognate should be.",
    "rank and MRR": "Where the own partner stands when all possible partners are sorted by similarity (1 is the "
    "closest), "
    "and the mean of 1/rank: 1 would be always first.",
    "precision@1": "The share of words whose own partner is the closest of all.",
    "adjusted Δ": "Δ between pairs that are equal in what is listed as held equal (spelling; tokens, length, script, "
    "frequency where they are known and differ), as far as a linear model can make them so. If it is much smaller than "
    "the raw Δ, these may be what the raw one shows.",
    "ρ": "Spearman's rank correlation: 1 where both order the pairs alike, 0 where they have nothing to do with each "
    "other, −1 where they order them in opposite ways.",
    "piece": "What the model's tokenizer cuts a word into. An unknown piece stands for something the model has no "
    "piece "
    "for; a word of such pieces alone is not seen at all.",
    "sink": "A token whose vector is many times longer than others, because the model parks attention there; it says "
    "little of the word.",
    "specification": "One defensible way of measuring: a template, a pooling, a similarity and a depth. Had another "
    "one "
    "been chosen, its Δ would have been the result.",
    "equivalence": "A test that a difference as large as would be of interest is not there. Its p being small is "
    "evidence "
    "for “no difference”, which a large ordinary p is not.",
}  # fmt: skip


class Glossary:
    """Explains each term at the first place that asks for it, and only there."""

    def __init__(self) -> None:
        self._explained: set[str] = set()

    def explain(self, *terms: str) -> Html | None:
        """The terms not explained yet, as a list; None where all were."""
        new = [t for t in terms if t not in self._explained]
        self._explained.update(new)
        if not new:
            return None
        return tag("aside", facts([(t, TERMS[t]) for t in new], "glossary"), aria_label="What these words mean")


def plural(control: str) -> str:
    """'controls', 'same_concept controls'"""
    return "controls" if control == "control" else f"{control} controls"
