"""Makes ../architectures: a tiny random checkpoint of each architecture, and what transformers computes with it.

Each case is a folder with config.json, model.safetensors (BF16, random weights) and golden.safetensors, which holds
`input_ids` [2, T] and `logits` [2, T, V], for encoders `hidden` [2, T, H] (the last hidden state), from a run in
float32 with plain ("eager") attention. ../architectures/README.md lists the cases.

A case is refused unless every weight and each named setting moves its golden by more than 1 % (relative, 2-norm),
and if a choice of experts is so close that rounding could change it.

Run:    python architectures.py            (one thread, about 20 seconds)
        python architectures.py NAME...    makes only these cases
Needs:  torch 2.15.0, transformers 5.23.0, safetensors 0.8.0

Same versions on the same kind of processor give the same bytes.
"""

import json
import math
import os
import shutil
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch
import transformers
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).resolve().parent.parent / "architectures"
SEED = 40
LENGTH, VOCABULARY = 20, 36
LEAST_EFFECT = 1e-2
LEAST_GAP = 1e-3                                    # between the last expert chosen and the next


@dataclass
class Case:
    name: str
    model: str                                      # class of transformers
    settings: dict                                  # of its configuration
    exercises: str                                  # for the table in the README
    probes: dict = field(default_factory=dict)      # name: settings that must change the golden
    length: int = LENGTH
    encoder: str | None = None                      # attribute that holds the encoder; "" for the model itself
    keys: str = "5"                                 # whose config.json keys: transformers 5 or 4
    rename: object = None                           # state dict as saved -> state dict as stored
    seed: str | None = None                         # for weights and ids, instead of the name
    weights: float = 1.0                            # factor on the matrices' standard deviation


SIZES = dict(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
GROUPED = SIZES | dict(num_key_value_heads=2)
WIDE = GROUPED | dict(head_dim=8)                   # heads x head_dim = 32, hidden 16
ENCODER = SIZES | dict(pad_token_id=1, bos_token_id=2, eos_token_id=3, max_position_embeddings=28)
GPT2 = dict(vocab_size=VOCABULARY, n_positions=28, n_embd=16, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
            layer_norm_epsilon=0.05)
NEOX = SIZES | dict(num_attention_heads=2)
OPT = dict(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, ffn_dim=24, num_attention_heads=4,
           max_position_embeddings=28, pad_token_id=1, bos_token_id=2, eos_token_id=3)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta) | more)


PLAIN = rope(theta=200.0)
LLAMA3 = rope("llama3", 200.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(factor=4.0, original_max_position_embeddings=64)
MSCALE = YARN | dict(beta_fast=8.0, beta_slow=0.5, mscale=2.0, mscale_all_dim=0.5, truncate=False)
LONG = dict(short_factor=[1.0, 1.2, 1.5, 2.0], long_factor=[1.5, 3.0, 6.0, 9.0])
PHI3 = GROUPED | dict(pad_token_id=None)
PHI3_WIDE = PHI3 | dict(num_attention_heads=2, num_key_value_heads=1)
LONGROPE = PHI3_WIDE | dict(original_max_position_embeddings=16) | rope("longrope", 200.0, **LONG)
# sqrt(20), by which embeddings are multiplied, is not a bf16 number.
GEMMA = WIDE | dict(hidden_size=20, pad_token_id=2, rms_norm_eps=0.5)
GEMMA2 = GEMMA | dict(sliding_window=8, query_pre_attn_scalar=6, attn_logit_softcapping=4.0,
                      final_logit_softcapping=5.0) | PLAIN
LOCAL = dict(rope_type="default", rope_theta=50.0)
GEMMA3_ROPE = dict(sliding_attention=LOCAL, full_attention=dict(rope_type="linear", factor=4.0, rope_theta=300.0))
GEMMA3 = GEMMA | dict(num_hidden_layers=3, sliding_window=8, query_pre_attn_scalar=6,
                      rope_parameters=GEMMA3_ROPE)
MIXTRAL = GROUPED | dict(num_local_experts=4, num_experts_per_tok=2) | rope(theta=1000000.0)
MOE = WIDE | dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12) | PLAIN


