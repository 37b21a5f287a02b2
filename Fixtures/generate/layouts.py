"""Makes ../layouts: small folders as the programs write them whose layouts we read and write.

Each folder has one linear layer, model.layers.0.self_attn.q_proj, quantized
and packed by the program itself, and a config.json. decoded.safetensors holds for
each the weight as the program's own decoder gives it, in the type that it
decodes to.

Run:    python layouts.py    (a minute; gptqmodel is slow to import)
Needs:  gptqmodel 7.7.0, compressed-tensors 0.19.0, bitsandbytes 0.50.2,
        mlx 0.32.4, torch 2.15.0, safetensors 0.8.0, numpy
"""

import json
import os
import shutil
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TORCHDYNAMO_DISABLE="1", CUDA_VISIBLE_DEVICES="")

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "layouts"
MODULE = "model.layers.0.self_attn.q_proj"
# GPTQ needs multiples of 32; the others make do with fewer rows.
ROWS, FEW_ROWS, COLUMNS = 32, 16, 64
DECODED = {}


def weight(rows=ROWS, columns=COLUMNS):
    generator = torch.Generator().manual_seed(50)
    w = torch.randn(rows, columns, generator=generator) * 0.1
    w[3, 5], w[7, 40] = 1.5, -2.0
    return w


def write(case, tensors, quantization, decoded, key="quantization_config", **more):
    folder = OUT / case
    folder.mkdir(parents=True)
    named = {f"{MODULE}.{name}": t.contiguous() for name, t in tensors.items()}
    named["model.norm.weight"] = torch.ones(COLUMNS, dtype=torch.bfloat16)
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", key: quantization, **more}, indent=1) + "\n")
    DECODED[case] = decoded.contiguous()


def affine(w, bits, group, symmetric):
    """Ranges as in Docs/ZeroPoint.md: scale [rows, groups] F16, zero point."""
    parts = w.reshape(w.shape[0], -1, group)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    highest = 2**bits - 1
    if symmetric:
        magnitude = torch.maximum(-low, high)
        low, high = -magnitude, magnitude
    scale = ((high - low) / highest).half().float()
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else torch.round(-low / scale).clamp(1, highest)
    return scale, zero


def rounded(w, scale, zero, bits, group, index=None):
    index = torch.arange(w.shape[1]) // group if index is None else index
    s, z = scale[:, index], zero[:, index]
    return s * (torch.round(w / s + z).clamp(0, 2**bits - 1) - z)


def gptq():
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    cases = [(bits, 32, sym, version, False) for bits in (2, 3, 4, 8) for sym in (True, False) for version in ("gptq", "gptq_v2")]
    cases += [(4, 32, True, "gptq", True), (4, COLUMNS, True, "gptq", False)]
    for bits, group, sym, version, act in cases:
        w = weight()
        scale, zero = affine(w, bits, group, sym)
        index = torch.arange(COLUMNS) // group
        if act:
            index = index[torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(51))]
        linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
        linear.weight.data = rounded(w, scale, zero, bits, group, index)
        module = TorchLinear(bits=bits, group_size=group, sym=sym, desc_act=act, in_features=COLUMNS, out_features=ROWS, bias=False)
        module.pack_block(linear, scale, zero, index.to(torch.int32))
        module.post_init()
        decoded = module.dequantize_weight().T.to(torch.float16)
        config = {"quant_method": "gptq", "bits": bits, "group_size": -1 if group == COLUMNS else group, "desc_act": act,
                  "sym": sym, "checkpoint_format": version}
        if version == "gptq":
            convert_gptq_v2_to_v1_format_module(module, QuantizeConfig(bits=bits, group_size=config["group_size"]))
        name = f"{version}-{bits}{'' if sym else '-zero'}{'-order' if act else ''}{'-row' if group == COLUMNS else ''}"
        write(name, {k: getattr(module, k) for k in ("qweight", "qzeros", "scales", "g_idx")}, config, decoded)


def awq():
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    for sym in (True, False):
        w = weight()
        scale, zero = affine(w, 4, 32, sym)
        linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
        linear.weight.data = rounded(w, scale, zero, 4, 32)
        module = AwqTorchLinear(bits=4, group_size=32, sym=sym, desc_act=False, in_features=COLUMNS, out_features=ROWS)
        module.pack(linear, scale.half(), zero)
        decoded = dequantize_gemm(module.qweight, module.qzeros, module.scales, 4, 32).T
        config = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": not sym, "version": "gemm"}
        write(f"awq{'' if sym else '-zero'}", {k: getattr(module, k) for k in ("qweight", "qzeros", "scales")}, config, decoded)


