"""Monte Carlo tree search in the model (Coulom 2006), guided by its probabilities (Silver et al. 2017).

A node's children are actions drawn from the model, more of them the more often it is visited (progressive widening:
Couëtoux et al. 2011); the prior of a child is its share of these draws (Hubert et al. 2021, "Learning and planning in
complex action spaces"). An action's outcome is the model's likeliest, so that the tree is deterministic, and a state is
worth what its best action is (as in Schadd et al. 2008).

Shapes: B environments, K nodes, L leaves, H planned transitions, C context transitions, S observation dimensions, A
action dimensions, J = S + A + 2 tokens a transition, V bins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trajplan.config import option, require
from trajplan.errors import ConfigError
from trajplan.models.critic import Critic
from trajplan.models.decoder import CachedDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.plan import Plan
from trajplan.planners.sampling import sample
from trajplan.planners.scores import state_values
from trajplan.planners.settings import check_window
from trajplan.planners.tokens import (
    DecoderMaker,
    TokenPlans,
    draw_noise,
    log_probability,
    plan_tokens,
    predicted_value,
)
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """Monte Carlo tree search over actions drawn from the model."""

    simulations: int = option(128, "walks from the root down, each of which adds a transition to the tree")
    leaves: int = option(16, "of these, how many are walked before the model is asked about all of them at once")
    horizon: int = option(15, "depth at which the tree ends, in transitions")
    exploration: float = option(1.25, "weight of the prior against the values found so far")
    widening: float = option(2.0, "a node visited N times has drawn up to widening * N ** widening_exponent actions")
    widening_exponent: float = option(0.5, "see widening; with 1 all of its visits draw, as far as widening allows")
    kept: int = option(16, "actions of the root that the plan tells of, each with the best path after it")
    context: int = option(5, "past transitions that the plan is conditioned on")
    discount: float = option(0.99, "discount of predicted rewards; the one the model was trained with")
    action_top_k: int | None = option(None, "draw action tokens among the k likeliest (none: all)")
    action_cdf: float | None = option(0.4, "draw action tokens among the likeliest up to this mass (none: all)")
    action_temperature: float = option(1.0, "temperature of the action tokens")
    critic: str | None = option(
        None, "folder of a trained baseline whose values stand for what follows a leaf (none: the model's return-to-go)"
    )
    score: Literal["return", "value"] = option(
        "return", "value a path by rewards and what follows them, or by the critic's value of its last state alone"
    )
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("simulations", "leaves", "horizon", "kept", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        for name in ("exploration", "widening", "action_temperature"):
            require(getattr(self, name) > 0, name, getattr(self, name), "be above 0")
        exponent, top_k, cdf = self.widening_exponent, self.action_top_k, self.action_cdf
        require(0 < exponent <= 1, "widening_exponent", exponent, "be above 0 and at most 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )
        require(self.score == "return" or self.critic is not None, "score", self.score, "be return without a critic")
        # The likeliest token alone would leave nothing to search.
        require(top_k is None or top_k >= 2, "action_top_k", top_k, "be at least 2, or none")
        require(cdf is None or 0 < cdf <= 1, "action_cdf", cdf, "be above 0 and at most 1, or none")


@dataclass(eq=False)
class Node:
    """A state that the model foresees, and the transition that leads to it.

    Attributes:
        number: the decoder's, of what it has read up to here.
        in_window: transitions in the model's window, this state's among them.
        parent: None at the root.
        action: tokens of the action that leads here.
        tokens: (S + A + 2,) of the parent's observation and of the transition from it; what follows is `observation`.
        observation: (S,) tokens.
        reward, return_to_go: of the transition, as the model (or for the latter the critic) predicts them; the latter
            is 0 after an end.
        value: the return-to-go, until there are children: then the best return that one of them promises.
        ended: whether the model foresees an end here.
        log_likelihood: of action and observation.
        draws: how often the action was drawn.
        visits: walks through here.
        waiting: walks of the present round that went through here and have brought nothing back yet.
    """

    number: int
    in_window: int
    observation: Tensor
    parent: "Node | None" = None
    action: tuple[int, ...] = ()
    tokens: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    reward: float = 0.0
    return_to_go: float = 0.0
    value: float = 0.0
    ended: bool = False
    log_likelihood: float = 0.0
    depth: int = 0
    draws: int = 1
    visits: int = 0
    waiting: int = 0
    children: dict[tuple[int, ...], "Node"] = field(default_factory=dict)

    def path(self) -> "list[Node]":
        """The nodes from the root's child to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]


