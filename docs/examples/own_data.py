"""Questions of one's own: write a file, ask them under two methods, print the scores."""

import json
from pathlib import Path

import lightkv
from analysis.asking.evaluation import evaluate
from analysis.asking.store import Store
from lightkv.embedded import items

folder = Path("pictures")
folder.mkdir(exist_ok=True)
lines = [{"task": "colors", "metric": "exact", "max_new_tokens": 4}]
for item in items("color", 4):  # your pictures and questions go here
    item.image.save(folder / f"{item.index}.png")
    picture = f"{folder}/{item.index}.png"
    lines.append({"image": picture, "question": item.question, "answers": [item.answer]})
Path("colors.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

vlm = lightkv.load()
methods = {"none": None, "tgvkv at 20 %": lightkv.TGVKV(retention=0.2)}
rows = evaluate(vlm, ["folder:colors.jsonl"], methods, samples=4, store=Store("answers"))
print(rows.groupby("method")["score"].mean())
