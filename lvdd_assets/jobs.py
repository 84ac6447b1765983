"""Jobs that are one click in Dagster's UI and no run over one kind of partitions: the demo, the paper's tables.

They go through the same steps and fingerprints as runs over assets, and tell the lineage of each partition.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from lvdd_assets.assets.eval_report import EvalReportConfig
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.demo import render_dataset
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.places import replace_bytes
from lvdd_assets.distill.tables import PAPER_TABLES, Table
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import report_outcomes
from lvdd_assets.steps import Step, StepError, keys_of

DEMO = "demo"


class DistillDemoConfig(dg.Config):
    """What is run."""

    dataset: str = Field(
        default=DEMO, description="Entry of the registry whose root the demo's videos are rendered to."
    )


@dg.op(description="Renders the demo's videos unless they are there, then brings its whole chain up to date.")
def demo_chain(context: dg.OpExecutionContext, config: DistillDemoConfig, pipeline: dg.ResourceParam[Pipeline]) -> None:
    """Every step in its order; each partition is a materialization, cached or not.

    Raises:
        dagster.Failure: with the message that a step gave.
    """
    spec = pipeline.workspace.catalog().dataset(config.dataset)
    num_rendered = render_dataset(spec.root)
    context.log.info(f"{num_rendered} videos rendered below {spec.root}")
    for step in pipeline.steps:
        keys = keys_of(spec, class_names(spec) if step.by == "class" else [""])
        try:
            outcomes = pipeline.bring_up_to_date(step.name, keys, _settings_of(step))
        except (StepError, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        report_outcomes(context, pipeline, outcomes)
        computed = sum(not outcome.cached for outcome in outcomes)
        context.log.info(f"{step.name}: computed {computed} of {len(outcomes)} partitions")


def _settings_of(step: Step) -> dict[str, Any]:
    return dict(step.defaults)


@dg.job(
    description="The demo from rendering to report, in one click; recomputes only what is stale. Some minutes at first."
)
def distill_demo() -> None:
    """See the description."""
    demo_chain()


def measured_tables(
    pipeline: Pipeline,
    specs: Sequence[DatasetSpec],
    config: Mapping[str, Any],
    names: Sequence[str] = (),
    *,
    ipc: Fraction | None = None,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Table]]:
    """The paper's tables by name, each as soon as it is there, with figures measured on datasets whose chain has run.

    Args:
        pipeline: the chain.
        specs: the datasets.
        config: run config of eval_report, which says how networks are trained.
        names: some of `PAPER_TABLES`; all by default.
        ipc: one budget for all tables, in instances a class, instead of the paper's.
        say: is told what is trained just now.

    Raises:
        StepError: something was never made.
        ValueError: an unknown table.
    """
    from lvdd_assets.distill.paper_tables import run_tables
    from lvdd_assets.evaluating import bring_site_up, make_bench

    benches = [make_bench(bring_site_up(pipeline, spec, config), config, say) for spec in specs]
    return run_tables(names or PAPER_TABLES, benches, ipc=ipc)


class PaperTablesConfig(dg.Config):
    """Which tables, and how long is trained for them."""

    datasets: list[str] = Field(default=["default"], description="Entries of the registry; their chain must have run.")
    tables: list[str] = Field(default=list(PAPER_TABLES), description=f"Some of {', '.join(PAPER_TABLES)}.")
    ipc: str = Field(default="", description="One budget for all tables, e.g. 1/100; the paper's where it is empty.")
    protocol: Literal["quick", "literature"] = Field(default="quick", description="How networks are trained.")
    num_seeds: int = Field(default=0, ge=0, description="Networks to train on each set; 0: the protocol's.")
    epochs: int = Field(default=0, ge=0, description="Passes over the largest set; 0: the protocol's.")


@dg.op(
    description="Trains what the paper's tables need and was not trained before. Hours on a CPU.",
)
def tables(context: dg.OpExecutionContext, config: PaperTablesConfig, pipeline: dg.ResourceParam[Pipeline]) -> None:
    """The tables as Markdown: on the run's page, and in the data root as `paper_tables.md`.

    Raises:
        dagster.Failure: with the message that a table or a step gave.
    """
    settings = EvalReportConfig(
        protocol=config.protocol,
        seeds=list(range(config.num_seeds)) or None,
        epochs=config.epochs or None,
        rivals=["tight", "paper", "codec"],
    ).settings()
    catalog = pipeline.workspace.catalog()
    specs = [catalog.dataset(name) for name in config.datasets]
    ipc = Fraction(config.ipc) if config.ipc else None
    texts = []
    try:
        for name, table in measured_tables(pipeline, specs, settings, config.tables, ipc=ipc, say=context.log.info):
            texts.append(table.to_markdown())
            context.log.info(f"{name} is done")
    except (StepError, ValueError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    text = "\n".join(texts)
    replace_bytes(pipeline.workspace.data_root / "paper_tables.md", text.encode())
    context.add_output_metadata({"tables": dg.MetadataValue.md(text)})


@dg.job(
    description=(
        "The paper's tables with figures measured here beside the published ones. The chain of the datasets must have "
        "run. What was trained before is not trained again."
    ),
)
def paper_tables() -> None:
    """See the description."""
    tables()
