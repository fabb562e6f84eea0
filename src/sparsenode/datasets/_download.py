"""Real data from where their authors keep them, or from a local copy."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pooch

from sparsenode import _checks
from sparsenode.datasets._bone_marrow import BATCHES, file_names
from sparsenode.datasets._bone_marrow_tables import assemble

VARIABLE = "SPARSENODE_DATA"
NAMES = ("bone_marrow", "motion_capture")
_MOTION = ("07.asf", "07_01.amc", "07_04.amc", "07_05.amc", "07_10.amc")


def download(name: Literal["bone_marrow", "motion_capture"]) -> Path:
    """Folder with a real data set, downloaded once, or found where the environment variable ``SPARSENODE_DATA`` points.

    Parameters
    ----------
    name
        ``"bone_marrow"``: 18 MB from github.com/theislab/PathReg, the data of :cite:t:`aliee2022sparsity`, for :func:`bone_marrow`.
        ``"motion_capture"``: 1.2 MB from mocap.cs.cmu.edu, subject 07 walking, for :func:`read_motion_capture`.

    Returns
    -------
    Folder with the files. If ``SPARSENODE_DATA`` is set, it is ``<SPARSENODE_DATA>/<name>`` and nothing is downloaded. Otherwise it is in
    the user's cache, and pooch verifies the checksums of downloaded files. The tables of the bone marrow are then joined, with one row for
    cells that are in several lineages, and written as h5ad.

    Raises
    ------
    ValueError
        If there is no data set of that name, or a downloaded file has another checksum.
    FileNotFoundError
        If files are missing in the folder that ``SPARSENODE_DATA`` names.
    requests.RequestException
        If a server cannot be reached.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.bone_marrow(sn.datasets.download("bone_marrow"), "S1D2")  # doctest: +SKIP
    """
    _checks.choice("name", name, NAMES)
    wanted = _MOTION if name == "motion_capture" else file_names(BATCHES)
    local = os.environ.get(VARIABLE)
    if local:
        folder = Path(local).expanduser() / name
        missing = [file for file in wanted if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Expected the files of {name!r} in {str(folder)!r}, found {missing} missing. Add them, or unset {VARIABLE} "
                "to download them."
            )
        return folder
    cache = pooch.create(path=pooch.os_cache("sparsenode"), base_url="")
    cache.load_registry(files("sparsenode.datasets") / "registry.txt")
    raw = [Path(cache.fetch(file)) for file in cache.registry_files if file.startswith(f"{name}/")]
    folder = raw[0].parent
    if not all((folder / file).is_file() for file in wanted):
        with TemporaryDirectory(dir=folder) as unfinished:  # a file that is there is whole
            assemble(folder, Path(unfinished))
            for file in Path(unfinished).iterdir():
                file.replace(folder / file.name)
    return folder
