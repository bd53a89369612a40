"""Neurons that forget between samples, inside NNI's evaluators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from nni.compression.utils.evaluator import Evaluator
from torch import nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import forgets, reset_
from snnsl_plugin.errors import BadOption

AutoReset = Literal["never", "forward", "step"]


def resetting(model: nn.Module, evaluator: Evaluator, when: AutoReset) -> Callable[[], None]:
    """Lets neurons forget between samples, which NNI knows nothing of.

    Args:
        model: the bound model.
        evaluator: bound to it.
        when: `forward`: before each call of the model, right for a multi-step model and for one that loops over time
            itself; `step`: after each training step, and where training and evaluation change over, right where the
            loop over time is outside the model; `never`.

    Returns:
        What ends it, and lets them forget once more, so that the model can be copied.
    """
    if when == "never":
        return lambda: None
    if when == "forward":
        handles = [_reset_at_each_call(model, evaluator)]
    else:
        # Hooks of the neurons, not of the model: a training step may well call a part of it.
        forgetful = [module for module in model.modules() if forgets(module)]
        handles = [module.register_forward_pre_hook(_at_changeover(module.training)) for module in forgetful]

        def forget(loss: Any, batch: Any) -> Any:
            reset_(model)
            return loss

        evaluator.patch_loss(forget)

    def end() -> None:
        for handle in handles:
            handle.remove()
        reset_(model)

    return end


def _reset_at_each_call(model: nn.Module, evaluator: Evaluator) -> RemovableHandle:
    called = False

    def before(module: nn.Module, *_: Any) -> None:
        nonlocal called
        called = True
        reset_(module)

    def check(loss: Any, batch: Any) -> Any:
        nonlocal called
        if not called:
            raise BadOption(
                "auto_reset='forward' saw no call of the model in this training step, which runs only a part of it, "
                "e.g. self.net(x): let it call the model itself, or set auto_reset='step'"
            )
        called = False
        return loss

    evaluator.patch_loss(check)
    return model.register_forward_pre_hook(before)


def _at_changeover(mode: bool) -> Callable[..., None]:
    def before(module: Any, *_: Any) -> None:
        nonlocal mode
        if module.training != mode:
            mode = module.training
            module.reset()

    return before
