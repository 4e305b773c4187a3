"""The embedding table's rows for the word's tokens, pooled: what the model knows before it reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
        execution: Execution,  # noqa: ARG002  the same call for every method
        progress: Callable[[int, int], None] = lambda done, total: None,
        kept: Keeping | None = None,  # noqa: ARG002  rows are read anew: that costs nothing
    ) -> tuple[Vectors, Usage]:
        """Measure. progress: called with (texts done, texts in all)."""
        start = time.perf_counter()
        weights = [self.weights(t) for t in tokens.of]
        counted = [t.ids[w > 0] for t, w in zip(tokens.of, weights, strict=True)]
        rows = checkpoint.rows(checkpoint.embedding_name, (int(i) for ids in counted for i in ids))
        values = np.stack(
            [
                np.einsum("td,t->d", np.stack([rows[int(i)] for i in ids]), w[w > 0])
                for ids, w in zip(counted, weights, strict=True)
            ]
        )[None]
        progress(len(tokens), len(tokens))
        about = {
            "pooling": self.described,
            "rows": f"{len(rows)} of {checkpoint.weights[checkpoint.embedding_name].shape[0]} rows "
            f"of {checkpoint.embedding_name}",
        }
        if checkpoint.remote:
            about["fetched"] = f"{checkpoint.fetched_bytes} bytes"
        table = checkpoint.weights[checkpoint.embedding_name]
        if not table.dense:
            about["precision"] = f"the table itself is stored as {table.format}: its rows are dequantised"
        elif checkpoint.quantisation:
            about["precision"] = (
                "the embedding table is not quantised in this checkpoint: precision cannot explain this Δ"
            )
        usage = Usage("cpu", "float32", "none", {"load": time.perf_counter() - start}, {})
        return Vectors(values.astype(np.float32), (0,), "float32", about), usage
