from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
COLUMNS = ("renaissance", "plain", "sensible")
STORED = {"none": (), "vision": ("stored",), "text": ("stored",), "both": ("vision stored", "stored")}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def loaded(name: str) -> ModuleType:
        return importlib.import_module(name)

    return loaded


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_actions_take_turns_and_each_round_begins_with_another(load):
    order: list[str] = []
    actions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    load("paired").take_turns(actions, 2, warm_up=0)
    assert order == ["a", "b", "b", "a"]


def test_the_rounds_of_the_warm_up_are_not_kept(load):
    order: list[str] = []
    timings = load("paired").take_turns({"a": lambda: order.append("a")}, 2, warm_up=3)
    assert len(order) == 5
    assert len(timings.seconds["a"]) == 2


def test_a_ratio_is_taken_round_by_round(load):
    timings = load("paired").Timings({"a": [2.0, 12.0, 4.0], "b": [1.0, 3.0, 4.0]})
    assert str(timings.ratio("a", "b")) == "2.00 (1.00 to 4.00)"


@pytest.mark.parametrize("case", STORED)
def test_all_columns_compute_the_same_loss(load, case):
    trials = load("step").make_trials(case, size="tiny", batch=8)
    losses = load("step").losses_without_dropout(trials)
    assert tuple(losses) == (*COLUMNS, *STORED[case])
    for loss in losses.values():
        assert loss == pytest.approx(losses["renaissance"], rel=1e-4)


@pytest.mark.parametrize("case", ["none", "both"])
def test_all_columns_train_the_same_parameters(load, case):
    step = load("step")
    counts = {step.parameters(trial) for trial in step.make_trials(case, size="tiny", batch=8).values()}
    assert len(counts) == 1


def test_all_columns_have_equal_gradients_without_dropout(load):
    composition = load("composition")
    trials = load("step").make_trials("vision", size="tiny", batch=8)
    for column in COLUMNS:
        trials[column].model.eval()
        trials[column].loss().backward()
    ours = {
        composition.renamed(name): parameter.grad
        for name, parameter in trials["renaissance"].model.named_parameters()
        if parameter.grad is not None
    }
    for column in COLUMNS[1:]:
        theirs = {name: p.grad for name, p in trials[column].model.named_parameters() if p.grad is not None}
        assert set(ours) <= set(theirs)
        for name, gradient in ours.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-5)


def test_a_step_changes_what_is_trained_and_leaves_frozen_towers_as_they_were(load):
    for trial in load("step").make_trials("vision", size="tiny", batch=8).values():
        before = {name: parameter.clone() for name, parameter in trial.model.named_parameters()}
        trial.step()
        changed = {name for name, parameter in trial.model.named_parameters() if not parameter.equal(before[name])}
        assert any(name.endswith("text_projection.weight") for name in changed)
        assert not any("vision.model" in name or name.startswith("vision.") for name in changed)


def test_the_tables_of_steps_have_a_row_for_each_case_and_each_means(load, capsys):
    table = load("step").report(["text"], size="tiny", batch=8, pairs=1)
    assert table.count("| text ") == 2 + 4  # two ways of renaissance, the FLOPs of four columns
    assert "parameters each" in capsys.readouterr().out
    means = load("means").means_report(["none", "both"], size="tiny", batch=8, pairs=1)
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in means.splitlines()[3:]}
    assert rows["frozen towers from the store"][0].strip() == "-"
    assert all("(" in figure for figure in rows["text to the longest"])


def test_the_plain_column_is_the_one_that_all_ratios_are_to(load, monkeypatch):
    load("trials").check_plain()
    monkeypatch.setattr(load("trials"), "plain_loss", load("composition").sensible_loss)
    with pytest.raises(SystemExit, match="plain column was changed"):
        load("trials").check_plain()


