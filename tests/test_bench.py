"""The bench's own arithmetic: ratios, what must be reached, what is left out. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as command
from bench import material
from bench.case import PEAK, Answers, Case, Differs, Fact, Rival, Sample, equal_within, find
from bench.gpu.h200 import fitting
from bench.large import cosine_error, written
from bench.layouts import parts
from bench.llama1b import close, planned
from bench.shapes import SHAPES
from bench.table import HEAD, Measured, markdown, rows

MIB = 2**20


def sample(seconds: float, peak: int = 200, before: int = 100, **answer: float) -> Sample:
    return Sample({"all": seconds}, {k: np.float64(v) for k, v in answer.items()}, before * MIB, peak * MIB)


def never() -> Sample:
    raise AssertionError("no side runs in these tests")


def agrees(_: Answers) -> str:
    return "they agree"


def case(**must: float) -> Case:
    musts = {"all" if key == "all" else PEAK: value for key, value in must.items()}
    return Case("ours", never, {"theirs": Rival("them", never, agrees, musts)}, lambda: None)


def measured(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Measured:
    return Measured(list(ours), {"theirs": list(theirs)}, {"theirs": "they agree"})


def test_ratios_are_taken_pair_by_pair_and_their_median_is_shown() -> None:
    # pairs: 4, 1, 3. Of the medians alone (2 and 6) it would be 3 as well, of the means 2.5
    (time, memory) = rows("x", case(), measured([sample(1), sample(4), sample(2)], [sample(4), sample(4), sample(6)]))
    assert time == ["x", "all", "2 s", "4 s", "**3.00** (1.00–4.00)", "", "they agree"]
    assert memory[1:5] == [PEAK, "200 MiB (100 before)", "200 MiB (100 before)", "**1.00** (1.00–1.00)"]


@pytest.mark.parametrize(("least", "said"), [(3, "≥ 3: met"), (3.1, "≥ 3.1: **not met**")])
def test_what_must_be_reached_is_compared_with_the_median_ratio(least: float, said: str) -> None:
    found = rows("x", case(all=least), measured([sample(1), sample(1), sample(1)], [sample(2), sample(3), sample(9)]))
    assert found[0][5] == said
    assert found[1][5] == ""  # nothing was asked of memory


def test_memory_must_be_reached_by_whole_processes() -> None:
    found = rows("x", case(peak=4), measured([sample(1, peak=200)], [sample(1, peak=700)]))
    assert found[1][5] == "≥ 4: **not met**"


def test_memory_over_base_is_a_limit() -> None:
    found = rows("x", replace(case(), over=30), measured([sample(1, peak=131)], [sample(1)]))
    assert found[-1][1:6] == ["memory over base", "31 MiB", "", "", "≤ 30 MiB: **not met**"]


def test_a_rival_that_is_not_here_is_named_with_its_reason() -> None:
    absent = Rival("them", never, agrees, needs=("no_such_package",), room=10**18)
    assert absent.missing == ("no_such_package is not installed", "1000000000 GB of memory are not free")
    one = Case("ours", never, {"theirs": absent}, lambda: None)
    found = rows("x", one, Measured([sample(1)], absent={"theirs": absent.missing}))
    assert [row[1] for row in found] == [
        "all",
        PEAK,
        "theirs: not measured, no_such_package is not installed, 1000000000 GB of memory are not free",
    ]


def test_facts_stand_below_with_their_verdict() -> None:
    def facts(ours: Sequence[Sample], theirs: Mapping[str, Sequence[Sample]]) -> list[Fact]:
        assert (len(ours), len(theirs["theirs"])) == (1, 1)
        return [Fact("error", "1e-7", "2e-3", "≤ 1e-6"), Fact("other", "5", must="≤ 4", met=False), Fact("bare", "5")]

    found = rows("x", replace(case(), facts=facts), measured([sample(1)], [sample(1)]))[2:]
    assert [row[2:6] for row in found] == [
        ["1e-7", "2e-3", "", "≤ 1e-6: met"],
        ["5", "", "", "≤ 4: **not met**"],
        ["5", "", "", ""],
    ]


def test_several_rivals_are_told_apart_and_compared_on_what_both_timed() -> None:
    timed = Sample({"all": 1.0, "wait": 0.5}, {}, MIB, MIB)
    two = replace(case(), rivals={n: Rival(f"the {n}", never, agrees) for n in ("first", "second")}, memory=False)
    found = rows("x", two, Measured([timed], {n: [sample(2)] for n in two.rivals}, dict.fromkeys(two.rivals, "yes")))
    assert [row[1] for row in found] == ["first: all", "second: all"]
    text = markdown({"x": two}, found, "where")
    assert text.startswith("- `x`: ours. *first:* the first. *second:* the second.")
    lines = text.splitlines()
    assert lines[2].count("|") == lines[3].count("|") == len(HEAD) + 1
    assert lines[4].startswith("| `x` | first: all |")
    assert lines[5].startswith("|  | second: all |")  # its name is not repeated
    assert lines[-1] == "where"


def test_every_case_is_found_by_its_name() -> None:
    for name in command.CASES:
        found = find(name)
        assert found.ours
        assert found.rivals
    with pytest.raises(SystemExit):
        command.main(["no_such_case"])


def test_vectors_that_differ_stop_the_bench() -> None:
    a = np.ones((2, 3, 4))
    assert equal_within(1e-5, [({"vectors": a}, {"vectors": a * (1 + 4e-6)})]) == "vectors: 4e-06 of 1e-05"
    with pytest.raises(Differs, match=r"vectors differ by 1\.0e-01 of the largest"):
        equal_within(1e-5, [({"vectors": a * 1.1}, {"vectors": a})])
    with pytest.raises(Differs, match="shapes"):
        equal_within(1e-5, [({"vectors": a}, {"vectors": a[:, :2]})])
    with pytest.raises(Differs):
        equal_within(1e-5, [({"vectors": a * np.nan}, {"vectors": a})])


def test_the_error_of_cosines_is_that_of_the_angle() -> None:
    exact = np.array([[[1.0, 0.0], [0.0, 1.0]]])  # at right angles: cosine 0
    turned = np.array([[[1.0, 0.0], [3.0, 4.0]]])  # cosine 3/5, whatever the length
    assert cosine_error(turned, exact) == pytest.approx(0.6)
    assert cosine_error(7 * exact, exact) == pytest.approx(0.0)
    with pytest.raises(Differs, match="cosines differ"):
        close([({"vectors": exact}, {"vectors": turned})])


@pytest.mark.parametrize(("planned_mib", "met"), [(86, True), (84, False), (114, True), (116, False)])
def test_a_plan_is_good_within_fifteen_percent(planned_mib: int, met: bool) -> None:
    assert planned([sample(1, estimate=planned_mib * MIB)]).met is met


def test_as_many_layers_are_written_as_the_disk_takes() -> None:
    shape = SHAPES["tiny"].reduced(layers=9)
    sizes = [sum(p.nbytes for p in parts(shape.reduced(layers=n), "awq")) for n in range(1, 10)]
    assert fitting(shape, "awq", sizes[4]).layers == 5
    assert fitting(shape, "awq", sizes[4] - 1).layers == 4
    assert fitting(shape, "awq", 0).layers == 1
    assert fitting(shape, "awq", 10**12).layers == 9


def test_a_checkpoint_of_holes_has_true_headers_and_takes_no_room(tmp_path: Path) -> None:
    from safetensors import safe_open

    shape = SHAPES["llama8b"].reduced(layers=1, vocab=1024)
    written(tmp_path / "holes", shape, "int8", holes=("",))
    (file,) = (tmp_path / "holes").glob("*.safetensors")
    stored = {part.name: part for part in parts(shape, "int8")}
    assert file.stat().st_size > sum(part.nbytes for part in stored.values()) > 200 * MIB
    assert file.stat().st_blocks * 512 < MIB
    with safe_open(file, "pt") as found:
        assert {n: tuple(found.get_slice(n).get_shape()) for n in found.keys()} == {  # noqa: SIM118
            n: part.shape for n, part in stored.items()
        }
    written(tmp_path / "holes", shape, "int8")  # it is there: nothing is written anew
    assert file.stat().st_blocks * 512 < MIB


def test_truth_is_the_models_own_forward_in_more_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from bench import large

    monkeypatch.setenv(material.FOLDER, str(tmp_path))
    monkeypatch.setitem(large.LARGE, "small", (replace(SHAPES["tiny"], vocab=1024), "bf16"))
    large.write("small")
    exact = large.truth("small")
    assert np.array_equal(exact, np.load(large.truth_file("small")))
    model = AutoModel.from_pretrained(tmp_path / "small", dtype=torch.float32).eval()
    pieces = AutoTokenizer.from_pretrained(tmp_path / "small")
    for i, text in list(enumerate(material.gloss_texts().texts))[:3]:
        with torch.no_grad():
            states = model(**pieces(text.text, return_tensors="pt"), output_hidden_states=True).hidden_states
        pooled = np.stack([state[0].mean(0).numpy() for state in states])
        assert np.abs(pooled - exact[:, i]).max() < 1e-5 * np.abs(exact[:, i]).max()
        assert np.abs(pooled - exact[:, i]).max() > 0  # more digits, then