def fused_experts(tensors):
    """The names and shapes that transformers 5 has in memory: all experts of a layer in one tensor, gate before up."""
    fused, experts = {}, {}
    for name, value in tensors.items():
        name = name.replace(".block_sparse_moe.", ".mlp.")
        head, mark, tail = name.partition(".mlp.experts.")
        if mark:
            index, part, _ = tail.split(".")
            experts.setdefault(head + mark, {})[int(index), part] = value
        else:
            fused[name] = value
    for head, parts in experts.items():
        gate, up, down = ("w1", "w3", "w2") if (0, "w1") in parts else ("gate_proj", "up_proj", "down_proj")
        count = 1 + max(index for index, _ in parts)
        fused[head + "gate_up_proj"] = torch.stack(
            [torch.cat([parts[i, gate], parts[i, up]]) for i in range(count)])
        fused[head + "down_proj"] = torch.stack([parts[i, down] for i in range(count)])
    return fused


def bare_gpt2(tensors):
    """GPT-2 as first published: no prefix, and the causal mask of each layer as a tensor."""
    bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    mask = torch.ones(28, 28, dtype=torch.bfloat16).tril()[None, None]
    return bare | {f"h.{i}.attn.bias": mask.clone() for i in range(2)}


def old_bert(tensors):
    """BERT as first published: gamma and beta, and the positions as a tensor."""
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in tensors.items()}
    return old | {"bert.embeddings.position_ids": torch.arange(28)[None]}


