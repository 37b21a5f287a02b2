"""Converts a model to every layout, loads it with the runtime's own client, and compares logits with our decoding.

Ours are those of the folder that `convert-model unpack` makes of the converted one, in float32. A row is good if the
client's logits differ by at most 1e-3 of the largest (3e-2 where the client computes in 16 bits) and pick the same token on 99.9 % of the
positions (99 % in 16 bits, where near ties fall either way).

Run:    python layouts.py PROGRAM MODEL TEXT [ROW ...]    prints a table in Markdown
Needs:  transformers 5.23.0, torch 2.15.0, compressed-tensors, bitsandbytes 0.50.2, gptqmodel 7.7.0, optimum,
        accelerate, mlx 0.32.4 with mlx-cpu, mlx-lm 0.32.2
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.update(CUDA_VISIBLE_DEVICES="", TORCHDYNAMO_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch

WINDOW, WINDOWS = 128, 4


def transformers(folder, ids, dtype=torch.float32, **options):
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, device_map="cpu", dtype=dtype, output_loading_info=True, **options)
    bad = {k: sorted(v)[:3] for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if bad:
        raise RuntimeError(f"tensors not as expected: {bad}")
    with torch.no_grad():
        return model(ids).logits.float()


def dequantizing(folder, ids):
    from transformers import CompressedTensorsConfig
    return transformers(folder, ids, quantization_config=CompressedTensorsConfig(dequantize=True))


def half(folder, ids):
    return transformers(folder, ids, torch.float16)


def brain(folder, ids):
    return transformers(folder, ids, torch.bfloat16)


def gptqmodel(folder, ids):
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(str(folder), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16)
    with torch.no_grad():
        return model.model(ids).logits.float()


def awq(folder, ids):
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(str(folder), backend=BACKEND.AWQ_TORCH, device="cpu", dtype=torch.float16)
    with torch.no_grad():
        return model.model(ids).logits.float()


def mlx(folder, ids):
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_model
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder))
    logits = [np.array(model(mx.array(row[None].tolist())).astype(mx.float32)) for row in ids]
    return torch.from_numpy(np.concatenate(logits))


AFFINE = [("absmax", "sym"), ("zero-point", "asym")]
# name, options, client, whether it computes in 16 bits
ROWS = [(f"pack-quantized W{b}A16 {kind} g{g}", ["--layout", "pack-quantized", "-m", method, "-b", str(b), "-g", g],
         transformers if kind == "sym" else dequantizing, False)
        for b in (4, 8) for method, kind in AFFINE for g in ("64", "row")]
ROWS += [("pack-quantized W4A16 gptq g64", ["--layout", "pack-quantized", "-m", "gptq", "-g", "64", "--samples", "8", "--sequence-length", "128"], transformers, False)]
ROWS += [(f"gptq W{b} sym g64", ["--layout", "gptq", "-m", "absmax", "-b", str(b), "-g", "64"], gptqmodel, True) for b in (2, 3, 4, 8)]
ROWS += [(f"gptq_v2 W{b} asym g64", ["--layout", "gptq_v2", "-m", "zero-point", "-b", str(b), "-g", "64"], gptqmodel, True) for b in (2, 3, 4, 8)]
ROWS += [("gptq W4 sym g64, transformers", ["--layout", "gptq", "-m", "absmax", "-b", "4", "-g", "64"], brain, True)]
ROWS += [(f"awq W4 {kind} g64", ["--layout", "awq", "-m", method, "-b", "4", "-g", "64"], awq, True) for method, kind in AFFINE]
ROWS += [(f"bitsandbytes {m}{' double' if d else ''}", ["--layout", "bitsandbytes", "-m", m] + d, transformers, False)
         for m in ("nf4", "fp4") for d in ([], ["--double-quantization"])]
ROWS += [("bitsandbytes int8", ["--layout", "bitsandbytes", "-m", "absmax"], transformers, True)]
ROWS += [(f"mlx W{b} g64", ["--layout", "mlx", "-m", "zero-point", "-b", str(b), "-g", "64"], mlx, True) for b in (2, 3, 4, 5, 6, 8)]
ROWS += [(f"mlx W4 g{g}", ["--layout", "mlx", "-m", "zero-point", "-b", "4", "-g", g], mlx, True) for g in ("32", "128")]
ROWS += [("mlx W4 g64, embeddings", ["--layout", "mlx", "-m", "zero-point", "-b", "4", "-g", "64", "--include", "*embed_tokens.weight", "--include", "lm_head.weight"], mlx, True)]
ROWS += [("int-quantized W8A8", ["--layout", "int-quantized"], transformers, True),
         ("float-quantized W8A8", ["--layout", "float-quantized"], transformers, True),
         ("mxfp4-pack-quantized", ["--layout", "mxfp4-pack-quantized"], brain, True),
         ("nvfp4-pack-quantized", ["--layout", "nvfp4-pack-quantized"], brain, True)]


def in_float32(folder, scratch):
    """The same folder declaring float32, so that unpacking rounds nothing."""
    copy = scratch / "float32"
    copy.mkdir()
    for file in folder.iterdir():
        if file.name != "config.json":
            (copy / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def main():
    program, model, text, *wanted = sys.argv[1:]
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = torch.tensor(tokenizer(Path(text).read_text()[:20000], add_special_tokens=False)["input_ids"][:WINDOW * WINDOWS]).reshape(WINDOWS, WINDOW)
    print("| layout and scheme | client | largest difference | same token | |\n| --- | --- | --- | --- | --- |")
    failed = False
    for name, options, client, is_half in ROWS:
        if wanted and not any(w in name for w in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            out, dense = scratch / "out", scratch / "dense"
            try:
                subprocess.run([program, model, "-o", out, *options], check=True, capture_output=True, text=True)
                subprocess.run([program, "unpack", in_float32(out, scratch), "-o", dense], check=True, capture_output=True, text=True)
                ours = transformers(dense, ids)
                theirs = client(out, ids)
                difference = float((ours - theirs).abs().max() / ours.abs().max())
                agreement = float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())
                good = difference <= (3e-2 if is_half else 1e-3) and agreement >= (0.99 if is_half else 0.999)
                print(f"| {name} | {client.__name__} | {difference:.1e} | {100 * agreement:.1f} % | {'good' if good else 'BAD'} |", flush=True)
            except subprocess.CalledProcessError as error:
                good = False
                print(f"| {name} | {client.__name__} | | | {error.stderr.strip()[-300:]} |", flush=True)
            except Exception as error:
                good = False
                print(f"| {name} | {client.__name__} | | | {type(error).__name__}: {str(error)[:300]} |", flush=True)
            failed |= not good
    sys.exit(failed)


if __name__ == "__main__":
    main()
