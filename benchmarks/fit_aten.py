"""Fit the model of ATen's time to measured records. Needs no GPU.

    python -m benchmarks.fit_aten aot/tuned/nvidia_h200.jsonl \
        --also benchmarks/results/aten_volumes_h200.json --out csrc/dispatch/aten_fit.hpp

Least squares on the logarithm of the time, for 32- and 16-bit types and both layouts. The error
that it prints is of layers left out of the fit, a fifth at a time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from benchmarks.regret import fold_of
from convt import _C, records, tables
from convt.records import Layer

LAUNCH_US, FEATURES = _C.aten_launch_us, _C.aten_features
RIDGE = 0.3  # keeps weights of features that few layers have small
FOLDS = 5


def fit(features: np.ndarray, logs: np.ndarray) -> np.ndarray:
    square = features.T @ features + RIDGE * np.eye(features.shape[1])
    return np.linalg.solve(square, features.T @ logs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--also", type=Path, help="JSON of layers that no kernel was timed on")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table = records.read(arguments.records)
    gpu = _C.Gpu.preset(table.header.device)
    times = {record.layer: record.aten_us for record in table.records}
    if arguments.also:
        rows = json.loads(arguments.also.read_text())
        times |= {Layer.parse(row["problem"]): row["aten_us"] for row in rows}
    weights = []
    for bits in (32, 16):
        for layout in ("nchw", "nhwc"):
            layers = [
                layer
                for layer in times
                if layer.layout == layout and (layer.math in ("f16", "bf16")) == (bits == 16)
            ]
            features = np.array([FEATURES(tables.problem_of(layer), gpu) for layer in layers])
            us = np.array([times[layer] for layer in layers])
            logs = np.log(np.maximum(us - LAUNCH_US, 0.5))
            folds = np.array([fold_of(layer, FOLDS) for layer in layers])
            errors = []
            for fold in range(FOLDS):
                inside, outside = folds != fold, folds == fold
                expected = LAUNCH_US + np.exp(
                    features[outside] @ fit(features[inside], logs[inside])
                )
                errors += list(abs(np.log(expected / us[outside])))
            half, most = (math.expm1(np.quantile(errors, q)) for q in (0.5, 0.9))
            print(
                f"{bits} bits, {layout}: {len(layers)} layers, off by {half:.0%} at the median, "
                f"{most:.0%} at the ninth decile"
            )
            weights.append(fit(features, logs))
    rows = ["{" + ", ".join(f"{w:.3f}" for w in row) + "}" for row in weights]
    arguments.out.write_text(
        f"// Written by benchmarks/fit_aten.py from {arguments.records.name}.\n#pragma once\n\n"
        '#include "dispatch/aten.hpp"\n\nnamespace convt {\n\n'
        "// Weights of aten_features, by [16 bits][channels_last].\n"
        "inline constexpr std::array<double, kAtenFeatures> kAtenFit[2][2] = {\n"
        f"    {{{{{rows[0]}}},\n     {{{rows[1]}}}}},\n"
        f"    {{{{{rows[2]}}},\n     {{{rows[3]}}}}}}};\n\n"
        "}  // namespace convt\n"
    )


if __name__ == "__main__":
    main()
