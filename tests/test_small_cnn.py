from __future__ import annotations

import pytest
import torch

from tristream.streams.small_cnn import SegmentClassifier, SmallCNN


def small(**options):
    torch.manual_seed(0)
    return SmallCNN(3, (4, 8), **options).eval()


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (5, 64), (1, 1)])
def test_frames_of_any_size_give_one_value_per_channel_of_the_last_block(size):
    network = small()
    assert network(torch.randn(2, 3, *size)).shape == (2, network.embedding_dim) == (2, 8)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (3, 5)])
def test_an_embedding_layer_is_built_for_sizes_that_do_not_divide(size):
    network = small(input_size=size, embedding_dim=10)
    assert network(torch.randn(2, 3, *size)).shape == (2, 10)


def test_without_an_embedding_layer_the_position_of_objects_does_not_matter():
    """Far from the border, moved by whole pooling steps."""
    network, picture = small(), torch.zeros(1, 3, 48, 48)
    patch = torch.randn(3, 8, 8)
    embeddings = []
    for place in (16, 20):
        moved = picture.clone()
        moved[0, :, place : place + 8, place : place + 8] = patch
        embeddings.append(network(moved))
    torch.testing.assert_close(*embeddings, rtol=1e-4, atol=1e-6)
    with_layer = small(input_size=(48, 48), embedding_dim=8)
    first, second = (with_layer(m) for m in (picture, moved))
    assert not torch.allclose(first, second)


def test_an_embedding_layer_needs_the_size_of_its_input():
    with pytest.raises(ValueError, match=r"embedding_dim=10 needs input_size"):
        SmallCNN(3, embedding_dim=10)


def test_a_classifier_is_a_linear_function_of_the_embedding():
    network = SegmentClassifier(small(), 8, 5, dropout=0.9).eval()
    pictures = torch.randn(4, 3, 16, 16)
    linear = network.classifier[-1]
    expected = network.embed(pictures) @ linear.weight.T + linear.bias
    torch.testing.assert_close(network(pictures), expected)
