"""Between the Hub and folders: `download` brings a saved model into the cache, `upload` makes one commit of a folder.

Only files that a saved model can hold travel, either way. A download is pinned to a commit, and verified by the
SHA-256 of its manifest. What fails for the moment is tried again; what fails for good is one line with a next step.
"""

from renaissance.hub.downloading import commit_of, download
from renaissance.hub.talking import check_name, hub_url, no_progress_bars, retried, told
from renaissance.hub.uploading import Upload, upload

__all__ = [
    "Upload",
    "check_name",
    "commit_of",
    "download",
    "hub_url",
    "no_progress_bars",
    "retried",
    "told",
    "upload",
]
