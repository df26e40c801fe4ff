"""Ctrl-C and SIGTERM stop a training at a checkpoint, and everything else at once; averages and the best survive it."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from renaissance.errors import CheckpointError, RenaissanceError, SpecError, StoppedError
from renaissance.progress import Silent
from renaissance.recipe import validate_recipe
from renaissance.training.checkpoint import newest_checkpoint
from renaissance.training.run import Run, run
from renaissance.training.signals import Signals, listening


class Signalling(Silent):
    """Sends this process signals while an update, or an evaluation, goes on."""

    def __init__(self, what: str, after: int, *numbers: int) -> None:
        self.what, self.after, self.numbers = what, after, numbers

    def track(self, items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        show = self.bar(what)
        for number, item in enumerate(items):
            show(number, total)
            yield item

    def bar(self, what: str) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            if what.startswith(self.what) and done == self.after:
                for number in self.numbers:
                    signal.raise_signal(number)

        return show


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Let Ctrl-C be heard, also where what started the tests told its children to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def recipe(tiny_spec: Callable[..., str], cache: Path) -> dict[str, Any]:
    """Six updates with averages, and evaluations in between; checkpoints of the last, the best, and where it stops."""
    return {
        "name": "tiny",
        "start": tiny_spec(),
        "tasks": {"itm": {}},
        "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 6},
        "schedule": {"warmup_steps": 1},
        "optimiser": {"lr": 0.002},
        "evaluation": {"untrained": False, "every": 2, "validation": 4},
        "checkpoint_every": 100,
        "keep_best": "validation/itm/accuracy",
        "ema": {"decay": 0.9},
    }


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing stopped."""
    return run(recipe, out=tmp_path_factory.mktemp("whole") / "run")


def told(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what time decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_second"} for line in lines]


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "after"), [(signal.SIGTERM, 2), (signal.SIGINT, 1), (signal.SIGTERM, 5)])
def test_a_training_that_is_stopped_writes_a_checkpoint_and_ends_as_if_it_never_was(
    number: int, after: int, recipe: dict[str, Any], whole: Run, tmp_path: Path
) -> None:
    """After the second update an evaluation is due: it waits for the resumed run."""
    name = signal.Signals(number).name
    with pytest.raises(
        StoppedError, match=f"Stopped by {name} after update {after + 1} of 6; its checkpoint is written"
    ):
        run(recipe, out=tmp_path / "cut", progress=Signalling("Training", after, number))
    newest, _ = newest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert newest.name == f"step-{after + 1:08d}"
    again = run(recipe, out=tmp_path / "cut", resume=True)
    assert same(weights(whole.folder), weights(again.folder))
    assert again.scores["scores"] == whole.scores["scores"]
    assert again.scores["training"] == whole.scores["training"]
    assert told(whole.folder) == told(again.folder)


