import pytest
import torch

from trajplan.errors import CheckpointError
from trajplan.runs import state
from trajplan.runs.tensors import read_tensors


def save(run, update, **keywords):
    parts = ({"w": torch.full((2,), float(update))}, {"m": torch.ones(2)}, {"cpu": torch.get_rng_state()})
    return state.save_state(run / state.STATES, *parts, {"update": update}, **keywords)


def test_the_newest_complete_state_counts_and_what_a_killed_process_left_is_deleted(tmp_path):
    old, new = save(tmp_path, 4), save(tmp_path, 8)
    (new / "optimizer.safetensors").write_bytes(b"cut")
    for folder in (tmp_path, tmp_path / state.STATES):
        (folder / ".partial-model.safetensors").write_text("half")
    assert state.newest_state(tmp_path / state.STATES) == old
    state.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [state.STATES]
    assert list((tmp_path / state.STATES).iterdir()) == [old]


def test_the_kept_weights_are_the_states_own_unless_others_were_given(tmp_path):
    assert state.kept_weights(save(tmp_path, 1))["w"].tolist() == [1, 1]
    assert state.kept_weights(save(tmp_path, 2, kept={"w": torch.zeros(2)}))["w"].tolist() == [0, 0]


def test_moments_and_random_states_come_back(tmp_path):
    def optimizer():
        parameter = torch.nn.Parameter(torch.ones(3))
        made = torch.optim.Adam([parameter])
        return made, parameter

    one, parameter = optimizer()
    parameter.grad = torch.arange(3.0)
    one.step()
    other, _ = optimizer()
    state.restore_moments({"actor": other}, state.moments_of({"actor": one}))
    for name, value in one.state_dict()["state"][0].items():
        assert torch.equal(value, other.state_dict()["state"][0][name])
    with pytest.raises(KeyError):
        state.restore_moments({"critic": other}, state.moments_of({"actor": one}))
    cpu = torch.device("cpu")
    step = save(tmp_path, 1)
    drawn = torch.rand(3)
    state.restore_random_states(step, read_tensors(step / "random.safetensors"), cpu)
    assert torch.equal(torch.rand(3), drawn)
    with pytest.raises(CheckpointError, match="another kind of device: it has random states of cpu, device and"):
        state.restore_random_states(step, {"cpu": torch.zeros(1), "device": torch.zeros(1)}, cpu)