def test_a_saved_model_and_its_towers_are_loaded_in_turns(load, tmp_path):
    loading = load("loading")
    report = loading.report(tmp_path, loading.SPECS["tiny"], rounds=1)
    assert [line.split("|")[1].strip() for line in report.splitlines()[3:]] == sorted(
        [way for way in loading.WAYS[:-1] for _ in ("opened", "touched")] + [loading.WAYS[-1]]
    )


@pytest.mark.parametrize("name", ["import renaissance", "renaissance --help", "renaissance list"])
def test_what_informs_loads_no_heavy_library(load, name):
    imports = load("import_time")
    code, arguments, _ = imports.STARTS[name]
    assert imports.heavy_libraries(code, arguments) == ()


def test_a_heavy_library_that_is_loaded_is_found(load):
    assert load("import_time").heavy_libraries("import sys; sys.modules['torch'] = sys") == ("torch",)


def test_a_start_that_fails_is_an_error_with_what_it_printed(load):
    with pytest.raises(RuntimeError, match="no such module"):
        load("import_time").start("raise SystemExit('no such module')")


def test_starts_are_timed_in_turns(load):
    timings = load("import_time").measure(1, ["python alone", "import renaissance"])
    assert all(len(seconds) == 1 for seconds in timings.seconds.values())


def test_every_head_is_timed_beside_the_same_of_transformers(load):
    heads = load("heads")
    size = heads.SIZES["tiny"]
    inputs = heads.streams(size, 2)
    references = heads.theirs(size)
    for name, head in heads.ours(size).items():
        mine, other = heads.our_outputs(head, inputs), references[name](*inputs)
        assert [one.shape for one in mine] == [one.shape for one in other]
        layers = [module for module in head.modules() if isinstance(module, torch.nn.Linear)]
        assert len(layers) >= 4 * size.layers
    assert [row[0] for row in heads.rows(size, 2, 1)] == ["lxmert", "co-attention", "bridge"]


def test_photographs_are_timed_beside_pil_and_datasets(load):
    images = load("images")
    photos = images.gathered(None, images.SIZES["tiny"], 3)
    rows = images.rows(photos, images.SIZES["tiny"], 1)
    assert [cells[1:3] for cells in rows] == [
        ["evaluation", "bicubic"],
        ["evaluation", "bilinear"],
        ["training", "bicubic"],
    ]
    assert all(len(cells) == len(images.HEADER) for cells in rows)


def test_likeness_is_told_by_how_many_pixels_decoding_leaves(load):
    images = load("images")
    files = images.photographs(images.Kind(500, 420, 85), 2)
    told = {cells[0]: cells for cells in images.rooms(files, 60)}
    assert set(told) == {"1.0 to 1.8", "1.8 and more"}
    assert [cells[1] for cells in told.values()] == ["4", "4"]
    least = [float(cells[2].split("(")[1].rstrip(")")) for cells in told.values()]
    assert least[1] > 40
    assert least[0] < least[1]


def test_retrieval_is_compared_with_the_pixels_of_either_side(load):
    told = load("images").retrieval(20)
    *ours, theirs = (float(part.split()[-1]) for part in told.rpartition(": ")[2].split(", "))
    assert len(ours) == 2
    assert all(abs(recall - theirs) <= 100 / 40 for recall in ours)  # one of forty queries
    assert theirs > 60  # chance is 50


def test_the_stages_of_photographs_are_timed_beside_the_whole(load):
    images, stages = load("images"), load("image_stages")
    files = images.photographs(images.SIZES["tiny"].kinds[0], 2)
    timings = load("paired").take_turns(stages.actions(files, images.SIZES["tiny"]), 1)
    rows = stages.rows("tiny", timings, len(files))
    assert {name for timed in stages.STAGES.values() for name in timed if name} == set(timings.seconds)
    assert all(len(cells) == len(stages.HEADER) for cells in rows)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_all_sides_make_the_same_batch_of_photographs(load, interpolation):
    images = load("images")
    size = images.SIZES["full"]
    files = images.photographs(images.Kind(640, 427, 85), 2)
    transform = images.chain(size, interpolation, training=False)
    ours = images.Renaissance.of(size, interpolation, training=False)
    plain = images.pil_batch(files, transform)
    assert torch.equal(images.datasets_batches(files, transform)(), plain)
    assert ours.normalised(files).shape == plain.shape
    assert min(images.decibels(files, ours, transform)) > 45
    fast = images.Renaissance.of(size, interpolation, training=False, decoding="fast")
    assert 40 < min(images.decibels(files, fast, transform)) < min(images.decibels(files, ours, transform))


