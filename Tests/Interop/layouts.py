"""Converts a model to every layout, loads it with the runtime's own client, and compares logits with our decoding.

Ours are those of the folder that `convert-model unpack` makes of the converted one, run in the type that the client computes
in: by transformers, or by mlx-lm where a row says so. Of clients that cast to float32 on demand, that is asked for. A row is
good if the client's logits differ by at most 1e-3 of the largest and pick the same token on 99.9 % of the positions. What a
client rounds besides, inputs or scales, is rounded in ours too, and the row says so. `convert-model check` must say of each
folder that its runtime loads it.

Run:    python layouts.py PROGRAM MODEL TEXT [--page FILE] [--one-each] [ROW ...]    writes a table in Markdown
        --one-each: the first row of each layout in each client
Needs:  the packages of clients.txt, which `environment` installs
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

WINDOW, WINDOWS = 128, 16


# Products of layers whose inputs the client rounds, of our decoded weights, as the client computes them.

def int8_tokens(module, x):
    """compressed-tensors' int8 inputs: a scale for each token, of 255 steps."""
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    return torch.nn.functional.linear((x / scale).round().clamp(-128, 127) * scale, module.weight)


def fp8_tokens(module, x):
    scale = x.abs().amax(-1, keepdim=True) / 448
    return torch.nn.functional.linear((x / scale).to(torch.float8_e4m3fn).float() * scale, module.weight)


def inputs_first(module, x):
    """A product with the weight turned round, as GPTQModel has it: in 16 bits another order of sums."""
    return (x.flatten(0, -2) @ module.weight.T.contiguous()).view(*x.shape[:-1], -1)


def int8_beside_outliers(module, x):
    """LLM.int8(): columns that reach 6 stay; the rest has a scale for each token, and products of whole numbers, which are
    scaled in bitsandbytes' order, by its float32 of 1/127²: so every rounding is the same."""
    half = x.flatten(0, -2).half()
    large = half.abs() >= 6
    columns = large.any(0)
    half = half.masked_fill(large, 0)
    rows = half.abs().amax(-1, keepdim=True).to(x.dtype)
    codes = (half.to(x.dtype) * (127 / rows)).round().masked_fill(columns, 0)
    product = (codes @ module.codes.to(x.dtype).T) * (rows * module.largest.to(x.dtype)) * 6.200124e-05
    if columns.any():
        beside = module.codes[:, columns].to(x.dtype) * module.largest.to(x.dtype)[:, None] * 7.874015718698502e-3
        product = product.addmm(x.flatten(0, -2)[:, columns], beside.T)
    return product.view(*x.shape[:-1], -1)


def brain_kernel(module, x):
    """bitsandbytes' kernel for CPUs that multiply bfloat16, if this is one: over a block of inputs levels alone, two at a time, the second
    before the first; then the block's scale; all sums in float32, rounded to bfloat16 once."""
    from bitsandbytes.functional import has_avx512bf16
    if not has_avx512bf16():
        return torch.nn.functional.linear(x, module.weight)
    rows = x.flatten(0, -2).float()
    total = torch.zeros(len(rows), len(module.levels))
    for block, scales in enumerate(module.scales.T):
        part = torch.zeros_like(total)
        for pair in range(block * 64, block * 64 + 64, 2):
            for place in (pair + 1, pair):
                part.addcmul_(rows[:, place, None], module.levels[:, place])
        # In double, for sum and product are rounded together.
        total = (total.double() + part.double() * scales.double()).float()
    return total.to(x.dtype).view(*x.shape[:-1], -1)


# What else a client rounds of what is in the folder: of our decoded weights, in float32.

def codes_and_scales(module, weight, stored):
    """The codes of our weights, by bitsandbytes' scales."""
    module.largest = stored["SCB"]
    module.codes = (weight * (127 / module.largest)[:, None]).round()
    assert torch.allclose(module.codes * (module.largest / 127)[:, None], weight, rtol=1e-6, atol=0)


