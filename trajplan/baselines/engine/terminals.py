"""What the values of a method need of a dataset: that its terminals are recorded."""

from typing import Any

import numpy as np
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import DataError
from trajplan.models.termination import termination_rule


def check_terminals(dataset: OfflineDataset, config: Any) -> None:
    """Refuse a dataset without a terminal whose environment has ended episodes of it.

    Their last transitions would count as cut off by a time limit, and a fall as worth what comes after it.

    Args:
        dataset: untransformed.
        config: settings of the method; one without a discount learns no values, and anything goes.
    """
    rule = termination_rule(dataset.info.env_spec)
    if not hasattr(config, "discount") or rule is None or np.any(dataset.terminations):
        return
    last = dataset.offsets[1:] + np.arange(dataset.num_episodes)
    ended = int(rule(torch.from_numpy(np.asarray(dataset.observations[last]))).sum())
    if ended:
        assert dataset.info.env_spec is not None
        raise DataError(
            f"dataset {dataset.id!r} records no terminal, yet {ended:,} of its {dataset.num_episodes:,} episodes end "
            f"where {dataset.info.env_spec.id} ends them: mark those ends as terminations, not as truncations."
        )
