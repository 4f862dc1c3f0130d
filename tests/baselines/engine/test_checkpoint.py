import pytest

from trajplan.baselines.engine import checkpoint
from trajplan.baselines.engine.trainer import train


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_run_killed_while_it_wrote_its_settings_goes_on(walks, small, quick, tmp_path, monkeypatch, written):
    arguments = (walks, tmp_path / "run", "bc", small("bc"), quick(eval_every=0))
    write, left = checkpoint.write_json, [written]

    def write_or_die(*values):
        if not left[0]:
            raise SystemExit("killed")
        left[0] -= 1
        write(*values)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_json", write_or_die)
        if written < 3:
            with pytest.raises(SystemExit):
                train(*arguments, progress=False)
        else:
            train(*arguments, progress=False)
    assert train(*arguments, resume=True, progress=False).updates == 12
