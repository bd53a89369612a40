import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two workers share two cores, and sums over threads would differ from machine to machine."""
    torch.set_num_threads(1)
