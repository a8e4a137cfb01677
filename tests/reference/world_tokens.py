"""Writes tests/reference/world_tokens.jsonl: texts and their tokens, by the reference tokenizer.

    pip install --no-deps rwkv && python tests/reference/world_tokens.py > tests/reference/world_tokens.jsonl

The first line has the SHA-256 of all tokens: of each, by ascending id, the id and the number of bytes as four bytes
each, little-endian, and the bytes.
"""

import hashlib
import importlib.util
import json
import struct
from pathlib import Path

TEXTS = [
    "",
    "\0",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.\n\nThe end.\n",
    "User: What is 17 * 23?\n\nAssistant:",
    "   three spaces,\ttab,\r\nCRLF, trailing   ",
    "\n" * 7 + " " * 133 + "=" * 80 + "-" * 81,
    "fn main() {\n    println!(\"{:?}\", vec![1u8; 3]); // 'quoted' \\ back\n}\n",
    "def f(x):\n\treturn {'a': x ** 2, \"b\": [None] * 10}\n",
    "<div class=\"x\">&nbsp;</div> https://example.com/a?b=c&d=%20#e",
    "3.14159265358979 1,000,000 0xdeadBEEF 2023-04-24",
    "今天是美好的一天。床前明月光，疑是地上霜。",
    "吾輩は猫である。名前はまだ無い。カタカナ、ひらがな、漢字。",
    "나는 학교에 갑니다.",
    "Привет, мир! Съешь ещё этих мягких французских булок.",
    "Ελληνικά: Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया, ক্ষ, ไทยไม่มีช่องว่าง",
    "naïve café, nai\u0308ve cafe\u0301, Zalgo: Z\u0351\u036b\u0343a\u0328\u030al\u0335g\u0306o\u0308",
    "😀😃🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 👍🏽",
    "𓀀𓁐 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🜁 \U0010fffd \ufffd \ufeff \u200b\u2028",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β ≠ ∞ ± √2",
    "".join(map(chr, range(256))),
    "aAaAa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ABABABAB abcabcabc",
]


def main():
    # Without importing the package, which wants PyTorch.
    folder = Path(importlib.util.find_spec("rwkv").origin).parent
    spec = importlib.util.spec_from_file_location("rwkv_tokenizer", folder / "rwkv_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.TRIE_TOKENIZER(str(folder / "rwkv_vocab_v20230424.txt"))
    tokens = hashlib.sha256()
    for id, text in sorted(tokenizer.idx2token.items()):
        tokens.update(struct.pack("<II", id, len(text)) + text)
    print(json.dumps({"sha256": tokens.hexdigest(), "tokens": len(tokenizer.idx2token)}))
    for text in TEXTS:
        print(json.dumps({"text": text, "tokens": tokenizer.encode(text) if text else []}))


main()
