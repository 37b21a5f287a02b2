"""Makes ../tokenizers: small tokenizers of every kind, strings of many scripts, and the ids the reference gives them.

Run:    python make_tokenizers.py [SHARED]
        SHARED is a folder with the larger test models and texts, whose ids are kept as SHA-256 sums in
        goldens/tokenizers-shared.json; without it that file stays as it is
Needs:  tokenizers 0.23.3, sentencepiece 0.2.3

One process of Python, one thread: the same versions give the same bytes.
"""

import hashlib
import io
import json
import os
import random
import struct
import sys
import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

from tiny_text import documents

HERE = Path(__file__).resolve().parent
OUT, GOLDENS = HERE.parent / "tokenizers", HERE.parent / "goldens"
SEED = 40
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTION,
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+").replace('\\"', '"')
# Sentences of our own in many scripts, so that the vocabularies are not English alone.
SENTENCES = [
    "Die Straße führt über den Fluß; Ärger, Öl und Übermut.", "L'été, où est-il ? Ça va très bien, naïve Noël.",
    "El niño comió piña mañana. ¿Qué hora es? ¡Olé!", "Ήταν μια ζεστή μέρα στην Ελλάδα.", "ΟΔΥΣΣΕΥΣ και όλος",
    "Мама мыла раму, а кот спал на окне.", "Їжак їсть яблуко. Ёлка зелёная.", "今天天气很好，我们去公园吧。",
    "東京は大きい町です。ひらがなとカタカナ。", "ｶﾀｶﾅ　ｆｕｌｌ ｗｉｄｔｈ １２３", "안녕하세요 세계, 한국어 문장입니다.", "각 힣 ㄱㅏㄱ",
    "مرحبا بالعالم، كيف حالك؟", "السَّلَامُ عَلَيْكُمْ", "שלום עולם, מה שלומך?", "שָׁלוֹם", "नमस्ते दुनिया, यह हिंदी है।",
    "ক্ষমতা বাংলা ভাষা", "தமிழ் மொழி அழகு", "ภาษาไทยไม่มีช่องว่าง", "ພາສາລາວ", "မြန်မာစာ", "ខ្មែរ", "ქართული ენა",
    "Հայերեն լեզու", "አማርኛ ቋንቋ", "Tiếng Việt có dấu: ở, ữ, ặ.", "İstanbul'da ığdır", "ǅ ǆ Ǆ ﬁ ﬂ ﬃ ſ ß ẞ",
    "x² + y³ = z⁴, ½ ¼ ⅔ ① ⑩ Ⅷ ㎏ ㎡ ™ ℃", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋", "€ £ ¥ ₹ ₿ $100.50", "“quotes” ‘single’ «guillemets» „low“ — – …",
    "😀 😃 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇯🇵 ❤️ ☺︎ 🧑🏿‍🚀", "🤷🏻‍♀️🤦‍♂️", "a\u0301e\u0300i\u0302o\u0308u\u030a", "q\u0323\u0307 q\u0307\u0323",
    "Z\u0351\u036b\u0343a\u0328\u0324l\u0331\u0322g\u0321\u0353o\u0320\u033c", "\u1e9b\u0323 \u212b \u2126 \u00c5 A\u030a",
    "\u0958 \u0915\u093c \u0344 \u0308\u0301", "\u1100\u1161\u11a8 \uac00\u11a8", "\ufb2a \u05e9\u05c1", "\u0340\u0341\u0343\u0374\u037e\u0387",
]
CODE = [
    "def f(x):\n    return x ** 2  # square\n", "if (a<b && c>=d) { i++; }\r\n\tbreak;\r\n", "#include <stdio.h>\nint main(void){}",
    "SELECT * FROM t WHERE id=42;", "https://example.com/a?b=c&d=%20#e", "foo@bar.example", "C:\\temp\\new", "a_b-c.d/e|f~g`h^i",
    "{\"key\": [1, 2.5e-10, null]}", "<p class=\"x\">&amp;</p>", "0x1F 0b101 1_000_000 3.14159 1e10", "camelCaseHTTPServer XMLHttp",
    "let s = \"\\u{1F600}\";", "....----====****####", "!!!???!?!", "$$$ %%% &&&", "(((((())))))", "->=>|>::<-", "1234567890 12 123 1234",
]
ENGLISH = [
    "", " ", "  ", "a", " a", "a ", "  a  ", "Hello, world!", "I'm you're he's she'll we've they'd don't can't", "I'M YOU'RE HE'S SHE'LL WE'VE",
    "'s't're've'm'll'd", "''s 's' '", "o'clock 'tis rock'n'roll", "'\u017f 'ſa", "Once upon a time", "The quick brown fox jumps over the lazy dog.",
    "do not go", "I do not , you . he ' s ! n't 'm ?", "supercalifragilisticexpialidocious", "A" * 120, "ab" * 60, "x" * 101 + " y", "é" * 100,
    "unaffable unwanted running", "<s>", "</s>", "<unk>", "[UNK] [CLS] [SEP]", "▁", "▁▁", " ▁ ", "a▁b", "▁a ▁ b▁", "##ing ##", "Ġ Ċ Ġa",
    "<0x41>", "<0xE4><0xB8>", "<pad><mask>", "[MASK]", "<|endoftext|>",
]
SPACES = [
    "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\t", "\t\t", " \n", "\n ", "a\n", "\na", "a\n\nb", "a \n b", "a  \n  b", "a\r\nb", "a\rb",
    "   a", "a   ", "a   b", "a\t b", "a \tb", " " * 7, " " * 64 + "x", "x" + " " * 65, "\n" * 20, " \n" * 10, "\t" * 9 + "x", "  \n\n  \n x",
    "a\u00a0b", "\u00a0a", "a\u2003b\u2009c", "\u3000全角　空白", "a\u200bb", "a\u200db", "\ufeffbom", "a\u2028b\u2029c", "a\u0085b", "a\u1680b", "a\u202fb",
    "a\u00adb", "a\u2060b", "\u180ea", "a \u0301b", " \u0301", "\u0301", "\u0301a", "\n\u0301", "a\u034fb", "\u200e\u200f", "x \u00a0 y", " \u00a0", "\u2003 \u2003",
]
# What a file of the given kind looks for by itself.
SPECIAL = [
    "<s>hello</s>", " <s> hello </s> ", "a<s>b", "<s><s>", "hello<pad>world", "hi <mask> there", "hi<mask>there", "  <mask>  ", "<mask>",
    "wordone word one", "xonex one one.", "one", "one_ one1 one-", "New York", "new york", "NEW YORK city", "<|endoftext|>text<|endoftext|>",
    "[CLS] a [SEP]", "[MASK]s", "x [MASK] y", "<extra_0> <extra_1>", "a<extra_0>b", "tool_call tool", "<|x|><|x|", "<|im_start|>user\nhi<|im_end|>\n",
    "<S>", "<s", "s>", "<s >", "ÉTÉ été", "un ete", "un Été", "  <pad>\n", "\n<mask>\n", "<mask><mask>", "<mask> <mask>", "<s>▁a", "<s> ▁a",
]


