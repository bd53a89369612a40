import copy

import pytest
from nni.compression.base.setting import PruningSetting
from torch import nn


@pytest.fixture(autouse=True)
def _nni_knows_what_it_knows_by_itself(monkeypatch):
    """What one test registers with NNI, which keeps it in a global, is not there in the next one."""
    stock = {name: copy.deepcopy(each) for name, each in PruningSetting.registry.items() if hasattr(nn, name)}
    monkeypatch.setattr(PruningSetting, "registry", stock)
