# Source me from the project's folder:   . ./env.sh
# Afterwards `dagster asset materialize --select hosvd_cores` works as typed, and so do `dagster dev` and `lvdd`.

if [ ! -f ./pyproject.toml ] || [ ! -d ./lvdd_assets ]; then
    echo "env.sh: source it from the project's folder (the one with pyproject.toml)" >&2
else
    if [ -f ./.venv/bin/activate ]; then
        . ./.venv/bin/activate
    else
        echo "env.sh: no .venv here yet; run \`make setup\` first" >&2
    fi
    # Which definitions `dagster asset materialize` loads; it reads neither workspace.yaml nor pyproject.toml. The shorter
    # DAGSTER_MODULE_NAME would reach the processes of `dagster dev`, too, which then refuse to start.
    export DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME=lvdd_assets.definitions
    # Which partition `dagster asset materialize` takes when --partition is not given: "default" stands for all classes of the
    # registry's default dataset, or for that dataset itself. With --partition-range, say --partition '' beside it.
    export DAGSTER_CLI_ASSET_MATERIALIZE_PARTITION=default
fi
