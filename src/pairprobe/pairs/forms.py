"""A form as a dataset prints it → a word a model can be given.

A dataset's cell is an editor's note: variants, optional segments, stem hyphens, tones, doubt. The rules, in this order,
each found by reading all forms of IE-CoR 1.2 and of the Sino-Tibetan database (Sagart et al. 2019):

remark      words in brackets set off by a space or ending in dots are the editor's: 'leŋ (< liŋ?)', 'helo[...]'
variants    only the first of those between ',', ';', ' / ', ' ~ ', '|', '≠' is kept: 'eden, en' → 'eden'
doubt       '?' and '!' at either end and an asterisk at the end go: 'eff?' → 'eff'
asterisk    one in front marks a reconstruction: kept, or dropped by setting
brackets    round, square and angle ones inside a word mark what is optional, uncertain or infixed: 'qˤ(r)oʔ' → 'qˤroʔ'
tones       superscript digits and tone letters: 'pʰa⁵⁵' → 'pʰa'. Subscripts stay (h₂), but for those beside a tone
edges       hyphens that mark a stem or an affix: 'gam-' → 'gam'; commas and full stops at the end always
codes       '+', '=', '·', '◦', '_', '←' with which a database separates morphemes or syllables: 'ŋa+ma' → 'ŋama'
boundaries  '-' and '.' between morphemes or syllables, as linguists print them: 'a-ws-ē' → 'awsē'

Dropped are forms of several words ('dahvā aku'), with two spellings of one segment ('ura/i-'), with other signs that
are no part of a word ('%', digits, private-use characters), and what is then empty. Nothing is ever normalised in
Unicode's sense: NFKC would turn ʷ ʰ ˤ and subscripts into plain letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from pairprobe.errors import one_of

REMARK = re.compile(r"\s+(?:\([^()]*(?:\)|$)|\[[^\[\]]*(?:\]|$)|<[^<>]*(?:>|$))|\[[^\[\]]*\.\.\.\]?")
VARIANT = re.compile(r"\s*[,;،|≠]\s*|\s+[/~]\s*|\s*[/~]\s+")
BRACKETS = re.compile(r"[()\[\]<>⁽⁾]")
OPTIONAL = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>|⁽[^⁽⁾]*⁾")
TONE = re.compile(r"[₀-₉]*[⁰¹²³⁴-⁹˥˦˧˨˩]+[⁰¹²³⁴-⁹˥˦˧˨˩₀-₉]*")
CODES = re.compile(r"[+=·◦_←]")
BOUNDARY = re.compile(r"[-‐‑–.]")
HYPHENS = re.compile(r"^[-‐‑–\s]+|[-‐‑–\s]+$")
PUNCTUATION = re.compile(r"^[.\s]+|[.,;\s]+$")
DOUBT = re.compile(r"^[?!\s]+|(?<=.)[?!*\s]+$")
INVISIBLE = re.compile("[\u034f\u200b\ufeff\u00ad∼]")  # the last one doubles the nasal mark: ã∼
#: Signs that follow a letter and belong to it, although Unicode does not call them letters.
ATTACHED = frozenset("′″'’ʼ")


@dataclass(frozen=True)
class Cleaning:
    """Which of the rules apply. asterisk, tones: keep | drop. brackets: open (what stands inside stays) | drop (it
    goes too) | keep. edges: drop | keep, for roots (*mer-). boundaries: join | keep. several_words: drop (such forms)
    | keep."""

    asterisk: str = "keep"
    brackets: str = "open"
    tones: str = "drop"
    edges: str = "drop"
    boundaries: str = "join"
    several_words: str = "drop"

    def __post_init__(self) -> None:
        one_of("pairs.clean.asterisk", self.asterisk, ("keep", "drop"))
        one_of("pairs.clean.brackets", self.brackets, ("open", "drop", "keep"))
        one_of("pairs.clean.tones", self.tones, ("keep", "drop"))
        one_of("pairs.clean.edges", self.edges, ("keep", "drop"))
        one_of("pairs.clean.boundaries", self.boundaries, ("join", "keep"))
        one_of("pairs.clean.several_words", self.several_words, ("drop", "keep"))

    def clean(self, raw: str, count: Counter[str] | None = None) -> str:
        """The word, or '' where the form is dropped. count: rule → how many forms it changed; gains by this form."""
        used: set[str] = set()

        def apply(rule: str, old: str, new: str) -> str:
            if new != old:
                used.add(rule)
            return new

        form = apply("invisible", raw, INVISIBLE.sub("", raw).strip())
        form = apply("remark", form, _outermost(REMARK, form).strip())
        form = apply("variants", form, next((v for v in VARIANT.split(form) if v.strip()), ""))
        form = apply("doubt", form, DOUBT.sub("", form))
        star = form.startswith("*")
        form = form.lstrip("* ")
        if star and self.asterisk == "drop":
            used.add("asterisk")
        if self.brackets != "keep":
            if self.brackets == "drop":
                form = apply("brackets", form, OPTIONAL.sub("", form))
            form = apply("brackets", form, BRACKETS.sub("", form))
        if self.tones == "drop":
            form = apply("tones", form, TONE.sub("", form))
        form = apply("codes", form, CODES.sub("", form))
        form = apply("edges", form, PUNCTUATION.sub("", form))
        if self.edges == "drop":
            form = apply("edges", form, PUNCTUATION.sub("", HYPHENS.sub("", form)))
        if self.boundaries == "join":
            inner = form.strip("-‐‑–")
            form = apply("boundaries", form, form.replace(inner, BOUNDARY.sub("", inner)) if inner else "")
        reason = self._unusable(form)
        if count is not None:
            count.update({f"dropped: {reason}"} if reason else used)
        return "" if reason else ("*" if star and self.asterisk == "keep" else "") + form

    def _unusable(self, form: str) -> str:
        if not any(c.isalpha() for c in form):
            return "empty"
        if " " in form and self.several_words == "drop":
            return "several words"
        if "/" in form or "~" in form:
            return "two spellings of one segment"
        return "" if all(self._of_a_word(c) for c in form) else "other signs"

    def _of_a_word(self, c: str) -> bool:
        kind = unicodedata.category(c)
        return (
            kind[0] in "LM" or kind == "Sk" or c in ATTACHED or c in " :\u200c\u200d" or "₀" <= c <= "₉"
            or (self.brackets == "keep" and bool(BRACKETS.match(c)))
            or ("keep" in (self.boundaries, self.edges) and bool(BOUNDARY.match(c)))
            or (self.tones == "keep" and bool(TONE.match(c)))
        )  # fmt: skip


DROPPED = "dropped: "  # before the reason, in a count of rules


def told(count: Counter[str], forms: int) -> str:
    """'700 forms; left out: borrowed 48; cleaned: variants 12, …' for people."""
    left_out: list[str] = []
    cleaned: list[str] = []
    for rule, n in sorted(count.items(), key=lambda item: (-item[1], item[0])):
        (left_out if rule.startswith(DROPPED) else cleaned).append(f"{rule.removeprefix(DROPPED)} {n}")
    said = f"{forms} forms" + (f"; left out: {', '.join(left_out)}" if left_out else "")
    return said + (f"; cleaned: {', '.join(cleaned)}" if cleaned else "" if left_out else ", as they are")


def _outermost(pattern: re.Pattern[str], text: str) -> str:
    """Remarks inside remarks need another look."""
    while (shorter := pattern.sub("", text)) != text:
        text = shorter
    return text
