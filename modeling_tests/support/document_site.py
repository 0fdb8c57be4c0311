# SPDX-License-Identifier: Apache-2.0
"""A small web site with a PDF, a page of HTML, an address that leads away, and one that leads nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from document_samples import pdf_file


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200 if self.path != "/none" else 404)
        self.send_header("Content-Type", "application/pdf" if self.path == "/report" else "text/html")
        self.end_headers()
        self.wfile.write(pdf_file(["Fetched."]) if self.path == "/report" else b"<h1>A page</h1>")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def document_site() -> Iterator[str]:
    """Its address."""
    server = HTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
