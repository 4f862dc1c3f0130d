from collections import Counter

import pytest
import torch

from trajplan.models.decoder import CachedDecoder
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

OBSERVATION, ACTION, BINS, WINDOW = 3, 2, 7, 4
J = OBSERVATION + ACTION + 2


def make_model(**settings):
    torch.manual_seed(0)
    sizes = {"observation_dim": OBSERVATION, "action_dim": ACTION, "bins": BINS, "window": WINDOW}
    config = TrajectoryTransformerConfig(**sizes, n_layer=3, n_head=2, n_embd=16, **settings)
    config.initializer_range = 0.5
    return TrajectoryTransformer(config).eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module", params=[False, True], ids=["without-goals", "with-goals"])
def either(request, model):
    """A model, and one that reads goals."""
    return make_model(goal_columns=[2, 0], goal_places=[1, 0]) if request.param else model


def run(decoder, generator, batch, beams, candidates, context):
    """A random course of expansions, prunings and restarts; every logit on the way."""

    def draw(*shape, high=BINS):
        return torch.randint(high, shape, generator=generator)

    goals = draw(batch, decoder.model.config.goal_dim)
    history = draw(batch, context * J + OBSERVATION)
    logits = [decoder.begin(torch.cat([goals, history], 1), beams, candidates)]
    history = history[:, None].expand(-1, beams, -1)
    environment = torch.arange(batch)[:, None]
    for _ in range(6):
        branch = history[:, :, None].expand(-1, -1, candidates, -1)
        for _ in range(ACTION + 1):
            tokens = draw(batch, beams, candidates)
            branch = torch.cat([branch, tokens[..., None]], -1)
            logits.append(decoder.expand(tokens))
        parents, chosen = draw(batch, beams, high=beams), draw(batch, beams, high=candidates)
        decoder.select(parents, chosen)
        history = branch[environment, parents, chosen]
        tokens = draw(batch, beams)
        history = torch.cat([history, tokens[..., None]], -1)
        if history.shape[-1] + J > WINDOW * J:
            history = history[..., -2 * J :]
            logits.append(decoder.restart(history))
        else:
            logits.append(decoder.advance(tokens))
        for _ in range(OBSERVATION):
            tokens = draw(batch, beams)
            history = torch.cat([history, tokens[..., None]], -1)
            logits.append(decoder.advance(tokens))
    return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("batch", "beams", "candidates", "context"), [(1, 4, 2, 1), (2, 3, 3, 0), (3, 1, 1, 2)])
def test_cached_logits_equal_full_forward_passes(either, monkeypatch, batch, beams, candidates, context, attention):
    monkeypatch.setattr(either.config, "_attn_implementation", attention)
    courses = [
        run(decoder(either), torch.Generator().manual_seed(1), batch, beams, candidates, context)
        for decoder in (CachedDecoder, RecomputingDecoder)
    ]
    for step, (cached, full) in enumerate(zip(*courses, strict=True)):
        torch.testing.assert_close(cached, full, atol=2e-5, rtol=1e-4, msg=lambda m, step=step: f"call {step}: {m}")


def test_a_decoder_is_reused_without_memory_of_the_last_plan(model):
    decoder = CachedDecoder(model)
    first = run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)
    run(decoder, torch.Generator().manual_seed(2), 1, 5, 2, 0)
    again = run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_cache_memory_is_bounded_and_allocated_once(model):
    decoder = CachedDecoder(model)
    run(decoder, torch.Generator().manual_seed(1), 2, 3, 2, 1)

    def storage():
        tensors = [*decoder.trunk, *decoder.branch, decoder.spare]
        return {t.data_ptr() for t in tensors}, sum(t.numel() for t in tensors)

    pointers, numbers = storage()
    run(decoder, torch.Generator().manual_seed(2), 2, 3, 2, 1)
    assert storage() == (pointers, numbers)
    layers, beams, candidates, width = 3, 2 * 3, 2 * 3 * 2, 16
    assert numbers == 2 * width * ((layers + 1) * beams * WINDOW * J + layers * candidates * J)


