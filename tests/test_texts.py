"""Texts: the word's place in its sentence is known by character, whatever stands around it."""

from dataclasses import replace

import numpy as np
import pytest

from pairprobe.errors import TextError
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.records import Pair, PairSet, Text, Texts, Word
from pairprobe.texts import Template


def pair_set(*pairs: tuple[Word, Word], concept: str = "") -> PairSet:
    return PairSet("set", tuple(Pair(f"p{i}", "cognate", a, b, concept) for i, (a, b) in enumerate(pairs)), "here")


def write(pattern: str, word: Word, concept: str = "") -> Text:
    """The text of one word; the pair's other word is the same."""
    return Template(pattern=pattern).write(pair_set((word, word), concept=concept)).texts[0]


def marked(text: Text) -> str:
    return f"{text.text[: text.start]}[{text.text[text.start : text.end]}]{text.text[text.end :]}"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{word}", "[*kʷel-]"),
        ("{word} means {gloss}.", "[*kʷel-] means wheel."),
        ("The {lang} word {word}", "The PIE word [*kʷel-]"),
        ("{gloss} {lang} {word} {gloss} {concept}", "wheel PIE [*kʷel-] wheel WHEEL"),
        ("{gloss}{word}{gloss}", "wheel[*kʷel-]wheel"),  # nothing between
        ("«{word}»", "«[*kʷel-]»"),
        ("*kʷel- *kʷel-: {word}", "*kʷel- *kʷel-: [*kʷel-]"),  # the pattern spells the word out itself
        ("輪 𐎠 {word}", "輪 𐎠 [*kʷel-]"),  # characters, not bytes or UTF-16 units
        ("{{{word}}}", "{[*kʷel-]}"),
        ("{{word}} {word}", "{word} [*kʷel-]"),
    ],
)
def test_the_span_is_the_word(pattern, expected):
    assert marked(write(pattern, Word("*kʷel-", "wheel", "PIE"), concept="WHEEL")) == expected


@pytest.mark.parametrize("gloss", ["mer", "to mer, merry", "{word}", "{{gloss}}", "50 % {x"])
def test_a_gloss_may_hold_the_word_itself_or_braces(gloss):
    text = write("{gloss}: {word}", Word("mer", gloss))
    assert text.text == f"{gloss}: mer"
    assert text.start == len(gloss) + 2
    assert text.end == len(text.text)


def test_a_word_with_braces_is_written_as_it_stands():
    assert marked(write("a {word} b", Word("{word}"))) == "a [{word}] b"


def test_combining_marks_at_the_ends_belong_to_the_word():
    assert marked(write("a{word}b", Word("\u0301x\u0325"))) == "a[\u0301x\u0325]b"


def test_a_language_may_have_its_own_pattern():
    template = Template(pattern="{word}", by_language={"OC": "The Old Chinese {word} is {gloss}."})
    texts = template.write(pair_set((Word("*kʷel-", "wheel", "PIE"), Word("*baʔ", "父", "OC"))))
    assert [marked(t) for t in texts.texts] == ["[*kʷel-]", "The Old Chinese [*baʔ] is 父."]


def test_a_pattern_of_a_language_needs_a_gloss_only_for_its_own_words():
    template = Template(pattern="{word}", by_language={"OC": "{word}: {gloss}"})
    assert len(template.write(pair_set((Word("a", "", "PIE"), Word("b", "y", "OC"))))) == 2


def test_texts_come_in_the_order_of_first_use_and_pairs_point_to_them():
    a, b, c = Word("a"), Word("b"), Word("c")
    texts = Template(name="bare").write(pair_set((a, b), (c, a), (b, c)))
    assert [t.text for t in texts.texts] == ["a", "b", "c"]
    assert texts.a.tolist() == [0, 2, 1]
    assert texts.b.tolist() == [1, 0, 2]
    assert texts.template == "bare"


def test_equal_texts_are_written_once():
    # without the gloss in the pattern, two glosses of one form make one text; with it, two
    pairs = pair_set((Word("mer", "die"), Word("x", "g")), (Word("mer", "dark"), Word("x", "g")))
    assert len(Template(pattern="{word}").write(pairs)) == 2
    assert len(Template(pattern="{word}, {gloss}").write(pairs)) == 3


