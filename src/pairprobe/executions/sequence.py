"""A model as what comes before its layers, the layers one by one, and what comes after: transformers' own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairprobe.errors import CheckpointError
from pairprobe.executions.batches import text_stack

if TYPE_CHECKING:
    import torch

STATES = "hidden_states"
BESIDE = object()  # what a layer returns beside its states, and no other layer may be given
#: What a layer may return, as its model takes it apart: states, or a tuple that begins with them.
FORMS: tuple[Callable[[Any], Any], ...] = (
    lambda states: states,
    lambda states: (states, BESIDE),
    lambda states: (states,),
    lambda states: (states, BESIDE, BESIDE),
)


@dataclass(frozen=True)
class Call:
    """With what a layer is called for one batch, its states left out: masks, rotary tables, flags."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    named: bool

    def __call__(self, layer: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        """Run `layer` on `states`."""
        out = (
            layer(*self.args, **{STATES: states}, **self.kwargs)
            if self.named
            else layer(states, *self.args, **self.kwargs)
        )
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


class Sequence:
    """Runs everything of a model but its layers, and learns how the model calls each of them.

    The model's own forward runs with the layers taken out: what it hands to each layer is kept, and what it makes
    of the last one's output is its last state. So masks, windows, rotary tables and embedding scales are the
    architecture's own, without code for any of them here.

    Raises:
        CheckpointError: there is no single list of layers, or something happens between two of them.
    """

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        self.name = name
        self.stack, self.layers = text_stack(model)
        self._form: Callable[[Any], Any] | None = None

    def enter(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[Call]]:
        """State 0 [batch, tokens, width] of a batch, and how each layer is to be called on it."""
        if self._form is not None:
            return self._entered(ids, mask, self._form)
        problem: Exception | None = None
        for form in FORMS:  # a model that expects another one fails, or takes the states apart
            try:
                found = self._entered(ids, mask, form)
            except (CheckpointError, ValueError, TypeError, AttributeError, IndexError) as error:
                problem = problem or error
                continue
            self._form = form
            return found
        assert problem is not None
        if isinstance(problem, CheckpointError):
            raise problem
        raise CheckpointError(
            f"{self.name}: its model cannot be run without its layers ({type(problem).__name__}: {problem}).",
            "execution=resident runs it whole.",
        ) from problem

    def _entered(
        self, ids: torch.Tensor, mask: torch.Tensor, form: Callable[[Any], Any]
    ) -> tuple[torch.Tensor, list[Call]]:
        seen: list[tuple[torch.Tensor, Call]] = []
        given: list[torch.Tensor] = []

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            named = STATES in kwargs
            states = kwargs.pop(STATES) if named else args[0]
            if given and states is not given[-1]:
                raise CheckpointError(
                    f"{self.name}: its model changes the states between layers {len(given) - 1} and {len(given)}; "
                    "streaming them one after the other would compute something else.",
                    "execution=resident runs it whole.",
                )
            if any(value is BESIDE for value in (*args, *kwargs.values())):
                raise CheckpointError(
                    f"{self.name}: a layer of its model gives the next one more than states.",
                    "execution=resident runs it whole.",
                )
            seen.append((states, Call(args if named else args[1:], kwargs, named)))
            given.append(states.view(states.shape))  # a tensor of its own, so that it is known again
            return form(given[-1])

        out = self._run(ids, mask, stand_in)
        if len(seen) != len(self.layers):
            raise CheckpointError(
                f"{self.name}: its model calls {len(seen)} of {len(self.layers)} layers.",
                "execution=resident runs it whole.",
            )
        states = seen[0][0]
        if states.shape[:2] != ids.shape or out.shape != states.shape:
            raise CheckpointError(
                f"{self.name}: its states are {list(states.shape)} before and {list(out.shape)} after its layers, for "
                f"{list(ids.shape)} [texts, tokens]; one vector of one width for each token is needed.",
                "method=static needs no layers.",
            )
        return states, [call for _, call in seen]

    def leave(self, ids: torch.Tensor, mask: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """The last state: what the model makes of its last layer's output `states`."""
        form = self._form or FORMS[0]
        return self._run(ids, mask, lambda *_args, **_kwargs: form(states))

    def _run(self, ids: torch.Tensor, mask: torch.Tensor, instead: Callable[..., Any]) -> torch.Tensor:
        replaced = dict.fromkeys(self.layers, instead)  # attributes of a layer that the model asks for stay its own
        pooler = getattr(self.stack, "pooler", None)
        if pooler is not None:  # on top of the last state, and often not stored
            replaced[pooler] = lambda *_args, **_kwargs: None
        for module, forward in replaced.items():
            module.forward = forward
        try:
            out = self.stack(
                input_ids=ids,
                attention_mask=mask.long(),
                **({"use_cache": False} if getattr(self.stack.config, "use_cache", None) is not None else {}),
            )
        finally:
            for module in replaced:
                del module.forward
        return out.last_hidden_state  # type: ignore[no-any-return]
