"""A threaded service: POST an image to it, and it answers with the classes as JSON. The bundle takes raw pixels.

perceiver-deploy export digits --raw-inputs -o digits-raw.bundle
python service.py digits-raw.bundle 8000
curl --data-binary @seven.png http://127.0.0.1:8000
"""

from __future__ import annotations

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from perceiver_deploy import load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.errors import InputError
from perceiver_deploy.runtimes.session import Session

LARGEST = 10_000_000
"""Bytes that an image may have."""


def make_server(bundle: str, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; all its threads share one session."""
    opened = Bundle.open(bundle)
    session, labels = load(opened, threads=1), opened.manifest.labels

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if not 0 < length <= LARGEST:
                self._answer(413, {"error": f"The image has {length} bytes; expected 1 to {LARGEST}."})
                return
            try:
                self._answer(200, classify(session, self.rfile.read(length), labels))
            except (InputError, OSError) as error:  # the latter is no image, or a truncated one
                self._answer(400, {"error": str(error)})

        def _answer(self, status: int, document: object) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def classify(session: Session, content: bytes, labels: tuple[str, ...] | None) -> dict[str, float]:
    """Probability of each class of an image file."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    logits = session.run({"image_uint8": pixels[None]})["logits"][0]
    shares = np.exp(logits - logits.max())
    names = labels or [str(index) for index in range(len(shares))]
    return {name: float(share) for name, share in zip(names, shares / shares.sum(), strict=True)}


if __name__ == "__main__":
    with make_server(sys.argv[1], int(sys.argv[2])) as server:
        server.serve_forever()
