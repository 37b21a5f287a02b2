"""Converts a model to every layout, loads it with the runtime's own client, and compares logits with our decoding.

Ours are those of the folder that `convert-model unpack` makes of the converted one, run by transformers in float32. A row
is good if the client's logits differ by at most 1e-3 of the largest and pick the same token on 99.9 % of the positions.
Where the client computes in 16 bits, or quantizes activations as well, it is 3e-2 and 99 %, for near ties fall either
way; a row may state a bound and a reason of its own. `convert-model check` must say of each folder that its runtime loads it.

Run:    python layouts.py PROGRAM MODEL TEXT [--page FILE] [ROW ...]    writes a table in Markdown
Needs:  transformers 5.23.0, torch 2.15.0, compressed-tensors 0.19.0, bitsandbytes 0.50.2, gptqmodel 7.7.0, optimum 2.3.0,
        accelerate 1.15.0, mlx 0.32.4 with mlx-cpu, mlx-lm 0.32.2
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.update(CUDA_VISIBLE_DEVICES="", TORCHDYNAMO_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch

WINDOW, WINDOWS = 128, 4


def int8_tokens(x):
    """Inputs of a layer as compressed-tensors has them: a scale for each token, of 255 steps."""
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    return (x / scale).round().clamp(-128, 127) * scale


def fp8_tokens(x):
    scale = x.abs().amax(-1, keepdim=True) / 448
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def int8_beside_outliers(x):
    """Inputs as LLM.int8() has them: columns that reach 6 stay; the rest has a scale for each token, from all values below."""
    half = x.half().float()
    large = half.abs() >= 6
    largest = half.masked_fill(large, 0).abs().amax(-1, keepdim=True)
    return torch.where(large.flatten(0, -2).any(0), x, (half * (127 / largest)).round() * largest / 127)


def ours(dense, ids, activations):
    """Logits of our decoding, with the inputs of quantized layers rounded as the client rounds them."""
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(dense, device_map="cpu", dtype=torch.float32)
    if activations:
        for module in model.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: (activations(inputs[0]),))
    with torch.no_grad():
        return model(ids).logits.float()


def transformers(folder, ids, dtype=torch.float32, change=None, **options):
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, device_map="cpu", dtype=dtype, output_loading_info=True, **options)
    bad = {k: sorted(v)[:3] for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if bad:
        raise RuntimeError(f"tensors not as expected: {bad}")
    if change:
        change(model)
    with torch.no_grad():
        return model(ids).logits.float()


def dequantizing(folder, ids):
    from transformers import CompressedTensorsConfig
    return transformers(folder, ids, quantization_config=CompressedTensorsConfig(dequantize=True))


def in_single(model):
    """With all in float32: transformers leaves bitsandbytes' models, and their products, in the type of the folder."""
    for part in [*model.parameters(), *model.buffers()]:
        if part.is_floating_point():
            part.data = part.data.float()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32


def bitsandbytes(folder, ids):
    return transformers(folder, ids, change=in_single)


def training(folder, ids):
    """In training mode bitsandbytes' int8 layers decode their weights and leave activations alone."""
    return transformers(folder, ids, change=lambda model: in_single(model.train()))


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


class Row:
    def __init__(self, name, options, client, runtime, rounds="", activations=None, bound=None):
        """`rounds`: why the client is not exact; `activations`: how it rounds them, for ours to do the same; `bound`:
        largest difference and smallest agreement, if not the usual."""
        self.name, self.options, self.client, self.runtime, self.rounds = name, options.split(), client, runtime, rounds
        self.activations = activations
        self.bound = bound or ((3e-2, 0.99) if rounds else (1e-3, 0.999))


HALF, BRAIN, SIXTEEN = "computes in float16", "computes in bfloat16", "computes in 16 bits"
TOKENS = "activations in 8 bits, in ours too"
AFFINE = [("absmax", "sym"), ("zero-point", "asym")]
FEW = "--samples 8 --sequence-length 128"
ROWS = [Row(f"pack-quantized W{b}A16 {kind} {g}", f"--layout pack-quantized -m {m} -b {b} -g {g}",
            transformers if kind == "sym" else dequantizing, "transformers")
        for b in (4, 8) for m, kind in AFFINE for g in ("64", "row")]
