import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trajplan.errors import CheckpointError, DataError
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.tokenizers.tokenizer import Tokenizer

KINDS = ("quantile", "uniform")


@pytest.fixture
def joined() -> np.ndarray:
    """(500, 6): normal, mostly 0, constant, three actions, few values, heavy tails."""
    rng = np.random.default_rng(0)
    columns = [
        rng.normal(size=500),
        np.where(rng.random(500) < 0.9, 0, rng.random(500)),
        np.full(500, 0.1),
        rng.integers(0, 3, 500),
        rng.integers(0, 7, 500) / 3,
        rng.standard_cauchy(500),
    ]
    return np.stack(columns, 1).astype(np.float32)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, joined: np.ndarray) -> Tokenizer:
    return fit_tokenizer(request.param, joined, 20, [None, None, None, 3, None, None])


def brute_force_encode(tokenizer: Tokenizer, x: np.ndarray) -> np.ndarray:
    """Tokens by the definition of a bin, one number at a time in float64."""
    tokens = np.empty(x.shape, dtype=np.int64)
    edges = tokenizer.edges.double().numpy()
    for row, dim in np.ndindex(x.shape):
        size = int(tokenizer.sizes[dim])
        inside = [i for i in range(size) if edges[dim, i] <= x[row, dim] < edges[dim, i + 1]]
        above = x[row, dim] >= edges[dim, size]
        tokens[row, dim] = inside[0] if inside else size - 1 if above else 0
    return tokens


def test_encode_is_the_definition_of_a_bin_also_at_and_beside_every_edge(
    tokenizer: Tokenizer, joined: np.ndarray
) -> None:
    edges = tokenizer.edges.numpy().T
    edges = np.where(np.isfinite(edges), edges, 0)
    beside = [np.nextafter(edges, np.float32(way)) for way in (-np.inf, np.inf)]
    x = np.concatenate([joined[:100], edges, *beside, joined[:5] * 50])
    tokens = tokenizer.encode(torch.from_numpy(x))
    assert tokens.dtype == torch.int64
    np.testing.assert_array_equal(tokens.numpy(), brute_force_encode(tokenizer, x))


def test_every_token_that_data_produces_comes_back_from_its_value(tokenizer: Tokenizer) -> None:
    for dim, size in enumerate(tokenizer.sizes.tolist()):
        tokens = torch.arange(size)[:, None]
        dims = slice(dim, dim + 1)
        assert torch.equal(tokenizer.encode(tokenizer.decode(tokens, dims), dims), tokens)


def test_any_leading_shape_and_any_slice_of_dimensions(tokenizer: Tokenizer, joined: np.ndarray) -> None:
    x = torch.from_numpy(joined)
    tokens, values = tokenizer.encode(x), tokenizer.decode(tokenizer.encode(x))
    folded = tokenizer.encode(x.reshape(5, 10, 10, 6))
    assert torch.equal(folded, tokens.reshape(5, 10, 10, 6))
    assert torch.equal(tokenizer.encode(x[7]), tokens[7])
    for dims in (slice(0, 2), slice(2, 5), slice(-2, None), slice(5, 6)):
        assert torch.equal(tokenizer.encode(x[:, dims], dims), tokens[:, dims])
        assert torch.equal(tokenizer.decode(tokens[:, dims].reshape(50, 10, -1), dims).flatten(0, 1), values[:, dims])
    assert tokenizer.encode(x[:0]).shape == (0, 6)
    assert values.dtype == torch.float32
    with pytest.raises(DataError, match="5 dimensions"):
        tokenizer.encode(x[:, :5])


def test_what_cannot_be_a_token_is_an_error_and_never_wraps_around(tokenizer: Tokenizer) -> None:
    for token in (-1, tokenizer.bins):
        with pytest.raises(RuntimeError, match="out of bounds"):
            tokenizer.decode(torch.full((1, 6), token))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_encode_refuses_what_is_not_finite(tokenizer: Tokenizer, joined: np.ndarray, value: float) -> None:
    x = torch.from_numpy(joined.copy()).reshape(10, 50, 6)
    x[1, 2, 4] = value
    with pytest.raises(DataError, match=f"Dimension 4 is {value} in row 52"):
        tokenizer.encode(x)
    with pytest.raises(DataError, match=f"Dimension 4 is {value} in row 52"):
        tokenizer.encode(x[..., 3:], slice(3, None), check=False)  # on the CPU the check is always made
    with pytest.raises(DataError, match="Dimension 0 is inf"):
        tokenizer.encode(torch.full((1, 6), 1e300, dtype=torch.float64))


