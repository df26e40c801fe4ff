"""Another process that is lost is told as such; every other error stays what it is."""

from __future__ import annotations

import re

import pytest
import torch.distributed as dist

from renaissance.errors import ProcessGroupError
from renaissance.training.others import lost, telling_of_others

GLOO = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/"
CLOSED = (
    f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:64223. This is typically caused by a remote worker "
    "crashing. Check the logs of the remote worker before reporting an error. GLHF!"
)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RuntimeError(CLOSED), "Connection closed by peer [127.0.0.1]:64223"),
        (
            RuntimeError(f"{GLOO}unbound_buffer.cc:129] Timed out waiting 4000ms for send operation to complete"),
            "Timed out waiting 4000ms for send operation to complete",
        ),
        (
            RuntimeError(f"{GLOO}pair.cc:547] Read error [10.0.0.2]:4242: Connection reset by peer"),
            "Read error [10.0.0.2]:4242: Connection reset by peer",
        ),
        (
            RuntimeError(f"Gloo connectFullMesh failed with {GLOO}pair.cc:144] timed out connecting: No route to host"),
            "timed out connecting: No route to host",
        ),
        (
            dist.DistBackendError(
                "NCCL error in: ../ProcessGroupNCCL.cpp:2, remote process exited or there was a network error.\n"
                "ncclRemoteError: A call failed possibly due to a network error"
            ),
            "remote process exited or there was a network error",
        ),
        (
            dist.DistStoreError("wait timeout after 1800000ms, keys: /default_pg/0//cpu//0/1\nException raised from"),
            "wait timeout after 1800000ms, keys: /default_pg/0//cpu//0/1",
        ),
    ],
)
def test_what_a_backend_says_of_a_process_that_is_lost_is_told(
    error: RuntimeError, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = rf"Process 2 of 4 .* has lost another process .*\({re.escape(what)}\)\. .* is not 21; then --resume"
    with pytest.raises(ProcessGroupError, match=told) as caught, telling_of_others():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        # what gloo was called with does not fit: nobody is lost, and the fault is ours
        RuntimeError("[enforce fail at /third_party/gloo/gloo/transport/tcp/pair.cc:446] op.nbytes <= 8. 16 vs 8"),
        dist.DistBackendError("NCCL error in: x.cpp:2, invalid usage. Duplicate GPU detected"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("Connection closed by peer"),
    ],
)
def test_every_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, telling_of_others():
        raise error
    assert caught.value is error
    assert not isinstance(error, RuntimeError) or lost(error) is None
