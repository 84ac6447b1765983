"""Where an autoencoder's files are: those that come with the package, a local folder, the hub's cache, a class by path.

What belongs here: from the name in the registry to a folder with `config.json` and safetensors, the class it names, the
hash of its files. No weights are loaded. Nothing is downloaded but by `download`.
"""

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from lvdd_assets.distill.decoder_specs import OWN_CLASS, check_class

EMBEDDED = ("embedded-2d", "embedded-2d-large", "embedded-3d")
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*))?")
_BYTES_SHOWN = 200


@dataclass(frozen=True)
class AutoencoderFolder:
    """A folder with an autoencoder's files and the class that reads it.

    Attributes:
        folder: None for a class by import path that needs no files.
        class_name: a class of `diffusers`, or `package.module:Class`.
    """

    folder: Path | None
    class_name: str

    def fingerprint(self) -> str:
        """SHA-256 of configuration and weights, in hexadecimal; of its source too where the class is its author's."""
        digest = hashlib.sha256()
        if OWN_CLASS.fullmatch(self.class_name):
            files = [_source_of(self.class_name), *sorted(self.folder.rglob("*") if self.folder else ())]
        else:
            assert self.folder is not None
            files = [self.folder / CONFIG_FILE, self.folder / WEIGHTS_FILE]
        for path in files:
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def find_autoencoder(name: str, base: Path | None = None) -> AutoencoderFolder:
    """What a name stands for.

    Args:
        name: one of `EMBEDDED`; a folder in `diffusers` layout, absolute or relative; a hub id, `organisation/name`,
            with `@revision` if one is to be fixed, that was downloaded before; or a class by import path,
            `package.module:Class`, with `@folder` if it is to be loaded by its `from_pretrained`.
        base: where relative folders start; the current folder if None.

    Raises:
        ValueError: there is no such thing here. The message says what to put where.
    """
    base = base or Path.cwd()
    if name in EMBEDDED:
        folder = Path(__file__).parent.parent / "weights" / name
        return AutoencoderFolder(folder, _read_class(folder))
    class_name, _, place = name.partition("@")
    if OWN_CLASS.fullmatch(class_name):
        folder = base / Path(place).expanduser()
        if place and not folder.is_dir():
            raise ValueError(f"{name!r}: there is no folder {folder}; put the weights of {class_name} there")
        return AutoencoderFolder(folder if place else None, class_name)
    folder = base / Path(name).expanduser()
    if folder.is_dir():
        return AutoencoderFolder(folder, _read_class(folder))
    if hub_id := _HUB_ID.fullmatch(name):
        folder = _from_cache(hub_id["repo"], hub_id["revision"], looked_for=folder)
        return AutoencoderFolder(folder, _read_class(folder))
    raise ValueError(
        f"no autoencoder {name!r}: there is no folder {folder}. Give one of {', '.join(EMBEDDED)}; a folder with "
        f"{CONFIG_FILE} and {WEIGHTS_FILE}; a hub id such as organisation/name; or package.module:Class@folder"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def own_classes(name: str) -> tuple[str, ...]:
    """The class by import path that a name in the registry trusts; none for any other name."""
    class_name = name.partition("@")[0]
    return (class_name,) if OWN_CLASS.fullmatch(class_name) else ()


def download(name: str) -> Path:
    """Downloads an autoencoder from the hub into its cache, so that its id can be used as a name; resumes.

    Args:
        name: `organisation/name`, with `@revision` if one is to be fixed.

    Raises:
        ValueError: the hub cannot be reached or has no such files. The message says what to put where.
    """
    hub_id = _HUB_ID.fullmatch(name)
    if hub_id is None:
        raise ValueError(f"{name!r} is no hub id; expected organisation/name or organisation/name@revision")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id["repo"], revision=hub_id["revision"], allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, "README.md"]
            )
        )
    except Exception as error:  # the client passes on its HTTP library's errors, which differ between its versions
        raise ValueError(
            f"the autoencoder {name!r} could not be had from the hub ({_short(error)}). Without a network, copy its "
            f"{CONFIG_FILE} and {WEIGHTS_FILE} into a folder, and name that folder as `vae` in the registry"
        ) from error


def _from_cache(repo: str, revision: str | None, *, looked_for: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except Exception as error:  # as in `download`
        named = f"{repo}@{revision}" if revision else repo
        raise ValueError(
            f"the autoencoder {named!r} is not on this machine ({_short(error)}), and nothing is downloaded unasked. "
            f"`lvdd fetch {named}` downloads it; without a network, put its {CONFIG_FILE} and {WEIGHTS_FILE} into "
            f"{looked_for}, or name another folder that holds them, or use {EMBEDDED[0]!r}"
        ) from error
    return folder


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_BYTES_SHOWN]}"


def _read_class(folder: Path) -> str:
    """The class that a folder's configuration names, once both files are known to be there."""
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
            raise ValueError(
                f"{folder} has no {file} (found: {found}). Put {CONFIG_FILE} and {WEIGHTS_FILE} there; pickled "
                "weights (.bin) are refused because reading one can run code: save them again as safetensors"
            )
    try:
        class_name = str(dict(json.loads((folder / CONFIG_FILE).read_text())).get("_class_name"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} holds no JSON object ({error}); fetch it again") from error
    check_class(class_name, str(folder / CONFIG_FILE))
    if OWN_CLASS.fullmatch(class_name):
        raise ValueError(
            f"{folder / CONFIG_FILE} names the class {class_name}: a class by import path must stand in the registry, "
            f"as vae: {class_name}@{folder.name}, so that no file decides what code is run"
        )
    return class_name


def _source_of(class_name: str) -> Path:
    """The file that holds a class's source."""
    module = class_name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        spec, cause = None, error
    else:
        cause = ImportError(f"no module {module}")
    if spec is None or spec.origin is None:
        raise ValueError(
            f"the autoencoder class {class_name} cannot be imported ({cause}); install its package or put its module "
            "on PYTHONPATH"
        )
    return Path(spec.origin)