CASES = [
    Case("llama", "LlamaForCausalLM", GROUPED | rope() | dict(rms_norm_eps=0.05),
         "grouped-query attention, untied head", {"theta": rope(theta=1000.0), "eps": dict(rms_norm_eps=1e-6)}),
    Case("llama-tied", "LlamaForCausalLM", GROUPED | rope(theta=500000.0) | dict(tie_word_embeddings=True),
         "tied head, no `lm_head.weight`", {"theta": rope()}, keys="4"),
    Case("llama-rope-llama3", "LlamaForCausalLM", WIDE | dict(max_position_embeddings=512) | LLAMA3,
         "rope scaling `llama3`, frequencies in all three ranges", {
             "scaling": PLAIN, "factor": dict(rope_parameters=LLAMA3["rope_parameters"] | dict(factor=2.0)),
             "high": dict(rope_parameters=LLAMA3["rope_parameters"] | dict(high_freq_factor=16.0)),
             "low": dict(rope_parameters=LLAMA3["rope_parameters"] | dict(low_freq_factor=0.2))}, keys="4"),
    Case("llama-rope-linear", "LlamaForCausalLM", WIDE | rope("linear", 200.0, factor=4.0),
         "rope scaling `linear`, under the old key `type`", {"scaling": PLAIN}, keys="4 type"),
    Case("llama-rope-dynamic", "LlamaForCausalLM",
         WIDE | dict(max_position_embeddings=12) | rope("dynamic", 200.0, factor=2.0),
         "rope scaling `dynamic`, 20 tokens with `max_position_embeddings` 12", {
             "scaling": PLAIN, "factor": rope("dynamic", 200.0, factor=4.0)}, keys="4 type"),
    Case("llama-rope-yarn", "LlamaForCausalLM", WIDE | dict(max_position_embeddings=256) | rope("yarn", 200.0, **YARN),
         "rope scaling `yarn` with default bounds and attention factor", {
             "scaling": PLAIN, "attention factor": rope("yarn", 200.0, **YARN, attention_factor=1.0)}),
    Case("llama-rope-yarn-mscale", "LlamaForCausalLM",
         WIDE | dict(max_position_embeddings=256) | rope("yarn", 200.0, **MSCALE),
         "rope scaling `yarn` with its own bounds, not truncated, and `mscale`", {
             "scaling": PLAIN, "truncate": rope("yarn", 200.0, **MSCALE | dict(truncate=True)),
             "mscale": rope("yarn", 200.0, **MSCALE | dict(mscale=None)),
             "beta_fast": rope("yarn", 200.0, **MSCALE | dict(beta_fast=32.0)),
             "beta_slow": rope("yarn", 200.0, **MSCALE | dict(beta_slow=1.0))}, keys="4"),
    Case("llama-bias", "LlamaForCausalLM", GROUPED | rope() | dict(attention_bias=True, mlp_bias=True),
         "biases in attention and feed-forward; `rope_theta` left out", keys="4"),
    Case("mistral", "MistralForCausalLM", GROUPED | PLAIN | dict(sliding_window=8),
         "sliding window of 8 in all layers", {
             "window": dict(sliding_window=None), "window + 1": dict(sliding_window=9)}, keys="4"),
    Case("mistral-head-dim", "MistralForCausalLM", WIDE | PLAIN | dict(sliding_window=None),
         "`head_dim` 8 with hidden / heads = 4, no window"),
    Case("qwen2", "Qwen2ForCausalLM", GROUPED | PLAIN | dict(tie_word_embeddings=True),
         "biases of query, key and value only; a window that is not used", keys="4"),
    Case("qwen2-sliding", "Qwen2ForCausalLM",
         GROUPED | PLAIN | dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=8, max_window_layers=1),
         "full attention below `max_window_layers`, windows above (`layer_types`)", {
             "window": dict(use_sliding_window=False), "window + 1": dict(sliding_window=9),
             "first layer": dict(max_window_layers=0), "second layer": dict(max_window_layers=2)}),
    Case("qwen2-sliding-old", "Qwen2ForCausalLM",
         GROUPED | PLAIN | dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=8, max_window_layers=1),
         "as qwen2-sliding, without `layer_types`", keys="4", seed="qwen2-sliding"),
    Case("qwen3", "Qwen3ForCausalLM", WIDE | PLAIN | dict(tie_word_embeddings=True, rms_norm_eps=0.05),
         "norms of queries and keys per head, explicit `head_dim`, tied head", {"eps": dict(rms_norm_eps=1e-6)},
         keys="4"),
    Case("phi3", "Phi3ForCausalLM", PHI3 | dict(sliding_window=8) | PLAIN,
         "fused `qkv_proj` and `gate_up_proj`, window of 8", {"window": dict(sliding_window=None)}),
    Case("phi3-partial", "Phi3ForCausalLM",
         PHI3_WIDE | dict(tie_word_embeddings=True) | rope(theta=200.0, partial_rotary_factor=0.75),
         "`partial_rotary_factor` 0.75, tied head", {
             "partial": rope(theta=200.0, partial_rotary_factor=1.0)}, keys="4"),
    Case("phi3-longrope", "Phi3ForCausalLM", LONGROPE,
         "rope scaling `longrope`, 12 tokens, within the original 16: short factors", {
             "scaling": PLAIN, "attention factor": rope("longrope", 200.0, **LONG, attention_factor=1.0)},
         length=12, keys="4 type"),
    Case("phi3-longrope-beyond", "Phi3ForCausalLM", LONGROPE,
         "the same weights, 20 tokens, beyond the original 16: long factors", {
             "short": dict(original_max_position_embeddings=32, max_position_embeddings=128)}, seed="phi3-longrope"),
    Case("gemma2", "Gemma2ForCausalLM", GEMMA2,
         "norms 1 + w before and after each part, soft caps, `query_pre_attn_scalar`, windows in even layers", {
             "window": dict(sliding_window=64), "window + 1": dict(sliding_window=9),
             "layers": dict(layer_types=["full_attention", "sliding_attention"]),
             "attention cap": dict(attn_logit_softcapping=None), "final cap": dict(final_logit_softcapping=None),
             "scale": dict(query_pre_attn_scalar=8), "eps": dict(rms_norm_eps=1e-6),
             "activation": dict(hidden_activation="relu")},
         keys="4", weights=1.4),
    Case("gemma3", "Gemma3ForCausalLM",
         GEMMA3 | dict(layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
         "norms of queries and keys, two rope bases, `linear` scaling in full layers only, `layer_types`", {
             "window": dict(sliding_window=64), "window + 1": dict(sliding_window=9),
             "scale": dict(query_pre_attn_scalar=8), "eps": dict(rms_norm_eps=1e-6),
             "local": dict(rope_parameters=GEMMA3_ROPE | dict(sliding_attention=GEMMA3_ROPE["full_attention"])),
             "global": dict(rope_parameters=GEMMA3_ROPE | dict(full_attention=LOCAL)),
             "factor": dict(rope_parameters=GEMMA3_ROPE | dict(
                 full_attention=dict(rope_type="default", rope_theta=300.0)))}),
    Case("gemma3-old", "Gemma3ForCausalLM",
         GEMMA3 | dict(sliding_window_pattern=2, layer_types=["sliding_attention", "full_attention",
                                                              "sliding_attention"]),
         "as gemma3, with `rope_local_base_freq`, `rope_scaling` and `sliding_window_pattern` 2",
         keys="4", seed="gemma3"),
    Case("gpt2", "GPT2LMHeadModel", GPT2, "learned positions, fused `c_attn`, matrices stored [in, out], tied head", {
        "activation": dict(activation_function="relu"), "scale": dict(scale_attn_weights=False),
        "eps": dict(layer_norm_epsilon=1e-5)}),
    Case("gpt2-bare", "GPT2LMHeadModel", GPT2, "as gpt2, names without `transformer.`, causal masks as tensors",
         rename=bare_gpt2, seed="gpt2"),
    Case("gpt2-scaled", "GPT2LMHeadModel", GPT2 | dict(n_inner=40, scale_attn_by_inverse_layer_idx=True,
                                                       tie_word_embeddings=False),
         "`n_inner`, `scale_attn_by_inverse_layer_idx`, untied head", {
             "inverse": dict(scale_attn_by_inverse_layer_idx=False)}),
    Case("gpt-neox", "GPTNeoXForCausalLM",
         NEOX | dict(layer_norm_eps=0.05) | rope(theta=200.0, partial_rotary_factor=0.25),
         "parallel residual, rotary quarter, query, key, value interleaved by head, exact GELU, `embed_out`", {
             "partial": rope(theta=200.0, partial_rotary_factor=1.0), "residual": dict(use_parallel_residual=False),
             "activation": dict(hidden_act="relu"), "eps": dict(layer_norm_eps=1e-5)}, keys="4"),
    Case("gpt-neox-sequential", "GPTNeoXForCausalLM",
         NEOX | dict(use_parallel_residual=False) | rope(theta=200.0, partial_rotary_factor=0.5),
         "sequential residual, rotary half", {"partial": rope(theta=200.0, partial_rotary_factor=0.25),
                                              "residual": dict(use_parallel_residual=True)}),
    Case("opt", "OPTForCausalLM", OPT, "learned positions with offset 2, pre-norm, ReLU, tied head", {
        "pre-norm": dict(activation_function="gelu")}),
    Case("opt-post-norm", "OPTForCausalLM", OPT | dict(do_layer_norm_before=False, word_embed_proj_dim=8),
         "post-norm, no final norm, `project_in` and `project_out`"),
    Case("mixtral", "MixtralForCausalLM", MIXTRAL,
         "4 experts, top 2, `block_sparse_moe.experts.N.w1`; `rope_theta` left out", {
             "top": dict(num_experts_per_tok=1), "theta": rope()}, keys="4", seed="mixtral 3"),
    Case("mixtral-fused", "MixtralForCausalLM", MIXTRAL,
         "as mixtral, `mlp.experts.gate_up_proj` of all experts", rename=fused_experts, seed="mixtral 3"),
    Case("qwen3-moe", "Qwen3MoeForCausalLM",
         MOE | dict(norm_topk_prob=True, mlp_only_layers=[0]),
         "6 experts, top 2, normalised; layer 0 dense (`mlp_only_layers`); `mlp.experts.N.gate_proj`", {
             "normalised": dict(norm_topk_prob=False), "top": dict(num_experts_per_tok=3)}, keys="4",
         seed="qwen3-moe 1"),
    Case("qwen3-moe-fused", "Qwen3MoeForCausalLM",
         MOE | dict(norm_topk_prob=False, decoder_sparse_step=2, attention_bias=True),
         "not normalised, `decoder_sparse_step` 2, biases, `num_local_experts`, fused experts", {
             "normalised": dict(norm_topk_prob=True)}, rename=fused_experts, seed="qwen3-moe-fused 2"),
    Case("bert", "BertModel", ENCODER | dict(layer_norm_eps=0.05),
         "post-norm encoder, token types, exact GELU, a pooler that is not used", {
             "activation": dict(hidden_act="relu"), "eps": dict(layer_norm_eps=1e-12)}, encoder=""),
    Case("bert-mlm", "BertForMaskedLM", ENCODER, "prefix `bert.` and a masked-language head", encoder="bert"),
    Case("bert-old", "BertForMaskedLM", ENCODER, "as bert-mlm, with `gamma`, `beta` and `position_ids`",
         encoder="bert", rename=old_bert, seed="bert-mlm"),
    Case("roberta", "RobertaModel", ENCODER | dict(type_vocab_size=1, layer_norm_eps=1e-5),
         "positions start at padding index + 1", {"positions": dict(pad_token_id=0)}, encoder=""),
    Case("distilbert", "DistilBertModel", dict(
        vocab_size=VOCABULARY, dim=16, hidden_dim=24, n_layers=2, n_heads=4, max_position_embeddings=28,
        pad_token_id=0), "no token types, own names", {"activation": dict(activation="relu")}, encoder=""),
    Case("mpnet", "MPNetModel", ENCODER | dict(layer_norm_eps=1e-5),
         "relative attention bias in buckets, positions start at 2", encoder=""),
    Case("modernbert", "ModernBertModel", SIZES | dict(
        num_hidden_layers=3, local_attention=8, global_attn_every_n_layers=2, pad_token_id=1, cls_token_id=2,
        sep_token_id=3, norm_eps=0.05, rope_parameters=dict(sliding_attention=LOCAL,
                                             full_attention=dict(rope_type="default", rope_theta=300.0))),
         "pre-norm encoder with rope, local layers (distance 4), gated GELU, no biases, first norm missing", {
             "window": dict(local_attention=64), "window + 1": dict(local_attention=10), "eps": dict(norm_eps=1e-5),
             "local": dict(rope_parameters=dict(sliding_attention=dict(rope_type="default", rope_theta=300.0),
                                                full_attention=dict(rope_type="default", rope_theta=300.0)))},
         encoder=""),
]