def in_brain_blocks(module, weight, stored):
    """Levels and scales of blocks of 64, in bfloat16."""
    from bitsandbytes.functional import get_4bit_type
    scales = stored["weight.absmax"][:, None]
    shares = weight.reshape(len(scales), -1) / scales
    levels = get_4bit_type("nf4", device="cpu")
    levels = levels[(shares[..., None] - levels).abs().argmin(-1)]
    assert torch.allclose(levels, shares, rtol=2**-8, atol=1e-6)  # they were rounded to the type of the weight
    module.levels = levels.bfloat16().float().reshape(weight.shape)
    module.scales = scales.bfloat16().float().reshape(len(weight), -1)


def with_half_offsets(module, weight, stored):
    """mlx-lm turns zero points into offsets, -scale * zero point, in the type of the scales."""
    words = stored["qzeros"].repeat_interleave(8, 1)
    places = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]).repeat(stored["qzeros"].shape[1])
    zeros = words.bitwise_right_shift(4 * places).bitwise_and(15)
    offsets = zeros * stored["scales"].float()
    change = (offsets - offsets.half().float()).repeat_interleave(weight.shape[1] // len(offsets), 0).T
    module.weight.data = (weight.double() + change.double()).float()


def tensors(folder):
    from safetensors.torch import load_file
    return {name: values for file in folder.glob("*.safetensors") for name, values in load_file(file).items()}


def stack_experts(dense):
    """Llama 4 has its experts in one tensor, inputs first, and without layouts of runtimes transformers asks for that."""
    found = tensors(dense)
    for prefix in {name.split(".experts.")[0] + ".experts." for name in found if ".feed_forward.experts." in name}:
        def stacked(part):
            names = [f"{prefix}{n}.{part}.weight" for n in range(sum(key.startswith(prefix) for key in found) // 3)]
            return torch.stack([found[name].T for name in names])
        parts = {part: stacked(part) for part in ("gate_proj", "up_proj", "down_proj")}
        found = {name: values for name, values in found.items() if not name.startswith(prefix)}
        found[prefix + "gate_up_proj"] = torch.cat([parts["gate_proj"], parts["up_proj"]], -1)
        found[prefix + "down_proj"] = parts["down_proj"]
        from safetensors.torch import save_file
        save_file(found, dense / "model.safetensors", metadata={"format": "pt"})


def ours(dense, ids, dtype, row, out):
    """Logits of our decoding."""
    from transformers import AutoModelForCausalLM
    stack_experts(dense)
    model = AutoModelForCausalLM.from_pretrained(dense, device_map="cpu", dtype=dtype)
    decoded, stored = (tensors(dense), tensors(out)) if row.rounding else ({}, {})
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        if row.rounding:
            own = {key.removeprefix(name + "."): values for key, values in stored.items() if key.startswith(name + ".")}
            row.rounding(module, decoded[name + ".weight"], own)
        if row.product:
            module.forward = lambda x, module=module: row.product(module, x)
    with torch.no_grad():
        return model(ids).logits


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
    """In training mode bitsandbytes' layers decode their weights; otherwise kernels of their own round inputs."""
    return transformers(folder, ids, change=lambda model: in_single(model.train()))


def training_brain(folder, ids):
    return transformers(folder, ids, torch.bfloat16, change=lambda model: model.train())


def brain(folder, ids):
    return transformers(folder, ids, torch.bfloat16)


def load_gptqmodel(folder, backend):
    from gptqmodel import BACKEND, GPTQModel
    return GPTQModel.load(str(folder), backend=getattr(BACKEND, backend), device="cpu", dtype=torch.float16).model


def gptqmodel(folder, ids):
    with torch.no_grad():
        return load_gptqmodel(folder, "TORCH")(ids).logits.float()


def gptqmodel_single(folder, ids):
    """Loaded in float16, which holds scales exactly, and cast."""
    with torch.no_grad():
        return load_gptqmodel(folder, "TORCH").float()(ids).logits


def awq(folder, ids):
    with torch.no_grad():
        return load_gptqmodel(folder, "AWQ_TORCH")(ids).logits.float()


def mlx(folder, ids, dtype=None):
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_model
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder))
    if dtype:
        model.set_dtype(getattr(mx, dtype))
    logits = [np.array(model(mx.array(row[None].tolist())).astype(mx.float32)) for row in ids]
    return torch.from_numpy(np.concatenate(logits))


def mlx_single(folder, ids):
    return mlx(folder, ids, "float32")


class Row:
    def __init__(self, name, options, client, runtime, dtype=torch.float32, product=None, ours=None, why="", source=None,
                 rounding=None):
        """`product`: how the client multiplies, where it rounds inputs; `rounding`: what it rounds of the folder's; `ours`:
        what runs our decoding, if not transformers; `why`: what of this is in ours too; `source`: makes another model to
        convert, such as a float32 copy where the layout holds the type that weights had."""
        self.name, self.options, self.client, self.runtime, self.dtype = name, options.split(), client, runtime, dtype
        self.product, self.ours, self.why, self.source, self.rounding = product, ours, why, source, rounding


def float32_copy(model, ids, scratch):
    """The model with all weights in float32."""
    from transformers import AutoModelForCausalLM
    copy = scratch / "single"
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).save_pretrained(copy)
    return with_tokenizer(copy, model)


