import math

import torch

from snnsl_plugin.core.divergences.reverse_kl import reverse_kl


def test_weighs_by_the_learner() -> None:
    guide, learner = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    want = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert torch.allclose(reverse_kl(guide, learner), torch.tensor(want))
