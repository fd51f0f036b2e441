"""Questions of VLMEvalKit: read a table, ask them, write the table that it scores."""

import base64
import io
import json
from pathlib import Path

import pandas as pd

import lightkv
from analysis.asking.evaluation import evaluate
from lightkv.embedded import items


def questions_of(table: Path, metric: str = "exact", prompt: str = "{question}") -> Path:
    """Turn a table of VLMEvalKit into a file of questions, with the pictures beside it."""
    data = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
    pictures = table.with_suffix("")
    pictures.mkdir(exist_ok=True)
    encoded = dict(zip(data["index"], data["image"], strict=True)) if "image" in data else {}
    lines = [json.dumps({"task": table.stem, "metric": metric, "prompt": prompt})]
    for row in data.to_dict("records"):
        if "image_path" in row:
            shown = str(Path(row["image_path"]).resolve())
        else:
            # A short text is the index of the line that holds the picture.
            content = row["image"] if len(row["image"]) > 64 else encoded[row["image"]]
            file = pictures / f"{row['index']}.png"
            file.write_bytes(base64.b64decode(content))
            shown = str(file.relative_to(table.parent))
        options = [f"{letter}. {row[letter]}" for letter in "ABCD" if row.get(letter)]
        question = "\n".join([row["question"], *options])
        line = {"id": row["index"], "image": shown, "question": question, "answer": row["answer"]}
        lines.append(json.dumps(line, ensure_ascii=False))
    made = table.with_suffix(".jsonl")
    made.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def png(picture: object) -> str:
    """A picture as such a table holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


item = items("color", 1)[0]
rows = [
    {"index": 0, "image": png(item.image), "question": item.question, "answer": item.answer},
    {"index": 1, "image": "0", "question": item.question, "answer": item.answer},
]
pd.DataFrame(rows).to_csv("tiny.tsv", sep="\t", index=False)

file = questions_of(Path("tiny.tsv"))
vlm = lightkv.load()
frame = evaluate(vlm, [f"folder:{file}"], {"vanilla": None}, samples=None, progress=False)

predictions = frame.set_index("identity")["answer"]
answered = pd.read_csv("tiny.tsv", sep="\t", dtype=str)
answered["prediction"] = answered["index"].map(predictions)
answered.to_csv("answers.tsv", sep="\t", index=False)
print(answered[["index", "answer", "prediction"]])
