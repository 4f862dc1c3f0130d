"""The Trajectory Transformer of "Offline Reinforcement Learning as One Big Sequence Modeling Problem".

Source: Janner, Li, Levine 2021.

Shapes: B batch, T transitions, S observation dimensions, A action dimensions, J = S + A + 2 tokens a transition
(observation, action, reward, return-to-go), L tokens, V bins, D width, G tokens of a goal. The stop token has index V.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, GPT2Config, PreTrainedModel
from transformers import initialization as init
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block
from transformers.pytorch_utils import Conv1D
from transformers.utils import ModelOutput
from transformers.utils.generic import is_flash_attention_requested

from trajplan.errors import ConfigError
from trajplan.models import causal_blocks
from trajplan.models.dropout import Dropout
from trajplan.models.stand_in import MODEL_TYPE

KINDS = ("observation", "action", "reward", "return")
IGNORED = -100
# How far apart bins are still alike at the start, as a share of all bins, and how much of a row is its own.
SMOOTHNESS = 0.15
OWN_SHARE = 0.05


class TrajectoryTransformerConfig(GPT2Config):
    """Shape of the model; the inherited GPT-2 fields keep their names and take the paper's values.

    `bin_counts[j]` is the number of tokens that dimension j of a transition can take (at most `bins`); tokens beyond it
    have probability 0, and so has the stop token everywhere but at a transition's first dimension.

    A model with `goal_columns` reads G tokens of a goal before the window, which it never predicts: the bins of these
    columns of an observation. `goal_places` says where each of them stands in a goal of the dataset.
    """

    model_type = MODEL_TYPE

    observation_dim: int = 1
    action_dim: int = 1
    bins: int = 100
    bin_counts: list[int] | None = None
    goal_columns: list[int] | None = None
    goal_places: list[int] | None = None
    window: int = 10
    observation_weight: float | int = 1.0
    action_weight: float | int = 5.0
    reward_weight: float | int = 1.0
    return_weight: float | int = 1.0

    n_embd: int = 128
    n_layer: int = 4
    n_head: int = 4
    activation_function: str = "gelu"
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self, **kwargs):  # type: ignore[no-untyped-def]
        """Derive the sizes that GPT-2 names; raises ValueError where the shape contradicts itself."""
        self.vocab_size = self.bins + 1
        self.n_positions = self.window * self.transition_dim
        if self.bin_counts is not None:
            self.bin_counts = [int(count) for count in self.bin_counts]
            if len(self.bin_counts) != self.transition_dim or not all(1 <= c <= self.bins for c in self.bin_counts):
                raise ValueError(
                    f"bin_counts needs {self.transition_dim} numbers from 1 to {self.bins}, one per dimension; "
                    f"it is {self.bin_counts}."
                )
        columns, places = self.goal_columns or [], self.goal_places or []
        if len(columns) != len(places) or not all(0 <= column < self.observation_dim for column in columns):
            raise ValueError(
                f"goal_columns needs columns of the {self.observation_dim} of an observation, and goal_places as many "
                f"numbers; they are {self.goal_columns} and {self.goal_places}."
            )
        super().__post_init__(**kwargs)

    @property
    def goal_dim(self) -> int:
        """G, the tokens of a goal; 0 for a model that knows no goals."""
        return len(self.goal_columns or [])

    @property
    def transition_dim(self) -> int:
        """J, the tokens of one transition."""
        return self.observation_dim + self.action_dim + 2

    def kind_of_dimension(self) -> list[int]:
        """For each of the J dimensions, the index of its kind in `KINDS`."""
        return [0] * self.observation_dim + [1] * self.action_dim + [2, 3]


@dataclass
class TrajectoryTransformerOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: scalar, the weighted cross-entropy over valid targets, in nats; None without targets.
        logits: (B, L, V + 1), of the token that follows each position; None where they were not asked for.
        token_losses: (B, L), unweighted cross-entropy of each target, 0 where it is masked.
        losses: mean cross-entropy of each kind of token that has a valid target.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    token_losses: Tensor | None = None
    losses: dict[str, Tensor] | None = None


class TrajectoryTransformer(PreTrainedModel):
    """GPT-2 blocks between per-dimension embeddings and per-dimension heads.

    The return-to-go is predicted but never read: at its positions the input is one learned constant, so that a plain
    causal mask suffices and what follows cannot depend on it.
    """

    config: TrajectoryTransformerConfig
    config_class = TrajectoryTransformerConfig
    main_input_name = "tokens"
    base_model_prefix = "model"
    _no_split_modules: ClassVar[list[str]] = ["GPT2Block"]
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True

    def __init__(self, config: TrajectoryTransformerConfig):
        # Before transformers, whose refusals run to several sentences.
        _needs_mask(config._attn_implementation or "sdpa")
        super().__init__(config)
        J, V, D = config.transition_dim, config.bins, config.n_embd
        self.wte = nn.Embedding(J * (V + 1), D)
        self.wpe = nn.Embedding(config.n_positions, D)
        # Each of a goal's dimensions has a table of its own, so that its tokens need no positions.
        self.wge = nn.Embedding(config.goal_dim * V, D) if config.goal_dim else None
        self.drop = Dropout(config.embd_pdrop)
        blocks = [GPT2Block(config, layer_idx=i) for i in range(config.n_layer)]
        for block in blocks:
            block.attn.resid_dropout, block.mlp.dropout = Dropout(config.resid_pdrop), Dropout(config.resid_pdrop)
        self.h = nn.ModuleList(blocks)
        self.ln_f = nn.LayerNorm(D, eps=config.layer_norm_epsilon)
        self.heads = nn.Parameter(torch.empty(J, V + 1, D))
        # Persistent, because from_pretrained rebuilds the module on the meta device.
        self.register_buffer("illegal", torch.zeros(J, V + 1, dtype=torch.bool))
        self.illegal: Tensor
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, Conv1D):
            init.normal_(module.weight, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, GPT2Attention | GPT2MLP):
            # GPT-2 scales the residual projections by the number of residual additions.
            init.normal_(module.c_proj.weight, std=std / (2 * self.config.n_layer) ** 0.5)
        elif isinstance(module, TrajectoryTransformer):
            init.copy_(module.wte.weight, std * _smooth_tables(module.config).flatten(0, 1))
            init.copy_(module.heads, std * _smooth_tables(module.config))
            if module.wge is not None:
                tables = _smooth_tables(module.config)[module.config.goal_columns or [], :-1]
                init.copy_(module.wge.weight, std * tables.flatten(0, 1))
            init.copy_(module.illegal, _illegal_tokens(module.config))

    def embed(self, tokens: Tensor, start: int | Tensor = 0) -> Tensor:
        """Embeddings (..., L, D) of consecutive tokens (..., L), the first at `start`, one position or (..., 1)."""
        J, V = self.config.transition_dim, self.config.bins
        position = start + torch.arange(tokens.shape[-1], device=tokens.device)
        dimension = position % J
        known = tokens.masked_fill(dimension == J - 1, 0)
        return self.wte(known + dimension * (V + 1)) + self.wpe(position)

    def embed_goals(self, goals: Tensor) -> Tensor:
        """Embeddings (B, G, D) of the tokens of goals (B, G), which stand before the window."""
        if self.wge is None or goals.shape[-1] != self.config.goal_dim:
            raise ValueError(f"a goal of {goals.shape[-1]} tokens was given; this model reads {self.config.goal_dim}.")
        return self.wge(goals + torch.arange(self.config.goal_dim, device=goals.device) * self.config.bins)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (B, L, V + 1) of the tokens that follow the first L positions, from hidden states (B, L, D)."""
        B, L, D = hidden.shape
        J = self.config.transition_dim
        hidden_JND = F.pad(hidden, (0, 0, 0, -L % J)).view(-1, J, D).transpose(0, 1)
        # Position l predicts dimension (l + 1) % J.
        heads = self.heads.roll(-1, 0)
        logits_JNV = torch.bmm(hidden_JND, heads.transpose(1, 2))
        logits_JNV = logits_JNV.masked_fill(self.illegal.roll(-1, 0)[:, None], float("-inf"))
        return logits_JNV.transpose(0, 1).reshape(B, -1, logits_JNV.shape[-1])[:, :L]

    def next_logits(self, hidden: Tensor, position: int) -> Tensor:
        """Logits (rows, V + 1) of the token after `position`, from the last block's output there, (rows, D)."""
        dimension = (position + 1) % self.config.transition_dim
        logits = F.linear(self.ln_f(hidden), self.heads[dimension])
        return logits.masked_fill(self.illegal[dimension], float("-inf"))

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        valid: Tensor | None = None,
        goals: Tensor | None = None,
    ) -> TrajectoryTransformerOutput:
        """Predict each token from those before it.

        Args:
            tokens: (B, L) int64, from a transition's first dimension on, at most `window` transitions.
            targets: (B, L) int64, the token that follows each of `tokens`.
            valid: (B, L) bool, which targets count (None: all).
            goals: (B, G) int64, of a model that reads goals.

        Raises:
            ConfigError: for an attention implementation that is not known to be causal.
            ValueError: for more tokens than the window holds, or goals of another size than the model's.
        """
        L, J = tokens.shape[1], self.config.transition_dim
        if self.config.n_positions < L:
            raise ValueError(f"{L} tokens do not fit the window of {self.config.window} transitions of {J} tokens.")
        G = self.config.goal_dim
        embedded = self.embed(tokens)
        if G or goals is not None:
            embedded = torch.cat([self.embed_goals(tokens[:, :0] if goals is None else goals), embedded], 1)
        hidden = self.drop(embedded)
        # Read anew each time, as it may be set on the config of a model that exists.
        mask = _causal_mask(hidden) if _needs_mask(self.config._attn_implementation) else None
        for block in self.h:
            hidden = block(hidden, attention_mask=mask)
        logits = self.logits(self.ln_f(hidden[:, G:]))
        if targets is None:
            return TrajectoryTransformerOutput(logits=logits)
        valid = torch.ones_like(targets, dtype=torch.bool) if valid is None else valid
        token_losses = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.masked_fill(~valid, IGNORED).flatten(), reduction="none"
        ).view_as(targets)
        loss = (token_losses * self.token_weights(L)).sum() / valid.sum().clamp(min=1)
        return TrajectoryTransformerOutput(
            loss=loss, logits=logits, token_losses=token_losses, losses=self.losses_by_kind(token_losses, valid)
        )

    def token_weights(self, length: int) -> Tensor:
        """Loss weights (L,) of the targets of positions 0 to L - 1."""
        config = self.config
        weights = (config.observation_weight, config.action_weight, config.reward_weight, config.return_weight)
        return torch.tensor(weights, device=self.device, dtype=torch.float32)[self.target_kinds(length)]

    def target_kinds(self, length: int) -> Tensor:
        """The kind, as an index of `KINDS`, of the target of each position 0 to L - 1: (L,) int64."""
        kinds = torch.tensor(self.config.kind_of_dimension(), device=self.device)
        return kinds[torch.arange(1, length + 1, device=self.device) % self.config.transition_dim]

    def losses_by_kind(self, token_losses: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy in nats per valid token of each kind, from `token_losses` and `valid`, both (B, L)."""
        kinds = self.target_kinds(token_losses.shape[1]).expand_as(token_losses)
        sums = torch.zeros(4, device=token_losses.device).index_add_(0, kinds.flatten(), token_losses.flatten())
        counts = torch.zeros_like(sums).index_add_(0, kinds.flatten(), valid.flatten().float())
        return dict(zip(KINDS, (sums / counts).unbind(), strict=True))


def _needs_mask(implementation: str) -> bool:
    """Whether an attention implementation of transformers attends to the future unless a mask forbids it."""
    if implementation in ("sdpa", causal_blocks.NAME):
        return False
    if is_flash_attention_requested(requested_attention_implementation=implementation):
        return False
    if implementation == "eager":
        return True
    raise ConfigError(
        f"attn_implementation is {implementation!r}, which is not known to be causal in this model: it must be sdpa, "
        f"{causal_blocks.NAME}, eager or one of the flash attentions."
    )


def _causal_mask(hidden: Tensor) -> Tensor:
    """What is added to the scores of hidden states (B, L, D), so that each position sees itself and those before it."""
    L = hidden.shape[1]
    return torch.full((1, 1, L, L), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)


def _smooth_tables(config: TrajectoryTransformerConfig) -> Tensor:
    """Random tables (J, V + 1, D) of unit variance in which the rows of neighbouring bins are alike.

    The paper draws every row on its own; then what is learned of one bin says nothing of the next, and the order of the
    bins has to be learned first. Here rows are correlated by the distance of their bins, as a share of the bins in use.
    """
    tables = []
    for count in config.bin_counts or [config.bins] * config.transition_dim:
        place = torch.arange(config.bins + 1) / count
        alike = torch.exp(-(((place[:, None] - place) / SMOOTHNESS) ** 2) / 2)
        # A share of their own keeps bins distinct (and the matrix positive); the stop token is no bin's neighbour.
        covariance = (1 - OWN_SHARE) * alike + OWN_SHARE * torch.eye(config.bins + 1)
        covariance[-1, :-1] = covariance[:-1, -1] = 0
        tables.append(torch.linalg.cholesky(covariance) @ torch.randn(config.bins + 1, config.n_embd))
    return torch.stack(tables)


def _illegal_tokens(config: TrajectoryTransformerConfig) -> Tensor:
    counts = torch.tensor(config.bin_counts or [config.bins] * config.transition_dim)
    illegal = torch.arange(config.bins + 1) >= counts[:, None]
    illegal[0, config.bins] = False
    return illegal


# In place of what stands in for it until it is asked for, see trajplan.models.stand_in.
AutoConfig.register(TrajectoryTransformerConfig.model_type, TrajectoryTransformerConfig, exist_ok=True)
AutoModel.register(TrajectoryTransformerConfig, TrajectoryTransformer)
