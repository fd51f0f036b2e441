"""T-T4, L-T4 and L-T10: what methods do to memory, to the first token and to every later one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analysis.asking.rows import VANILLA
from analysis.studies.base import Tasks, model_configuration, register, remembered
from analysis.tasks import task
from analysis.timing.latency import LatencySettings, lengthened, machine_name, measure_latency
from analysis.timing.model_settings import ModelBenchSettings
from lightkv import TGVKV
from lightkv.cost.presets import preset
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

PAPER_MODEL = "llava-1.5-7b"

PAPER_METHODS: Final = (VANILLA, "fastv", "pitome", "tofu", "tome", "lightkv")
"""What LightKV's Tables 4 and 10 time."""

PAPER_MODELS: Final = ("llava-1.5-13b", "llava-1.5-7b", "llava-next-13b", "llava-next-7b")
ANSWER: Final = 100
"""Tokens of an answer whose latency they give."""

RECORDED: Final = resources.files("analysis") / "stored" / "bench_model.csv"
"""What ``lightkv bench model`` measured on one NVIDIA H200 (docs/performance.md)."""

_TIMED: Final = (
    *("shape", "tokens", "text", "batch_size", "layers", "new_tokens", "retention"),
    *("driver", "half_products", "device", "machine", "dtype", "piece", "method", "repeat"),
    *("ttft_ms", "step_ms", "throughput", "kv_bytes", "peak_bytes", "memory_kind", "tower_ms"),
)

_STEPS: Final = (
    *("model", "device", "machine", "dtype", "method", "retention", "piece", "repeat"),
    *("batch_size", "context", "new_tokens", "ttft_ms", "step_ms", "throughput"),
    *("kv_bytes", "kv_share", "peak_bytes", "memory_kind", "recorded"),
)


