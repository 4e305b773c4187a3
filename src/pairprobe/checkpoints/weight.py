"""How a weight is stored: the base of every format, and the finding of the format that fits a module's tensors."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pairprobe.checkpoints.completeness import stored_once, with_all_parts, without_scales
from pairprobe.checkpoints.headers import FLOATS, Tensor
from pairprobe.errors import CheckpointError, Misdeclared
from pairprobe.rooms import Activations

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight of a model, [out, in] for matrices, and the stored tensors it is made from.

    parts: role → stored tensor, everything `rows` needs. step: rows are asked for in multiples of this, the last
    ones of the matrix aside. activations: how its input is quantised, None where it is not. unlike: what the config
    declares of how it is stored that these tensors do not bear out, as 'bits 8 (stored: 4)'.
    """

    shape: tuple[int, ...]
    parts: Mapping[str, Tensor]
    step: int = 1
    activations: Activations | None = None
    unlike: tuple[str, ...] = ()

    #: What people call it, as 'AWQ 4 bit, groups of 128'.
    format: str = field(default="")
    #: Its natural dense tile is [in, rows]: then `out` of `rows` is best a transposed view of such a buffer.
    transposed: ClassVar[bool] = False
    #: Every part's first dimension is `out`: single rows can be read from the file.
    by_row: ClassVar[bool] = False
    #: Weights are stored in floating point of at least 16 bits, as trained or published.
    dense: ClassVar[bool] = False
    #: So, and part 'weight' is the weight itself: no value has another place or size in the file.
    ready: ClassVar[bool] = False

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> torch.Tensor | None:
        """Make rows `start` … `stop` of the weight dense in `out` [stop − start, in], on the device of `parts`.

        Args:
            parts: role → stored tensor, in its stored dtype and shape (F8_E8M0 and the like as uint8).
            out: float32 | bfloat16 | float16, of any strides; overwritten.

        Returns:
            None, or a factor for each row, float32 [stop − start], which `out` still lacks: W = factor · out.
            A product is then scaled after it is summed, which is cheaper and, with integers in `out`, more exact.
        """
        raise NotImplementedError

    def integers(
        self,
        parts: Mapping[str, torch.Tensor],  # noqa: ARG002
        start: int,  # noqa: ARG002
        stop: int,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(q int8 [stop − start, in], factor float32 [stop − start]) with W = factor · q, or None for other formats."""
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def bits(self) -> float:
        """Stored bits per weight, scales and zero points included."""
        return 8 * self.nbytes / max(1, math.prod(self.shape))


class Format(Protocol):
    """A module of `checkpoints.formats`: a new file there is a new format."""

    #: Tensors of one module → the weight they store, or None where this format does not store it.
    #: `tensors`: name after the module's path → tensor, as {'qweight': …, 'scales': …}; `quantisation`: the config's
    #: quantization_config, {} without one. Raises CheckpointError where the format is meant, but the tensors do not
    #: fit together (the message names the module).
    def recognise(
        self, module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]
    ) -> Weight | None: ...


@cache
def formats() -> tuple[tuple[str, Format], ...]:
    """(name, module) of every format, by file name."""
    from pairprobe.checkpoints import formats as package

    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    return tuple((n, importlib.import_module(f"{package.__name__}.{n}")) for n in names)


def split(name: str) -> tuple[str, str]:
    """(module, tensor) of a stored name: 'a.weight' → ('a', 'weight'), 'a.weight.absmax' → ('a', 'weight.absmax')."""
    module, found, rest = name.partition(".weight.")
    if found:
        return module, f"weight.{rest}"
    module, _, tensor = name.rpartition(".")
    return module, tensor


#: What to do about tensors that cannot be read, and about such that do not fit together.
NOT_KNOWN = "Formats that are read: README, 'Formats'."
DAMAGED = "Download the checkpoint again; if it stays so, its files do not belong together."


class Weights(Mapping[str, Weight]):
    """Every weight that `tensors` store, by the name its dense form would have ('model.norm.weight').

    Each module's tensors are shown to every format; the tensors decide, the config only helps to read them. One weight
    that is asked for by its name is recognised alone, which suffices for a few rows of a table; whatever needs all of
    them, iteration and `len` too, recognises all.

    Args:
        tensors: by stored name.
        quantisation: what the config says of it, {} where nothing.
        of: what errors call the checkpoint, '' for nothing.

    Raises:
        CheckpointError: tensors that no format, or more than one, takes for its own, and a weight that is stored
            both dense and quantised; by whatever recognises them.
    """

    def __init__(self, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any], of: str = "") -> None:
        self._quantisation, self._called = quantisation, f"{of}: " if of else ""
        self._modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            module, short = split(name)
            self._modules.setdefault(module, {})[short] = tensor
        self._found: dict[str, dict[str, Weight]] = {}

    def __getitem__(self, name: str) -> Weight:
        module, _ = split(name)
        if module not in self._modules:
            raise KeyError(name)
        return self._of(module)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def named(self, ending: str) -> dict[str, Weight]:
        """Those whose names end so, whole parts of names compared."""
        modules = [m for m in self._modules if f".{m}.weight".endswith(f".{ending}")]
        return {n: w for m in modules for n, w in self._of(m).items() if f".{n}".endswith(f".{ending}")}

    @property
    def quantised(self) -> bool:
        """Some are not dense. Looks no further than the first that is not."""
        return any(not w.dense for module in self._modules for w in self._of(module).values())

    @cached_property
    def _all(self) -> dict[str, Weight]:
        found: dict[str, Weight] = {}
        problems: list[str] = []
        steps: dict[str, None] = {}
        for module in self._modules:
            try:
                found |= self._of(module)
            except Misdeclared:  # every further module would say the same
                raise
            except CheckpointError as error:
                problems += error.problems
                steps[error.next_step] = None
        if problems:
            more = [f"{self._called}… and {len(problems) - 8} more"] if len(problems) > 8 else []
            raise CheckpointError([*problems[:8], *more], next(iter(steps)) if len(steps) == 1 else NOT_KNOWN)
        return found

    def _of(self, module: str) -> dict[str, Weight]:
        """The weights of one module."""
        if module not in self._found:
            try:
                self._found[module] = _recognised(module, self._modules[module], self._quantisation)
            except Misdeclared as error:
                raise Misdeclared(f"{self._called}{error.problems[0]}", error.next_step) from None
            except CheckpointError as error:
                lines = [f"{self._called}{self._placed(line, module)}" for line in error.problems]
                raise CheckpointError(lines, error.next_step or DAMAGED) from None
        return self._found[module]

    def _placed(self, line: str, module: str) -> str:
        """The line of an error, and the files that hold the module's tensors where it names none."""
        files = sorted({tensor.file.name for tensor in self._modules[module].values()})
        return line if any(file in line for file in files) else f"{line} It is stored in {', '.join(files)}."


def _recognised(module: str, own: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> dict[str, Weight]:
    """What one module's tensors store, by name."""
    claims = []
    for name, format in formats():
        try:
            claimed = format.recognise(module, own, quantisation)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # what a config says of quantisation may be of any shape; tensors have been checked by then
            said = f"{type(error).__name__}: {error}"
            raise CheckpointError(
                f"{module}: config.json's quantisation settings cannot be read ({name}: {said})."
            ) from None
        if claimed is not None:
            claims.append((name, claimed))
    if len(claims) > 1:
        several = ", ".join(n for n, _ in claims)
        raise CheckpointError(f"{module}: its tensors {', '.join(own)} fit several formats: {several}.")
    found: dict[str, Weight] = {}
    left = dict(own)
    if claims:
        stored_once(module, own, claims[0][1])
        found[f"{module}.weight" if module else "weight"] = claims[0][1]
        taken = {id(t) for t in claims[0][1].parts.values()}
        left = {n: t for n, t in left.items() if id(t) not in taken}
    else:
        without_scales(module, own)
        with_all_parts(module, own, quantisation)
    problems = []
    for short, tensor in left.items():
        if tensor.dtype in FLOATS:
            found[f"{module}.{short}" if module else short] = Dense(shape=tensor.shape, parts={"weight": tensor})
        elif short not in SPARE:
            problems.append(f"{module}.{short}: {tensor.dtype} {list(tensor.shape)} fits no format that is known.")
    if problems:
        raise CheckpointError(problems, NOT_KNOWN)
    return found


#: What people call floating-point dtypes that are dense as they are.
DENSE = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
#: Tensors that state what the shapes say already, or that no state depends on.
SPARE = ("weight_shape", "weight_format", "g_idx", "weight_g_idx", "position_ids", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Dense(Weight):
    """Stored in floating point, of any rank; every other tensor's rows are its first dimension."""

    dense: ClassVar[bool] = True
    ready: ClassVar[bool] = True
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", DENSE[self.dtype])

    @property
    def dtype(self) -> str:
        return self.parts["weight"].dtype

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        """See `Weight.rows`."""
        out.copy_(parts["weight"][start:stop])
