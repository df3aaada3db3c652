"""Memory between tensors: what the command line keeps, and what it gives back during a long video."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, numpy as np
from speak import allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 / 1024  # MiB

kept = allocator.keep_memory() if KEEP else False
large = [np.ones(1 << 20, np.uint8) for _ in range(400)]
small = [np.ones(2000, np.uint8) for _ in range(400)]
pins = []
for place in range(400):
    large[place] = None
    pins.append(np.ones(2000, np.uint8))  # stays, where something large was
before = resident()
allocator.give_back_holes()
print(kept, before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
@pytest.mark.parametrize("keep", [True, False])
def test_holes_between_blocks_in_use_are_given_back_where_memory_is_kept(keep: bool) -> None:
    done = subprocess.run([sys.executable, "-c", f"KEEP = {keep}\n{CODE}"], capture_output=True, text=True, check=True)
    kept, given = done.stdout.split()
    if kept == "True":
        assert float(given) > 300  # of 400 MiB
    else:
        assert abs(float(given)) < 5  # nothing was kept, nothing is done
