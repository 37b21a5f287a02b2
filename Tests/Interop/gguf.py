"""Converts a model to GGUF and lets other programs read it.

Run:    python gguf.py PROGRAM MODEL [MIX …]
Needs:  Python 3.11, gguf 0.19.0, transformers 5.23.0, torch, safetensors, numpy

For each mix, a row of a table: whether the `gguf` package decodes every tensor to the floats that `unpack` gives, and how
far the logits of transformers' own GGUF loader are from those of the unpacked folder.
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


def main():
    program, model = sys.argv[1], Path(sys.argv[2])
    config = AutoConfig.from_pretrained(model)
    text = "Once upon a time, there was a little girl named Lily. She loved 3 cats."
    print("| mix | bytes | tensors decode alike | tokens alike | largest difference of logits | best token alike |")
    print("| --- | --- | --- | --- | --- | --- |")
    failed = False
    for mix in sys.argv[3:] or MIXES:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            subprocess.run([program, model, "-o", folder / "m.gguf", "--type", mix], check=True, capture_output=True)
            subprocess.run([program, "unpack", folder / "m.gguf", "-o", folder / "dense"], check=True, capture_output=True)
            dense = load_file(folder / "dense" / "model.safetensors")
            reader = gguf.GGUFReader(folder / "m.gguf")
            alike = True
            for tensor in reader.tensors:
                values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                values = values.reshape([int(n) for n in reversed(tensor.shape)])
                if config.model_type in ("llama", "mistral") and (".attn_q." in tensor.name or ".attn_k." in tensor.name):
                    heads = config.num_attention_heads if ".attn_q." in tensor.name else config.num_key_value_heads
                    rows = values.shape[0] // heads
                    values = values.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
                alike &= np.array_equal(values, dense[hugging_face(tensor.name)].float().numpy())
            loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", dtype=torch.float32)
            own = AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float32)
            theirs = AutoTokenizer.from_pretrained(folder, gguf_file="m.gguf")(text, add_special_tokens=False)["input_ids"]
            ids = AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                a = loaded(torch.tensor([ids])).logits
                b = own(torch.tensor([ids])).logits
            difference = float((a - b).abs().max() / b.abs().max())
            best = float((a.argmax(-1) == b.argmax(-1)).float().mean())
            failed |= not alike or theirs != ids or difference > 1e-3 or best < 0.999
            size = (folder / "m.gguf").stat().st_size
            print(f"| {mix} | {size} | {'yes' if alike else 'NO'} | {'yes' if theirs == ids else 'NO'} |"
                  f" {difference:.1e} | {100 * best:.1f} % |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
