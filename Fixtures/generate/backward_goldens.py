"""Gradients of the first block of some architectures, by torch's autograd in float64: goldens/backward.safetensors.

For each case: `CASE/outer`, a random matrix [tokens, hidden], and the gradients of sum(outer * block output) by the
block's input (`CASE/input`) and by its weights (`CASE/gradient/NAME`, names and layout as in the checkpoint).
The model runs over both sequences of the case's golden.safetensors.

    python backward_goldens.py        # torch 2.15.0, transformers 5.23.0
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

FIXTURES = Path(__file__).resolve().parent.parent
CASES = {
    "llama": "model.layers.0",
    "qwen3": "model.layers.0",
    "gemma2": "model.layers.0",
    "gpt-neox": "gpt_neox.layers.0",
    "opt": "model.decoder.layers.0",
    "bert": "encoder.layer.0",
}


def gradients(case, path):
    folder = FIXTURES / "architectures" / case
    loader = AutoModel if case == "bert" else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double().eval()
    ids = load_file(folder / "golden.safetensors")["input_ids"]
    block = model.get_submodule(path)
    seen = {}

    def before(_, args, kwargs):
        if args:
            seen["input"] = args[0].detach().requires_grad_()
            return (seen["input"],) + args[1:], kwargs
        seen["input"] = kwargs["hidden_states"].detach().requires_grad_()
        return args, {**kwargs, "hidden_states": seen["input"]}

    def after(_, __, output):
        seen["output"] = output[0] if isinstance(output, tuple) else output

    block.register_forward_pre_hook(before, with_kwargs=True)
    block.register_forward_hook(after)
    model(ids)
    outer = torch.randn(seen["output"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (seen["output"] * outer.float().double()).sum().backward()
    width = outer.shape[-1]
    result = {f"{case}/outer": outer.reshape(-1, width), f"{case}/input": seen["input"].grad.reshape(-1, width)}
    stored = load_file(folder / "model.safetensors")
    for name, parameter in block.named_parameters():
        whole = next(n for n in stored if n.endswith(f"{path}.{name}") or f"bert.{n}" == f"bert.{path}.{name}")
        result[f"{case}/gradient/{whole}"] = parameter.grad
    return {name: value.float().contiguous() for name, value in result.items()}


goldens = {}
for case, path in CASES.items():
    goldens.update(gradients(case, path))
save_file(goldens, FIXTURES / "goldens" / "backward.safetensors")
print(len(goldens), "tensors")
