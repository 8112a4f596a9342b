"""Say before anyone queues what every GPU will hold, whether it fits, and how long a step may take.

    python tools/plan_cluster.py --config configs/qwen3_14b.yaml --nodes 2
    python tools/plan_cluster.py --config configs/qwen3_14b.yaml --nodes 4 --search
    python tools/plan_cluster.py --config configs/geo_hop_cpu.yaml --gpu cpu

The fleet takes rollout.workers x rollout.tensor_parallel GPUs, the train ranks all others. Settings
are overridden as in pretrain_trace.py; of the model only its config.json is read.
docs/cluster_plan.md says what is counted and how. The exit code is 0 if everything fits, 1 if not,
and 2 for a wrong setting.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from megatron_trace.check.command import check_apart_from_layout, check_settings, read_model_config
from megatron_trace.check.load import load_config
from megatron_trace.config import Config, SettingError
from megatron_trace.files.atomic import write_text
from megatron_trace.plan.assumptions import Assumptions, check_assumptions
from megatron_trace.plan.layout import train_gpus
from megatron_trace.plan.machines import GPUS, Cluster, cpu_share
from megatron_trace.plan.notation import flag
from megatron_trace.plan.picture import picture
from megatron_trace.plan.planner import make_plan
from megatron_trace.plan.search import search
from megatron_trace.plan.search_table import print_search
from megatron_trace.plan.tables import print_plan
from megatron_trace.report.words import console


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument(
        "--gpus-per-node", type=int, help="8; with --gpu cpu one train rank and the workers"
    )
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100-80gb")
    parser.add_argument("--search", action="store_true", help="print the best layouts instead")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all numbers, in bytes and seconds"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw which GPU holds what, as SVG"
    )
    for field in dataclasses.fields(Assumptions):
        meaning = str(field.metadata["meaning"]).replace("%", "%%")
        parser.add_argument(flag(field.name), type=float, default=field.default, help=meaning)
    parser.add_argument("overrides", nargs="*", metavar="section.name=value")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Plan and print."""
    args = parse(argv)
    assumptions = Assumptions(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(Assumptions)}
    )
    try:
        check_assumptions(assumptions)
        config = load_config(args.config, args.overrides)
        return report(args, config, cluster_of(args, config), assumptions)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def cluster_of(args: argparse.Namespace, config: Config) -> Cluster:
    """The cluster that the command line describes.

    Raises:
        SettingError: it has no GPU.
    """
    fleet = config.rollout.workers * config.rollout.tensor_parallel
    each = args.gpus_per_node
    if each is None:
        each = 1 + fleet if args.gpu == "cpu" else 8
    for name, count in (("--nodes", args.nodes), ("--gpus-per-node", each)):
        if count < 1:
            raise SettingError(name, count, "must be positive")
    # A machine without GPUs is a node whose "GPUs" are processes that share its memory.
    gpu = cpu_share(each) if args.gpu == "cpu" else GPUS[args.gpu]
    return Cluster(args.nodes, each, gpu)


def report(
    args: argparse.Namespace, config: Config, cluster: Cluster, assumptions: Assumptions
) -> int:
    """Print the plan or the best layouts, and write the files that were asked for."""
    out, hf = console(), read_model_config(config.model.path)
    if args.search:
        # The layout in the file is not used, so it may be one that this cluster cannot have.
        check_apart_from_layout(config)
        found = search(config, hf, cluster, assumptions)
        print_search(found, out)
        plans = found.best
    else:
        check_settings(config, world_size=train_gpus(config, cluster))
        plans = [make_plan(config, hf, cluster, assumptions)]
        print_plan(plans[0], assumptions, out)
    if args.json:
        numbers = [plan.as_dict() for plan in plans]
        shown = numbers if args.search else numbers[0]
        write_text(args.json, json.dumps(shown, indent=1) + "\n")
    if args.picture and plans:
        write_text(args.picture, picture(plans[0]))
    return 0 if plans and plans[0].fits else 1


if __name__ == "__main__":
    sys.exit(main())
