"""Keys and values of tokens that several beams have in common, stored once for each few of them.

Beams that are kept by score descend from few: what is older than some transitions is the same in many. Attention reads
it from memory, which is what planning on a CPU waits for. Beams of equal tokens form a family; a family sits at tables
of `SEATS` each, and a table holds the keys and values for all of its seats.

Shapes: B environments, K beams, G tables an environment, H heads, d width of a head, P tokens in common, S tokens that a
beam has to itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SEATS = 4
# Below this, what is saved is not worth finding out.
FEWEST_BEAMS = 16
# In tokens of one beam: what a token of a table costs, and finding the seats for an attention.
TABLE_COST = 1.25
SEATING_COST = 1000


@dataclass(frozen=True)
class Seating:
    """Who sits where.

    Attributes:
        families: (B, K) numbers of the families.
        seats: (B, K) of each beam, seat s being at table s // `SEATS`.
        occupants: (B, G * SEATS) the beam in each seat; beam 0 in those that stay empty.
        to_seats, to_beams: indices of rows, (B * H * K) by beam into (B * H * G * SEATS) by seat and back.
    """

    families: np.ndarray
    seats: np.ndarray
    occupants: np.ndarray
    to_seats: Tensor
    to_beams: Tensor

    @property
    def first(self) -> np.ndarray:
        """One beam of each table (B, G)."""
        return self.occupants[:, ::SEATS]


def families_of(families: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Numbers (B, K), equal where `families` (B, K) and all of `tokens` (B, K, L) are."""
    B, K = families.shape
    rows = np.ascontiguousarray(np.concatenate([families[..., None], tokens], -1))
    whole = rows.reshape(B, K, -1).view(np.dtype((np.void, rows.itemsize * rows.shape[-1])))[..., 0]
    return np.stack([np.unique(row, return_inverse=True)[1].reshape(K) for row in whole])


def count_tables(families: np.ndarray) -> int:
    """How many tables the environment with the most needs."""
    return max(int((-(-np.bincount(row) // SEATS)).sum()) for row in families)


def find_seats(families: np.ndarray, heads: int) -> Seating:
    """Seat the beams of each family side by side."""
    B, K = families.shape
    G = count_tables(families)
    seats = np.empty((B, K), np.int64)
    occupants = np.zeros((B, G * SEATS), np.int64)
    for row, family in enumerate(families):
        sizes = np.bincount(family)
        order = np.argsort(family, kind="stable")
        place = np.arange(K) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        tables = -(-sizes // SEATS)
        seats[row, order] = np.repeat((np.cumsum(tables) - tables) * SEATS, sizes) + place
        occupants[row, seats[row]] = np.arange(K)
    block = np.arange(B * heads).reshape(B, heads, 1)
    to_seats = torch.from_numpy((block * K + occupants[:, None]).ravel())
    to_beams = torch.from_numpy((block * (G * SEATS) + seats[:, None]).ravel())
    return Seating(families, seats, occupants, to_seats, to_beams)


def choose_cut(families: np.ndarray, tokens: np.ndarray, shared: int, step: int) -> tuple[int, np.ndarray]:
    """How many more tokens to share, so that the least is read, and the families of those who share them.

    Args:
        families: (B, K) by the tokens that are shared already.
        tokens: (B, K, S) that are not.
        shared: how many are.
        step: only cuts a multiple of this from the newest token are tried.
    """
    K, S = tokens.shape[1:]
    best = (0, families)
    least = SEATING_COST + TABLE_COST * count_tables(families) * shared + K * S if shared else K * S
    for cut in range(S % step or step, S, step):
        found = families_of(families, tokens[..., :cut])
        cost = SEATING_COST + TABLE_COST * count_tables(found) * (shared + cut) + K * (S - cut)
        if cost < least:
            best, least = (cut, found), cost
    return best
