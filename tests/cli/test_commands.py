from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import renaissance
from renaissance.cli.app import app, data, features, study, zoo
from renaissance.recipe import json_schema
from renaissance.shorthand import parse_spec

if TYPE_CHECKING:
    from tests.cli.conftest import AddPlugin, Cli

HEAVY = ("torch", "transformers", "timm", "open_clip", "datasets", "huggingface_hub", "torchvision", "accelerate")
COMMANDS = (
    "list",
    "show",
    "check",
    "plugins",
    "conform",
    "new-plugin",
    "schema",
    "run",
    "evaluate",
    "reproduce",
    "import",
    "publish",
    "cost",
    "freeze-map",
    "ledger",
    "card",
    "export",
    "explain",
    "embed",
    "rank",
)
DATA_COMMANDS = ("prepare", "layouts", "world", "doctor", "emoji")
FEATURES_COMMANDS = ("build", "info", "verify", "gc")
STUDY_COMMANDS = ("list", "plan", "run", "status", "report")
ZOO_COMMANDS = ("publish",)
CANNOT_DESCRIBE = """
from renaissance.api import BackboneEntry, hookimpl

@hookimpl
def register_backbones():
    return [BackboneEntry(name="eye", summary="", factory="x:y", modality="vision", describe=lambda options: 1 // 0)]
"""
BROKEN = "raise RuntimeError('no such luck')"
CLASHING = """
from renaissance.api import FusionHeadEntry, hookimpl

@hookimpl
def register_fusion_heads():
    return [FusionHeadEntry(name=name, summary="A test.", factory="x:y") for name in ("lxmert", "ours")]
"""
INTERRUPTED = "raise KeyboardInterrupt"
BUGGY = """
from renaissance.api import BackboneEntry, Options, hookimpl

class Odd(Options):
    @classmethod
    def model_json_schema(cls, *arguments, **named):
        raise ValueError("oops")

@hookimpl
def register_backbones():
    return [BackboneEntry(name="odd", summary="Odd.", factory="odd:build", modality="text", options=Odd)]
"""


# --- list, show, plugins --------------------------------------------------------------------------------------------


def test_list_shows_each_component_with_its_kind_and_summary(cli: Cli) -> None:
    result = cli("list")
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("vit-base ")]
    assert "vision backbone" in line
    assert "ImageNet-21k" in line
    assert all(name in result.out for name in ("timm:<model>", "lxmert", "retrieval"))


def test_list_of_one_kind_shows_nothing_else(cli: Cli) -> None:
    components = cli("list", "--kind", "task", "--json").json()["components"]
    assert {component["kind"] for component in components} == {"task"}
    assert {"mlm", "itm", "itc", "retrieval"} <= {component["name"] for component in components}


