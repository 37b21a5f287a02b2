"""Reads the packed format that convert-model writes. Written from Docs/PackedFormat.md alone.

Run:    python read_packed.py FOLDER                   decodes everything and lists it
        python read_packed.py FOLDER --check           compares every stored tensor with its SHA-256, too, and the
                                                       squares of what it decodes to with the sum in its `loss`
        python read_packed.py FOLDER --save FILE.npz   writes the decoded tensors to a file of numpy's
Or:     from read_packed import load, widen
        tensors = load("FOLDER")     # source tensor name -> array

A quantized tensor becomes float32, whatever its dtype was in the source. A kept one stays as it is stored: BF16 as
uint16 (`widen` makes float32 of it), dtypes that numpy does not know as bytes (uint8), others under numpy's own type.
A folder that breaks a rule of the format is refused; a BadFolder names the rule.

Needs:  Python 3.9, numpy
"""

import argparse
import hashlib
import json
import math
import sys
import zipfile
from pathlib import Path

import numpy as np

NUMPY = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2", "U32": "<u4",
         "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8"}
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {dtype: 8 * np.dtype(kind).itemsize for dtype, kind in NUMPY.items()}
ROLES = {"data", "codes", "scales", "zero_points", "scale_codes", "block_scales", "scale_offset",
         "outlier_columns", "outlier_weights", "group_index"}
CODEBOOKS = {"nf4": 16, "fp4": 16, "dynamic8": 256}


class BadFolder(Exception):
    pass


def require(condition, *complaint):
    if not condition:
        raise BadFolder(": ".join(map(str, complaint)))


def parse(text):
    def unique(pairs):
        require(len(dict(pairs)) == len(pairs), "a JSON object has a key twice")
        return dict(pairs)
    return json.loads(text, object_pairs_hook=unique)


def widen(array):
    """BF16 (as uint16), F16 or F32 as float32."""
    return (array.astype("<u4") << 16).view("<f4") if array.dtype == np.uint16 else array.astype("<f4")


def read_container(path):
    """A safetensors file as tensor name -> (dtype, shape, bytes as a uint8 array)."""
    content = np.memmap(path, mode="r")
    end = 8 + int.from_bytes(content[:8].tobytes(), "little")
    require(end <= content.size, path.name, "the header is cut short")
    header, data, tensors, end = parse(content[8:end].tobytes()), content[end:], {}, 0
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, previous) = entry["dtype"], entry["shape"], (entry["data_offsets"][0], end)
        end = entry["data_offsets"][1]
        require(begin == previous, path.name, name, "a gap or an overlap before it")
        require(8 * (end - begin) == math.prod(shape) * BITS.get(dtype, 8), path.name, name, "size and shape disagree")
        tensors[name] = dtype, shape, data[begin:end]
    require(end == data.size, path.name, "the tensors do not end where the file does")
    return tensors


def read_codes(stream, bits, count):
    """The codes of a bit stream."""
    stream = np.unpackbits(stream, bitorder="little")
    require(not stream[bits * count:].any(), "unused bits of a stream are not zero")
    return stream[:bits * count].reshape(count, bits) @ (1 << np.arange(bits))


