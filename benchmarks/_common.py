"""What the benchmark scripts share: arguments, data in the paper's protocol, and results with their circumstances."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("sparsenode", "torch", "torchdiffeq", "scvi-tools", "lightning", "anndata", "numpy", "scipy", "pysindy")

# Protocol of Aliee et al. (2022) on the bone marrow: cells dropped at the two ends of every trajectory.
DROP_FIRST, DROP_LAST = 10, 20
TIME_KEY = "dpt_pseudotime"
LINEAGE_KEY = "lineage"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that every script takes."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--quick", action="store_true", help="few repetitions, to see that it runs; writes nothing")
    result.add_argument("--output", type=folder, default=RESULTS, help="folder for the results")
    return result


def folder(name: str | Path) -> Path:
    """A folder that can be written to or made, found out before anything is computed."""
    path = Path(name)
    there = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"Expected a folder to write to, found {path}: {there} is none, or read-only.")
    return path


def add_data_argument(arguments: argparse.ArgumentParser) -> None:
    """Add ``--data``: the environment variable ``SPARSENODE_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(os.environ.get("SPARSENODE_DATA") or ROOT.parent / "shared" / "data")
    arguments.add_argument("--data", type=Path, default=default, help="folder with the reference data")


def add_donor_argument(arguments: argparse.ArgumentParser) -> None:
    """Add ``--donor``, for what is measured on one donor of the bone marrow."""
    arguments.add_argument("--donor", default="S1D2", help="donor, a file bone_marrow/NAME.h5ad of the data")


def read_regulators(folder: Path) -> list[str]:
    """Transcription factors of the bone marrow, the first column of their file in its folder."""
    import pandas as pd

    return pd.read_csv(folder / "transcription_factors.csv").iloc[:, 0].tolist()


def check_donors(arguments: argparse.ArgumentParser, data: Path, donors: Sequence[str]) -> None:
    """End with a message where a donor of the bone marrow has no file, stands twice, or has cells that cannot be used."""
    folder = data / "bone_marrow"
    missing = [name for name in donors if not (folder / f"{name}.h5ad").exists()]
    if missing:
        there = sorted(path.stem for path in folder.glob("*.h5ad"))
        arguments.error(
            f"Expected {[f'{name}.h5ad' for name in missing]} in {folder}, found none. Donors there: {there}."
        )
    if len(set(donors)) < len(donors):
        arguments.error(f"Expected every donor once, found {tuple(donors)}.")
    for name in donors:
        try:
            with redirect_stdout(None):  # what is left out is said when the donor is read
                read_donor(folder / f"{name}.h5ad")
        except (ValueError, TypeError, OSError) as error:  # of all types, since files may be anything
            arguments.error(f"{name}: {error}")


def read_donor(path: Path) -> AnnData:
    """Cells of a donor that are in a lineage, checked; says how many are in none."""
    import anndata

    adata = anndata.read_h5ad(path)
    check_expression(adata)
    inside = memberships(adata).any(axis=1).to_numpy()
    if not inside.all():
        print(f"{path.stem}: {(~inside).sum()} of {adata.n_obs} cells are in no lineage, left out")
        adata = adata[inside].copy()
    check_time(adata)
    return adata


def check_expression(adata: AnnData) -> None:
    """Refuse genes that stand twice, and values that normalised counts cannot have."""
    import numpy as np
    from scipy import sparse

    twice = adata.var_names[adata.var_names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"Expected every gene once, found {len(twice)} more than once: {list(twice[:3])}. Rename them."
        )
    values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
    wrong = int((~(np.isfinite(values) & (values >= 0))).sum())
    if wrong:
        raise ValueError(
            f"Expected normalised counts in adata.X, not logged or scaled, found {wrong} values that are negative, NaN or infinite. "
            "Replace them."
        )


