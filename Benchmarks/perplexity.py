"""Perplexity of a checkpoint and, against a reference, KL divergence and top-1 agreement of its predictions.

usage: perplexity.py MODEL TEXT [--reference MODEL] [--window 256] [--tokens 32768]      (needs transformers and torch)

The text is tokenized without special tokens, cut to `--tokens`, and split into windows side by side; what is left over
is dropped. Each window is run alone, in float32 on the CPU; its first token is not predicted. Prints one line of JSON:
KL is in nats per predicted token, top1 the share of positions with the same best token.
"""
import argparse
import json
import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def log_probabilities(model, tokens):
    return torch.log_softmax(model(input_ids=tokens).logits[:, :-1].float(), -1)


@torch.no_grad()
def main(options):
    source = options.reference or options.model
    with open(options.text, encoding="utf-8") as file:
        tokens = AutoTokenizer.from_pretrained(source)(file.read(), add_special_tokens=False)["input_ids"]
    tokens = tokens[: options.tokens]
    count = len(tokens) // options.window
    windows = torch.tensor(tokens[: count * options.window]).view(count, options.window)

    load = AutoModelForCausalLM.from_pretrained
    model = load(options.model, dtype=torch.float32).eval()
    reference = load(options.reference, dtype=torch.float32).eval() if options.reference else None
    loss = divergence = agreement = 0.0
    for batch in windows.split(8):
        found = log_probabilities(model, batch)
        loss -= found.gather(-1, batch[:, 1:, None]).sum().item()
        if reference is not None:
            wanted = log_probabilities(reference, batch)
            divergence += (wanted.exp() * (wanted - found)).sum().item()
            agreement += (wanted.argmax(-1) == found.argmax(-1)).sum().item()
    predicted = count * (options.window - 1)
    result = {"perplexity": round(math.exp(loss / predicted), 5), "tokens": predicted}
    if reference is not None:
        result |= {"kl": round(divergence / predicted, 6), "top1": round(agreement / predicted, 5)}
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--reference")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=32768)
    main(parser.parse_args())
