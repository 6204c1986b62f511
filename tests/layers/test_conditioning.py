"""Labels as class numbers and as mixtures of classes."""

import pytest
import torch
from torch.nn import functional

from foodgen.layers.adversarial import ClassTable, spectral_norm
from foodgen.layers.conditioning import LabelEmbedding
from foodgen.models.edm2 import EDM2


@pytest.mark.parametrize("table", [LabelEmbedding(5, 8), ClassTable(5, 8)], ids=["LabelEmbedding", "ClassTable"])
@pytest.mark.parametrize("normed", [False, True])
def test_a_mixture_is_the_mean_of_its_classes(table, normed):
    if normed:
        spectral_norm(table)
    table.eval()
    one, other = (table(torch.tensor([number]), 1) for number in (1, 3))
    mixture = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])
    torch.testing.assert_close(table(mixture, 1), 0.25 * one + 0.75 * other)


def test_edm2_takes_a_class_alone_as_a_mixture():
    torch.manual_seed(0)
    network = EDM2(3, 16, 4, width=16, multipliers=(1, 2), blocks=1, attention_at=(8,)).eval()
    x, time, labels = torch.randn(4, 3, 16, 16), torch.rand(4), torch.arange(4)
    mixtures = functional.one_hot(labels, 4).float()
    torch.testing.assert_close(network(x, time, mixtures), network(x, time, labels))
