"""`lvdd plan`: what a budget buys, for every recipe."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lvdd_assets.cli.completion import complete_datasets
from lvdd_assets.cli.terminal import aligned, json_option, print_json, sentences, step_errors
from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    from lvdd_assets.planner import Plans


@click.command()
@click.argument("dataset", default="default", shell_complete=complete_datasets)
@click.option("--budget", help="Bytes, e.g. 200kB or 1.5MiB, instead of the registry's budget.")
@click.option(
    "--classes",
    "most_classes",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Classes to look at; of the others only the files are counted.",
)
@json_option
def plan(dataset: str, budget: str | None, most_classes: int, as_json: bool) -> None:
    """Say what a budget buys of DATASET: clips, step or rate, and bytes by part, for every recipe; and pick one.

    The classes that are looked at are decoded, encoded and selected, and stay stored. Nothing is trained.

    \b
      lvdd plan demo
      lvdd plan my_videos --budget 500kB
      lvdd plan my_videos --budget 500kB --json | jq .picked
    """
    with sentences():
        from lvdd_assets.distill.catalog import Budget, parse_bytes
        from lvdd_assets.planner import make_plans

        workspace = workspace_from_environment()
        spec = workspace.catalog().dataset(dataset)
        other = None if budget is None else Budget(num_bytes=parse_bytes(budget))
        with step_errors():
            plans = make_plans(workspace, spec, budget=other, most_classes=most_classes)
    if as_json:
        print_json(asdict(plans))
    else:
        click.echo(_plan_table(spec.name, plans))


def _plan_table(name: str, plans: "Plans") -> str:
    """The plans as text, the picked one marked."""
    from lvdd_assets.distill.budget import format_bytes
    from lvdd_assets.planner import clips_range

    heads = ("", "recipe", "clips a class", "setting", "decoder", "cores", "rest", "file", "of budget")
    table = [[head.upper() for head in heads]]
    for plan in plans.plans:
        parts = dict(plan.parts)
        decoder = parts.pop("decoder", 0) + parts.pop("encoder", 0)
        cores = parts.pop("cores", None)
        sizes = [format_bytes(decoder) if decoder else "–", "–" if cores is None else format_bytes(cores)]
        sizes.append(format_bytes(sum(parts.values())))
        used = (
            ["–", "does not fit"]
            if plan.problem
            else [format_bytes(plan.num_bytes), f"{plan.num_bytes / plan.allowed:.1%}"]
        )
        mark = "*" if plan.recipe == plans.picked else ""
        table.append([mark, plan.recipe, clips_range(plan.clips), plan.setting, *sizes, *used])
    lines = aligned(table)
    problems = [f"{plan.recipe}: {plan.problem}" for plan in plans.plans if plan.problem]
    over = [f"{plan.recipe} does not bend to the budget" for plan in plans.plans if not plan.problem and not plan.fits]
    return "\n".join(
        [
            f"{name}: {format_bytes(plans.allowed)} allowed, {plans.num_classes} classes\n",
            *lines,
            f"\n* picked: {plans.why}",
            *(f"  {note}" for note in (*plans.notes, *problems, *over)),
            f"\nTo use it, give {name} in the registry:  recipe: {plans.picked}",
        ]
    )
