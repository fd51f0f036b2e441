"""Load a vision-language model, ask it, and ask it again with a compressed cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from lightkv.catalogue import MethodLike, resolved
from lightkv.contract.checks import check_count
from lightkv.contract.compressor import Compressor, ModelFacts
from lightkv.contract.interventions import Intervention, check_interventions
from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import check_type
from lightkv.contract.view import QuestionWords
from lightkv.engine.graph import Driver, InterventionGraph, check_driver
from lightkv.engine.record import RunRecord, untouched_records
from lightkv.engine.renumbering import Renumbering
from lightkv.engine.run import Observer, Plan, Quirks, Run
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.families import Family
from lightkv.inputs import completed, has_holes, processed, row_identities
from lightkv.pictures import SAVED, check_pictures, saved_by, smaller, with_saved
from lightkv.prompting import Request, check_requests
from lightkv.settings import GREEDY, Settings, refuse_doubles

AttentionKernel = Literal["sdpa", "eager"]


@dataclass(frozen=True)
class Answer:
    """What a model said, and what its cache held while it said it.

    Attributes:
        text: The answer, without special tokens.
        tokens: Ids of the generated tokens up to the end-of-sequence token.
        record: What the run did.
    """

    text: str
    tokens: tuple[int, ...]
    record: RunRecord

    @property
    def kept(self) -> dict[str, list[Any]]:
        """Original prompt positions in each layer's cache, by "layer 0", "layer 1", ..."""
        return {f"layer {layer.layer}": layer.kept.tolist() for layer in self.record.layers}

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache's entries after prefill."""
        return self.record.kv_bytes


@dataclass(frozen=True)
class Generation:
    """Output of :meth:`VLM.generate`.

    Attributes:
        output: What ``model.generate`` returned, unchanged.
        records: One record per row of the batch, made when the first is read.
        run: The run with its cache, if it was asked for.
    """

    output: Any
    records: Sequence[RunRecord]
    run: Run | None = None


