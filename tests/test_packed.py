"""Layers run on packed rows: in every family the states of the padded batch, and never where tokens mix otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import edit_config, tokens_of, write
from test_streamed import CPU, FAMILIES, far, observed

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.executions import packed, streamed
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.packed import KNOWN, Pack, Unlike, looks_back
from pairprobe.executions.products import Workshop
from pairprobe.executions.resident import Resident
from pairprobe.executions.sequence import Call
from pairprobe.executions.sharing import Taken, rows
from pairprobe.executions.stream import taken_apart
from pairprobe.rooms import Workload

PACKED = [k for k in FAMILIES if k not in ("gemma2", "falcon", "mamba", "distilbert", "deberta", "minilm")]
ONE = replace(CPU, batch_tokens=4096)  # all texts in one batch


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def opened(written: Callable[..., Path]) -> Callable[[str], Checkpoint]:
    return functools.cache(lambda kind: Checkpoint.open(written(kind)))


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[Pack]:
    """Every pack that a layer was run on in this test."""
    made: list[Pack] = []

    class Watched(Pack):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            made.append(self)

    monkeypatch.setattr(packed, "Pack", Watched)
    return made


#: Adds half of the token before to each: nothing that attention would know of.
SHIFTED = """
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

class ShiftedLayer(LlamaDecoderLayer):
    def forward(self, hidden_states, **more):
        before = torch.nn.functional.pad(hidden_states, (0, 0, 1, 0))[:, :-1]
        return super().forward(hidden_states + 0.5 * before, **more)

class ShiftedModel(LlamaModel):
    def __init__(self, config):
        super().__init__(config)
        self.layers = torch.nn.ModuleList([ShiftedLayer(config, i) for i in range(config.num_hidden_layers)])
        self.post_init()