def test_a_second_ctrl_c_leaves_at_once_and_harms_nothing(recipe: dict[str, Any], tmp_path: Path) -> None:
    frequent = {**recipe, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        run(frequent, out=tmp_path / "cut", progress=Signalling("Training", 3, signal.SIGINT, signal.SIGINT))
    newest, faults = newest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert (newest.name, faults) == ("step-00000003", [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_in_training_is_given_up_for_the_checkpoint_and_made_up_for(
    number: int, recipe: dict[str, Any], whole: Run, tmp_path: Path
) -> None:
    told_of = f"Stopped by {signal.Signals(number).name} after update 2 of 6; its checkpoint is written"
    for resume in (False, True):  # the evaluation that the second start makes up for is given up, too
        measuring = Signalling("Texts of 'validation'", 0, number)
        with pytest.raises(StoppedError, match=told_of):
            run(recipe, out=tmp_path / "cut", resume=resume, progress=measuring)
        newest, faults = newest_checkpoint(tmp_path / "cut" / "checkpoints")
        assert newest is not None
        assert (newest.name, faults) == ("step-00000002", [])
        assert told(tmp_path / "cut") == []
    again = run(recipe, out=tmp_path / "cut", resume=True)
    assert same(weights(whole.folder), weights(again.folder))
    assert again.scores["scores"] == whole.scores["scores"]
    assert again.scores["training"] == whole.scores["training"]
    assert told(whole.folder) == told(again.folder)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_after_the_training_leaves_at_once_and_the_last_checkpoint_is_there(
    number: int, expected: type[BaseException], recipe: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(expected) as caught:
        run(
            {**recipe, "budget": {"steps": 2}},
            out=tmp_path / "cut",
            progress=Signalling("Texts of 'test'", 0, number),
        )
    assert expected is KeyboardInterrupt or caught.value.code == 143
    newest, faults = newest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert (newest.name, faults) == ("step-00000002", [])


def test_what_a_signal_gives_up_is_given_up_once_and_a_second_signal_leaves() -> None:
    signals = Signals()
    went_on: list[int] = []

    def twice() -> None:
        try:
            signals.hear(signal.SIGTERM)
        finally:  # what is cut off tidies up, and is not cut off again
            with pytest.raises(KeyboardInterrupt):
                signals.hear(signal.SIGINT)
            went_on.append(1)

    def training() -> None:
        with signals.held():
            assert signals.unless_heard(twice) is None
            assert signals.unless_heard(lambda: 1) is None

    with pytest.raises(SystemExit):
        training()
    assert went_on == [1]
    assert Signals().unless_heard(lambda: 1) == 1


def test_handlers_are_those_of_before_afterwards_and_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not term
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_that_is_not_the_main_one_hears_nothing_and_works() -> None:
    heard: list[Signals] = []

    def work() -> None:
        with listening() as signals:
            heard.append(signals)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard[0].caught is None


def test_a_signal_that_nobody_asked_for_is_heard_at_the_end() -> None:
    signals = Signals()
    with pytest.raises(KeyboardInterrupt), signals.held():
        signals.hear(signal.SIGINT)


def test_every_exit_code_is_documented_once() -> None:
    import renaissance.errors as errors

    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RenaissanceError)]
    own = [kind.exit_code for kind in classes if "exit_code" in vars(kind)]
    assert len(set(own)) == len(own)
    documented = [line.split("|")[1].strip() for line in (errors.__doc__ or "").splitlines() if line.startswith("| ")]
    assert [code for code in documented if code.isdigit()] == [str(code) for code in [0, *sorted(own), 130, 143]]


# --- averages and the best ------------------------------------------------------------------------------------------


def test_the_averaged_weights_are_saved_and_measured(recipe: dict[str, Any], whole: Run, tmp_path: Path) -> None:
    run({**recipe, "ema": None}, out=tmp_path / "plain")
    last = whole.folder / "checkpoints" / "step-00000006"
    assert same(load_file(last / "model.safetensors"), weights(tmp_path / "plain"))
    saved = weights(whole.folder)
    averages = load_file(last / "average.safetensors")
    assert averages
    assert all(torch.equal(saved[name], value) for name, value in averages.items())
    assert not same(saved, weights(tmp_path / "plain"))


def best_of(folder: Path) -> tuple[int, float]:
    """Return the first of the best evaluations in metrics.jsonl."""
    found = [
        (line["step"], line["validation/itm/accuracy"]) for line in told(folder) if "validation/itm/accuracy" in line
    ]
    return max(found, key=lambda pair: (pair[1], -pair[0]))


def test_the_best_checkpoint_is_kept_and_is_saved_only_where_that_is_asked_for(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    learning = {**recipe, "keep_checkpoints": 1, "ema": None, "budget": {"steps": 8}, "evaluation": {
        "untrained": False, "every": 1, "validation": 4}}  # fmt: skip
    done = run(learning, out=tmp_path / "kept")
    step, value = best_of(done.folder)
    assert done.scores["training"]["best"] == {
        "score": "validation/itm/accuracy", "step": step, "value": value, "saved": False,
    }  # fmt: skip
    names = sorted(path.name for path in (done.folder / "checkpoints").iterdir())
    assert names == sorted({f"step-{step:08d}", "step-00000008"})
    assert step < 8, "else this shows nothing: choose another seed"
    best = load_file(done.folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    assert not same(weights(done.folder), best)
    saved = run({**learning, "save_best": True}, out=tmp_path / "saved")
    assert same(weights(saved.folder), best)
    assert saved.scores["training"]["best"]["saved"] is True


def test_a_best_checkpoint_that_was_damaged_is_not_saved_as_the_model(recipe: dict[str, Any], tmp_path: Path) -> None:
    saving = {**recipe, "save_best": True, "evaluation": {"untrained": False, "every": 1, "validation": 4}}
    folder = run(saving, out=tmp_path / "run").folder
    step, _ = best_of(folder)
    assert step < 6, "else the last one is passed over, and it is found again"
    (folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="The best checkpoint"):
        run(saving, out=folder, resume=True)


def test_a_lost_best_checkpoint_is_told_before_the_training_goes_on(recipe: dict[str, Any], tmp_path: Path) -> None:
    often = {"untrained": False, "every": 1, "validation": 4}
    saving = {**recipe, "save_best": True, "evaluation": often, "checkpoint_every": 1, "keep_checkpoints": 9}
    folder = run(saving, out=tmp_path / "run").folder
    step, _ = best_of(folder)
    assert step < 5, "else nothing is left to go on from"
    shutil.rmtree(folder / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(folder / "checkpoints" / "step-00000006")
    with pytest.raises(CheckpointError, match="The best checkpoint"):
        run(saving, out=folder, resume=True)
    assert not (folder / "checkpoints" / "step-00000006").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_best": "validation/itm/acuracy"}, "has no score 'acuracy'.*Did you mean 'accuracy'"),
        ({"keep_best": "validation/retrieval/R@1"}, "'retrieval' is not measured; measured are: itm"),
    ],
)
def test_a_best_by_what_is_not_measured_is_refused(
    changes: dict[str, Any], message: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        run({**recipe, **changes}, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_best": "test/itm/accuracy", "evaluation": {"every": 1}}, "keep_best"),
        ({"keep_best": "validation/itm/accuracy"}, "set evaluation.every"),
        ({"save_best": True}, "set keep_best"),
        ({"ema": {"decay": 1.0}}, "decay"),
    ],
)
def test_a_best_is_chosen_on_validation_samples_alone(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate_recipe({"start": "tiny-vit + tiny-bert, random both", "tasks": {"itm": {}}, **changes})


@pytest.mark.parametrize("changes", [{"workers": 2}, {"checkpoint_every": 1}, {"keep_checkpoints": 5}])
def test_what_changes_no_weight_may_change_on_resume(
    changes: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        run(recipe, out=tmp_path / "run", progress=Signalling("Training", 2, signal.SIGTERM))
    assert run({**recipe, **changes}, out=tmp_path / "run", resume=True).scores["training"]["updates"] == 6


def test_passing_over_a_damaged_checkpoint_is_said(recipe: dict[str, Any], tmp_path: Path) -> None:
    class Telling(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    with pytest.raises(StoppedError):
        run({**recipe, "checkpoint_every": 2}, out=tmp_path / "run", progress=Signalling("Training", 4, signal.SIGTERM))
    (tmp_path / "run" / "checkpoints" / "step-00000005" / "manifest.json").write_text("{")
    progress = Telling()
    run({**recipe, "checkpoint_every": 2}, out=tmp_path / "run", resume=True, progress=progress)
    assert "Passed over a checkpoint: step-00000005: manifest.json is no JSON." in progress.lines
