"""Outlier features straight from the words of a definition, in float64 NumPy."""

import numpy as np
import pandas as pd
import torch
from conftest import WINDOWS
from outlier_features.config.entries import Definition


def naive_features(raw: dict[str, np.ndarray], definition: Definition, relative: bool) -> pd.DataFrame:
    """Return channel, sequence and the main columns of every feature, straight from the words of the definition."""
    x = np.stack([raw[site][block] for block in range(len(raw["mlp_in"])) for site in definition.sites])
    names = [f"{block}.{site}" for block in range(len(raw["mlp_in"])) for site in definition.sites]
    if definition.rounding and not relative:
        x = torch.from_numpy(x).bfloat16().double().numpy()
    unit = np.sqrt((x**2).mean(axis=(2, 3), keepdims=True)) if relative else np.ones((*x.shape[:2], 1, 1))
    hit = np.abs(x) / unit >= definition.threshold
    rows = []
    for sequence in range(WINDOWS) if definition.scope == "sequence" else [None]:
        part = slice(None) if sequence is None else slice(sequence, sequence + 1)
        for channel in range(x.shape[-1]):
            h, v = hit[:, part, :, channel], x[:, part, :, channel]
            layers = h.any(axis=(1, 2)).mean()
            positions = h.any(axis=0).mean()
            if h.any() and layers >= definition.min_layers and positions >= definition.min_positions:
                rows.append(
                    {
                        "sequence": sequence,
                        "channel": channel,
                        "layer_share": layers,
                        "position_share": positions,
                        "position_share_mean": h.mean(),
                        "max_value": v.flat[np.abs(v).argmax()],
                        "hit_count": h.sum(),
                        "one_sided": (v[h] > 0).all() or (v[h] < 0).all(),
                        "layers": [n for n, any_hit in zip(names, h.any(axis=(1, 2)), strict=True) if any_hit],
                        "quartiles": np.percentile(np.abs(v / unit[:, part, :, 0])[h], [25, 50, 75]),
                    }
                )
    return pd.DataFrame(rows)
