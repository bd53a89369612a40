import math

import torch

from snnsl_plugin.core.divergences.kl import kl


def test_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    want = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert torch.allclose(kl(p, q), torch.tensor(want))


def test_equals_torch_on_random_answers() -> None:
    p, q = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    theirs = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    assert torch.allclose(kl(p, q), theirs, atol=1e-6)
