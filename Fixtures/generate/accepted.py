"""Makes ../accepted: odd but legal safetensors files a reader must take, and cases.json about them.

Run:    python accepted.py      (Python 3.11, nothing else needed)
"""

import json
import math
import shutil
import struct
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "accepted"
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
        "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
cases = []


def layout(tensors, more=None):
    """Entries, one after the other in memory, for (name, dtype, shape) triples, and the length of the data."""
    entries, end = {}, 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]} | (more or {})
    return entries, end


def file(name, what, header, size, names):
    """Writes a file whose data bytes are 0, 1, 0, 1 ... (legal for every dtype)."""
    text = (header if isinstance(header, str) else json.dumps(header, ensure_ascii=False, separators=(",", ":"))).encode()
    path = OUT / f"{name}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(i % 2 for i in range(size)))
    cases.append({"path": path.name, "what": what, "tensors": len(names), "names": sorted(names)})


def simple(name, what, tensors, more=None, extra=None):
    entries, size = layout(tensors, more)
    file(name, what, (extra or {}) | entries, size, entries)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    file("no-tensors", "an empty object and no data", "{}", 0, [])
    simple("zero-size", "tensors without elements before, between and after others",
           [("first", "F32", [0]), ("a", "F32", [2]), ("middle", "I64", [3, 0, 5]), ("b", "U8", [4]), ("last", "F16", [0, 0])])
    simple("scalar", "shape [] is one element", [("scalar", "F32", []), ("one", "F32", [1])])
    simple("empty-name", "the empty string is a name", [("", "I32", [2]), (" ", "I32", [1])])
    entries, size = layout([("w", "F64", [2, 3])])
    text = json.dumps(entries, separators=(",", ":"))
    assert len(text) % 8, "the point of this file"
    file("unaligned-header", "a header length that is no multiple of 8", text, size, entries)
    simple("extra-keys", "unknown keys in an entry", [("w", "BF16", [4])], {"note": {"x": [1, -2.5e3, None, "}"]}, "shape2": 7})
    simple("metadata-null", "__metadata__ is null", [("w", "I8", [3])], extra={"__metadata__": None})
    simple("all-dtypes", "every dtype once, the six-bit and four-bit ones in whole bytes",
           sorted(((d.lower(), d, [2, 4]) for d in BITS), key=lambda t: -BITS[t[1]]))
    simple("odd-names", "names that only the exact bytes tell apart, control characters, a path, a long one",
           [(n, "U8", [2]) for n in ("a\nb", "a\r\nb", "a\0b", "../up", "/root.weight", "\u00e9", "\u91cd\u307f",
                                     "\U0001f9ca", "quote\"back\\slash", "__metadata__2", "W", "w", "n" * 300)])
    entries, size = layout([("c", "F32", [2]), ("b", "F32", [1]), ("a", "F32", [3])])
    order = {name: entries[name] for name in ("a", "c", "b")}
    file("unordered-spaced", "entries not in the order of their data, blanks of all kinds between and after tokens",
         json.dumps(order, indent="\t").replace("\n", "\r\n") + " \n\t ", size, entries)
    (OUT / "cases.json").write_text("[\n" + ",\n".join(" " + json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, {sum(f.stat().st_size for f in OUT.iterdir())} bytes")


if __name__ == "__main__":
    main()