def test_values_outside_the_fitted_range_are_clipped_and_counted(tokenizer: Tokenizer, joined: np.ndarray) -> None:
    low, high = torch.from_numpy(joined.min(0)), torch.from_numpy(joined.max(0))
    x = torch.stack([low, high, low - 1, high + 1, high + 1e6])
    last = tokenizer.sizes - 1
    assert torch.equal(tokenizer.encode(x), torch.stack([last * 0, last, last * 0, last, last]))
    assert tokenizer.count_clipped(x).tolist() == [3] * 6
    assert tokenizer.count_clipped(x.expand(4, 5, 6)[..., 2:4], slice(2, 4)).tolist() == [12, 12]
    assert tokenizer.count_clipped(torch.from_numpy(joined)).tolist() == [0] * 6


def test_expectation_is_the_mean_of_the_bins_values(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(20), size=(3, 4))
    for dim in (0, 1, -1):
        expected = (probabilities * tokenizer.values[dim].double().numpy()).sum(-1)
        found = tokenizer.expectation(torch.from_numpy(probabilities), dim)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="leave out the stop token"):
        tokenizer.expectation(torch.ones(21) / 21, 0)


def brute_force_percentile(probabilities: np.ndarray, values: np.ndarray, q: float) -> float:
    """The least value, of those with any mass, with at least q of the mass at or below it."""
    total, mass = probabilities.sum(), 0.0
    for probability, value in zip(probabilities, values, strict=True):
        mass += probability
        if probability > 0 and mass >= q * total:
            return value
    raise AssertionError("no mass")


@pytest.mark.parametrize("q", [0.0, 0.05, 0.25, 0.5, 0.9, 0.99, 1.0])
def test_percentile(tokenizer: Tokenizer, q: float) -> None:
    rng = np.random.default_rng(2)
    # Multiples of 1/64 add up without rounding, so that ties with q are met exactly.
    probabilities = rng.multinomial(64, np.ones(20) / 20, size=50) / 64
    values = tokenizer.values[0].numpy()
    expected = [brute_force_percentile(row, values, q) for row in probabilities]
    found = tokenizer.percentile(torch.from_numpy(probabilities).float().reshape(5, 10, 20), q, 0)
    np.testing.assert_array_equal(found.flatten().numpy(), np.array(expected, dtype=np.float32))


def test_percentile_stays_within_the_bins_that_have_mass(tokenizer: Tokenizer) -> None:
    lowest, highest = torch.eye(20)[0], torch.eye(20)[-1]
    for q in (0.0, 0.3, 1.0):
        assert tokenizer.percentile(lowest, q, 0) == tokenizer.values[0, 0]
        assert tokenizer.percentile(highest, q, 0) == tokenizer.values[0, -1]
    # Rounded sums below one must not run past the end.
    tenths = torch.zeros(20)
    tenths[3:13] = 0.0999
    assert tokenizer.percentile(tenths, 1.0, 0) == tokenizer.values[0, 12]
    assert tokenizer.percentile(tenths, 0.0, 0) == tokenizer.values[0, 3]


def test_reconstruction_error_is_that_of_a_round_trip(tokenizer: Tokenizer, joined: np.ndarray) -> None:
    x = np.concatenate([joined, joined[:3] * 100])
    back = tokenizer.decode(tokenizer.encode(torch.from_numpy(x))).double().numpy()
    error = np.abs(back - x)
    report = tokenizer.reconstruction_error(x, chunk=64)
    np.testing.assert_allclose(report.mean, error.mean(0), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(report.maximum, error.max(0), rtol=1e-6)
    spread = x.astype(np.float64).std(0)
    np.testing.assert_allclose(report.relative, np.sqrt((error**2).mean(0)) / spread, rtol=1e-6, atol=1e-12)
    assert report.clipped.tolist() == tokenizer.count_clipped(torch.from_numpy(x)).tolist()
    assert report.mean[3] > 0  # 200 is no action of three
    constant = tokenizer.reconstruction_error(joined)
    assert constant.relative[2] == 0
    assert constant.maximum[2] == 0
    assert json.loads(json.dumps(constant.to_dict()))["clipped"] == [0] * 6


def test_save_and_load_are_equal_to_the_bit(tokenizer: Tokenizer, joined: np.ndarray, tmp_path) -> None:
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer.safetensors"]
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.kind, loaded.bins, loaded.num_dims) == (tokenizer.kind, 20, 6)
    for name in ("edges", "values", "sizes"):
        ours, theirs = getattr(tokenizer, name), getattr(loaded, name)
        assert ours.dtype == theirs.dtype
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
    x = torch.from_numpy(joined)
    assert torch.equal(loaded.encode(x), tokenizer.encode(x))
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    loaded.save(tmp_path)
    assert before == [path.read_bytes() for path in sorted(tmp_path.iterdir())]