def decode(shape, encoding, members, codebooks):
    """A quantized tensor as float32. `members`: role -> (dtype, shape, bytes)."""
    bits, levels, sharing, scales = (encoding[key] for key in ("bits", "levels", "sharing", "scales"))
    point = encoding["zero_point"] if levels == "affine" else None
    require(bits in range(2, 9) and sharing in ("tensor", "row", "group", "block")
            and scales in ("F32", "F16", "BF16", "nested") and (point in ("middle", "integer", "float")
            or levels == "codebook" and CODEBOOKS.get(encoding["codebook"]) == 1 << bits), "unknown encoding", encoding)

    count = math.prod(shape)
    length = count if sharing in ("tensor", "block") else shape[-1]
    size = min(encoding["group_size"], length) if sharing in ("group", "block") else length
    block = encoding["scale_block_size"] if scales == "nested" else 1
    require(size > 0 and block > 0, "a group of no elements")
    grid = [count // length, -(-length // size)]    # rows, groups per row
    groups = math.prod(grid)

    expected = {"codes": ("U8", [-(-count * bits // 8)])}
    if scales == "nested":
        expected |= {"scale_codes": ("U8", grid), "block_scales": ("F32", [-(-groups // block)]),
                     "scale_offset": ("F32", [1])}
    else:
        expected["scales"] = scales, grid
    if point in ("integer", "float"):
        expected["zero_points"] = ("U8", [-(-groups * bits // 8)]) if point == "integer" else (scales, grid)
    outliers, width = encoding.get("outlier_columns"), shape[-1] if shape else 1
    if outliers is not None:
        require(outliers in range(1, width + 1) and encoding["outlier_type"] in ("F16", "BF16"), "unknown encoding", encoding)
        expected |= {"outlier_columns": ("I32", [outliers]),
                     "outlier_weights": (encoding["outlier_type"], [count // width, outliers])}
    if encoding.get("group_index"):
        require(levels == "affine" and sharing == "group" and outliers is None, "unknown encoding", encoding)
        expected["group_index"] = "I32", [*shape[:-2], width]
    found = {role: member[:2] for role, member in members.items()}
    require(found == expected, "members are", found, "not", expected)

    def numbers(role):
        return widen(members[role][2].view(NUMPY[members[role][0]]))

    if scales == "nested":
        scale = codebooks["dynamic8"][members["scale_codes"][2]] * numbers("block_scales")[np.arange(groups) // block]
        scale = scale + numbers("scale_offset")
    else:
        scale = numbers("scales")
    codes = read_codes(members["codes"][2], bits, count)
    group = np.add.outer(np.arange(grid[0]) * grid[1], np.arange(length) // size).ravel()   # of each element
    if encoding.get("group_index"):
        index = members["group_index"][2].view("<i4").reshape(-1, width)    # a row for each matrix
        require(index.min() >= 0 and index.max() < grid[1], "group_index names a group that is not there")
        index = np.repeat(index, grid[0] // len(index), axis=0)
        group = (np.arange(grid[0])[:, None] * grid[1] + index).ravel()
    if levels == "codebook":
        weights = codebooks[encoding["codebook"]][codes] * scale[group]
    else:
        if point == "middle":
            zero = np.full(groups, 1 << (bits - 1))
        else:
            zero = numbers("zero_points") if point == "float" else read_codes(members["zero_points"][2], bits, groups)
        weights = scale[group] * (codes.astype("<f4") - zero.astype("<f4")[group])
    if outliers is not None:
        columns = members["outlier_columns"][2].view("<i4")
        require((np.diff(columns) > 0).all() and columns[0] >= 0 and columns[-1] < width, "outlier_columns do not rise")
        weights = weights.reshape(-1, width)
        weights[:, columns] = numbers("outlier_weights").reshape(-1, outliers)
    return weights.reshape(shape)


def sample(shape, encoding):
    """Which elements of the flattened tensor the sums of its `loss` are over."""
    count, width = math.prod(shape), shape[-1] if shape else 1
    if count <= 1 << 18:
        return np.arange(count)
    group = {"tensor": count, "row": width, "group": min(encoding.get("group_size", 0), width),
             "block": encoding.get("group_size", 0)}[encoding["sharing"]]
    run = 1 << min(max(group.bit_length() - 1, 6), 9)
    j = np.arange(-(-count // run), dtype=np.uint64)
    first = j * run + (j * 2654435769 % (1 << 32) * (run // 8) >> 32) * 8
    elements = (first[:, None] + np.arange(8, dtype=np.uint64)).ravel()
    return elements[elements < count].astype(np.int64)


def load(folder, check=False):
    """Source tensor name -> numpy array, in the order of the manifest; with `check`, every SHA-256 is compared, and the
    squares of quantized tensors with the recorded sums."""
    manifest = parse((Path(folder) / "quantization_manifest.json").read_bytes())
    require(manifest["format"] == "convert-model-packed" and manifest["version"] in (1, 2), "another format or version")
    stored = {}
    for file in manifest["files"]:
        path = Path(folder) / file["name"]
        require(path.name == file["name"] and path.stat().st_size == file["bytes"], path.name, "wrong name or size")
        stored[path.name] = read_container(path)

    def take(file, member):     # what one has taken is not there for another
        name = member["tensor"]
        require(name in stored.get(file, ()), file, name, "not there, or a member twice")
        tensor = stored[file].pop(name)
        require(tensor[2].size == member["bytes"], name, "not of the size in the manifest")
        require(not check or hashlib.sha256(tensor[2]).hexdigest() == member["sha256"], name, "SHA-256 differs")
        return tensor

    codebooks, tensors = {}, {}
    for member in manifest["codebooks"]:
        dtype, shape, data = take(manifest["files"][0]["name"], member)
        name = member["tensor"].removeprefix("codebook.")
        require((member["role"], dtype, shape) == ("data", "F32", [CODEBOOKS.get(name)]), name, "no such codebook")
        codebooks[name] = data.view("<f4")
    for name, record in manifest["tensors"].items():
        kept, members = record["bucket"] in ("kept", "folded"), {}
        shape, transposed = record["shape"], record.get("transposed", False)
        require(not transposed or manifest["version"] > 1 and not kept and len(shape) > 1, name, "cannot be transposed")
        require(kept or record["bucket"] == "quantized", name, "unknown bucket")
        for member in record["members"]:
            role = member["role"]
            require(role in ROLES, name, role, "unknown role")
            require(member["tensor"] == (name if kept else f"{name}.{role}"), name, role, "is named otherwise")
            members[role] = take(record["file"], member)
        require(record["stored_bytes"] == sum(data.size for _, _, data in members.values()), name, "wrong stored_bytes")
        if kept:
            dtype, data = record["dtype"], members["data"][2]
            require(len(members) == 1 and members["data"][:2] == (dtype, shape), name, "not stored as it was")
            tensors[name] = data.view(NUMPY.get(dtype, "u1")).reshape(shape if BITS.get(dtype, 8) >= 8 else -1)
        else:
            coded = shape[:-2] + shape[:-3:-1] if transposed else shape
            tensors[name] = decode(coded, record["encoding"], members, codebooks)
            if check and "loss" in record:
                values = tensors[name].ravel()[sample(coded, record["encoding"])].astype("<f8")
                found, recorded = float((values * values).sum()), float(record["loss"]["decoded_squares"])
                require(abs(found - recorded) <= 1e-11 * max(found, recorded), name, "other squares than were written")
            if transposed:
                tensors[name] = np.ascontiguousarray(tensors[name].swapaxes(-1, -2))
    require(not any(stored.values()), "of no record", *(name for rest in stored.values() for name in rest))
    return tensors


def main():
    parser = argparse.ArgumentParser(description="Decodes a folder in the packed format of convert-model.")
    parser.add_argument("folder")
    parser.add_argument("--check", action="store_true", help="compare stored tensors with their SHA-256, and sums of squares")
    parser.add_argument("--save", metavar="FILE.npz", help="write the decoded tensors")
    options = parser.parse_args()
    try:
        tensors = load(options.folder, options.check)
    except (BadFolder, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        sys.exit(f"refused: {type(error).__name__}: {error}")
    for name, array in tensors.items():
        print(f"{name}  {array.dtype} {list(array.shape)}")
    if options.save:    # not with np.savez, whose own parameters could be names of tensors
        with zipfile.ZipFile(options.save, "w") as archive:
            for name, array in tensors.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array)


if __name__ == "__main__":
    main()