@register
def decode_latency(
    vlm: VLM,
    *,
    retentions: tuple[float, ...] = (0.5, 0.1, 0.05),
    context: int | None = None,
    measuring: LatencySettings | None = None,
    tasks: Tasks = ("embedded/read",),
    seed: int = 0,
    recorded: str | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Time per decode step and throughput of the full cache and of TGV-KV: measured, and recorded.

    A table that the store holds for this machine is not measured again.

    Args:
        vlm: The model.
        retentions: Shares of the cache that TGV-KV keeps.
        context: The question is repeated until the prompt has that many tokens; None: as it is.
        measuring: How often and how long.
        tasks: The first question of the first task is asked.
        seed: Which first question.
        recorded: As of :func:`request_times`.
        store: Where the table is kept.

    Returns:
        Rows of :func:`~analysis.timing.latency.measure_latency` with ``retention`` (1 for the full
        cache) and ``piece`` (what was measured in turns, whose rounds are comparable). After them,
        with ``recorded`` true, those of LLaVA-1.5-7B under the full cache and TGV-KV that ``lightkv
        bench model`` measured, at every length.

    Raises:
        InputError: As :func:`request_times`.
    """
    import pandas as pd

    on_record = _recorded_steps(recorded)
    settings = LatencySettings() if measuring is None else measuring
    source = task(tasks[0]) if isinstance(tasks[0], str) else tasks[0]
    configuration = model_configuration(vlm) | {
        "machine": machine_name(vlm.device),
        "retentions": retentions,
        "context": context,
        "measuring": repr(settings),
        "task": [source.name, source.fingerprint],
        "seed": seed,
    }

    def compute() -> pd.DataFrame:
        request = source.items(1, seed)[0].request()
        asked = request if context is None else lengthened(vlm, request, context)
        labels = {VANILLA: 1.0} | {f"tgvkv {100 * r:g} %": r for r in retentions}
        methods = {k: None if r == 1 else TGVKV(retention=r) for k, r in labels.items()}
        frame = measure_latency(vlm, methods, asked, settings)
        frame["retention"] = frame["method"].map(labels)
        return frame

    parts = (vlm.family, source)
    measured = remembered("decode_latency", store, configuration, compute, parts=parts)
    return pd.concat([measured.assign(recorded=False, piece="here"), on_record], ignore_index=True)


@register
def request_times(
    *,
    recorded: str | None = None,
    models: Sequence[str] = PAPER_MODELS,
    methods: Sequence[str] = PAPER_METHODS,
) -> pd.DataFrame:
    """Time to the first token and of 100 tokens, as ``lightkv bench model`` measured them.

    Args:
        recorded: CSV that it wrote; None for what ships.
        models: Presets.
        methods: Registered names, whatever their settings.

    Returns:
        One row per model, method and round: model, tokens (of vision), ``compared`` (the name),
        method (as it was typed), piece (what was measured in turns), repeat, ttft_ms (with the
        vision tower where it was timed), latency_s (of 100 tokens), machine. Single prompts under
        the default driver and products count; of several lengths that with the most methods, then
        the one nearest to the model's.

    Raises:
        InputError: The file can't be read, or is not one of that command.
    """
    import pandas as pd

    rows = _recorded(recorded, models, methods)
    parts = [_usual_length(rows[rows["shape"] == model], model) for model in models]
    runs = pd.concat(parts, ignore_index=True)
    ttft = runs["ttft_ms"] + runs["tower_ms"].fillna(0)
    latency = (ttft + (ANSWER - 1) * runs["step_ms"]) / 1000
    columns = ["model", "tokens", "compared", "method", "piece", "repeat", "ttft_ms", "latency_s"]
    named = runs.assign(model=runs["shape"], ttft_ms=ttft, latency_s=latency)
    return named[[*columns, "machine"]]


def _recorded(recorded: str | None, models: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    """Rounds of single prompts to models at full depth, under methods of these names."""
    rows = _read(RECORDED if recorded is None else Path(recorded))
    rows = rows.assign(compared=rows["method"].str.extract(r"^([\w-]+)", expand=False))
    depth = rows["shape"].map({name: preset(name).shape.text.layers for name in models})
    single = (rows["batch_size"] == 1) & rows["repeat"].notna() & (rows["layers"] == depth)
    usual = (rows["driver"] == "auto") & ~rows["half_products"].astype(bool)
    joined = rows["method"].str.contains("|", regex=False)
    runs: pd.DataFrame = rows[single & usual & ~joined & rows["compared"].isin(methods)]
    return runs


def _read(path: Traversable) -> pd.DataFrame:
    """A file of ``lightkv bench model``."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8") as text:
            rows = pd.read_csv(text)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} can't be read as a CSV: {error}") from error
    missing = [name for name in _TIMED if name not in rows.columns]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: not written by lightkv bench model")
    return rows


def _recorded_steps(recorded: str | None) -> pd.DataFrame:
    """The paper's model on record, in the columns of a measurement here."""
    rows = _recorded(recorded, (PAPER_MODEL,), (VANILLA, "tgvkv"))
    asked = zip(rows["method"], rows["retention"], strict=True)
    rows = rows.assign(
        recorded=True,
        model=rows["shape"],
        context=rows["tokens"] + rows["text"],
        retention=[_retention(method, usual) for method, usual in asked],
    ).dropna(subset="retention")
    full = rows[rows["method"] == VANILLA].set_index(["piece", "repeat"])["kv_bytes"]
    rounds = zip(rows["piece"], rows["repeat"], strict=True)
    rows["kv_share"] = rows["kv_bytes"] / [full.get(one, float("nan")) for one in rounds]
    return rows[[*_STEPS]]


def _retention(method: str, usual: float) -> float:
    """What TGV-KV holds as it was typed, 1 for the full cache, NaN for other forms of it."""
    if method == VANILLA:
        return 1.0
    built = ModelBenchSettings(retention=usual).method(PAPER_MODEL, method)
    share = getattr(built, "retention", None)
    if share is None or share == 1 or built != TGVKV(retention=share):
        return float("nan")
    return float(share)


def _usual_length(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Rows of one prompt length: the one with the most methods, then the nearest."""
    if rows.empty:
        return rows
    usual = preset(model).vision_tokens
    count = rows.groupby("tokens")["compared"].nunique()
    best = max(count.index, key=lambda tokens: (count[tokens], -abs(tokens - usual)))
    runs: pd.DataFrame = rows[rows["tokens"] == best]
    return runs
