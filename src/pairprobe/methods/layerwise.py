"""The pooled hidden state of every text at every depth, from one pass over the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pairprobe.errors import ConfigError
from pairprobe.methods.pooling import Pooling
from pairprobe.records import Tokens, Usage, Vectors
from pairprobe.rooms import Checkpointed, Execution


@dataclass(frozen=True)
class Layerwise(Pooling):
    """Hidden states, pooled on the device as each layer finishes; no states of whole texts are kept.

    depths: which to keep, 0 … L, negative ones counted from the last; null keeps all.
    """

    name: str = "layerwise"
    depths: list[int] | None = None

    computes: ClassVar[bool] = True
    uses_model: ClassVar[bool] = True

    def refuse(self, checkpoint: Checkpointed, execution: Execution) -> str | None:
        """Why this method cannot measure this checkpoint this way, or None."""
        return execution.refuse(checkpoint)

    def memory_needed(self, checkpoint: Checkpointed, execution: Execution) -> int:
        """Bytes on the computing device, texts' own states left out."""
        return execution.memory_needed(checkpoint)

    def depths_of(self, checkpoint: Checkpointed) -> tuple[int, ...]:
        """The depths that will be kept, ascending. Raises ConfigError for one the model does not have."""
        last = checkpoint.layers
        if self.depths is None:
            return tuple(range(last + 1))
        wrong = [d for d in self.depths if not -last - 1 <= d <= last]
        if wrong or not self.depths:
            raise ConfigError(f"method.depths is {list(self.depths)}; {checkpoint.name} has depths 0 … {last}.")
        return tuple(sorted({d % (last + 1) for d in self.depths}))

    def vectors(
        self,
        checkpoint: Checkpointed,
        tokens: Tokens,
        execution: Execution,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[Vectors, Usage]:
        """Measure. progress: called with (texts × depths done, texts × depths in all)."""
        import torch

        depths = self.depths_of(checkpoint)
        place = {depth: i for i, depth in enumerate(depths)}
        values: npt.NDArray[np.float32] | None = None
        weights: dict[int, torch.Tensor] = {}  # of the batch at work, by its first text
        done = 0

        def pool(depth: int, states: Any, rows: npt.NDArray[np.int64]) -> None:
            nonlocal values, done
            if depth in place:
                if int(rows[0]) not in weights:
                    weights.clear()
                    padded = self.padded_weights(tokens, rows, states.shape[1])
                    weights[int(rows[0])] = torch.from_numpy(padded).to(states.device)
                # [batch, tokens, width] · [batch, tokens] → [batch, width], summed in float32
                pooled = torch.einsum("btd,bt->bd", states.float(), weights[int(rows[0])])
                if values is None:
                    values = np.empty((len(depths), len(tokens), pooled.shape[1]), dtype=np.float32)
                values[place[depth], rows] = pooled.cpu().numpy()
                done += len(rows)
                progress(done, len(depths) * len(tokens))

        usage = execution.forward(checkpoint, tokens, pool)
        assert values is not None
        assert done == len(depths) * len(tokens)
        return Vectors(values, depths, usage.dtype, {"pooling": self.described}), usage