def build(case, settings):
    """The model in float32, its weights not yet set."""
    kind = getattr(transformers, case.model)
    config = kind.config_class(**settings)
    config._experts_implementation = "eager"
    return kind._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def fill(case, model):
    """Random weights that bf16 holds exactly. Standard deviations are such that no part of the model is idle."""
    source = torch.Generator().manual_seed(SEED + zlib.crc32((case.seed or case.name).encode()))
    around_zero = case.model.startswith("Gemma")    # their norms multiply by 1 + w
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=source)
            if "norm" in name.lower() or ".ln_" in name:
                middle = 1.0 if name.endswith("weight") and not around_zero else 0.0
                noise = middle + (0.3 if name.endswith("weight") else 0.2) * noise
            elif name.endswith("bias"):
                noise = 0.2 * noise
            elif "embed" in name or "wte" in name or "wpe" in name:
                noise = 0.7 * noise
            elif "relative_attention_bias" in name:
                noise = 1.0 * noise
            else:
                fan_in = value.shape[0] if "GPT2" in case.model and "lm_head" not in name else value.shape[-1]
                gain = 2.0 if ".gate.weight" in name else 1.4
                noise = case.weights * gain * fan_in ** -0.5 * noise
            value.copy_(noise.to(torch.bfloat16))


