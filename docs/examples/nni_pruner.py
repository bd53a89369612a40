"""An NNI pipeline that prunes a spiking network, and the one line that makes it learn its structure.

    python nni_pruner.py                    # SpikingDynamicPruner
    python nni_pruner.py --pruner agp       # NNI's own AGPPruner(LevelPruner), the line it replaces

Digits (8x8 pictures that come with scikit-learn), a small network of SpikingJelly at T=4, 95 % of the connections gone.
About 20 s on two cores.
"""

import argparse

import nni
import torch
import torch.nn.functional as F
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch.utils.data import DataLoader, TensorDataset

from snnsl_plugin.for_nni import SpikingDynamicPruner, apply_masks_, export_masks
from snnsl_plugin.metrics.measure import measure

T, BATCH = 4, 64


def network():
    def spikes():
        return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)

    model = torch.nn.Sequential(
        layer.Conv2d(1, 32, 3, padding=1, bias=False),
        layer.BatchNorm2d(32),
        spikes(),
        layer.MaxPool2d(2),
        layer.Conv2d(32, 64, 3, padding=1, bias=False),
        layer.BatchNorm2d(64),
        spikes(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(256, 10),
    )
    functional.set_step_mode(model, "m")
    return model


def data():
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    parts = train_test_split(x, torch.tensor(digits.target), test_size=0.2, random_state=0, stratify=digits.target)
    train, test = TensorDataset(parts[0], parts[2]), TensorDataset(parts[1], parts[3])
    shuffled = torch.Generator().manual_seed(0)
    return DataLoader(train, BATCH, shuffle=True, generator=shuffled, drop_last=True), DataLoader(test, 256)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pruner", choices=["dynamic", "agp"], default="dynamic")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--masks", default="masks.pt", help="where the masks are written")
    chosen = parser.parse_args()

    torch.manual_seed(0)
    loader, test = data()
    model = network()
    steps = chosen.epochs * len(loader)

    def training_step(batch, model):
        x, y = batch
        functional.reset_net(model)  # NNI knows nothing of membrane potentials
        return F.cross_entropy(model(x.unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0), y)

    def training_func(model, optimizer, training_step, lr_scheduler, max_steps, max_epochs):
        model.train()
        for _ in range(max_epochs):
            for batch in loader:
                optimizer.zero_grad()
                training_step(batch, model).backward()
                optimizer.step()
                lr_scheduler.step()

    optimizer = nni.trace(torch.optim.Adam)(model.parameters(), lr=2e-3)
    scheduler = nni.trace(torch.optim.lr_scheduler.CosineAnnealingLR)(optimizer, T_max=steps)
    evaluator = TorchEvaluator(training_func, optimizer, training_step, lr_schedulers=scheduler)
    config_list = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.95}]
    times = int(0.8 * steps) // 10

    if chosen.pruner == "agp":
        pruner = AGPPruner(LevelPruner(model, config_list, evaluator), interval_steps=10, total_times=times)
    else:
        pruner = SpikingDynamicPruner(model, config_list, evaluator, interval_steps=10, total_times=times)

    _, masks = pruner.compress(max_steps=None, max_epochs=chosen.epochs)

    masks = export_masks(masks)  # NNI's own are a defaultdict, which torch.load(weights_only=True) refuses
    torch.save(masks, chosen.masks)
    pruner.unwrap_model()  # NNI's pruners give back weights that are not sparse ...
    apply_masks_(model, masks)  # ... until this line; those of SpikingDynamicPruner are sparse already

    kept = {f"{name}.weight": mask["weight"].bool() for name, mask in masks.items()}
    batches = ((x.unsqueeze(0).repeat(T, 1, 1, 1, 1), y) for x, y in test)
    measured = measure(model, batches, masks=kept)
    for name, mask in kept.items():
        print(f"{name:10} {int(mask.sum()):6,} of {mask.numel():6,} weights ({mask.float().mean():.4f})")
    dense = sum(mask.numel() for mask in kept.values())
    print(f"density    {sum(int(mask.sum()) for mask in kept.values()) / dense:.4f}")
    print(f"accuracy   {measured.accuracy:.4f}")
    print(f"SynOps     {measured.synops_per_sample:,.0f} a sample")


if __name__ == "__main__":
    main()