def compressed_tensors():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    def case(name, layout, dtype=torch.float32, activations=None, **arguments):
        w = weight(FEW_ROWS)
        args = QuantizationArgs(**arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=layout)
        if activations:
            scheme.input_activations = QuantizationArgs(**activations)
        group = arguments.get("group_size") or COLUMNS
        parts = w.reshape(FEW_ROWS, -1, group)
        low, high = (w.amin().reshape(1), w.amax().reshape(1)) if arguments["strategy"] == "tensor" else (parts.amin(-1), parts.amax(-1))
        state = {"weight": w.to(dtype)}
        extra = {}
        if arguments["strategy"] == "tensor_group":
            extra["global_scale"] = generate_gparam(w.amin(), w.amax())
            state["weight_global_scale"] = extra["global_scale"]
        scale, zero = calculate_qparams(low, high, args, **extra)
        state["weight_scale"] = scale if layout.endswith("fp4-pack-quantized") else scale.to(dtype)
        if not arguments["symmetric"]:
            state["weight_zero_point"] = zero
        kind = BaseCompressor.get_value_from_registry(layout)
        packed = kind.compress(state, scheme)
        decoded = kind.decompress(dict(packed), scheme)["weight"]
        plain = {k: v for k, v in arguments.items()}
        if "scale_dtype" in plain:
            plain["scale_dtype"] = str(plain["scale_dtype"])
        config = {"quant_method": "compressed-tensors", "format": layout, "quantization_status": "compressed", "ignore": [],
                  "config_groups": {"group_0": {"targets": ["Linear"], "weights": plain, "input_activations": activations}}}
        write(name, packed, config, decoded)

    token = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    for bits in (4, 8, 3):
        case(f"pack-quantized-{bits}", "pack-quantized", num_bits=bits, type="int", symmetric=True, strategy="group", group_size=32)
    case("pack-quantized-4-row", "pack-quantized", num_bits=4, type="int", symmetric=True, strategy="channel")
    case("pack-quantized-4-zero", "pack-quantized", num_bits=4, type="int", symmetric=False, strategy="group", group_size=32)
    case("pack-quantized-8-zero", "pack-quantized", torch.bfloat16, num_bits=8, type="int", symmetric=False, strategy="group", group_size=64)
    case("int-quantized", "int-quantized", activations=token, num_bits=8, type="int", symmetric=True, strategy="channel")
    case("int-quantized-tensor", "int-quantized", activations=token, num_bits=8, type="int", symmetric=True, strategy="tensor")
    case("float-quantized", "float-quantized", activations={**token, "type": "float"}, num_bits=8, type="float", symmetric=True, strategy="channel")
    case("float-quantized-weight-only", "float-quantized", torch.bfloat16, num_bits=8, type="float", symmetric=True, strategy="channel")
    case("mxfp4", "mxfp4-pack-quantized", torch.bfloat16, num_bits=4, type="float", symmetric=True, strategy="group", group_size=32, scale_dtype=torch.uint8)
    case("nvfp4", "nvfp4-pack-quantized", torch.bfloat16, num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn)


def bitsandbytes():
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute  # noqa: F401
    import bitsandbytes as bnb
    from bitsandbytes.functional import int8_vectorwise_dequant, quantize_4bit

    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            w = weight(FEW_ROWS)
            packed, state = quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=nested)
            tensors = {"weight": packed, **{f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}}
            absmax = state.absmax
            if nested:
                absmax = bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
            codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten().long()
            decoded = (state.code[codes].reshape(-1, 64) * absmax[:, None]).reshape(FEW_ROWS, COLUMNS)
            config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind,
                      "bnb_4bit_use_double_quant": nested, "bnb_4bit_compute_dtype": "float32"}
            write(f"{kind}{'-double' if nested else ''}", tensors, config, decoded)
    w = weight(FEW_ROWS).half()
    codes, scb, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(w)
    tensors = {"weight": codes, "SCB": scb, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    write("llm-int8", tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
          int8_vectorwise_dequant(codes, scb))


def mlx():
    import mlx.core as mx
    import numpy as np

    mx.set_default_device(mx.cpu)
    array = mx.array(weight(FEW_ROWS).numpy())
    cases = [(bits, 32, "affine") for bits in (2, 3, 4, 5, 6, 8)] + [(4, 64, "affine"), (4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4")]
    for bits, group, mode in cases:
        parts = mx.quantize(array, group_size=group, bits=bits, mode=mode)
        decoded = mx.dequantize(*parts, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in zip(("weight", "scales", "biases"), parts)}
        name = f"mlx-{bits}" if mode == "affine" else f"mlx-{mode}"
        write(name + ("-64" if group == 64 else ""), tensors, {"group_size": group, "bits": bits, "mode": mode},
              torch.from_numpy(np.array(decoded.astype(mx.float32))), key="quantization")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for make in (mlx, bitsandbytes, compressed_tensors, gptq, awq):
        make()
    save_file(DECODED, OUT / "decoded.safetensors")
    print(len(DECODED), "cases,", sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")


if __name__ == "__main__":
    main()
