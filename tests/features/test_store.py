from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from renaissance.api import Features, TextInput, TokenizerFacts, VisionInput
from renaissance.errors import FeatureStoreError, OutputError
from renaissance.features.keys import content_digest
from renaissance.features.store import FeatureStore, build_or_open
from renaissance.toolkit.canonical import encode_canonical

WORDS = ["a", "a red cup", "two red cups", "a", "the longest of all of these captions", "cup"]
DIGESTS = [content_digest(caption) for caption in WORDS]
KEY = "ab" * 32


class Processor:
    facts = TokenizerFacts(vocabulary=64, pad_id=0, mask_id=None, special_ids=(0,), max_tokens=16)


class TinyText(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(64, width)
        self.processor = Processor()
        self.calls = 0

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        self.calls += 1
        tokens = self.words(inputs.token_ids)
        return Features(tokens, inputs.mask, tokens.mean(1))


class TinyVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 5, 4, 4)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        tokens = self.patches(inputs.pixels).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def tokenize(captions: Sequence[str]) -> TextInput:
    longest = max(len(caption.split()) for caption in captions)
    ids = torch.zeros(len(captions), longest, dtype=torch.int64)
    for row, caption in enumerate(captions):
        for column, word in enumerate(caption.split()):
            ids[row, column] = 1 + len(word)
    return TextInput(ids, ids > 0)


def load(rows: Sequence[int]) -> TextInput:
    return tokenize([WORDS[row] for row in rows])


def build(folder: Path, tower: TinyText | None = None) -> FeatureStore:
    chosen = (tower or TinyText()).eval()
    return build_or_open(folder, chosen, DIGESTS, load, key=KEY, about={"é": [1]}, samples_a_step=2)


def computed(captions: Sequence[str]) -> Features:
    return encode_canonical(TinyText().eval(), tokenize(captions))


def pixels(rows: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(row)) for row in rows])


@pytest.mark.parametrize("captions", [WORDS, WORDS[1:3], ["cup"], ["cup", "cup", "a red cup"]])
def test_reading_gives_what_the_tower_computes_bit_for_bit(tmp_path: Path, captions: list[str]) -> None:
    store = build(tmp_path)
    read, direct = store.read([store.rows[content_digest(caption)] for caption in captions]), computed(captions)
    assert torch.equal(read.tokens, direct.tokens)
    assert torch.equal(read.mask, direct.mask)
    assert read.pooled is not None
    assert direct.pooled is not None
    assert torch.equal(read.pooled, direct.pooled)


def test_images_are_stored_bit_for_bit(tmp_path: Path) -> None:
    tower, digests = TinyVision().eval(), [content_digest(str(row)) for row in range(11)]
    store = build_or_open(tmp_path, tower, digests, lambda rows: VisionInput(pixels(rows)), key=KEY, about={})
    read = store.read([10, 3])
    assert torch.equal(read.tokens, encode_canonical(tower, VisionInput(pixels([10, 3]))).tokens)
    assert read.mask.all()
    assert read.pooled is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    store = build(tmp_path, TinyText().to(dtype))
    assert store.read([0]).tokens.dtype == dtype
    assert torch.equal(store.read([0]).tokens[0, 0], TinyText().to(dtype).words.weight[2])


def test_a_dtype_that_a_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match=r"cannot hold torch\.float64.*Train without the store"):
        build(tmp_path, TinyText().double())
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    store = build(tmp_path)
    with safe_open(store.path, framework="pt") as file:
        assert set(file.keys()) == {"digests", "offsets", "pooled", "tokens"}
        assert file.get_tensor("tokens").shape == (1 + 3 + 3 + 7 + 1, 6)
        assert torch.equal(file.get_tensor("tokens")[:1], store.read([0]).tokens[0])


def test_equal_samples_are_computed_once(tmp_path: Path) -> None:
    store = build(tmp_path)
    assert len(store) == len(set(WORDS)) == len(store.rows)


def test_a_second_call_does_not_run_the_tower(tmp_path: Path) -> None:
    build(tmp_path)
    second = TinyText()
    build(tmp_path, second)
    assert second.calls == 0


def test_a_read_is_a_copy(tmp_path: Path) -> None:
    store = build(tmp_path)
    store.read([0]).tokens.zero_()
    assert store.read([0]).tokens.any()


def test_a_pickled_store_is_a_path(tmp_path: Path) -> None:
    store = build(tmp_path)
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    assert torch.equal(pickle.loads(pickled).read([2]).tokens, store.read([2]).tokens)


