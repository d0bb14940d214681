"""The example of a threaded service, asked by many clients at once."""

from __future__ import annotations

import importlib.util
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perceiver_deploy import export_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("service") / "bundle"
    export_model("digits", bundle, raw_inputs=True, validate=False)
    spec = importlib.util.spec_from_file_location("service", EXAMPLES / "service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    with service.make_server(str(bundle), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def post(address, content):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, data=content, timeout=60) as response:
        return json.load(response)


def test_every_client_gets_the_class_of_its_image(address):
    seven = (EXAMPLES / "seven.png").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(address, seven), range(24)))
    assert all(answer == answers[0] for answer in answers)
    assert max(answers[0], key=answers[0].get) == "7"
    assert sum(answers[0].values()) == pytest.approx(1, abs=1e-5)  # rounding of ten float32


def test_what_is_no_image_is_refused_and_the_service_goes_on(address):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, b"no image")
    assert caught.value.code == 400
    assert "cannot identify image" in json.load(caught.value)["error"]
    assert post(address, (EXAMPLES / "seven.png").read_bytes())
