"""Makes the seed inputs of ../fuzz: a few small well-formed inputs for each target of Tests/Fuzz.

Run:    python fuzz_seeds.py PROGRAM      PROGRAM is a built convert-model
Needs:  Python 3.11, nothing else

What fuzzing found stands beside the seeds, under names that do not begin with `seed-`, and is left alone.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "fuzz"


def put(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def header_text(data):
    return data[8:8 + struct.unpack("<Q", data[:8])[0]]


def folders(name):
    return sorted(p.parent.name for p in (ROOT / name).glob("*/model.safetensors"))


def compact(path):
    """A JSON file without its blanks: shorter inputs are changed sooner where it matters."""
    return json.dumps(json.loads(path.read_bytes()), ensure_ascii=False, separators=(",", ":")).encode()


def shortened(data, limit):
    """A tokenizer.json whose vocabulary keeps its first tokens, special ones and bytes aside."""
    value = json.loads(data)
    model, known = value["model"], {t["content"] for t in value.get("added_tokens", [])}
    for processor in [value.get("post_processor") or {}] + (value.get("post_processor") or {}).get("processors", []):
        known |= {t for entry in processor.get("special_tokens", {}).values() for t in entry["tokens"]} \
            if isinstance(processor.get("special_tokens"), dict) else set()
    known.add(model.get("unk_token"))
    if isinstance(model["vocab"], list):
        model["vocab"] = [v for i, v in enumerate(model["vocab"]) if i < limit or v[0] in known]
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if "merges" in model:
        merges = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]][:limit // 8]
        needed = {p for m in merges for p in m + ["".join(m)]}
        model["merges"] = [m for m in model["merges"][:limit // 8]]
        known |= needed
    kept = {t: i for t, i in model["vocab"].items() if i < limit or t in known}
    model["vocab"] = kept
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def run(program, *arguments):
    subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def binary_seeds(program):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = scratch / "model"
        shutil.copytree(ROOT / "architectures/llama-tied", model)
        tokens = ["<s>", "</s>", "<unk>"] + [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["th", "he", "the", "in"]
        (model / "tokenizer.json").write_text(json.dumps({
            "added_tokens": [{"id": i, "content": t, "special": True} for i, t in enumerate(tokens[:3])],
            "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
                      "merges": ["t h", "h e", "th e", "i n"]}}))
        for kind in ["f16", "q8_0"]:
            run(program, model, "-o", scratch / f"{kind}.gguf", "--type", kind)
            put("gguf", kind, (scratch / f"{kind}.gguf").read_bytes())
        (scratch / "t.jsonl").write_text('{"input_ids":[1,2,3,4,5,6,7,8]}\n{"input_ids":[9,8,7,6,5,4,3,2]}\n' * 4)
        text = ["--calibration", scratch / "t.jsonl", "--samples", 2, "--sequence-length", 8]
        run(program, "calibrate", model, *text, "-o", scratch / "e.safetensors", "--no-hessians")
        put("evidence", "statistics", (scratch / "e.safetensors").read_bytes())


def gguf(metadata, tensors):
    """A GGUF file of F32 tensors; metadata as (key, type number, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    data = b""
    for name, shape, values in tensors:
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in shape) + struct.pack("<IQ", 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def main():
    for old in OUT.glob("*/seed-*"):
        old.unlink()
    put("json", "values", '{"a":[1,-2.5e-3,true,false,null,"\\u00e9\\ud83d\\ude00\\n é"],"b":{}, "c":[[[]]]}'.encode())
    for folder in ["accepted", "malformed"]:
        for path in sorted((ROOT / folder).glob("*.safetensors")):
            data = path.read_bytes()
            if folder == "accepted" or path.stem in ["overlap", "shape-product-overflow", "deep-nesting-shape", "name-twice-escaped"]:
                put("safetensors", path.stem, data)
                put("safetensors-header", path.stem, header_text(data))
    put("index", "two", b'{"metadata":{"total_size":4},"weight_map":{"a.weight":"a.safetensors","b.weight":"b.safetensors"}}')
    put("index", "outside", b'{"weight_map":{"a.weight":"../a.safetensors","b.weight":"b\\u0000.safetensors"}}')
    for number, name in enumerate(folders("architectures")):
        put("config", name, bytes([number]) + compact(ROOT / "architectures" / name / "config.json"))
    for number, name in enumerate(folders("layouts")):
        if name in ["awq", "fp4-double", "gptq-4-order", "gptq-3-zero", "gptq_v2-4", "int-quantized", "llm-int8",
                    "mlx-3", "mlx-nvfp4", "mxfp4", "nvfp4", "pack-quantized-4-zero", "float-quantized"]:
            config = ROOT / "layouts" / name / "config.json"
            put("layout", name, bytes([number]) + (compact(config) if config.exists() else b"{}"))
            put("layout-weights", name, bytes([number]) + (ROOT / "layouts" / name / "model.safetensors").read_bytes())
    for path in sorted((ROOT / "tokenizers").glob("*/tokenizer.json")):
        put("tokenizer-json", path.parent.name, shortened(path.read_bytes(), 40))
    for path in sorted((ROOT / "tokenizers").glob("*/tokenizer.model")):
        data = path.read_bytes()
        # The first pieces, whole, and what follows the last one.
        position, pieces, rest = 0, [], []
        while position < len(data):
            start, key = position, data[position]
            position += 1
            length, shift = 0, 0
            while True:
                byte = data[position]
                position += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            position += length
            (pieces if key == 0x0a else rest).append(data[start:position])
        put("tokenizer-model", path.parent.name, b"".join(pieces[:64]) + b"".join(r for r in rest if len(r) < 6000))
    binary_seeds(sys.argv[1])
    put("gguf", "kinds", gguf(
        [("general.architecture", 8, text("llama")), ("a.u8", 0, b"\x01"), ("a.i16", 3, b"\xff\xff"),
         ("a.flag", 7, b"\x01"), ("a.f64", 12, struct.pack("<d", 1.5)), ("general.alignment", 4, struct.pack("<I", 32)),
         ("a.list", 9, struct.pack("<IQ", 5, 3) + struct.pack("<3i", 1, -2, 3)),
         ("a.texts", 9, struct.pack("<IQ", 8, 2) + text("x") + text("yz")),
         ("tokenizer.ggml.model", 8, text("llama")),
         ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 4) + b"".join(map(text, ["<unk>", "<s>", "<0x0A>", "a"]))),
         ("tokenizer.ggml.scores", 9, struct.pack("<IQ4B", 0, 4, 0, 1, 2, 3)),
         ("tokenizer.ggml.token_type", 9, struct.pack("<IQ4i", 5, 4, 2, 3, 6, 1)),
         ("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", 9999))],
        [("token_embd.weight", [4, 2], [0.5] * 8), ("output_norm.weight", [4], [1.0] * 4)]))
    put("imatrix", "gguf", gguf(
        [("general.type", 8, text("imatrix")), ("imatrix.chunk_count", 4, struct.pack("<I", 2)),
         ("imatrix.chunk_size", 4, struct.pack("<I", 5)), ("imatrix.datasets", 9, struct.pack("<IQ", 8, 1) + text("a.txt"))],
        [("blk.0.attn_q.weight.counts", [1], [10.0]), ("blk.0.attn_q.weight.in_sum2", [4, 1], [1.0, 2.0, 0.0, 4.0])]))
    name = b"blk.0.attn_q.weight"
    put("imatrix", "legacy", struct.pack("<i", 1) + struct.pack("<i", len(name)) + name + struct.pack("<ii3f", 2, 3, 1, 2, 0)
        + struct.pack("<ii", 4, 5) + b"a.txt")
    put("manifest", "packed", compact(ROOT / "packed/quantization_manifest.json"))
    put("packed-weights", "packed", (ROOT / "packed/model.safetensors").read_bytes())
    put("text-lines", "texts", '{"text":"one"}\n{"messages":[{"role":"user","content":"two"},{"content":null}]}\n\n[1,2,3]\n'
        '{"input_ids":[4,5]}\n{"tokens":[6]}\r\n'.encode())
    put("text-lines", "bad", '\ufeff{"text":7}\n{"other":1}\n'.encode())
    put("calibration-report", "layers", json.dumps({"windows": {"count": 1}, "layers": [
        {"tensor": "a.weight", "expert": 1, "tokens": 10, "dampening": 0.01, "dead_columns": 0,
         "rounded_to_nearest": "why", "output_error": 0.1, "output_error_rtn": 0.2, "ratio_margin_95": 0.01}]}).encode())
    files = [f for f in OUT.glob("*/*") if f.is_file()]
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files)} bytes")


if __name__ == "__main__":
    main()