def test_progress_ends_at_all_distinct_samples(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build_or_open(
        tmp_path,
        TinyText().eval(),
        DIGESTS,
        load,
        key=KEY,
        about={},
        progress=lambda done, total: told.append((done, total)),
        samples_a_step=2,
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match="cannot be read"):
        FeatureStore.open(tmp_path / "none.safetensors")


@pytest.mark.parametrize("lost", [1, 100, 10_000])
def test_a_truncated_file_is_refused(tmp_path: Path, lost: int) -> None:
    path = build(tmp_path).path
    os.truncate(path, max(path.stat().st_size - lost, 0))
    with pytest.raises(FeatureStoreError, match=r"is damaged: .* Delete .*: the next run builds it again"):
        build(tmp_path)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path).path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FeatureStoreError, match="bytes where its header promises"):
        FeatureStore.open(path)


def test_a_flipped_bit_of_header_or_index_is_refused_at_opening(tmp_path: Path) -> None:
    path = build(tmp_path).path
    whole = path.read_bytes()
    end = FeatureStore.open(path).sections["pooled"].start
    for position in range(0, end, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(FeatureStoreError):
            FeatureStore.open(path)


@pytest.mark.parametrize("name", ["pooled", "tokens"])
def test_a_flipped_bit_of_the_numbers_is_found_by_verify(tmp_path: Path, name: str) -> None:
    store = build(tmp_path)
    store.verify()
    whole, position = store.path.read_bytes(), store.sections[name].start + 5
    store.path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    with pytest.raises(FeatureStoreError, match=f"checksum of its {name} is wrong"):
        FeatureStore.open(store.path).verify()
    with pytest.raises(FeatureStoreError, match=f"checksum of its {name} is wrong"):
        build(tmp_path)


def test_a_renamed_store_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path).path
    path.rename(tmp_path / f"{'cd' * 32}.safetensors")
    with pytest.raises(FeatureStoreError, match="it was renamed"):
        build_or_open(tmp_path, TinyText().eval(), DIGESTS, load, key="cd" * 32, about={})


def test_a_failure_while_building_leaves_nothing(tmp_path: Path) -> None:
    def failing(rows: Sequence[int]) -> TextInput:
        if rows[0] > 1:
            raise KeyError("sample")
        return load(rows)

    with pytest.raises(KeyError):
        build_or_open(tmp_path, TinyText().eval(), DIGESTS, failing, key=KEY, about={}, samples_a_step=2)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_told_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    tower = TinyText()
    with pytest.raises(OutputError, match=r"need about 0\.0 GB.*train without the store"):
        build(tmp_path, tower)
    assert tower.calls == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def on_a_full_disk(path: Path, mode: str = "r") -> object:
        if path.name.endswith(".partial"):
            path.touch()
            return Path("/dev/full").open("wb")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(OutputError, match="is full"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        build(tmp_path / "file")


def test_tokens_masked_in_the_middle_are_refused(tmp_path: Path) -> None:
    def gappy(rows: Sequence[int]) -> TextInput:
        mask = torch.tensor([[True, False, True]] * len(rows))
        return TextInput(torch.ones(len(rows), 3, dtype=torch.int64), mask)

    with pytest.raises(FeatureStoreError, match="masked tokens before or between"):
        build_or_open(tmp_path, TinyText().eval(), DIGESTS, gappy, key=KEY, about={})


def test_what_killed_builds_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / f".{KEY}.0.partial", tmp_path / f".{KEY}.1.partial"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 7200,) * 2)
    build(tmp_path)
    assert not old.exists()
    assert young.exists()


SCRIPT = """
    import sys, time
    from pathlib import Path
    import torch
    from torch import nn
    from renaissance.api import Features, VisionInput
    from renaissance.features.keys import content_digest
    from renaissance.features.store import build_or_open

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, inputs, layers=()):
            tokens = inputs.pixels.flatten(2).transpose(1, 2) @ self.weight
            return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

    def load(rows):
        print(rows[0], flush=True)
        time.sleep(float(sys.argv[2]))
        return VisionInput(torch.full((len(rows), 3, 4, 4), float(rows[0])))

    digests = [content_digest(str(row)) for row in range(32)]
    build_or_open(Path(sys.argv[1]), Tower().eval(), digests, load, key="ab" * 32, about={}, samples_a_step=8)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_nothing_that_opens_and_races_end_well(tmp_path: Path) -> None:
    killed = start(tmp_path, 60.0)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "0\n"  # the build is under way
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    left = list(tmp_path.iterdir())
    assert [path.suffix for path in left] == [".partial"]
    with pytest.raises(FeatureStoreError):
        FeatureStore.open(left[0])

    racing = [start(tmp_path, 0.1) for _ in range(2)]
    for process in racing:
        process.communicate()
        assert process.returncode == 0
    store = FeatureStore.open(tmp_path / f"{KEY}.safetensors")
    store.verify()
    assert len(store) == 32