ROWS += [
    Row("pack-quantized W4A16 GPTQ 64", f"--layout pack-quantized -m gptq -g 64 {FEW}", transformers, "transformers"),
    Row("int-quantized W8A8", "--layout int-quantized", transformers, "transformers", TOKENS, int8_tokens),
    Row("int-quantized W8A8 smoothed", f"--layout int-quantized --scaling smooth {FEW}", transformers, "transformers",
        TOKENS, int8_tokens),
    Row("int-quantized, weights alone", "--layout int-quantized", dequantizing, "transformers"),
    Row("float-quantized W8A8", "--layout float-quantized", transformers, "transformers", TOKENS, fp8_tokens),
    Row("float-quantized, weights alone", "--layout float-quantized", dequantizing, "transformers"),
    Row("mxfp4-pack-quantized", "--layout mxfp4-pack-quantized", brain, "transformers", BRAIN),
    Row("nvfp4-pack-quantized", "--layout nvfp4-pack-quantized", brain, "transformers", BRAIN),
]
ROWS += [Row(f"gptq W{b} sym 64", f"--layout gptq -m absmax -b {b} -g 64", gptqmodel, "gptqmodel", HALF) for b in (2, 3, 4, 8)]
ROWS += [Row("gptq W4 GPTQ 64", f"--layout gptq -g 64 {FEW}", gptqmodel, "gptqmodel", HALF),
         Row("gptq W4 sym 64, transformers", "--layout gptq -m absmax -b 4 -g 64", brain, "transformers", BRAIN)]
ROWS += [Row(f"gptq_v2 W{b} asym 64", f"--layout gptq_v2 -m zero-point -b {b} -g 64", gptqmodel, "gptqmodel", HALF)
         for b in (2, 3, 4, 8)]
ROWS += [Row(f"awq W4 {kind} 64", f"--layout awq -m {m} -b 4 -g 64", awq, "gptqmodel", HALF) for m, kind in AFFINE]
ROWS += [Row("awq W4 AWQ 64", f"--layout awq -g 64 {FEW}", awq, "gptqmodel", HALF),
         Row("awq W4 asym 64, mlx-lm", "--layout awq -m zero-point -b 4 -g 64", mlx, "mlx", SIXTEEN)]
ROWS += [Row(f"bitsandbytes {m} {d}".strip(), f"--layout bitsandbytes -m {m} {d and '--double-quantization'}", training,
             "transformers", "decodes to float32; ours to bfloat16, as the file says") for m in ("nf4", "fp4") for d in ("", "double")]
ROWS += [Row("bitsandbytes nf4, as configured", "--layout bitsandbytes -m nf4", transformers, "transformers", BRAIN),
         Row("bitsandbytes int8, weights alone", "--layout bitsandbytes -m absmax", training, "transformers")]
ROWS += [Row("bitsandbytes int8", "--layout bitsandbytes -m absmax", bitsandbytes, "transformers", TOKENS, int8_beside_outliers)]
ROWS += [Row(f"mlx W{b} 64", f"--layout mlx -m zero-point -b {b} -g 64", mlx, "mlx", SIXTEEN) for b in (2, 3, 4, 5, 6, 8)]
ROWS += [Row(f"mlx W4 {g}", f"--layout mlx -m zero-point -b 4 -g {g}", mlx, "mlx", SIXTEEN) for g in ("32", "128")]
ROWS += [Row("mlx W4 64, embeddings and head", "--layout mlx -m zero-point -b 4 -g 64 --include model.embed_tokens.weight"
             " --include lm_head.weight", mlx, "mlx", SIXTEEN),
         Row("mlx W4 GPTQ 64", f"--layout mlx -m gptq -b 4 -g 64 {FEW}", mlx, "mlx", SIXTEEN)]

