"""A Hub for tests: what the `huggingface_hub` client asks for, on the standard library, in memory, on loopback.

    with HubServer(tokens={"secret": "org"}) as hub:
        HfApi(endpoint=hub.endpoint, token="secret").create_repo("org/name")

Faults are set on the server: `fail` answers with a status, `cut` closes the connection in the middle of a body,
`corrupt` turns one bit of a body. Each takes the number of times that it happens. `forge` answers for files with other
headers, or another body, as a server might that wishes harm. `hold` stops in the middle of a body: `held` is set then,
and all else waits for `released`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

PIPELINE_TAGS = (
    "feature-extraction",
    "image-classification",
    "image-text-to-text",
    "text-classification",
    "visual-question-answering",
    "zero-shot-image-classification",
)
TIME = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """A file of a commit; `lfs`: kept as large file, so that its oid is its SHA-256."""

    data: bytes
    lfs: bool

    @property
    def git_oid(self) -> str:
        stored = self.data
        if self.lfs:
            oid = hashlib.sha256(self.data).hexdigest()
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.data).hexdigest() if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    oid: str
    message: str
    parent: str | None
    files: Mapping[str, Blob]


@dataclass
class Repo:
    """A repository: its commits in order, its branches and its tags."""

    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, message: str, files: Mapping[str, Blob]) -> Commit:
        parent = self.branches.get(branch)
        tree = sorted((path, blob.git_oid) for path, blob in files.items())
        oid = hashlib.sha1(repr((self.name, parent, message, tree, len(self.commits))).encode()).hexdigest()
        self.commits[oid] = Commit(oid, message, parent, dict(files))
        self.branches[branch] = oid
        return self.commits[oid]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" matches `pattern`."""

    kind: str
    pattern: str
    times: int
    status: int = 0
    fraction: float = 0.5
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class HubServer:
    """A Hub on a free port of loopback, served by a thread. `tokens` maps a token to the name of its user."""

    def __init__(self, *, tokens: Mapping[str, str] | None = None, lfs_from: int = 4096) -> None:
        self.tokens = dict(tokens or {})
        self.readers: set[str] = set()  # tokens that may only read
        self.organisations: dict[str, dict[str, str]] = {}  # of each user: name -> role
        self.lfs_from = lfs_from
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.held, self.released = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, pattern: str, *, status: int, times: int = 1) -> None:
        self.faults.append(Fault("fail", pattern, times, status=status))

    def cut(self, pattern: str, *, fraction: float = 0.5, times: int = 1) -> None:
        self.faults.append(Fault("cut", pattern, times, fraction=fraction))

    def corrupt(self, pattern: str, *, times: int = 1) -> None:
        self.faults.append(Fault("corrupt", pattern, times))

    def hold(self, pattern: str) -> None:
        self.faults.append(Fault("hold", pattern, 1))

    def forge(
        self, pattern: str, *, headers: Mapping[str, str], body: bytes | None = None, status: int = 0, times: int = 99
    ) -> None:
        self.faults.append(Fault("forge", pattern, times, status=status, headers=headers, body=body))

    def take_fault(self, request: str, *kinds: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, pattern: str) -> list[Request]:
        """Return the requests so far whose "METHOD path" matches."""
        return [request for request in self.requests if re.search(pattern, str(request))]


def card_fault(content: str) -> str:
    """Return what is wrong with the metadata of a card, as the Hub would; empty where nothing is."""
    block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    metadata = yaml.safe_load(block[1]) if block else {}
    if not isinstance(metadata, dict):
        return "metadata must be a mapping"
    if metadata.get("license") not in (None, "apache-2.0", "mit", "cc-by-4.0", "other"):
        return '"license" must be one of [apache-2.0, mit, ...]'
    if metadata.get("license") == "other" and not {"license_name", "license_link"} <= set(metadata):
        return '"license_name" and "license_link" are required where "license" is "other"'
    if not all(re.fullmatch("[a-z]{2,3}|code|multilingual", one) for one in _listed(metadata.get("language"))):
        return '"language" must be an ISO 639 code'
    if not all(re.fullmatch(r"[\w.-]+/[\w.-]+", one) for one in _listed(metadata.get("base_model"))):
        return '"base_model" must be a model id'
    if metadata.get("base_model_relation") not in (None, "finetune", "adapter", "merge", "quantized"):
        return '"base_model_relation" is unknown'
    if metadata.get("pipeline_tag") not in (None, *PIPELINE_TAGS):
        return '"pipeline_tag" is unknown'
    results = [result for model in _listed(metadata.get("model-index")) for result in model["results"]]
    if not all({"task", "dataset", "metrics"} <= set(result) for result in results):
        return '"model-index" results need task, dataset and metrics'
    if not all({"type", "name"} <= set(result["dataset"]) for result in results):
        return '"model-index" needs the type and name of each dataset'
    if not all({"type", "value"} <= set(metric) for result in results for metric in result["metrics"]):
        return '"model-index" needs the type and value of each metric'
    return ""


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


