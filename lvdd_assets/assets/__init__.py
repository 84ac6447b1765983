"""The paper's pipeline as assets, one file a step. They meet through Dagster and the stores, never through imports."""

import warnings

import dagster as dg

# `backfill_policy` is what makes a range of partitions one run; that it is marked beta is no news at every start.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*backfill_policy.*")
