"""A package index on the loopback, as pip reads one, that serves one file as told."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from perceiver_deploy.data.fetch.sources import PublicFile

PACKAGE, VERSION = "tiny-data", "1.0"
WHEEL = "tiny_data-1.0-py3-none-any.whl"
METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n"


class PackageIndex:
    """What is served, and how often it was: `content` may be changed, `announced` is the length that is stated."""

    def __init__(self, file: str, content: bytes) -> None:
        self.file = file
        self.content = content
        self.announced = len(content)
        self.downloads = 0
        self.url = ""
        self.source = describe(file, content, "pypi")


def describe(file: str, content: bytes, registry: str) -> PublicFile:
    digest = hashlib.sha256(content).hexdigest()
    return PublicFile("tiny", registry, PACKAGE, VERSION, file, digest, len(content), "CC0-1.0", "*.txt")


def wheel_bytes(payload=b"x" * 200_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny_data/hello.txt", payload)
        archive.writestr("tiny_data-1.0.dist-info/METADATA", METADATA)
        archive.writestr(
            "tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


def sdist_bytes(setup: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (("setup.py", setup), ("PKG-INFO", METADATA)):
            member = tarfile.TarInfo(f"tiny-data-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@contextmanager
def serve(file: str, content: bytes):
    index = PackageIndex(file, content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            page = self.path.endswith("/")
            body = f'<a href="/{index.file}">{index.file}</a>'.encode() if page else index.content
            index.downloads += not page
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
            self.send_header("Content-Length", str(len(body) if page else index.announced))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