def test_show_of_a_backbone_that_cannot_describe_itself_names_its_plugin(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("odd", CANNOT_DESCRIBE)
    for command in (("show", "odd:eye"), ("check", "odd:eye + bert-base")):
        result = cli(*command)
        assert result.code == 6
        assert result.err.startswith("renaissance: The plugin 'odd' cannot describe 'eye' (ZeroDivisionError: ")


def test_list_tells_of_a_plugin_that_failed_and_still_lists(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("unlucky", BROKEN)
    result = cli("list")
    assert result.code == 0
    assert "vit-base" in result.out
    assert "Plugins that failed: unlucky" in result.err


def test_plugins_shows_why_one_failed(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("unlucky", BROKEN)
    result = cli("plugins", "--json")
    found = {plugin["name"]: plugin for plugin in result.json()["plugins"]}
    assert result.code == 0
    assert found["unlucky"]["failure"] == "RuntimeError: no such luck"
    assert (found["unlucky"]["distribution"], found["unlucky"]["version"]) == ("renaissance-plugin-unlucky", "1.2")
    assert found["renaissance"]["api"] == "renaissance.v1"
    assert len(found["renaissance"]["entries"]) > 20


def test_plugins_tells_of_names_that_several_offer(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("first", CLASHING)
    add_plugin("second", CLASHING)
    clashes = {clash["name"]: clash for clash in cli("plugins", "--json").json()["clashes"]}
    assert clashes["lxmert"]["offered_as"] == ["lxmert", "first:lxmert", "second:lxmert"]
    assert (clashes["lxmert"]["bare"], clashes["ours"]["bare"]) == ("lxmert", None)
    told = cli("plugins").err
    assert "'lxmert' stays the built-in; say 'first:lxmert' or 'second:lxmert'." in told
    assert "'ours' alone is an error; say 'first:ours' or 'second:ours'." in told


def test_plugins_as_a_table_has_the_failure_too(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("unlucky", BROKEN)
    assert "failed: RuntimeError: no such luck" in cli("plugins").out


def test_show_has_options_with_types_defaults_and_descriptions_and_what_is_known(cli: Cli) -> None:
    lines = cli("show", "bert-base").out.splitlines()
    assert any(line.split()[:2] == ["trained", "on"] and "Wikipedia" in line for line in lines)
    assert any(line.startswith("layers ") and "integer, at least 1" in line and "12" in line for line in lines)


def test_show_of_a_shared_name_shows_both_backbones(cli: Cli) -> None:
    shown = cli("show", "open-clip:ViT-B-32@openai", "--json").json()["components"]
    assert [component["modality"] for component in shown] == ["vision", "text"]


def test_show_of_a_library_without_a_model_asks_for_one(cli: Cli) -> None:
    result = cli("show", "timm")
    assert result.code == 0
    assert "name it: 'timm:<model>'" in result.out


def test_show_says_what_is_known_at_build_only(cli: Cli) -> None:
    (shown,) = cli("show", "timm:of_a_newer_timm", "--json").json()["components"]
    assert shown["facts"]["width"] == {"unknown": "checked at build"}


def test_show_hides_the_options_that_the_name_fills(cli: Cli) -> None:
    (shown,) = cli("show", "timm:resnet18", "--json").json()["components"]
    assert "model" not in shown["options"]
    assert shown["options"]["image_size"]["type"] == "integer, above 0, or null"


@pytest.mark.parametrize("name", ["lxmert", "itm", "dual"])
def test_show_describes_fusion_heads_and_tasks(cli: Cli, name: str) -> None:
    (shown,) = cli("show", name, "--json").json()["components"]
    assert shown["facts"]
    assert shown["options"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit-bse", "Nothing installed is called 'vit-bse'. Did you mean 'vit-base'? See 'renaissance list'."),
        ("foo:bar", "Try: pip install renaissance-plugin-foo"),
    ],
)
def test_show_of_an_unknown_name_says_what_to_do(cli: Cli, name: str, told: str) -> None:
    result = cli("show", name)
    assert result.code == 2
    assert told in result.err


# --- check, schema --------------------------------------------------------------------------------------------------


def test_check_prints_the_canonical_spec(cli: Cli) -> None:
    result = cli("check", "tiny-vit+tiny-bert[:2], random both, frozen text", "--task", "mlm")
    assert result.code == 0
    canonical = result.out.splitlines()[0]
    assert canonical == ("tiny-vit + tiny-bert(layers=2), two-tower, random vision, random text, frozen text, lxmert")
    assert parse_spec(canonical).architecture == "two-tower"


def test_check_says_what_is_frozen_and_what_the_build_will_tell(cli: Cli) -> None:
    result = cli("check", "timm:of_a_newer_timm + bert-base, frozen vision, frozen text[:2]")
    assert result.out.count("frozen vision") == result.out.count("frozen text[:2]") == 2  # in the line, in the table
    several = cli(
        "check", "timm:of_a_newer_timm + bert-base, frozen vision[:3], frozen vision[:-2], frozen text.embeddings"
    )
    assert "frozen vision[:3], frozen vision[:-2]" in several.out
    assert "frozen text.embeddings" in several.out
    assert "checked at build: width" in result.out


def test_check_takes_the_spec_that_its_json_gives(cli: Cli) -> None:
    first = cli("check", "tiny-vit + tiny-bert, random both", "--task", "itm", "--json").json()
    again = cli("check", json.dumps(first["spec"]), "--json").json()
    assert again["canonical"] == first["canonical"]
    assert [task["name"] for task in first["tasks"]] == ["itm"]
    assert "false_share" in first["tasks"][0]["options"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bert-base + vit-base"], "The vision backbone comes first: 'vit-base + bert-base'."),
        (["vit-base + bert-base(layer=2)"], "Did you mean 'layers'?"),
        (["tiny-vit(width=96, heads=3) + tiny-bert"], "'tiny-vit' has pretrained weights of its default sizes alone"),
        (["vit-base + bert-base", "--task", "retrieval"], "needs one of: itc"),
        (["vit-base + bert-base[2:6]"], "cannot be built yet"),
    ],
)
def test_a_spec_that_cannot_be_built_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str], told: str) -> None:
    result = cli("check", *arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert result.err.startswith("renaissance: ")
    assert result.err.count("\n") == 1


def test_schema_is_that_of_the_recipe(cli: Cli) -> None:
    assert cli("schema", "recipe").json() == json_schema()
    assert "TwoTowerSpec" in cli("schema", "spec", "--json").json()["$defs"]


# --- the border -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chek"], "No such command 'chek'."),
        (["list", "--kind", "backbones"], "'--kind'"),
        (["show"], "Missing argument 'name'"),
        (["run", "demo", "--seed", "x"], "'--seed'"),
        (["run", "demo", "--nope"], "--nope"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str], told: str) -> None:
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert result.err.count("\n") == 1


def test_no_command_shows_the_help_and_exits_with_2(cli: Cli) -> None:
    result = cli()
    assert result.code == 2
    assert "renaissance: " not in result.err


def test_debug_shows_the_traceback_wherever_it_stands(cli: Cli) -> None:
    for arguments in (("--debug", "check", "bert-base + vit-base"), ("check", "bert-base + vit-base", "--debug")):
        result = cli(*arguments)
        assert result.code == 2
        assert "Traceback" in result.err


def test_ctrl_c_exits_with_130(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("slow", INTERRUPTED)
    assert cli("list").code == 130


def test_an_error_that_is_not_ours_exits_with_1_and_asks_for_a_report(cli: Cli, add_plugin: AddPlugin) -> None:
    add_plugin("buggy", BUGGY)
    result = cli("show", "buggy:odd")
    assert result.code == 1
    assert "please report it" in result.err
    assert "Traceback" not in result.err


def test_version_is_printed(cli: Cli) -> None:
    result = cli("--version")
    assert (result.code, result.out) == (0, f"renaissance {renaissance.__version__}\n")


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        *(f"data {name}" for name in DATA_COMMANDS),
        *(f"features {name}" for name in FEATURES_COMMANDS),
        *(f"study {name}" for name in STUDY_COMMANDS),
        "zoo",
        *(f"zoo {name}" for name in ZOO_COMMANDS),
    ],
)
def test_the_help_of_each_command_has_an_example(cli: Cli, command: str) -> None:
    result = cli(*command.split(), "--help")
    assert result.code == 0
    assert f"Example: renaissance {command}" in result.out


