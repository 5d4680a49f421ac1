"""PyTorch, lean: binary cross-entropy with logits, densities by hand; eager, or through torch.compile."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.contenders import EPSILON, LEARNING_RATE, split


class Block(nn.Module):
    def __init__(self, pairs):
        super().__init__()
        self.layers = nn.ModuleList()
        for kernel, bias in pairs:
            layer = nn.Linear(*kernel.shape)
            layer.weight.data, layer.bias.data = torch.tensor(kernel.T).contiguous(), torch.tensor(bias)
            self.layers.append(layer)

    def forward(self, x):
        first, second, *heads = self.layers
        h = torch.tanh(second(torch.tanh(first(x))))
        return [head(h) for head in heads]


def log_normal(z, mean, log_std):
    return (-0.5 * math.log(2 * math.pi) - log_std - 0.5 * ((z - mean) * torch.exp(-log_std)) ** 2).sum(-1)


class Model(nn.Module):
    def __init__(self, weights, layers):
        super().__init__()
        self.blocks = nn.ModuleList(Block(pairs) for pairs in split(weights, layers))

    def forward(self, x, noise):
        *gaussians, likelihood = self.blocks
        mean, log_std = gaussians[0](x)
        z1 = z = mean + torch.exp(log_std) * noise[0]
        log_w = -log_normal(z1, mean, log_std)
        if len(gaussians) > 1:
            mean, log_std = gaussians[1](z1)
            z = mean + torch.exp(log_std) * noise[1]
            log_w = log_w - log_normal(z, mean, log_std) + log_normal(z1, *gaussians[2](z))
        zero = torch.zeros(())
        log_w = log_w + log_normal(z, zero, zero)
        (logits,) = likelihood(z1)
        log_w = log_w - binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        return (torch.logsumexp(log_w, 0) - math.log(len(log_w))).mean()


def build(spec, weights, images):
    model = Model(weights, spec["layers"])
    bound = torch.compile(model) if spec.get("compile") else model
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=EPSILON)
    data, n, batch, k = torch.tensor(images), len(images), spec["batch_size"], spec["n_samples"]
    widths = [100] if spec["layers"] == 1 else [100, 50]

    def run(n_steps):
        for _ in range(n_steps):
            x = torch.bernoulli(data[torch.randint(n, (batch,))].float() / 255)
            noise = [torch.randn(k, batch, width) for width in widths]
            optimizer.zero_grad()
            loss = -bound(x, noise)
            loss.backward()
            optimizer.step()
        loss.item()

    return lambda x, noise: model(torch.tensor(x), [torch.tensor(np.array(e)) for e in noise]).item(), run