def with_tokenizer(copy, model):
    for file in Path(model).iterdir():
        if "token" in file.name:
            (copy / file.name).symlink_to(file.resolve())
    return copy


def random_model(kind, **sizes):
    """A model of random weights, for architectures that no small trained one is at hand for. Its router is exact in float16,
    so that casting it chooses the same experts."""
    def make(model, ids, scratch):
        import transformers as library
        torch.manual_seed(0)
        config = getattr(library, {"Llama4": "Llama4Text"}.get(kind, kind) + "Config")(vocab_size=int(ids.max()) + 1, bos_token_id=0, eos_token_id=0, **sizes)
        made = getattr(library, {"GPT2": "GPT2LMHeadModel"}.get(kind, kind + "ForCausalLM"))(config)
        for name, values in made.named_parameters():
            values.data = (values.data * (4 if values.ndim > 1 else 1)).half().float()
        made.save_pretrained(scratch / "random")
        return with_tokenizer(scratch / "random", model)
    return make


GPT2 = random_model("GPT2", n_positions=WINDOW, n_embd=128, n_layer=3, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
                    attn_pdrop=0.0)
SIZES = dict(hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64)
MIXTRAL = random_model("Mixtral", intermediate_size=256, num_local_experts=8, **SIZES)
QWEN3_MOE = random_model("Qwen3Moe", intermediate_size=512, moe_intermediate_size=256, num_experts=4, num_experts_per_tok=2,
                         norm_topk_prob=True, **SIZES)
LLAMA4 = random_model("Llama4", intermediate_size=256, intermediate_size_mlp=512, num_local_experts=4,
                      num_experts_per_tok=1, interleave_moe_layer_step=1, **SIZES)
HALF, BRAIN = torch.float16, torch.bfloat16
TOKENS = "inputs in 8 bits, in ours too"
AFFINE = [("absmax", "sym"), ("zero-point", "asym")]
FEW = "--samples 8 --sequence-length 128"
ROWS = [Row(f"pack-quantized W{b}A16 {kind} {g}", f"--layout pack-quantized -m {m} -b {b} -g {g}",
            transformers if kind == "sym" else dequantizing, "transformers")
        for b in (4, 8) for m, kind in AFFINE for g in ("64", "row")]