@torch.no_grad()
def run(case, model, ids):
    if case.encoder is None:
        return model(input_ids=ids, use_cache=False).logits
    encoder = getattr(model, case.encoder) if case.encoder else model
    return encoder(input_ids=ids).last_hidden_state


def effect(changed, golden):
    return ((changed - golden).norm() / golden.norm()).item()


def idle(case, name, model):
    """Weights that cannot show in a golden: keys' biases without rope, and heads that the golden does not include."""
    no_rope = case.model.startswith(("GPT2", "OPT", "Bert", "Roberta", "DistilBert", "MPNet"))
    key_bias = name.endswith(("k_proj.bias", "key.bias", "k_lin.bias", "attn.k.bias"))
    return no_rope and key_bias or name.startswith(("pooler.", "cls."))


def least_weight_effect(case, model, ids, golden):
    """The smallest effect of turning a tensor by one element, and the tensor."""
    effects = {}
    for name, value in model.named_parameters():
        if idle(case, name, model):
            continue
        kept = value.detach().clone()
        with torch.no_grad():
            value.copy_(kept.flatten().roll(1).view_as(kept))
            effects[name] = effect(run(case, model, ids), golden)
            value.copy_(kept)
    return min((value, name) for name, value in effects.items())


def probe_effects(case, model, ids, golden):
    effects = {}
    for name, change in case.probes.items():
        other = build(case, json.loads(json.dumps(case.settings | change)))
        other.load_state_dict(model.state_dict())
        effects[name] = effect(run(case, other, ids), golden)
    return effects


