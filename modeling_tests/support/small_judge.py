# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible endpoint that says what it is told to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class SmallJudge:
    """
    `says`: what it answers, one after the other, the last one for ever. `status`: of its answers. `asked`: model and
    prompt of each request.
    """

    def __init__(self) -> None:
        self.says: list[str] = []
        self.status = 200
        self.asked: list[dict[str, str]] = []
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(judge._answer(request)).encode()
                self.send_response(judge.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        (message,) = request["messages"]
        self.asked.append({"model": request["model"], "content": message["content"]})
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"], "choices": [choice]}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
