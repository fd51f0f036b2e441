"""Conversations that go on from a compressed cache.

A cache that was cut can't be handed back to ``model.generate``: it would take the cache's length
for the number of tokens read, and read the rest again.  A session feeds exactly the new tokens, at
the positions of the uncompressed conversation, against each layer's own entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.answers import Answer
from lightkv.catalogue import MethodLike, resolved
from lightkv.contract.checks import check_count
from lightkv.contract.types import check_type
from lightkv.engine.run import Run
from lightkv.errors import InputError, UnsupportedError
from lightkv.prompting import Request
from lightkv.reading import before_question, left_padded, scored
from lightkv.refusals import check_length
from lightkv.settings import GREEDY
from lightkv.vlm import VLM


class Session:
    """Several conversations held side by side, one per row.

    The cache is compressed once, in the first call of :meth:`read` or :meth:`ask`.

    Args:
        vlm: The model.
        compressor: A method, also as text; None for the full cache.
        seed: For methods that draw at random.
    """

    def __init__(self, vlm: VLM, compressor: MethodLike = None, *, seed: int = 0) -> None:
        check_type("vlm", vlm, VLM)
        check_type("seed", seed, int)
        self.vlm = vlm
        self.compressor = resolved(compressor, vlm.facts)
        self.seed = seed
        self._run: Run | None = None
        self._shift: Tensor | None = None
        self._cached: list[list[int]] = []
        self._pictures = ""
        self._shares: Sequence[float] | None = None

    def _encoded(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """A processed batch; pictures are made as small as they were for the first."""
        if self._run is None:
            self._shares = self.vlm.picture_shares(requests, self.compressor)
        return self.vlm.encode(requests, picture_shares=self._shares)

    def read(self, requests: Sequence[Request]) -> None:
        """Read everything up to the last vision token and compress, before any question is known.

        Raises:
            InputError: If a request has no image, or the method needs a question.
            UnsupportedError: If the method reads images twice and the model's can't be repeated.
        """
        prefix = before_question(self.vlm, self._encoded(requests))
        rows = [
            ids[real.bool()]
            for ids, real in zip(prefix["input_ids"], prefix["attention_mask"], strict=True)
        ]
        compressor = scored(self.vlm, self.compressor, requests, seed=self.seed)
        generation = self.vlm.generate(
            prefix, compressor, seed=self.seed, keep_run=True, max_new_tokens=1, **GREEDY
        )
        self._start(generation.run, rows, prefix)

    def ask(self, requests: Sequence[Request], *, max_new_tokens: int = 32) -> list[Answer]:
        """Answer the next question of every row; each request holds its whole conversation.

        Raises:
            InputError: If a conversation does not begin with what the session has read, images
                included.
        """
        check_count("max_new_tokens", max_new_tokens)
        inputs = self._encoded(requests)
        rows = [
            ids[real.bool()]
            for ids, real in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        if self._run is None:
            generation = self.vlm.generate(
                inputs,
                self.compressor,
                seed=self.seed,
                keep_run=True,
                max_new_tokens=max_new_tokens,
                **GREEDY,
            )
            self._start(generation.run, rows, inputs)
            new = generation.output[:, inputs["input_ids"].shape[1] :]
        elif _pictures(inputs) != self._pictures:
            raise InputError(
                "the images are not those that this session has read; start a new session"
            )
        else:
            layout = self.vlm.layout(inputs)
            check_length(self.vlm.family, self.vlm.model.config, layout, max_new_tokens)
            new = self._continue(self._run, rows, max_new_tokens)
        return self._answers(requests, new)

    def _start(self, run: Run | None, rows: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> None:
        if run is None:
            raise UnsupportedError("this run kept no cache to go on from")
        self._run = run
        self._shift = self.vlm.family.rotary_shift(self.vlm.model)
        self._cached = [row.tolist() for row in rows]
        self._pictures = _pictures(inputs)

    def _continue(self, run: Run, rows: Sequence[Tensor], max_new_tokens: int) -> Tensor:
        joining = []
        for number, (row, cached) in enumerate(zip(rows, self._cached, strict=True)):
            if row[: len(cached)].tolist() != cached or len(row) == len(cached):
                raise InputError(
                    f"conversation {number} does not go on from what its session has read; start "
                    "a new session, or pass the earlier turns unchanged"
                )
            joining.append(row[len(cached) :])
            cached.extend(joining[-1].tolist())
        ids, real = left_padded(joining)
        positions = run.held.continue_with(real)
        with torch.no_grad():
            new: Tensor = self.vlm.graph.call(
                run,
                self._greedy,
                driver=self.vlm.driver,
                cache=run.held.cache,
                ids=ids,
                positions=positions,
                count=max_new_tokens,
            )
        return new

    def _greedy(self, cache: Any, ids: Tensor, positions: Tensor, count: int) -> Tensor:
        """(B, steps) ids of the most likely tokens, until every row has ended."""
        stops = torch.tensor(sorted(self.vlm.stop_tokens), device=ids.device)
        ended = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
        tokens: list[Tensor] = []
        for _ in range(count):
            logits = self.vlm.model(
                input_ids=ids,
                position_ids=self.vlm.family.later_positions(positions, self._shift),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            newest = logits[:, -1].argmax(-1)
            tokens.append(newest)
            ended = ended | torch.isin(newest, stops)
            if bool(ended.all()):
                break
            ids, positions = newest[:, None], positions[:, -1:] + 1
        return torch.stack(tokens, 1)

    def _answers(self, requests: Sequence[Request], new: Tensor) -> list[Answer]:
        run = self._run
        if run is None:
            raise UnsupportedError("the session has not read anything yet")
        answers = [
            self.vlm.answer(row.tolist(), record, request, self.compressor)
            for row, record, request in zip(new, run.records(), requests, strict=True)
        ]
        # The last generated token was never fed, nor is what follows a row's end part of it.
        # Whether a stop token stands after an answer in the next turn, the chat template says.
        for cached, answer in zip(self._cached, answers, strict=True):
            fed = answer.tokens[: new.shape[1] - 1]
            cached.extend(fed[:-1] if fed and fed[-1] in self.vlm.stop_tokens else fed)
        lengths = torch.tensor([len(cached) for cached in self._cached], device=new.device)
        run.held.forget_since(lengths)
        return answers


def _pictures(inputs: Mapping[str, Tensor]) -> str:
    """Digest of the pixels of a processed batch."""
    digest = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        if torch.is_floating_point(value):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
