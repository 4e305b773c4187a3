"""Forms: what cleaning leaves of a dataset's cell."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from pairprobe.errors import ConfigError
from pairprobe.pairs import wordlist
from pairprobe.pairs.forms import Cleaning, told

DATA = Path(os.environ.get("PAIRPROBE_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("hund", "hund"),
        ("eden, en", "eden"),
        ("ā- / āi̯a-", "ā"),
        ("vac ≠ vatti", "vac"),
        ("(už)úosti", "užúosti"),
        ("gru(e)", "grue"),
        ("*qˤ(r)oʔ", "*qˤroʔ"),
        ("*kˤ<r>aj", "*kˤraj"),
        ("*[tsʰ]ˤuʔ", "*tsʰˤuʔ"),
        ("*leŋ (< *liŋ?)", "*leŋ"),
        ("a-ti (CL)", "ati"),
        ("chili [chili=seed]", "chili"),
        ("helo[...]", "helo"),
        ("sopi (-ving, -kon)[...]", "sopi"),
        ("iâň′âi [?]", "iâň′âi"),
        ("eff?", "eff"),
        ("tor*", "tor"),
        ("pʰaʔ²₅laʔ⁵", "pʰaʔlaʔ"),
        ("kiɛ˥˧", "kiɛ"),
        ("*h₂ster-", "*h₂ster"),
        ("-li-", "li"),
        ("a-ws-ē", "awsē"),
        ("grog+ma", "grogma"),
        ("na⁵⁵◦ma⁵⁵", "nama"),
        ("ã∼³³", "ã"),
        ("gʷow", "gʷow"),
    ],
)
def test_what_each_rule_makes_of_a_real_cell(raw: str, clean: str) -> None:
    assert Cleaning().clean(raw) == clean


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("dahvā aku", "several words"),
        ("ura/i-", "two spellings of one segment"),
        ("%tʰamtɕɤt", "other signs"),
        ("a3b", "other signs"),
        ("a\ue103b", "other signs"),
        ("[?]", "empty"),
        ("", "empty"),
    ],
)
def test_a_form_that_is_no_word_is_dropped_and_counted(raw: str, reason: str) -> None:
    count: Counter[str] = Counter()
    assert Cleaning().clean(raw, count) == ""
    assert count == {f"dropped: {reason}": 1}


def test_each_rule_that_changed_a_form_is_counted_once() -> None:
    count: Counter[str] = Counter()
    rules = Cleaning(asterisk="drop")
    for raw in ("*kʷel-, *kʷol-", "*mer-", "hund"):
        rules.clean(raw, count)
    assert count == {"variants": 1, "asterisk": 2, "edges": 2}
    assert told(count, 3) == "3 forms; cleaned: asterisk 2, edges 2, variants 1"


@pytest.mark.parametrize(
    ("setting", "raw", "clean"),
    [
        ({"asterisk": "drop"}, "*mer-", "mer"),
        ({"brackets": "drop"}, "gru(e)", "gru"),
        ({"brackets": "keep"}, "*qˤ(r)oʔ", "*qˤ(r)oʔ"),
        ({"tones": "keep"}, "pʰa⁵⁵", "pʰa⁵⁵"),
        ({"edges": "keep"}, "*mer-", "*mer-"),
        ({"edges": "keep"}, "mer-, mor-", "mer-"),
        ({"boundaries": "keep"}, "*N-qʷʰˤra", "*N-qʷʰˤra"),
        ({"boundaries": "keep"}, "*C.mer-", "*C.mer"),
        ({"several_words": "keep"}, "dahvā aku", "dahvā aku"),
    ],
)
def test_rules_can_be_set_aside(setting: dict[str, str], raw: str, clean: str) -> None:
    assert Cleaning(**setting).clean(raw) == clean


def test_modifier_letters_and_subscripts_survive() -> None:
    # NFKC would make of them: kwh, h2, q with a plain glottal
    for form in ("kʷʰ", "h₂e", "qˤ", "ⁿdʒʲ", "*tˤawk"):
        assert Cleaning().clean(form) == form


def test_cleaning_twice_is_cleaning_once() -> None:
    rules = Cleaning()
    for raw in ("*kʷel-, x", "(už)úosti", "pʰaʔ²₅laʔ⁵", "a-ws-ē (CL)", "*[tsʰ]ˤuʔ"):
        assert rules.clean(rules.clean(raw)) == rules.clean(raw)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"pairs\.clean\.tones is 'dropp'; allowed: keep, drop. Did you mean 'drop'\?"
    ):
        Cleaning(tones="dropp")


@pytest.mark.skipif(not (DATA / "cldf").is_dir(), reason="optional data: $PAIRPROBE_DATA or ../shared/data")
@pytest.mark.parametrize("name", ["iecor", "sagartst"])
def test_of_real_forms_few_are_lost_and_none_stays_an_editors_note(name: str) -> None:
    words = wordlist.read(str(DATA / "cldf" / name))
    count: Counter[str] = Counter()
    clean = [Cleaning().clean(f.cells["Value"], count) for f in words.forms]
    assert sum(bool(c) for c in clean) > 0.85 * len(clean)
    assert {c for word in clean for c in word} & {*"()[]<>/;,~?!%≠|+=.⁵³ 0123456789"} == set()
    assert not any(word.endswith("-") or word.startswith("-") for word in clean)