def old_keys(case, config):
    """The keys of transformers 4, as in most published files; keys with their default values are left out."""
    kind, rope = config["model_type"], config.pop("rope_parameters", None)
    usual = getattr(transformers, case.model).config_class().to_dict()
    theta = (usual.get("rope_parameters") or {}).get("rope_theta")
    config = {key: value for key, value in config.items()
              if key in ("architectures", "model_type", "rope_parameters") or value != usual.get(key, ...)}
    config["torch_dtype"] = config.pop("dtype")
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        del config["head_dim"]
    config["transformers_version"] = "4.46.3"
    if kind == "gemma3_text":
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = case.settings["sliding_window_pattern"]
        config.pop("_sliding_window_pattern", None)
        rope = rope["full_attention"]
    if kind == "gpt_neox":
        config |= dict(rotary_emb_base=rope.pop("rope_theta"), rotary_pct=rope.pop("partial_rotary_factor"))
    elif rope:
        if (base := rope.pop("rope_theta")) != theta:
            config["rope_theta"] = base
        if kind == "phi3" and (part := rope.pop("partial_rotary_factor")) != 1:
            config["partial_rotary_factor"] = part
            rope.pop("original_max_position_embeddings", None)      # it stands beside, not in rope_scaling
    if rope and rope["rope_type"] == "default":
        rope = None
    if rope and "type" in case.keys:
        rope = {"type": rope.pop("rope_type")} | rope
    if rope or kind in ("llama", "phi3"):
        config["rope_scaling"] = rope
    if kind.startswith(("qwen2", "gemma")):
        del config["layer_types"]
    if kind == "qwen2":
        config["sliding_window"] = 8
    if kind == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    return dict(sorted(config.items()))


def save(case, model, ids, golden):
    folder = FOLDER / case.name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.keys != "5":
        path = folder / "config.json"
        path.write_text(json.dumps(old_keys(case, json.loads(path.read_text())), indent=2) + "\n")
    if case.rename:
        weights = case.rename(load_file(folder / "model.safetensors"))
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    save_file({"input_ids": ids, ("hidden" if case.encoder is not None else "logits"): golden},
              folder / "golden.safetensors")
    return folder


def entropy_share(attention):
    """Mean entropy of the attention over that of equal attention to the visible keys, where 4 or more are visible."""
    entropy = -(attention * attention.clamp_min(1e-30).log()).sum(-1)
    visible = (attention > 0).sum(-1)
    return (entropy / visible.clamp_min(2).log())[visible >= 4].mean().item()


def routing_gap(router, logits):
    """How far the probability of the last expert chosen is above that of the next, at the closest token."""
    ordered = logits.softmax(-1).sort(-1, descending=True).values
    return (ordered[:, router.top_k - 1] - ordered[:, router.top_k]).min().item()


