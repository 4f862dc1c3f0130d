import gc
import weakref
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from trajplan.models.decoder import CachedDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners import graph
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.graph import GraphedFunction, pad_batch
from trajplan.tokenizers.fit import fit_tokenizer


@dataclass
class Sums:
    left: torch.Tensor
    both: torch.Tensor


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Captures that are no graphs: the function runs once, and a replay leaves its output as it is."""
    monkeypatch.setattr(graph, "warm_up", lambda function: function())
    monkeypatch.setattr(graph, "capture", lambda function: (SimpleNamespace(replay=lambda: None), function()))


@pytest.fixture
def graphed(monkeypatch, on_the_cpu):
    """A GraphedFunction whose graphs are replayed by calling the function again on the CPU."""
    made = []

    def make():
        made.append(len(made))
        return lambda left, right: Sums(left.sum(1), left.sum(1) + right.sum(1))

    def capture(function):
        output = function()

        def replay():
            for name, value in vars(function()).items():
                getattr(output, name).copy_(value)

        return SimpleNamespace(replay=replay), output

    monkeypatch.setattr(graph, "capture", capture)
    return GraphedFunction(make), made


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_padding_repeats_the_first_row_to_a_power_of_two(batch):
    value = torch.arange(batch * 2).view(batch, 2)
    padded = pad_batch(value)
    assert len(padded) in (1, 2, 4, 8)
    assert len(padded) < 2 * batch
    assert torch.equal(padded[:batch], value)
    assert (padded[batch:] == value[0]).all()


def test_a_replay_gives_the_functions_output_for_the_new_inputs(graphed):
    function, made = graphed
    outputs = []
    for batch, offset in ((3, 0.0), (4, 1.0), (3, 2.0)):
        left, right = torch.rand(batch, 5) + offset, torch.rand(batch, 2)
        outputs.append((function(left, right), left, right))
    # Later replays leave earlier outputs alone, and 3 environments share the capture of 4.
    for output, left, right in outputs:
        torch.testing.assert_close(output.left, left.sum(1))
        torch.testing.assert_close(output.both, left.sum(1) + right.sum(1))
    assert len(made) == 1


def test_only_the_shapes_used_last_are_kept(graphed, monkeypatch):
    monkeypatch.setattr(graph, "MAX_CAPTURES", 2)
    function, made = graphed
    for width in (1, 2, 1, 3, 1, 2):
        function(torch.rand(1, width), torch.rand(1, 1))
    # 2 was dropped for 3, being used before 1, and is captured again.
    assert len(made) == 4
    assert len(function.captured) == 2


def make_search(device):
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=3, action_dim=2, bins=9, window=4, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = 0.3
    model = TrajectoryTransformer(config).eval().to(device)
    tokenizer = fit_tokenizer("uniform", torch.rand(500, 7).numpy(), 9)
    return BeamSearch(model, tokenizer, BeamSearchConfig(horizon=6, beam_width=8, context=2))


def problem(batch, context):
    generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
    random = torch.Generator().manual_seed(context)
    observations = torch.rand(batch, 3, generator=random)
    return observations, torch.rand(batch, context, 6, generator=random), generators


def test_the_buffers_that_a_graph_replays_into_live_as_long_as_it(on_the_cpu):
    search, decoders = make_search("cpu"), []

    def make():
        decoder = CachedDecoder(search.model)
        decoders.append(weakref.ref(decoder))
        return partial(search.search, decoder)

    search._search = GraphedFunction(make)
    for context in (2, 1):
        search.plan(*problem(3, context))
    gc.collect()
    assert [decoder() is not None for decoder in decoders] == [True, True]
    search._search.captured.clear()
    gc.collect()
    assert [decoder() for decoder in decoders] == [None, None]


@pytest.mark.gpu
def test_on_a_gpu_graphed_plans_equal_eager_ones():
    search = make_search("cuda")
    graphed_search = search._search
    assert isinstance(graphed_search, GraphedFunction)
    problems = [(3, 2), (2, 1), (3, 2)]
    search._search = graphed_search.make()
    eager = [search.plan(*problem(*sizes))[1] for sizes in problems]
    # The capture of the second shape empties the allocator's cache, and the first graph is replayed after it.
    search._search = graphed_search
    graphed_plans = [search.plan(*problem(*sizes))[1] for sizes in problems]
    assert len(graphed_search.captured) == 2
    for plans, expected in zip(graphed_plans, eager, strict=True):
        torch.testing.assert_close(plans.tokens, expected.tokens)
        torch.testing.assert_close(plans.scores, expected.scores, atol=1e-4, rtol=1e-4)