def test_equal_texts_with_the_word_in_another_place_are_two():
    template = Template(by_language={"left": "{word} x", "right": "x {word}"})
    texts = template.write(pair_set((Word("x", "", "left"), Word("x", "", "right"))))
    assert [(t.text, t.start) for t in texts.texts] == [("x x", 0), ("x x", 2)]


def test_the_two_words_of_a_pair_may_share_a_text():
    texts = Template().write(pair_set((Word("a"), Word("a"))))
    assert len(texts) == 1
    assert texts.a.tolist() == texts.b.tolist() == [0]


def test_who_points_where_cannot_be_changed():
    texts = Template().write(pair_set((Word("a"), Word("b"))))
    with pytest.raises(ValueError, match="read-only"):
        texts.a[0] = 1


def test_the_published_pairs_make_twenty_bare_texts_and_26_with_glosses():
    # 14 pairs, 28 words. Bare, the 8 control words repeat cognate words: 20. With glosses all but *sɯːŋ 星 and
    # *ɕʷɯːjʔ 水 are glossed differently in their control pair: 28 − 2.
    pairs = PieOc(reference=False).read()
    assert len(Template().write(pairs)) == 20
    glossed: Texts = Template(pattern="The {lang} word {word} means {gloss}.").write(pairs)
    assert len(glossed) == 26
    forms = [w.form for p in pairs.pairs for w in (p.a, p.b)]
    index = np.stack([glossed.a, glossed.b], axis=1).ravel()
    assert [glossed.texts[i].text[glossed.texts[i].start : glossed.texts[i].end] for i in index] == forms


# ── patterns that cannot be filled ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "field", "meant"),
    [
        ("{word} {glos}", "glos", "gloss"),
        ("{wrod}", "wrod", "word"),
        ("{word} {language}", "language", "lang"),
        ("{word} {concepts}", "concepts", "concept"),
    ],
)
def test_an_unknown_field_is_answered_with_the_nearest(pattern, field, meant):
    with pytest.raises(TextError) as caught:
        Template(pattern=pattern)
    assert f"there is no field {{{field}}}" in str(caught.value)
    assert "{word}, {gloss}, {lang}, {concept}" in str(caught.value)
    assert f"Did you mean '{meant}'?" in str(caught.value)


@pytest.mark.parametrize("pattern", ["{word} {}", "{word} {0}", "{word} {gloss.upper}", "{word!r}", "{word:>9}"])
def test_python_format_tricks_are_refused(pattern):
    with pytest.raises(TextError, match="allowed"):
        Template(pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "times"), [("", 0), ("word", 0), ("{{word}}", 0), ("{gloss}", 0), ("{word} {word}", 2)]
)
def test_the_word_must_be_marked_exactly_once(pattern, times):
    with pytest.raises(TextError, match=f"marks the word {times} times"):
        Template(pattern=pattern)


@pytest.mark.parametrize("pattern", ["{word", "word}", "{word} {", "{word}}"])
def test_a_lone_brace_is_explained(pattern):
    with pytest.raises(TextError, match=r"Write \{\{ and \}\} for braces"):
        Template(pattern=pattern)


def test_the_patterns_of_languages_are_checked_too():
    with pytest.raises(TextError, match="marks the word 0 times"):
        Template(pattern="{word}", by_language={"OC": "no mark"})


def test_a_column_that_lacks_glosses_is_told_once_with_how_many_and_where():
    pairs = pair_set((Word("a", "x"), Word("b")), (Word("c"), Word("d", "y")), (Word("e", "z"), Word("f")))
    with pytest.raises(TextError) as caught:
        Template(name="gloss", pattern="{word}: {gloss}").write(pairs)
    assert caught.value.problems == (
        "here: column gloss_b empty in 2 of 3 pairs, p0 ('b'), p2 ('f'); template 'gloss' needs it.",
        "here: column gloss_a empty in 1 of 3 pairs, p1 ('c'); template 'gloss' needs it.",
    )
    assert "template=bare" in caught.value.next_step