def make(case):
    torch.manual_seed(SEED)
    model = build(case, json.loads(json.dumps(case.settings)))
    fill(case, model)
    source = torch.Generator().manual_seed(SEED + 1 + zlib.crc32((case.seed or case.name).encode()))
    # Ids from 4 on: none of them is a padding, start or end token.
    ids = torch.randint(4, VOCABULARY, (2, case.length), generator=source)
    attention, gaps = [], [1.0]
    hooks = [module.register_forward_hook(lambda _, __, out: attention.append(out[-1]))
             for name, module in model.named_modules() if type(module).__name__.endswith("Attention")]
    hooks += [module.register_forward_hook(lambda router, _, out: gaps.append(routing_gap(router, out[0])))
              for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    golden = run(case, model, ids).clone()
    for hook in hooks:
        hook.remove()
    evenness = [entropy_share(weights) for weights in attention
                if isinstance(weights, torch.Tensor) and weights.dim() == 4]
    weight_effect, tensor = least_weight_effect(case, model, ids, golden)
    effects = probe_effects(case, model, ids, golden)
    precise = effect(run(case, model.double(), ids), golden.double())
    model.float()
    folder = save(case, model, ids, golden)

    kind = getattr(transformers, case.model)
    again, report = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                         output_loading_info=True)
    reread = effect(run(case, again.eval(), ids), golden)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{case.name:24} {size:6} bytes  std {golden.std():.2f}  entropy {max(evenness, default=math.nan):.2f}  "
          f"float64 {precise:.0e}  reread {reread:.0e}  least weight {weight_effect:.3f} {tensor}  "
          + "  ".join(f"{name} {value:.3f}" for name, value in effects.items()), flush=True)
    missing = sorted(report["missing_keys"])
    assert reread < 1e-6 and not missing, (case.name, reread, missing)
    weak = {name: value for name, value in effects.items() if not value > LEAST_EFFECT}
    assert min(gaps) > LEAST_GAP, (case.name, gaps)
    assert weight_effect > LEAST_EFFECT and not weak, (case.name, tensor, weight_effect, weak)
    return size


def readme():
    rows = "\n".join(f"| `{case.name}` | {case.exercises} | {case.keys.split()[0]} |" for case in CASES)
    return f"""# Architectures

A tiny random checkpoint for each case, and what transformers 5.23.0 computes with it; made by
`generate/architectures.py`. Each folder holds:

- `config.json`: with the keys of transformers 5 (`rope_parameters`, `dtype`) or of transformers 4, as most published
  models have them (`rope_theta`, `rope_scaling`, `torch_dtype`); the last column says which. Those of transformers 4
  leave out what has its default value;
- `model.safetensors`: all weights BF16, random and not degenerate; `bert-old` has positions (I64) besides;
- `golden.safetensors`: `input_ids` (I64 [2, T]) and `logits` (F32 [2, T, {VOCABULARY}]); for encoders `hidden`
  (F32 [2, T, hidden]), the last hidden state with token types 0. Float32, plain attention, no padding, no cache.

The script makes sure that each weight, and each setting that a case is about, moves the golden by more than 1 %
(2-norm of the difference over 2-norm), so that a wrong reading of one shows. For this, bases of rope are small and
some epsilons large. Activations differ less: the exact GELU and that with tanh by 1e-4, and sqrt(hidden) of Gemma
rounded to bf16 changes 4e-4, so compare within 1e-5; the same in float64 differs by less than 1e-6. Keys' biases
without rope cannot show: they add the same to all scores of a query.

| case | what it exercises | keys |
| --- | --- | --- |
{rows}
"""


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(exist_ok=True)
    chosen = [case for case in CASES if not sys.argv[1:] or case.name in sys.argv[1:]]
    sizes = [make(case) for case in chosen]
    (FOLDER / "README.md").write_text(readme())
    print(f"{len(sizes)} cases, {sum(sizes)} bytes")


if __name__ == "__main__":
    main()
