"""Files outside docs/ that pages link to are brought into the site, so that a link which is right for a visitor of the
repository is right here as well. Code becomes a page that shows it; what is not found stays a broken link, an error.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_DOCS = PurePosixPath("docs")
_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what pages link to, and what those pages link to."""
    wanted = [(_DOCS / file.src_uri, file.content_string) for file in files.documentation_pages()]
    wanted.append((_DOCS / "data.md", "[](../data/README.md)"))  # in the navigation
    while wanted:
        page, text = wanted.pop()
        for target in _targets(page, text):
            place = _place_of(target)
            source = _ROOT / target
            if _is_in_docs(target) or place in files.src_uris or not source.is_file():
                continue
            content = source.read_text(encoding="utf-8")
            if source.suffix == ".py":
                content = f"---\nsearch: {{exclude: true}}\n---\n# {target}\n\n```python\n{content}```\n"
            else:
                wanted.append((target, content))
            files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, /, *, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Links as they lead within the site."""
    uri = PurePosixPath(page.file.src_uri)
    here = uri if page.file.generated_by else _DOCS / uri

    def moved(match: re.Match[str]) -> str:
        place = _place_of(PurePosixPath(normpath(here.parent / match[1])))
        return relpath(place, uri.parent)

    return _LINK.sub(moved, markdown)


def _targets(page: PurePosixPath, text: str) -> Iterator[PurePosixPath]:
    for match in _LINK.finditer(text):
        yield PurePosixPath(normpath(page.parent / match[1]))


def _is_in_docs(path: PurePosixPath) -> bool:
    return path.is_relative_to(_DOCS)


def _place_of(path: PurePosixPath) -> str:
    """Where a file of the repository is in the site."""
    if _is_in_docs(path):
        return str(path.relative_to(_DOCS))
    if path == PurePosixPath("README.md"):
        return "index.md"
    return f"{path}.md" if path.suffix == ".py" else str(path)