def strings():
    """At least 600 strings: written ones, random ones from many blocks, damaged bytes, samples of the training text."""
    out, random_ = [], random.Random(SEED)
    out += ENGLISH + SPACES + SPECIAL + CODE + SENTENCES
    out += [chr(c) for c in range(0x20)] + ["a" + chr(c) + "b" for c in (0, 1, 7, 8, 11, 12, 27, 31, 127, 128, 143, 159, 173)]
    out += [unicodedata.normalize(form, s) for s in SENTENCES[:24:3] for form in ("NFD", "NFKC", "NFKD")]
    out += [s.upper() for s in SENTENCES[1:20:4]] + [" " + s for s in SENTENCES[::7]]
    blocks = [(0x20, 0x7f), (0xa0, 0x180), (0x180, 0x250), (0x250, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600),
              (0x600, 0x700), (0x900, 0xa00), (0xe00, 0xe80), (0x1100, 0x1200), (0x1e00, 0x2000), (0x2000, 0x2070), (0x2070, 0x20d0),
              (0x2100, 0x2200), (0x2200, 0x2300), (0x2460, 0x2500), (0x2e80, 0x2fe0), (0x3000, 0x3100), (0x3200, 0x3400),
              (0x4e00, 0x9fa0), (0xac00, 0xd7a4), (0xf900, 0xfb00), (0xfb00, 0xfe00), (0xfe30, 0xff00), (0xff00, 0xfff0),
              (0x10300, 0x10350), (0x1d400, 0x1d800), (0x1f1e6, 0x1f200), (0x1f300, 0x1f650), (0x20000, 0x20100), (0x2f800, 0x2fa20)]

    def character(low, high):
        while True:
            c = chr(random_.randrange(low, high))
            # Only what every Unicode version of the last ten years has.
            if unicodedata.category(c) not in ("Cn", "Cs", "Co") and unicodedata.ucd_3_2_0.category(c) != "Cn" or ord(c) > 0x1f000:
                if unicodedata.category(c) != "Cn":
                    return c

    for block in blocks:
        out += ["".join(character(*block) for _ in range(random_.randint(1, 12))) for _ in range(4)]
    for _ in range(90):
        parts = []
        for _ in range(random_.randint(1, 8)):
            block = random_.choice(blocks + [(0x20, 0x7f)] * 12 + [(0x300, 0x330)] * 3)
            parts.append("".join(character(*block) for _ in range(random_.randint(1, 3))))
            parts.append(random_.choice(["", "", " ", " ", "  ", "\n", "'s", "\t", "\u0301", "12345", "ab"]))
        out.append("".join(parts))
    for _ in range(30):
        garbage = bytes(random_.randrange(256) for _ in range(random_.randint(1, 24)))
        out += [garbage.decode("utf-8", "replace"), garbage.decode("latin-1")]
    lines = [line for text in islice(documents(SEED + 1), 40) for line in text.split("\n") if line]
    out += random_.sample(lines, 50)
    out += ["\n\n".join(islice(documents(SEED + 2), 3)), "aaaa" * 70, "12" * 50, "\u4e00" * 90, "😀" * 33]
    return list(dict.fromkeys(out))


