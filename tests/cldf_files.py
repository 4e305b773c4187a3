"""Small CLDF wordlists on disk, for tests."""

import csv
import json
from pathlib import Path
from typing import Any

TERMS = "http://cldf.clld.org/v1.0/terms.rdf#"
Rows = list[dict[str, str]]
#: Column → ontology term, by table; columns that are in no list have none, as in real datasets.
KNOWN = {
    "FormTable": {"ID": "id", "Language_ID": "languageReference", "Parameter_ID": "parameterReference",
                  "Form": "form", "Value": "value"},
    "LanguageTable": {"ID": "id", "Name": "name", "Glottocode": "glottocode"},
    "ParameterTable": {"ID": "id", "Name": "name", "Concepticon_ID": "concepticonReference"},
    "CognateTable": {"ID": "id", "Form_ID": "formReference", "Cognateset_ID": "cognatesetReference"},
    "CognatesetTable": {"ID": "id"},
    "BorrowingTable": {"ID": "id", "Target_Form_ID": "targetFormReference", "Source_Form_ID": "sourceFormReference"},
}  # fmt: skip
FILES = {
    "FormTable": "forms.csv", "LanguageTable": "languages.csv", "ParameterTable": "parameters.csv",
    "CognateTable": "cognates.csv", "CognatesetTable": "cognatesets.csv", "BorrowingTable": "borrowings.csv",
}  # fmt: skip


def write(folder: Path, tables: dict[str, Rows], **named: str) -> Path:
    """Tables by their ontology name (any other name becomes a table without a term). named: column → term instead."""
    folder.mkdir(parents=True, exist_ok=True)
    described: list[dict[str, Any]] = []
    for table, rows in tables.items():
        columns = list(dict.fromkeys(k for row in rows for k in row)) or list(KNOWN[table])
        file = FILES.get(table, f"{table}.csv")
        with (folder / file).open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        terms = {**KNOWN.get(table, {}), **named}
        described.append(
            {
                "url": file,
                **({"dc:conformsTo": f"{TERMS}{table}"} if table in KNOWN else {}),
                "tableSchema": {
                    "columns": [
                        {"name": c, **({"propertyUrl": TERMS + terms[c]} if terms.get(c) else {}), "datatype": "string"}
                        for c in columns
                    ]
                },
            }
        )
    metadata = {
        "@context": ["http://www.w3.org/ns/csvw", {"@language": "en"}],
        "dc:conformsTo": f"{TERMS}Wordlist",
        "rdf:ID": folder.name,
        "dc:bibliographicCitation": "Somebody 2020",
        "tables": described,
    }
    (folder / "cldf-metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


def small(concepts: int = 24, **more: Rows) -> dict[str, Rows]:
    """Three languages, L1 and L2 of clade Left and R1 of Right. In meanings 0, 1, 3, 4, 6, … (two of three) L1 and R1
    share a set; in the others none do. L2 has a set of its own everywhere. All words differ."""
    letters = "ptkbdgmnszlr"
    forms, cognates = [], []
    for c in range(concepts):
        stem = letters[c % 12] + "aeiou"[c // 12 % 5] + letters[(5 * c + 1) % 12]
        for language, ending in (("L1", "a"), ("L2", "imo"), ("R1", "u")):
            word = (stem if language != "L2" else stem[::-1]) + ending
            own = f"{c}" if language != "L2" and c % 3 < 2 else f"{c}{language}"
            forms.append({"ID": f"{language}-{c}", "Language_ID": language, "Parameter_ID": f"p{c}", "Form": word,
                          "Value": word, "Loan": "false"})  # fmt: skip
            cognates.append({"ID": f"{language}-{c}", "Form_ID": f"{language}-{c}", "Cognateset_ID": own,
                             "Doubt": "false"})  # fmt: skip
    languages = [
        {"ID": "L1", "Name": "Lefton", "Glottocode": "left1234", "SubGroup": "Left"},
        {"ID": "L2", "Name": "Leftish", "Glottocode": "left1235", "SubGroup": "Left"},
        {"ID": "R1", "Name": "Righton", "Glottocode": "righ1234", "SubGroup": "Right"},
    ]
    parameters = [{"ID": f"p{c}", "Name": f"meaning {c}", "Concepticon_ID": str(100 + c)} for c in range(concepts)]
    return {"FormTable": forms, "LanguageTable": languages, "ParameterTable": parameters, "CognateTable": cognates,
            **more}  # fmt: skip
