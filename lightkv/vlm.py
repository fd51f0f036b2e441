"""Load a vision-language model, ask it, and ask it again with a compressed cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from lightkv.answers import Answer, Generation
from lightkv.catalogue import MethodLike, resolved
from lightkv.contract.checks import check_count
from lightkv.contract.compressor import Compressor
from lightkv.contract.interventions import Intervention, check_interventions
from lightkv.contract.layout import TokenLayout
from lightkv.contract.observer import Observer
from lightkv.contract.types import check_type
from lightkv.engine.drivers import Decode, Driver
from lightkv.engine.plan import Plan
from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError
from lightkv.inputs import completed
from lightkv.model import LoadedModel, NotAModule
from lightkv.pictures import check_pictures
from lightkv.placing import picture_places
from lightkv.prompting import Request
from lightkv.refusals import check_length, refuse, refuse_compiled
from lightkv.running import generated, plain_generation, prepared_run
from lightkv.settings import GREEDY, Settings, refuse_doubles


class VLM(LoadedModel):
    """A HuggingFace vision-language model whose runs go through one intervention graph.

    Built by :func:`lightkv.load`. The model stays unmodified: ``vlm.model`` can be used as usual.
    """

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
        decode: Decode = "eager",
        **settings: Any,
    ) -> Generation:
        """``model.generate`` with a compressed cache.

        Without a compressor, observers and interventions this is the plain call, bit for bit (with
        ``decode="compiled"`` up to rounding).

        Args:
            inputs: Processor output (see :meth:`encode`).
            compressor: A method, a composition ``a | b``, or either written as text
                ("tgvkv:retention=0.2", see :mod:`lightkv.catalogue`); None for the full cache.
            seed: For methods that draw at random.
            observers: Look at layers during prefill.
            interventions: Cut attention or swap cache entries, to see what depends on them.
            keep_run: Return the run with its cache, to go on from.
            driver: "nnsight", "hooks" or "auto" (see :data:`~lightkv.engine.drivers.Driver`);
                default as the model was loaded. Results are the same bit for bit.
            decode: "compiled" runs decode steps as one program each, which is compiled at the first
                of them (:data:`~lightkv.engine.drivers.Decode`); "eager" as the model does.
            **settings: Passed on to ``model.generate``.

        Raises:
            InputError: If the batch can't be used, or its vision tokens don't match its pictures.
            InvalidValueError: If a hyperparameter or setting does not fit the model or the prompt.
            UnknownNameError: If a method or setting is unknown.
            UnsupportedError: If a setting would make the result silently wrong.
        """
        driver = self.driver if driver is None else driver
        check_type("driver", driver, Driver)
        check_type("decode", decode, Decode)
        compressor = resolved(compressor, self.facts)
        check_type("seed", seed, int)
        check_type("keep_run", keep_run, bool)
        batch = completed(inputs)
        refuse_doubles(batch, settings)
        effective = Settings(self.model, settings)
        plan = Plan.of(compressor, self.facts, observers, interventions)
        layout = self._checked_layout(batch, compressor, interventions, effective)
        compiled = decode == "compiled"
        if compressor is None and not (observers or interventions or keep_run or compiled):
            return plain_generation(self, layout, batch, settings)
        kernel, windows = self.attention, self.quirks.windows
        refuse(plan, effective, layout, batch["attention_mask"], kernel=kernel, windows=windows)
        if compiled:
            refuse_compiled(plan, effective, self.model, windows, driver=driver, keep_run=keep_run)
        run = prepared_run(self, plan, layout, batch, seed=seed)
        room = effective.new_tokens(layout.length) if compiled else None
        output = generated(self, run, batch, settings, driver=driver, room=room)
        return Generation(output, run.records(), run if keep_run else None)

    def _checked_layout(
        self,
        batch: Mapping[str, Tensor],
        compressor: Compressor | None,
        interventions: Sequence[Intervention],
        settings: Settings,
    ) -> TokenLayout:
        """Layout of a processed batch; raises where its prompts can't be answered as asked."""
        config = self.model.config
        self.family.check_pixels(config, batch)
        layout = self.family.layout(config, batch)
        check_length(self.family, config, layout, settings.new_tokens(layout.length))
        check_interventions(interventions, self.facts, layout)
        check_pictures(compressor, self.facts, batch)
        for part in compressor.parts if compressor is not None else ():
            # One that acted on the pictures has checked the prompt before it did.
            if not part.acts_on_pictures(self.facts):
                part.check_layout(layout)
        return layout

    def ask(
        self,
        image: Any,
        question: str,
        compressor: MethodLike = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        videos: Sequence[Sequence[Any]] = (),
        max_new_tokens: int = 32,
        seed: int = 0,
        decode: Decode = "eager",
    ) -> Answer:
        """Answer a question about an image (or a list of images, or videos), greedily.

        Args:
            image: A PIL image, an (H, W, 3) uint8 array, a path, or a list of them; an empty list
                where there are only videos.
            question: The question.
            compressor: A method, also as text ("tgvkv:retention=0.2"); None for the full cache.
            history: Earlier (question, answer) turns about the same image.
            videos: Lists of frames, for models of the Qwen families.
            max_new_tokens: Longest answer, at least 1.
            seed: For methods that draw at random.
            decode: "compiled" or "eager", see :meth:`generate`.

        Raises:
            InputError: If an image, a video, the question or a turn can't be used.
            InvalidValueError, UnknownNameError: If the method or an option of it is unknown.
            UnsupportedError: If the model's family takes no videos, the method does not fit it, or
                what is asked can't be compiled.
        """
        images = tuple(image) if isinstance(image, list | tuple) else (image,)
        turns = tuple(history) if isinstance(history, list) else history
        films = tuple(videos) if isinstance(videos, list) else videos
        request = Request(images, question, turns, videos=films)  # type: ignore[arg-type]
        return self.ask_many(
            [request], compressor, max_new_tokens=max_new_tokens, seed=seed, decode=decode
        )[0]

    def ask_many(
        self,
        requests: Sequence[Request],
        compressor: MethodLike = None,
        *,
        max_new_tokens: int = 32,
        seed: int = 0,
        decode: Decode = "eager",
    ) -> list[Answer]:
        """Answer a batch of requests; row i answers as it would alone. Raises as :meth:`ask`."""
        check_count("max_new_tokens", max_new_tokens)
        inputs = self.encode(requests, compressor)
        generation = self.generate(
            inputs,
            compressor,
            seed=seed,
            decode=decode,
            max_new_tokens=max_new_tokens,
            **GREEDY,
        )
        start = inputs["input_ids"].shape[1]
        rows = generation.output[:, start:]
        return [
            self.answer(row.tolist(), record, request, compressor)
            for row, record, request in zip(rows, generation.records, requests, strict=True)
        ]

    def answer(
        self,
        tokens: Sequence[int],
        record: RunRecord,
        request: Request | None = None,
        compressor: MethodLike = None,
    ) -> Answer:
        """An answer from generated ids, cut after the first end-of-sequence token.

        Args:
            tokens: The ids.
            record: What the run did.
            request: What was asked, for :meth:`Answer.kept_map`.
            compressor: The method.
        """
        ends = [place for place, token in enumerate(tokens) if token in self.stop_tokens]
        cut = tuple(tokens[: ends[0] + 1] if ends else tokens)
        text = self.processor.decode(cut, skip_special_tokens=True).strip()
        if request is None:
            return Answer(text, cut, record)
        return Answer(
            text, cut, record, partial(picture_places, self, request, compressor, record.layout)
        )

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
            InvalidValueError, UnknownNameError: If it is not a method, or does not fit the model.
        """
        method = resolved(compressor, self.facts)
        if method is None:
            raise InvalidValueError("compressor", None, "a method; None attaches nothing")
        check_type("seed", seed, int)
        Plan.of(method, self.facts)
        return CompressedVLM(self, method, seed)


class CompressedVLM(NotAModule):
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
        of_run = self.seed if seed is None else seed
        result = self.vlm.generate(tensors, self.compressor, seed=of_run, **settings)
        self.records = result.records
        return result.output

    def ask(self, image: Any, question: str, **options: Any) -> Answer:
        """As :meth:`lightkv.VLM.ask`, with the compressor at work."""
        return self.vlm.ask(image, question, self.compressor, seed=self.seed, **options)