def corpus():
    return ["\n\n".join(islice(documents(SEED), 400)).split("\n\n")][0] + (SENTENCES + CODE) * 4


def alphabet(size):
    """The characters a trainer keeps: its own choice between equally frequent ones is not reproducible."""
    counts = Counter("".join(corpus()).replace(" ", "▁"))
    return {"initial_alphabet": sorted(sorted(counts, key=lambda c: (-counts[c], c))[:size]), "limit_alphabet": size}


def train(tokenizer, trainer):
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def bpe(split, size, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    steps = [pre_tokenizers.Split(Regex(s), "isolated") for s in ([split] if isinstance(split, str) else split or [])]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [byte_level]) if steps else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def around(before, after, tokenizer):
    names = [n for n in (before, after) if n]
    return processors.TemplateProcessing(
        single=" ".join([before or "", "$A", after or ""]).strip(),
        special_tokens=[(n, tokenizer.token_to_id(n)) for n in dict.fromkeys(names)])


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def gpt2():
    return train(*bpe(None, 420))


def roberta():
    tokenizer, trainer = bpe(None, 400)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer.special_tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    train(tokenizer, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def llama3():
    tokenizer = train(*bpe(LLAMA3, 450, ignore_merges=True))
    tokenizer.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around("<s>", None, tokenizer)])
    return tokenizer