def memberships(adata: AnnData) -> pd.DataFrame:
    """Which cells are in which lineage, after a check of that."""
    import pandas as pd

    table = adata.obsm.get("lineages")
    if not isinstance(table, pd.DataFrame):
        raise ValueError(
            f"Expected a DataFrame with a column a lineage in adata.obsm['lineages'], found {type(table).__name__}. Make it one."
        )
    wrong = [name for name, own in table.items() if not pd.api.types.is_numeric_dtype(own)]
    if wrong or table.isna().to_numpy().any():
        raise ValueError(
            "Expected booleans or numbers in adata.obsm['lineages'], found "
            f"{f'others in {wrong}' if wrong else 'missing ones'}. Replace them."
        )
    return table.astype(float) > 0


def check_time(adata: AnnData) -> None:
    """Refuse cells without a pseudotime."""
    import numpy as np
    import pandas as pd

    if TIME_KEY not in adata.obs:
        raise ValueError(f"Expected pseudotime in adata.obs[{TIME_KEY!r}], found {list(adata.obs)}. Rename its column.")
    if not pd.api.types.is_numeric_dtype(adata.obs[TIME_KEY]):
        raise ValueError(
            f"Expected numbers in adata.obs[{TIME_KEY!r}], found {adata.obs[TIME_KEY].dtype}. Convert them."
        )
    unknown = int((~np.isfinite(adata.obs[TIME_KEY].to_numpy(dtype=float))).sum())
    if unknown:
        raise ValueError(
            f"Expected finite pseudotime in adata.obs[{TIME_KEY!r}], found {unknown} of {adata.n_obs} cells without. Leave them out."
        )


def trajectories(adata: AnnData) -> AnnData:
    """Cells in the paper's protocol, one row per cell and lineage.

    The first 10 and the last 20 cells of every lineage are dropped, and every gene is scaled to ``[0, 1]`` within every
    lineage. A stem cell has other values in each of its lineages, and so a row in each.
    """
    import anndata
    import numpy as np
    import pandas as pd
    from scipy import sparse

    x = np.asarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X, dtype=np.float64)
    time = adata.obs[TIME_KEY].to_numpy(dtype=np.float64)
    values, observations = [], []
    for lineage, member in memberships(adata).items():
        cells = np.flatnonzero(member)
        cells = cells[np.argsort(time[cells], kind="stable")][DROP_FIRST:-DROP_LAST]
        if len(cells) == 0:
            raise ValueError(
                f"Expected more than {DROP_FIRST + DROP_LAST} cells in every lineage, of which the paper's protocol drops the first "
                f"{DROP_FIRST} and the last {DROP_LAST}, found {member.sum():g} in {lineage!r}. Leave it out."
            )
        low, high = x[cells].min(0), x[cells].max(0)
        values.append((x[cells] - low) / np.where(high > low, high - low, 1.0))
        names = [f"{name}-{lineage}" for name in adata.obs_names[cells]]
        observations.append(pd.DataFrame({TIME_KEY: time[cells], LINEAGE_KEY: lineage}, index=names))
    obs = pd.concat(observations).astype({LINEAGE_KEY: "category"})
    return anndata.AnnData(np.concatenate(values).astype(np.float32), obs=obs, var=pd.DataFrame(index=adata.var_names))


def machine() -> dict[str, Any]:
    """Processor, system, and how busy it is."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": name, "cores": os.cpu_count(), "system": system, "load_average": load}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Commit of the source, with ``+changes`` if files differ from it."""
    try:
        run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "src"], **run).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def write_results(table: pd.DataFrame, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a table as csv, and the circumstances beside it as json.

    Settings that are paths are left out: they say where things lie on one machine.
    """
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "settings": {key: value for key, value in settings.items() if not isinstance(value, Path)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.5g")
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, default=str) + "\n")
    print(f"wrote {path.name} and {path.with_suffix('.json').name}")


def save(name: str, rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace, **settings: Any) -> None:
    """Print the rows, and unless ``--quick`` write them with what was asked for on the command line."""
    import pandas as pd

    if not rows:
        raise SystemExit(f"Expected rows for {name}.csv, found none: nothing was measured, and nothing is written.")
    table = pd.DataFrame(list(rows))
    print(table.to_string(index=False))
    if arguments.quick:
        print("--quick: nothing written")
        return
    given = {key: value for key, value in vars(arguments).items() if key != "quick"}
    write_results(table, arguments.output / f"{name}.csv", {**given, **settings})
