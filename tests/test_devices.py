import subprocess
import sys

import pytest
import torch

from trajplan.devices import check_device, choose_device
from trajplan.errors import ConfigError


def test_a_device_is_chosen_by_name_or_by_what_is_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["graphics", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(name):
    with pytest.raises(ConfigError, match=f"^There is no device '{name}' here .*; give --device cpu") as refused:
        choose_device(name)
    assert "\n" not in str(refused.value)


def test_a_device_without_values_is_refused():
    with pytest.raises(ConfigError, match=r"^There is no device 'meta' here .*; give --device cpu"):
        choose_device("meta")


def test_a_device_is_checked_without_memory_on_it(monkeypatch):
    def probe(*sizes, device):
        raise RuntimeError("probed")

    check_device("cpu")
    monkeypatch.setattr("torch.empty", probe)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("cpu", "cuda", None):
        check_device(name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^There is no device 'cuda' here \(probed\); give --device cpu"):
        check_device("cuda")


@pytest.mark.gpu
def test_a_check_leaves_the_gpu_alone():
    code = "import torch; from trajplan.devices import check_device; check_device('cuda'); check_device()\n"
    code += "assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_gpu_chosen_by_number_is_the_current_one():
    last = torch.cuda.device_count() - 1
    choose_device(f"cuda:{last}")
    assert torch.cuda.current_device() == last