class Course:
    """A random course of every call that a decoder takes, and each beam's tokens, to compare with a full forward."""

    def __init__(self, decoder, model, seed, batch):
        self.decoder, self.model, self.batch = decoder, model, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.nodes = [{} for _ in range(batch)]
        self.calls = Counter()

    def draw(self, *shape, high=BINS):
        return torch.randint(high, shape, generator=self.generator)

    def run(self, steps):
        self.goals = self.draw(self.batch, self.model.config.goal_dim)
        history = self.draw(self.batch, OBSERVATION)
        self.beams = [[row] * 2 for row in history]
        self.compare(self.decoder.begin(torch.cat([self.goals, history], 1), 2, 2)[:, None].expand(-1, 2, -1))
        for _ in range(steps):
            longest = max(len(tokens) for row in self.beams for tokens in row)
            calls = [self.restart, self.keep, self.resume] if self.nodes[0] else [self.keep]
            if longest + J <= WINDOW * J:
                calls += [self.transition] * 4
            call = calls[self.int(0, len(calls))]
            call()
            self.calls[call.__name__] += 1

    def int(self, low, high):
        return int(torch.randint(low, high, (), generator=self.generator))

    def compare(self, logits):
        for row, beams, goal in zip(logits, self.beams, self.goals, strict=True):
            for one, tokens in zip(row, beams, strict=True):
                full = self.model(tokens[None], goals=goal[None] if len(goal) else None).logits[0, -1]
                torch.testing.assert_close(one, full, atol=2e-5, rtol=1e-4)

    def transition(self):
        """A transition, its action and reward by candidates of a branch."""
        places = (self.batch, len(self.beams[0]))
        branch = [[[tokens] * 2 for tokens in row] for row in self.beams]
        for _ in range(ACTION + 1):
            tokens = self.draw(*places, 2)
            self.decoder.expand(tokens)
            branch = [
                [[torch.cat([one, t[None]]) for one, t in zip(*pair, strict=True)] for pair in zip(*row, strict=True)]
                for row in zip(branch, tokens, strict=True)
            ]
        parents, chosen = self.draw(*places, high=places[1]), self.draw(*places, high=2)
        self.decoder.select(parents, chosen)
        self.beams = [
            [branch[row][parent][child] for parent, child in zip(*pair, strict=True)]
            for row, pair in enumerate(zip(parents.tolist(), chosen.tolist(), strict=True))
        ]
        for _ in range(1 + OBSERVATION):
            tokens = self.draw(*places)
            logits = self.decoder.advance(tokens)
            self.beams = [
                [torch.cat([one, t[None]]) for one, t in zip(*row, strict=True)]
                for row in zip(self.beams, tokens, strict=True)
            ]
            self.compare(logits)

    def restart(self):
        """The newest transitions alone, as a search does at the window's end."""
        shortest = min(len(tokens) for row in self.beams for tokens in row)
        recent = [[tokens[-min(shortest, J + OBSERVATION) :] for tokens in row] for row in self.beams]
        self.beams = recent
        self.compare(self.decoder.restart(torch.stack([torch.stack(row) for row in recent])))

    def keep(self):
        for kept, beams, numbers in zip(self.nodes, self.beams, self.decoder.keep().tolist(), strict=True):
            kept.update(zip(numbers, beams, strict=True))

    def resume(self):
        """Any nodes of an environment, of any lengths and in any number."""
        known, count = [list(kept) for kept in self.nodes], self.int(1, 6)
        nodes = [[row[self.int(0, len(row))] for _ in range(count)] for row in known]
        self.beams = [[kept[node] for node in row] for kept, row in zip(self.nodes, nodes, strict=True)]
        self.compare(self.decoder.resume(torch.tensor(nodes)))


@pytest.mark.parametrize("make", [CachedDecoder, RecomputingDecoder])
@pytest.mark.parametrize(("seed", "batch"), [(0, 1), (1, 1), (2, 3), (3, 2)])
@torch.no_grad()
def test_any_course_over_a_tree_gives_the_logits_of_full_forward_passes(either, make, seed, batch):
    course = Course(make(either), either, seed, batch)
    course.run(50)
    assert set(course.calls) == {"transition", "restart", "keep", "resume"}


@torch.no_grad()
def test_nodes_of_unlike_depths_and_from_before_a_restart_are_one_batch(model):
    decoder = CachedDecoder(model)
    history = torch.randint(BINS, (1, J + OBSERVATION))
    decoder.begin(history, 1, 1)
    sequences, nodes = [history[0]], [decoder.keep()]

    def transition(sequence):
        tokens = torch.randint(BINS, (J,))
        for token in tokens:
            decoder.advance(token.view(1, 1))
        return torch.cat([sequence, tokens])

    for _ in range(2):
        sequences.append(transition(sequences[-1]))
        nodes.append(decoder.keep())
    recent = sequences[-1][-(J + OBSERVATION) :]
    decoder.restart(recent.view(1, 1, -1))
    sequences.append(transition(transition(recent)))
    nodes.append(decoder.keep())

    order = [3, 0, 2, 1, 0]
    decoder.resume(torch.cat([nodes[i] for i in order], 1))
    tokens = torch.randint(BINS, (1, len(order)))
    logits = decoder.advance(tokens)
    for place, i in enumerate(order):
        full = model(torch.cat([sequences[i], tokens[0, place : place + 1]])[None]).logits[0, -1]
        torch.testing.assert_close(logits[0, place], full, atol=2e-5, rtol=1e-4)


def test_a_tree_takes_memory_for_each_nodes_own_tokens_alone(model):
    decoder = CachedDecoder(model)
    decoder.begin(torch.randint(BINS, (1, OBSERVATION)), 1, 1)
    node = decoder.keep()
    for _ in range(40):
        # All of one depth, two transitions below the root: a copy of each path would take twice the memory.
        decoder.resume(node)
        for _ in range(2):
            for _ in range(J):
                decoder.advance(torch.randint(BINS, (1, 1)))
            decoder.keep()
    assert {rows.count for rows in decoder.tree.layers} == {40 * 2 * J}
    assert all(len(rows.data) <= 2 * rows.count for rows in decoder.tree.layers)


@pytest.mark.parametrize("make", [CachedDecoder, RecomputingDecoder])
def test_nodes_that_cannot_stand_side_by_side_are_refused(model, make):
    decoder = make(model)
    decoder.begin(torch.randint(BINS, (2, OBSERVATION)), 1, 1)
    roots = decoder.keep()
    decoder.advance(torch.randint(BINS, (2, 1)))
    later = decoder.keep()
    with pytest.raises(ValueError, match="whole transitions"):
        decoder.resume(torch.cat([roots, later], 1))
    with pytest.raises(ValueError, match="another environment"):
        decoder.resume(roots.flip(0))
