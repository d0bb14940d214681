"""Tokens that somebody else made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, PositiveInt


@dataclass(frozen=True)
class TokensInput:
    """Tokens as they are, of `channels` channels. `tokens` and `queries` are the usual numbers of them."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    channels: PositiveInt
    tokens: PositiveInt = 512
    queries: PositiveInt = 128
    kind: Literal["tokens"] = "tokens"
