"""Makes ../packed, a small folder in the packed format with every encoding in it, and ../packed-decoded.safetensors,
what read_packed.py, a reader that shares no code with the program, decodes it to.

The decoded values are F32 under the names of the source tensors: of the quantized ones as decoded, of the kept
ones with a floating-point type as widened. The kept integer is in ../packed only.

Run:    python packed_fixture.py PROGRAM      (PROGRAM: the convert-model to make the folder with; a second)
Needs:  Python 3.9, numpy
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from read_packed import load, widen

ROOT = Path(__file__).resolve().parent.parent
SEED = 31
# name, dtype, shape, and what --override says of it; None leaves it to the defaults: absmax, 8 bits, one F32 scale.
TENSORS = [
    # groups of 48, 48 and 4
    ("layers.0.absmax3.weight", "BF16", [4, 100], "method=absmax, bits=3, group-size=48, scale-type=f16"),
    ("layers.0.absmax8.weight", "F32", [4, 21], None),
    ("layers.0.zero5.weight", "F16", [5, 33], "method=zero-point, bits=5, group-size=row, scale-type=bf16"),
    # groups of 32 and 13
    ("layers.0.zero4.weight", "BF16", [5, 45], "method=zero-point, bits=4, group-size=32, scale-type=f16"),
    # groups of 40 and 32
    ("layers.0.hqq3.weight", "F32", [3, 72], "method=hqq, bits=3, group-size=40, scale-type=f16"),
    # 257 blocks, so that there are two block scales; blocks run over the ends of rows, the last one has 8 elements
    ("layers.0.nf4.weight", "BF16", [82, 100], "method=nf4, group-size=32, double-quantization=true"),
    # blocks of 64, 64 and 22
    ("layers.0.fp4.weight", "F16", [3, 50], "method=fp4, group-size=64, scale-type=f32"),
    ("embed_tokens.weight", "BF16", [8, 6], None),
    ("layers.0.zero5.bias", "F16", [5], None),
    ("step", "I64", [], None),
]
ZERO_ROWS = {"layers.0.absmax3.weight", "layers.0.zero5.weight", "layers.0.zero4.weight", "layers.0.nf4.weight"}


def write_container(path, tensors):
    """Writes name -> (dtype, shape, bytes) as a safetensors file, in the order given."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))


def source():
    random, tensors = np.random.RandomState(SEED), {}
    for name, dtype, shape, _ in TENSORS:
        count = math.prod(shape)
        values = (random.standard_normal(count) / 8).astype("<f4").reshape(shape)
        if name in ZERO_ROWS:
            values[1] = 0
        if name == "layers.0.zero4.weight":     # ranges that do not reach zero
            values[2], values[3] = abs(values[2]) + 1, -abs(values[3]) - 1
        data = {"BF16": lambda: (values.view("<u4") >> 16).astype("<u2"), "F16": lambda: values.astype("<f2"),
                "F32": lambda: values, "I64": lambda: np.array(1234567890123, "<i8")}[dtype]()
        tensors[name] = dtype, shape, data.tobytes()
    return tensors


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python packed_fixture.py PROGRAM")
    program, packed = Path(sys.argv[1]).resolve(), ROOT / "packed"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        checkpoint.mkdir()
        write_container(checkpoint / "model.safetensors", source())
        (checkpoint / "config.json").write_text('{"model_type": "none", "note": "a fixture, no model"}\n')
        overrides = [f"--override={name}: {options}" for name, _, _, options in TENSORS if options]
        shutil.rmtree(packed, ignore_errors=True)
        subprocess.run([program, checkpoint, "-o", packed, "--threads", "1", "--method", "absmax", "--bits", "8",
                        "--group-size", "tensor", "--scale-type", "f32", *overrides], check=True)
    decoded, values = {}, load(packed, check=True)
    for name, dtype, shape, _ in TENSORS:
        if dtype in ("F32", "F16", "BF16"):
            decoded[name] = "F32", shape, widen(values[name]).tobytes()
    write_container(ROOT / "packed-decoded.safetensors", decoded)


if __name__ == "__main__":
    main()
