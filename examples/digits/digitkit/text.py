"""The two text encoders, CLIP and T5, with tokenizers built on the spot.

Both are tiny and are fitted in half a minute to name the digit and the colour of a prompt; the
heads that did so are thrown away, the embeddings feed the transformer.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from .prompts import COLOUR_NAMES, DIGIT_WORDS, Wish, corpus, training_prompt

WIDTH = 64
CLIP_LENGTH = 77
T5_LENGTH = 512
T5_WINDOW = 2
"""How many tokens to each side the T5 encoder sees."""

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_PRINTABLE = [chr(code) for code in range(33, 127)]


def build_clip_tokenizer() -> CLIPTokenizer:
    """Return a byte-level BPE tokenizer in which each word of the templates is one token."""
    words = {part for line in corpus() for part in re.findall("[a-z]+", line.lower())}
    merges = _learn_merges(sorted(words))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    pieces += [first + second for first, second in merges]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, _BOS, _EOS]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_LENGTH)


def _learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges until each word is one piece.

    The library's trainer breaks ties in another order in each process, which would make each
    training another one.
    """
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(pieces) > 1 for pieces in split):
        pairs = Counter(pair for pieces in split for pair in pairwise(pieces))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for pieces in split:
            for index in range(len(pieces) - 2, -1, -1):
                if tuple(pieces[index : index + 2]) == best:
                    pieces[index : index + 2] = ["".join(best)]
    return merges


def build_t5_tokenizer() -> T5TokenizerFast:
    """Return a Unigram tokenizer: the templates' words in three spellings, else characters."""
    words = sorted({part for line in corpus() for part in _words(line)})
    whole = ["▁" + form for word in words for form in _spellings(word)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [(piece, -1.0) for piece in dict.fromkeys(whole)]
    known = {piece for piece, _ in pieces}
    pieces += [(letter, -8.0) for letter in _PRINTABLE if letter not in known]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


def _words(line: str) -> list[str]:
    return [part for part in line.lower().replace(",", " ").replace(":", " ").split() if part]


def _spellings(word: str) -> list[str]:
    return list(dict.fromkeys([word, word.capitalize(), word.upper()]))


def build_clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return the untrained CLIP text model; its pooled output is the end token's state."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_t5(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    """Return the untrained T5 encoder: one layer that looks at most two tokens to each side.

    With so short a view all padding behind a prompt has one and the same embedding, however long
    it is; the transformer's training relies on that (see ``transformer.padding_bias``).
    """
    model = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=WIDTH // 2,
            d_ff=2 * WIDTH,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    attention = model.encoder.block[0].layer[0].SelfAttention
    buckets = attention.relative_attention_num_buckets
    # The first half of the buckets counts to the left, the second to the right.
    near = [*range(T5_WINDOW + 1), *range(buckets // 2 + 1, buckets // 2 + 1 + T5_WINDOW)]
    bias = torch.full((buckets, model.config.num_heads), -1e4)
    bias[near] = 0.0
    attention.relative_attention_bias.weight.data.copy_(bias)
    attention.relative_attention_bias.weight.requires_grad_(False)
    _tie_spellings(model, tokenizer)
    return model


def _tie_spellings(model: T5EncoderModel, tokenizer: T5TokenizerFast) -> None:
    """Give all spellings of a word the same embedding."""
    vocab = tokenizer.get_vocab()
    table = model.get_input_embeddings().weight.data
    for piece, index in vocab.items():
        table[index] = table[vocab.get(piece.lower(), index)]


class TextTower:
    """Both encoders with their tokenizers, as the pipeline uses them."""

    def __init__(self) -> None:
        self.clip_tokenizer = build_clip_tokenizer()
        self.t5_tokenizer = build_t5_tokenizer()
        self.clip = build_clip(self.clip_tokenizer)
        self.t5 = build_t5(self.t5_tokenizer)

    def pooled(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the pooled CLIP output (batch, WIDTH); what pads a prompt does not matter."""
        tokens = self.clip_tokenizer(
            list(prompts), padding="longest", max_length=CLIP_LENGTH, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        pooled: torch.Tensor = self.clip(tokens.input_ids).pooler_output
        return pooled

    def sequence(self, prompts: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return T5 embeddings (batch, length, WIDTH) and each prompt's number of tokens."""
        tokens = self.t5_tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        return self.t5(tokens.input_ids)[0], tokens.attention_mask.sum(dim=1)


class _Heads(nn.Module):
    """Linear probes that name digit and colour; the last class of each means "not said"."""

    def __init__(self) -> None:
        super().__init__()
        self.digit = nn.Linear(WIDTH, len(DIGIT_WORDS) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOUR_NAMES) + 1)

    def loss(self, features: torch.Tensor, wishes: Sequence[Wish]) -> tuple[torch.Tensor, float]:
        """Return the summed cross-entropy and the share of prompts read right."""
        digits = torch.tensor([len(DIGIT_WORDS) if w.digit is None else w.digit for w in wishes])
        names = [*COLOUR_NAMES, None]
        colours = torch.tensor([names.index(w.colour) for w in wishes])
        seen, hue = self.digit(features), self.colour(features)
        right = (seen.argmax(1) == digits) & (hue.argmax(1) == colours)
        loss = functional.cross_entropy(seen, digits) + functional.cross_entropy(hue, colours)
        return loss, right.float().mean().item()


def draw_prompts(count: int, rng: np.random.Generator) -> tuple[list[str], list[Wish]]:
    """Return random training prompts and what they say."""
    drawn = [
        training_prompt(int(rng.integers(10)), str(rng.choice(COLOUR_NAMES)), rng)
        for _ in range(count)
    ]
    return [prompt for prompt, _ in drawn], [wish for _, wish in drawn]


def train(
    tower: TextTower, steps: int, rng: np.random.Generator, log: Callable[[str], None]
) -> None:
    """Fit both encoders to tell what a prompt asks for, then freeze them."""
    heads = {"CLIP": _Heads(), "T5": _Heads()}
    modules = [tower.clip, tower.t5, *heads.values()]
    weights = [w for module in modules for w in module.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    started = time.monotonic()
    for step in range(1, steps + 1):
        prompts, wishes = draw_prompts(96, rng)
        embeds, counts = tower.sequence(prompts, length=28)
        real = (torch.arange(embeds.shape[1])[None] < counts[:, None]).float()[..., None]
        mean = (embeds * real).sum(dim=1) / real.sum(dim=1)
        clip_loss, clip_right = heads["CLIP"].loss(tower.pooled(prompts), wishes)
        t5_loss, t5_right = heads["T5"].loss(mean, wishes)
        optimizer.zero_grad(set_to_none=True)
        (clip_loss + t5_loss).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            log(
                f"text encoders {step}/{steps}: prompts understood by CLIP {clip_right:.0%}, "
                f"by T5 {t5_right:.0%}, {time.monotonic() - started:.0f} s"
            )
    for model in (tower.clip, tower.t5):
        model.eval().requires_grad_(False)
