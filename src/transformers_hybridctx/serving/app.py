# SPDX-License-Identifier: Apache-2.0
"""The server's endpoints: OpenAI's chat completions, files and models; health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from threading import Event
from typing import Annotated, Any

from anyio import to_thread
from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from openai.types import FileDeleted, Model
from starlette.exceptions import HTTPException
from transformers import AsyncTextIteratorStreamer

from ..pipeline_long_doc_qa import LongDocQAPipeline
from .answerers import ChatAnswerer
from .body_limit import BodyLimit
from .chats import PipelineAnswerer
from .door import Door
from .file_store import FileStore
from .limits import BusyError, HungUpError, WorkQueue, error_response, what_is_wrong
from .messages import MessageReader
from .metrics import CountedResponses, Metrics
from .settings import ServerSettings
from .streaming import ReasoningSplitter
from .uploads import StorageFullError, UnknownFileError, UploadedDocument
from .wire import ChatRequest, Completion

_HANG_UP_SECONDS = 0.2  # between two looks at whether a client is still there


def create_app(answering: LongDocQAPipeline | ChatAnswerer, settings: ServerSettings) -> FastAPI:
    """
    An OpenAI-compatible server for one checkpoint, as an ASGI application: `uvicorn.run(create_app(pipe, settings))`.

    Args:
        answering: a pipeline, or what else answers chats, such as [`VllmAnswerer`].

    Endpoints: `POST /v1/chat/completions`, `GET /v1/models`, `POST`, `GET` and `DELETE /v1/files`, `GET /health`,
    `GET /metrics`. docs/serving.md says what a message may hold.
    """
    # without pages about itself, which would load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_request_bytes,
        max_seconds=settings.max_request_seconds,
        refusal=error_response,
    )
    answerer = answering if isinstance(answering, ChatAnswerer) else PipelineAnswerer(answering, settings)
    files = FileStore(settings.max_stored_bytes, settings.max_files)
    metrics = Metrics()
    # an upload has not to wait until others have their answers
    queue, uploads = (WorkQueue(settings.concurrency, settings.max_waiting) for _ in range(2))
    metrics.watch(waiting=lambda: queue.size + uploads.size, reading_bytes=lambda: answerer.kept_bytes)
    reader = MessageReader(files.document, UploadedDocument.of_address, answerer.num_tokens, settings.draw_over)
    app.add_middleware(Door, api_key=settings.api_key, hosts=settings.hosts, refusal=error_response)
    app.add_middleware(CountedResponses, metrics=metrics)
    _add_errors(app)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        if body.model != settings.model_name:
            raise HTTPException(404, f"there is no model {body.model!r:.80} here; there is {settings.model_name!r}")
        generation = body.generation(settings.max_new_tokens)
        cancelled = Event()
        completion = Completion(settings.model_name)

        def work(streamer: Any = None) -> dict[str, Any]:
            if cancelled.is_set():
                raise HungUpError
            answer = answerer.answer(reader.read(body.messages), body.hybridctx, generation, cancelled, streamer)
            metrics.answered(answer)
            return answer

        if not body.stream:
            answer = await _unless_hung_up(request, cancelled, _in_turn(queue, work))
            return JSONResponse(completion.whole(answer, answer["reasoning"], answer["answer"]))
        events = _events(
            queue, work, answerer.processor.tokenizer, cancelled, completion, body.stream_options.include_usage
        )
        # what is wrong with a request shows before anything is sent
        first = await _unless_hung_up(request, cancelled, anext(events, ""))

        async def all_events() -> AsyncIterator[str]:
            try:
                yield first
                async for event in events:
                    yield event
            finally:
                cancelled.set()
                await events.aclose()

        return StreamingResponse(all_events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(settings.model_name)]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != settings.model_name:
            raise HTTPException(404, f"there is no model {name!r:.80} here; there is {settings.model_name!r}")
        return JSONResponse(_model(name))

    @app.post("/v1/files")
    async def upload(file: UploadFile, purpose: Annotated[str, Form(max_length=64)] = "user_data") -> Response:
        data = await file.read()

        def work() -> Any:
            return files.add(data, file.filename or "document.txt", purpose)

        stored = await _in_turn(uploads, work)
        return JSONResponse(stored.model_dump(mode="json"))

    @app.get("/v1/files")
    async def list_files() -> Response:
        return JSONResponse(
            {"object": "list", "data": [one.model_dump(mode="json") for one in files.all()], "has_more": False}
        )

    @app.get("/v1/files/{file_id}")
    async def file(file_id: str) -> Response:
        return JSONResponse(files.listed(file_id).model_dump(mode="json"))

    @app.delete("/v1/files/{file_id}")
    async def delete_file(file_id: str) -> Response:
        files.delete(file_id)
        return JSONResponse(FileDeleted(id=file_id, deleted=True, object="file").model_dump(mode="json"))

    @app.get("/health")
    async def health() -> Response:
        return PlainTextResponse("ok")

    @app.get("/metrics")
    async def all_metrics() -> Response:
        return metrics.response()

    return app


def _model(name: str) -> dict[str, Any]:
    return Model(id=name, created=0, object="model", owned_by="hybridctx").model_dump(mode="json", exclude_none=True)


async def _in_turn(queue: WorkQueue, work: Callable[[], Any]) -> Any:
    async with queue.turn() as threads:
        return await to_thread.run_sync(work, limiter=threads)


async def _unless_hung_up(request: Request, cancelled: Event, work: Awaitable[Any]) -> Any:
    """The work's result; generation ends early where the client has gone, so that the next one gets its turn."""

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(_HANG_UP_SECONDS)
        cancelled.set()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except BaseException:  # the server stops, too
        cancelled.set()
        raise
    finally:
        watcher.cancel()


