"""NNI's evaluators besides TorchEvaluator: the masks of any loop, bit for bit, and an exact number of steps."""

import nni
import pytest
import pytorch_lightning as lightning
import safetensors.torch
import torch
from networks import batch, conv_net
from nni.compression import LightningEvaluator as PlainLightningEvaluator
from nni.compression import TransformersEvaluator as PlainTransformersEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner
from torch import nn
from torch.utils.data import DataLoader

from snnsl_plugin.anatomy import parameter_of, reset_, weight_name
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.for_nni import LightningEvaluator, ReverseKDDistiller, SpikingDynamicPruner
from snnsl_plugin.for_nni.evaluators import TransformersEvaluator
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    # NNI patches the step of an optimizer that a scheduler has already wrapped.
    pytest.mark.filterwarnings("ignore:Seems like `optimizer.step..` has been overridden:UserWarning"),
    # SpikingJelly's neurons share one surrogate function, which another test's network may have put in eval mode.
    pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
]
EPOCH, STEPS, EVERY, TIMES = 11, 22, 3, 6
WEIGHTS = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8}]
LOGITS = [{"op_names": ["net.7"], "lambda": 0.3}]
COMMON = {
    "criterion": "spike_saliency",
    "growth": "gradient",
    "swap": schedules.cosine(first=0.4, last=0.0),
    "sample_every": 2,
}


