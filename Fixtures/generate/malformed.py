"""Makes ../malformed: small inputs a strict converter must refuse, and cases.json about them.

A case is a single .safetensors file or a model folder. In a folder everything
but the one named flaw is in order: a complete one-layer Llama of a few hundred
weights, whole or in two shards.

Run:    python malformed.py     (Python 3.11, nothing else needed)
"""

import io
import json
import math
import shutil
import struct
import zipfile
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "malformed"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
cases = []


def entry(shape="[2]", begin=0, end=8, dtype='"F32"', more=""):
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":[{begin},{end}]{more}}}'


def raw(header, data=b"", length=None):
    """The bytes of a safetensors file; `length` is what it claims of its header."""
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def file(name, what, about, content):
    path = OUT / f"{name}.safetensors"
    path.write_bytes(content)
    cases.append({"path": path.name, "what": what, "about": about})


def tensors(header, data=8):
    """A file with this header and so many zero bytes of data."""
    return raw(header, bytes(data))


def one(value, data=8):
    return tensors(f'{{"w":{value}}}', data)


# ---------------------------------------------------------------- single files

def container_files():
    good = one(entry())
    file("empty", "a file of no bytes", "empty", b"")
    file("three-bytes", "three bytes: not even a header length", "too short", b"abc")
    file("zero-length-header", "header length 0, nothing after it", "header", bytes(8))
    file("header-2-63", "header length 2^63", "header", raw("{}", length=1 << 63))
    file("header-all-ones", "header length 2^64-1, which overflows when 8 is added", "header",
         raw("{}", length=(1 << 64) - 1))
    file("header-over-limit", "header length 100000001, one over the limit", "header", raw("{}", length=100_000_001))
    file("header-beyond-end", "header length reaches one byte past the end of the file", "header", raw("{}", length=3))
    file("truncated-header", "cut off in the middle of the header", "header", good[:30])
    file("truncated-data", "the last two data bytes are missing", "truncated", good[:-2])
    file("no-data", "cut off right after the header", "truncated", good[:-8])
    file("trailing-bytes", "one byte follows the last tensor", "trailing", good + b"\0")
    file("trailing-without-tensors", "no tensor at all, yet data follows the header", "trailing", raw("{}", b"abcd"))
    file("text-file", "a text file renamed", "header", b"This is a note and not a tensor file.\n" * 4)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(zipfile.ZipInfo("model.bin", (2020, 1, 1, 0, 0, 0)), "weights")
    file("zip-file", "a zip archive renamed", "header", archive.getvalue())


def json_files():
    def bad(name, what, about, header, data=0):
        file(name, what, about, raw(header, bytes(data)))

    inner = f'"w":{entry()}'
    bad("invalid-utf8", "a tensor name that is not valid UTF-8", "utf-8", b'{"\xff\xfe":' + entry().encode() + b"}", 8)
    bad("overlong-utf8", "a slash in overlong UTF-8 within a name", "utf-8", b'{"a\xc0\xafb":' + entry().encode() + b"}", 8)
    bad("surrogate-utf8", "a surrogate encoded as UTF-8 within a name", "utf-8", b'{"\xed\xa0\x80":' + entry().encode() + b"}", 8)
    bad("header-array", "the header is an array", "header", "[]")
    bad("header-string", "the header is a string", "header", '"w"')
    bad("header-number", "the header is a number", "header", "12")
    bad("header-null", "the header is null", "header", "null")
    bad("header-blank", "the header is eight spaces", "header", " " * 8)
    bad("leading-space", "a space before the opening brace", "header", " {" + inner + "}", 8)
    bad("leading-bom", "a byte order mark before the opening brace", "header", "\ufeff{" + inner + "}", 8)
    bad("garbage-after-json", "letters after the closing brace", "header", "{" + inner + "}xyz", 8)
    bad("second-object", "a second object after the first", "header", "{" + inner + "}{}", 8)
    bad("nul-padding", "the header is padded with NUL instead of spaces", "header", "{" + inner + "}\0\0\0", 8)
    bad("trailing-comma", "a comma after the last member", "json", "{" + inner + ",}", 8)
    bad("missing-brace", "the closing brace is missing", "json", "{" + inner, 8)
    bad("unterminated-string", "a name without its closing quote", "json", '{"w')
    bad("single-quotes", "single quotes instead of double ones", "json", ("{" + inner + "}").replace('"', "'"), 8)
    bad("comment", "a comment in the header", "json", "{/* weights */" + inner + "}", 8)
    bad("bad-escape", "the escape \\x in a name", "escape", r'{"\x41":' + entry() + "}", 8)
    bad("short-unicode-escape", "\\u with three digits", "escape", r'{"\u12g4":' + entry() + "}", 8)
    bad("lone-high-surrogate", "an escaped high surrogate with nothing after it", "surrogate", r'{"\ud800":' + entry() + "}", 8)
    bad("lone-low-surrogate", "an escaped low surrogate alone", "surrogate", r'{"\udc00x":' + entry() + "}", 8)
    bad("control-character", "a raw line feed within a name", "control character", '{"a\nb":' + entry() + "}", 8)
    bad("literal-nan", "NaN instead of a number", "json", '{"w":' + entry(end="NaN") + "}", 8)
    bad("literal-true-misspelt", "the word True", "json", '{"w":' + entry(more=',"x":True') + "}", 8)
    bad("leading-zero", "a number written 08", "json", '{"w":' + entry(end="08") + "}", 8)
    bad("plus-sign", "a number written +8", "json", '{"w":' + entry(end="+8") + "}", 8)
    bad("deep-nesting", "100000 opening brackets in place of a header", "header", "[" * 100_000)
    bad("deep-nesting-object", "20000 objects inside one another", "nest", '{"a":' * 20_000 + "0" + "}" * 20_000)
    bad("deep-nesting-shape", "a shape nested 40000 deep", "nest",
        '{"w":' + entry(shape="[" * 40_000 + "]" * 40_000) + "}", 8)
    bad("deep-nesting-extra", "an unknown key holding 60000 brackets that never close", "nest",
        '{"w":' + entry(more=',"x":' + "[" * 60_000), 8)


