"""What the tests of this folder do where something of the machine is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

NETWORK = "the network: "
"""How the reason begins where the network is missing."""


def missing(reason: str) -> NoReturn:
    """Skip; in CI, where the network is to be had, its lack is a failure."""
    if os.environ.get("CI") and reason.startswith(NETWORK):
        pytest.fail(reason)
    pytest.skip(reason)
