"""Makes ../tiny-llama, ../text/tiny-eval.txt and ../goldens/tiny-llama.json.

tiny-llama is a small but really trained Llama checkpoint (0.6 M parameters,
bf16, two shards) in the Hugging Face layout, with a byte-level BPE tokenizer.
Text, tokenizer and weights all come from this script and tiny_text.py.

Run:    python tiny_llama.py        (one thread, about four minutes)
Needs:  torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0

Same versions on the same kind of processor give the same bytes.
"""

import json
import math
import os
import shutil
from itertools import islice
from pathlib import Path

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiny_text import documents

HERE = Path(__file__).resolve().parent
MODEL, TEXT, GOLDEN = HERE.parent / "tiny-llama", HERE.parent / "text", HERE.parent / "goldens"
END = "<|endoftext|>"
SEED, EVAL_SEED = 20, 21
VOCABULARY, CONTEXT = 512, 256
STEPS, BATCH, WARMUP, TOP_RATE, END_RATE = 1500, 8, 60, 4e-3, 2e-4
# The way Llama 3 cuts text before merging: contractions, words with the mark
# or space before them, up to three digits, punctuation, line ends, spaces.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts():
    """20 kB to judge by, and training documents of which none is among them."""
    held_out, size = [], 0
    for document in documents(EVAL_SEED):
        if size + len(document) + 2 > 20_000:
            break
        held_out.append(document)
        size += len(document) + 2
    seen = set(held_out)
    return [d for d in islice(documents(SEED), 40_000) if d not in seen], "\n\n".join(held_out) + "\n"


def joined(documents):
    """Eight documents to a text, with blank lines between them as in the held-out text."""
    return ["\n\n".join(documents[i:i + 8]) for i in range(0, len(documents), 8)]


def make_tokenizer(train):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(train[:1250], trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def stream(tokenizer, train):
    """All texts in a row, each followed by the end token."""
    texts = tokenizer(train, add_special_tokens=False).input_ids
    return torch.tensor([token for text in texts for token in text + [tokenizer.eos_token_id]])


def fit(model, ids):
    optimizer = torch.optim.AdamW(model.parameters(), lr=TOP_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    choose, recent = torch.Generator().manual_seed(SEED), []
    model.train()
    for step in range(STEPS):
        fall = 0.5 + 0.5 * math.cos(math.pi * max(0, step - WARMUP) / (STEPS - WARMUP))
        rate = min(1, (step + 1) / WARMUP) * (END_RATE + (TOP_RATE - END_RATE) * fall)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(ids) - CONTEXT, (BATCH,), generator=choose).tolist()
        batch = torch.stack([ids[s:s + CONTEXT] for s in starts])
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = recent[-99:] + [loss.item()]
        if step % 100 == 99:
            print(f"step {step + 1}  loss {sum(recent) / len(recent):.4f}", flush=True)
    return sum(recent) / len(recent)


@torch.no_grad()
def perplexity(model, ids):
    """Windows of 256 side by side, each alone; the first token of a window is not predicted."""
    model.eval()
    total, count = 0.0, 0
    for window in ids.split(CONTEXT):
        if len(window) > 1:
            logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
    return math.exp(total / count), count


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    train, held_out = texts()
    train = joined(train)
    tokenizer = make_tokenizer(train)
    end = tokenizer.eos_token_id
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=320, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=end, eos_token_id=end))
    ids = stream(tokenizer, train)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(ids)} training tokens")
    loss = fit(model, ids)
    model = model.to(torch.bfloat16)

    for folder in (MODEL, TEXT, GOLDEN):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(MODEL)
    model.save_pretrained(MODEL, max_shard_size="700KB")
    tokenizer.save_pretrained(MODEL)
    (TEXT / "tiny-eval.txt").write_text(held_out, encoding="utf-8")

    saved = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    held_out_ids = torch.tensor(tokenizer(held_out, add_special_tokens=False).input_ids)
    value, count = perplexity(saved, held_out_ids)
    greedy = saved.generate(held_out_ids[None, :16], max_new_tokens=32, do_sample=False)[0, 16:]
    (GOLDEN / "tiny-llama.json").write_text(json.dumps({
        "training_loss_last_100_steps": round(loss, 4),
        "evaluation_text": "text/tiny-eval.txt", "evaluation_tokens": len(held_out_ids),
        "window": CONTEXT, "predicted_tokens": count, "perplexity": round(value, 5),
        "first_tokens": held_out_ids[:64].tolist(), "greedy_after_first_16": greedy.tolist(),
    }, indent=1) + "\n")
    print(f"loss {loss:.4f}, perplexity {value:.4f} over {count} tokens")
    print(repr(tokenizer.decode(held_out_ids[:16])), "->", repr(tokenizer.decode(greedy)))


if __name__ == "__main__":
    main()