def entry_files():
    def bad(name, what, about, value, data=8):
        file(name, what, about, one(value, data))

    bad("entry-array", "a tensor entry that is an array", "tensor", '["F32",[2],[0,8]]')
    bad("entry-null", "a tensor entry that is null", "tensor", "null", 0)
    bad("entry-empty", "a tensor entry without any field", "tensor", "{}", 0)
    bad("dtype-unknown", "an unknown dtype", "dtype", entry(dtype='"F31"'))
    bad("dtype-lower-case", "a dtype in lower case", "dtype", entry(dtype='"f32"'))
    bad("dtype-number", "a dtype that is a number", "dtype", entry(dtype="32"))
    bad("dtype-missing", "no dtype", "dtype", '{"shape":[2],"data_offsets":[0,8]}')
    bad("shape-missing", "no shape", "shape", '{"dtype":"F32","data_offsets":[0,8]}')
    bad("shape-number", "a shape that is a number", "shape", entry("2"))
    bad("shape-null", "a shape that is null", "shape", entry("null", 0, 4), 4)
    bad("shape-negative", "a negative dimension", "shape", entry("[-2]"))
    bad("shape-two-negatives", "two negative dimensions whose product would fit", "shape", entry("[-1,-2]"))
    bad("shape-float", "a dimension written 2.0", "shape", entry("[2.0]"))
    bad("shape-exponent", "a dimension written 2e0", "shape", entry("[2e0]"))
    bad("shape-string", "a dimension that is a string", "shape", entry('["2"]'))
    bad("shape-bool", "a dimension that is true", "shape", entry("[true]", 0, 4), 4)
    bad("shape-over-u64", "a dimension of 2^64", "shape", entry(f"[{1 << 64}]"))
    bad("shape-hundred-digits", "a dimension of a hundred digits", "shape", entry("[" + "9" * 100 + "]"))
    bad("shape-product-overflow", "2^63 times 2^63 elements", "overflow", entry(f"[{1 << 63},{1 << 63}]"))
    bad("shape-product-overflow-then-zero", "2^63 times 2^63 times 0 elements", "overflow",
        entry(f"[{1 << 63},{1 << 63},0]", 0, 0), 0)
    bad("shape-product-wraps", "2^32 times 2^32 elements, which is 0 modulo 2^64", "overflow",
        entry(f"[{1 << 32},{1 << 32}]", 0, 0), 0)
    bad("shape-bytes-overflow", "2^62 elements of four bytes, which is 0 modulo 2^64", "overflow",
        entry(f"[{1 << 62}]", 0, 0), 0)
    bad("size-too-small", "three F32 values in eight bytes", "size", entry("[3]"))
    bad("size-too-large", "one F32 value in eight bytes", "size", entry("[1]"))
    bad("size-dtype", "F16 values with the size of F32", "size", entry(dtype='"F16"'))
    bad("size-scalar", "a scalar with no bytes", "size", entry("[]", 0, 0), 0)
    bad("four-bit-odd", "three F4 elements, which are not whole bytes", "divisible", entry("[3]", 0, 2, '"F4"'), 2)
    bad("six-bit-odd", "two F6_E2M3 elements, which are not whole bytes", "divisible", entry("[2]", 0, 2, '"F6_E2M3"'), 2)
    bad("offsets-missing", "no data_offsets", "data_offsets", '{"dtype":"F32","shape":[2]}')
    for count, numbers in ((0, "[]"), (1, "[8]"), (3, "[0,8,8]")):
        bad(f"offsets-{count}", f"data_offsets with {count} numbers", "data_offsets",
            f'{{"dtype":"F32","shape":[2],"data_offsets":{numbers}}}')
    bad("offsets-negative", "a negative offset", "offset", entry(begin=-8, end=0))
    bad("offsets-float", "an offset written 8.0", "offset", entry(end="8.0"))
    bad("offsets-exponent", "an offset written 8e0", "offset", entry(end="8e0"))
    bad("offsets-string", "an offset that is a string", "offset", entry(end='"8"'))
    bad("offsets-null", "an offset that is null", "offset", entry(begin="null"))
    bad("offsets-over-u64", "an offset of 2^64+8, which is 8 modulo 2^64", "offset", entry(end=(1 << 64) + 8))
    bad("offsets-beyond-end", "an end of 2^63", "offset", entry(f"[{1 << 61}]", 0, 1 << 63))
    bad("offsets-reversed", "the end lies before the beginning", "offset", entry("[2]", 8, 0))
    bad("offsets-not-from-zero", "the first tensor begins at 4", "offset", entry("[2]", 4, 12), 12)
    bad("field-twice", "dtype occurs twice in an entry", "duplicate", entry(more=',"dtype":"F32"'))
    bad("offsets-twice", "data_offsets occurs twice in an entry", "duplicate", entry(more=',"data_offsets":[0,8]'))

    def pair(name, what, about, first, second, data=16, names=("a", "b")):
        file(name, what, about, tensors(f'{{"{names[0]}":{first},"{names[1]}":{second}}}', data))

    pair("gap", "four unused bytes between two tensors", "gap", entry(), entry(begin=12, end=20), 20)
    pair("overlap", "two tensors share four bytes", "overlap", entry(), entry(begin=4, end=12), 12)
    pair("same-range", "two tensors share all their bytes", "overlap", entry(), entry(), 8)
    pair("contained", "one tensor lies inside another", "overlap", entry("[4]", 0, 16), entry("[1]", 4, 8), 16)
    pair("zero-size-inside", "a tensor without elements points into another tensor", "overlap", entry(), entry("[0]", 4, 4), 8)
    pair("zero-size-outside", "a tensor without elements points past the end", "offset", entry(), entry("[0]", 99, 99), 8)
    pair("name-twice", "two tensors of the same name", "duplicate", entry(), entry(begin=8, end=16), names=("w", "w"))
    pair("names-canonically-equal", "two names that differ only in how an accent is written (Unicode normalization)",
         "duplicate", entry(), entry("[2]", 8, 16), 16, names=("\u00e9", "e\u0301"))
    pair("name-twice-same-range", "one entry written twice", "duplicate", entry(), entry(), 8, names=("w", "w"))
    pair("name-twice-escaped", "the same name, once written with an escape", "duplicate", entry(), entry(begin=8, end=16),
         names=("w", "\\u0077"))
    w = f'"w":{entry()}'
    for name, what, about, metadata in (
            ("metadata-number", "a metadata value that is a number", "metadata", '"__metadata__":{"format":1},'),
            ("metadata-null-value", "a metadata value that is null", "metadata", '"__metadata__":{"format":null},'),
            ("metadata-nested", "a metadata value that is an object", "metadata", '"__metadata__":{"format":{}},'),
            ("metadata-array", "metadata that is an array", "metadata", '"__metadata__":["pt"],'),
            ("metadata-string", "metadata that is a string", "metadata", '"__metadata__":"pt",'),
            ("metadata-twice", "metadata occurs twice", "duplicate", '"__metadata__":{"a":"b"},"__metadata__":{"a":"b"},')):
        file(name, what, about, tensors("{" + metadata + w + "}"))


