"""Tokens per second of transformers' forward pass on the CPU, for `forward` to compare with.

usage: forward_peer.py MODEL WINDOWS LENGTH [--threads N] [--rounds N] [--text FILE]

Runs the model in float32 over batches of eight windows of random tokens, or of a text with its losses, and prints JSON.
"""
import argparse
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("windows", type=int)
    arguments.add_argument("length", type=int)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--text")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    count = options.windows * options.length
    if options.text:
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        ids = tokenizer(open(options.text, encoding="utf-8").read(), add_special_tokens=False)["input_ids"][:count]
        tokens = torch.tensor(ids).view(options.windows, options.length)
    else:
        tokens = torch.randint(0, model.config.vocab_size, (options.windows, options.length))
    best = float("inf")
    for _ in range(options.rounds + 1):  # the fastest of the rounds; the first warms up
        start, loss = time.monotonic(), 0.0
        for batch in tokens.split(8):
            logits = model(input_ids=batch).logits[:, :-1].float()
            losses = torch.log_softmax(logits, -1).gather(-1, batch[:, 1:, None])
            loss -= losses.sum().item()
        best = min(best, time.monotonic() - start)
    print(json.dumps({"tokensPerSecond": count / best, "loss": loss / (count - options.windows)}))


main()
