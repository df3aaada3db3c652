"""Every network still computes what it computed when tests/golden/networks.json was written."""

import json

import torch

from tests.golden.networks import FILE, outputs, summary
from tests.tolerances import assert_close


def test_every_network_computes_its_golden_values() -> None:
    golden = json.loads(FILE.read_text())
    found = outputs()
    assert list(found) == list(golden)
    for name, values in found.items():
        expected = torch.tensor(golden[name], dtype=torch.float64)
        assert_close(torch.tensor(summary(values), dtype=torch.float64), expected, dtype=torch.float32)
