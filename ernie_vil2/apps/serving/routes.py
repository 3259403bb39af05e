"""The routes of models: embeddings in OpenAI's form, and ranking and classification in Jina's.

All three encode the texts and images of a request, and differ in what they make of the embeddings.
"""

import base64
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from ernie_vil2.apps.serving.batching import Input
from ernie_vil2.apps.serving.bodies import (
    IMAGE_DESCRIPTION,
    MAX_INPUTS,
    RequestReader,
    StrictModel,
    check_num_characters,
    check_parameter_names,
    check_total_length,
    decode_base64,
    describe_body,
    encode_json,
    parse_body,
)
from ernie_vil2.apps.serving.errors import RequestError
from ernie_vil2.apps.serving.models import ServedModel, ServedModels
from ernie_vil2.apps.serving.text_length import check_text_lengths
from ernie_vil2.encoder import ErnieViL2, truncate_embeddings


class ContentObject(StrictModel):
    """A text or an image."""

    text: str | None = None
    image: str | None = Field(None, description=IMAGE_DESCRIPTION)


def _wrap_text(value: Any) -> Any:
    """Return a text as the object of a text, and a data: URL as that of an image; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    return {"image": value} if value.startswith("data:image/") else {"text": value}


def _wrap_list(value: Any) -> Any:
    """Return a text as a list of it; raise ValueError for a long list before its elements are validated."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and len(value) > MAX_INPUTS:
        raise ValueError(f"{len(value):,} inputs; send at most {MAX_INPUTS} at a time (LangChain: chunk_size)")
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError("these are token ids of another model; send texts (LangChain: check_embedding_ctx_length)")
    return value


ContentLike = Annotated[ContentObject, BeforeValidator(_wrap_text, json_schema_input_type=str | ContentObject)]
"""A text, an image as a data: URL, or an object with one of both."""
Contents = Annotated[
    list[ContentLike],
    Field(min_length=1),
    BeforeValidator(_wrap_list, json_schema_input_type=str | list[str | ContentObject]),
]


class Content(NamedTuple):
    """A text or an image of a request; the other one is None."""

    text: str | None
    image: bytes | None


class ModelRequest(StrictModel):
    """A request whose texts and images are encoded, and answered by their embeddings."""

    model: str = Field("", description="not needed if there is one model")

    def list_contents(self) -> list[ContentObject]:
        """Return all texts and images, in the order in which `make_answer` gets them.

        Raises:
            RequestError: they cannot be made of the parameters.
        """
        raise NotImplementedError

    def check(self, model: ErnieViL2) -> None:
        """Raise RequestError if the model cannot answer; this is known before anything is encoded."""

    def make_answer(self, model: ErnieViL2, texts: Sequence[str | None], embeddings: np.ndarray) -> dict[str, Any]:
        """Return the answer by the embeddings `[N, D]` of texts, and of images, whose text is None."""
        raise NotImplementedError


class EmbeddingsRequest(ModelRequest):
    """A request in OpenAI's form."""

    input: Contents = Field(description="texts; images as data: URLs, or as objects with image")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="one of the model's widths")
    user: str = Field("", description="is ignored")

    def list_contents(self) -> list[ContentObject]:
        return self.input

    def check(self, model: ErnieViL2) -> None:
        if self.dimensions not in (None, *model.widths):
            widths = " or ".join(map(str, model.widths))
            raise RequestError(f"this model's embeddings have {widths} dimensions", "dimensions")

    def make_answer(self, model: ErnieViL2, texts: Sequence[str | None], embeddings: np.ndarray) -> dict[str, Any]:
        if self.dimensions not in (None, model.embed_dim):
            embeddings = truncate_embeddings(embeddings, self.dimensions)
        rows = np.ascontiguousarray(embeddings, "<f4")  # little-endian, as OpenAI's clients read base64
        values: Iterable[Any] = rows
        if self.encoding_format == "base64":
            values = [base64.b64encode(row).decode() for row in rows]
        data = []
        for number, value in enumerate(values):
            data.append({"object": "embedding", "index": number, "embedding": value})
        return {"object": "list", "data": data}


class RerankRequest(ModelRequest):
    """A request in Jina's form: documents are ordered by the cosine of their similarity to a query."""

    query: ContentLike = Field(description="a text or an image")
    documents: Contents = Field(description="texts and images")
    top_n: int | None = Field(None, ge=1, description="number of results; default: all documents")
    return_documents: bool = Field(True, description="whether results repeat the texts; images are never repeated")

    def list_contents(self) -> list[ContentObject]:
        return [self.query, *self.documents]

    def make_answer(self, model: ErnieViL2, texts: Sequence[str | None], embeddings: np.ndarray) -> dict[str, Any]:
        scores = embeddings[1:] @ embeddings[0]
        order = np.argsort(-scores, kind="stable")[: self.top_n]
        results = []
        for number in order.tolist():
            result: dict[str, Any] = {"index": number, "relevance_score": float(scores[number])}
            text = texts[1 + number]
            if self.return_documents and text is not None:
                result["document"] = {"text": text}
            results.append(result)
        return {"results": results}


