"""The embedding table's rows for the word's tokens, pooled: what the model knows before it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import CheckpointError
from pairprobe.methods.pooling import Pooling
from pairprobe.records import Tokens, Usage, Vectors
from pairprobe.rooms import Checkpointed, Execution, Keeping


@dataclass(frozen=True)
class Static(Pooling):
    """Embedding rows, read from the file by index; no other weight is touched and nothing is computed.

    These are the table's own rows: positions, token types and embedding norms (BERT) or scales (Gemma) come
    later, in state 0 of method=layerwise. Reported as depth 0.
    """

    name: str = "static"

    computes: ClassVar[bool] = False
    uses_model: ClassVar[bool] = True

    def refuse(self, checkpoint: Checkpointed, execution: Execution) -> str | None:  # noqa: ARG002
        """Why this method cannot measure this checkpoint, or None."""
        return None

    def reads(self, checkpoint: Checkpointed, tokens: Tokens) -> tuple[int, int]:
        """(rows of the embedding table, bytes) that these texts need."""
        table = checkpoint.weights[checkpoint.embedding_name]
        rows = len({int(i) for t in tokens.of for i in t.ids[self.weights(t) > 0]})
        return rows, rows * table.nbytes // table.shape[0]

    def depths_of(self, checkpoint: Checkpointed) -> tuple[int, ...]:  # noqa: ARG002
        """The table is depth 0."""
        return (0,)

    def vectors(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        execution: Execution,
        progress: Callable[[int, int], None] = lambda done, total: None,
        kept: Keeping | None = None,
    ) -> tuple[Vectors, Usage]:
        """Measure. progress: called with (texts done, texts in all)."""
        (found,), usage = self.several(checkpoint, tokens, (self,), execution, progress, kept)
        return found, usage

    def several(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        poolings: Sequence[Pooling],
        execution: Execution,  # noqa: ARG002
        progress: Callable[[int, int], None] = lambda done, total: None,
        kept: Keeping | None = None,  # noqa: ARG002
    ) -> tuple[tuple[Vectors, ...], Usage]:
        """The vectors of each pooling, in order; every row is read once. Norms of tokens are not measured, since rows
        of tokens that no pooling counts are not read.

        Raises:
            CheckpointError: a row that is needed holds NaN or infinity.
        """
        start = time.perf_counter()
        weights = [[pooling.weights(t) for t in tokens.of] for pooling in poolings]
        counted = [[t.ids[w > 0] for t, w in zip(tokens.of, of, strict=True)] for of in weights]
        wanted = (int(i) for of in counted for ids in of for i in ids)
        rows = checkpoint.rows(checkpoint.embedding_name, wanted)
        _check_finite(rows, checkpoint, tokens)
        values = [
            np.stack(
                [
                    np.einsum("td,t->d", np.stack([rows[int(i)] for i in ids]), w[w > 0])
                    for ids, w in zip(*of, strict=True)
                ]
            )[None].astype(np.float32)
            for of in zip(counted, weights, strict=True)
        ]
        progress(len(tokens), len(tokens))
        about = {
            "rows": f"{len(rows)} of {checkpoint.weights[checkpoint.embedding_name].shape[0]} rows "
            f"of {checkpoint.embedding_name}",
        }
        if checkpoint.remote:
            about["fetched"] = f"{checkpoint.fetched_bytes} bytes"
        table = checkpoint.weights[checkpoint.embedding_name]
        if not table.dense:
            about["precision"] = f"the table itself is stored as {table.format}: its rows are dequantised"
        elif checkpoint.quantised:
            about["precision"] = (
                "the embedding table is not quantised in this checkpoint: precision cannot explain this Δ"
            )
        usage = Usage("cpu", "float32", "none", {"load": time.perf_counter() - start}, {})
        found = [
            Vectors(of, (0,), "float32", {"pooling": pooling.described, **about})
            for of, pooling in zip(values, poolings, strict=True)
        ]
        return tuple(found), usage


def _check_finite(rows: dict[int, npt.NDArray[np.float32]], checkpoint: Checkpointed, tokens: Tokens) -> None:
    """Raise CheckpointError, naming row, token and a word, where the table itself holds no numbers."""
    damaged = [i for i, row in rows.items() if not np.isfinite(row).all()]
    if not damaged:
        return
    text, place = next(
        (n, int(found[0])) for n, t in enumerate(tokens.of) if len(found := (t.ids == damaged[0]).nonzero()[0])
    )
    piece, word = tokens.of[text].pieces[place], tokens.texts.texts[text].word.form
    more = f", and so do {len(damaged) - 1} more of the {len(rows)} rows read" if len(damaged) > 1 else ""
    raise CheckpointError(
        f"{checkpoint.name}: row {damaged[0]} of {checkpoint.embedding_name} holds NaN or infinity as it is stored: "
        f"token '{piece}', in the text of '{word}'{more}.",
        "The checkpoint is damaged there. Download it again (model.sha256 checks it), or leave these words out.",
    )