def test_every_command_is_tested_here() -> None:
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    assert {command.name for command in data.registered_commands} == set(DATA_COMMANDS)
    assert {command.name for command in features.registered_commands} == set(FEATURES_COMMANDS)
    assert {command.name for command in study.registered_commands} == set(STUDY_COMMANDS)
    assert {command.name for command in zoo.registered_commands} == set(ZOO_COMMANDS)


def test_commands_that_describe_import_no_torch() -> None:
    commands = [
        ["list"], ["show", "vit-base"], ["check", "vit-base + bert-base", "--task", "itm"], ["plugins"],
        ["schema", "spec"], ["--help"], ["run", "--help"], ["data", "layouts"], ["data", "prepare", "--help"],
        ["reproduce", "--list"], ["zoo"], ["study", "list"], ["study", "--help"], ["study", "run", "--help"],
    ]  # fmt: skip
    code = (
        "import sys\nfrom renaissance.cli import main\n"
        f"codes = [main(command) for command in {commands}]\n"
        f"print(codes, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.splitlines()[-1] == f"{[0] * len(commands)} []"


def test_a_wrong_recipe_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("start: vit-base + bert-bse\ntasks: {itm: {}}\n")
    code = (
        "import sys\nfrom renaissance.cli import main\n"
        f"code = main(['run', {str(tmp_path / 'typo.yaml')!r}])\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "2 False\n"
    assert "Did you mean 'bert-base'?" in done.stderr


def test_a_broken_pipe_is_quiet() -> None:
    code = "import sys; from renaissance.cli import main; sys.stdin.readline(); sys.exit(main(['schema', 'recipe']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    said = process.stderr.read()
    assert (process.wait(timeout=60), said) == (141, "")
    process.stderr.close()