class VLM:
    """A HuggingFace vision-language model behind one intervention graph.

    Built by :func:`lightkv.load`. The model stays unmodified: ``vlm.model`` can be used as usual.

    Args:
        name: Where it came from.
        model: The HuggingFace model.
        processor: Its processor, None for one that is only given processed batches.
        family: Its architecture family.
        driver: What carries runs through the model, see :data:`~lightkv.engine.graph.Driver`.

    Attributes:
        facts: What a method may know about the model.
        system: System sentence of requests that name none, None for the template's own.

    Raises:
        InvalidValueError: If there is no such driver.
    """

    def __init__(
        self, name: str, model: Any, processor: Any, family: Family, driver: Driver = "auto"
    ) -> None:
        check_driver(driver)
        text = model.config.get_text_config()
        self.name = name
        self.model = model
        self.processor = processor
        self.family = family
        self.driver: Driver = driver
        self.facts = ModelFacts(
            layers=int(text.num_hidden_layers),
            heads=int(text.num_attention_heads),
            kv_heads=int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
            hidden_size=int(text.hidden_size),
            grid_follows_picture=family.grid_follows_picture,
        )
        self.system: str | None = None
        self._graph: InterventionGraph | None = None
        self._fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"VLM({self.name!r}, {self.facts}, device={self.device}, dtype={self.dtype})"

    @property
    def summary(self) -> str:
        """The model in a line: name, class, size, number format, device."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        number_type = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.name}, {type(self.model).__name__}, {self.facts.layers} layers, "
            f"{count / 1e6:,.1f} M weights, {number_type} on {self.device}"
        )

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings."""
        embeddings: Tensor = self.model.get_input_embeddings().weight
        return embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        embeddings: Tensor = self.model.get_input_embeddings().weight
        return embeddings.dtype

    @property
    def attention(self) -> str:
        """The attention kernel ("sdpa", "eager", ...)."""
        return str(self.model.config._attn_implementation)

    @property
    def fingerprint(self) -> str:
        """Hash of config and weights; equal for equal models wherever they were loaded from.

        Large tensors enter through a strided sample of 4,096 numbers.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256(type(self.model).__name__.encode())
            for key, value in sorted(self.model.state_dict().items()):
                flat = value.detach().reshape(-1)
                sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().contiguous()
                digest.update(f"{key}{tuple(value.shape)}".encode())
                digest.update(sample.numpy().tobytes())
            if self.system is not None:
                digest.update(self.system.encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    # ------------------------------------------------------------------ inputs

    def encode(
        self,
        requests: Sequence[Request],
        compressor: MethodLike = None,
        *,
        picture_shares: Sequence[float] | None = None,
    ) -> dict[str, Tensor]:
        """Processor output of a batch, left-padded, on the model's device.

        Args:
            requests: What is asked.
            compressor: The method that the batch is for: one that acts on pictures does so here.
            picture_shares: What :meth:`picture_shares` said before, for pictures seen before.

        Raises:
            InputError: If the list or a question is empty, a text contains the mark of a picture,
                or an image can't be used.
            UnsupportedError: If smaller pictures would have no fewer vision tokens.
            ModelError: If the model came without a processor.
        """
        shares = picture_shares
        if shares is None:
            shares = self.picture_shares(requests, compressor)
        whole = self._encoded(requests)
        if shares is None:
            return whole
        return with_saved(self._encoded(smaller(requests, shares)), whole, shares)

    def picture_shares(
        self, requests: Sequence[Request], compressor: MethodLike
    ) -> Sequence[float] | None:
        """Per request, the share of its pictures' pixels that a method wants; None for all."""
        method = resolved(compressor, self.facts)
        if method is None or not method.acts_on_pictures(self.facts):
            return None
        method.check(self.facts)
        return method.picture_shares(self.layout(self._encoded(requests)))

    def _encoded(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        vision_ids = self.family.vision_ids(self.model.config)
        check_requests(requests)
        asked = [
            request if request.system is not None else replace(request, system=self.system)
            for request in requests
        ]
        batch = processed(self.processor, self.name, asked, vision_ids)
        return {
            key: value.to(self.device, self.dtype)
            if torch.is_floating_point(value)
            else value.to(self.device)
            for key, value in batch.items()
        }

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the model takes of a processed batch."""
        names = {*self.family.layout_inputs, SAVED}
        return {k: v for k, v in inputs.items() if k not in names}

    def layout(self, inputs: Mapping[str, Tensor]) -> TokenLayout:
        """Layout of a processed batch.

        Raises:
            InputError: If the batch can't be used, or its vision tokens don't match its pictures.
        """
        return self.family.layout(self.model.config, completed(inputs))

    # ------------------------------------------------------------------ runs

    def generate(
        self,
        inputs: Mapping[str, Tensor],
        compressor: MethodLike = None,
        *,
        seed: int = 0,
        observers: Sequence[Observer] = (),
        interventions: Sequence[Intervention] = (),
        keep_run: bool = False,
        driver: Driver | None = None,
        **settings: Any,
    ) -> Generation:
        """``model.generate`` with a compressed cache.

        Without a compressor, observers and interventions this is the plain call, bit for bit.

        Args:
            inputs: Processor output (see :meth:`encode`).
            compressor: A method, a composition ``a | b``, or either written as text
                ("tgvkv:retention=0.2", see :mod:`lightkv.catalogue`); None for the full cache.
            seed: For methods that draw at random.
            observers: Look at layers during prefill.
            interventions: Cut attention or swap cache entries, to see what depends on them.
            keep_run: Return the run with its cache, to go on from.
            driver: "nnsight", "hooks" or "auto" (see :data:`~lightkv.engine.graph.Driver`); default
                as the model was loaded. Results are the same bit for bit.
            **settings: Passed on to ``model.generate``.

        Raises:
            InputError: If the batch can't be used, or its vision tokens don't match its pictures.
            InvalidValueError: If a hyperparameter does not fit the model or the prompt.
            UnsupportedError: If a setting would make the result silently wrong.
        """
        driver = self.driver if driver is None else driver
        check_driver(driver)
        compressor = resolved(compressor, self.facts)
        check_type("seed", seed, int)
        check_type("keep_run", keep_run, bool)
        check_type("observers", observers, Sequence[Observer])
        check_type("interventions", interventions, Sequence[Intervention])
        batch = completed(inputs)
        refuse_doubles(batch, settings)
        effective = Settings(self.model, settings)
        plan = Plan.of(compressor, self.facts, tuple(observers), tuple(interventions))
        self.family.check_pixels(self.model.config, batch)
        layout = self.family.layout(self.model.config, batch)
        self.check_length(layout, effective.new_tokens(layout.length))
        check_interventions(interventions, self.facts, layout)
        check_pictures(compressor, self.facts, batch)
        for part in compressor.parts if compressor is not None else ():
            # One that acted on the pictures has checked the prompt before it did.
            if not part.acts_on_pictures(self.facts):
                part.check_layout(layout)
        plain = compressor is None and not (observers or interventions or keep_run)
        if not plain:
            effective.refuse()
            self._refuse(effective, layout.batch_size, plan)
        if compressor is not None or interventions:
            self._refuse_windows(effective, layout.length, plan)
            self._refuse_holes(batch["attention_mask"], plan)
        run = self._run(plan, layout, seed, batch)
        if plan.needs_vision:
            words = self._words(batch["input_ids"], layout, plan.text_tower)
            run.vision = self.family.vision_features(
                self.model, batch, layout, plan.needs_vision, words
            )
        batch = self.model_inputs(batch)
        if self.quirks.has_windows and not plain:
            batch["past_key_values"] = full_cache()
        with torch.no_grad():
            if plain:
                output = self.model.generate(**batch, **settings)
                return Generation(output, full_cache_records(self, layout))
            output = self.graph.generate(run, batch, driver=driver, **settings)
        return Generation(output, run.records(), run if keep_run else None)

    @property
    def graph(self) -> InterventionGraph:
        """The model's intervention graph, attached when it is first needed."""
        if self._graph is None:
            path = self.family.decoder_path(self.model)
            self._graph = InterventionGraph(self.model, path)
        return self._graph

    def ask(
        self,
        image: Any,
        question: str,
        compressor: MethodLike = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 32,
        seed: int = 0,
    ) -> Answer:
        """Answer a question about an image (or a list of images), greedily.

        Args:
            image: A PIL image, an (H, W, 3) uint8 array, a path, or a list of them.
            question: The question.
            compressor: A method, also as text ("tgvkv:retention=0.2"); None for the full cache.
            history: Earlier (question, answer) turns about the same image.
            max_new_tokens: Longest answer, at least 1.
            seed: For methods that draw at random.

        Raises:
            InputError: If the image, the question or a turn can't be used.
            InvalidValueError, UnknownNameError: If the method or an option is not one.
        """
        images = tuple(image) if isinstance(image, list | tuple) else (image,)
        turns = tuple(history) if isinstance(history, list) else history
        request = Request(images, question, turns)  # type: ignore[arg-type]
        return self.ask_many([request], compressor, max_new_tokens=max_new_tokens, seed=seed)[0]

    def ask_many(
        self,
        requests: Sequence[Request],
        compressor: MethodLike = None,
        *,
        max_new_tokens: int = 32,
        seed: int = 0,
    ) -> list[Answer]:
        """Answer a batch of requests; row i answers as it would alone. Raises as :meth:`ask`."""
        check_count("max_new_tokens", max_new_tokens)
        inputs = self.encode(requests, compressor)
        generation = self.generate(
            inputs, compressor, seed=seed, max_new_tokens=max_new_tokens, **GREEDY
        )
        start = inputs["input_ids"].shape[1]
        rows = generation.output[:, start:]
        return [
            self.answer(row.tolist(), record)
            for row, record in zip(rows, generation.records, strict=True)
        ]

    def answer(self, tokens: Sequence[int], record: RunRecord) -> Answer:
        """An answer from generated ids, cut behind the first end-of-sequence token."""
        ends = [place for place, token in enumerate(tokens) if token in self.stop_tokens]
        cut = tuple(tokens[: ends[0] + 1] if ends else tokens)
        text = self.processor.decode(cut, skip_special_tokens=True).strip()
        return Answer(text, cut, record)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or ())

    def observe(
        self,
        requests: Sequence[Request],
        observer: Observer,
        compressor: MethodLike = None,
        *,
        seed: int = 0,
    ) -> Sequence[RunRecord]:
        """Show the layers of a prefill to an observer; nothing is generated beyond one token."""
        return self.generate(
            self.encode(requests, compressor),
            compressor,
            seed=seed,
            observers=(observer,),
            max_new_tokens=1,
            **GREEDY,
        ).records

    def compressed_by(self, compressor: Compressor | str, *, seed: int = 0) -> CompressedVLM:
        """This model with a compressor attached: ``generate(**inputs)`` as usual.

        Raises:
            InvalidValueError, UnknownNameError: If it is no method, or does not fit the model.
        """
        method = resolved(compressor, self.facts)
        if method is None:
            raise InvalidValueError("compressor", None, "a method; None attaches nothing")
        check_type("seed", seed, int)
        Plan.of(method, self.facts)
        return CompressedVLM(self, method, seed)

    @property
    def quirks(self) -> Quirks:
        """What sets this model apart from a plain decoder."""
        windows = tuple(
            self.family.sliding_window(self.model.config, layer)
            for layer in range(self.facts.layers)
        )
        return Quirks(windows, self.attention == "eager", self.family.adds_to_layers)

    def _words(
        self, ids: Tensor, layout: TokenLayout, text_tower: str | None
    ) -> QuestionWords | None:
        """The text after each row's first image, for a text tower."""
        if text_tower is None:
            return None
        if self.processor is None:
            raise UnsupportedError(
                f"a text tower reads words, and {self.name} came without a processor to say which "
                "they are"
            )
        texts = (
            self.processor.decode(row[said], skip_special_tokens=True).strip()
            for row, said in zip(ids, layout.question.to(ids.device), strict=True)
        )
        return QuestionWords(tuple(texts), text_tower)

    def _run(self, plan: Plan, layout: TokenLayout, seed: int, batch: Mapping[str, Tensor]) -> Run:
        @cache
        def identities() -> tuple[int, ...]:
            pixels = self.family.row_pixels(self.model.config, batch, layout)
            return row_identities(batch["input_ids"], layout.real, pixels)

        rotary = None
        if plan.renumbers:
            with torch.no_grad():
                rotary = self.family.text_rotary(self.model, layout.length)
        return Run(
            plan,
            layout,
            seed=seed,
            identities=identities,
            quirks=self.quirks,
            text_rotary=rotary,
            renumbering=self._renumbering(plan) if plan.renumbers_later else None,
            final_norm=self.family.final_norm(self.model),
            saved=saved_by(batch),
        )

    def _renumbering(self, plan: Plan) -> Renumbering:
        if plan.renumbers_cache and not self.family.one_axis:
            raise UnsupportedError(
                f"{self.name} numbers vision tokens on several axes, so its cache can't be "
                "re-indexed; use positions='keep'"
            )

        def rotary(positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                return self.family.rotary_at(self.model, positions, layer)

        return Renumbering(rotary, places=plan.renumbers_cache)

    def check_length(self, layout: TokenLayout, new_tokens: int) -> None:
        """Refuse prompts and answers that are longer than what the model was trained to read.

        Args:
            layout: Of the prompts.
            new_tokens: Most tokens of an answer.

        Raises:
            InputError: If a prompt alone is too long.
            InvalidValueError: If an answer can't be that long, or has no place at all.
        """
        trained = self.family.trained_length(self.model.config)
        taken = self.family.positions_taken(layout)
        longest = int(taken.max())
        if trained is not None and longest > trained:
            raise InputError(
                f"the prompt of row {int(taken.argmax())} takes {longest:,} positions, the model "
                f"was trained to {trained:,}: ask a shorter question or use smaller pictures"
            )
        if trained is not None and longest + new_tokens > trained:
            raise InvalidValueError(
                "max_new_tokens",
                new_tokens,
                f"at most {trained - longest}: the model was trained to {trained:,} positions, the "
                f"prompt takes {longest:,}",
            )
        if new_tokens < 1:
            raise InvalidValueError(
                "max_length", layout.length + new_tokens, f"above the prompt's {layout.length}"
            )

    def _refuse(self, settings: Settings, batch_size: int, plan: Plan) -> None:
        if self.attention not in ("sdpa", "eager"):
            raise UnsupportedError(
                f"attention kernel {self.attention!r}; load the model with attention='sdpa' or "
                "'eager' to compress it"
            )
        beams = settings.beams
        changes = plan.interventions or plan.reducers or plan.evictor is not None
        if changes and beams > 1 and (batch_size > 1 or not plan.decode_policy.static):
            raise UnsupportedError(
                f"num_beams={beams} with {batch_size} prompts: beams are reordered under the "
                "cache; use one prompt at a time and a policy that does not evict while decoding"
            )

    def _refuse_windows(self, settings: Settings, length: int, plan: Plan) -> None:
        if not (plan.renumbers or plan.renumbers_later):
            return
        longest = length + settings.new_tokens(length)
        narrow = [window for window in self.quirks.windows if window and window < longest]
        if narrow:
            raise UnsupportedError(
                f"renumbered positions in a model with layers that look back on {min(narrow)} "
                f"tokens, for {longest} tokens of prompt and answer: the windows would be those of "
                "the old positions; use positions='keep'"
            )

    def _refuse_holes(self, mask: Tensor, plan: Plan) -> None:
        if has_holes(mask) and (self.quirks.has_windows or plan.renumbers or plan.renumbers_later):
            raise UnsupportedError(
                "attention_mask hides tokens in the middle of a prompt, where windows and "
                "renumbered positions would be counted wrong; leave these tokens out of the prompt"
            )


class CompressedVLM:
    """A model and a compressor that stay together.

    ``generate`` takes what the processor returned and gives what ``model.generate`` gives;
    ``records`` says what the last call did.
    """

    def __init__(self, vlm: VLM, compressor: Compressor, seed: int) -> None:
        self.vlm = vlm
        self.compressor = compressor
        self.seed = seed
        self.records: Sequence[RunRecord] = ()

    def generate(self, *, seed: int | None = None, **inputs: Any) -> Any:
        """``model.generate(**inputs)`` with the compressor at work."""
        tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
        settings = {k: v for k, v in inputs.items() if k not in tensors}
        chosen = self.seed if seed is None else seed
        result = self.vlm.generate(tensors, self.compressor, seed=chosen, **settings)
        self.records = result.records
        return result.output

    def ask(self, image: Any, question: str, **options: Any) -> Answer:
        """As :meth:`VLM.ask`, with the compressor at work."""
        return self.vlm.ask(image, question, self.compressor, seed=self.seed, **options)


def full_cache() -> Any:
    """A cache that keeps every entry, also those that a sliding window has left behind.

    The stock cache drops such entries by itself and could not be told from an evicted one; outputs
    are the same up to rounding.
    """
    from transformers import DynamicCache

    return DynamicCache()


def full_cache_records(vlm: VLM, layout: TokenLayout) -> Sequence[RunRecord]:
    """Records of a run that compressed nothing."""
    return untouched_records(vlm.facts, layout, _entry_bytes(vlm))


def _entry_bytes(vlm: VLM) -> int:
    text = vlm.model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(width) * vlm.dtype.itemsize
