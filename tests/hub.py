"""A Hugging Face hub on the loopback address, as far as huggingface_hub's real client asks."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Keeps what is uploaded in `files`: (repository, path) to bytes. Data sets are named datasets/OWNER/NAME there."""

    def __init__(self):
        self.files, self.asked = {}, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            return self.answer({"url": f"{self.server.url}/{name}", "id": name})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer({"files": modes})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[found[1], line["value"]["path"]] = content
            address = f"{self.server.url}/{found[1]}/commit/{COMMIT}"
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": address})
        return self.answer({"error": "not found"}, 404)

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/"):
            path = path.replace("/api/datasets/", "/api/models/datasets/")
        if found := re.fullmatch(r"/api/models/(.+?)/(revision|tree)/[^/]+", path):
            own = {name: content for (repository, name), content in self.server.files.items() if repository == found[1]}
            if not own:
                return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if found[2] == "tree":
                rows = [{"type": "file", "path": name, "size": len(own[name]), "oid": "0" * 40} for name in own]
                return self.answer(rows)
            siblings = [{"rfilename": name} for name in own]
            return self.answer({"id": found[1], "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        if found := re.fullmatch(r"/(.+?)/resolve/[^/]+/(.+)", path):
            content = self.server.files.get((found[1], found[2]))
            if content is not None:
                etag = hashlib.sha1(content).hexdigest()
                return self.answer(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        return self.answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def answer(self, body, status=200, headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass
