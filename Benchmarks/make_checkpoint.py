"""Writes a Llama-shaped bf16 checkpoint of 1.1 billion random parameters (2.2 GB, four shards), for `make bench`.

usage: make_checkpoint.py FOLDER          (needs Python 3 alone; seeded, so the bytes are the same every time)

Shapes are TinyLlama-1.1B's. Weights are sums of two uniform bytes turned into small bfloat16 values: a triangular
distribution, which is near enough to a normal one for timing. One block of random values is reused at varying offsets.
"""
import array
import json
import os
import random
import struct
import sys

HIDDEN, FEED_FORWARD, LAYERS, KEYS, VOCABULARY = 2048, 5632, 22, 256, 32000


def shapes():
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, shape in [
            ("self_attn.q_proj", (HIDDEN, HIDDEN)), ("self_attn.k_proj", (KEYS, HIDDEN)),
            ("self_attn.v_proj", (KEYS, HIDDEN)), ("self_attn.o_proj", (HIDDEN, HIDDEN)),
            ("mlp.gate_proj", (FEED_FORWARD, HIDDEN)), ("mlp.up_proj", (FEED_FORWARD, HIDDEN)),
            ("mlp.down_proj", (HIDDEN, FEED_FORWARD)), ("input_layernorm", (HIDDEN,)),
            ("post_attention_layernorm", (HIDDEN,)),
        ]:
            yield prefix + name + ".weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def noise(count):
    """`count` bfloat16 values around ±0.05, as bytes."""
    source = random.Random(1).randbytes(2 * count)
    table = [struct.unpack("<I", struct.pack("<f", (value - 255) / 5000))[0] >> 16 for value in range(511)]
    return array.array("H", (table[a + b] for a, b in zip(source[::2], source[1::2]))).tobytes()


def main(folder):
    os.makedirs(folder, exist_ok=True)
    block = noise(1 << 21) * 2
    tensors = list(shapes())
    sizes = {name: 2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for name, shape in tensors}
    shards, limit = [[]], sum(sizes.values()) // 4
    for name, shape in tensors:
        if sum(sizes[other] for other, _ in shards[-1]) + sizes[name] > limit and len(shards) < 4:
            shards.append([])
        shards[-1].append((name, shape))
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + sizes[name]]}
            end += sizes[name]
            weight_map[name] = file
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, file), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for index, (name, _) in enumerate(shard):
                left, start = sizes[name], 2 * ((index * 7919) % (1 << 20))
                while left:
                    count = min(left, 1 << 22)
                    out.write(block[start:start + count])
                    left -= count
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump(index, out, indent=2)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(
            {
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
                "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
                "num_key_value_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
            },
            out,
            indent=2,
        )


main(sys.argv[1])
