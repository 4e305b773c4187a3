"""Products with weights as they are stored: rows are made dense a tile at a time, in a buffer that is made once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairprobe.errors import ExecutionError
from pairprobe.executions.sharing import PATIENCE, Groups, Rows, Taken
from pairprobe.rooms import Weight

if TYPE_CHECKING:
    import torch

    from pairprobe.executions.packed import Pack

Parts = Mapping[str, "torch.Tensor"]
#: Bytes of a dense tile: on the CPU it stays in the caches between being written and being multiplied.
TILE_CPU = 8 * 2**20
TILE_GPU = 512 * 2**20
#: Rows of a tile whose memory is [in, rows], at least: fewer would read a few bytes of each line of the stored matrix.
LEAST_TRANSPOSED = 256
#: Values of a matrix from which on oneDNN's product is worth being asked for.
LARGE = 2**20
#: Part of the key of kept vectors: another one where products come out in other last digits than before.
REVISION = 2
#: Rows of a tile are a multiple of this: matrix libraries work in blocks, and of 73 rows the last nine cost nearly as
#: much as the sixty-four.
EVEN = 64
#: Rows of a weight whose integer products are summed at once: at most, and at least; between them as many as give
#: sums, and their float32 copy, of so many bytes.
TALLEST, LEAST_SUMS = 8192, 512
SUMS_CPU, SUMS_GPU = 32 * 2**20, 512 * 2**20
#: Columns over which float32 holds every sum of products of two int8 exactly: 128 · 128 · 1024 = 2²⁴.
EXACT_COLUMNS = 1024


class Workshop:
    """What all products of one pass share: the tile, the device, and which rows of a batch are real.

    dtype: of computation. as_stored: quantise activations where the checkpoint says so. Of the batch at work: shape
    (texts, padded tokens), lengths, and rows, which are computed: padding is not, and what begins alike is once; None
    for all of them; last: no other batch will use the weights after it.
    """

    def __init__(self, device: str, dtype: torch.dtype, as_stored: bool) -> None:
        import torch

        self.device, self.dtype, self.as_stored = device, dtype, as_stored
        self.rows: Rows | Groups | None = None
        self.shape: tuple[int, ...] = ()
        self.lengths: list[int] = []
        self.last = False
        self.pack: Pack | None = None
        self._patience = PATIENCE
        self._onednn = product_library(device, dtype) == "oneDNN"
        size = (TILE_GPU if device.startswith("cuda") else TILE_CPU) // dtype.itemsize
        self._tile = torch.empty(size, dtype=dtype, device=device)

    def batch(self, mask: torch.Tensor, lengths: list[int], rows: Rows | Groups | None, last: bool = False) -> None:
        """What follows is computed for a batch with this mask [batch, tokens], of texts of these lengths."""
        self.shape, self.lengths, self.rows, self.last = tuple(mask.shape), lengths, rows, last

    @contextmanager
    def packing(self, pack: Pack) -> Iterator[None]:
        """Within, a layer is run on packed rows: all of them are computed."""
        self.rows, self.pack, rows = None, pack, self.rows
        try:
            yield
        finally:
            self.rows, self.pack = rows, None

    def shared(self, flat: torch.Tensor) -> Taken | None:
        """Which rows of these inputs [batch × tokens, in] serve for all, see `Rows.shared`; None: each its own."""
        if self.rows is None or not len(self.rows.again) or not self._patience:
            return None
        found = self.rows.shared(flat)
        if found is None:  # attention that looks ahead: no later product will fare better
            self._patience -= 1
        return found

    def tile(self, rows: int, columns: int, transposed: bool) -> torch.Tensor:
        """[rows, columns], of undefined content; its memory is [columns, rows] where `transposed`."""
        flat = self._tile[: rows * columns]
        return flat.view(columns, rows).t() if transposed else flat.view(rows, columns)

    def height(self, weight: Weight) -> int:
        """Rows of `weight` in a tile, a multiple of its step."""
        import torch

        step, (rows, columns) = weight.step, weight.shape[-2:]
        even = math.lcm(step, EVEN)
        least = -(-LEAST_TRANSPOSED // step) * step if weight.transposed else step
        if columns * least > len(self._tile):  # a very wide matrix
            self._tile = torch.empty(columns * least, dtype=self.dtype, device=self.device)
        most = len(self._tile) // columns
        return min(rows, max(step, most // even * even if most >= even else most // step * step))

    def dense(self, weight: Weight, parts: Parts, out: torch.Tensor) -> None:
        """Fill `out`, of the weight's shape."""
        factor = weight.rows(parts, 0, weight.shape[0], out)
        if factor is not None:
            out.mul_(factor.to(out.dtype).view(-1, *[1] * (out.ndim - 1)))

    def product(self, x: torch.Tensor, weight: Weight, parts: Parts, sizes: Sequence[int] = ()) -> torch.Tensor:
        """x [n, in] · Wᵀ → [n, out], quantising x first where the checkpoint does and `as_stored` is set.

        sizes: rows of each group, one group after another; none: all are one. How many rows are multiplied at once
        moves the last digits, so each group is by itself, while what is made of the weight serves all.
        """
        import torch

        rows, several = weight.shape[0], list(sizes or (len(x),))
        whole = torch.empty(x.shape[0], rows, dtype=x.dtype, device=x.device)
        of, outs = [*torch.split(x, several)], torch.split(whole, several)
        if self.as_stored and weight.activations is not None:
            from pairprobe.executions.activations import quantise

            scale, zero = parts.get("input_scale"), parts.get("input_zero_point")
            rounded = [quantise(group, weight.activations, scale, zero) for group in of]
            integers = [(r.integers, r.scale) for r in rounded if r.integers is not None and r.scale is not None]
            if len(integers) == len(of) and weight.integers(parts, 0, min(rows, weight.step)) is not None:
                self._integer_product(integers, weight, parts, outs)
                return whole
            of = [r.values for r in rounded]
        if weight.ready and parts["weight"].dtype == x.dtype:  # nothing to be made of it
            for group, out in zip(of, outs, strict=True):
                self.multiply(group, parts["weight"], out)
            return whole
        height = self.height(weight)
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            tile = self.tile(stop - start, weight.shape[1], weight.transposed)
            factor = weight.rows(parts, start, stop, tile)
            if factor is not None and x.dtype == torch.float16:  # unscaled sums may overflow
                tile.mul_(factor.to(tile.dtype)[:, None])
                factor = None
            for group, out in zip(of, outs, strict=True):
                self.multiply(group, tile, out[:, start:stop])
            if factor is not None:
                whole[:, start:stop].mul_(factor.to(whole.dtype))
        return whole

    def multiply(self, x: torch.Tensor, tile: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """out [n, rows] = x [n, in] · tileᵀ."""
        import torch

        if self._onednn and tile.numel() >= LARGE and (tile.is_contiguous() or tile.t().is_contiguous()):
            return out.copy_(torch.ops.mkldnn._linear_pointwise(x, tile, None, "none", [], ""))
        return torch.mm(x, tile.t(), out=out)

    def _integer_product(
        self,
        of: Sequence[tuple[torch.Tensor, torch.Tensor]],
        weight: Weight,
        parts: Parts,
        outs: Sequence[torch.Tensor],
    ) -> None:
        """int8 · int8 summed in int32, which is exact, then scaled by token and by row. of: (input, scale) of each
        group, into `outs`."""
        import torch

        rows = weight.shape[0]
        count, most = max(len(x) for x, _ in of), min(rows, TALLEST)
        room = SUMS_GPU if outs[0].is_cuda else SUMS_CPU
        height = max(min(most, room // (8 * max(1, count))), min(most, LEAST_SUMS))
        height = max(weight.step, height // weight.step * weight.step)
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            found = weight.integers(parts, start, stop)
            assert found is not None
            q, factor = found
            for (x, scale), out in zip(of, outs, strict=True):
                sums = integer_sums(x, q)
                part = out[:, start:stop]
                if out.dtype == torch.float32:
                    torch.mul(sums, scale, out=part).mul_(factor)
                else:
                    part.copy_((sums.to(torch.float32) * scale).mul_(factor))


def integer_sums(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """x int8 [n, in] · qᵀ, q int8 [rows, in] → int32 [n, rows], exact on every device.

    Where the processor's own int8 products saturate half way, in float32 over so few columns that it holds all sums.
    """
    import torch

    if exact_int8(x.device.type):
        n, least = len(x), 17 if x.is_cuda else 1  # cuBLASLt's smallest
        filled = x if n >= least else torch.cat([x, x.new_zeros(least - n, x.shape[1])])
        return torch._int_mm(filled, q.t())[:n]
    sums = torch.zeros(x.shape[0], q.shape[0], dtype=torch.int32, device=x.device)
    for start in range(0, x.shape[1], EXACT_COLUMNS):
        stop = start + EXACT_COLUMNS
        sums += torch.mm(x[:, start:stop].float(), q[:, start:stop].float().t()).to(torch.int32)
    return sums


@cache
def exact_int8(device: str) -> bool:
    """Whether torch's int8 product is exact here, at the extremes. On x86 without VNNI oneDNN adds pairs in 16 bits."""
    import torch

    columns = 4096
    x = torch.full((32, columns), 127, dtype=torch.int8, device=device)
    x[::2] = -128
    q = torch.full((64, columns), 127, dtype=torch.int8, device=device)
    q[::2] = -128
    expected = (x.double() @ q.double().t()).to(torch.int32) if device != "mps" else None
    try:
        return expected is not None and bool((torch._int_mm(x, q.t()) == expected).all())
    except (RuntimeError, NotImplementedError):  # a device that has none
        return False


@cache
def product_library(device: str, dtype: torch.dtype) -> str:
    """What multiplies matrices: 'oneDNN', or 'torch' for whatever torch takes by itself.

    For float32 on x86 torch takes MKL, which is a third slower than oneDNN on AMD's processors. Both add up in
    float32, in another order.
    """
    import torch

    if device != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "torch"
    try:
        amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()[:4096]
        w = torch.ones(1, 1)
        if amd and float(torch.ops.mkldnn._linear_pointwise(w, w, None, "none", [], "")) == 1.0:
            return "oneDNN"
    except (OSError, AttributeError, RuntimeError):  # no such file, or a torch that has no such operation
        pass
    return "torch"


class Linear:
    """Stands in for the forward of one nn.Linear: the same product, from the weight as it is stored.

    used: called when the last batch has been multiplied with it.
    """

    def __init__(self, module: torch.nn.Module, weight: Weight, workshop: Workshop) -> None:
        self.module, self.weight, self.workshop = module, weight, workshop
        self.parts: Parts = {}
        self.used: Callable[[], None] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        flat = x.reshape(-1, shape[-1])
        rows = self.workshop.rows
        if rows is not None and tuple(shape[:-1]) == self.workshop.shape:
            taken = self.workshop.shared(flat) or rows.each
            y = self._of(flat.index_select(0, taken.places), taken.sizes).index_select(0, taken.back)
        else:
            pack = self.workshop.pack
            whole = pack is not None and len(flat) == len(pack.taken.places)
            y = self._of(flat, pack.taken.sizes if pack is not None and whole else ())
        return y.view(*shape[:-1], y.shape[-1])

    def _of(self, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        y = self.workshop.product(x, self.weight, self.parts, sizes)
        if self.workshop.last and self.used is not None:
            self.used()
        bias: Any = self.module.bias
        return y if bias is None else y.add_(bias)


class Matrix:
    """Stands in for the weight of an nn.Linear whose model also uses it in other ways: dense each time it is used.

    It must not stay a tensor on the meta device: torch.mm and others take that without a word, and give what the
    memory of their result held before.
    """

    def __init__(self, product: Linear) -> None:
        self._product = product
        self.shape = product.weight.shape
        self.dtype, self.device = product.workshop.dtype, product.workshop.device

    def dense(self) -> torch.Tensor:
        """[out, in]"""
        import torch

        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        self._product.workshop.dense(self._product.weight, self._product.parts, out)
        return out

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As an argument of torch's own functions."""
        some = [a.dense() if isinstance(a, Matrix) else a for a in args]
        named = {k: v.dense() if isinstance(v, Matrix) else v for k, v in (kwargs or {}).items()}
        found: torch.Tensor = func(*some, **named)
        return found

    def __matmul__(self, other: torch.Tensor) -> Any:
        return self.dense() @ other

    def __mul__(self, other: Any) -> Any:
        return self.dense() * other

    def __getitem__(self, places: Any) -> torch.Tensor:
        return self.dense()[places]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dense(), name)


class Table:
    """Stands in for a parameter [experts, rows, in] that is only ever indexed by expert: dense one at a time."""

    def __init__(self, of: tuple[tuple[Weight, ...], ...], workshop: Workshop) -> None:
        self.of, self.workshop = of, workshop
        self.parts: list[list[Parts]] = []
        self.shape = (len(of), sum(w.shape[0] for w in of[0]), *of[0][0].shape[1:])
        self.dtype, self.device = workshop.dtype, workshop.device

    def __getitem__(self, expert: Any) -> torch.Tensor:
        import torch

        index = int(expert)
        out = torch.empty(self.shape[1:], dtype=self.workshop.dtype, device=self.workshop.device)
        start = 0
        for weight, parts in zip(self.of[index], self.parts[index], strict=True):
            self.workshop.dense(weight, parts, out[start : start + weight.shape[0]])
            start += weight.shape[0]
        return out

    def __getattr__(self, name: str) -> Any:
        raise ExecutionError(
            f"an expert layer asks for '{name}' of all its experts at once; they are read one by one.",
            "execution=resident runs it whole.",
        )
