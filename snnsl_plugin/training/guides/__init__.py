"""Who teaches. A guide looks at a batch and says what it would answer, as log-probabilities.

A guide is any callable `guide(x, target, classes, soften) -> Lesson`, and may have `observe(model, step)` (called after
each optimizer step), `state_dict()` and `load_state_dict(state)`. One with `reads_logits = True` is called with the
learner's own logits (T, N, K) as `x`, in place of the input.
"""
