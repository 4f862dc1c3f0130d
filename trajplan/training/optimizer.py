"""AdamW with decay on matrices only, and the learning rate as a pure function of the update."""

import math

import torch
from torch import nn

from trajplan.errors import ConfigError
from trajplan.training.config import TrainConfig


def decayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to.

    These are the weight matrices: of linear layers (transformers' Conv1D included) and of the per-dimension heads.
    Biases, LayerNorm and the embeddings of tokens and positions are left alone.
    """
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return {name for name, p in model.named_parameters() if p.ndim >= 2 and name not in embeddings}


def make_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW, fused where the device has it, with a decayed and an undecayed group of parameters."""
    decayed = decayed_parameters(model)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda", "mps", "xpu")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def learning_rate(update: int, config: TrainConfig) -> float:
    """The rate of update 0, 1, …: linear warm-up to the peak, then half a cosine to `final_learning_rate` of it.

    Warm-up takes `warmup_updates`, at most a tenth of the run; the last update has exactly the final rate.
    """
    if config.updates is None:
        raise ConfigError("updates is none; resolve the settings for a dataset first.")
    warmup = min(config.warmup_updates, config.updates // 10)
    if update < warmup:
        return config.learning_rate * (update + 1) / warmup
    progress = (update - warmup) / max(1, config.updates - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)
