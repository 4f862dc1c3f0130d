"""`AutoModel.from_pretrained(folder)` in processes of their own, as what is imported first must not matter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
ORDERS = (
    "import trajplan; from transformers import AutoModel",
    "from transformers import AutoModel; import trajplan",
    # A search that imports nothing, and then GPT-2's own module, amid whose imports the auto classes are loaded.
    "import trajplan, importlib.util; importlib.util.find_spec('transformers.models.auto.configuration_auto'); "
    "import transformers.models.gpt2.modeling_gpt2; from transformers import AutoModel",
)
# What takes long is imported once, what the orders are about in a copy of the process for each.
FORKS = """
import os, sys, scipy.optimize, torch.distributed.fsdp, torch.distributed.tensor, torch._dynamo.convert_frame
for order in sys.argv[2:]:
    process = os.fork()
    if not process:
        scope = {}
        exec(order, scope)
        assert "trajplan.models.trajectory_transformer" not in sys.modules
        model = scope["AutoModel"].from_pretrained(sys.argv[1])
        assert type(model).__name__ == "TrajectoryTransformer", type(model)
        assert type(model) is scope["trajplan"].TrajectoryTransformer
        config = sys.modules["transformers"].AutoConfig.for_model("trajectory_transformer_planner", window=4)
        assert type(config) is scope["trajplan"].TrajectoryTransformerConfig and config.window == 4
        module = sys.modules["transformers.models.auto.configuration_auto"]
        assert type(module.__loader__).__name__ == "SourceFileLoader" and module.__spec__.loader is module.__loader__
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0, order
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = TrajectoryTransformerConfig(window=3, n_layer=1, n_head=1, n_embd=4, bins=5)
    folder = tmp_path_factory.mktemp("model")
    TrajectoryTransformer(config).save_pretrained(folder)
    return folder


def run(code, *arguments, options=()):
    command = [sys.executable, *options, "-c", code, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_automodel_reads_a_folder_whatever_is_imported_first(folder):
    run(FORKS, folder, *ORDERS)


def test_the_package_imports_where_there_is_no_torch():
    code = "import trajplan; print(trajplan.TrajplanError.__name__)\ntry: trajplan.TrajectoryTransformer\n"
    code += "except ModuleNotFoundError as error: print(error.name)"
    assert run(code, options=["-S"]).split() == ["TrajplanError", "torch"]
