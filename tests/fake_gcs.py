"""An emulator of Google Cloud Storage that keeps objects in memory.

The emulator supports the calls of the JSON API that gcsfs, tensorstore and google-cloud-storage make.
"""

import base64
import contextlib
import itertools
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

OBJECTS = (
    r"(/upload|/download|)/storage/v1/b/([^/]+)"
    r"(?:/o(?:/([^/]+)(?:/(?:(?:rewriteTo|copyTo)/b/([^/]+)|moveTo)/o/(.+))?)?)?/?"
)


class Store:
    """The buckets with their objects, and unfinished uploads."""

    def __init__(self, buckets):
        self.lock, self.generations = threading.RLock(), itertools.count(1700000000000001)
        self.buckets = {name: {} for name in buckets}  # bucket: {object name: (generation, bytes)}
        self.uploads, self.upload_ids = {}, itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    """A handler of HTTP requests to the emulator."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def send(self, code, body=b"", kind="application/json", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, code, message):
        self.send(
            code, {"error": {"code": code, "message": message, "errors": [{"reason": message, "message": message}]}}
        )

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def resource(self, bucket, name):
        generation, data = self.server.store.buckets[bucket][name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "id": f"{bucket}/{name}/{generation}",
            "etag": str(generation),
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def put(self, bucket, name, data, query):
        generation = self.server.store.buckets[bucket].get(name, (0,))[0]
        if not self.matches(generation, query):
            return self.error(412, "conditionNotMet")
        self.server.store.buckets[bucket][name] = (next(self.server.store.generations), data)
        self.send(200, self.resource(bucket, name))

    @staticmethod
    def matches(generation, query):
        return (
            int(query.get("ifGenerationMatch", generation)) == generation
            and int(query.get("ifGenerationNotMatch", -1)) != generation
        )

    def handle_one(self):
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        data = self.body()
        path = url.path
        with self.server.store.lock:
            buckets = self.server.store.buckets
            if match := re.fullmatch(OBJECTS, path):
                what, bucket, name, to_bucket, to_name = (unquote(x) if x else x for x in match.groups())
            elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/storageLayout", path):
                return self.send(
                    200,
                    {
                        "kind": "storage#storageLayout",
                        "bucket": match[1],
                        "location": "US",
                        "locationType": "multi-region",
                        "hierarchicalNamespace": {"enabled": False},
                    },
                )
            elif match := re.fullmatch(r"/([^/]+)/(.+)", path):  # XML API
                (bucket, name), what, to_name = map(unquote, match.groups()), "/download", None
            else:
                return self.error(404, f"no such call: {path}")
            if bucket not in buckets:
                return self.error(404, "The specified bucket does not exist.")
            objects = buckets[bucket]
            if what == "/upload":
                return self.upload(bucket, query, data)
            if name is None and re.search("/o/?$", path):
                return self.list(bucket, query)
            if name is None:
                return self.send(
                    200,
                    {
                        "kind": "storage#bucket",
                        "name": bucket,
                        "id": bucket,
                        "location": "US",
                        "storageClass": "STANDARD",
                        "locationType": "multi-region",
                    },
                )
            if name not in objects:
                return self.error(404, f"No such object: {bucket}/{name}")
            generation, content = objects[name]
            if not self.matches(generation, query):
                return self.send(304 if "ifGenerationNotMatch" in query else 412)
            if to_name is not None:
                if not to_bucket:  # moveTo
                    del objects[name]
                    objects[to_name] = (next(self.server.store.generations), content)
                    return self.send(200, self.resource(bucket, to_name))
                buckets[to_bucket][to_name] = (next(self.server.store.generations), content)
                return self.send(
                    200,
                    {
                        "kind": "storage#rewriteResponse",
                        "done": True,
                        "totalBytesRewritten": str(len(content)),
                        "objectSize": str(len(content)),
                        "resource": self.resource(to_bucket, to_name),
                    },
                )
            if self.command == "DELETE":
                del objects[name]
                return self.send(204)
        if what != "/download" and query.get("alt") != "media":
            return self.send(200, self.resource(bucket, name))
        headers = {
            "x_goog_generation": str(generation),
            "x_goog_stored_content_length": str(len(content)),
            "x_goog_storage_class": "STANDARD",
            "ETag": str(generation),
        }
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = match.groups()
            start = int(first) if first else max(0, len(content) - int(last))
            end = min(int(last), len(content) - 1) if first and last else len(content) - 1
            if start >= len(content):
                return self.send(416, Content_Range=f"bytes */{len(content)}")
            return self.send(
                206,
                content[start : end + 1],
                "application/octet-stream",
                Content_Range=f"bytes {start}-{end}/{len(content)}",
                **headers,
            )
        self.send(200, content, "application/octet-stream", **headers)

    def upload(self, bucket, query, data):
        store = self.server.store
        if "upload_id" in query:
            upload = store.uploads[query["upload_id"]]
            match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\*|\d+)", self.headers.get("Content-Range", ""))
            if match and match[1]:
                upload["data"][int(match[1]) :] = data
            elif not match:
                upload["data"][:] = data
            if match and (match[3] == "*" or int(match[3]) > len(upload["data"])):
                received = {"Range": f"bytes=0-{len(upload['data']) - 1}"} if upload["data"] else {}
                return self.send(308, **received)
            return self.put(bucket, upload["name"], bytes(upload["data"]), upload["query"])
        if query["uploadType"] == "resumable":
            name = query.get("name") or json.loads(data)["name"]
            number = str(next(store.upload_ids))
            store.uploads[number] = {"name": name, "query": query, "data": bytearray()}
            host = self.headers["Host"]
            where = f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return self.send(200, Location=where)
        if query["uploadType"] == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode().strip(b"'")
            parts = [
                part.split(b"\r\n\r\n" if b"\r\n\r\n" in part else b"\n\n", 1)[1]
                for part in data.split(b"--" + boundary)[1:3]
            ]
            cut = lambda part: part[:-2] if part.endswith(b"\r\n") else part[:-1]
            return self.put(bucket, query.get("name") or json.loads(parts[0])["name"], cut(parts[1]), query)
        return self.put(bucket, query["name"], data, query)

    def list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], []
        names = sorted(self.server.store.buckets[bucket], key=str.encode)
        limit, token = int(query.get("maxResults", 1000)), query.get("pageToken", "")
        after = base64.b64decode(token).decode() if token else ""
        result = {"kind": "storage#objects"}
        for name in names:
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if query.get("endOffset") and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            cut = rest.find(delimiter) if delimiter else -1
            folder = prefix + rest[: cut + len(delimiter)] if cut >= 0 else None
            if after and (name <= after or (folder and after.startswith(folder))):
                continue
            if folder in prefixes:
                last = name
                continue
            if len(items) + len(prefixes) == limit:
                result["nextPageToken"] = base64.b64encode(last.encode()).decode()
                break
            last = name
            if folder:
                prefixes.append(folder)
            if not folder or (query.get("includeTrailingDelimiter") == "true" and folder == name):
                items.append(self.resource(bucket, name))
        self.send(
            200, {**result, **({"items": items} if items else {}), **({"prefixes": prefixes} if prefixes else {})}
        )

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = handle_one


class Server(ThreadingHTTPServer):
    """An HTTP server with a `Store`."""

    daemon_threads, request_queue_size = True, 128

    def handle_error(self, *_):  # ignores closed connections
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


@contextlib.contextmanager
def serve(*buckets):
    """Run a server with some buckets, and yield its URL and {bucket: {name: (generation, content)}}."""
    server = Server(("127.0.0.1", 0), Handler)
    server.store = Store(buckets)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.store.buckets
    finally:
        server.shutdown()
        server.server_close()