async def _events(
    queue: WorkQueue,
    work: Callable[[Any], dict[str, Any]],
    tokenizer: Any,
    cancelled: Event,
    completion: Completion,
    with_usage: bool,
) -> AsyncGenerator[str]:
    """Server-sent events of an answer as it is generated; the one that ends it says what it rests on."""
    streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    async def answered() -> dict[str, Any]:
        try:
            return await _in_turn(queue, partial(work, streamer))
        finally:
            streamer.on_finalized_text("", stream_end=True)  # also where nothing was generated

    task = asyncio.create_task(answered())
    try:
        splitter = ReasoningSplitter()
        delta = {"role": "assistant", "content": ""}
        async for text in streamer:
            for kind, said in splitter.feed(text):
                yield completion.chunk(delta | {kind: said})
                delta = {}
        try:
            answer = await task
        except HungUpError:
            return
        for kind, said in splitter.finish():
            yield completion.chunk(delta | {kind: said})
            delta = {}
        yield completion.chunk(delta, answer["finish_reason"], hybridctx=answer["hybridctx"])
        if with_usage:
            yield completion.usage_chunk(answer)
        yield "data: [DONE]\n\n"
    finally:
        cancelled.set()


def _add_errors(app: FastAPI) -> None:
    """Errors in OpenAI's form."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        said = str(error.detail)
        if error.status_code == 404 and "endpoint" not in request.scope:
            asked = f"{request.method} {request.url.path}"
            said = f"there is no {asked:.80} here; POST /v1/chat/completions answers, and /v1/files takes documents"
        return error_response(error.status_code, said, **(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return error_response(400, what_is_wrong(error))

    @app.exception_handler(ValueError)
    async def refused(request: Request, error: ValueError) -> Response:
        return error_response(400, str(error))

    @app.exception_handler(TypeError)
    async def mistyped(request: Request, error: TypeError) -> Response:
        return error_response(400, str(error))

    @app.exception_handler(UnknownFileError)
    async def missing(request: Request, error: UnknownFileError) -> Response:
        return error_response(404, str(error))

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return error_response(429, str(error), "rate_limit_error", retry_after="1")

    @app.exception_handler(HungUpError)
    async def hung_up(request: Request, error: HungUpError) -> Response:
        return error_response(499, "nobody waits for the answer any more")

    @app.exception_handler(StorageFullError)
    async def full(request: Request, error: StorageFullError) -> Response:
        return error_response(507, str(error))


__all__ = ["create_app"]