ROWS += [
    Row("pack-quantized W4A16 GPTQ 64", f"--layout pack-quantized -m gptq -g 64 {FEW}", transformers, "transformers"),
    Row("int-quantized W8A8", "--layout int-quantized", transformers, "transformers", product=int8_tokens, why=TOKENS),
    Row("int-quantized W8A8 smoothed", f"--layout int-quantized --scaling smooth {FEW}", transformers, "transformers",
        product=int8_tokens, why=TOKENS),
    Row("int-quantized, weights alone", "--layout int-quantized", dequantizing, "transformers"),
    Row("float-quantized W8A8", "--layout float-quantized", transformers, "transformers", product=fp8_tokens, why=TOKENS),
    Row("float-quantized, weights alone", "--layout float-quantized", dequantizing, "transformers"),
    Row("float-quantized W8A16", "--layout float-quantized-weight-only", transformers, "transformers"),
    Row("mxfp4-pack-quantized", "--layout mxfp4-pack-quantized", brain, "transformers", BRAIN),
    Row("nvfp4-pack-quantized", "--layout nvfp4-pack-quantized", brain, "transformers", BRAIN),
]
for layout, bits, (method, kind) in [("gptq", b, AFFINE[0]) for b in (2, 3, 4, 8)] + [("gptq_v2", b, AFFINE[1]) for b in (2, 3, 4, 8)]:
    options = f"--layout {layout} -m {method} -b {bits} -g 64"
    ROWS += [Row(f"{layout} W{bits} {kind} 64", options, gptqmodel_single, "gptqmodel"),
             Row(f"{layout} W{bits} {kind} 64, as loaded", options, gptqmodel, "gptqmodel", HALF, inputs_first)]
ROWS += [
    Row("gptq W4 GPTQ 64", f"--layout gptq -g 64 {FEW}", gptqmodel_single, "gptqmodel"),
    Row("gptq W4 GPTQ 64, desc_act", f"--layout gptq -g 64 --group-order activation {FEW}", gptqmodel_single, "gptqmodel"),
    Row("gptq W4 sym 64, transformers", "--layout gptq -m absmax -b 4 -g 64", transformers, "transformers"),
]
ROWS += [Row(f"awq W4 {kind} 64", f"--layout awq -m {m} -b 4 -g 64", awq, "gptqmodel", HALF, inputs_first) for m, kind in AFFINE]
ROWS += [
    Row("awq W4 AWQ 64", f"--layout awq -g 64 {FEW}", awq, "gptqmodel", HALF, inputs_first),
    Row("awq W4 asym 64, transformers", "--layout awq -m zero-point -b 4 -g 64", transformers, "transformers"),
    Row("awq W4 asym 64, mlx-lm", "--layout awq -m zero-point -b 4 -g 64", mlx_single, "mlx",
        rounding=with_half_offsets, why="scale · zero point in float16, as mlx-lm has it, in ours too"),
]
ROWS += [Row(f"bitsandbytes {m} {d}".strip(), f"--layout bitsandbytes -m {m} {d and '--double-quantization'}", training_brain,
             "transformers", BRAIN) for m in ("nf4", "fp4") for d in ("", "double")]