class Tree:
    """The tree of one environment: which leaf to grow, and what a leaf's value tells of those above it."""

    def __init__(self, root: Node, config: MCTSConfig) -> None:
        self.root = root
        self.config = config
        self.walks = 0
        self.least, self.greatest = math.inf, -math.inf

    def leaves(self) -> list[Node]:
        """The nodes to grow an action from in the next round, one a walk."""
        walks = min(self.config.leaves, self.config.simulations - self.walks)
        self.walks += walks
        return [self._walk() for _ in range(walks)]

    def _walk(self) -> Node:
        node, config = self.root, self.config
        node.waiting += 1
        while True:
            # A walk that waits here for an action of its own has counted itself above.
            growing = node.waiting - sum(child.waiting for child in node.children.values()) - 1
            draws = sum(child.draws for child in node.children.values())
            allowed = config.widening * (node.visits + node.waiting) ** config.widening_exponent
            # Where a trajectory ends there is nothing more to learn.
            ways_on = [c for c in node.children.values() if not c.ended and c.depth < config.horizon]
            if not ways_on or draws + growing < allowed:
                return node
            node = max(ways_on, key=partial(self._upper_bound, node))
            node.waiting += 1

    def _upper_bound(self, parent: Node, child: Node) -> float:
        """PUCT (Silver et al. 2017), values scaled to [0, 1] (Schrittwieser et al. 2020); who waits has seen a 0."""
        visits = child.visits + child.waiting
        spread = self.greatest - self.least
        value = (self.result(child) - self.least) / spread if spread > 0 else 0.0
        prior = child.draws / sum(sibling.draws for sibling in parent.children.values())
        bound = self.config.exploration * prior * math.sqrt(parent.visits + parent.waiting) / (1 + visits)
        return value * child.visits / visits + bound

    def result(self, child: Node) -> float:
        """The return from a node's parent on, or the value at the end of the best path where that alone counts."""
        return child.value if self.config.score == "value" else child.reward + self.config.discount * child.value

    def best_first(self, node: Node) -> list[Node]:
        """The children, those of the greatest result first."""
        return sorted(node.children.values(), key=lambda child: -self.result(child))

    def principal(self, node: Node) -> Node:
        """The end of the best path through a node."""
        while node.children:
            node = self.best_first(node)[0]
        return node

    def back_up(self, node: Node, grown: Node) -> None:
        """End a walk that waits at `node` and has `grown` a child: tell all above what it is worth."""
        waited: Node | None = node
        while waited is not None:
            waited.waiting -= 1
            waited = waited.parent
        above: Node | None = grown
        while above is not None:
            above.visits += 1
            if above.children:
                above.value = max(map(self.result, above.children.values()))
            if above.parent is not None:
                result = self.result(above)
                self.least, self.greatest = min(self.least, result), max(self.greatest, result)
            above = above.parent


