"""Tokens' vectors → one vector per text, as a weighted mean whose weights say which tokens count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairprobe.errors import ConfigError, TokenError, one_of
from pairprobe.records import TokenisedText


@dataclass(frozen=True)
class Pooling:
    """Which tokens of a text count, and how they are joined.

    Args:
        pooling: mean | last | first, of the tokens that count.
        scope: span (the word's own tokens) | text (all of the text's tokens).
        special_tokens: with scope=text, whether BOS, [CLS] and the like count. The first token of many
            models is an attention sink of huge norm, which pooled in makes all texts look alike.
    """

    pooling: str = "mean"
    scope: str = "span"
    special_tokens: bool = False

    def __post_init__(self) -> None:
        one_of("method.pooling", self.pooling, ("mean", "last", "first"))
        one_of("method.scope", self.scope, ("span", "text"))
        if self.special_tokens and self.scope == "span":
            raise ConfigError(
                "method.special_tokens is true with method.scope=span; a word's span has no special tokens. "
                "Allowed: method.scope=text method.special_tokens=true, or method.special_tokens=false."
            )

    @property
    def described(self) -> str:
        where = "the word's own tokens"
        if self.scope == "text":
            where = "all tokens of the text, special tokens " + ("included" if self.special_tokens else "left out")
        return f"{self.pooling} of {where}"

    @property
    def label(self) -> str:
        """In few words, equal only for what pools alike: 'mean of span', 'last of text with special tokens'."""
        return f"{self.pooling} of {self.scope}" + (" with special tokens" if self.special_tokens else "")

    def weights(self, tokenised: TokenisedText) -> npt.NDArray[np.float32]:
        """float32 [tokens], summing to 1: the share of each token in the pooled vector."""
        counts = tokenised.word if self.scope == "span" else np.ones(len(tokenised), dtype=bool)
        if not self.special_tokens:
            counts = counts & ~tokenised.special
        places = np.flatnonzero(counts)
        if len(places) == 0:
            raise TokenError(f"no token to pool among: {' '.join(tokenised.pieces)}")
        weights = np.zeros(len(tokenised), dtype=np.float32)
        if self.pooling == "mean":
            weights[places] = 1.0 / len(places)
        else:
            weights[places[-1 if self.pooling == "last" else 0]] = 1.0
        return weights