# -------------------------------------------------------------------- folders

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_size": 8,
    "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
    "vocab_size": 4, "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0,
}
LAYER = "model.layers.0."
WEIGHTS = {"model.embed_tokens.weight": [4, 8], "lm_head.weight": [4, 8], "model.norm.weight": [8],
           LAYER + "input_layernorm.weight": [8], LAYER + "post_attention_layernorm.weight": [8]}
WEIGHTS |= {f"{LAYER}self_attn.{p}_proj.weight": [8, 8] for p in "qkvo"}
WEIGHTS |= {f"{LAYER}mlp.{p}_proj.weight": [8, 8] for p in ("gate", "up", "down")}
NAMES = sorted(WEIGHTS)
HALVES = [NAMES[:6], NAMES[6:]]
MAP = {name: SHARDS[i] for i, half in enumerate(HALVES) for name in half}


def shard(names):
    """A correct file with these weights of the one-layer model, all small F16 numbers."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in names:
        count = math.prod(WEIGHTS[name])
        values = [((37 * i + 11 * len(name)) % 61 - 30) / 128 + ("norm" in name) for i in range(count)]
        header[name] = {"dtype": "F16", "shape": WEIGHTS[name], "data_offsets": [len(data), len(data) + 2 * count]}
        data += struct.pack(f"<{count}e", *values)
    text = json.dumps(header, separators=(",", ":"))
    return raw(text + " " * (-len(text) % 8), data)


def index(weight_map):
    size = sum(2 * math.prod(shape) for shape in WEIGHTS.values())
    return json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}, indent=1)


def folder(path, what, about, files, config=json.dumps(CONFIG, indent=1)):
    """Writes the files; the case itself is the folder `path`."""
    if config is not None:
        files = {"config.json": config} | files
    for name, content in files.items():
        target = OUT / path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    cases.append({"path": path, "what": what, "about": about})


def folders():
    both = {SHARDS[0]: shard(HALVES[0]), SHARDS[1]: shard(HALVES[1])}
    first, second = NAMES[0], NAMES[-1]

    def indexed(path, what, about, content, files=both):
        folder(path, what, about, files | {INDEX: content if isinstance(content, str) else index(content)})

    def renamed(name):
        return MAP | {n: name for n in HALVES[1]}

    indexed("index-not-json", "the index is not JSON", "index", "weights are in the two files\n")
    indexed("index-cut-off", "the index ends in the middle", "index", index(MAP)[:200])
    indexed("index-array", "the index is an array", "index", json.dumps([MAP]))
    indexed("index-without-map", "the index has no weight_map", "weight_map", '{"metadata":{"total_size":0}}')
    indexed("index-map-empty", "weight_map is empty", "weight_map", {})
    indexed("index-map-array", "weight_map is an array", "weight_map", NAMES)
    indexed("index-value-number", "a weight_map value is a number", "weight_map", MAP | {first: 1})
    indexed("index-value-null", "a weight_map value is null", "weight_map", MAP | {first: None})
    indexed("index-value-empty", "a weight_map value is the empty string", "shard", MAP | {first: ""})
    indexed("index-value-dots", "a weight_map value is `..`", "shard", renamed(".."))
    indexed("index-duplicate-key", "one tensor occurs twice in weight_map, with two shards", "duplicate",
            index(MAP).replace('"weight_map": {', f'"weight_map": {{\n  "{second}": "{SHARDS[0]}",'))
    indexed("index-duplicate-map", "weight_map occurs twice", "duplicate",
            index(MAP).replace('"weight_map"', '"weight_map": {},\n "weight_map"'))
    indexed("index-deep-nesting", "an array nested 40000 deep in the index", "nest",
            index(MAP).replace('"weight_map"', '"x": ' + "[" * 40_000 + "]" * 40_000 + ',\n "weight_map"'))
    indexed("index-missing-shard", "the second shard is not there", "model-00002-of-00002.safetensors", MAP,
            {SHARDS[0]: both[SHARDS[0]]})
    indexed("index-parent-path/model", "a shard outside the folder: ../outside.safetensors", "outside.safetensors",
            renamed("../outside.safetensors"), {SHARDS[0]: both[SHARDS[0]], "../outside.safetensors": both[SHARDS[1]]})
    indexed("index-absolute-path", "a shard with an absolute path", "/outside.safetensors", renamed("/outside.safetensors"))
    indexed("index-sub-folder", "a shard in a sub-folder", "sub/dir.safetensors", renamed("sub/dir.safetensors"),
            {SHARDS[0]: both[SHARDS[0]], "sub/dir.safetensors": both[SHARDS[1]]})
    indexed("index-backslash-path", "a shard named with a backslash", "outside.safetensors", renamed("..\\outside.safetensors"))
    indexed("index-hidden-slash", "a path whose slash carries a combining accent", "plain", renamed("../\u0301outside.safetensors"))
    indexed("index-other-ending", "a shard that is not named .safetensors", "plain", renamed("outside.bin"))
    indexed("index-wrong-shard", "a tensor of the second shard is said to be in the first", second, MAP | {second: SHARDS[0]})
    indexed("index-swapped", "the index has the two shards the wrong way round", "shard",
            {name: SHARDS[1 - SHARDS.index(place)] for name, place in MAP.items()})
    indexed("index-misses-tensor", "a shard holds a tensor the index does not name", second,
            {name: place for name, place in MAP.items() if name != second})
    indexed("index-extra-tensor", "the index names a tensor that no shard holds", "model.layers.1.extra",
            MAP | {"model.layers.1.extra": SHARDS[1]})
    indexed("shards-same-tensor", "both shards hold the same tensor", second, MAP,
            {SHARDS[0]: shard(HALVES[0] + [second]), SHARDS[1]: both[SHARDS[1]]})
    indexed("shard-truncated", "the last byte of the second shard is missing", "truncated", MAP,
            {SHARDS[0]: both[SHARDS[0]], SHARDS[1]: both[SHARDS[1]][:-1]})
    indexed("shard-is-text", "the second shard is a text file", "model-00002-of-00002.safetensors", MAP,
            {SHARDS[0]: both[SHARDS[0]], SHARDS[1]: "not downloaded\n"})
    indexed("shard-is-folder", "the second shard is a folder", "model-00002-of-00002.safetensors", MAP,
            {SHARDS[0]: both[SHARDS[0]], SHARDS[1] + "/README.txt": "a folder in place of a file\n"})
    folder("index-is-folder", "the index is a folder", "index", both | {INDEX + "/README.txt": "a folder in place of a file\n"})
    folder("shards-without-index", "two shards and no index", "index", both)

    whole = {SINGLE: shard(NAMES)}
    folder("no-weights", "a configuration and no weights", "safetensors", {})
    folder("only-a-readme", "a folder with nothing but a note", "no safetensors", {"README.txt": "No model here.\n"}, None)
    folder("pickle-only", "weights only as a pickle file", "safetensors", {"pytorch_model.bin": b"\x80\x02}q\x00."})
    folder("weights-are-folder", "model.safetensors is a folder", "model.safetensors",
           {SINGLE + "/README.txt": "a folder in place of a file\n"})
    folder("weights-truncated", "the single weight file is cut off", "truncated", {SINGLE: whole[SINGLE][:-100]})
    folder("config-not-json", "config.json is not JSON", "config.json", whole, "model_type: llama\n")
    folder("config-empty", "config.json is empty", "config.json", whole, "")
    folder("config-array", "config.json is an array", "config.json", whole, json.dumps([CONFIG]))
    folder("config-cut-off", "config.json ends in the middle", "config.json", whole, json.dumps(CONFIG)[:120])
    folder("config-not-utf8", "config.json is not UTF-8", "config.json", whole, json.dumps(CONFIG).encode("utf-16"))
    folder("config-deep-nesting", "an array nested 40000 deep in config.json", "nest", whole,
           json.dumps(CONFIG)[:-1] + ', "x": ' + "[" * 40_000 + "]" * 40_000 + "}")
    folder("config-is-folder", "config.json is a folder", "config.json",
           whole | {"config.json/README.txt": "a folder in place of a file\n"}, None)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    container_files()
    json_files()
    entry_files()
    folders()
    assert len({case["path"] for case in cases}) == len(cases)
    (OUT / "cases.json").write_text("[\n" + ",\n".join(" " + json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, {sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()
