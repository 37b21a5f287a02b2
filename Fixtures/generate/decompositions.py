"""Makes ../../Sources/Tokenizers/DecompositionData.swift: the decomposition mappings of Unicode for NFC, NFD, NFKC, NFKD.

Run:    python decompositions.py
Needs:  Python 3.11, whose unicodedata has Unicode 14.0.0
"""

import unicodedata
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent.parent / "Sources" / "Tokenizers" / "DecompositionData.swift"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
HANGUL = range(0xAC00, 0xD7A4)


def base36(number):
    text = ""
    while number or not text:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text


def main():
    """One entry per scalar: distance from the one before, kind, mapping; all numbers in base 36."""
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    entries, last = [], 0
    for code in range(0x110000):
        mapping = unicodedata.decomposition(chr(code))
        if not mapping or code in HANGUL:
            continue
        # c composes again, s does not (singletons and exclusions), k is compatibility only
        kind = "k" if mapping[0] == "<" else "c" if unicodedata.normalize("NFC", chr(code)) == chr(code) else "s"
        scalars = [int(part, 16) for part in mapping.split() if part[0] != "<"]
        kind = {"c": "!", "s": "$", "k": "%"}[kind]
        entries.append(base36(code - last) + kind + ",".join(map(base36, scalars)))
        last = code
    text, lines = ";".join(entries), []
    while text:
        lines.append("    " + text[:115] + ("\\" if len(text) > 115 else ""))
        text = text[115:]
    OUT.write_text(
        "/// The decomposition mappings of Unicode 14.0.0, made by Fixtures/generate/decompositions.py.\n///\n"
        "/// Entries end with `;`: distance from the code point before, then `!` where the pair composes again, `$` where\n"
        "/// it does not, `%` for a compatibility mapping, then the mapping; numbers in base 36.\n"
        'enum DecompositionData {\n  static let text = """\n' + "\n".join(lines) + '\n    """\n}\n')
    print(len(entries), "entries,", len(lines), "lines")


if __name__ == "__main__":
    main()
