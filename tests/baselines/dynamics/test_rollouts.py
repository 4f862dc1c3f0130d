import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trajplan.baselines.dynamics.learned_model import LearnedModel
from trajplan.baselines.dynamics.rollouts import PARTS, ModelRollouts, RolloutBuffer
from trajplan.baselines.engine.scaling import fit_scaling, scaled_dataset
from trajplan.baselines.mopo import MOPO
from trajplan.data.transitions import Batch
from trajplan.models.dynamics import DynamicsEnsemble, Step
from trajplan.models.networks import Dimensions

SCALE, SHIFT = 2.0, -1.0


class Recorded(DynamicsEnsemble):
    """An ensemble that ends rollouts where the first entry is high, and remembers its steps."""

    def __init__(self):
        super().__init__(3, 2, 3, 2, (8,))
        self.rule = lambda following: following[:, 0] > 5.5
        self.steps: list[Step] = []

    def step(self, *arguments):
        self.steps.append(super().step(*arguments))
        return self.steps[-1]


@pytest.fixture
def made(walks, small):
    """Rollouts in a random model of the walks, and a method: `made(**settings)`."""

    def make(**settings):
        torch.manual_seed(0)
        config = small("mopo", **{"rollout_starts": 50, "rollout_length": 4, "rollout_keep": 2} | settings)
        scaling = fit_scaling(walks, True)
        seen = scaled_dataset(walks, scaling, SCALE, SHIFT)
        rollouts = ModelRollouts(Recorded(), scaling, (SCALE, SHIFT), seen.transitions(), config)
        return rollouts, MOPO(Dimensions.of(walks.info), config)

    return make


def by_step(rollouts):
    """The kept transitions of one time of rolling out, a batch for each step."""
    kept = rollouts.buffer.state()
    assert len(kept["counts"]) == 1
    rows = torch.arange(len(kept["rewards"])).split([len(step.rewards) for step in rollouts.dynamics.steps])
    return [Batch(**{name: kept[name][part] for name in PARTS}) for part in rows]


def test_rollouts_branch_off_from_states_of_the_data_and_go_on_until_a_terminal(made, walks):
    rollouts, method = made()
    rollouts.roll_out(method.policy)
    first, *later = by_step(rollouts)
    states = rollouts.scaling.observations(torch.from_numpy(np.array(walks.observations)))
    # A state that an episode ended in has no action, and is no start.
    ends = torch.from_numpy(walks.offsets[1:] + np.arange(walks.num_episodes))
    begun = torch.ones(len(states), dtype=torch.bool).index_fill_(0, ends, False)
    assert (first.observations[:, None] == states[begun]).all(-1).any(1).all()
    assert len(first.rewards) == 50
    before = first
    for batch in later:
        assert before.terminations.any()
        assert torch.equal(batch.observations, before.next_observations[~before.terminations])
        before = batch
    assert len(later) == 3


def test_what_is_stored_is_the_models_in_the_methods_units(made):
    rollouts, method = made()
    rollouts.roll_out(method.policy)
    for batch, step in zip(by_step(rollouts), rollouts.dynamics.steps, strict=True):
        torch.testing.assert_close(batch.next_observations, rollouts.scaling.observations(step.next_observations))
        assert torch.equal(batch.terminations, step.terminations)
        assert torch.equal(batch.terminations, step.next_observations[:, 0] > 5.5)
        assert batch.actions.abs().max() <= 1


@pytest.mark.parametrize("kind", ["max-deviation", "disagreement"])
def test_rewards_are_lowered_by_the_uncertainty(made, kind):
    rollouts, method = made(penalty_weight=3.0, penalty=kind)
    rollouts.roll_out(method.policy)
    for batch, step in zip(by_step(rollouts), rollouts.dynamics.steps, strict=True):
        expected = SCALE * (step.rewards - 3.0 * step.uncertainty) + SHIFT
        torch.testing.assert_close(batch.rewards, expected)
        assert (step.uncertainty > 0).all()


def test_with_lambda_0_rewards_are_as_predicted(made):
    rollouts, method = made(penalty_weight=0.0)
    rollouts.roll_out(method.policy)
    for batch, step in zip(by_step(rollouts), rollouts.dynamics.steps, strict=True):
        assert torch.equal(batch.rewards, SCALE * step.rewards + SHIFT)