def qwen2():
    tokenizer, trainer = bpe(QWEN2, 430)
    tokenizer.normalizer = normalizers.NFC()
    train(tokenizer, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("tool_call", normalized=False), AddedToken("été", normalized=True),
                          AddedToken("one", single_word=True, normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def gpt4o():
    return train(*bpe(O200K, 400))


def deepseek():
    tokenizer, trainer = bpe([r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK], 400)
    return train(tokenizer, trainer)


def falcon():
    """Punctuation, ByteLevel, Digits and Split together."""
    tokenizer, trainer = bpe(None, 400)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    return train(tokenizer, trainer)


def llama2():
    """SentencePiece BPE in the shape of Llama 2 and Mistral: normalizers, no pre-tokenizer, byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    train(tokenizer, trainers.BpeTrainer(vocab_size=560, show_progress=False, **alphabet(90),
                                         special_tokens=["<unk>", "<s>", "</s>"] + BYTES))
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = only_special(tokenizer, ["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<pad>", normalized=True)])
    tokenizer.add_tokens([AddedToken("New York", normalized=True)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = around("<s>", None, tokenizer)
    return tokenizer


def only_special(tokenizer, names):
    """Without the added tokens a trainer was given to seed the vocabulary with."""
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in names]
    return Tokenizer.from_str(json.dumps(data))


def metaspace():
    """The newer shape: Metaspace with the scheme "first", no splitting."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    train(tokenizer, trainers.BpeTrainer(vocab_size=420, show_progress=False, **alphabet(120),
                                         special_tokens=["<unk>", "<s>", "</s>"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = around("<s>", "</s>", tokenizer)
    return tokenizer


def gemma():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    train(tokenizer, trainers.BpeTrainer(vocab_size=600, show_progress=False, **alphabet(100),
                                         special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<mask>"] + BYTES, max_token_length=9))
    tokenizer = only_special(tokenizer, ["<pad>", "<s>", "</s>", "<unk>", "<mask>"])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = around("<s>", None, tokenizer)
    return tokenizer


def plain_bpe(uncased, size, letters):
    """Characters and merges of lower-level words, from which the two kinds below are built: their own trainers number
    the pieces in the order of a hash table."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = Counter("".join(map(tokenizer.normalizer.normalize_str, corpus())).replace(" ", ""))
    keep = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:letters])
    train(tokenizer, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=keep, limit_alphabet=letters))
    return keep, [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]


def numbered(pieces):
    return {piece: id_ for id_, piece in enumerate(dict.fromkeys(pieces))}


def openai_gpt():
    """BPE with a suffix at the end of words, in the manner of the first GPT."""
    keep, merges = plain_bpe(True, 250, 100)
    both = [pair for a, b in merges for pair in ((a, b), (a, b + "</w>"))]
    vocab = numbered(["<unk>", *keep, *(c + "</w>" for c in keep), *(a + b for a, b in both)])
    tokenizer = Tokenizer(models.BPE(vocab, both, unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    return tokenizer


def bert(uncased):
    keep, merges = plain_bpe(uncased, 350, 180)
    pieces = keep + [a + b for a, b in merges]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = numbered(specials + pieces + ["##" + p for p in pieces if p[0].isalnum()])
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(specials)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if uncased:
        tokenizer.post_processor = around("[CLS]", "[SEP]", tokenizer)
        tokenizer.add_tokens([AddedToken("New York")])
    else:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def words():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents(),
                                                 normalizers.Strip(left=True, right=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return train(tokenizer, trainers.WordLevelTrainer(vocab_size=300, show_progress=False, special_tokens=["<unk>"]))


def unigram_pieces(size, **options):
    """Pieces and scores as SentencePiece trains them: its trainer is reproducible, that of tokenizers is not."""
    return [(p.text, p.score) for p in read_model(sp_model("unigram", size, **options))]


def sp_model(kind, size, **options):
    out = io.BytesIO()
    sentencepiece.set_random_generator_seed(SEED)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in corpus() for line in text.split("\n") if line]), model_writer=out,
        model_type=kind, vocab_size=size, num_threads=1, minloglevel=2, **options)
    return out.getvalue()


class Piece:
    def __init__(self, text, score):
        self.text, self.score = text, score


def read_model(data):
    from sentencepiece import sentencepiece_model_pb2 as format_
    model = format_.ModelProto.FromString(data)
    return [Piece(p.piece, p.score) for p in model.pieces]


def charsmap(data):
    from sentencepiece import sentencepiece_model_pb2 as format_
    return format_.ModelProto.FromString(data).normalizer_spec.precompiled_charsmap


def small_rules():
    """The rules of nmt_nfkc for a part of Unicode, as a file: the whole map would be 240 kB."""
    rules, lines = {}, []
    for code in [*range(0xa0, 0x250), *range(0x2000, 0x2070), *range(0x2100, 0x2150), *range(0x2460, 0x2480),
                 *range(0x3000, 0x3010), *range(0xff01, 0xffa0), *range(0xfb00, 0xfb07)]:
        norm = unicodedata.normalize("NFKC", chr(code))
        if norm != chr(code):
            rules[chr(code)] = norm
    for base in "aeiouAEIOUnNcCyY":
        for mark in "\u0300\u0301\u0302\u0303\u0308\u0327":
            norm = unicodedata.normalize("NFC", base + mark)
            if len(norm) == 1:
                rules[base + mark] = norm
    for code in [*range(1, 9), 11, *range(14, 32), 127, 143, 159]:
        rules[chr(code)] = ""
    for code in [9, 10, 12, 13, 0x1680, 0x200b, 0x200e, 0x200f, 0x2028, 0x2029, 0x2581, 0xfeff, 0xfffd]:
        rules[chr(code)] = " "
    for key, value in sorted(rules.items()):
        lines.append(" ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value))
    path = OUT / "rules.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def small_charsmap():
    rules = small_rules()
    data = sp_model("unigram", 500, normalization_rule_tsv=str(rules), character_coverage=0.98)
    rules.unlink()
    return charsmap(data)


def xlm_roberta():
    """Precompiled character map, as in T5 and XLM-R."""
    tokenizer = Tokenizer(models.Unigram(unigram_pieces(400, character_coverage=0.99), unk_id=0, byte_fallback=False))
    data = json.loads(tokenizer.to_str())
    import base64
    data["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(small_charsmap()).decode()},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True, special=True),
                                  AddedToken("<extra_0>", rstrip=True, special=True)])
    tokenizer.post_processor = around("<s>", "</s>", tokenizer)
    return tokenizer


def unigram():
    pieces = unigram_pieces(640, character_coverage=0.98, byte_fallback=True)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


KINDS = {
    "gpt2": gpt2, "roberta": roberta, "llama3": llama3, "qwen2": qwen2, "gpt4o": gpt4o, "deepseek": deepseek, "falcon": falcon,
    "llama2": llama2, "metaspace": metaspace, "gemma": gemma, "openai-gpt": openai_gpt, "bert-uncased": lambda: bert(True),
    "bert-cased": lambda: bert(False), "words": words, "xlm-roberta": xlm_roberta, "unigram": unigram,
}
SP_KINDS = {
    "sp-bpe": ("bpe", 560, dict(byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
                                remove_extra_whitespaces=False, split_digits=True, user_defined_symbols=["<mask>", "one"])),
    "sp-bpe-plain": ("bpe", 400, dict(character_coverage=0.98, normalization_rule_name="identity")),
    "sp-unigram": ("unigram", 420, dict(character_coverage=0.98, normalization_rule_tsv="rules.tsv", user_defined_symbols=["<mask>"])),
    "sp-unigram-bytes": ("unigram", 620, dict(byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
                                              add_dummy_prefix=False)),
}


def packed(lists):
    """Lists of ids in one string: numbers in base 36, blanks between, a line for each list."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"

    def base36(n):
        text = digits[n % 36]
        while n >= 36:
            n //= 36
            text = digits[n % 36] + text
        return text
    return "\n".join(" ".join(map(base36, ids)) for ids in lists) + "\n"


def differing(inputs, outputs):
    """Decoded texts, as their SHA-256 over the UTF-8 with the length of each before it; short, and any change shows."""
    digest = hashlib.sha256()
    for text in outputs:
        data = text.encode("utf-8")
        digest.update(struct.pack("<I", len(data)) + data)
    return digest.hexdigest()


def main():
    OUT.mkdir(exist_ok=True)
    texts = strings()
    (OUT / "strings.json").write_text(json.dumps(texts, ensure_ascii=True, separators=(",", ":")) + "\n")
    summary = {}
    for name, make in KINDS.items():
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(json.loads(make().to_str()), ensure_ascii=False, separators=(",", ":")))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        special = [tokenizer.encode(t, add_special_tokens=True).ids for t in texts]
        (folder / "ids.txt").write_text(packed(ids))
        summary[name] = {
            "with_special": hashlib.sha256(packed(special).encode()).hexdigest(),
            "decoded": differing(texts, [tokenizer.decode(i, skip_special_tokens=False) for i in special]),
            "decoded_skipping": differing(texts, [tokenizer.decode(i, skip_special_tokens=True) for i in special])}
    for name, (kind, size, options) in SP_KINDS.items():
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        rules = small_rules()
        data = sp_model(kind, size, **{k: str(rules) if v == rules.name else v for k, v in options.items()})
        rules.unlink()
        (folder / "tokenizer.model").write_bytes(data)
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        ids = [processor.encode(t) for t in texts]
        (folder / "ids.txt").write_text(packed(ids))
        summary[name] = {
            "with_special": hashlib.sha256(packed([[1] + i for i in ids]).encode()).hexdigest(),
            "decoded_skipping": differing(texts, [processor.decode([1] + i) for i in ids])}
    (OUT / "summary.json").write_text(json.dumps({"strings": len(texts), "tokenizers": summary}, indent=1) + "\n")
    print(len(texts), "strings,", sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")
    if len(sys.argv) > 1:
        shared(Path(sys.argv[1]))


def shared(root):
    out = {}
    for model in ("stories5M", "stories260K"):
        tokenizer = Tokenizer.from_file(str(root / "models" / model / "tokenizer.json"))
        for text in sorted((root / "text").glob("*.txt")):
            content = text.read_bytes().decode("utf-8")
            ids = tokenizer.encode(content, add_special_tokens=False).ids
            out.setdefault(f"{model}/tokenizer.json", {})[text.name] = {
                "count": len(ids), "sha256": hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest(),
                "decoded_is_text": tokenizer.decode(ids, skip_special_tokens=False) == content}
    processor = sentencepiece.SentencePieceProcessor(str(root / "models" / "stories260K" / "tokenizer.model"))
    for text in sorted((root / "text").glob("*.txt")):
        content = text.read_bytes().decode("utf-8")
        ids = processor.encode(content)
        out.setdefault("stories260K/tokenizer.model", {})[text.name] = {
            "count": len(ids), "sha256": hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest(),
            "decoded_is_text": processor.decode(ids) == content}
    GOLDENS.joinpath("tokenizers-shared.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