"""


# ── families ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("execution", [CPU, ONE], ids=["several", "one"])
def test_states_are_those_of_the_padded_batch(opened, kind, execution, packs, monkeypatch):
    checkpoint = opened(kind)
    tokens = tokens_of(checkpoint)
    found = observed(execution, checkpoint, tokens)
    assert packs
    used = [p for p in packs if p.attended]
    assert all(p.attended == 1 for p in used)
    assert len(used) >= checkpoint.layers
    monkeypatch.setattr(packed, "KNOWN", ())
    count = len(packs)
    padded = observed(execution, checkpoint, tokens)
    assert len(packs) == count
    assert far(found, padded) <= 1e-6


@pytest.mark.parametrize("kind", sorted({*FAMILIES} - {*PACKED, "minilm"}))
def test_what_is_not_known_to_mix_tokens_in_attention_alone_is_run_on_the_batch(opened, kind, packs):
    checkpoint = opened(kind)
    observed(replace(CPU, attention=FAMILIES[kind]), checkpoint, tokens_of(checkpoint))
    assert not packs


def test_eager_attention_is_run_on_the_batch(opened, packs):
    checkpoint = opened("llama")
    observed(replace(CPU, attention="eager"), checkpoint, tokens_of(checkpoint))
    assert not packs


def test_a_checkpoints_own_layers_are_run_on_the_batch_whatever_type_they_say_they_are(tmp_path, packs):
    folder = write("llama", tmp_path / "shifted")
    (folder / "modeling_shifted.py").write_text(SHIFTED)
    edit_config(folder, auto_map={"AutoModel": "modeling_shifted.ShiftedModel"})
    checkpoint = Checkpoint.open(folder, trust_remote_code=True)
    tokens = tokens_of(checkpoint)
    found = observed(CPU, checkpoint, tokens)
    assert not packs
    assert far(found, observed(Resident(device="cpu", dtype="float32"), checkpoint, tokens)) <= 1e-5


def test_feed_forward_in_chunks_of_tokens_is_run_on_the_batch(tmp_path):
    checkpoint = Checkpoint.open(write("bert", tmp_path / "bert", chunk_size_feed_forward=2))
    assert not taken_apart(checkpoint, "float32", "sdpa").packs


def test_every_architecture_that_is_known_is_proved_above(opened):
    types = {opened(kind).text_config["model_type"].removesuffix("_text").replace("-", "_") for kind in PACKED}
    assert types == {*KNOWN}


@pytest.mark.parametrize("kind", PACKED)
def test_weights_are_used_in_the_order_they_are_read_in(opened, kind, monkeypatch):
    feeders = []

    class Watched(Feeder):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            feeders.append((self, more["room"]))

    monkeypatch.setattr(streamed, "Feeder", Watched)
    checkpoint = opened(kind)
    observed(ONE, checkpoint, tokens_of(checkpoint))
    ((read, room),) = feeders
    assert read.beside == 0
    if kind not in ("mixtral", "qwen3_moe"):
        assert room <= max(2 * max(part.nbytes for part in parts) for parts in read.layers) + 1024


# ── what is shared ───────────────────────────────────────────────────────────────────────────────────────


def workshop(ids: torch.Tensor, mask: torch.Tensor, sizes: tuple[int, ...] = ()) -> Workshop:
    made = Workshop("cpu", torch.float32, as_stored=False)
    made.batch(mask, mask.sum(dim=1).tolist(), rows(ids.numpy(), mask.numpy(), "cpu", sizes))
    return made


IDS = torch.tensor([[1, 2, 3, 4], [1, 2, 5, 5], [1, 2, 1, 1]])
MASK = torch.tensor([[True] * 4, [True] * 3 + [False], [True, True, False, False]])


class Attends(torch.nn.Module):
    """Adds to each token what it attends to; without sdpa, one."""

    def __init__(self, *, sdpa: bool = True) -> None:
        super().__init__()
        self.sdpa = sdpa
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        q = x[:, None]
        if not self.sdpa:
            return x + 1
        return x + torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)[:, 0]


def states() -> torch.Tensor:
    table = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    return table[IDS]


def causal() -> torch.Tensor:
    """[3, 1, 4, 4], for right-padded texts."""
    return torch.ones(4, 4, dtype=torch.bool).tril()[None, None] & MASK[:, None, None, :]


def ran(layer: Attends, mask: torch.Tensor | None, says: bool) -> torch.Tensor:
    from pairprobe.executions.attention import by_length

    made = workshop(IDS, MASK)
    with by_length(made), torch.inference_mode():
        return packed.run(Call((), {"mask": mask}, False), layer, states(), made, says)


def alone(mask: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return Attends()(states(), mask)


def test_beginnings_pass_through_a_layer_once():
    layer = Attends()
    found = ran(layer, causal(), False)
    assert layer.seen == [(1, 5, 16)]  # 1 2 3 4, and a 5 after 1 2
    assert torch.allclose(found[MASK], alone(causal())[MASK], atol=1e-6)


def test_where_tokens_look_ahead_each_text_has_rows_of_its_own():
    layer, mask = Attends(), MASK[:, None, None, :].expand(3, 1, 4, 4)
    found = ran(layer, mask, True)
    assert layer.seen == [(1, 9, 16)]
    assert torch.allclose(found[MASK], alone(mask)[MASK], atol=1e-6)


def test_a_model_that_looks_ahead_against_its_word_is_found_out():
    layer = Attends()
    found = ran(layer, None, True)  # no mask, no is_causal: everything real is looked at
    assert layer.seen == [(1, 5, 16), (1, 9, 16)]
    mask = MASK[:, None, None, :].expand(3, 1, 4, 4)
    assert torch.allclose(found[MASK], alone(mask)[MASK], atol=1e-6)


def test_a_layer_without_the_attention_that_is_known_is_run_on_the_batch():
    layer = Attends(sdpa=False)
    assert torch.equal(ran(layer, causal(), True), states() + 1)
    assert layer.seen[-1] == (3, 4, 16)


def test_rows_that_differ_before_the_layer_are_computed_by_themselves():
    layer, made, x = Attends(), workshop(IDS, MASK), states()
    x[1, 1, 0] += 1e-6  # as another thread may have rounded it
    from pairprobe.executions.attention import by_length

    with by_length(made), torch.inference_mode():
        found = packed.run(Call((), {"mask": causal()}, False), layer, x, made, True)
    assert layer.seen == [(1, 6, 16)]
    with torch.inference_mode():
        assert torch.allclose(found[MASK], Attends()(x, causal())[MASK], atol=1e-6)
    assert torch.equal(found[0, :2], found[2, :2])
    assert not torch.equal(found[0, 1], found[1, 1])


def test_results_that_differ_are_not_shared():
    made = workshop(IDS, MASK)
    assert made.rows is not None
    pack = Pack(Taken(made.rows.first, made.rows.back, (5,)), (3, 4), checked=made.rows)
    x = states()[:, None]
    assert torch.equal(pack.results(x)[0, 0], states().flatten(0, 1)[made.rows.first])
    x[2, 0, 1, 0] += 1
    with pytest.raises(Unlike):
        pack.results(x)


def test_a_group_whose_results_differ_leaves_the_others_as_they_are():
    from pairprobe.executions.attention import by_length

    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5, 5]])  # two texts each; the first are one
    mask = torch.ones(4, 4, dtype=torch.bool)
    made, layer = workshop(ids, mask, (2, 2)), Attends()
    layer.inner = torch.nn.Identity()  # no activation, which would be run group by group
    x = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))[ids]
    call = Call((), {"mask": None}, False)
    with by_length(made), torch.inference_mode():
        found = packed.run(call, layer, x, made, True)  # the model says that it looks back, and does not
        assert layer.seen == [(1, 4 + 6, 16), (1, 4 + 8, 16)]
        assert torch.allclose(found, Attends()(x), atol=1e-6)


def test_what_is_given_for_each_token_is_packed_and_masks_are_not():
    made = workshop(IDS, MASK)
    assert made.rows is not None
    pack = Pack(Taken(made.rows.first, made.rows.back, (5,)), (3, 4))
    turns = torch.arange(4.0)[None, :, None]
    call = Call(((turns, turns), None), {"mask": causal(), "places": torch.arange(4)[None], "flag": True}, False)
    found = packed.packed(call, pack)
    assert found.args[0][0].tolist() == [[[0.0], [1.0], [2.0], [3.0], [2.0]]]
    assert found.kwargs["places"].tolist() == [[0, 1, 2, 3, 2]]
    assert found.kwargs["mask"] is call.kwargs["mask"]
    assert found.kwargs["flag"] is True


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_tells_whether_tokens_look_ahead(kind):
    def of(mask: torch.Tensor) -> Call:
        given = mask if kind == "bool" else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        return Call((), {"attention_mask": given}, False)

    assert looks_back(of(causal()), 4, False)
    assert not looks_back(of(MASK[:, None, None, :].expand(3, 1, 4, 4)), 4, True)
    assert not looks_back(of(MASK[:, None, None, :]), 4, True)
    assert looks_back(Call((), {}, False), 4, True)
    assert not looks_back(Call((), {}, False), 4, False)


def test_a_bias_is_no_mask():
    bias = torch.full((1, 1, 4, 4), -3.0)  # as of distances: every token is seen
    assert not looks_back(Call((), {"attention_mask": bias}, False), 4, True)
    bias.masked_fill_(torch.ones(4, 4, dtype=torch.bool).triu(1), torch.finfo(torch.float32).min)
    assert looks_back(Call((), {"attention_mask": bias}, False), 4, False)


def test_a_decoder_that_is_told_to_look_ahead_is_planned_for_all_its_tokens(tmp_path):
    of = {}
    for ahead in (False, True):
        folder = write("qwen2", tmp_path / f"qwen2-{ahead}")
        if ahead:
            edit_config(folder, is_causal=False)
        checkpoint = Checkpoint.open(folder)
        assert taken_apart(checkpoint, "float32", "sdpa").causal == (not ahead)
        asked = Workload.of(tokens_of(checkpoint).select([0] * 64))
        of[ahead] = ONE.estimate(checkpoint, asked).host
    assert of[True] > of[False]
