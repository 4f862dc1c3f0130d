"""`trajplan datasets show`: what a dataset holds, in numbers and as a picture."""

import argparse
import json

from trajplan.data.dataset import OfflineDataset
from trajplan.data.picture import check_picture_path, save_picture
from trajplan.data.summary import describe_in_full, summarize


def run(args: argparse.Namespace) -> None:
    """Show it."""
    if args.picture:
        check_picture_path(args.picture)
    dataset = OfflineDataset.from_minari(args.id)
    summary = summarize(dataset)
    if args.picture:
        save_picture(dataset, args.picture)
    print(json.dumps(summary, indent=2) if args.json else describe_in_full(dataset, summary))
    if args.picture and not args.json:
        print(f"\n  picture in {args.picture}")
