"""A process that has run a network in OpenVINO can still be interrupted, and see its children end."""

import subprocess
import sys

import pytest
import torch

from structprune.runtimes import Runtime
from tests.example_networks import Chain, randomise

INTERRUPTED = """
import faulthandler, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background does not begin with
from structprune.runtimes import Runtime

faulthandler.enable()  # it gives the process a signal stack, as pytest does
runtime = Runtime(engine="openvino")
first, second = runtime.open(sys.argv[1]), runtime.open(sys.argv[1])
first.run()
del first
second.run()
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.thorough
def test_a_signal_after_networks_were_closed_in_the_order_in_which_they_were_opened(tmp_path):
    pytest.importorskip("openvino")
    source = Runtime(engine="openvino").prepare(randomise(Chain()), torch.randn(2, 3, 10, 10), tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(source)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