def test_rollouts_never_leave_the_device(made, monkeypatch):
    rollouts, method = made()

    class Watch(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            # What reads a number out of a tensor, and makes a GPU wait.
            assert function is not torch.ops.aten._local_scalar_dense.default
            assert torch.device((keywords or {}).get("device") or "cpu").type == "cpu"
            self.operations += 1
            return function(*arguments, **(keywords or {}))

    def refused(*arguments, **keywords):
        raise AssertionError

    for name in ("cpu", "numpy", "tolist", "item", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    with Watch() as watch:
        rollouts.roll_out(method.policy)
        rollouts.mixed_batch(32)
    assert watch.operations > 100


def test_the_ring_keeps_the_newest_rollouts_whatever_their_length():
    buffer = RolloutBuffer(24, 3, 2, 1, torch.device("cpu"))
    pages, number = [], 0
    torch.manual_seed(0)
    for round in range(20):
        buffer.begin()
        pages = [*pages, []][-3:]
        # The longest fill a third of the ring, some end at once.
        for count in (4, [4, 1, 0, 2][round % 4]):
            rows = torch.arange(number, number + count)
            number += count
            pages[-1] += rows.tolist()
            wide = rows[:, None].float()
            buffer.extend(Batch(wide.expand(-1, 2), wide, rows.float(), -wide.expand(-1, 2), rows % 2 == 0))
        kept = [row for page in pages for row in page]
        assert buffer.state()["rewards"].tolist() == kept
        assert len(buffer) == len(kept)
        batch = buffer.sample(2000)
        assert set(batch.rewards.tolist()) == set(kept)
        assert torch.equal(batch.observations, -batch.next_observations)
        assert torch.equal(batch.observations[:, 0], batch.rewards)
        assert torch.equal(batch.actions[:, 0], batch.rewards)
        assert torch.equal(batch.terminations, batch.rewards % 2 == 0)


def test_a_restored_ring_gives_the_same_batches():
    def filled(buffer, rounds):
        for number in rounds:
            buffer.begin()
            rows = torch.arange(number * 10, number * 10 + 5 + number % 3).float()
            buffer.extend(Batch(rows[:, None], rows[:, None], rows, rows[:, None], rows > 3))
        return buffer

    device = torch.device("cpu")
    whole = filled(RolloutBuffer(21, 3, 1, 1, device), range(7))
    again = RolloutBuffer(21, 3, 1, 1, device)
    again.restore(whole.state())
    for buffer in (whole, again):
        filled(buffer, range(7, 9))
    torch.manual_seed(0)
    one = whole.sample(50)
    torch.manual_seed(0)
    other = again.sample(50)
    for name in PARTS:
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_an_empty_ring_is_restored_as_one():
    buffer = RolloutBuffer(6, 3, 1, 1, torch.device("cpu"))
    buffer.restore(RolloutBuffer(6, 3, 1, 1, torch.device("cpu")).state())
    assert len(buffer) == 0


@pytest.mark.parametrize(("share", "real"), [(0.05, 2), (0.5, 16), (0.001, 1), (1.0, 32)])
def test_a_batch_is_first_data_then_rollouts(made, walks, share, real):
    rollouts, method = made(real_ratio=share)
    rollouts.roll_out(method.policy)
    batch = rollouts.mixed_batch(32)
    assert rollouts.config.real_rows(32) == real
    data = torch.from_numpy(SCALE * np.array(walks.rewards) + SHIFT)
    model = rollouts.buffer.state()["rewards"]
    for rows, source in ((batch.rewards[:real], data), (batch.rewards[real:], model)):
        assert torch.isin(rows, source).all()
    assert len(batch.rewards) == 32


class Known:
    """A model of rewards 1 and uncertainty 0.25, in which episodes end at their fifth step."""

    def __init__(self):
        self.count = 0

    def step(self, observations, actions, uncertainty):
        self.count += 1
        one = torch.ones(len(observations))
        return Step(observations, one, one > (1 if self.count < 5 else 0), None if uncertainty is None else one / 4)


@pytest.mark.parametrize(("horizon", "steps"), [(3, 3), (50, 5)])
def test_returns_in_the_model_by_hand(made, walks, horizon, steps):
    rollouts, method = made(penalty_weight=2.0)
    rollouts.dynamics = Known()
    model = LearnedModel(rollouts, method, torch.from_numpy(np.array(walks.observations[:4])), horizon)
    assert model.returns() == {"model/return": steps, "model/penalised_return": steps / 2}


def test_returns_are_in_the_rewards_of_the_environment(made, walks):
    rollouts, method = made(penalty_weight=2.0)
    model = LearnedModel(rollouts, method, torch.from_numpy(np.array(walks.observations[:4])), 1)
    torch.manual_seed(3)
    values = model.returns()
    step = rollouts.dynamics.steps[-1]
    assert values["model/return"] == pytest.approx(step.rewards.mean().item())
    penalised = (step.rewards - 2 * step.uncertainty).mean().item()
    assert values["model/penalised_return"] == pytest.approx(penalised)


def test_rollouts_are_made_anew_when_due_and_the_method_is_left_alone(made, walks):
    rollouts, method = made(rollout_every=5)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    model = LearnedModel(rollouts, method, torch.zeros(1, 3), 1)
    made_at = []
    for update in range(11):
        count = len(rollouts.dynamics.steps)
        model.roll_out(update)
        model.batch(8)
        made_at += [update] if len(rollouts.dynamics.steps) > count else []
    assert made_at == [0, 5, 10]
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in rollouts.dynamics.parameters())
    assert dataclasses.asdict(rollouts.config)["rollout_every"] == 5
