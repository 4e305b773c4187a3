"""GPTQ, as AutoGPTQ and GPTQModel write it: 2, 3, 4 or 8 bits, W[o, i] = (q − z) · s of the group of i.

qweight I32 [in · bits / 32, out], packed down the inputs; qzeros I32 [in / g, out · bits / 32]; scales [in / g, out];
g_idx [in], the group of each input (in order of activation, groups are no runs of inputs). Zero points are stored
less 1, wrapped to their bits (version 1, `checkpoint_format: gptq`), or as they are (gptq_v2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pairprobe.checkpoints import packing
from pairprobe.checkpoints.declared import boolean, unlike
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight
from pairprobe.errors import CheckpointError, Misdeclared

if TYPE_CHECKING:
    import torch

#: What `checkpoint_format` calls the layouts that are read; absent means the first.
VERSIONS = {
    "gptq": 1, "gptq_v2": 0,  # → what to add to stored zero points
    "auto_round:auto_gptq": 1, "auto_round:gptqmodel": 0, "auto_round": 0,  # AutoRound's `packing_format`
}  # fmt: skip

#: Inputs in a group, as GPTQ's tools make them.
USUAL = (16, 32, 64, 128, 256, 512, 1024)


def recognise(module: str, tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> Weight | None:
    if packing.layout(module, tensors, quantisation) != "gptq":
        return None
    parts = {name: tensors[name] for name in ("qweight", "qzeros", "scales")}
    out, groups = parts["scales"].shape[1], parts["scales"].shape[0]
    by_activation = boolean(quantisation, "desc_act", "desc_act", default=False)
    index = tensors.get("g_idx")
    if index is not None:
        if index.dtype not in ("I32", "I64") or len(index.shape) != 1:
            raise CheckpointError(f"{module}.g_idx is {index.dtype} {list(index.shape)}; allowed: I32 or I64, [in].")
        parts["g_idx"] = index
    elif groups > 1 and by_activation and not boolean(quantisation, "static_groups", "static_groups", default=False):
        # with static_groups, or one group for all, the order of activation moves no column to another group
        raise CheckpointError(
            f"{module}.g_idx is missing: by the config (desc_act) columns went to the {groups} groups in order of "
            "activation, and nothing else says which went where.",
            "Get the repository again, or another conversion of this model: GPTQ's own tools write g_idx.",
        )
    bits = _bits(module, parts, quantisation.get("bits"))
    width = index.shape[0] if index is not None else parts["qweight"].shape[0] * 32 // bits
    group = _group(module, width, groups, quantisation.get("group_size"), index is not None)
    return Gptq(
        shape=(out, width),
        parts=parts,
        step=32 // math.gcd(bits, 32),
        unlike=unlike(quantisation, "bits", bits) + unlike(quantisation, "group_size", group, width),
        module=module,
        bits_each=bits,
        group=group,
        full=group if group == quantisation.get("group_size") else None,
        add=_added(quantisation),
        format=f"GPTQ {bits} bit, groups of {group}" + (", by activation" if by_activation else ""),
    )


def _bits(module: str, parts: Mapping[str, Tensor], declared: Any) -> int:
    """Bits of a value: those with which every shape fits; where several do, those the config declares."""
    out, stored = parts["scales"].shape[1], parts["qweight"].shape[0]
    fitting = [b for b in packing.GPTQ_BITS if packing.words(out, b) == parts["qzeros"].shape[1]]
    if "g_idx" in parts:
        fitting = [b for b in fitting if packing.words(parts["g_idx"].shape[0], b) == stored]
    fitting = [b for b in fitting if stored % (b // math.gcd(b, 32)) == 0]
    if len(fitting) > 1 and declared in fitting:
        return int(declared)
    if len(fitting) != 1:
        shapes = ", ".join(f"{n} {list(t.shape)}" for n, t in parts.items())
        raise CheckpointError(
            f"{module}: {shapes} fit GPTQ with {' or '.join(map(str, fitting)) or 'no number of'} bits; "
            f"the config says bits {declared}."
        )
    return fitting[0]


def _group(module: str, width: int, groups: int, declared: Any, indexed: bool) -> int:
    """Inputs in a group: what the config declares where that gives as many groups as are stored, else their share."""
    if isinstance(declared, int) and declared > 0 and -(-width // declared) == groups:
        return declared
    share = -(-width // groups)
    usual = {g for g in USUAL if g < width and -(-width // g) == groups}
    if indexed or (width % groups == 0 and (declared is None or usual <= {share})):
        return share
    if width % groups == 0:  # 384 inputs in 2 groups: of 192, or of 256 and of 128 that are left
        fitting = ", ".join(map(str, sorted({share, *usual})))
        raise CheckpointError(
            f"{module}: {width} inputs in {groups} groups may be in groups of {fitting}; the config's group_size, "
            f"which should tell, is {declared}."
        )
    raise CheckpointError(
        f"{module}: {width} inputs cannot be shared out to {groups} groups; the config says group_size {declared}."
    )


def _added(quantisation: Mapping[str, Any]) -> int:
    key = "checkpoint_format" if quantisation.get("packing_format") is None else "packing_format"
    version = quantisation.get(key)
    if version is None:
        version = "gptq"
    if not isinstance(version, str) or version not in VERSIONS:
        raise Misdeclared(
            f"config.json, quantization_config: {key} is '{version}'; of GPTQ's, {', '.join(VERSIONS)} are read.",
            "Take the same model's GPTQ checkpoint of one of these.",
        )
    return VERSIONS[version]


@dataclass(frozen=True, kw_only=True)
class Gptq(Weight):
    """[out, in], stored with the inputs as rows. module: what errors call it. group: inputs that share a scale and a
    zero point, in runs of so many unless the part g_idx says otherwise. full: how many every group but the last has by
    the config, None where it does not say. add: to stored zero points."""

    module: str
    bits_each: int
    group: int
    full: int | None
    add: int
    transposed: ClassVar[bool] = True

    def rows(self, parts: Mapping[str, torch.Tensor], start: int, stop: int, out: torch.Tensor) -> None:
        import torch

        bits, g, width = self.bits_each, self.group, self.shape[1]
        packed = parts["qzeros"][:, start * bits // 32 : packing.words(stop, bits)]
        zeros = packing.across(packed, bits, stop - start)
        # A zero point of 0 is stored as all ones: the addition wraps, as AutoGPTQ's own does.
        wide = torch.int16 if bits == 8 else torch.int8
        zeros = ((zeros + self.add) & (2**bits - 1)).to(wide)
        scales = parts["scales"][:, start:stop].float()
        qweight = parts["qweight"][:, start:stop]
        tile = out.t()  # [in, rows]
        groups = torch.arange(width, device=out.device) // g
        runs = width % g == 0 and (stored := parts.get("g_idx", groups)).equal(groups.to(stored.dtype))
        if "g_idx" in parts and not runs:
            groups = self._checked(parts["g_idx"], len(scales))
        unit = math.lcm(32, g) if runs else 32  # whole words, and whole groups where these are runs
        step = unit * packing.at_a_time(qweight, unit, stop - start)
        for a in range(0, width, step):
            b = min(a + step, width)
            q = packing.down(qweight[a * bits // 32 : packing.words(b, bits)], bits, b - a).to(wide)
            if runs:
                own, shape = slice(a // g, b // g), ((b - a) // g, g)
                difference = torch.unflatten(q, 0, shape).sub_(zeros[own, None])
                torch.mul(difference, scales[own, None], out=torch.unflatten(tile[a:b], 0, shape))
            else:
                torch.mul(q.sub_(zeros[groups[a:b]]), scales[groups[a:b]], out=tile[a:b])

    def _checked(self, index: torch.Tensor, groups: int) -> torch.Tensor:
        """The group of each input, int64 [in]. Raises CheckpointError for a group that is not stored, that no input is
        in, or that more or fewer are in than a group has."""
        tensor = self.parts["g_idx"]
        what = f"{tensor.file.name}: {self.module}.g_idx [{tensor.shape[0]}]"
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= groups:
            raise CheckpointError(
                f"{what} holds {low if low < 0 else high}; allowed: 0 to {groups - 1}.", "Download this file again."
            )
        index = index.long()
        counts = index.bincount(minlength=groups).tolist()
        # undeclared, a group's share is a guess: 384 columns in 2 groups may be 256 and 128
        wrong = [_ill_filled(counts, full) for full in ((self.full,) if self.full else (self.group, max(counts)))]
        if None not in wrong:
            group = wrong[0] or 0
            raise CheckpointError(
                f"{what} puts {counts[group] or 'no'} columns into group {group}; due were {self.full or self.group} "
                f"in each of the {groups} groups, in the last perhaps fewer.",
                "Download this file again, or take another conversion of this model.",
            )
        return index


def _ill_filled(counts: Sequence[int], full: int) -> int | None:
    """The first group that has not `full` columns, or, the last, 1 … `full`; None where there is none. counts: columns
    of each group."""
    last = len(counts) - 1
    return next((g for g, n in enumerate(counts) if n != full and not (g == last and 0 < n < full)), None)
