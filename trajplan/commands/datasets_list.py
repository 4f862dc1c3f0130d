"""`trajplan datasets list`: list the datasets on this machine, or those of Minari's server."""

import argparse
import json
import sys

from trajplan.data.minari_files import dataset_root
from trajplan.data.sources.minari import list_datasets


def run(args: argparse.Namespace) -> None:
    """List them."""
    rows, problems = list_datasets(args.remote)
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"No datasets in {dataset_root()} (MINARI_DATASETS_PATH names another folder).")
    else:
        width = max(len(row["id"]) for row in rows)
        print(f"{'id':<{width}}  {'episodes':>9}  {'transitions':>12}  {'MB':>9}  environment")
        for row in rows:
            sizes = f"{row['num_episodes']:>9,}  {row['num_transitions']:>12,}  {row['megabytes']:>9,.1f}"
            print(f"{row['id']:<{width}}  {sizes}  {row['environment'] or '-'}")
    for problem in problems:
        print(f"trajplan: {problem}", file=sys.stderr)
