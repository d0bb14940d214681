"""A hook of mkdocs: links that leave docs/ lead to copies of the files, so that the site is complete in itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_IN_SITE = {"README.md": "index.md"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add what pages link to."""
    linked = {match[1] for page in files.documentation_pages() for match in _LINK.finditer(page.content_string)}
    for target in sorted(linked - _IN_SITE.keys()):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Lead links to the copies."""
    return _LINK.sub(lambda match: f"]({_IN_SITE.get(match[1], f'files/{match[1]}')}{match[2] or ''})", markdown)
