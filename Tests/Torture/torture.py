#!/usr/bin/env python3
"""Kills conversions at random moments, goes on with them, and compares the result with an undisturbed run.

    Tests/Torture/torture.py PROGRAM [--kills 200] [--seed N] [--folder F]

For a method without activations, GPTQ and AWQ, on checkpoints of many shards that the script makes: one of random weights
for the first, and a small Llama with a tokenizer, from the repository's fixtures, cut into shards for the others. A tenth
as many kills more for each of the other long runs: learned rounding, LLM.int8(), evidence, a GGUF file by a text,
unpacking. The last line says kills, differences, leftovers; the exit code is 0 only where the last two are 0.
"""
import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "Fixtures"


def read_tensors(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                tensors[name] = (entry["dtype"], entry["shape"], data[8 + length + start : 8 + length + end])
    return tensors


def write_shards(folder, tensors, count):
    folder.mkdir(parents=True)
    names = sorted(tensors)
    groups = [names[i::count] for i in range(count)]
    weight_map = {}
    for index, group in enumerate(groups):
        file = f"model-{index + 1:05}-of-{count:05}.safetensors"
        header, offset = {}, 0
        for name in group:
            dtype, shape, data = tensors[name]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in group:
                out.write(tensors[name][2])
    size = sum(len(t[2]) for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def make_random(folder, generator, layers=24, width=512):
    """BF16 weights near a normal distribution; the files are a model's in nothing but names and shapes."""
    tensors = {}
    for layer in range(layers):
        for part in ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]:
            count = width * width
            # Sign, an exponent of 2^-7 to 2^-4, and random bits of the significand.
            low = generator.randbytes(count)
            high = generator.randbytes(count)
            data = bytearray(2 * count)
            data[0::2] = low
            data[1::2] = bytes((b & 0x80) | 0x3C | (b & 0x01) for b in high)
            tensors[f"model.layers.{layer}.{part}.weight"] = ("BF16", [width, width], bytes(data))
    write_shards(folder, tensors, 16)


def make_model(folder):
    source = FIXTURES / "tiny-llama"
    write_shards(folder, read_tensors(source), 8)
    for file in source.iterdir():
        if not file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy(file, folder / file.name)


def contents(path):
    if path.is_file():
        return path.read_bytes()
    return {f.name: f.read_bytes() for f in sorted(path.iterdir())}


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_until_done(command, output, kills, duration, generator):
    """Kills the command `kills` times at random moments, then lets it end. Returns the kills, and the steps gone on with."""
    done, resumed = 0, 0
    while done < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(generator.random() * duration)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        error = process.communicate()[1].decode()
        resumed += "going on with" in error
        if process.returncode not in (0, -signal.SIGKILL):
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}: {error}")
        if output.exists() and done < kills:
            remove(output)
    ended = subprocess.run(command + ["--resume"], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {ended.returncode}: {ended.stderr}")
    return done, resumed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default=None, help="where to work; removed afterwards")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    work = Path(options.folder or f"/tmp/convert-model-torture-{os.getpid()}")
    work.mkdir(parents=True)
    program = str(Path(options.program).resolve())
    calibration = ["--samples", "64", "--sequence-length", "128", "--record-every", "0"]
    kills, more, differences, leftovers = 0, 0, 0, 0
    try:
        make_random(work / "random", generator)
        make_model(work / "model")
        random_weights, model, packed = (str(work / name) for name in ("random", "model", "packed"))
        four_bits = ["--bits", "4", "--group-size", "32", *calibration]
        methods = [
            ("nf4", [random_weights, "--method", "nf4", "--double-quantization"], ""),
            ("gptq", [model, "--method", "gptq", *four_bits], ""),
            ("awq", [model, "--method", "awq", *four_bits], ""),
        ]
        learned = ["--method", "learned", "--bits", "3", "--group-size", "32", "--coupled-sweeps", "1", "--sweeps", "1"]
        steps = ["--iterations", "12", "--distill", "12", "--tune-norms"]
        others = [
            ("learned", [model, *learned, *steps, *calibration], ""),
            ("llm-int8", [model, "--method", "llm-int8", *calibration], ""),
            ("calibrate", ["calibrate", model, *calibration], ".safetensors"),
            ("GGUF by a text", [model, "--type", "Q4_K_M", "--calibration", "default", *calibration], ".gguf"),
            ("unpack", ["unpack", packed], ""),
        ]
        subprocess.run([program, random_weights, "-o", packed], check=True, stdout=subprocess.DEVNULL)
        for number, (name, arguments, ending) in enumerate(methods + others):
            reference, output = work / f"undisturbed-{number}{ending}", work / f"out-{number}{ending}"
            command = [program, *arguments, "-o"]
            started = time.monotonic()
            subprocess.run(command + [str(reference)], check=True, stdout=subprocess.DEVNULL)
            duration = time.monotonic() - started
            share = options.kills // len(methods) + (number < options.kills % len(methods))
            if number >= len(methods):
                share = options.kills // 10
            done, resumed = run_until_done(command + [str(output)], output, share, duration, generator)
            if number < len(methods):
                kills += done
            else:
                more += done
            same = contents(reference) == contents(output)
            differences += not same
            left = [p for p in work.iterdir() if p.name.startswith(".")]
            leftovers += len(left)
            print(
                f"{name}: undisturbed {duration:.2f} s, {done} kills, {resumed} runs gone on with,"
                f" {'same bytes' if same else 'OTHER BYTES'}{', left ' + str(left) if left else ''}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{more} kills more, of other runs")
    print(f"{kills} kills, {differences} differences, {leftovers} leftovers")
    return 1 if differences or leftovers else 0


if __name__ == "__main__":
    sys.exit(main())
