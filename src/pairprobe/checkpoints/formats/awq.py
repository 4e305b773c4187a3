"""AWQ, as AutoAWQ writes it for its GEMM and GEMV kernels: 4 bits, W[o, i] = (q − z) · s.

GEMM: qweight I32 [in, out / 8], qzeros I32 [in / g, out / 8], both with the nibbles of a word in the order 0 2 4 6
1 3 5 7; scales [in / g, out]. GEMV: qweight I32 [out, in / 8], qzeros I32 [out, w], scales [out, 8 w], nibbles in
order, w the words of a row's zero points, rounded up for the kernel's sake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.declared import unlike
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

BITS = 4


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    layout = packing.layout(module, tensors, quantisation)
    if layout not in ("awq", "awq_gemv"):
        return None
    parts = {name: tensors[name] for name in ("qweight", "qzeros", "scales")}
    rows, columns = parts["qweight"].shape
    if layout == "awq":
        group = rows // parts["scales"].shape[0]
        said = unlike(quantisation, "bits", BITS) + unlike(quantisation, "group_size", group, rows)
        return Gemm(shape=(8 * columns, rows), parts=parts, step=8, unlike=said, group=group, format=_called(group))
    declared = quantisation.get("group_size")
    groups = packing.gemv_groups(8 * columns, parts["qzeros"].shape[1], declared)
    if len(groups) > 1:
        raise CheckpointError(
            f"{module}: its shapes fit AWQ's GEMV layout in groups of {' and of '.join(map(str, groups))}; "
            f"the config's group_size, which should tell, is {declared}."
        )
    group, width = groups[0], 8 * columns
    said = unlike(quantisation, "bits", BITS) + unlike(quantisation, "group_size", group, width)
    return Gemv(shape=(rows, width), parts=parts, unlike=said, group=group, format=f"{_called(group)} (GEMV)")


def _called(group: int) -> str:
    return f"AWQ {BITS} bit, groups of {group}"


@dataclass(frozen=True, kw_only=True)
class Gemm(Weight):
    """[out, in], stored with the inputs as rows. group: inputs that share a scale and a zero point."""

    group: int
    transposed: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        import torch

        columns = slice(start // 8, -(-stop // 8))
        qweight, g = parts["qweight"][:, columns], self.group
        zeros = packing.awq(parts["qzeros"][:, columns]).view(torch.int8)
        scales = parts["scales"][:, start:stop].float()
        tile = out.t()  # [in, rows]
        several = packing.at_a_time(qweight, g, stop - start)
        for a in range(0, len(zeros), several):
            b = min(a + several, len(zeros))
            q = torch.unflatten(packing.awq(qweight[a * g : b * g]).view(torch.int8), 0, (b - a, g))
            own = torch.unflatten(tile[a * g : b * g], 0, (b - a, g))
            torch.mul(q.sub_(zeros[a:b, None]), scales[a:b, None], out=own)


@dataclass(frozen=True, kw_only=True)
class Gemv(Weight):
    """[out, in], stored with the outputs as rows. group: inputs that share a scale and a zero point."""

    group: int
    by_row: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        import torch

        width = self.shape[1]
        groups = width // self.group
        several = packing.at_a_time(parts["qweight"], 1, width)
        for a in range(start, stop, several):
            b = min(a + several, stop)
            q = packing.across(parts["qweight"][a:b], BITS, width).view(torch.int8)
            zeros = packing.across(parts["qzeros"][a:b], BITS, groups).view(torch.int8)
            scales = parts["scales"][a:b, :groups].float()
            difference = torch.unflatten(q, 1, (groups, self.group)).sub_(zeros[..., None])
            own = torch.unflatten(out[a - start : b - start], 1, (groups, self.group))
            torch.mul(difference, scales[..., None], out=own)