class Learner(lightning.LightningModule):
    """What a user of Lightning writes; `form` is what configure_optimizers returns."""

    def __init__(self, form="single", calls="self"):
        super().__init__()
        self.net = conv_net()
        self.form, self.calls = form, calls
        self.steps = 0
        self.watch = lambda: None

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        reset_(self)
        return cross_entropy(self(x) if self.calls == "self" else self.net(x), y)

    def validation_step(self, batch, index):
        reset_(self)
        self(batch[0])

    def on_train_batch_end(self, *_):
        self.steps += 1
        self.watch()

    def configure_optimizers(self):
        optimizer = nni.trace(torch.optim.SGD)(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        if self.form == "single":
            return optimizer
        scheduler = nni.trace(torch.optim.lr_scheduler.StepLR)(optimizer, step_size=1, gamma=0.9)
        if self.form == "two lists":
            return [optimizer], [scheduler]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Pictures(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader([batch(step) for step in range(EPOCH)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([batch(99)], batch_size=None)


def quiet_trainer(**options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return nni.trace(lightning.Trainer)(accelerator="cpu", **quiet | {"max_epochs": 1} | options)


def evaluator_of(kind=LightningEvaluator, data=Pictures, **options):
    return kind(quiet_trainer(**options), nni.trace(data)())


def in_a_loop(form="single", **options):
    model = Learner(form)
    made = model.configure_optimizers()
    optimizer, scheduler = made, None
    if form == "two lists":
        (optimizer,), (scheduler,) = made
    elif form == "a dict":
        optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    options = {"density": schedules.cubic(first=1.0, last=0.2), "distribution": "erk", **COMMON, **options}
    pruner = DynamicPruner(model, optimizer, every=f"{EVERY}it", until=f"{EVERY * TIMES}it", **options)
    history = []
    for step in range(STEPS):
        model.training_step(batch(step % EPOCH), step).backward()
        optimizer.step()
        if pruner.step():
            history.append({name: mask.clone() for name, mask in pruner.masks.items()})
        if form == "a dict" or (form == "two lists" and (step + 1) % EPOCH == 0):
            scheduler.step()
        optimizer.zero_grad()
    pruner.finish()
    return model, history, pruner


def pruner_of(model, evaluator, **options):
    options = {"interval_steps": EVERY, "total_times": TIMES, "distribution": "erk", **COMMON, **options}
    return SpikingDynamicPruner(model, WEIGHTS, evaluator, **options)


def watched(model, pruner):
    """The masks after each update, read from NNI's own buffers while it trains."""
    history = []

    def watch():
        if model.steps % EVERY == 0 and model.steps <= EVERY * TIMES:
            history.append({weight_name(name): mask["weight"].bool() for name, mask in pruner.get_masks().items()})

    model.watch = watch
    return history


def assert_equal_bit_by_bit(loop, host):
    (one, masks, pruner), (other, nni_masks, dynamic) = loop, host
    assert len(masks) == len(nni_masks) > 0
    for mine, theirs in zip(masks, nni_masks, strict=True):
        assert all(torch.equal(mask, mine[name]) for name, mask in theirs.items())
    for (name, parameter), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, theirs), name
    assert pruner.born == dynamic.born > 0


@pytest.mark.parametrize(
    ("form", "duration"),
    [("single", (STEPS, None)), ("two lists", (STEPS, None)), ("a dict", (STEPS, None)), ("two lists", (None, 2))],
)
def test_masks_and_weights_under_lightning_are_those_of_any_loop(form, duration):
    model = Learner(form)
    pruner = pruner_of(model, evaluator_of())
    history = watched(model, pruner)
    pruner.compress(*duration)
    pruner.unwrap_model()
    assert model.steps == pruner.dynamic.step_number == STEPS
    assert_equal_bit_by_bit(in_a_loop(form), (model, history, pruner.dynamic))


def test_the_schedule_of_agp_holds_the_pruner_under_lightning():
    model = Learner()
    pruner = pruner_of(model, evaluator_of(), swap={"name": "constant", "value": 0.2}, schedule="sine")
    history = watched(model, pruner)
    head = AGPPruner(pruner, interval_steps=EVERY, total_times=TIMES)
    head.compress(STEPS, None)
    head.unwrap_model()
    loop = in_a_loop(swap=schedules.constant(value=0.2))
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))


@pytest.mark.parametrize("guide", ["virtual", "self"])
def test_a_pruner_and_a_distiller_work_together_under_lightning_in_both_orders(guide):
    lessons = {"guide": guide, "origin_loss_lambda": 0.7}
    if guide == "self":
        lessons |= {"guide": {"name": "self", "since": "4it"}, "teacher_predict": lambda batch, net: net(batch[0])}
    results = []
    for pruner_first in (True, False):
        model = Learner()
        if pruner_first:
            pruner = pruner_of(model, evaluator_of())
            head = ReverseKDDistiller.from_compressor(pruner, LOGITS, **lessons)
        else:
            distiller = ReverseKDDistiller(model, LOGITS, evaluator_of(), **lessons)
            options = {"interval_steps": EVERY, "total_times": TIMES, "distribution": "erk", **COMMON}
            head = pruner = SpikingDynamicPruner.from_compressor(distiller, WEIGHTS, **options)
        history = watched(model, pruner)
        head.compress(STEPS, None)
        head.unwrap_model()
        assert model.steps == pruner.dynamic.step_number == STEPS
        results.append((model, history, pruner.dynamic))
    assert_equal_bit_by_bit(*results)
    alone, *_ = in_a_loop()
    assert not torch.equal(alone.net[7].weight, results[0][0].net[7].weight), "the guide taught nothing"


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_number_of_steps_is_exact_and_the_trainers_own_epochs_do_not_end_it(accumulated):
    model = Learner()
    evaluator = evaluator_of(max_epochs=1, accumulate_grad_batches=accumulated)
    pruner = pruner_of(model, evaluator, paths=False)
    pruner.compress(19, None)
    assert pruner.dynamic.step_number == 19
    # The last batch of an epoch ends an accumulation: 11 batches make 6 steps where two make one.
    assert model.steps == (19 if accumulated == 1 else 3 * EPOCH + 2)
    assert model._trainer is None


def test_a_training_step_that_goes_past_forward_is_told_how_to_prune_all_the_same():
    with pytest.raises(MissingStatistic, match="saw no forward pass of its model.*set paths=False"):
        pruner_of(Learner(calls="self.net"), evaluator_of()).compress(STEPS, None)
    model = Learner(calls="self.net")
    pruner = pruner_of(model, evaluator_of(), paths=False)
    history = watched(model, pruner)
    pruner.compress(STEPS, None)
    pruner.unwrap_model()
    assert_equal_bit_by_bit(in_a_loop(paths=False), (model, history, pruner.dynamic))


def test_the_lightning_evaluator_of_nni_is_refused_where_it_cannot_count_and_works_where_it_need_not():
    pruner = pruner_of(Learner(), evaluator_of(PlainLightningEvaluator))
    with pytest.raises(BadOption, match="cannot count steps with pytorch-lightning 2: use snnsl_plugin.for_nni.Lightn"):
        pruner.compress(STEPS, None)
    pruner.compress(None, 2)
    assert pruner.dynamic.step_number == STEPS


def test_a_training_that_fails_leaves_neither_hooks_nor_patches_on_a_lightning_module():
    model = Learner()
    before = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    evaluator = evaluator_of()
    pruner = pruner_of(model, evaluator, auto_reset="step")

    def fail():
        if model.steps == 5:
            raise OSError("the disk is full")

    model.watch = fail
    with pytest.raises(OSError, match="the disk is full"):
        pruner.compress(STEPS, None)
    assert evaluator.model is None
    assert model._trainer is None
    assert model.training_step.__func__ is Learner.training_step
    assert model.configure_optimizers.__func__ is Learner.configure_optimizers
    pruner.unwrap_model()
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == before
    # And the next try trains as if nothing had been.
    pruner.wrap_model()
    model.steps, model.watch = 0, lambda: None
    pruner.compress(STEPS, None)
    assert pruner.dynamic.step_number == STEPS


def test_a_wrapped_model_that_has_trained_can_be_saved_as_safetensors():
    model = Learner()
    pruner_of(model, evaluator_of()).compress(STEPS, None)
    saved = safetensors.torch.load(safetensors.torch.save(model.state_dict()))  # refuses tensors that share memory
    assert "net.0._nni_wrapper.weight_mask" in saved


class Answerer(nn.Module):
    """What the trainer of transformers trains: keywords in, a mapping with the loss out; samples come first."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()
        self.calls = 0

    def forward(self, x, labels=None):
        self.calls += self.training
        reset_(self)
        logits = self.net(x.transpose(0, 1))
        return {"logits": logits.mean(0)} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})


def samples():
    return [{"x": x[:, i], "labels": y[i]} for x, y in map(batch, range(EPOCH)) for i in range(len(y))]


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    """Makes a traced trainer of transformers that takes its batches in order."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # tests/datasets is on the path of these tests, and is not the library that the trainer looks for.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return None

    def make(model, optimizer=None, **options):
        options = {"max_grad_norm": 0.0, "lr_scheduler_type": "constant", "learning_rate": 0.01, **options}
        arguments = transformers.TrainingArguments(
            str(tmp_path), per_device_train_batch_size=8, per_device_eval_batch_size=8, use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        data = {"train_dataset": samples(), "eval_dataset": samples()[:16]}
        return nni.trace(InOrder)(model=model, args=arguments, optimizers=(optimizer, None), **data)

    return make


def adam(model):
    return nni.trace(torch.optim.Adam)(model.parameters(), lr=0.01)


def test_masks_and_weights_under_transformers_are_those_of_any_loop(trainer_of):
    model = Answerer()
    pruner = pruner_of(model, TransformersEvaluator(trainer_of(model, adam(model))), paths=False)
    _, masks = pruner.compress(STEPS, None)
    pruner.unwrap_model()
    assert pruner.dynamic.step_number == STEPS

    other = Answerer()
    optimizer = torch.optim.Adam(other.parameters(), lr=0.01)
    schedule = {"density": schedules.cubic(first=1.0, last=0.2), "distribution": "erk", "paths": False}
    loop = DynamicPruner(other, optimizer, every=f"{EVERY}it", until=f"{EVERY * TIMES}it", **schedule, **COMMON)
    for step in range(STEPS):
        x, y = batch(step % EPOCH)
        other(x.transpose(0, 1), labels=y)["loss"].backward()
        optimizer.step()
        loop.step()
        optimizer.zero_grad()
    loop.finish()
    last = [{weight_name(name): mask["weight"].bool() for name, mask in masks.items()}]
    assert_equal_bit_by_bit((other, [loop.masks], loop), (model, last, pruner.dynamic))


@pytest.mark.parametrize("pruner_first", [True, False])
def test_a_pruner_and_a_distiller_both_act_under_transformers_and_an_evaluation_is_left_alone(trainer_of, pruner_first):
    model = Answerer()
    evaluator = TransformersEvaluator(trainer_of(model, adam(model), eval_strategy="steps", eval_steps=4))
    lessons = {"guide": "virtual", "origin_loss_lambda": 0.7}
    if pruner_first:
        pruner = pruner_of(model, evaluator, paths=False)
        head = distiller = ReverseKDDistiller.from_compressor(pruner, LOGITS, **lessons)
    else:
        distiller = ReverseKDDistiller(model, LOGITS, evaluator, **lessons)
        options = {"interval_steps": EVERY, "total_times": TIMES, "distribution": "erk", "paths": False, **COMMON}
        head = pruner = SpikingDynamicPruner.from_compressor(distiller, WEIGHTS, **options)
    head.compress(STEPS, None)
    assert pruner.dynamic.step_number == distiller._step == STEPS
    alone = Answerer()
    pruner_of(alone, TransformersEvaluator(trainer_of(alone, adam(alone))), paths=False).compress(STEPS, None)
    taught, untaught = (parameter_of(each.net[7]) for each in (model, alone))
    assert not torch.equal(taught, untaught), "the guide taught nothing"
    assert pruner.dynamic.density == pytest.approx(0.2, abs=0.001)


def test_the_schedule_of_agp_holds_the_pruner_under_transformers_with_its_own_optimizer(trainer_of):
    model = Answerer()
    evaluator = TransformersEvaluator(trainer_of(model, max_steps=5, gradient_accumulation_steps=2))
    pruner = pruner_of(model, evaluator, paths=False)
    AGPPruner(pruner, interval_steps=EVERY, total_times=TIMES).compress(None, 4)
    # Eleven batches make six steps; the five steps of the user's own do not end it.
    assert pruner.dynamic.step_number == 4 * 6
    assert model.calls == 4 * EPOCH
    assert pruner.dynamic.density == pytest.approx(0.2, abs=0.001)
    assert evaluator.traced_trainer.args.max_steps == 5


def test_the_transformers_evaluator_of_nni_is_refused_because_it_cannot_train(trainer_of):
    model = Answerer()
    with pytest.raises(AssertionError):
        AGPPruner(
            LevelPruner(model, WEIGHTS, PlainTransformersEvaluator(trainer_of(model, adam(model)))), EVERY, TIMES
        ).compress(STEPS, None)
    model = Answerer()
    pruner = pruner_of(model, PlainTransformersEvaluator(trainer_of(model, adam(model))))
    for head in (pruner, AGPPruner(pruner, EVERY, TIMES)):
        with pytest.raises(BadOption, match="use snnsl_plugin.for_nni.TransformersEvaluator"):
            head.compress(STEPS, None)
        head.unwrap_model()
        head.wrap_model()
