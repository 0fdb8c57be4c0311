# SPDX-License-Identifier: Apache-2.0
"""The page's server: an ASGI application for one person's machine, where each browser sees its own desk only."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal
from weakref import ref

from anyio import to_thread
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from ..cli.options import given
from ..documents.recognition import tesseract
from ..pipeline_long_doc_qa import LongDocQAPipeline
from ..planning.policies.registry import resolve_text_policy
from ..serving.body_limit import BodyLimit
from ..serving.limits import BusyError, WorkQueue, what_is_wrong
from ..serving.settings import ServerSettings
from ..serving.uploads import StorageFullError
from .asking import Context, Desk, Question, StoppedError
from .file_notes import heard_notes
from .guarding import OwnPageOnly
from .pages import looked_at, page_picture
from .sessions import GivenAnswer, NotHereError, OpenDocument, Session, SessionStore, new_id
from .views import answer_view, cost_view, document_view, in_words

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LONGEST_QUESTION = 20_000  # characters
_SILENCE_SECONDS = 1.0


async def _session_of(request: Request, response: Response) -> Session:
    """The session of the browser's cookie; a new one gets a new cookie."""
    name = f"hybridctx-{request.url.port or 80}"  # cookies know hosts, but no ports
    given = request.cookies.get(name)
    secret, session = request.app.state.sessions.of(given)
    if secret != given:
        response.set_cookie(name, secret, httponly=True, samesite="strict")
    return session


Own = Annotated[Session, Depends(_session_of)]


class Asked(BaseModel):
    """
    The body of a question, and of the wish to know its cost.

    Attributes:
        budget: longest prompt in tokens; None: the checkpoint's own, or what the document's pages need beyond it.
        chat, turn: where the page shows the answer; given back with it.
        before: ids of the answers that the model is told of.
    """

    model_config = ConfigDict(extra="forbid")

    question: str = Field(default="", max_length=_LONGEST_QUESTION)
    context: Context = "hybrid"
    budget: int | None = Field(default=None, ge=1)
    policy: str | None = None
    chat: str = Field(default="", max_length=64)
    turn: str = Field(default="", max_length=64)
    before: list[str] = Field(default_factory=list, max_length=100)
    grounding: Literal["quote", "strings", "none"] | None = None
    repair: bool = False
    abstain: bool = False


def create_desk(
    pipe: LongDocQAPipeline,
    settings: ServerSettings,
    shared: Iterable[OpenDocument] = (),
    has_history: bool = False,
    file_options: dict[str, str] | None = None,
) -> FastAPI:
    """
    The page for one checkpoint, as an ASGI application for 127.0.0.1.

    Args:
        pipe: answers.
        settings: bounds; those of the API alone are passed over.
        shared: documents that are there for whoever opens the page.
        has_history: whether the model is told what was said before, unless the reader says otherwise.
        file_options: `layout`, `encoding` and `ocr` of the files that are opened, unless the reader says otherwise.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_request_bytes,
        max_seconds=settings.max_request_seconds,
        refusal=_error,
    )
    # a name that somebody else's server resolves to this machine is not this page's
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_middleware(OwnPageOnly)
    _add_errors(app)
    static_files = {file.name: file for file in files(__package__).joinpath("static").iterdir()}
    desk, queue = Desk(pipe, settings), WorkQueue(settings.concurrency, settings.max_waiting)
    sessions = SessionStore(settings.max_stored_bytes, settings.max_files, shared)
    app.state.sessions = sessions

    async def in_turn(work: Callable[[], Any]) -> Any:
        async with queue.turn() as threads:
            return await to_thread.run_sync(work, limiter=threads)

    @app.get("/")
    @app.get("/static/{name}")
    async def static(name: str = "desk.html") -> Response:
        if name not in static_files:
            raise HTTPException(404, "There is nothing here.")
        file = static_files[name]
        return Response(file.read_bytes(), media_type=_KINDS[Path(name).suffix])

    @app.get("/api/desk")
    async def state(session: Own) -> dict[str, Any]:
        processor = pipe.processor
        return {
            "model": _name_of(pipe),
            "purpose": pipe.model.config.purpose,
            "budget": processor.default_budget.get("max_context_tokens"),
            "policy": resolve_text_policy(processor.default_text_policy).name,
            "max_bytes": settings.max_request_bytes,
            "history": has_history,
            "files": file_options or {},
            "documents": [document_view(document) for document in session.documents.values()],
            "answers": [given.shown for given in session.answers.values()],
        }

    @app.post("/api/documents")
    async def open_document(
        request: Request,
        session: Own,
        name: Annotated[str, Query(max_length=255)],
        layout: Literal["typeset", "source", "auto"] = "typeset",
        pages: Annotated[str | None, Query(max_length=200)] = None,
        encoding: Annotated[str | None, Query(max_length=40)] = None,
        ocr: Annotated[str | None, Query(max_length=100)] = None,
    ) -> dict[str, Any]:
        data = await request.body()
        sessions.check_room(len(data))
        password = _password(request.headers.get("x-password"))
        chosen = {"layout": layout, **given(pages=pages or None, encoding=encoding or None, password=password)}

        def work() -> OpenDocument:
            with heard_notes() as notes:
                document = desk.opened(data, name, **chosen, **given(ocr=tesseract(ocr) if ocr else None))
            document.notes = tuple(notes)
            return document

        document = await in_turn(work)
        if await request.is_disconnected():
            raise HTTPException(499, "Whoever opened this file has stopped it.")
        sessions.check_room(len(data))
        session.documents[document.id] = document
        return document_view(document)

    @app.delete("/api/documents/{document_id}")
    async def close_document(document_id: str, session: Own) -> dict[str, bool]:
        session.remove(document_id)
        return {"closed": True}

    @app.post("/api/documents/{document_id}/plan")
    async def plan(document_id: str, asked: Asked, session: Own) -> dict[str, Any]:
        document = session.document(document_id)
        budget, found = await in_turn(partial(desk.plans, document, _question_of(asked, session)))
        return {"budget": budget, "costs": [cost_view(*each) for each in found.items()]}

    @app.post("/api/documents/{document_id}/ask")
    async def ask(document_id: str, asked: Asked, session: Own) -> Response:
        document = session.document(document_id)
        question = _question_of(asked, session)
        if not question.words:
            raise ValueError("the question is empty: say what is to be found in the document")
        place = {"chat": asked.chat, "turn": asked.turn}
        events = _events(in_turn, desk, session, document, question, place)
        return StreamingResponse(events, media_type="text/event-stream")

    @app.get("/api/documents/{document_id}/pages/{number}")
    async def page(document_id: str, number: int, session: Own) -> Response:
        document = session.document(document_id)
        data = await to_thread.run_sync(page_picture, document.laid_out, number - 1)
        return Response(data, media_type="image/png")

    @app.get("/api/answers/{answer_id}/heat")
    async def heat(answer_id: str, session: Own) -> dict[str, Any]:
        given = session.answer(answer_id)
        if not given.shown["has_pages"]:
            raise ValueError("the model was given no pages with this question: there is nothing that it looked at")
        if given.answer["plan"].latents:
            raise ValueError("latents stand for a part of this document: where the model looked is not on pages alone")
        reading = None if given.reading is None else given.reading()
        if reading is None:
            raise ValueError("what the model read is not kept in memory: ask again to see where it looks")
        return {"pages": await in_turn(partial(looked_at, pipe, reading, given.question))}

    return app


def _question_of(asked: Asked, session: Session) -> Question:
    before = [session.answer(answer_id) for answer_id in asked.before]
    held = asked.model_dump(include={"grounding", "repair", "abstain"}, exclude_none=True)
    return Question(
        asked.question.strip(),
        asked.context,
        asked.budget,
        asked.policy,
        tuple((given.question, given.answer["answer"]) for given in before),
        tuple(held.items()),
    )


def _password(header: str | None) -> str | None:
    """A file's password, which a header can hold in base64 only. ValueError where it does not."""
    if not header:
        return None
    try:
        return base64.b64decode(header, validate=True).decode()
    except ValueError as error:
        raise ValueError(
            f"the header x-password is not the base64 of UTF-8 ({error}): it is c2VjcmV0 for the password secret"
        ) from error


