"""The text encoder against `UMT5EncoderModel`."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from mirage_jax.models import functional  # noqa: E402
from mirage_jax.models.text_encoder import TextEncoderConfig  # noqa: E402
from tests.parity.counterparts import text_encoder_pair  # noqa: E402


def test_text_encoder_equals_transformers(random, compare):
    heads = int(random.integers(1, 5))
    config = TextEncoderConfig(
        vocabulary=int(random.integers(20, 99)),
        width=int(random.integers(8, 64)),
        attention_width=heads * int(random.integers(2, 17)),
        mlp_width=int(random.integers(8, 99)),
        heads=heads,
        layers=int(random.integers(1, 5)),
        buckets=4 * int(random.integers(2, 9)),
        max_distance=int(random.integers(16, 128)),
    )
    pair = text_encoder_pair(config)
    batch, length = int(random.integers(1, 4)), int(random.integers(2, 150))
    ids = random.integers(0, config.vocabulary, (batch, length))
    mask = np.arange(length) < random.integers(1, length + 1, (batch, 1))
    with torch.no_grad():
        out = pair.theirs(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))
    expected = out.last_hidden_state.numpy() * mask[..., None]  # the pipelines zero padding
    run = jax.jit(lambda params, ids, mask: functional.apply(config, params, ids, mask))
    compare("embeddings", run(pair.params, ids, mask), expected, (batch, length), config)
