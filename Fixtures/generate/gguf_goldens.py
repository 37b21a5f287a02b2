"""Makes ../gguf: blocks of every GGUF type as the `gguf` package decodes them, bytes as ggml encodes them, and the errors
of ggml's k-quants, which ours must not exceed.

Run:    python gguf_goldens.py LIBGGML
        LIBGGML: a shared library with ggml_quantize_chunk, such as libggml-base.so of llama-cpp-python
Needs:  Python 3.11, numpy, gguf 0.19.0, safetensors 0.8.0; ggml as in llama-cpp-python 0.3.36
"""

import ctypes
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / "gguf"
REFERENCE = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"]
SEARCHED = ["IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
ROWS, COLUMNS = 6, 512


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p) if array is not None else None


def encoded(library, type_, values, importance=None):
    shape = gguf.quants.quant_shape_to_byte_shape(values.shape, type_)
    target = np.zeros(shape, np.uint8)
    library.ggml_quantize_chunk(
        ctypes.c_int(int(type_)), pointer(values), pointer(target), ctypes.c_int64(0), ctypes.c_int64(values.shape[0]),
        ctypes.c_int64(values.shape[1]), pointer(importance))
    return target


def weights(name, x, importance):
    """What ggml itself counts an error of a value by."""
    x = x.astype(np.float64)
    means = lambda n: np.repeat((x.reshape(-1, n) ** 2).mean(1), n).reshape(x.shape)
    if importance is None:
        if name in ("Q4_K", "Q5_K"):
            return np.sqrt(means(32)) + abs(x)
        return abs(x) if name == "Q2_K" else x * x
    v = importance[None, :].astype(np.float64)
    if name == "Q6_K":
        return v + 0 * x
    if name in ("Q4_K", "Q5_K", "Q3_K", "IQ4_XS"):
        return v * np.sqrt(2 * means(256) + x * x)
    if name == "Q2_K":
        return v * np.sqrt(means(256) + x * x)
    if name == "IQ4_NL":
        return v * np.sqrt(2 * means(32) + x * x)
    return v * np.sqrt((x**2).mean(1, keepdims=True) + x * x)


def main():
    library = ctypes.CDLL(sys.argv[1], mode=1)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    OUT.mkdir(exist_ok=True)
    random = np.random.default_rng(50)
    values = (random.standard_t(5, (ROWS, COLUMNS)) * 0.02).astype(np.float32)
    values[1, 64:96] = 0  # a group of zeros
    values[2, 256:512] = 0  # a block of zeros
    values[3, :32] = 0.01  # equal values
    importance = (random.gamma(0.5, 1, COLUMNS) + 1e-4).astype(np.float32)
    tensors = {"values": values, "importance": importance}
    errors = {}
    for name in REFERENCE + SEARCHED:
        type_ = gguf.GGMLQuantizationType[name]
        plain = encoded(library, type_, values)
        if name in REFERENCE:
            tensors[f"{name}.bytes"] = plain
        weighted = None if name in ("Q8_0", "MXFP4") else encoded(library, type_, values, importance)
        for key, found, v in (("plain", plain, None), ("important", weighted, importance)):
            if found is None or (key == "plain" and name in REFERENCE):
                continue
            difference = gguf.dequantize(found, type_).astype(np.float64) - values
            errors.setdefault(name, {})[key] = float((weights(name, values, v) * difference**2).sum())
        # Any bytes decode to something; scales are kept finite.
        _, size = gguf.GGML_QUANT_SIZES[type_]
        blocks = random.integers(0, 256, (4, size), dtype=np.uint8)
        halves = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
                  "Q6_K": [208]}.get(name, [] if name == "MXFP4" else [0])
        for place in halves:
            blocks[:, place : place + 2] = random.normal(0, 0.01, (4, 1)).astype(np.float16).view(np.uint8)
        if name == "MXFP4":
            blocks[:, 0] = [0, 100, 127, 130]
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.decoded"] = gguf.dequantize(blocks, type_).astype(np.float32)
    save_file(tensors, OUT / "blocks.safetensors", metadata={"format": "pt"})
    (OUT / "errors.json").write_text(json.dumps(errors, indent=1) + "\n")


if __name__ == "__main__":
    main()