async def _events(
    in_turn: Callable[[Callable[[], Any]], Any],
    desk: Desk,
    session: Session,
    document: OpenDocument,
    question: Question,
    place: dict[str, str],
) -> AsyncIterator[str]:
    """Server-sent events of an answer: how far it is, what is said, and at last what it rests on, or what is wrong."""
    loop, cancelled = asyncio.get_running_loop(), Event()
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def emit(event: dict[str, Any] | None) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    async def work() -> None:
        try:
            emit({"event": "progress", "stage": "waiting", "done": 0, "total": None})
            answer, reading = await in_turn(partial(desk.answer, document, question, cancelled, emit))
            shown = answer_view(new_id(), question, document, answer) | place
            session.keep(
                GivenAnswer(document, question.words, answer, shown, None if reading is None else ref(reading))
            )
            emit({"event": "answer", "answer": shown})
        except StoppedError:
            pass
        except (ValueError, TypeError, BusyError) as error:
            emit({"event": "error", "message": in_words(str(error))})
        except Exception:
            emit({"event": "error", "message": "Something went wrong here; the terminal says what."})
            raise
        finally:
            emit(None)

    task = asyncio.create_task(work())
    try:
        while True:
            try:
                event = await asyncio.wait_for(events.get(), _SILENCE_SECONDS)
            except TimeoutError:
                yield ": still at work\n\n"  # which fails where nobody listens any more
                continue
            if event is None:
                break
            yield f"data: {json.dumps(event)}\n\n"
        await task
    finally:
        cancelled.set()  # whoever asked is gone, or has the answer


def _name_of(pipe: LongDocQAPipeline) -> str:
    name = pipe.model.config._name_or_path or type(pipe.model).__name__
    return BUNDLED_CHECKPOINT.name if str(name) == str(BUNDLED_CHECKPOINT) else str(name)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _add_errors(app: FastAPI) -> None:
    """Errors as sentences."""
    statuses: Sequence[tuple[type[Exception], int]] = (
        (ValueError, 400),
        (TypeError, 400),
        (IndexError, 404),
        (NotHereError, 404),
        (BusyError, 429),
        (StorageFullError, 507),
    )
    for kind, status in statuses:

        async def told(request: Request, error: Exception, status: int = status) -> Response:
            return _error(status, in_words(str(error)))

        app.add_exception_handler(kind, told)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return _error(400, in_words(what_is_wrong(error)))


__all__ = ["Asked", "create_desk"]
