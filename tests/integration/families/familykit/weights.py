"""Random weights that let every input through."""

from __future__ import annotations

from typing import Any

import torch


def randomize(module: Any, seed: int) -> Any:
    """Fill all parameters; many models start with zeros where the conditioning comes in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / max(fan_in, 1) ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return module.eval()


def seeded(*modules: Any) -> None:
    for seed, module in enumerate(modules):
        if isinstance(module, torch.nn.Module):
            randomize(module, seed)