class MCTS:
    """Plans with a trained model; a plan's score is the predicted discounted return, as that of a beam search.

    Args:
        model: in evaluation mode; its device is where the model is asked.
        tokenizer: the one the model was trained with.
        config: settings of the search.
        decoder: how logits are computed.
        critic: what the setting of this name stands for, on the model's device.
    """

    def __init__(
        self,
        model: TrajectoryTransformer,
        tokenizer: Tokenizer,
        config: MCTSConfig,
        decoder: DecoderMaker = CachedDecoder,
        *,
        critic: Critic | None = None,
    ):
        check_window(config, model.config.window)
        if model.config.window < 2:
            raise ConfigError("mcts needs a model with a window of at least 2 transitions.")
        self.model = model
        self.tokenizer = tokenizer.to(model.device)
        self.config = config
        self.critic = critic
        self._decoder = decoder(model)

    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`."""
        config = self.config
        aim = None
        if self.critic is not None and self.critic.needs_goals:
            if goals is None:
                raise ConfigError(f"{config.critic} values states by a goal, and the episode has none.")
            aim = goals.to(self.model.device)
        # A root that fills the window could grow no child without forgetting what its other children remember.
        past = past[:, max(0, past.shape[1] - self.model.config.window + 2) :]
        smaller = f"simulations ({config.simulations}), leaves ({config.leaves}) or horizon ({config.horizon})"
        search = partial(self._search, generators, aim)
        return plan_tokens(search, self.model, self.tokenizer, observations, past, tuple, smaller, goals)

    @torch.inference_mode()
    def _search(self, generators: Sequence[torch.Generator], goals: Tensor | None, prefix: Tensor) -> TokenPlans:
        """Grow a tree of each environment from its prefix (B, G + C * J + S), and tell its best paths."""
        self._goals = goals
        config, S, J = self.config, self.model.config.observation_dim, self.model.config.transition_dim
        self._past = prefix[:, self.model.config.goal_dim : -S].unflatten(1, (-1, J)).cpu()
        self._decoder.begin(prefix, 1, 1)
        numbers = self._decoder.keep()[:, 0].tolist()
        in_window = self._past.shape[1] + 1
        roots = [Node(number, in_window, row) for number, row in zip(numbers, prefix[:, -S:].cpu(), strict=True)]
        trees = [Tree(root, config) for root in roots]
        while any(tree.walks < config.simulations for tree in trees):
            waiting = [tree.leaves() for tree in trees]
            noise = draw_noise(generators, (config.leaves, self.model.config.action_dim), self.model.device)
            for tree, nodes, children in zip(trees, waiting, self._grow(roots, waiting, noise), strict=True):
                for node, child in zip(nodes, children, strict=True):
                    known = node.children.setdefault(child.action, child)
                    known.draws += known is not child
                    tree.back_up(node, known)
        paths = [[tree.principal(child) for child in tree.best_first(tree.root)[: config.kept]] for tree in trees]
        self._reach(roots, paths)
        return self._told(prefix, trees, paths)

    def _reach(self, roots: list[Node], paths: list[list[Node]]) -> None:
        """Go on with paths too short to act `replan_every` steps from, by the likeliest actions."""
        while True:
            short = [[node.depth < self.config.replan_every and not node.ended for node in row] for row in paths]
            if not any(map(any, short)):
                return
            waiting = [list(compress(row, marks)) for row, marks in zip(paths, short, strict=True)]
            grown = [iter(row) for row in self._grow(roots, waiting, None)]
            for row, marks, children in zip(paths, short, grown, strict=True):
                row[:] = [next(children) if wanted else node for node, wanted in zip(row, marks, strict=True)]

    def _grow(self, roots: list[Node], waiting: list[list[Node]], noise: Tensor | None) -> list[list[Node]]:
        """A new child of every node in `waiting`, of each environment in that order; it is not yet in the tree.

        Args:
            roots: of the environments.
            waiting: B lists of at most L nodes.
            noise: (B, L, A) uniform in [0, 1) to draw actions with; None takes the likeliest.
        """
        window = self.model.config.window
        grown: list[list[Node | None]] = [[None] * len(nodes) for nodes in waiting]
        # Nodes that fill the window are encoded anew on the way, and so are apart from the others.
        for full in (False, True):
            chosen = [[i for i, node in enumerate(row) if (node.in_window == window) == full] for row in waiting]
            width = max(map(len, chosen))
            if width == 0:
                continue
            # Environments with fewer nodes than others fill up with their root; what comes of it is dropped.
            parents = [
                [row[i] for i in indices] + [root] * (width - len(indices))
                for row, indices, root in zip(waiting, chosen, roots, strict=True)
            ]
            places = [indices + [0] * (width - len(indices)) for indices in chosen]
            row_of = torch.arange(len(places))[:, None]
            drawn = None if noise is None else noise[row_of, torch.tensor(places)]
            for row, indices, children in zip(grown, chosen, self._children(parents, drawn, full), strict=True):
                for i, child in zip(indices, children, strict=False):
                    row[i] = child
        return [[child for child in row if child is not None] for row in grown]

    def _children(self, parents: list[list[Node]], noise: Tensor | None, full: bool) -> list[list[Node]]:
        """One more transition after each of the parents (B, K), by the model."""
        decoder, device, shape = self._decoder, self.model.device, self.model.config
        S, A, J, V = shape.observation_dim, shape.action_dim, shape.transition_dim, shape.bins
        B, K = len(parents), len(parents[0])
        tokens = torch.zeros(B, K, J, dtype=torch.int64, device=device)
        tokens[..., :S] = torch.stack([torch.stack([node.observation for node in row]) for row in parents]).to(device)
        logits = decoder.resume(torch.tensor([[node.number for node in row] for row in parents], device=device))
        likelihood = torch.zeros(B, K, device=device)
        for dim in range(A):
            action = self._draw(logits, noise, dim)
            likelihood += log_probability(logits, action)
            tokens[..., S + dim] = action
            logits = decoder.advance(action)
        reward = predicted_value(self.tokenizer, logits, J - 2)
        tokens[..., J - 2] = logits.argmax(-1)
        value = predicted_value(self.tokenizer, decoder.advance(tokens[..., J - 2]), J - 1)
        logits = decoder.restart(self._recent(parents, tokens)) if full else decoder.advance(tokens[..., J - 1])
        following = torch.zeros(B, K, S, dtype=torch.int64, device=device)
        live = torch.ones(B, K, dtype=torch.bool, device=device)
        for dim in range(S):
            following[..., dim] = logits.argmax(-1)
            likelihood += log_probability(logits, following[..., dim]) * live
            # A stop token is legal in the first dimension alone.
            live = live & (following[..., dim] != V)
            logits = decoder.advance(following[..., dim])
        if self.critic is not None:
            value = state_values(self.critic, self.tokenizer, following, self._goals)
        numbers, ends = decoder.keep().tolist(), (~live).tolist()
        rewards, values, likelihoods = reward.tolist(), (value * live).tolist(), likelihood.tolist()
        tokens, following = tokens.cpu(), following.cpu()
        return [
            [
                Node(
                    number=numbers[b][k],
                    in_window=shape.window // 2 + 1 if full else parent.in_window + 1,
                    observation=following[b, k],
                    parent=parent,
                    action=tuple(tokens[b, k, S : S + A].tolist()),
                    tokens=tokens[b, k],
                    reward=rewards[b][k],
                    return_to_go=values[b][k],
                    value=values[b][k],
                    ended=ends[b][k],
                    log_likelihood=likelihoods[b][k],
                    depth=parent.depth + 1,
                )
                for k, parent in enumerate(row)
            ]
            for b, row in enumerate(parents)
        ]

    def _draw(self, logits: Tensor, noise: Tensor | None, dim: int) -> Tensor:
        if noise is None:
            return logits.argmax(-1)
        config = self.config
        return sample(
            logits,
            noise[..., dim],
            top_k=config.action_top_k,
            cdf=config.action_cdf,
            temperature=config.action_temperature,
        )

    def _recent(self, parents: list[list[Node]], tokens: Tensor) -> Tensor:
        """The last `window // 2` transitions, of which `tokens` (B, K, J) is the newest: (B, K, window // 2 * J)."""
        length = self.model.config.window // 2
        rows = []
        for past, row in zip(self._past, parents, strict=True):
            for node in row:
                path = [past, *(step.tokens[None] for step in node.path())]
                recent = torch.cat(path)[1 - length :] if length > 1 else past[:0]
                # Only a root that fills a place, and is dropped, has less of a past than this.
                rows.append(functional.pad(recent, (0, 0, length - 1 - len(recent), 0)))
        known = torch.stack(rows).view(*tokens.shape[:2], length - 1, tokens.shape[-1]).to(tokens.device)
        return torch.cat([known, tokens[:, :, None]], 2).flatten(2)

    def _told(self, prefix: Tensor, trees: list[Tree], paths: list[list[Node]]) -> TokenPlans:
        """The paths to the given nodes, of each environment best first, as the trajectories of a search over tokens."""
        shape, kept = self.model.config, self.config.kept
        plans = TokenPlans.begin(
            prefix[:, -shape.observation_dim :].cpu(), kept, self.config.horizon, shape.transition_dim
        )
        plans.alive[:] = False
        for b, (tree, row) in enumerate(zip(trees, paths, strict=True)):
            # Where the root has fewer actions, the last of them fills the others' places.
            for k in range(kept):
                path = row[min(k, len(row) - 1)].path()
                for t, node in enumerate(path):
                    plans.tokens[b, k, t] = node.tokens
                    plans.rewards[b, k, t], plans.returns[b, k, t] = node.reward, node.return_to_go
                plans.alive[b, k, : len(path)] = True
                plans.scores[b, k] = tree.result(path[0])
                plans.log_likelihood[b, k] = sum(node.log_likelihood for node in path)
        return TokenPlans(*(value.to(self.model.device) for value in vars(plans).values()))
