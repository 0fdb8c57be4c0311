# SPDX-License-Identifier: Apache-2.0
"""A small Hub over HTTP: what huggingface_hub's client asks for when models are pushed and loaded, LFS included."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_ENDINGS = (".safetensors", ".ttf")


@dataclass
class Repo:
    """A repository: its commits are {path: (blob, whether it is an LFS file)}."""

    private: bool = False
    commits: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


class HubServer:
    """Serves on a free port of this machine until it is closed.

    Args:
        token: the one that may write, and read what is private.
    """

    def __init__(self, token: str = "hf_right") -> None:
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refused_uploads = 0
        """How many of the next LFS uploads are refused, as if the line went down."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        """A public repository that somebody pushed before."""
        commit = hashlib.sha1(repo.encode()).hexdigest()
        entries = {}
        for path, data in files.items():
            blob = hashlib.sha256(data).hexdigest()
            self.blobs[blob], entries[path] = data, (blob, path.endswith(LFS_ENDINGS))
        self.repos[repo] = Repo(commits={commit: entries}, branches={"main": commit})

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """{path: content} of a branch."""
        found = self.repos[repo]
        return {path: self.blobs[blob] for path, (blob, _) in found.commits[found.branches[branch]].items()}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Tests print nothing."""

    def _send(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self._send(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def _trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self._body()
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                if self.command in ("POST", "PUT") and not self._trusted and not path.startswith("/lfs/"):
                    return self._send(401, {"error": "Invalid username or password."})
                return action(self, body, **match.groupdict())
        return self._error(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815

    def _commit_of(self, repo: str, revision: str) -> tuple[Repo, str] | None:
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not self._trusted):
            self._error(404 if self._trusted else 401, "RepoNotFound")
            return None
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            self._error(404, "RevisionNotFound")
            return None
        return found, commit

    # What is asked

    def whoami(self, body: bytes) -> None:
        if not self._trusted:
            return self._send(401, {"error": "Invalid username or password."})
        return self._send(200, {"type": "user", "name": "org", "orgs": []})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'org'}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos:
            return self._send(409, url)
        repo = self.hub.repos[name] = Repo(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        first = hashlib.sha1(name.encode()).hexdigest()
        repo.commits[first], repo.branches["main"] = {}, first
        return self._send(200, url)

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def branch(self, body: bytes, repo: str, name: str) -> None:
        if found := self._commit_of(repo, json.loads(body or b"{}").get("startingPoint") or "main"):
            found[0].branches[name] = found[1]
            self._send(200, {})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if found := self._commit_of(repo, revision):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular",
                    "shouldIgnore": False,
                    "oid": found[0].commits[found[1]].get(file["path"], (None,))[0],
                }
                for file in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        objects: list[dict[str, Any]] = []
        for one in json.loads(body)["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            objects.append(one | ({} if one["oid"] in self.hub.blobs else upload))
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, body: bytes, oid: str) -> None:
        if self.hub.refused_uploads:
            self.hub.refused_uploads -= 1
            return self._send(403, {"error": "the line went down"})
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send(400, {"error": "wrong sha256"})
        self.hub.blobs[oid] = body
        return self._send(200)

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        found = self._commit_of(repo, revision)
        if not found:
            return
        files = dict(found[0].commits[found[1]])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                data = base64.b64decode(value["content"])
                blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                self.hub.blobs[blob] = data
                files[value["path"]] = (blob, False)
            elif entry["key"] == "lfsFile":
                files[value["path"]] = (value["oid"], True)
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        commit = hashlib.sha1(json.dumps([found[1], sorted(files.items())]).encode()).hexdigest()
        found[0].commits[commit] = files
        found[0].branches[revision] = commit
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self._send(200, {"success": True, "commitUrl": url, "commitOid": commit})

    def info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        if found := self._commit_of(repo, revision or "main"):
            siblings = [{"rfilename": path} for path in found[0].commits[found[1]]]
            self._send(
                200, {"id": repo, "sha": found[1], "siblings": siblings, "tags": [], "private": found[0].private}
            )

    def tree(self, body: bytes, repo: str, revision: str, folder: str | None = None) -> None:
        if found := self._commit_of(repo, revision):
            entries = [
                self._entry(path, blob, is_lfs)
                for path, (blob, is_lfs) in found[0].commits[found[1]].items()
                if folder is None or path.startswith(f"{folder}/")
            ]
            if folder is not None and not entries:
                return self._error(404, "EntryNotFound")
            self._send(200, entries)

    def paths_info(self, body: bytes, repo: str, revision: str) -> None:
        if found := self._commit_of(repo, revision):
            files = found[0].commits[found[1]]
            asked = json.loads(body)["paths"]
            self._send(200, [self._entry(path, *files[path]) for path in asked if path in files])

    def _entry(self, path: str, blob: str, is_lfs: bool) -> dict[str, Any]:
        size = len(self.hub.blobs[blob])
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob}
        return entry | ({"lfs": {"oid": blob, "size": size, "pointerSize": 130}} if is_lfs else {})

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if found := self._commit_of(repo, revision):
            if path not in found[0].commits[found[1]]:
                return self._error(404, "EntryNotFound")
            blob, is_lfs = found[0].commits[found[1]][path]
            data = self.hub.blobs[blob]
            linked = {"X_Linked_Etag": f'"{blob}"', "X_Linked_Size": str(len(data))} if is_lfs else {}
            length = {"Content_Length": str(len(data))}
            self._send(200, data, ETag=f'"{blob}"', X_Repo_Commit=found[1], **length, **linked)


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("POST",), rf"/api/models/{_REPO}/branch/(?P<name>.+)", _Handler.branch),
    (("POST",), rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>\w+)", _Handler.lfs_upload),
    (("POST",), rf"/api/models/{_REPO}/commit/(?P<revision>.+)", _Handler.commit),
    (("POST",), rf"/api/models/{_REPO}/paths-info/(?P<revision>.+)", _Handler.paths_info),
    (("GET",), rf"/api/models/{_REPO}", _Handler.info),
    (("GET",), rf"/api/models/{_REPO}/revision/(?P<revision>.+)", _Handler.info),
    (("GET",), rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
