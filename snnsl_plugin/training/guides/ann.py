"""A network without spikes teaches: the ordinary direction, from another kind of network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.guides._features import Matching
from snnsl_plugin.training.guides._lesson import Lesson, Softening
from snnsl_plugin.training.guides._network import NetworkGuide


def ann(
    network: nn.Module,
    learner: nn.Module | None = None,
    example: Tensor | None = None,
    *,
    run: str | None = None,
    architecture: str | None = None,
    checkpoint: str | None = None,
    features: str | None = None,
    guide_features: str | None = None,
    feature_weight: float = 1.0,
    seed: int = 0,
) -> NetworkGuide:
    """A frozen ANN as guide, for its answers and, if asked, for its features (KDSNN, Xu et al. 2023).

    With `features` the loss has another term: `feature_weight` times the mean squared distance of the learner's
    features from the guide's, both as means over time. Where widths differ, a 1x1 map, which is trained too, takes the
    learner's channels to the guide's. KDSNN adds an L2 distance of features to cross-entropy and softened answers;
    SAKD (2024) trains with the features alone, which is a distillation weight of 0 here. Neither the mean over features
    nor the weight of 1 is theirs: re-implementations divide sums by N alone, with weights such as 7e-5.

    A spiking network may stand here as well: its features are rates then.

    Args:
        network: takes (T, N, ...), returns (T, N, K) logits; frozen in place. One that takes pictures (N, ...) and
            returns (N, K) is given as `Pictures(network)`. A recipe loads it from `run`, or from `checkpoint`.
        learner: whose features are compared; a recipe gives it.
        example: an input of both, (T, N, ...); a recipe gives it.
        run: the finished run folder it comes from.
        architecture: name of a classification network of torchvision, e.g. `resnet18`.
        checkpoint: file with its state dict, read with `weights_only=True`, or as safetensors.
        features: dotted name of the learner's layer whose output is compared; nothing is where omitted.
        guide_features: the guide's layer, in `network`'s own words, e.g. `layer4`; of the same name where omitted.
        feature_weight: of the squared distance, > 0.
        seed: of the map between widths.

    Raises:
        BadOption: features without a learner or an example, or of maps of another size; a weight that is not above 0.
        NothingMatched: a layer that is not there.
    """
    if not feature_weight > 0:
        raise BadOption(f"feature_weight={feature_weight} must be above 0; leave features out for none")
    if features is None:
        if guide_features is not None:
            raise BadOption(
                f"guide_features={guide_features!r} are compared with the learner's: name its layer in features"
            )
        return NetworkGuide(network)
    if learner is None or example is None:
        raise BadOption(
            f"features={features!r} are compared layer by layer: give the learner and an example (NNI's door matches "
            "hidden outputs by entries with apply_method='mse' instead)"
        )
    timed, theirs = not isinstance(network, Pictures), guide_features or features
    layers = (features, theirs if timed else f"network.{theirs}")
    matching = Matching(learner, network, example, layers, seed=seed, timed=timed)
    return FeatureGuide(network, matching, feature_weight)


class Pictures(nn.Module):
    """A network of pictures, asked with frames: it sees their mean over time, and answers once for all steps.

    Args:
        network: takes (N, ...), returns (N, K).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (T, N, K) of frames (T, N, ...), the same at every step."""
        logits: Tensor = self.network(x.mean(0))
        return logits.expand(x.shape[0], *logits.shape)


class FeatureGuide(NetworkGuide):
    """Asks a network, and compares features.

    Args:
        network: see `ann`.
        matching: of its features with the learner's.
        weight: of their distance.
    """

    #: it is asked at a distillation weight of 0 too
    matches = True

    def __init__(self, network: nn.Module, matching: Matching, weight: float) -> None:
        super().__init__(network)
        self._matching, self._weight = matching, weight

    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson:
        """The network's softened answer to a batch, and how far the learner's features are from its own."""
        lesson = super().__call__(x, target, classes, soften)
        return replace(lesson, matched=self._weight * self._matching.distance(x))

    def trained(self) -> list[nn.Parameter]:
        """What is trained with the learner: the map between widths, where there is one."""
        return [] if self._matching.align is None else [self._matching.align]

    def state_dict(self) -> dict[str, Any]:
        """The map between widths, where there is one."""
        return {} if self._matching.align is None else {"align": self._matching.align.detach()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from `state_dict`, in place."""
        if self._matching.align is not None:
            self._matching.align.copy_(state["align"])

    def close(self) -> None:
        """Removes the hooks from the learner."""
        self._matching.close()
