from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two workers share two cores, and sums over threads would differ from machine to machine."""
    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A slow test that skips checked nothing where everything it needs can be installed: that is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("slow") and not item.get_closest_marker("data"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which a slow test may not: {report.longrepr}"
    return report
