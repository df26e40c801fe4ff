"""Nothing private gets out."""

from __future__ import annotations

from pathlib import Path

import pytest

from renaissance.card import card_of, check_card, shorten_paths, write_card
from renaissance.card.private import disclosures
from renaissance.errors import CardError
from renaissance.manifest import read_manifest, verify_files
from renaissance.recipe import load_recipe
from tests.card.cases import edit_json, with_data

TOKEN = "hf_" + "aB3" * 10

SECRETS = {
    "token of the Hub": TOKEN,
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a1B2" * 9,
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "password in an address": "https://me:hunter2@example.org/data",
    "token in an address": "https://example.org/data.tar?part=1&token=abc123",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.x",
    "password": "password: hunter2",
    "password in JSON": '{"passwd": "correct-horse", "user": 1}',
    "password of an environment": "DB_PASSWORD=s3cr3t99",
    "token": "token: 8f3a9c71d2e4",
    "token in bold": "**Token:** `9a8b7c6d5e4f3a2b`",
    "key": "API_KEY = '0123456789abcdef0123456789abcdef'",
    "header": "curl -H 'Authorization: Bearer abcdefgh12'",
}

PLACES = ["/home/ada/coco", "see `/mnt/data`", "C:\\Users\\ada\\coco", r"\\server\share\coco", "~/coco", "file:///x"]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_below_the_mark_is_refused_and_not_repeated(secret: str, model: Path) -> None:
    with (model / "README.md").open("a") as card:
        card.write(f"\nDownload with {secret}\n")
    number = len((model / "README.md").read_text().splitlines())
    for call in (check_card, card_of):
        with pytest.raises(CardError, match=r"^README.md, line \d+, has a.* would be public") as caught:
            call(model)
        assert secret not in str(caught.value)
    with pytest.raises(CardError, match=f"line {number},"):
        check_card(model)


@pytest.mark.parametrize("place", PLACES)
def test_a_local_path_is_refused(place: str, model: Path) -> None:
    with (model / "README.md").open("a") as card:
        card.write(f"\nData: {place}\n")
    with pytest.raises(CardError, match=r"path|local file"):
        check_card(model)


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/org/name/resolve/main/config.json",
        "and/or, 3/4, <br/>, </details>, hf_hub_download, data/coco, ../coco, ./run",
        "path: data/coco",
        "| a | b |",
        "sha256: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "ratio: 1:2, s3://bucket/key, C: a letter",
        "password: <ask us>, token: $HF_TOKEN, api_key=..., secret: your-token, token=None",
        "The secret: pretrain for longer. The password is not needed. Key: patches, tokens: 196.",
        '"mask_token": "[MASK]", "pad_token_id": 0, "max_tokens": 512, "key": "image-2", "tokens": 12345678,',
        "pooling: the class token: a learned vector; monkey: banana123",
    ],
)
def test_what_is_public_is_not_refused(line: str) -> None:
    assert list(disclosures(line)) == []


def test_a_local_path_in_the_recipe_is_refused_and_shortened_on_request(model: Path) -> None:
    with_data(model, {"kind": "prepared", "path": "/home/ada/corpora/coco"})
    assert "the prepared corpus `coco`" in write_card(model).read_text()
    line = (model / "recipe.yaml").read_text().splitlines().index("  path: /home/ada/corpora/coco") + 1
    with pytest.raises(CardError, match=rf"^recipe.yaml, line {line}, has an absolute path.*--shorten-paths"):
        check_card(model)
    assert shorten_paths(model) == ["coco"]
    assert load_recipe(model / "recipe.yaml").dump()["data"]["path"] == "coco"
    verify_files(model, read_manifest(model))
    check_card(model)
    assert shorten_paths(model) == []


def test_the_users_name_in_a_path_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "adalovelace")
    with_data(model, {"kind": "prepared", "path": "scratch/adalovelace/coco"})
    write_card(model)
    with pytest.raises(CardError, match="your user name in a path"):
        check_card(model)
    assert shorten_paths(model) == ["coco"]
    check_card(model)


def test_a_local_path_in_the_scores_is_refused_and_shortened_on_request(model: Path) -> None:
    skipped = ["/home/ada/coco/7.jpg cannot be decoded", "'C:\\data\\8.jpg' is empty"]
    edit_json(model / "scores.json", lambda scores: scores.update(skipped=skipped))
    assert "left out: 2 notes in scores.json" in write_card(model).read_text()
    with pytest.raises(CardError, match=r"^scores.json, line \d+, has an absolute path"):
        check_card(model)
    assert shorten_paths(model) == ["7.jpg cannot be decoded", "'8.jpg' is empty"]
    check_card(model)


def test_a_secret_in_the_recipe_is_refused(model: Path) -> None:
    with_data(model, {"kind": "stream", "source": f"https://example.org/{TOKEN}/x.tar"})
    write_card(model, repo=None)
    with pytest.raises(CardError, match=r"^recipe.yaml, line \d+, has a token of the Hub") as caught:
        check_card(model)
    assert TOKEN not in str(caught.value)
