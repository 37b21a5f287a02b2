"""Makes ../MANIFEST.json: how each group of fixtures was made, and the SHA-256 of each file.

Run:    python manifest.py           writes it
        python manifest.py --check   compares the files with it and changes nothing
Needs:  Python 3.11, nothing else
"""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "MANIFEST.json"
TRAINED = {
    "scripts": ["generate/tiny_llama.py", "generate/tiny_text.py"], "command": "python tiny_llama.py",
    "made_with": "torch 2.15.0 (one CPU thread, x86-64 with AVX-512), transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0",
    "seed": "weights, training text and batches 20, held-out text 21"}
PLAIN = {"made_with": "Python 3.11", "seed": None}
# Group, the paths that belong to it, and where they come from.
GROUPS = [
    ("tiny-llama", ["tiny-llama/**/*"], TRAINED),
    ("text", ["text/tiny-eval.txt"], TRAINED),
    ("goldens/tiny-llama", ["goldens/tiny-llama.json"], TRAINED),
    ("tokenizers", ["tokenizers/**/*", "goldens/tokenizers-shared.json"], {
        "scripts": ["generate/make_tokenizers.py", "generate/tiny_text.py"], "command": "python make_tokenizers.py SHARED",
        "made_with": "tokenizers 0.23.3, sentencepiece 0.2.3, Python 3.11", "seed": "text 40, 41, 42, strings 40"}),
    ("goldens/bitsandbytes", ["goldens/bitsandbytes/*"], {
        "scripts": ["generate/bitsandbytes_goldens.py"], "command": "python bitsandbytes_goldens.py",
        "made_with": "bitsandbytes 0.50.2 (CPU) with torch 2.15.0, safetensors 0.8.0",
        "seed": "ragged.input 22, edges.input 23, spanning.input 24"}),
    ("goldens/backward", ["goldens/backward.safetensors"], {
        "scripts": ["generate/backward_goldens.py"], "command": "python backward_goldens.py",
        "made_with": "transformers 5.23.0 with torch 2.15.0, safetensors 0.8.0", "seed": "outer 0"}),
    ("architectures", ["architectures/**/*"], {
        "scripts": ["generate/architectures.py"], "command": "python architectures.py",
        "made_with": "transformers 5.23.0 with torch 2.15.0 (one CPU thread), safetensors 0.8.0",
        "seed": "weights 40, input ids 41, each plus the CRC-32 of the case's name (or its `seed`)"}),
    ("layouts", ["layouts/**/*"], {
        "scripts": ["generate/layouts.py"], "command": "python layouts.py",
        "made_with": "gptqmodel 7.7.0, compressed-tensors 0.19.0, bitsandbytes 0.50.2, mlx 0.32.4 (CPU) with torch 2.15.0, "
                     "safetensors 0.8.0",
        "seed": "weights 50, order of columns 51"}),
    ("packed", ["packed/*", "packed-decoded.safetensors"], {
        "scripts": ["generate/packed_fixture.py", "generate/read_packed.py"],
        "command": "python packed_fixture.py PROGRAM", "made_with": "convert-model 0.1.0, numpy 2.4.6", "seed": 31}),
    ("gguf", ["gguf/*"], {
        "scripts": ["generate/gguf_goldens.py"], "command": "python gguf_goldens.py LIBGGML",
        "made_with": "gguf 0.19.0, ggml of llama-cpp-python 0.3.36, numpy 2.4.6, safetensors 0.8.0", "seed": 50}),
    ("malformed", ["malformed/**/*"], {"scripts": ["generate/malformed.py"], "command": "python malformed.py"} | PLAIN),
    ("fuzz", ["fuzz/**/*"], {
        "scripts": ["generate/fuzz_seeds.py"], "command": "python fuzz_seeds.py PROGRAM",
        "made_with": "convert-model 0.1.0, Python 3.11; what does not begin with seed- was found by `make fuzz`",
        "seed": None}),
    ("accepted", ["accepted/**/*"], {"scripts": ["generate/accepted.py"], "command": "python accepted.py"} | PLAIN),
]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    groups, known = {}, {MANIFEST, ROOT / "README.md"} | set((ROOT / "generate").rglob("*"))
    for name, patterns, origin in GROUPS:
        files = sorted(f for p in patterns for f in ROOT.glob(p) if f.is_file())
        known.update(files)
        groups[name] = {"made_by": {s: sha256(ROOT / s) for s in origin["scripts"]},
                        **{key: value for key, value in origin.items() if key != "scripts"},
                        "bytes": sum(f.stat().st_size for f in files),
                        "sha256": {f.relative_to(ROOT).as_posix(): sha256(f) for f in files}}
    stray = sorted(f.relative_to(ROOT).as_posix() for f in ROOT.rglob("*") if f.is_file() and f not in known)
    if stray:
        print("in no group:", *stray, sep="\n  ")
    if "--check" in sys.argv[1:]:
        same = json.loads(MANIFEST.read_text()) == groups
        print("as in the manifest" if same else "not as in the manifest")
        sys.exit(bool(stray) or not same)
    MANIFEST.write_text(json.dumps(groups, indent=1) + "\n")
    print(f"{sum(len(g['sha256']) for g in groups.values())} files, {sum(g['bytes'] for g in groups.values())} bytes")


if __name__ == "__main__":
    main()