def test_columns_that_are_not_there_at_all_are_one_line():
    pairs = replace(pair_set(*((Word(f"a{i}"), Word("b")) for i in range(23))), source="/some/folder/mine.csv")
    with pytest.raises(TextError) as caught:
        Template(name="gloss", pattern="The {lang} {word}: {gloss}").write(pairs)
    assert caught.value.problems == (
        "mine.csv: columns lang_a, gloss_a, lang_b, gloss_b missing or empty in all 23 pairs; template 'gloss' needs "
        "them.",
    )


def test_of_many_rows_that_lack_something_three_are_named():
    pairs = pair_set((Word("x", "x"), Word("y", "y")), *((Word(f"a{i}"), Word("b", "x")) for i in range(4)))
    with pytest.raises(TextError) as caught:
        Template(pattern="{word}: {gloss}").write(pairs)
    assert caught.value.problems == (
        "here: column gloss_a empty in 4 of 5 pairs, p1 ('a0'), p2 ('a1'), p3 ('a2'), …; template 'pattern' needs it.",
    )


@pytest.mark.parametrize("field", ["lang", "concept"])
def test_missing_languages_and_concepts_are_told_as_glosses_are(field):
    with pytest.raises(TextError, match=f"columns {field}_a, {field}_b missing or empty in all 1 pairs"):
        write(f"{{word}} {{{field}}}", Word("a", "gloss"))


def test_the_words_of_a_reference_come_last_once_each_and_belong_to_no_pair():
    words = tuple(Word(form, lang="L", concept="C") for form in ("tree", "stone", "tree"))
    pairs = PairSet("s", (Pair("p", "cognate", Word("a"), Word("b")),), "here", reference=words)
    texts = Template(pattern="{word}").write(pairs)
    assert [t.text for t in texts.texts] == ["a", "b", "tree", "stone"]
    assert texts.reference.tolist() == [2, 3]
    assert (texts.a.tolist(), texts.b.tolist()) == ([0], [1])


def test_a_reference_word_without_its_gloss_is_named():
    pairs = PairSet(
        "s", (Pair("p", "cognate", Word("a", "g"), Word("b", "g")),), "here", reference=(Word("sky", "g"), Word("tree"))
    )
    with pytest.raises(TextError, match="reference vocabulary: column gloss empty in 1 of 2 words, 'tree'; "):
        Template(pattern="{word} {gloss}").write(pairs)


def meaning(concepts: list[tuple[str, str]], group: str) -> tuple[Pair, ...]:
    return tuple(
        Pair(f"{group}{i}", group, Word(f"a{i}", "g", "A", x), Word(f"b{i}", "g", "B", y))
        for i, (x, y) in enumerate(concepts)
    )


GLOSSED = Template("glossed", "{word} means {gloss}")


@pytest.mark.parametrize(
    ("template", "control", "controls", "said"),
    [
        (GLOSSED, "shuffled", [("sun", "dog"), ("dog", "sun")], "100 % of the pairs against 0 %"),
        (GLOSSED, "same_concept", [("sun", "sun"), ("dog", "dog")], ""),
        (GLOSSED, "unrelated", [("sun", "sun"), ("dog", "dog")], ""),  # the same meaning in both groups
        (Template(), "shuffled", [("sun", "dog"), ("dog", "sun")], ""),
        (
            Template("by", "{word}", {"A": "{word}: {gloss}"}),
            "shuffled",
            [("sun", "dog"), ("dog", "sun")],
            "template 'by'",
        ),
        (GLOSSED, "shuffled", [("", ""), ("", "")], "shuffled pairs do not: that alone"),  # nobody says what they mean
    ],
)
def test_a_template_that_names_meanings_is_told_beside_the_verdict(template, control, controls, said):
    cognates = [("sun", "sun"), ("dog", "dog")] if controls[0][0] else [("", ""), ("", "")]
    pairs = PairSet("some", meaning(cognates, "cognate") + meaning(controls, control), "tests")
    found = template.beware(pairs, control)
    assert bool(found) == bool(said)
    assert said in "".join(found)
