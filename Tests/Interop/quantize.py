"""Quantizes a GGUF file by llama.cpp and by ours, and compares what they wrote, tensor by tensor.

Run:    python quantize.py PROGRAM MODEL [MIX …]
Needs:  gguf 0.19.0, numpy, llama-cpp-python 0.3.36 (`environment FOLDER --llama`)

MODEL becomes an F16 file, from which both make each mix, without an imatrix. A row tells how many quantized tensors have the
same type and the same bytes and, of the rest, our squared error as a share of llama.cpp's: weighted as llama.cpp weighs
it while it searches (Q4_K and Q5_K by |x| + √(mean x²) of 32 values, Q2_K by |x|, others by x²), together and of the worst
tensor, and not weighted. Good is the same bytes for types without a search, and no larger error for the others.
"""

import ctypes
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

# This file lies beside one that is called as the package that it needs.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
gguf = importlib.import_module("gguf")
import llama_cpp
import numpy as np

MIXES = {"Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13,
         "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}
PLAIN = {"F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}


def quantize(source, target, number):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = 2, number
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters):
        sys.exit(f"llama.cpp does not quantize {source}")


def weights(x, kind):
    if kind in ("Q4_K", "Q5_K"):
        blocks = x.reshape(-1, 32)
        return (np.abs(blocks) + np.sqrt((blocks**2).mean(-1, keepdims=True))).reshape(-1)
    return np.abs(x) if kind == "Q2_K" else x**2


def values(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(-1)


def compare(source, own, peer):
    """Tensors, those of the same type, those of the same bytes, and of the others sums of squared errors."""
    original = {t.name: t for t in gguf.GGUFReader(source).tensors}
    theirs = {t.name: t for t in gguf.GGUFReader(peer).tensors}
    counts, errors, plain = [0, 0, 0], [], True
    for tensor in gguf.GGUFReader(own).tensors:
        other, kind = theirs[tensor.name], tensor.tensor_type.name
        if kind == "F32":
            continue
        same = kind == other.tensor_type.name
        equal = same and np.array_equal(tensor.data, other.data)
        counts = [counts[0] + 1, counts[1] + same, counts[2] + equal]
        if equal or not same:
            continue
        plain &= kind not in PLAIN
        x = values(original[tensor.name])
        squares = [(x - values(t)) ** 2 for t in (tensor, other)]
        w = weights(x, kind)
        errors.append([(w * s).sum() for s in squares] + [s.sum() for s in squares])
    return counts, np.array(errors).reshape(-1, 4), plain


def main():
    program, model, *wanted = sys.argv[1:]
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    print("| mix | quantized tensors | of the same type | of the same bytes | weighted error, share of llama.cpp's | of the worst"
          " tensor | not weighted | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        source, own, peer = (Path(folder) / name for name in ("f16.gguf", "own.gguf", "peer.gguf"))
        subprocess.run([program, model, "-o", source, "--type", "F16"], check=True, capture_output=True)
        for mix in wanted or MIXES:
            quantize(source, peer, MIXES[mix])
            subprocess.run([program, source, "-o", own, "--type", mix, "--overwrite"], check=True, capture_output=True)
            (count, types, equal), errors, plain = compare(source, own, peer)
            figures, good = "| | | |", plain and types == count
            if len(errors):
                sums = errors.sum(0)
                good &= sums[0] <= sums[1]
                figures = f"| {sums[0] / sums[1]:.3f} | {(errors[:, 0] / errors[:, 1]).max():.3f} | {sums[2] / sums[3]:.3f} |"
            print(f"| {mix} | {count} | {types} | {equal} {figures} {'good' if good else 'BAD'} |", flush=True)
            failed |= not good
    sys.exit(failed)


if __name__ == "__main__":
    main()
