"""One sentence for every measure, printed wherever its number is."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "accuracy": (
        "Share of samples whose largest time-mean logit is the label; the test set is read once, at the epoch chosen on"
        " validation data (`test`) and at the last epoch (`test_last`)."
    ),
    "loss": "Mean cross-entropy of the time-mean logits, in nats.",
    "density": (
        "Kept weights / all weights, over every convolution and linear layer, first and last included; layers left out"
        " of pruning count as kept."
    ),
    "connections": (
        "Kept weights on a live path: reachable from the input and reaching an output; a channel that fires by its bias"
        " alone starts no path."
    ),
    "regrown": "Connections that mask updates grew, added up over the run.",
    "synops_per_sample": (
        "Synaptic operations: kept, non-zero synapses driven by 0/1 inputs, added up over layers and all time steps;"
        " one accumulate each."
    ),
    "macs_per_sample": (
        "Multiply-accumulates of layers whose input is not 0/1 (pixels, event counts, averages, sums of spikes), over"
        " all time steps; zero inputs and zero weights cost nothing."
    ),
    "energy_pj_per_sample": (
        "A model, not a measurement: 4.6 pJ per multiply-accumulate and 0.9 pJ per accumulate (45 nm, arithmetic only,"
        " Horowitz 2014), with 5.5 pJ per neuron and step; memory is left out; the total computes the input layer in"
        " all T steps."
    ),
    "firing_rate": "Share of the neurons of a layer that fire in a time step, averaged over samples, in [0, 1].",
    "silent": "Share of the neurons of a layer (every channel and site) that never fired on any sample.",
    "parameters": "All trainable numbers of the dense model, and those left after the masks.",
    "latency_ms": (
        "Median wall time for one sample at batch size 1, on this machine with dense kernels: masked connections do"
        " not shorten it, channels that are cut out do."
    ),
    "peak_memory_mib": "Most memory this process ever held (on a GPU, most that torch allocated), in MiB.",
    "wall_s": "Wall time of the whole run in seconds, the dense phase included.",
    "seconds_per_epoch": "Median wall time of one training epoch in seconds.",
}