def test_no_task_is_fooled_on_the_generated_world(load, tmp_path):
    tasks = load("tasks")
    fools = tasks.scores_of_fools(tasks.write(tmp_path, 40, 0, tasks.LAYOUTS), 0)
    assert {data for data, *_ in fools} == set(tasks.LAYOUTS)
    measured = {task for _, _, task, _ in fools}
    assert {*tasks.TRAINED_ON, "itm", "retrieval", "winoground", "aro", "sugarcrepe"} < measured
    for key, scores in fools.items():
        assert tuple(scores) == tasks.FOOLS, key
        oracle = scores["oracle"]
        assert oracle.value == (600 if oracle.name == "sum of R@k" else 100), key
        assert scores["collapsed"].value <= oracle.chance, key
        assert scores["inverted"].value <= oracle.chance, key


def test_trained_models_stand_beside_the_fools(load, tmp_path, cache):
    tasks = load("tasks")
    root = tasks.write(tmp_path, 40, 0, ("coco-captions", "nlvr2", "winoground"))
    fools, trained = tasks.scores_of_fools(root, 0), tasks.scores_of_trained(root, tmp_path, 2, 2, 0, 16)
    assert set(trained) == set(fools)
    rows = list(tasks.rows(fools, trained))
    assert all(len(row) == len(tasks.HEADER) and row[-1] for row in rows)


def test_a_cascade_is_timed_beside_every_pair(load, cache):
    retrieval = load("retrieval")
    assembly, records = retrieval.loaded("renaissance/two-tower-unfrozen", 8)
    rows = retrieval.rows(assembly, records, (1, 4), 1)
    assert [cells[0] for cells in rows] == ["1", "4", "all"]
    assert rows[-1][1] == "128"
    assert all(len(cells) == len(retrieval.HEADER) for cells in rows)
    told = retrieval.costs(assembly, records, (1, 4))
    for (name, search), row in zip(retrieval.searches(assembly, records, (1, 4)).items(), told.rows, strict=True):
        prefix = "full " if name == "all" else "reranked "
        found = {score.name: score.value for score in search() if score.name.startswith(prefix)}
        assert found == {f"{prefix}{score.name}": score.value for score in row.scores}


def test_the_store_reads_what_the_plain_array_holds(load, tmp_path):
    store = load("store")
    for name, dtype in store.DTYPES.items():
        (tmp_path / name).mkdir()
        made, plain = (make(tmp_path / name, 9, (5, 8), dtype) for make in (store.store_of, store.plain_of))
        rows = store.batches(9, 4)[0]
        assert torch.equal(made.read(rows).tokens, torch.from_numpy(plain[rows]))
    (row, _) = store.measure(tmp_path / "all", rounds=1, samples=9, batch=4, shape=(5, 8))
    assert len(row) == len(store.HEADER)


def test_the_picture_of_freezing_has_every_arm_and_no_date(load, tmp_path):
    freezing = load("freezing_cost")
    arms = freezing.measured("tiny", 1)
    assert [arm.frozen for arm in arms] == ["none", "vision", "vision", "text", "text", "both", "both"]
    flops = {(arm.frozen, arm.store): arm.flops for arm in arms}
    assert flops["both", "with the store"] < flops["both", "no store"] < flops["none", "no store"]
    for name in ("one.svg", "two.svg"):
        freezing.draw(arms, tmp_path / name, "tiny")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert "dc:date" not in drawn


