"""Is pairprobe's AWQ dequantiser AutoAWQ's, bit for bit? Random tensors of several shapes, on the CPU.

    PYTHONPATH=src .venv-paper/bin/python -W ignore paper/check_awq.py

AutoAWQ's own arithmetic (awq.utils.packing_utils.dequantize_gemm, which its WQLinear_GEMM uses without a GPU) gives
fp16; ours must give the same fp16, rounded once to float32 and bfloat16 elsewhere, for all rows and for part of them.
And tensors that AutoAWQ itself packs from a known matrix must come back as that matrix. Exit code 1 where anything
differs.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from pairprobe.checkpoints.formats import awq
from pairprobe.checkpoints.headers import Tensor

with warnings.catch_warnings(record=True):  # a page on its deprecation, whatever -W says
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

#: (out, in, columns that share a scale); the last has an odd number of groups
CASES = (
    (8, 16, 16),
    (24, 64, 32),
    (136, 192, 64),
    (256, 384, 128),
    (512, 512, 512),
    (1024, 1024, 128),
    (128, 3712, 128),
)


def stored(parts: dict[str, torch.Tensor]) -> dict[str, Tensor]:
    """What a file's header would say of these tensors."""
    names = {torch.int32: "I32", torch.float16: "F16"}
    return {n: Tensor(Path("x"), names[t.dtype], tuple(t.shape), t.nbytes) for n, t in parts.items()}


def ours(parts: dict[str, torch.Tensor], group: int, dtype: torch.dtype, start: int, stop: int) -> torch.Tensor:
    """Rows start … stop [stop − start, in] in `dtype`, by pairprobe."""
    declared = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    weight = awq.recognise("check", stored(parts), declared)
    if weight is None:
        raise SystemExit("pairprobe does not take these tensors for AWQ")
    out = torch.full((stop - start, weight.shape[1]), torch.nan, dtype=dtype)
    factor = weight.rows(parts, start, stop, out)
    return out if factor is None else (out.float() * factor[:, None]).to(dtype)


def random_parts(out: int, wide: int, group: int, seed: int) -> dict[str, torch.Tensor]:
    """Any words are valid; scales between 2⁻¹⁰ and 2⁻⁴."""
    random = torch.Generator().manual_seed(seed)

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, generator=random)

    scales = torch.exp2(-4 - 6 * torch.rand(wide // group, out, generator=random)).half()
    return {"qweight": words(wide, out // 8), "qzeros": words(wide // group, out // 8), "scales": scales}


def packed_by_autoawq(out: int, wide: int, group: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Tensors that AutoAWQ packs from q, z and s that we know, and the float32 matrix (q − z) · s."""
    random = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 16, (out, wide), generator=random)
    z = torch.randint(0, 16, (out, wide // group), generator=random)
    s = torch.exp2(torch.randint(-10, -4, (out, wide // group), generator=random).float())
    values = (q - z.repeat_interleave(group, 1)) * s.repeat_interleave(group, 1)
    linear = torch.nn.Linear(wide, out, bias=False)
    linear.weight.data = values
    made = WQLinear_GEMM.from_linear(linear, 4, group, scales=s.T.contiguous(), zeros=z.T.contiguous().float())
    return {name: getattr(made, name) for name in ("qweight", "qzeros", "scales")}, values


def main() -> int:
    torch.set_num_threads(1)
    wrong = 0
    for seed, (out, wide, group) in enumerate(CASES):
        parts = random_parts(out, wide, group, seed)
        theirs = dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], 4, group).T  # [out, in] fp16
        part = (8 if out > 8 else 0, out)
        same = torch.equal(
            ours(parts, group, torch.float16, 0, out).view(torch.int16), theirs.contiguous().view(torch.int16)
        )
        same &= torch.equal(ours(parts, group, torch.float16, *part), theirs[part[0] : part[1]])
        whole = ours(parts, group, torch.float32, 0, out)
        same &= torch.equal(whole.half(), theirs)  # theirs is ours, rounded
        same &= torch.equal(ours(parts, group, torch.bfloat16, 0, out), whole.bfloat16())
        if out % 32 == 0:  # its packer drops what is left over
            packed, values = packed_by_autoawq(out, wide, group, seed)
            same &= torch.equal(ours(packed, group, torch.float32, 0, out), values)
        wrong += not same
        largest = float((ours(parts, group, torch.float16, 0, out).float() - theirs.float()).abs().max())
        print(f"[{out}, {wide}] groups of {group}: {'same' if same else 'DIFFERENT'} (largest difference {largest})")
    print(f"{len(CASES) - wrong} of {len(CASES)} shapes are AutoAWQ's, bit for bit.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
