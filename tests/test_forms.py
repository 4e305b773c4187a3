"""Forms: what cleaning leaves of a dataset's cell, graphemes, and edit distances worked by hand."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from pairprobe.errors import ConfigError
from pairprobe.pairs import wordlist
from pairprobe.pairs.forms import Cleaning, distance, distances, graphemes, told

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


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("kʷʰaː", ["kʷʰ", "aː"]),
        ("*h₂ster-", ["h₂", "s", "t", "e", "r"]),
        ("t͡sa", ["t͡s", "a"]),
        ("ˈtʃu", ["t", "ʃ", "u"]),
        ("m̥ˤik", ["m̥ˤ", "i", "k"]),
        ("Hand", ["h", "a", "n", "d"]),
        ("iâň′âi", ["i", "â", "ň′", "â", "i"]),
        ("e\u0301", ["é"]),
        ("पनि", ["प", "नि"]),
        ("", []),
    ],
)
def test_graphemes(form: str, parts: list[str]) -> None:
    assert list(graphemes(form)) == parts


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("hand", "Hand", 0.0),
        ("hound", "Hund", 1 / 5),
        ("kitten", "sitting", 3 / 7),
        ("kʷel", "kel", 1 / 3),  # kʷ is one grapheme, exchanged for k
        ("*mer", "mer", 0.0),
        ("abc", "xyz", 1.0),
        ("é", "e\u0301", 0.0),
    ],
)
def test_edit_distance_worked_by_hand(a: str, b: str, expected: float) -> None:
    assert distance(a, b) == pytest.approx(expected)


def test_a_grid_of_distances_is_the_plain_recursion() -> None:
    def levenshtein(x: tuple[str, ...], y: tuple[str, ...]) -> int:
        row = list(range(len(y) + 1))
        for i, left in enumerate(x, start=1):
            above, row = row, [i]
            for j, right in enumerate(y, start=1):
                row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
        return row[-1]

    rng = random.Random(5)
    words = ["".join(rng.choices(["a", "kʷ", "h₂", "t͡s", "ɨ"], k=rng.randint(1, 7))) for _ in range(15)]
    found = distances(words[:7], words[7:])
    for i, a in enumerate(words[:7]):
        for j, b in enumerate(words[7:]):
            x, y = graphemes(a), graphemes(b)
            assert found[i, j] == pytest.approx(levenshtein(x, y) / max(len(x), len(y)))


@pytest.mark.skipif(not (DATA / "cldf").is_dir(), reason="optional data: $PAIRPROBE_DATA or ../shared/data")
@pytest.mark.parametrize("name", ["iecor", "sagartst"])
def test_of_real_forms_few_are_lost_and_none_stays_an_editors_note(name: str) -> None:
    words = wordlist.read(str(DATA / "cldf" / name))
    count: Counter[str] = Counter()
    clean = [Cleaning().clean(f.cells["Value"], count) for f in words.forms]
    assert sum(bool(c) for c in clean) > 0.85 * len(clean)
    assert {c for word in clean for c in word} & {*"()[]<>/;,~?!%≠|+=.⁵³ 0123456789"} == set()
    assert not any(word.endswith("-") or word.startswith("-") for word in clean)
