"""Layers against torch's own and closed forms."""

import torch
from torch.nn import functional

from foodgen.layers.attention import SelfAttention, dot_product_attention
from foodgen.layers.conditioning import sinusoidal
from foodgen.layers.convolution import group_norm
from foodgen.layers.fastgan import gated_linear_unit
from foodgen.layers.residual import ResidualBlock


def test_attention_in_bf16_training_is_torchs():
    query, key, value = (torch.randn(2, 3, 9, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    ours = dot_product_attention(query, key, value)
    exact = functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    torch.testing.assert_close(ours.float(), exact, atol=0.02, rtol=0.02)
    gradients = torch.autograd.grad(ours.float().sum(), (query, key, value), retain_graph=True)
    for own, other in zip(gradients, torch.autograd.grad(exact.sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(own.float(), other.float(), atol=0.05, rtol=0.05)


def test_group_norm_is_torchs_and_keeps_the_memory_format():
    norm, reference = group_norm(16), torch.nn.GroupNorm(4, 16, eps=1e-6)
    for layer in (norm, reference):
        torch.nn.init.constant_(layer.weight, 1.5)
    x = torch.randn(2, 16, 5, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(last), reference(x))
    assert norm(last).is_contiguous(memory_format=torch.channels_last) and norm(x).is_contiguous()


def test_gated_units_gradient_keeps_the_memory_format():
    x = torch.randn(2, 8, 5, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(gated_linear_unit(x).float().square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    (expected,) = torch.autograd.grad(functional.glu(x.float(), dim=1).square().sum(), x)
    torch.testing.assert_close(gradient, expected, atol=0.05, rtol=0.05)


def test_attention_is_torchs_multihead_attention():
    layer = SelfAttention(16, heads=4)
    torch.nn.init.normal_(layer.out.weight, std=0.3)
    x = torch.randn(2, 16, 3, 5)
    reference = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(layer.to_query_key_value.weight[:, :, 0, 0])
        reference.in_proj_bias.copy_(layer.to_query_key_value.bias)
        reference.out_proj.weight.copy_(layer.out.weight[:, :, 0, 0])
        reference.out_proj.bias.copy_(layer.out.bias)
    tokens = layer.norm(x).flatten(2).transpose(1, 2)
    expected = x + reference(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_new_blocks_are_their_shortcuts():
    x, condition = torch.randn(2, 8, 4, 4), torch.randn(2, 32)
    torch.testing.assert_close(ResidualBlock(8, 8, 32)(x, condition), x)
    torch.testing.assert_close(SelfAttention(8)(x), x)


def test_sinusoids():
    embedded = sinusoidal(torch.tensor([0.0, 3.0]), 8)
    assert embedded.shape == (2, 8)
    torch.testing.assert_close(embedded[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(embedded[1, [0, 4]], torch.tensor([3.0]).repeat(2).cos() * torch.tensor([1, 0])
                               + torch.tensor([3.0]).repeat(2).sin() * torch.tensor([0, 1]))  # fmt: skip
    torch.testing.assert_close(functional.normalize(embedded).norm(dim=1), torch.ones(2))


def test_groups_divide_the_channels():
    assert [group_norm(channels).num_groups for channels in (256, 64, 48, 8, 3)] == [32, 16, 12, 2, 1]
