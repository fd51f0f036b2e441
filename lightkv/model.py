"""A loaded model: its parts, its size, its identity, and what prompts become for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from lightkv.catalogue import MethodLike, resolved
from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import check_type
from lightkv.contract.view import ModelFacts
from lightkv.engine.drivers import Driver
from lightkv.engine.graph import InterventionGraph
from lightkv.engine.plan import Quirks
from lightkv.errors import UnsupportedError
from lightkv.families import Family
from lightkv.inputs import completed, processed
from lightkv.pictures import SAVED, smaller, with_saved
from lightkv.prompting import Request, check_requests

_NOT_A_MODULE: Final = (
    "{} is not a torch module. Wrap the model inside, NNsight(vlm.model), and trace what it is "
    "asked: .trace(fn=quick.generate, **inputs) with compression, .trace(**inputs) without"
)


class NotAModule:
    """Refuses to be used as a torch module, as in ``NNsight(vlm)``, and says what to wrap."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Refuse to be called as a module."""
        raise UnsupportedError(_NOT_A_MODULE.format(type(self).__name__))

    @property
    def _modules(self) -> Any:
        raise UnsupportedError(_NOT_A_MODULE.format(type(self).__name__))


class LoadedModel(NotAModule):
    """A HuggingFace vision-language model, its processor and its family.

    Args:
        name: Where it came from.
        model: The HuggingFace model.
        processor: Its processor, None for one that is only given processed batches.
        family: Its architecture family.
        driver: What carries runs through the model, see :data:`~lightkv.engine.drivers.Driver`.

    Attributes:
        facts: What a method may know about the model.
        system: System sentence of requests that name none, None for the template's own.

    Raises:
        InvalidValueError: If there is no such driver.
    """

    def __init__(
        self, name: str, model: Any, processor: Any, family: Family, driver: Driver = "auto"
    ) -> None:
        check_type("driver", driver, Driver)
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
        where = f"device={self.device}, dtype={self.dtype}"
        return f"{type(self).__name__}({self.name!r}, {self.facts}, {where})"

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

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or ())

    @property
    def graph(self) -> InterventionGraph:
        """The model's intervention graph, attached when it is first needed."""
        if self._graph is None:
            path = self.family.decoder_path(self.model)
            self._graph = InterventionGraph(self.model, path)
        return self._graph

    @property
    def quirks(self) -> Quirks:
        """What sets this model apart from a plain decoder."""
        windows = self.family.sliding_windows(self.model.config, self.facts.layers)
        return Quirks(windows, self.attention == "eager", self.family.adds_to_layers)

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
            picture_shares: What :meth:`picture_shares` returned for the same pictures before.

        Raises:
            InputError: If the list or a question is empty, a text contains the mark of a picture,
                or an image can't be used.
            UnsupportedError: If smaller pictures would have no fewer vision tokens, or the model's
                family takes no videos.
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
        if any(request.videos for request in requests) and not self.family.takes_videos:
            raise UnsupportedError(
                f"videos are read with models of the Qwen families, and {self.name} is not one of "
                "them; pass frames as images"
            )
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
        """The inputs of a processed batch that the model itself takes."""
        names = {*self.family.layout_inputs, SAVED}
        return {k: v for k, v in inputs.items() if k not in names}

    def layout(self, inputs: Mapping[str, Tensor]) -> TokenLayout:
        """Layout of a processed batch.

        Raises:
            InputError: If the batch can't be used, or its vision tokens don't match its pictures.
        """
        return self.family.layout(self.model.config, completed(inputs))
