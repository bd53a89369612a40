"""One model per file: `name(input_shape, classes, *, options)` gives a module from spikes to logits per step."""
