"""Pairs from CLDF wordlists: small ones written here, every way they can be broken, and (optional) the real ones."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from cldf_files import Rows, small, write

from pairprobe import archive
from pairprobe.errors import ConfigError, PairsError
from pairprobe.pairs.cldf import Cldf
from pairprobe.pairs.forms import Cleaning
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.pairs.pie_oc_modern import PieOcModern
from pairprobe.pairs.table import Table
from pairprobe.pairs.two_cldf import TwoCldf
from pairprobe.pairs.wordlist import read
from pairprobe.records import PairSet
from pairprobe.texts import Template

DATA = Path(os.environ.get("PAIRPROBE_DATA") or Path(__file__).parents[2] / "shared" / "data") / "cldf"
real = pytest.mark.skipif(not DATA.is_dir(), reason="optional data: $PAIRPROBE_DATA or ../shared/data")
FEW = {"fewest": 3, "reference": 0, "controls": ["shuffled"]}


def pairs_of(folder: Path, **settings: object) -> PairSet:
    return Cldf(**{"path": str(folder), "side_a": ["L1"], "side_b": ["R1"], **FEW, **settings}).read()  # type: ignore[arg-type]


def fails(folder: Path, **settings: object) -> str:
    with pytest.raises(PairsError) as error:
        pairs_of(folder, **settings)
    return str(error.value)


@pytest.fixture
def tables() -> dict[str, Rows]:
    return small()


# ── what is a pair ───────────────────────────────────────────────────────────────────────────────────────


def test_cognates_are_the_datasets_own(tmp_path, tables) -> None:
    pairs = pairs_of(write(tmp_path / "w", tables))
    found = {(p.a.form, p.b.form, p.concept, p.cogset) for p in pairs.pairs if p.group == "cognate"}
    forms = {r["ID"]: r["Form"] for r in tables["FormTable"]}
    # by the definition of the helper: two meanings of three
    assert found == {(forms[f"L1-{c}"], forms[f"R1-{c}"], f"meaning {c}", str(c)) for c in range(24) if c % 3 < 2}
    assert all((p.a.lang, p.b.lang, p.a.gloss) == ("Lefton", "Righton", p.a.concept) for p in pairs.pairs[:16])
    assert pairs.citation == "Somebody 2020"


@pytest.mark.parametrize("names", [["L1"], ["Lefton"], ["left1234"], ["lefton"]])
def test_a_language_has_many_names(tmp_path, tables, names) -> None:
    pairs = pairs_of(write(tmp_path / "w", tables), side_a=names)
    assert {p.a.lang for p in pairs.pairs} == {"Lefton"}


def test_a_clade_stands_for_its_languages_and_some_can_be_left_out(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    assert "Lefton, Leftish · Righton" in pairs_of(folder, side_a=["Left"]).about["sides"]
    assert "Lefton · Righton" in pairs_of(folder, side_a=["Left"], without=["Leftish"]).about["sides"]


def test_columns_are_found_by_their_terms_not_their_names(tmp_path, tables) -> None:
    plain = pairs_of(write(tmp_path / "w", tables))
    renamed = {
        "FormTable": [{"key": r["ID"], "doculect": r["Language_ID"], "meaning": r["Parameter_ID"], "ipa": r["Form"]}
                      for r in tables["FormTable"]],
        "LanguageTable": tables["LanguageTable"], "ParameterTable": tables["ParameterTable"],
        "CognateTable": [{"n": r["ID"], "word": r["Form_ID"], "class": r["Cognateset_ID"]}
                         for r in tables["CognateTable"]],
    }  # fmt: skip
    folder = write(
        tmp_path / "other" / "w",
        renamed,
        key="id",
        doculect="languageReference",
        n="id",
        meaning="parameterReference",
        ipa="form",
        word="formReference",
        **{"class": "cognatesetReference"},
    )
    assert pairs_of(folder).sha256 == plain.sha256


def test_borrowed_words_stay_out_however_they_are_marked(tmp_path, tables) -> None:
    tables["FormTable"][0]["Loan"] = "true"  # meaning 0
    tables["BorrowingTable"] = [{"ID": "b", "Target_Form_ID": "R1-1", "Source_Form_ID": ""}]
    tables["CognatesetTable"] = [{"ID": s} for s in dict.fromkeys(r["Cognateset_ID"] for r in tables["CognateTable"])]
    tables["loans"] = [{"Cognateset_ID": "3", "SourceCognateset_ID": ""}]  # IE-CoR's own table
    folder = write(tmp_path / "w", tables)
    without = {p.concept for p in pairs_of(folder).pairs if p.group == "cognate"}
    assert {p.concept for p in pairs_of(folder, loans=True).pairs if p.group == "cognate"} - without == {
        "meaning 0", "meaning 1", "meaning 3",
    }  # fmt: skip
    assert "borrowed 4" in pairs_of(folder).about["forms"]  # two words of set 3


def test_doubtful_and_unjudged_words_stay_out(tmp_path, tables) -> None:
    next(r for r in tables["CognateTable"] if r["Form_ID"] == "L1-0")["Doubt"] = "true"
    for row in tables["FormTable"]:
        row["Cognacy"] = "0" if row["Parameter_ID"] == "p1" else ""  # LingPy's sign for: nobody judged it
    folder = write(tmp_path / "w", tables)
    meant = {p.concept for p in pairs_of(folder).pairs if p.group == "cognate"}
    assert "meaning 0" not in meant
    assert "meaning 1" not in meant
    assert "meaning 0" in {p.concept for p in pairs_of(folder, doubtful=True).pairs}


def test_a_set_that_goes_back_to_a_language_of_another_clade_is_borrowed_there(tmp_path, tables) -> None:
    # as English round, whose set has an Old French root, although no table calls it a loan
    for row in tables["LanguageTable"]:
        row["Family"] = "All"
    tables["CognatesetTable"] = [
        {"ID": s, "Root_Language": {"0": "[Leftish]", "1": "Proto-All"}.get(s, "")}
        for s in dict.fromkeys(r["Cognateset_ID"] for r in tables["CognateTable"])
    ]
    words = read(str(write(tmp_path / "w", tables)))
    assert [f.id for f in words.forms if f.loan] == ["R1-0"]  # L1-0 is of Leftish's own clade


@pytest.mark.parametrize("link", ["superset", "proposed", "root", "loan", "loan's word", "cognacy"])
def test_same_concept_controls_shun_every_link_between_sets(tmp_path, tables, link) -> None:
    # L1 and R1 have sets of their own in meanings 2, 5, 8, …; in meaning 2 these are tied to each other
    sets = {s: {"ID": s, "supersetid": "", "proposedAsCognateTo_pk": "", "Root_Form": "", "Root_Language": ""}
            for s in dict.fromkeys(r["Cognateset_ID"] for r in tables["CognateTable"])}  # fmt: skip
    one, two = sets["2L1"], sets["2R1"]
    free = {p.concept for p in pairs_of(write(tmp_path / "free", {**tables, "CognatesetTable": [*sets.values()]}),
                                        controls=["same_concept"]).pairs if p.group == "same_concept"}  # fmt: skip
    if link == "superset":
        one["supersetid"] = two["supersetid"] = "7"
    elif link == "proposed":
        one["proposedAsCognateTo_pk"] = "2R1"
    elif link == "root":
        one.update(Root_Form="*ḱer-", Root_Language="Proto")
        two.update(Root_Form="?*(s)k̑er-, *kor-", Root_Language="Proto")
    elif link == "loan":
        tables["loans"] = [{"Cognateset_ID": "2L1", "SourceCognateset_ID": "2R1"}]
    elif link == "loan's word":
        # round and tondo: the loan of another set goes back to 2L1's root as its word, and to 2R1 as its set
        one.update(Root_Form="ront, reond", Root_Language="Old Righton")
        tables["loans"] = [
            {"Cognateset_ID": "3", "SourceCognateset_ID": "2R1", "Source_languoid": "Old Righton?",
             "Source_form": "reond"}
        ]  # fmt: skip
    else:
        for row in tables["FormTable"]:
            row["Cognacy"] = "99" if row["ID"] in ("L1-2", "R1-2") else ""
    tables["CognatesetTable"] = [*sets.values()]
    tied = pairs_of(write(tmp_path / "tied", tables), controls=["same_concept"], loans=True)
    assert "meaning 2" in free
    assert {p.concept for p in tied.pairs if p.group == "same_concept"} == free - {"meaning 2"}


def test_one_form_with_two_meanings_is_no_unrelated_pair(tmp_path, tables) -> None:
    # as Swedish ben, 'bone' and 'leg': L2 uses one form for meanings 0 and 1, so their sets may be one word
    first, second = (next(r for r in tables["FormTable"] if r["ID"] == f"L2-{c}") for c in (0, 1))
    second["Form"] = second["Value"] = first["Form"]
    words = read(str(write(tmp_path / "w", tables)))
    from pairprobe.pairs.sides import _kin

    kin = _kin(words)
    assert kin["0L2"] & kin["1L2"]
    assert not kin["0L2"] & kin["3L2"]


def test_forms_come_from_the_column_asked_for(tmp_path, tables) -> None:
    for row in tables["FormTable"]:
        row["native_script"] = "" if row["Language_ID"] == "L1" else row["Form"].upper()
    folder = write(tmp_path / "w", tables)
    assert pairs_of(folder, form=["native_script", "form"]).pairs[0].b.form.isupper()
    assert pairs_of(folder, form=["native_script", "form"]).pairs[0].a.form.islower()
    assert "no column of the forms of w. Did you mean 'native_script'?" in fails(folder, form=["nativescript"])


def test_one_pool_for_both_sides(tmp_path, tables) -> None:
    pairs = pairs_of(write(tmp_path / "w", tables), side_a=["Left", "Right"], side_b=[])
    assert pairs.sizes["cognate"] == 16
    assert all(p.a.lang != p.b.lang for p in pairs.pairs)


def test_chosen_concepts_by_id_name_or_concepticon(tmp_path, tables) -> None:
    chosen = ["p0", "meaning 1", "103", "p4", "p6"]
    pairs = pairs_of(write(tmp_path / "w", tables), concepts=chosen)
    assert {p.concept for p in pairs.pairs if p.group == "cognate"} == {f"meaning {c}" for c in (0, 1, 3, 4, 6)}


def test_a_zipped_table_is_read(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    plain = pairs_of(folder)
    with zipfile.ZipFile(folder / "forms.csv.zip", "w") as archive_:
        archive_.write(folder / "forms.csv", "forms.csv")
    (folder / "forms.csv").unlink()
    assert pairs_of(folder).sha256 == plain.sha256


def test_a_seed_makes_the_set_identical_and_the_order_of_rows_does_not_matter(tmp_path, tables) -> None:
    # two words of L1 in every meaning, so that there is something to choose
    for row in [r for r in tables["FormTable"] if r["Language_ID"] == "L1"]:
        tables["FormTable"].append({**row, "ID": row["ID"] + "b", "Form": row["Form"] + "k"})
        own = next(r for r in tables["CognateTable"] if r["Form_ID"] == row["ID"])
        tables["CognateTable"].append({**own, "ID": row["ID"] + "b", "Form_ID": row["ID"] + "b"})
    settings = {"controls": ["shuffled", "form_matched", "unrelated"], "reference": 20}
    first = pairs_of(write(tmp_path / "a" / "w", tables), **settings)
    upside_down = {name: rows[::-1] for name, rows in tables.items()}
    again = pairs_of(write(tmp_path / "b" / "w", upside_down), **settings)
    assert (first.pairs, first.reference, first.balance) == (again.pairs, again.reference, again.balance)
    assert first.sha256 == again.sha256
    assert pairs_of(tmp_path / "a" / "w", **settings, seed=1).sha256 != first.sha256


def test_the_logged_table_is_itself_a_table_of_pairs(tmp_path, tables) -> None:
    pairs = pairs_of(write(tmp_path / "w", tables), controls=["shuffled", "form_matched"])
    rows = archive.pair_rows(pairs)
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    again = Table(path=str(tmp_path / "pairs.csv")).read()
    assert again.pairs == pairs.pairs
    assert again.sha256 == pairs.sha256


def test_glosses_and_languages_serve_the_templates(tmp_path, tables) -> None:
    pairs = pairs_of(write(tmp_path / "w", tables), reference=10, controls=["shuffled"])
    texts = Template("gloss", "The {lang} word {word} means {gloss}.").write(pairs)
    assert len(texts.reference) == len(pairs.reference) > 0


# ── what can be wrong with it ────────────────────────────────────────────────────────────────────────────


def test_no_cognate_sets(tmp_path, tables) -> None:
    tables["CognateTable"] = []
    assert "no form is in a cognate set" in fails(write(tmp_path / "w", tables))
    del tables["CognateTable"]
    told = fails(write(tmp_path / "v", tables))
    assert "no CognateTable, which cognate sets need" in told
    assert "forms.csv, languages.csv, parameters.csv" in told


@pytest.mark.parametrize(
    ("table", "column", "told"),
    [
        ("FormTable", "Language_ID", "forms name language ids that are not there: 'L9'"),
        ("FormTable", "Parameter_ID", "forms name concept ids that are not there: 'L9'"),
        ("CognateTable", "Form_ID", "cognates name form ids that are not there: 'L9'"),
    ],
)
def test_dangling_ids_are_named(tmp_path, tables, table, column, told) -> None:
    tables[table][3][column] = "L9"
    assert told in fails(write(tmp_path / "w", tables))


def test_a_dangling_cognate_set_is_named(tmp_path, tables) -> None:
    tables["CognatesetTable"] = [{"ID": s} for s in {r["Cognateset_ID"] for r in tables["CognateTable"]} - {"1"}]
    assert "cognates name cognate set ids that are not there: '1'" in fails(write(tmp_path / "w", tables))


def test_a_form_id_twice(tmp_path, tables) -> None:
    tables["FormTable"].append(dict(tables["FormTable"][0]))
    assert "1 form ids occur twice, for example 'L1-0'" in fails(write(tmp_path / "w", tables))


def test_mixed_encodings_name_file_and_line(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    lines = (folder / "forms.csv").read_bytes().split(b"\n")
    lines[4] += "ä".encode("latin-1")
    (folder / "forms.csv").write_bytes(b"\n".join(lines))
    assert "forms.csv: line 5 is not utf-8 (byte 0xe4)" in fails(folder)


def test_a_missing_column_is_named(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    text = (folder / "forms.csv").read_text(encoding="utf-8")
    (folder / "forms.csv").write_text(text.replace("Language_ID", "Lang", 1), encoding="utf-8")
    assert "forms.csv: no column Language_ID, which the metadata names" in fails(folder)
    metadata = json.loads((folder / "cldf-metadata.json").read_text(encoding="utf-8"))
    del metadata["tables"][0]["tableSchema"]["columns"][1]["propertyUrl"]
    (folder / "cldf-metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    assert "FormTable has no column of the ontology's term languageReference" in fails(folder)


def test_a_missing_file_a_ragged_line_and_broken_metadata(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    with (folder / "forms.csv").open("a", encoding="utf-8") as out:
        out.write("L1-x,L1\n")
    assert "forms.csv: line 74 has 2 cells under 6 columns" in fails(folder)
    (folder / "forms.csv").unlink()
    assert "the metadata names this table, which cannot be read" in fails(folder)
    (folder / "cldf-metadata.json").write_text("{", encoding="utf-8")
    assert "not readable as CLDF metadata" in fails(folder)


def test_what_is_no_cldf_folder(tmp_path) -> None:
    assert f"pairs.path={tmp_path / 'none'} is not there" in fails(tmp_path / "none")
    (tmp_path / "words.csv").write_text("a,b\n", encoding="utf-8")
    told = fails(tmp_path)
    assert "is not a CLDF dataset: no *metadata.json in it" in told
    assert "words.csv" in told


def test_where_a_named_set_can_be_had_is_said(tmp_path) -> None:
    told = fails(tmp_path / "cldf" / "iecor", get="git clone https://example.org/iecor")
    assert "Get it: git clone https://example.org/iecor." in told
    assert "PAIRPROBE_DATA=… with cldf/iecor in it" in told


def test_one_language_only(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    assert "both sides are one language, Righton" in fails(folder, side_a=["R1"])
    assert "both sides are one language, Lefton" in fails(folder, side_a=["Left"], side_b=[], without=["L2"])
    assert "no language is left after pairs.without" in fails(folder, without=["Left"])


def test_an_unknown_language_or_concept_names_the_nearest(tmp_path, tables) -> None:
    folder = write(tmp_path / "w", tables)
    told = fails(folder, side_a=["Leftn"])
    assert "pairs.side_a names 'Leftn', which is neither a language nor a clade of w. Did you mean 'Left" in told
    assert "Its clades: Left, Right." in told
    assert "Did you mean 'meaning 1'?" in fails(folder, concepts=["meanin 1"])
    assert "Did you mean 'Name'?" in fails(folder, language_name="Nam")


def test_too_few_concepts_say_how_many(tmp_path, tables) -> None:
    told = fails(write(tmp_path / "w", tables), fewest=20)
    assert "16 cognate pairs can be chosen from the 24 meanings" in told


# ── two datasets ─────────────────────────────────────────────────────────────────────────────────────────


def two(tmp_path: Path, **settings: object) -> PairSet:
    first = small(30)
    first["CognatesetTable"] = [
        {"ID": s, "Root_Form": f"*{'ptk'[i % 3]}{'aeiou'[i % 5]}{'rln'[i % 7 % 3]}{'mnpts'[i // 5 % 5]}-",
         "Root_Language": "Proto"}
        for i, s in enumerate(dict.fromkeys(r["Cognateset_ID"] for r in first["CognateTable"]))
    ]  # fmt: skip
    second = small(40)
    for c, row in enumerate(second["ParameterTable"]):
        row.update(Name=f"other {c}", Concepticon_ID=str(110 + c))  # 110 … 129 are in both
    a, b = write(tmp_path / "a", first), write(tmp_path / "b", second)
    return TwoCldf(**{"path": str(a), "path_b": str(b), "side_b": ["R1"], "root_a": "Proto", **FEW, **settings}).read()  # type: ignore[arg-type]


def test_two_datasets_meet_by_concepticon(tmp_path) -> None:
    pairs = two(tmp_path)
    cognates = [p for p in pairs.pairs if p.group == "cognate"]
    assert {p.concept for p in cognates} <= {f"meaning {c}" for c in range(10, 30)}
    assert len(cognates) > 12
    assert {(p.a.lang, p.b.lang) for p in cognates} == {("Proto", "Righton")}
    assert all(p.a.form.startswith("*") and not p.cogset for p in cognates)
    assert "not ancestry" in pairs.about["hypothesis"]


def test_the_root_in_most_languages_stands_for_a_meaning(tmp_path) -> None:
    pairs = two(tmp_path)
    # in meaning 10 the set '10' lives on in L1 and R1, '10L2' in one language
    words = read(str(tmp_path / "a"))
    chosen = next(p for p in pairs.pairs if p.concept == "meaning 10")
    assert chosen.a.form == words.sets["10"].root.rstrip("-")


def test_words_of_languages_instead_of_roots(tmp_path) -> None:
    assert {p.a.lang for p in two(tmp_path, root_a="", side_a=["L1"]).pairs} == {"Lefton"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"controls": ["same_concept"]}, "same_concept, which two datasets cannot give"),
        ({"side_a": ["L1"]}, "not both"),
        ({"root_a": "Protto"}, "Did you mean 'Proto'?"),
        ({"side_b": ["R2"]}, "pairs.side_b names 'R2'"),
    ],
)
def test_what_two_datasets_cannot_do(tmp_path, settings, told) -> None:
    with pytest.raises((PairsError, ConfigError)) as error:
        two(tmp_path, **settings)
    assert told in str(error.value)


# ── the published pairs ──────────────────────────────────────────────────────────────────────────────────


def test_the_published_pairs_have_a_reference_of_their_own() -> None:
    pairs = PieOc().read()
    assert {lang: sum(w.lang == lang for w in pairs.reference) for lang in ("Proto-Indo-European", "Old Chinese")} == {
        "Proto-Indo-European": 40, "Old Chinese": 34,
    }  # fmt: skip
    assert all(w.gloss and w.concept for w in pairs.reference)
    assert {w.form for w in pairs.reference} & {w.form for p in pairs.pairs for w in (p.a, p.b)} == set()
    characters = {c for p in pairs.pairs for c in p.b.gloss}
    assert {c for w in pairs.reference if w.lang == "Old Chinese" for c in w.gloss} & characters == set()
    assert PieOc(reference=False).read().sha256 == pairs.sha256
    assert PieOc(reference=False).read().reference == ()


def test_modern_words_mirror_the_published_pairs_and_say_what_they_measure() -> None:
    old, new = PieOc().read(), PieOcModern().read()
    assert [(p.id, p.group) for p in old.pairs] == [(p.id, p.group) for p in new.pairs]
    assert new.about["measures"].startswith("translation, not ancestry")
    # who is exchanged for whom is the same
    partner = {p.a.form: p.b.form for p in old.pairs if p.group == "cognate"}
    index = {form: i for i, form in enumerate(partner)}
    first = {p.a.form: i for i, p in enumerate(new.pairs[:10])}
    for x, y in zip(old.pairs[10:], new.pairs[10:], strict=True):
        assert index[x.a.form] == first[y.a.form]
        assert list(partner.values()).index(x.b.form) == [p.b.form for p in new.pairs[:10]].index(y.b.form)


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────


@real
def test_iecor_is_read_in_seconds_and_known_cognates_are_in_it() -> None:
    began = time.perf_counter()
    pairs = Cldf(
        path=str(DATA / "iecor"), name="germanic", side_a=["English"], side_b=["German"], reference=0,
        controls=["form_matched", "shuffled", "same_concept", "unrelated"],
    ).read()  # fmt: skip
    assert time.perf_counter() - began < 20  # about 1 s with nothing else to do
    cognates = {(p.a.form, p.b.form) for p in pairs.pairs if p.group == "cognate"}
    assert {("water", "Wasser"), ("two", "zwei"), ("foot", "Fuß"), ("hand", "Hand")} <= cognates
    same = {(p.a.form, p.b.form) for p in pairs.pairs if p.group == "same_concept"}
    assert {("bird", "Vogel"), ("dog", "Hund")} <= same
    words = {w.form for p in pairs.pairs for w in (p.a, p.b)}
    assert not words & {"mountain", "river", "fruit"}  # from French
    edit = next(b for b in pairs.balance if (b.control, b.covariate) == ("form_matched", "edit distance"))
    assert edit.before is not None
    assert edit.after is not None
    assert abs(edit.after) < 0.3 < 1.5 < abs(edit.before)


@real
def test_old_chinese_cognates_are_those_of_the_database() -> None:
    pairs = Cldf(
        path=str(DATA / "sagartst"), name="st", side_a=["OldChinese"], side_b=["OldTibetan"], form=["value"],
        controls=["shuffled"], language_name="Name_in_Text", clean=Cleaning(boundaries="keep", asterisk="drop"),
    ).read()  # fmt: skip
    cognates = {(p.a.form, p.b.form) for p in pairs.pairs if p.group == "cognate"}
    assert {("s.rum", "gsum"), ("r.ŋa", "ɲa")} & cognates
    assert {(p.a.lang, p.b.lang) for p in pairs.pairs} == {("Old Chinese", "Old Tibetan")}


@real
def test_roots_meet_old_chinese() -> None:
    pairs = TwoCldf(
        path=str(DATA / "iecor"), path_b=str(DATA / "sagartst"), root_a="Proto-Indo-European", side_b=["OldChinese"],
        form_b=["value"], language_name_b="Name_in_Text",
    ).read()  # fmt: skip
    assert pairs.sizes["cognate"] > 60
    assert "*k̑u̯ón" in {p.a.form for p in pairs.pairs} or "*pénkʷe" in {p.a.form for p in pairs.pairs}


@real
def test_the_real_data_may_lie_in_a_clone(tmp_path) -> None:
    # as lexibank has it: the dataset in the folder cldf of the repository
    shutil.copytree(DATA / "sagartst", tmp_path / "sagartst" / "cldf")
    assert read(str(tmp_path / "sagartst")).name == read(str(DATA / "sagartst")).name
