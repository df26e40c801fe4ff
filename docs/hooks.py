"""What MkDocs needs to make a site of pages that are written to be read in the repository too.

- The navigation is the list in index.md, so that the order of the guide is said once.
- Pages beside docs/ (the plugins', what changed, how to contribute) become pages of the site under their own paths, and
  links to them are rewritten: in the site docs/ is the root, and they lie below it.
- What only GitHub or the tests read is taken out: comments, and the file names of code blocks become their titles.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "plugins/*.md", "plugins/*/README.md")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.M | re.S)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
COMMENT = re.compile(r"^<!-- .*? -->$", re.M)
SECTION = re.compile(r"^## (?P<section>.+)$|^- \[(?P<title>[^\]]+)\]\((?P<page>[^)#]+)\)", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the navigation from index.md: its headings are sections, its list items pages."""
    nav: list[dict[str, Any]] = [{"The guide": "index.md"}]
    for match in SECTION.finditer((ROOT / "docs" / "index.md").read_text(encoding="utf-8")):
        if match["section"]:
            nav.append({match["section"]: []})
        else:
            nav[-1][next(iter(nav[-1]))].append({match["title"]: in_site("docs/index.md", match["page"])})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside docs/."""
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Return a page as MkDocs reads it."""
    source = page.file.src_uri
    outside = page.file.generated_by is not None
    parts = CODE.split(markdown)
    parts[::2] = [_prose(part, source if outside else f"docs/{source}", source) for part in parts[::2]]
    parts[1::2] = [re.sub(r"\A```(\w+) file=(\S+)", r'```\1 title="\2"', code) for code in parts[1::2]]
    return "".join(parts)


def _prose(text: str, path: str, source: str) -> str:
    """Rewrite the links of text between code; `path` is the page's in the repository, `source` in the site."""
    here = posixpath.dirname(source)
    text = LINK.sub(lambda match: f"]({posixpath.relpath(in_site(path, match[1]), here or '.')}", text)
    return COMMENT.sub("", text)


def in_site(page: str, link: str) -> str:
    """Return where in the site a link of a page leads; both are paths in the repository, the link from its page."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link)).removeprefix("docs/")