def test_the_files_hold_edges_and_not_the_data(tmp_path) -> None:
    joined = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    fit_tokenizer("quantile", joined, 10).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.safetensors"])
def test_load_refuses_a_missing_file(tokenizer: Tokenizer, tmp_path, name: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Tokenizer.load(tmp_path)


def test_load_refuses_a_flipped_bit_and_a_half_written_file(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.safetensors"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 1
    for damaged in (bytes(flipped), content[:-8], b""):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is not the file that tokenizer"):
            Tokenizer.load(tmp_path)
    path.write_bytes(content)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[:40])
    with pytest.raises(CheckpointError, match="is not JSON"):
        Tokenizer.load(tmp_path)


def test_load_refuses_the_tensors_of_another_tokenizer(tokenizer: Tokenizer, joined: np.ndarray, tmp_path) -> None:
    tokenizer.save(tmp_path / "one")
    fit_tokenizer("quantile", joined[:200], 20, [None, None, None, 3, None, None]).save(tmp_path / "two")
    (tmp_path / "two/tokenizer.safetensors").replace(tmp_path / "one/tokenizer.safetensors")
    with pytest.raises(CheckpointError, match="is not the file"):
        Tokenizer.load(tmp_path / "one")


@pytest.mark.parametrize(
    "change",
    [{"format": 99}, {"bins": "20"}, {"sizes": []}, {"sizes": [21] * 6}, {"sizes": [0] * 6}, {"kind": None}],
)
def test_load_refuses_a_description_that_makes_no_sense(tokenizer: Tokenizer, tmp_path, change: dict) -> None:
    tokenizer.save(tmp_path)
    about = json.loads((tmp_path / "tokenizer.json").read_text()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="tokenizer"):
        Tokenizer.load(tmp_path)


def test_load_refuses_tensors_of_another_shape(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.safetensors"
    about = json.loads((tmp_path / "tokenizer.json").read_text())
    for tensors, reason in (
        ({"edges": tokenizer.edges[:, 1:].contiguous(), "values": tokenizer.values}, "does not fit"),
        ({"edges": tokenizer.edges.double(), "values": tokenizer.values}, "does not fit"),
        ({"edges": tokenizer.edges}, "in place of edges and values"),
    ):
        save_file(tensors, path)
        about["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "tokenizer.json").write_text(json.dumps(about))
        with pytest.raises(CheckpointError, match=reason):
            Tokenizer.load(tmp_path)


@pytest.mark.gpu
def test_a_gpu_gives_the_tokens_and_values_of_the_cpu(tokenizer: Tokenizer, joined: np.ndarray) -> None:
    x = torch.from_numpy(np.concatenate([joined, joined * 3]))
    there = tokenizer.to("cuda")
    tokens = there.encode(x.cuda())
    assert torch.equal(tokens.cpu(), tokenizer.encode(x))
    assert torch.equal(there.decode(tokens).cpu(), tokenizer.decode(tokens.cpu()))
    bad = torch.tensor([float("nan"), float("inf")] * 3, device="cuda")
    with pytest.raises(DataError, match="finite"):
        there.encode(bad)
    assert bool((there.encode(bad, check=False) < there.sizes).all())
    probabilities = torch.rand(9, 20)
    for q in (0.0, 0.5, 1.0):
        assert torch.equal(
            there.percentile(probabilities.cuda(), q, 0).cpu(), tokenizer.percentile(probabilities, q, 0)
        )