NOT_RUN = """
Not run:

| client | why | what stands in for it |
| --- | --- | --- |
| vLLM, SGLang, TensorRT-LLM | their kernels need a GPU | the files are those of compressed-tensors' and GPTQModel's own loaders above; `check --runtime vllm` knows what vLLM takes |
| AutoAWQ | no longer maintained, and transformers has left it for GPTQModel | GPTQModel's reader of AutoAWQ's layout, mlx-lm's |
| llama.cpp | reads GGUF alone | see [GGUF.md](GGUF.md) |
"""


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


def check(program, out, row):
    """What `check` has against the folder; nothing, if it is right."""
    result = subprocess.run([program, "check", out, "--runtime", row.runtime], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError("check: " + (result.stdout + result.stderr).strip()[:300])


def run(program, model, ids, row):
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        out, dense = scratch / "out", scratch / "dense"
        subprocess.run([program, model, "-o", out, *row.options], check=True, capture_output=True, text=True)
        check(program, out, row)
        subprocess.run([program, "unpack", in_float32(out, scratch), "-o", dense], check=True, capture_output=True, text=True)
        expected = ours(dense, ids, row.activations)
        found = row.client(out, ids)
        return (float((expected - found).abs().max() / expected.abs().max()),
                float((expected.argmax(-1) == found.argmax(-1)).float().mean()))


CLIENTS = {transformers: "transformers", dequantizing: "transformers, `dequantize=True`", brain: "transformers, bfloat16",
           gptqmodel: "GPTQModel, torch", awq: "GPTQModel, AWQ torch", mlx: "mlx-lm",
           bitsandbytes: "transformers, all in float32", training: "transformers, all in float32, training mode"}


def main():
    program, model, text, *wanted = sys.argv[1:]
    page = None
    if "--page" in wanted:
        index = wanted.index("--page")
        page = wanted[index + 1]
        del wanted[index:index + 2]
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(Path(text).read_text()[:20000], add_special_tokens=False)["input_ids"][:WINDOW * WINDOWS]
    ids = torch.tensor(ids).reshape(WINDOWS, WINDOW)
    lines = ["| layout and scheme | options | client | largest difference | same token | |", "| --- | --- | --- | --- | --- | --- |"]
    print("\n".join(lines))
    failed = False
    for row in ROWS:
        if wanted and not any(w in row.name for w in wanted):
            continue
        try:
            difference, agreement = run(program, model, ids, row)
            good = difference <= row.bound[0] and agreement >= row.bound[1]
            verdict = ("good" if good else f"BAD: above {row.bound[0]:g} or below {100 * row.bound[1]:g} %")
            figures = f"{difference:.1e} | {100 * agreement:.1f} % | {verdict}{'; ' + row.rounds if row.rounds else ''}"
        except subprocess.CalledProcessError as error:
            good, figures = False, f"| | {' '.join(error.stderr.split())[-300:]}"
        except Exception as error:
            good, figures = False, f"| | {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        lines.append(f"| {row.name} | `{' '.join(row.options)}` | {CLIENTS[row.client]} | {figures} |")
        print(lines[-1], flush=True)
        failed |= not good
    if page:
        clients = ["transformers", "torch", "compressed-tensors", "bitsandbytes", "gptqmodel", "mlx", "mlx-lm"]
        Path(page).write_text(f"""# The layouts in their own clients

Written by `make interop PEER=PYTHON`, which runs `Tests/Interop/layouts.py`. {Path(model).name} is converted with the options
of each row, loaded by the runtime's own client on the CPU, and run over {ids.numel():,} tokens; `convert-model check` said before
that it would load. The largest difference is that of all logits from those of the folder that `unpack` makes of the same
files, run in float32 by transformers, as a share of the largest logit. Good is at most 1e-3 and the same token at 99.9 % of
the positions; where the client rounds, as the last column says, 3e-2 and 99 %.

Clients: {', '.join(f'{c} {version(c)}' for c in clients)}. What is compared is the client's decoding of our files, not its speed.

""" + "\n".join(lines) + "\n" + NOT_RUN)
    sys.exit(failed)


if __name__ == "__main__":
    main()
