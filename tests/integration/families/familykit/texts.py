"""Tokenizers made on the spot: bytes as tokens, no merges, nothing from a hub."""

from __future__ import annotations

from typing import Any

from tokenizers import pre_tokenizers
from transformers import ByT5Tokenizer, CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def clip(max_length: int = 77) -> Any:
    alphabet = _alphabet()
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=max_length
    )


def t5(max_length: int = 512) -> Any:
    letters = [(chr(c), -2.0) for c in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=max_length)


def byt5() -> Any:
    return ByT5Tokenizer(extra_ids=0)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'text' %}{{ c.text }}"
    "{% elif c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)


def qwen(max_length: int = 4096, merges: bool = True) -> Any:
    """Qwen2's tokenizer; with a few merges, so that long system prompts stay short."""
    alphabet = _alphabet()
    pairs = [(a, b) for a in "eaoitnsrhl" for b in "eaoitnsrhld"] if merges else []
    tokens = [*alphabet, *(a + b for a, b in pairs), *QWEN_SPECIAL]
    tokenizer = Qwen2Tokenizer(
        vocab={t: i for i, t in enumerate(tokens)},
        merges=pairs,
        model_max_length=max_length,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL)})
    tokenizer.chat_template = CHATML
    return tokenizer


MISTRAL_SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")


def mistral(max_length: int = 4096) -> Any:
    """A tokenizer in the place of Mistral's: bytes, left padding, plain brackets."""
    tokenizer = Qwen2Tokenizer(
        vocab={t: i for i, t in enumerate([*MISTRAL_SPECIAL, *_alphabet()])},
        merges=[],
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=max_length,
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(MISTRAL_SPECIAL)})
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content is string %}[INST]{{ m.content }}[/INST]"
        "{% else %}{% for c in m.content %}{% if c.type == 'text' %}[INST]{{ c.text }}[/INST]"
        "{% endif %}{% endfor %}{% endif %}{% endfor %}"
    )
    return tokenizer
