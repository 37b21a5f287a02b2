"""Logits of llama.cpp, for gguf.py, which runs this with a Python that has llama-cpp-python.

Run:    python llama_logits.py MODEL.gguf IDS.npy LOGITS.npy      IDS: [windows, tokens]

Caches are F32, and extra buffer types are off: they repack weights for kernels such as those of AMX, which in
0.3.36 crash on some machines (at `ldtilecfg`, in ggml_backend_amx_mul_mat) with any quantized file.
"""

import sys

import llama_cpp
import numpy as np

usual = llama_cpp.llama_model_default_params


def parameters():
    result = usual()
    result.use_extra_bufts = False
    return result


llama_cpp.llama_cpp.llama_model_default_params = parameters
path, windows, target = sys.argv[1:]
windows = np.load(windows)
model = llama_cpp.Llama(path, n_ctx=max(256, windows.shape[1]), n_batch=512, n_threads=2, logits_all=True, verbose=False,
                        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False)
result = []
for ids in windows:
    model.reset()
    model.eval(ids.tolist())
    result.append(np.array(model.scores[:len(ids)]))
np.save(target, np.stack(result))