ROWS += [
    Row("bitsandbytes nf4 double, of float32", "--layout bitsandbytes -m nf4 --double-quantization", training, "transformers",
        source=float32_copy),
    Row("bitsandbytes nf4, its own kernel", "--layout bitsandbytes -m nf4", brain, "transformers", BRAIN,
        brain_kernel, rounding=in_brain_blocks, why="levels and scales in bfloat16, summed as the kernel does, in ours too"),
    Row("bitsandbytes int8, weights alone", "--layout bitsandbytes -m absmax", training, "transformers"),
    Row("bitsandbytes int8", "--layout bitsandbytes -m absmax", bitsandbytes, "transformers", product=int8_beside_outliers,
        rounding=codes_and_scales, why=TOKENS),
]
ROWS += [Row(f"mlx W{b} 64", f"--layout mlx -m zero-point -b {b} -g 64", mlx_single, "mlx") for b in (2, 3, 4, 5, 6, 8)]
ROWS += [Row(f"mlx W4 {g}", f"--layout mlx -m zero-point -b 4 -g {g}", mlx_single, "mlx") for g in ("32", "128")]
EMBEDDINGS = "--include model.embed_tokens.weight --include lm_head.weight"
ROWS += [
    Row("mlx W4 64, embeddings and head", f"--layout mlx -m zero-point -b 4 -g 64 {EMBEDDINGS}", mlx_single, "mlx"),
    Row("mlx W4 64, as loaded", "--layout mlx -m zero-point -b 4 -g 64", mlx, "mlx", None, ours=mlx),
    Row("mlx W4 GPTQ 64", f"--layout mlx -m gptq -b 4 -g 64 {FEW}", mlx_single, "mlx"),
    Row("mlx mxfp4", "--layout mlx-mxfp4", mlx_single, "mlx"),
    Row("mlx mxfp4, embeddings and head", f"--layout mlx-mxfp4 {EMBEDDINGS}", mlx_single, "mlx"),
]
ROWS += [
    Row("GPT-2, gptq W4 sym 64", "--layout gptq -m absmax -b 4 -g 64", gptqmodel_single, "gptqmodel", source=GPT2),
    Row("GPT-2, gptq W4 GPTQ 64", f"--layout gptq -g 64 {FEW}", gptqmodel_single, "gptqmodel", source=GPT2),
    Row("GPT-2, awq W4 asym 64", "--layout awq -m zero-point -b 4 -g 64", awq, "gptqmodel", HALF, inputs_first, source=GPT2),
    Row("GPT-2, bitsandbytes nf4 double", "--layout bitsandbytes -m nf4 --double-quantization", training, "transformers",
        source=GPT2),
    Row("GPT-2, bitsandbytes int8, weights alone", "--layout bitsandbytes -m absmax", training, "transformers", source=GPT2),
    Row("Mixtral, mlx W4 64", "--layout mlx -m zero-point -b 4 -g 64", mlx_single, "mlx", source=MIXTRAL),
    Row("Qwen 3 MoE, gptq W4 sym 64", "--layout gptq -m absmax -b 4 -g 64", gptqmodel_single, "gptqmodel", source=QWEN3_MOE),
    Row("Qwen 3 MoE, pack-quantized W4A16 sym 64", "--layout pack-quantized -m absmax -b 4 -g 64", transformers, "transformers",
        source=QWEN3_MOE),
    Row("Llama 4, gptq W4 sym 64", "--layout gptq -m absmax -b 4 -g 64", gptqmodel_single, "gptqmodel", source=LLAMA4),
    Row("Llama 4, pack-quantized W4A16 sym 64", "--layout pack-quantized -m absmax -b 4 -g 64", transformers, "transformers",
        source=LLAMA4),
    Row("Llama 4, bitsandbytes nf4", "--layout bitsandbytes -m nf4", training, "transformers", source=LLAMA4),
    Row("Llama 4, float-quantized W8A16", "--layout float-quantized-weight-only", transformers, "transformers",
        source=LLAMA4),
]

NOT_RUN = """
Not run:

| client | why | what stands in for it |
| --- | --- | --- |
| vLLM, SGLang, TensorRT-LLM | their kernels need a GPU | the files are those of compressed-tensors' and GPTQModel's own loaders above; `check --runtime vllm` knows what vLLM takes |
| AutoAWQ | no longer maintained; transformers has left it for GPTQModel | GPTQModel's reader of AutoAWQ's layout, transformers', mlx-lm's |
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
        source = row.source(model, ids, scratch) if row.source else model
        subprocess.run([program, source, "-o", out, *row.options], check=True, capture_output=True, text=True)
        check(program, out, row)
        subprocess.run([program, "unpack", in_float32(out, scratch), "-o", dense], check=True, capture_output=True, text=True)
        expected = row.ours(dense, ids) if row.ours else ours(dense, ids, row.dtype, row, out)
        expected = expected.float()
        return apart(expected, row.client(out, ids))


def apart(expected, found):
    return (float((expected - found).abs().max() / expected.abs().max()),
            float((expected.argmax(-1) == found.argmax(-1)).float().mean()))


CLIENTS = {transformers: "transformers", dequantizing: "transformers, `dequantize=True`", brain: "transformers",
           gptqmodel: "GPTQModel, torch", gptqmodel_single: "GPTQModel, torch, cast", awq: "GPTQModel, AWQ torch",
           mlx: "mlx-lm, both sides", mlx_single: "mlx-lm, cast", bitsandbytes: "transformers, cast",
           training: "transformers, cast, training mode", training_brain: "transformers, training mode"}
TYPES = {torch.float32: "float32", HALF: "float16", BRAIN: "bfloat16", None: "as it comes"}


def write_page(page, model, tokens, lines):
    clients = ["transformers", "torch", "compressed-tensors", "bitsandbytes", "gptqmodel", "mlx", "mlx-lm"]
    Path(page).write_text(f"""# The layouts in their own clients