class _AnswerError(Exception):
    """Ends the handling of a request with this status."""

    def __init__(self, status: int, body: object = None, code: str | None = None) -> None:
        self.status = status
        self.body = body if body is not None else {"error": code or str(status)}
        self.headers = {"X-Error-Code": code} if code else {}


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REVISION = r"(?P<revision>[^/]+)"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.payload = self._read_body()
        request = Request(self.command, unquote(url.path), dict(self.headers))
        self.hub.requests.append(request)
        try:
            fault = self.hub.take_fault(str(request), "fail")
            if fault is not None:
                raise _AnswerError(fault.status)
            for method, pattern, action in _ROUTES:
                found = re.fullmatch(pattern, url.path)
                if found and self.command in method.split("|"):
                    with self.hub.lock:
                        parts = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that was killed
                            action(self, **parts)
                    return
            raise _AnswerError(404, code="EntryNotFound")
        except _AnswerError as answer:
            self._json(answer.body, status=answer.status, headers=answer.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815  # names that http.server asks for

    # --- reading and answering --------------------------------------------------------------------------------------

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(self, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _user(self) -> str | None:
        """Return whose token came along, if any."""
        token = self._token()
        if not token:
            return None
        user = self.hub.tokens.get(token)
        if user is None:
            raise _AnswerError(401)
        return user

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may(self, user: str | None, owner: str) -> bool:
        """Return whether a user is this owner, or may write for it."""
        return user is not None and (user == owner or self.hub.organisations.get(user, {}).get(owner) == "write")

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        user = self._user()
        repo = self.hub.repos.get(name)
        mine = self._may(user, name.split("/")[0])
        if repo is None or (repo.private and not mine):
            raise _AnswerError(404 if user else 401, code="RepoNotFound")
        if write and not mine:
            raise _AnswerError(403 if user else 401)
        return repo

    def _commit(self, repo: str, revision: str) -> Commit:
        commit = self._repo(repo).at(revision)
        if commit is None:
            raise _AnswerError(404, code="RevisionNotFound")
        return commit

    # --- what can be asked ------------------------------------------------------------------------------------------

    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise _AnswerError(401)
        orgs = [{"name": name, "roleInOrg": role} for name, role in self.hub.organisations.get(user, {}).items()]
        role = "read" if self._token() in self.hub.readers else "write"
        access = {"displayName": "test", "role": role}
        self._json(
            {"type": "user", "name": user, "orgs": orgs, "auth": {"type": "access_token", "accessToken": access}}
        )

    def create_repo(self) -> None:
        asked = json.loads(self.payload)
        user = self._user()
        owner = asked.get("organization") or user
        name = f"{owner}/{asked['name']}"
        url = f"{self.hub.endpoint}/{name}"
        if not self._may(user, str(owner)):
            raise _AnswerError(403 if user else 401)
        if name in self.hub.repos:
            raise _AnswerError(409, {"error": "You already created this model repo", "url": url})
        repo = Repo(name, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)})
        self.hub.repos[name] = repo
        self._json({"url": url, "name": name})

    def validate_yaml(self) -> None:
        fault = card_fault(json.loads(self.payload)["content"])
        if fault:
            raise _AnswerError(400, {"errors": [{"message": fault}]})
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self._repo(repo, write=True)
        commit = self._commit(repo, revision)
        answers = []
        for asked in json.loads(self.payload)["files"]:
            path = asked["path"]
            large = path.endswith(".safetensors") or asked["size"] >= self.hub.lfs_from
            there = commit.files.get(path)
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": there.etag if there else None,
                }
            )
        self._json({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self._repo(repo, write=True)
        objects = []
        for asked in json.loads(self.payload)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.large:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/_lfs/{asked['oid']}"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.payload).hexdigest() != oid:
            raise _AnswerError(400)
        self.hub.large[oid] = self.payload
        self._json({})

    def commit(self, repo: str, revision: str) -> None:
        target = self._repo(repo, write=True)
        if revision not in target.branches:
            raise _AnswerError(404, code="RevisionNotFound")
        head = target.commits[target.branches[revision]]
        files = dict(head.files)
        message = ""
        for line in self.payload.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                    if value.get("parentCommit") not in (None, head.oid):
                        raise _AnswerError(412)
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    files[value["path"]] = Blob(self.hub.large[value["oid"]], lfs=True)
                case "deletedFile":
                    del files[value["path"]]
                case "deletedFolder":
                    files = {path: blob for path, blob in files.items() if not path.startswith(value["path"])}
        made = target.commit(revision, message, files)
        url = f"{self.hub.endpoint}/{repo}/commit/{made.oid}"
        self._json({"success": True, "commitOid": made.oid, "commitUrl": url, "pullRequestUrl": None})

    def info(self, repo: str, revision: str = "main") -> None:
        commit = self._commit(repo, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        private = self.hub.repos[repo].private
        self._json({"id": repo, "modelId": repo, "sha": commit.oid, "private": private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        entries: list[dict[str, Any]] = []
        for path, blob in sorted(self._commit(repo, revision).files.items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.etag, "size": len(blob.data), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def listing(self, repo: str, revision: str, path: str = "") -> None:
        """List what is in a folder of a data set, with folders; all that is below it where that is asked for."""
        files = self._commit(repo, revision).files
        root = f"{path}/" if path else ""
        whole = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for name, blob in sorted(files.items()):
            if not name.startswith(root):
                continue
            steps = name.removeprefix(root).split("/")
            for depth in range(1, len(steps)):
                folder = root + "/".join(steps[:depth])
                if whole or depth == 1:
                    entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40}
            if whole or len(steps) == 1:
                entries[name] = {"type": "file", "path": name, "size": len(blob.data), "oid": blob.git_oid}
        if path and not entries:
            raise _AnswerError(404, code="EntryNotFound")
        self._json(list(entries.values()))

    def paths_info(self, repo: str, revision: str) -> None:
        """Answer for the files that are asked for; a folder is told without what is in it."""
        wanted = json.loads(self.payload)["paths"]
        files = self._commit(repo, revision).files
        entries: list[dict[str, Any]] = []
        for path in wanted:
            if path in files:
                blob = files[path]
                entries.append({"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid})
            elif any(name.startswith(f"{path}/") for name in files):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40})
        self._json(entries)

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise _AnswerError(404, code="EntryNotFound")
        data, start, end = blob.data, 0, len(blob.data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(end, int(asked[2] or end) + 1)
        name = f"{self.command} {unquote(urlsplit(self.path).path)}"
        fault = self.hub.take_fault(name, "cut", "corrupt", "hold") if self.command == "GET" else None
        if fault is not None and fault.kind == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        forged = self.hub.take_fault(name, "forge") or Fault("", "", 0)
        body = data[start:end] if forged.body is None else forged.body
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{blob.etag}"',
            "X-Linked-Etag": f'"{blob.etag}"',
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
            **({"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if asked else {}),
            "Content-Length": str(len(body)),
            **forged.headers,
        }
        self.send_response(forged.status or (206 if asked else 200))
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.close_connection = self.close_connection or bool(forged.headers)  # what it says of its length may be a lie
        if self.command == "HEAD":
            return
        if fault is not None and fault.kind == "hold":
            self.wfile.write(body[: len(body) // 2])
            self.hub.held.set()
            self.hub.released.wait()
            self.close_connection = True
            return
        if fault is not None and fault.kind == "cut":
            body = body[: int(len(body) * fault.fraction)]
            self.close_connection = True
        self.wfile.write(body)

    def create_ref(self, repo: str, kind: str, revision: str) -> None:
        target = self._repo(repo, write=True)
        asked = json.loads(self.payload or b"{}")
        refs = target.branches if kind == "branch" else target.tags
        name = revision if kind == "branch" else asked["tag"]
        start = self._commit(repo, asked.get("startingPoint", "main") if kind == "branch" else revision)
        if name in refs:
            raise _AnswerError(409)
        refs[name] = start.oid
        self._json({})

    def delete_ref(self, repo: str, kind: str, revision: str) -> None:
        target = self._repo(repo, write=True)
        refs = target.branches if kind == "branch" else target.tags
        if refs.pop(revision, None) is None:
            raise _AnswerError(404, code="RevisionNotFound")
        self._json({})

    def refs(self, repo: str) -> None:
        target = self._repo(repo)

        def listed(refs: Mapping[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in refs.items()]

        self._json({"branches": listed(target.branches, "heads"), "converts": [], "tags": listed(target.tags, "tags")})

    def history(self, repo: str, revision: str) -> None:
        listed: list[dict[str, Any]] = []
        at: Commit | None = self._commit(repo, revision)
        while at is not None:
            listed.append({"id": at.oid, "title": at.message, "message": "", "date": TIME, "authors": []})
            at = self.hub.repos[repo].commits.get(at.parent or "")
        self._json(listed)


_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create_repo),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", f"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"/{_REPO}\\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", f"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
    ("GET", f"/api/models/{_REPO}", _Handler.info),
    ("GET", f"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", f"/api/models/{_REPO}/tree/{_REVISION}", _Handler.tree),
    ("GET", f"/api/models/{_REPO}/refs", _Handler.refs),
    ("GET", f"/api/models/{_REPO}/commits/{_REVISION}", _Handler.history),
    ("POST", f"/api/models/{_REPO}/(?P<kind>branch|tag)/{_REVISION}", _Handler.create_ref),
    ("DELETE", f"/api/models/{_REPO}/(?P<kind>branch|tag)/{_REVISION}", _Handler.delete_ref),
    ("GET|HEAD", f"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
    ("GET", f"/api/datasets/{_REPO}", _Handler.info),
    ("GET", f"/api/datasets/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", f"/api/datasets/{_REPO}/tree/{_REVISION}(?:/(?P<path>.+))?", _Handler.listing),
    ("POST", f"/api/datasets/{_REPO}/paths-info/{_REVISION}", _Handler.paths_info),
    ("GET|HEAD", f"/datasets/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]


def use(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client at a server, as HF_ENDPOINT and HF_HUB_DISABLE_XET would if they were set before its import."""
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no-token-here")
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
