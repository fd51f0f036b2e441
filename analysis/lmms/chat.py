"""The plugin: lmms-eval asks a compressed model.

python -m lmms_eval --model lightkv --model_args method=tgvkv,retention=0.2 --tasks pope
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

from analysis.asking.method_grid import compressors
from analysis.lmms.task import DEFAULT_MAX_NEW_TOKENS
from lightkv.catalogue import load_module
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.loading import load
from lightkv.prompting import Request
from lightkv.vlm import VLM


@dataclass(frozen=True)
class Asked:
    """One request of the harness.

    Attributes:
        place: In the harness's order.
        task, document: Which question it is.
        request: As a model takes it.
        max_new_tokens: Longest answer.
    """

    place: int
    task: str
    document: int
    request: Request
    max_new_tokens: int

    @property
    def order(self) -> tuple[str, int, int, int, int]:
        """Sort key: what can be a batch stands together, long prompts first."""
        length = len(self.request.question)
        return self.task, self.max_new_tokens, -len(self.request.images), -length, self.place


class LightKVChat(lmms):  # type: ignore[misc]
    """A model with a compressor, as lmms-eval asks it: pictures and a text at once.

    Args:
        pretrained: Hub id or folder; the embedded model by default.
        method: As on our command line, ``vanilla`` for the full cache.
        retention: Share of the cache, for evictors that name none.
        batch_size: Questions at once.
        device: As of :func:`lightkv.load`.
        dtype: Likewise.
        attention: Likewise.
        seed: Of methods that draw at random.
        system: Text before the pictures, None for the model's own.
        max_new_tokens: Longest answer, None for each benchmark's own or 32.
        module: A user's module to import first, so that its methods can be named.
        max_batch_size: Given by the harness, and not used.

    Attributes:
        kept: Bytes of the cache's entries by task and document.

    Raises:
        InvalidValueError, UnknownNameError, ModelError: A setting, method or model can't be used.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        method: str = "vanilla",
        retention: float | None = None,
        batch_size: int | str = 1,
        device: str = "cpu",
        dtype: str | None = None,
        attention: str = "sdpa",
        seed: int = 0,
        system: str | None = None,
        max_new_tokens: int | None = None,
        module: str | None = None,
        max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            allowed = "pretrained, method, retention, device, dtype, attention, seed, system, "
            raise InvalidValueError(
                "model_args", sorted(unknown), f"{allowed}max_new_tokens, module"
            )
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise InvalidValueError("batch_size", batch_size, "a number of at least 1")
        if module is not None:
            load_module(module)
        self.vlm: VLM = load(pretrained, device=device, dtype=dtype, attention=attention)
        shares = () if retention is None else (retention,)
        (self.compressor,) = compressors([method], shares, self.vlm.facts).values()
        self.kept: dict[tuple[str, int], int] = {}
        self._batch_size = int(batch_size)
        self._seed, self._system, self._limit = seed, system, max_new_tokens

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests; an error ends the run, never as an empty answer."""
        from tqdm.auto import tqdm

        asked = sorted(map(self._asked, range(len(requests)), requests), key=lambda one: one.order)
        groups: dict[tuple[str, int], list[Asked]] = defaultdict(list)
        for one in asked:
            groups[one.task, one.max_new_tokens].append(one)
        results: dict[int, GenerationResult] = {}
        with tqdm(total=len(asked), unit="question") as bar:
            for (_, limit), group in groups.items():
                for start in range(0, len(group), self._batch_size):
                    batch = group[start : start + self._batch_size]
                    results |= self._answer(batch, limit)
                    bar.update(len(batch))
        return [results[place] for place in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refused: compressed models are judged by what they answer."""
        raise UnsupportedError("lightkv generates answers; tasks scored by likelihood can't be run")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused: several rounds on one compressed cache are another protocol."""
        raise UnsupportedError(
            "lightkv answers single questions; tasks of several rounds can't run"
        )

    def _asked(self, place: int, instance: Instance) -> Asked:
        _, to_messages, settings, document, task, split = instance.args
        messages = to_messages(self.task_dict[task][split][document])
        images, text, system = _parts(task, messages)
        request = Request(images, text, (), system if self._system is None else self._system)
        limit = self._limit or settings.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS
        return Asked(place, task, document, request, int(limit))

    def _answer(self, batch: Sequence[Asked], limit: int) -> dict[int, GenerationResult]:
        answers = self.vlm.ask_many(
            [one.request for one in batch], self.compressor, max_new_tokens=limit, seed=self._seed
        )
        results = {}
        for one, answer in zip(batch, answers, strict=True):
            self.kept[one.task, one.document] = answer.kv_bytes
            counts = TokenCounts(output_tokens=len(answer.tokens))
            results[one.place] = GenerationResult(answer.text, counts)
        return results


def _parts(
    task: str, messages: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Any, ...], str, str | None]:
    """Pictures, question and system text of a conversation.

    Raises:
        UnsupportedError: It is anything else.
    """
    turns = [(turn["role"], list(turn["content"])) for turn in messages]
    system = None
    if turns and turns[0][0] == "system":
        (part,) = turns.pop(0)[1]
        system = str(part["text"])
    if [role for role, _ in turns] != ["user"]:
        raise UnsupportedError(f"{task} asks in several turns; lightkv answers single questions")
    *shown, asked = turns[0][1]
    if asked["type"] != "text" or any(part["type"] != "image" for part in shown):
        kinds = [part["type"] for part in turns[0][1]]
        raise UnsupportedError(f"{task} shows {kinds}; lightkv takes pictures and then a text")
    return tuple(part["url"] for part in shown), str(asked["text"]), system