class ClassifyRequest(ModelRequest):
    """A request in Jina's form: each input gets probabilities of the labels."""

    input: Contents = Field(description="images and texts")
    labels: Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    template: str = Field("{}", description="sentence in which {} stands for a label: a photo of a {}")

    def list_contents(self) -> list[ContentObject]:
        num_slots = self.template.count("{}")
        if not num_slots:
            raise RequestError("the template has no {} for the label", "template")
        # Before the sentences are made: a template of 10,000 slots and a label of 10,000 characters, both a small body,
        # make 100 MB.
        num_fixed = len(self.template) - len("{}") * num_slots
        check_num_characters(sum(num_fixed + num_slots * len(label) for label in self.labels))
        # A label is a text, even if it begins as a data: URL does.
        labels = [ContentObject(text=self.template.replace("{}", label)) for label in self.labels]
        return [*self.input, *labels]

    def make_answer(self, model: ErnieViL2, texts: Sequence[str | None], embeddings: np.ndarray) -> dict[str, Any]:
        num_inputs = len(self.input)
        ranking = model.rank_embeddings(embeddings[:num_inputs], embeddings[num_inputs:])
        data = []
        for number, row in enumerate(ranking.probabilities.tolist()):
            best = int(np.argmax(row))
            predictions = [{"label": label, "score": score} for label, score in zip(self.labels, row, strict=True)]
            # A calibrated model gives zeros to what matches no label.
            prediction = self.labels[best] if row[best] else None
            entry = {"object": "classification", "index": number, "prediction": prediction, "score": row[best]}
            data.append({**entry, "predictions": predictions})
        return {"data": data}


class _ModelQuery(NamedTuple):
    """The parts of a request that its encoding and its answer need, without its body and its image files."""

    parameters: ModelRequest
    served: ServedModel
    texts: list[str | None]  # as they were sent; None for an image
    inputs: list[Input]  # texts and pixels


def model_routes(models: ServedModels, reader: RequestReader) -> APIRouter:
    """Return the routes of `/v1` that need a model and nothing else."""
    router = APIRouter(dependencies=[Depends(check_parameter_names)])
    start = int(time.time())
    # Made once: a fingerprint is computed from all weights.
    descriptions = {served.name: _describe_model(served, start) for served in models}

    async def read(request: Request, body_class: type[ModelRequest], places: ExitStack) -> _ModelQuery:
        async with reader.receive(request) as body:
            parameters, contents = await reader.convert_json(len(body), _read_request, body_class, body)
            served = models.find(parameters.model)
            parameters.check(served.model)
            # Before images are decoded: their pixels take more memory than the body.
            places.enter_context(served.batcher.reserve(len(contents)))
            images = [content.image for content in contents]
            all_pixels = await reader.decode_all_pixels(images, served.model.preprocessing)
        inputs: list[Input] = []
        for content, pixels in zip(contents, all_pixels, strict=True):
            if pixels is not None:
                inputs.append(pixels)
            else:
                inputs.append(content.text or "")
        # The base64 of images is not held while they wait for the encoder.
        if any(image is not None for image in images):
            for value in parameters.list_contents():
                value.image = None
        return _ModelQuery(parameters, served, [content.text for content in contents], inputs)

    async def answer(request: Request, body_class: type[ModelRequest]) -> Response:
        with ExitStack() as places:
            # The body and the files of images end with `read`: only texts and pixels wait for the encoder.
            query = await read(request, body_class, places)
            embeddings = await query.served.batcher.encode_reserved(query.inputs)

        def write_answer() -> bytes:
            value = query.parameters.make_answer(query.served.model, query.texts, embeddings.rows)
            usage = {"prompt_tokens": embeddings.num_tokens, "total_tokens": embeddings.num_tokens}
            return encode_json({**value, "model": query.served.name, "usage": usage})

        content = await reader.convert_json(embeddings.rows.size, write_answer)
        return Response(content, media_type="application/json")

    @router.get("/models/", include_in_schema=False)  # not a model of an empty name
    @router.get("/models", summary="The models, in OpenAI's form")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(descriptions.values())}

    @router.get("/models/{name:path}", summary="A model, in OpenAI's form")
    async def describe_model(name: str) -> dict[str, Any]:
        return descriptions[models.find(name).name]

    @router.post(
        "/embeddings",
        summary="Embeddings of texts and images, in OpenAI's form",
        openapi_extra=describe_body(EmbeddingsRequest),
    )
    async def compute_embeddings(request: Request) -> Response:
        return await answer(request, EmbeddingsRequest)

    @router.post(
        "/rerank",
        summary="Texts and images ordered by their similarity to a text or an image, in Jina's form",
        openapi_extra=describe_body(RerankRequest),
    )
    async def rerank(request: Request) -> Response:
        return await answer(request, RerankRequest)

    @router.post(
        "/classify",
        summary="Probabilities of labels for images and texts (zero-shot classification), in Jina's form",
        openapi_extra=describe_body(ClassifyRequest),
    )
    async def classify(request: Request) -> Response:
        return await answer(request, ClassifyRequest)

    return router


def _describe_model(served: ServedModel, created: int) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": created,
        "owned_by": "ernie_vil2",
        "dimensions": list(served.model.widths),
        "fingerprint": served.model.fingerprint,
    }


def _read_request(body_class: type[ModelRequest], body: bytes) -> tuple[ModelRequest, list[Content]]:
    """Return the parameters of a request, and its texts and images.

    Raises:
        RequestError: there are too many texts and images, or too long texts, or an image is not in base64.
        RequestValidationError: the body has another form.
        ValueError: a text is too long.
    """
    parameters = parse_body(body_class, body)
    values = parameters.list_contents()
    if len(values) > MAX_INPUTS:
        raise RequestError(f"{len(values)} texts and images; a request may have {MAX_INPUTS}")
    contents = [_read_content(value) for value in values]
    texts = [content.text for content in contents if content.text is not None]
    check_total_length(texts)
    check_text_lengths(texts)
    return parameters, contents


def _read_content(value: ContentObject) -> Content:
    if (value.text is None) == (value.image is None):
        raise RequestError("an object is a text or an image: give it one of both")
    return Content(value.text, None if value.image is None else decode_base64(value.image))
