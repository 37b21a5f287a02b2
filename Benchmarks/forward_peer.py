"""Tokens per second of transformers' forward pass on the CPU, for `forward` to compare with.

usage: forward_peer.py MODEL WINDOWS LENGTH [--threads N] [--rounds N] [--blocks N]

Runs the model in float32 over batches of eight windows of random tokens, with the losses of their predictions, and
prints JSON. With --blocks, only the first blocks and no head.
"""
import argparse
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import torch
from transformers import AutoConfig, AutoModelForCausalLM


@torch.no_grad()
def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("windows", type=int)
    arguments.add_argument("length", type=int)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--blocks", type=int)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    config = AutoConfig.from_pretrained(options.model)
    if options.blocks:
        config.num_hidden_layers = options.blocks
    model = AutoModelForCausalLM.from_pretrained(options.model, config=config, dtype=torch.float32).eval()
    tokens = torch.randint(0, config.vocab_size, (options.windows, options.length))
    best = float("inf")
    for _ in range(options.rounds + 1):  # the fastest of the rounds; the first warms up
        start = time.monotonic()
        for batch in tokens.split(8):
            if options.blocks:
                model.model(input_ids=batch, use_cache=False)
            else:
                logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
                torch.log_softmax(logits, -1).gather(-1, batch[:, 1:, None]).sum().item()
        best = min(best, time.monotonic() - start)
    print(json.dumps({"tokensPerSecond": tokens.numel() / best}))


main()
