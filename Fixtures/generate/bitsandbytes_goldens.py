"""Makes ../goldens/bitsandbytes: what bitsandbytes itself writes for known weights.

goldens.safetensors holds, for each case listed in cases.json,
  <case>.codes          U8  [bytes, 1]   packed, the first value in the high half of a byte
  <case>.absmax         F32, or U8 with double quantization
  <case>.nested_absmax  F32, <case>.nested_offset F32 [1]   only with double quantization
  <case>.dequantized    F32              only where cases.json says so, for the larger ones take room
and once: nested_quant_map, nf4_levels, fp4_levels, and the inputs made here,
`ragged.input`, `spanning.input` and `edges.input`. cases.json has the SHA-256 of
every dequantized tensor (little-endian F32), stored or not.

Dequantized values come from the plain PyTorch code inside bitsandbytes. Its
compiled AVX-512 code, which dequantize_4bit uses, gives wrong values (and not
always the same ones) where the row length is a multiple of 32 but not of the
block size; the script prints where the two differ.

stories5M.json has SHA-256 sums for a larger model, if the folder
shared/models/stories5M lies beside the checkout.

Run:    python bitsandbytes_goldens.py    (after tiny_llama.py; a minute)
Needs:  bitsandbytes 0.50.2, torch 2.15.0, safetensors 0.8.0, on an x86-64 CPU
"""

import hashlib
import json
import math
import os
import random
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TORCHDYNAMO_DISABLE="1")

import bitsandbytes
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise, get_4bit_type, quantize_4bit
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "tiny-llama"
LARGER = HERE.parents[2] / "shared" / "models" / "stories5M"
OUT = HERE.parent / "goldens" / "bitsandbytes"
PEER = "bitsandbytes 0.50.2"
SEED = 22
TENSORS = {
    "q_proj0": "model.layers.0.self_attn.q_proj.weight",
    "down_proj1": "model.layers.1.mlp.down_proj.weight",
    "gate_proj2": "model.layers.2.mlp.gate_proj.weight",
}
LEVELS = {kind: get_4bit_type(kind, device="cpu") for kind in ("nf4", "fp4")}


def load(folder):
    """Every tensor of a checkpoint, as float32."""
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(shard))
    return {name: tensor.float() for name, tensor in tensors.items()}


def sha256(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def normal(seed, *shape):
    """Normal numbers from Python's own generator: torch's differ between processors."""
    source = random.Random(seed)
    return torch.tensor([source.gauss(0, 1) for _ in range(math.prod(shape))], dtype=torch.float32).reshape(shape)


def ragged():
    """259 values: an odd count, and a last block of three."""
    return normal(SEED, 7, 37)


def spanning():
    """Blocks of 64 that begin in the middle of rows of 96."""
    return normal(SEED + 2, 5, 96)


def edges():
    """One block per row: zeros, the exact midpoints of both tables, tiny values, equal values, one outlier."""
    def midpoints(kind):
        sorted_levels = LEVELS[kind].sort().values
        return (sorted_levels[1:] + sorted_levels[:-1]) / 2

    rows = torch.zeros(7, 64)
    for row, kind in ((1, "nf4"), (2, "fp4")):
        values = midpoints(kind)
        rows[row, 0] = 1
        rows[row, 1:16] = values
        rows[row, 16:31] = torch.nextafter(values, torch.tensor(2.0))
        rows[row, 31:46] = torch.nextafter(values, torch.tensor(-2.0))
    rows[3] = (torch.arange(64) - 31.5) / 2 ** 15
    rows[3, 5] = 1
    rows[4] = -0.75
    rows[5] = 0.01 * normal(SEED + 1, 64)
    rows[5, 40] = -96
    rows[6, 63] = 2.0 ** -120
    return rows


def dequantize(codes, state):
    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    return _dequantize_4bit_compute(codes.reshape(-1), scales, state.code, state.blocksize, state.shape, torch.float32)


def main():
    assert PEER == f"bitsandbytes {bitsandbytes.__version__}", "another version would make other goldens"
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    weights = load(TINY)
    sources = {short: weights[name] for short, name in TENSORS.items()} 
    sources |= {"ragged": ragged(), "spanning": spanning(), "edges": edges()}
    stored = {f"{kind}_levels": levels for kind, levels in LEVELS.items()}
    stored |= {f"{short}.input": sources[short] for short in sources if short not in TENSORS}
    cases = []
    for short, weight in sources.items():
        for blocksize in (64, 128, 4096) if short == "q_proj0" else (64,):
            for kind in ("nf4", "fp4"):
                for double in (False, True):
                    case = f"{short}.{kind}.b{blocksize}" + (".double" if double else "")
                    codes, state = quantize_4bit(weight, blocksize=blocksize, quant_type=kind, compress_statistics=double)
                    back = dequantize(codes, state)
                    stored[f"{case}.codes"] = codes
                    stored[f"{case}.absmax"] = state.absmax
                    if double:
                        stored[f"{case}.nested_absmax"] = state.state2.absmax
                        stored[f"{case}.nested_offset"] = state.offset.reshape(1)
                        nested_map = stored.setdefault("nested_quant_map", state.state2.code)
                        assert torch.equal(nested_map, state.state2.code) and state.state2.blocksize == 256
                    keep = blocksize == 64 and weight.numel() <= 16384 and not (kind == "fp4" and double)
                    if keep:
                        stored[f"{case}.dequantized"] = back
                    cases.append({
                        "case": case, "tensor": TENSORS.get(short), "input": None if short in TENSORS else f"{short}.input",
                        "shape": list(weight.shape), "quant_type": kind, "blocksize": blocksize,
                        "double_quantization": double, "dequantized_stored": keep, "dequantized_sha256": sha256(back)})
                    if not torch.equal(back, dequantize_4bit(codes, state)):
                        print(f"{case}: the compiled kernel dequantizes to other values")
    save_file({name: tensor.contiguous().clone() for name, tensor in stored.items()}, OUT / "goldens.safetensors",
              metadata={"peer": PEER})
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(f"{len(cases)} cases, {(OUT / 'goldens.safetensors').stat().st_size} bytes")

    if not LARGER.is_dir():
        print("shared/models/stories5M is not beside the checkout: stories5M.json left as it is")
        return
    sums = {}
    for name, weight in sorted(load(LARGER).items()):
        if weight.dim() == 2 and ".layers." in name:
            codes, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
            same, nested = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
            assert torch.equal(codes, same)
            sums[name] = {
                "shape": list(weight.shape), "codes_sha256": sha256(codes), "absmax_sha256": sha256(state.absmax),
                "double_absmax_sha256": sha256(nested.absmax), "nested_absmax_sha256": sha256(nested.state2.absmax),
                "nested_offset": nested.offset.item()}
    (OUT / "stories5M.json").write_text(json.dumps({
        "model": "stories5M", "peer": PEER, "quant_type": "nf4", "blocksize": 64, "tensors": sums}, indent=1) + "\n")
    print(f"stories5M: {len(sums)} tensors")


if __name__ == "__main__":
    main()
