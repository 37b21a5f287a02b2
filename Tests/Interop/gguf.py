"""Converts a model to GGUF and lets other programs read it.

Run:    python gguf.py PROGRAM MODEL [--llama PYTHON] [--text FILE] [MIX …]
Needs:  Python 3.11, gguf 0.19.0, transformers 5.23.0, torch, safetensors, numpy; PYTHON: llama-cpp-python 0.3.36

For each mix, a row of a table: whether the `gguf` package decodes every tensor to the floats that `unpack` gives, and how
far the logits of transformers' own GGUF loader and of llama.cpp are from those of the unpacked folder. llama.cpp rounds the
inputs of layers to 8 bits, or to the type of a plain weight: so does ours for that column. A sum that differs in its last bit
can turn such a rounding over, and from there on all layers differ; how much that makes is shown by ours in float64 against
ours in float32, rounding alike. A row is good if llama.cpp is no further away than twice that, or 1e-3.
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

# This file is called as the package that it needs.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
gguf = importlib.import_module("gguf")
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

WINDOW, WINDOWS = 128, 16
MIXES = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL",
         "IQ4_XS", "MXFP4", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"]
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hugging_face(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
    return f"{OUTER[parts[0]]}.{parts[1]}"


def rounded(x, kind):
    """Inputs as llama.cpp has them in front of a weight of this type."""
    if kind in ("F16", "BF16"):
        return x.to(torch.float16 if kind == "F16" else torch.bfloat16).to(x.dtype)
    if kind == "F32":
        return x
    if "_K" in kind or kind == "IQ4_XS":
        blocks = x.unflatten(-1, (-1, 256))
        place = blocks.abs().argmax(-1, keepdim=True)
        scale = -127 / blocks.gather(-1, place)
        return ((blocks * scale).round().clamp(max=127) / scale).flatten(-2)
    blocks = x.unflatten(-1, (-1, 32))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    return ((blocks / scale).round() * scale.half().to(x.dtype)).flatten(-2)


def with_rounded_inputs(model, reader):
    types = {hugging_face(t.name).removesuffix(".weight"): t.tensor_type.name for t in reader.tensors}
    types.setdefault("lm_head", types["model.embed_tokens"])
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs, kind=types[name]: (rounded(inputs[0], kind),))
    return model


def alike(a, b):
    difference = float((a - b).abs().max() / b.abs().max())
    return difference, float((a.argmax(-1) == b.argmax(-1)).float().mean())


def option(arguments, name):
    if name not in arguments:
        return None
    index = arguments.index(name)
    value = arguments[index + 1]
    del arguments[index:index + 2]
    return value


def main():
    arguments = sys.argv[1:]
    llama, text_file = option(arguments, "--llama"), option(arguments, "--text")
    program, model, *mixes = arguments
    model = Path(model)
    config = AutoConfig.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = "Once upon a time, there was a little girl named Lily. She loved 3 cats."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = torch.tensor([ids])
    if text_file:
        long = tokenizer(Path(text_file).read_text()[:20000], add_special_tokens=False)["input_ids"]
        windows = torch.tensor(long[:WINDOW * WINDOWS]).reshape(WINDOWS, WINDOW)
    print("| mix | bytes | tensors decode alike | tokens alike | transformers: largest difference | same token |"
          " llama.cpp: largest difference | same token | ours in float64: largest difference | same token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    for mix in mixes or MIXES:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            subprocess.run([program, model, "-o", folder / "m.gguf", "--type", mix], check=True, capture_output=True)
            subprocess.run([program, "check", folder / "m.gguf", "--runtime", "llama.cpp"], check=True, capture_output=True)
            subprocess.run([program, "unpack", folder / "m.gguf", "-o", folder / "dense"], check=True, capture_output=True)
            dense = load_file(folder / "dense" / "model.safetensors")
            reader = gguf.GGUFReader(folder / "m.gguf")
            same = True
            for tensor in reader.tensors:
                values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                values = values.reshape([int(n) for n in reversed(tensor.shape)])
                if config.model_type in ("llama", "mistral") and (".attn_q." in tensor.name or ".attn_k." in tensor.name):
                    heads = config.num_attention_heads if ".attn_q." in tensor.name else config.num_key_value_heads
                    rows = values.shape[0] // heads
                    values = values.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
                same &= np.array_equal(values, dense[hugging_face(tensor.name)].float().numpy())
            loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", dtype=torch.float32)
            own = AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float32)
            theirs = AutoTokenizer.from_pretrained(folder, gguf_file="m.gguf")(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                difference, best = alike(loaded(windows).logits, own(windows).logits)
            failed |= not same or theirs != ids or difference > 1e-3 or best < 0.999
            other = "| not run | | | |"
            if llama:
                np.save(folder / "ids.npy", windows.numpy())
                script = Path(__file__).resolve().parent / "llama_logits.py"
                subprocess.run([llama, script, folder / "m.gguf", folder / "ids.npy", folder / "logits.npy"], check=True,
                               capture_output=True)
                with torch.no_grad():
                    expected = with_rounded_inputs(own, reader)(windows).logits
                    double = own.double()(windows).logits
                far, agreement = alike(torch.from_numpy(np.load(folder / "logits.npy")), expected)
                floor, least = alike(double, expected)
                other = f"| {far:.1e} | {100 * agreement:.2f} % | {floor:.1e} | {100 * least:.2f} % |"
                failed |= far > max(1e-3, 2 * floor) or 1 - agreement > max(1e-3, 2 * (1 - least))
            size = (folder / "m.gguf").stat().st_size
            print(f"| {mix} | {size} | {'yes' if same else 'NO'} | {'yes' if theirs == ids else 'NO'} |"
                  f" {difference:.1e} | {100 * best:.2f} % {other}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
