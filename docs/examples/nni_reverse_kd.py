"""An NNI pipeline in two stages: a sparse network learns its structure, then it teaches a stronger one.

    python nni_reverse_kd.py

Stage 1 prunes a network to 2 % of its connections. Stage 2 trains another one to 10 %, from scratch, while the weaker
and sparser network of stage 1 teaches it: a pruner and a distiller of NNI at work together. About 40 s on two cores.
"""

import argparse

import nni
import torch
import torch.nn.functional as F
from nni.compression import TorchEvaluator
from nni_pruner import BATCH, T, data, network
from spikingjelly.activation_based import functional

from snnsl_plugin.for_nni import ReverseKDDistiller, SpikingDynamicPruner


def over_time(x):
    return x.unsqueeze(0).repeat(T, 1, 1, 1, 1)


def training_step(batch, model):
    x, y = batch
    return F.cross_entropy(model(over_time(x)).mean(0), y)


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        right = 0
        for x, y in loader:
            functional.reset_net(model)
            right += int((model(over_time(x)).mean(0).argmax(-1) == y).sum())
    functional.reset_net(model)
    return right / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    chosen = parser.parse_args()
    loader, test = data()

    def training_func(model, optimizer, training_step, lr_scheduler, max_steps, max_epochs):
        model.train()
        for _ in range(max_epochs):
            for batch in loader:
                optimizer.zero_grad()
                training_step(batch, model).backward()
                optimizer.step()

    def pruner_of(model, density):
        optimizer = nni.trace(torch.optim.Adam)(model.parameters(), lr=2e-3)
        evaluator = TorchEvaluator(training_func, optimizer, training_step)
        config_list = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 1.0 - density}]
        steps = chosen.epochs * (len(loader.dataset) // BATCH)
        return SpikingDynamicPruner(
            model,
            config_list,
            evaluator,
            interval_steps=10,
            total_times=int(0.8 * steps) // 10,
            distribution="erk",
            swap={"name": "cosine", "first": 0.3, "last": 0.0},
            auto_reset="forward",  # neurons forget before every pass, so training_step need not see to it
        )

    torch.manual_seed(0)
    guide = network()
    pruner = pruner_of(guide, 0.02)
    pruner.compress(max_steps=None, max_epochs=chosen.epochs)
    pruner.unwrap_model()
    print(f"guide    density {pruner.dynamic.density:.4f}  accuracy {accuracy(guide, test):.4f}")

    torch.manual_seed(1)
    learner = network()
    pruner = pruner_of(learner, 0.10)
    distiller = ReverseKDDistiller.from_compressor(
        pruner,
        [{"op_names": ["9"], "lambda": 0.3, "temperature": 4.0}],  # the module that gives the logits
        teacher_model=guide,
        teacher_predict=lambda batch, model: model(over_time(batch[0])),
        origin_loss_lambda=0.7,
    )
    distiller.compress(max_steps=None, max_epochs=chosen.epochs)
    distiller.unwrap_model()  # and its teacher
    regrown = pruner.dynamic.born
    print(f"learner  density {pruner.dynamic.density:.4f}  accuracy {accuracy(learner, test):.4f}  regrown {regrown:,}")


if __name__ == "__main__":
    main()
