"""The tokenizer: every dimension of a transition has its own bins, a token is the bin's number.

Shapes: J dimensions of a transition, V bins, d the dimensions that `dims` selects.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from trajplan.errors import CheckpointError, DataError
from trajplan.files import replacing

JSON_NAME = "tokenizer.json"
TENSORS_NAME = "tokenizer.safetensors"
FORMAT = 1
EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class ReconstructionError:
    """How far `decode(encode(x))` is from `x`, per dimension, in the data's own units; each tensor is (J,)."""

    mean: torch.Tensor
    """Mean absolute error, float64."""
    maximum: torch.Tensor
    """Largest absolute error, float32."""
    relative: torch.Tensor
    """Root mean square error over the standard deviation of `x`, float64 (0 for a constant without error)."""
    clipped: torch.Tensor
    """Values outside the fitted range, int64."""

    def to_dict(self) -> dict[str, list[float]]:
        """The numbers as JSON-able lists."""
        return {name: getattr(self, name).tolist() for name in ("mean", "maximum", "relative", "clipped")}


class Tokenizer:
    """Bins per dimension (Janner, Li, Levine 2021, section 2.1).

    Bin i of dimension j is `edges[j, i] <= x < edges[j, i + 1]`; the last bin in use holds its upper edge too.
    Dimensions may use fewer than V bins; what lies beyond `sizes[j]` is padding that no data encodes to.

    Attributes:
        kind: how the edges were fitted, "uniform" or "quantile".
        edges: (J, V + 1) float32, rising; infinite beyond `sizes[j]`.
        values: (J, V) float32, what each token decodes to; the last bin's value repeated beyond `sizes[j]`.
        sizes: (J,) int64, bins in use.
        bins: V.
    """

    def __init__(self, kind: str, edges: torch.Tensor, values: torch.Tensor, sizes: torch.Tensor) -> None:
        self.kind = kind
        self.edges = edges.contiguous()
        self.values = values.contiguous()
        self.sizes = sizes
        self.bins: int = values.shape[1]
        self._low = edges[:, 0]
        self._high = edges.gather(1, sizes[:, None])[:, 0]
        # The upper edge of the last bin separates nothing, so values above it fall into that bin.
        inner = torch.arange(1, self.bins, device=edges.device) < sizes[:, None]
        self._inner = edges[:, 1:-1].masked_fill(~inner, torch.inf).contiguous()

    @property
    def num_dims(self) -> int:
        """J, tokens in a transition."""
        return self.edges.shape[0]

    def to(self, device: torch.device | str) -> "Tokenizer":
        """The same tokenizer with its tensors on `device`."""
        return Tokenizer(self.kind, self.edges.to(device), self.values.to(device), self.sizes.to(device))

    def encode(self, x: torch.Tensor, dims: slice = EVERY, *, check: bool = True) -> torch.Tensor:
        """Tokens of values; a value outside the fitted range gets the nearest bin (see `count_clipped`).

        Args:
            x: (..., d) values of the dimensions `dims`, on the tokenizer's device; compared in float32.
            dims: which dimensions `x` holds.
            check: False leaves out the check for NaN and infinity on a GPU, where it waits for the device;
                on the CPU the check is always made.

        Returns:
            (..., d) int64 tokens, below `sizes`.

        Raises:
            DataError: if `x` holds NaN or infinity, or has another number of dimensions.
        """
        inner = self._inner[dims]
        x = x.to(torch.float32)
        if x.shape[-1] != len(inner):
            raise DataError(f"The values have {x.shape[-1]} dimensions, the tokenizer has {len(inner)} of them.")
        if check or x.device.type == "cpu":
            _refuse_not_finite(x, dims.indices(self.num_dims)[0])
        columns = x.reshape(-1, len(inner)).T.contiguous()
        tokens = torch.searchsorted(inner, columns, right=True).T.contiguous()
        # Only unchecked NaN and infinity lie beyond the last bin: the clamp keeps them legal indices.
        tokens = tokens if x.device.type == "cpu" else tokens.minimum(self.sizes[dims] - 1)
        return tokens.reshape(x.shape)

    def decode(self, tokens: torch.Tensor, dims: slice = EVERY) -> torch.Tensor:
        """Values of tokens: the mean of the fitted data in the bin, (..., d) int64 to (..., d) float32.

        A token that is negative or V and more (the stop token) is an index error.
        """
        values = self.values[dims]
        return values.expand(*tokens.shape, self.bins).gather(-1, tokens[..., None])[..., 0]

    def expectation(self, probabilities: torch.Tensor, dim: int) -> torch.Tensor:
        """The mean value under predicted probabilities.

        Args:
            probabilities: (..., V), which sum to one over the bins (without the stop token).
            dim: the dimension they are of.

        Returns:
            (...) float32.
        """
        self._check_probabilities(probabilities)
        return probabilities.to(torch.float32) @ self.values[dim]

    def percentile(self, probabilities: torch.Tensor, q: float, dim: int) -> torch.Tensor:
        """The value of the first bin at which the cumulative probability reaches `q`, among bins with any.

        Args:
            probabilities: (..., V), of any positive sum.
            q: from 0 (the lowest bin with mass) to 1 (the highest).
            dim: the dimension they are of.

        Returns:
            (...) float32.
        """
        self._check_probabilities(probabilities)
        mass = probabilities.to(torch.float32).cumsum(-1)
        below = (mass < q * mass[..., -1:]) | (mass <= 0)
        return self.values[dim][below.sum(-1)]

    def fitted_range(self, dim: int) -> tuple[float, float]:
        """The least and the greatest value that a dimension was fitted on."""
        return float(self._low[dim]), float(self._high[dim])

    def count_clipped(self, x: torch.Tensor, dims: slice = EVERY) -> torch.Tensor:
        """How many values lie outside the fitted range: `x` (..., d) gives (d,) int64."""
        x = x.to(torch.float32)
        outside = (x < self._low[dims]) | (x > self._high[dims])
        return outside.reshape(-1, x.shape[-1]).sum(0)

    def reconstruction_error(self, x: torch.Tensor | np.ndarray, chunk: int = 1 << 16) -> ReconstructionError:
        """The error of one round trip through tokens, per dimension.

        Args:
            x: (N, J) values, N at least 1.
            chunk: rows worked on at a time.

        Raises:
            DataError: if `x` holds NaN or infinity, or has another number of dimensions.
        """
        device, dims = self.edges.device, self.num_dims
        mean, square, total, deviation = torch.zeros(4, dims, dtype=torch.float64, device=device)
        maximum = torch.zeros(dims, device=device)
        clipped = torch.zeros(dims, dtype=torch.int64, device=device)
        rows = len(x)
        pieces = [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
        for piece in pieces:
            values = torch.as_tensor(x[piece], dtype=torch.float32, device=device)
            error = (self.decode(self.encode(values)) - values).abs()
            mean += error.double().sum(0) / rows
            square += error.double().square().sum(0) / rows
            total += values.double().sum(0) / rows
            maximum = maximum.maximum(error.amax(0))
            clipped += self.count_clipped(values)
        for piece in pieces:
            values = torch.as_tensor(x[piece], dtype=torch.float32, device=device)
            deviation += (values.double() - total).square().sum(0) / rows
        relative = (square / deviation).sqrt().where(square > 0, torch.zeros_like(square))
        return ReconstructionError(mean, maximum, relative, clipped)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer.safetensors` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = save_safetensors({"edges": self.edges.cpu(), "values": self.values.cpu()})
        about = {
            "format": FORMAT,
            "kind": self.kind,
            "bins": self.bins,
            "sizes": self.sizes.tolist(),
            "sha256": hashlib.sha256(tensors).hexdigest(),
        }
        _write_whole(folder / TENSORS_NAME, tensors)
        _write_whole(folder / JSON_NAME, (json.dumps(about, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read what `save` wrote, equal to the bit.

        Raises:
            CheckpointError: if a file is missing, damaged or belongs to another tokenizer.
        """
        folder = Path(folder)
        about, tensors = _read(folder)
        for name, shape in (("edges", (len(about["sizes"]), about["bins"] + 1)), ("values", None)):
            expected = shape or (len(about["sizes"]), about["bins"])
            if tensors[name].dtype != torch.float32 or tuple(tensors[name].shape) != expected:
                raise _damaged(folder, f"{TENSORS_NAME} does not fit {JSON_NAME}: {name} is not {expected} float32")
        return cls(about["kind"], tensors["edges"], tensors["values"], torch.tensor(about["sizes"]))

    def _check_probabilities(self, probabilities: torch.Tensor) -> None:
        if probabilities.shape[-1] != self.bins:
            raise DataError(
                f"There are {probabilities.shape[-1]} probabilities for {self.bins} bins; leave out the stop token."
            )


def _refuse_not_finite(x: torch.Tensor, first_dim: int) -> None:
    if x.numel() == 0:
        return
    low, high = torch.aminmax(x)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        bad = ~torch.isfinite(x.reshape(-1, x.shape[-1]))
        row, dim = bad.nonzero()[0].tolist()
        value = x.reshape(-1, x.shape[-1])[row, dim].item()
        raise DataError(f"Dimension {first_dim + dim} is {value} in row {row}; a tokenizer takes finite numbers only.")


def _write_whole(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        text, content = (folder / JSON_NAME).read_text(), (folder / TENSORS_NAME).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no tokenizer: {Path(error.filename).name} is missing.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(folder, f"it cannot be read ({error})") from error
    try:
        about = json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(folder, f"{JSON_NAME} is not JSON ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise _damaged(folder, f"{JSON_NAME} has format {found}, this version reads format {FORMAT}")
    if not _well_formed(about):
        raise _damaged(folder, f"{JSON_NAME} has a wrong or missing kind, bins or sizes")
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        raise _damaged(folder, f"{TENSORS_NAME} is not the file that {JSON_NAME} was written with")
    try:
        tensors = load_safetensors(content)
    except SafetensorError as error:
        raise _damaged(folder, f"{TENSORS_NAME} is not a safetensors file ({error})") from error
    if set(tensors) != {"edges", "values"}:
        raise _damaged(folder, f"{TENSORS_NAME} holds {sorted(tensors)} in place of edges and values")
    return about, tensors


def _well_formed(about: dict[str, Any]) -> bool:
    bins, sizes = about.get("bins"), about.get("sizes")
    return (
        isinstance(about.get("kind"), str)
        and isinstance(bins, int)
        and isinstance(sizes, list)
        and len(sizes) > 0
        and all(isinstance(size, int) and 1 <= size <= bins for size in sizes)
    )


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"The tokenizer in {folder} is damaged: {reason}.")
