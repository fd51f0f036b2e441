"""A study of one's own: how score depends on how many first entries are protected."""

import lightkv
from analysis.scoring.summaries import summarise
from analysis.studies.sweep import Cell, sweep

vlm = lightkv.load()
cells = {
    f"{count} protected": Cell(lightkv.TGVKV(retention=0.1, protect_first=count), {"first": count})
    for count in (0, 4, 16)
}
rows = sweep(vlm, ["embedded/read"], cells, {"first": None}, 8, {"progress": False})
table = summarise(rows)
print(table[["method", "score", "low", "high"]])
table.to_csv("own_study.csv", index=False)
