"""What no card may tell: secrets, and where files lie on someone's machine."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterable, Iterator

from renaissance.errors import CardError

# what stands between the name of a secret and the secret: a colon or "=", in JSON with quotes around both
_SAYS = r"[\"'`*]*\s*[:=][*\s]*[\"'`]*"
# what people write in place of a secret: <token>, ..., ****, $TOKEN, your-token, null
_PLACEHOLDER = r"[<$*.\[({]|(?i:your|none|null|true|false|xxx)"
# no word of a language: eight characters or more, of which three are digits
_RANDOM = r"(?=(?:[^\s\d]*\d){3})[A-Za-z0-9_\-+/=.!@#%&]{8,}"
# a word in quotes, or one that ends its line, as it does in notes that are made for oneself
_ALONE = r"(?:(?<=[\"'`])[^\s\"'`]{4,}[\"'`]|[^\s\"'`,;]{4,}[,;.]?\s*$)"
SECRETS = {
    "a token of the Hub": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "a key of AWS": r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b|aws_secret_access_key\s*[=:]\s*\S+",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a token of GitLab": r"\bglpat-[A-Za-z0-9_\-]{16,}",
    "an API key": r"\b(?:sk-[A-Za-z0-9_\-]{20,}|AIza[A-Za-z0-9_\-]{30,}|xox[abeoprs]-[A-Za-z0-9\-]{10,})",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a JSON web token": r"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.",
    "a password in an address": r"\b[a-z][a-z0-9+.\-]*://[^\s/:@]*:[^\s/@]+@",
    "a token in an address": (
        r"://[^\s?]*\?(?:[^\s]*&)?(?i:access_?token|token|api_?key|key|sig|signature|password|secret|x-amz-signature"
        r"|x-amz-credential|x-goog-signature)=[^\s&]+"
    ),
    "a password": (
        rf"(?i:(?<![A-Za-z])(?:password|passwd|passphrase|pwd)){_SAYS}(?!{_PLACEHOLDER})(?:{_RANDOM}|{_ALONE})"
    ),
    "a token or a key": (
        r"(?i:(?<![A-Za-z])(?:(?:(?:access|api|auth|client|hf|hub|private|secret|session)[_ \-]?)+key"
        r"|(?:[a-z]+[_ \-])?(?:token|secret)))"
        rf"{_SAYS}(?!{_PLACEHOLDER}){_RANDOM}"
        rf"|(?i:\bauthorization){_SAYS}(?i:bearer|basic|token)\s+[A-Za-z0-9]\S{{7,}}"
    ),
}
# a path begins where no word, no address and no closing tag of HTML goes on, and ends with a space, quote or bracket
_REST = r"[^\s\"'`<>|,;)\]]*"
PATHS = {
    "an absolute path": rf"(?<![\w./<~+*\-\\%}}\])])/(?=[A-Za-z0-9_.]){_REST}",
    "a path of Windows": (
        rf"(?<![A-Za-z0-9])[A-Za-z]:(?:\\{{1,2}}|/(?!/))[A-Za-z0-9_.~]{_REST}"
        rf"|(?<![\\\w])\\\\[A-Za-z0-9][\w.\-]*\\\w{_REST}"
    ),
    "a path of a home folder": (
        rf"(?<![\w/])~[\w.\-]*/[\w.]{_REST}|(?:\$\{{?(?:HOME|USERPROFILE)\b|%(?:USERPROFILE|HOMEPATH)%){_REST}"
    ),
    "an address of a local file": rf"\bfile://{_REST}",
}
_DISCLOSED = {what: re.compile(pattern) for what, pattern in (*SECRETS.items(), *PATHS.items())}
# keys of a recipe that say where files are
PLACES = frozenset({"path", "source", "folder", "tokenizer"})
# accounts that machines have by themselves, whose names say nothing of anyone
_NOBODY = frozenset({"root", "admin", "user", "ubuntu", "runner", "build", "data", "models", "runs", "app", "nobody"})


def disclosures(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that tells what it should not, and what that is, in words."""
    for number, line in enumerate(text.splitlines(), start=1):
        what = next((what for what, pattern in _DISCLOSED.items() if pattern.search(line)), None)
        if what is not None:
            yield number, what


def recipe_disclosures(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a recipe that tell what they should not: paths with the user's own name in them, too."""
    yield from disclosures(text)
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, value = line.partition(":")
        if key.strip(" -") in PLACES and names_user(value):
            yield number, "your user name in a path"


def check_private(
    text: str, name: str, found: Iterable[tuple[int, str]] | None = None, *, way_out: str = "Take it out."
) -> None:
    """Refuse a text, of the file `name`, that tells what it should not; what that is, is not repeated.

    Raises:
        CardError: naming the first such line.
    """
    line, what = next(iter(disclosures(text) if found is None else found), (0, ""))
    if what:
        raise CardError(f"{name}, line {line}, has {what}, which would be public. {way_out}")


def is_local(text: str) -> bool:
    """Return whether a text is, or holds, a path on someone's machine."""
    return any(_DISCLOSED[what].search(text) for what in PATHS)


def names_user(path: str) -> bool:
    """Return whether a path has the name of the user's account in it, where that name says anything of anyone."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a machine that knows no name for this account
        return False
    return name.lower() not in _NOBODY and name in re.split(r"[/\\'\"\s]+", path)


def shortened(text: str) -> str:
    """Return a text with the last name of each local path in place of the whole of it."""
    for what in PATHS:
        text = _DISCLOSED[what].sub(lambda found: last_name(found[0]), text)
    return text


def last_name(path: str) -> str:
    """Return the last name of a path of any system, which says nothing of where it lies."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "."