Written by `make interop`, which runs `Tests/Interop/layouts.py` in a Python environment that `Tests/Interop/environment`
makes, or with `PEER=PYTHON` in another. `make interop-quick` runs a row for each layout and client on the bundled model, as
`.ci/run` does where there is such an environment. {Path(model).name} is converted with the options of each row, loaded unmodified
by the runtime's own client on the CPU, and run over {tokens:,} tokens; `convert-model check` said before that it would load.
The largest difference is that of all logits from those of the folder that `unpack` makes of the same files, run by
transformers in the type that the client computes in, as a share of the largest logit. Clients that can be cast to float32
are; those whose kernels want 16 bits are compared in the same 16 bits, their sums in the same order (GPTQModel has weights
turned round), for there two orders already differ by 1e-3. What a client rounds besides, inputs or scales, is rounded in
ours too, and the row says so. Good is at most 1e-3 and the same token at 99.9 % of the positions.
Rows that begin with another model's name convert one of random weights.

Clients: {', '.join(f'{c} {version(c)}' for c in clients)}. What is compared is the client's decoding of our files, not its speed.

""" + "\n".join(lines) + "\n" + NOT_RUN)


def one_each():
    """Of the model that is given, the first row of each layout in each client."""
    first = {}
    for row in ROWS:
        if not row.source:
            first.setdefault((row.options[1], CLIENTS[row.client].split(",")[0]), row)
    return list(first.values())


def main():
    program, model, text, *wanted = sys.argv[1:]
    page = None
    if "--page" in wanted:
        index = wanted.index("--page")
        page = wanted[index + 1]
        del wanted[index:index + 2]
    rows = ROWS
    if "--one-each" in wanted:
        wanted.remove("--one-each")
        rows = one_each()
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(Path(text).read_text()[:20000], add_special_tokens=False)["input_ids"][:WINDOW * WINDOWS]
    ids = torch.tensor(ids).reshape(WINDOWS, WINDOW)
    lines = ["| layout and scheme | options | client | computes in | largest difference | same token | |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    print("\n".join(lines))
    failed = False
    for row in rows:
        if wanted and not any(w in row.name for w in wanted):
            continue
        try:
            difference, agreement = run(program, model, ids, row)
            good = difference <= 1e-3 and agreement >= 0.999
            verdict = "good" if good else "BAD"
            figures = f"{difference:.1e} | {100 * agreement:.2f} % | {verdict}{'; ' + row.why if row.why else ''}"
        except subprocess.CalledProcessError as error:
            good, figures = False, f"| | {' '.join(error.stderr.split())[-300:]}"
        except Exception as error:
            good, figures = False, f"| | {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        options = " ".join(row.options)
        lines.append(f"| {row.name} | `{options}` | {CLIENTS[row.client]} | {TYPES[row.dtype]} | {figures} |")
        print(lines[-1], flush=True)
        failed |= not good
    if page:
        write_page(page, model, ids.numel(), lines)
    sys.exit(failed)


if __name__ == "__main__":
    main()
