"""`python -m benchmarks.strategies.texts --out DIR --seconds S`: a text data set, and a small BERT trained on it.

Reviews by a grammar: clauses that praise or blame a part of a product, some of them negated ("not", "never",
"hardly"), some hedged by "but", and fillers that mean nothing. A text is positive when the clauses behind the last
"but", or all of them where there is none, praise more than they blame. So words alone do not decide; their order does.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from torch.nn import functional as F

_PRAISE = ["good", "great", "solid", "quick", "bright", "sharp", "handy", "smooth", "cheap", "sturdy", "fresh", "crisp"]
_BLAME = ["bad", "poor", "flimsy", "slow", "dim", "blurry", "clumsy", "rough", "pricey", "brittle", "stale", "dull"]
_NEGATIONS = ("not", "never", "hardly")
_PARTS = [
    "screen",
    "battery",
    "case",
    "camera",
    "strap",
    "lens",
    "menu",
    "sound",
    "keyboard",
    "handle",
    "cable",
    "manual",
]
_FILLERS = [
    "honestly",
    "well",
    "overall",
    "today",
    "again",
    "maybe",
    "somewhat",
    "clearly",
    "also",
    "indeed",
    "mostly",
    "often",
]
_OTHERS = ("the", "is", "was", "but", "and")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *_PRAISE, *_BLAME, *_NEGATIONS, *_PARTS, *_FILLERS, *_OTHERS)
_UNKNOWN = "[UNK]"
LENGTH = 40


def main() -> int:
    """Writes `data/{train,test}.jsonl` and the folder `bert` in the layout of transformers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="processor seconds, one thread")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = random.Random(0)  # noqa: S311
    splits = {"train": [text(generator) for _ in range(20_000)], "test": [text(generator) for _ in range(4_000)]}
    (asked.out / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = (json.dumps({"text": words, "label": label}) for words, label in rows)
        (asked.out / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    facts = train(asked.out / "bert", splits, asked.seconds)
    (asked.out / "bert.json").write_text(json.dumps(facts))
    print(json.dumps(facts))
    return 0


def text(generator: random.Random) -> tuple[str, int]:
    """Returns one review and whether it is positive."""
    while True:
        groups = [[_clause(generator) for _ in range(generator.randint(1, 2))] for _ in range(generator.randint(1, 3))]
        total = sum(value for _, value in groups[-1])
        if total:
            joined = " but ".join(" and ".join(words for words, _ in group) for group in groups)
            return joined, int(total > 0)


def _clause(generator: random.Random) -> tuple[str, int]:
    value = generator.choice((1, -1))
    words = ["the", generator.choice(_PARTS), generator.choice(("is", "was"))]
    if generator.random() < 0.4:
        words.append(generator.choice(_NEGATIONS))
        value = -value
        words.append(generator.choice(_BLAME if value > 0 else _PRAISE))
    else:
        words.append(generator.choice(_PRAISE if value > 0 else _BLAME))
    if generator.random() < 0.5:
        words.insert(generator.randint(0, len(words)), generator.choice(_FILLERS))
    return " ".join(words), value


def write_tokenizer(folder: Path) -> None:
    """Writes a word-level tokenizer in BERT's manner."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=_UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))


def train(folder: Path, splits: dict[str, list[tuple[str, int]]], seconds: float) -> dict[str, float]:
    """Trains a BERT of 6 layers, 64 wide, with AdamW and one cycle over the time; saves it and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    ids, mask, labels = _encoded(splits["train"])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    started, steps = time.process_time(), 0
    while (share := (time.process_time() - started) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(share / 0.15, (1 - share) / 0.85)
        picked = torch.randint(0, len(ids), (64,), generator=generator)
        longest = int(mask[picked].sum(1).max())
        logits = model(input_ids=ids[picked, :longest], attention_mask=mask[picked, :longest]).logits
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[picked]).backward()
        optimizer.step()
        steps += 1
    ids, mask, labels = _encoded(splits["test"])
    model.eval()
    with torch.no_grad():
        right = [
            (model(input_ids=i, attention_mask=m).logits.argmax(1) == y).sum()
            for i, m, y in zip(ids.split(250), mask.split(250), labels.split(250), strict=True)
        ]
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return {
        "epochs": steps * 64 / len(splits["train"]),
        "processor_seconds": time.process_time(),
        "top1": float(torch.stack(right).sum()) / len(labels),
    }


def _encoded(rows: list[tuple[str, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns token ids and mask, int64 (n, LENGTH), and labels, int64 (n,)."""
    index = {word: number for number, word in enumerate(WORDS)}
    ids = torch.zeros(len(rows), LENGTH, dtype=torch.int64)
    for row, (words, _) in enumerate(rows):
        tokens = [2, *(index[word] for word in words.split()), 3][:LENGTH]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, (ids != 0).long(), torch.tensor([label for _, label in rows])


if __name__ == "__main__":
    raise SystemExit(main())