def test_a_process_that_fails_ends_the_others_and_is_told(load):
    unused = load("unused")
    context = unused.get_context("spawn")
    failing, waiting = context.Process(target=os._exit, args=(3,)), context.Process(target=time.sleep, args=(300,))
    for process in (failing, waiting):
        process.start()
    with pytest.raises(RuntimeError, match="ended with the exit code 3"):
        unused.wait_for([failing, waiting])
    assert waiting.exitcode not in (None, 0)


# --- soaking --------------------------------------------------------------------------------------------------------


def seen(soak, begins: float, memory: float, *, rising: float = 0.0, files: int = 9):
    """Return what a start is seen to hold in two minutes, its memory rising by so many MB a minute."""
    return [soak.Sample(begins + at, memory + rising * at / 60, files, 4, 0) for at in range(120)]


def test_memory_that_rises_within_starts_is_told_from_starts_that_begin_with_more(load):
    soak = load("soak")
    assert soak.rise([seen(soak, 0, 500), seen(soak, 200, 800)]) == pytest.approx(0)
    assert soak.rise([seen(soak, 0, 500, rising=3), seen(soak, 200, 300, rising=3)]) == pytest.approx(3)
    assert soak.between([seen(soak, 0, 500), seen(soak, 120, 508)]) == pytest.approx(4)
    assert soak.rise([[]]) == soak.between([[]]) == 0


def test_a_soak_fails_for_what_grows_falls_back_or_is_left(load, tmp_path):
    soak = load("soak")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    killed = soak.Life(seen(soak, 0, 500), -9, 20)
    last = soak.Life([*seen(soak, 200, 500), *seen(soak, 320, 500, files=12)], 15, 40)
    shared = soak.shared_files()
    assert soak.faults([killed, soak.Life(seen(soak, 200, 500), 15, 40)], tmp_path, shared) == []
    for step in range(1, 6):
        (tmp_path / "run" / "checkpoints" / f"step-{step:08}").mkdir()
    (tmp_path / "run" / ".left.partial").touch()
    assert soak.faults([killed, soak.Life(seen(soak, 99, 500, rising=40), -9, 10), last], tmp_path, shared - 1) == [
        "start 2 fell back from update 20 to 10",
        "memory rises",
        "open files grow from 9 to 12",
        f"{soak.shared_files() - shared + 1} files are left in /dev/shm",
        ".left.partial is left",
        "step-00000001 is left",
    ]
    assert soak.faults([soak.Life([], 1, 0), last], tmp_path / "none", shared)[0] == "start 1 ended with 1"
    assert "| kills " in soak.report([killed, last])


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_the_time_of_a_step_is_shared_out_and_bounds_its_ratio(load):
    bounds, step = load("bounds"), load("step")
    assert [bounds.kind_of(name) for name in ("aten::addmm", "aten::gelu_backward", "aten::copy_")] == [
        "products",
        "norms, activations, softmax",
        bounds.OTHER,
    ]
    options = {"size": "tiny", "batch": 8, "pairs": 1, "flops": step._flops, "product": lambda: step._product(64)}
    told = bounds.bounds_report(["text"], **options)
    _, shares, _, ratios = (line for line in told.splitlines() if line.startswith(("| text", "| frozen")))
    assert sum(int(cell.strip(" %")) for cell in shares.split("|")[3:-1]) == pytest.approx(100, abs=5)
    assert all(float(cell.strip(" %")) > 0 for cell in ratios.split("|")[3:-1])


def test_a_step_is_told_with_its_ratios_aims_and_work(load, monkeypatch, capsys):
    step = load("step")
    monkeypatch.setattr("sys.argv", ["benchmarks/step.py", "--size", "tiny", "--case", "none", "--pairs", "1"])
    reached, missed = ("renaissance", "plain", 0.0), ("renaissance", "plain", 1e9)
    monkeypatch.setattr(step, "AIMS", {("tiny", "none"): (reached, missed)})
    step.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| none")]
    assert [row.split("|")[-2].strip() for row in rows if " plain " in row and row.count("|") == 7][:2] == ["yes", "no"]
