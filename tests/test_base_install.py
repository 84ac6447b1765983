"""Loading, decoding, inspecting and exporting a release takes the base install alone, from Python and from the command
line; what is left out is named in one sentence.

A fresh interpreter, in which no library can be imported that neither the base dependencies of pyproject.toml nor what
they require bring along.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "distill" / "golden"

# Run with nothing else importable: every form of a release, every way out of it, and what is said of what is missing.
SCRIPT = """
import contextlib, importlib.abc, io, json, sys
sys.path.insert(0, {repository!r})
forbidden = set(json.loads({forbidden!r}))

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
from pathlib import Path
import lvdd_assets
from lvdd_assets.distill.exporting import export
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.release import read_ledger

said, decoded = {{}}, 0
for path in sorted(Path({golden!r}).glob("*.zarr.zip")):
    release = lvdd_assets.load_release(path)
    decoded += sum(clip.shape == release.clip_shape for clip, _ in release.dataset())
    assert read_ledger(path).total == release.stored_bytes
    if release.has_soft_labels:
        release.dataset("soft")[0]
for to in ("webdataset", "folder", "hf"):
    export(release, to, Path({out!r}) / to)
try:
    release.ledger
except ImportError as error:
    said["ledger"] = str(error)
kl = dict(act_fn="silu", block_out_channels=[8], latent_channels=4, layers_per_block=1, mid_block_add_attention=True,
    norm_num_groups=4, out_channels=3, scaling_factor=1.0, shift_factor=0.0, up_block_types=["UpDecoderBlock2D"],
    use_post_quant_conv=True)
try:
    build_decoder(DecoderSpec("AutoencoderKL", kl))
except ImportError as error:
    said["decoder"] = str(error)
from lvdd_assets.__main__ import main

def lvdd(*words):
    # exit code, stdout and stderr of a command
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main([str(word) for word in words], prog_name="lvdd")
        except SystemExit as error:
            return [error.code, stdout.getvalue(), stderr.getvalue()]

files = sorted(Path({golden!r}).glob("*.zarr.zip"))
said["commands"] = {{
    "help": lvdd("--help"),
    "inspect": lvdd("inspect", files[-1], "--json"),
    "compare": lvdd("compare", *files, "--json"),
    "export": lvdd("export", files[-1], "--to", "folder", "--out", Path({out!r}) / "lvdd", "--json"),
}}
said["run"] = lvdd("run", "demo", "--force")[2]
said["sheet"] = lvdd("inspect", files[-1], "--sheet", Path({out!r}) / "sheet.png")[2]
print(json.dumps({{"decoded": decoded, "said": said}}))
"""


def _closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that these bring along, as far as they are installed here."""
    found: set[str] = set()
    queue = list(requirements)
    while queue:
        requirement = queue.pop()
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")
        if name in found:
            continue
        try:
            more = metadata.requires(name)
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        queue += more or []
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    allowed = _closure(project["dependencies"]) | {"lvdd-assets"}
    forbidden = sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if not {name.lower().replace("_", "-").replace(".", "-") for name in distributions} & allowed
    )
    assert {"dagster", "diffusers", "pandas", "psutil", "scipy", "pydantic", "PIL"} <= set(forbidden)
    assert not {"torch", "numpy", "zarr", "click", "tqdm"} & set(forbidden)
    out = tmp_path_factory.mktemp("base")
    script = SCRIPT.format(
        repository=str(REPOSITORY), forbidden=json.dumps(forbidden), golden=str(GOLDEN), out=str(out)
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=out)
    assert result.returncode == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return answer


def test_every_clip_of_every_version_is_decoded(said: dict[str, object]) -> None:
    from lvdd_assets.distill.release import load_release

    assert said["decoded"] == sum(load_release(path).num_clips for path in GOLDEN.glob("*.zarr.zip"))


def test_commands_on_files_run(said: dict[str, dict[str, dict[str, tuple[int, str, str]]]]) -> None:
    commands = said["said"]["commands"]
    for name, (code, _, stderr) in commands.items():
        assert (code, stderr) == (0, ""), name
    assert "  run  " in commands["help"][1]  # what cannot run here is listed all the same
    assert json.loads(commands["inspect"][1])["weight_bits"] == 8
    assert len(json.loads(commands["compare"][1])["releases"]) == 4
    assert json.loads(commands["export"][1])["num_clips"] == 6


@pytest.mark.parametrize(
    ("what", "library"),
    [("ledger", "pandas"), ("decoder", "diffusers"), ("run", "dagster|psutil"), ("sheet", "PIL")],
)
def test_what_is_missing_is_one_sentence_that_names_the_extra(
    said: dict[str, dict[str, str]], what: str, library: str
) -> None:
    sentence = said["said"][what].strip()
    assert re.search(rf"needs ({library}), which is not installed: pip install 'lvdd-assets\[pipeline\]'$", sentence)
    assert "\n" not in sentence
