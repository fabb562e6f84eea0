from __future__ import annotations

import functools
import http.server
import threading
from hashlib import sha256
from importlib.resources import files
from types import SimpleNamespace

import pandas as pd
import pooch
import pytest

import sparsenode as sn
from sparsenode.datasets import _download
from sparsenode.datasets._bone_marrow_tables import _BASE, _CELL_TYPES, _DONORS, _LINEAGES


def test_local_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSENODE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"07\.asf.*unset SPARSENODE_DATA"):
        sn.datasets.download("motion_capture")
    (tmp_path / "motion_capture").mkdir()
    for name in _download._MOTION:
        (tmp_path / "motion_capture" / name).touch()
    assert sn.datasets.download("motion_capture") == tmp_path / "motion_capture"


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Expected `name` to be one of .*bone_marrow.*found 'brain'"):
        sn.datasets.download("brain")


@pytest.mark.parametrize("intact", [True, False])
def test_downloads_once_and_checks_what_came(published, tmp_path, monkeypatch, intact):
    """From a server on this machine, in place of the authors'."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(published))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = []
    for path in sorted(published.iterdir()):
        digest = sha256(path.read_bytes() if intact else b"other").hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/{path.name.replace(' ', '%20')}"
        lines.append(f'"bone_marrow/{path.name}" sha256:{digest} {url}')
    # What belongs to other data is not downloaded.
    lines.append(f"motion_capture/07.asf sha256:{sha256(b'').hexdigest()} http://127.0.0.1:{server.server_port}/none")
    (tmp_path / "registry.txt").write_text("\n".join(lines))
    monkeypatch.setenv("SPARSENODE_DATA", "")
    monkeypatch.setattr(_download, "files", lambda _: tmp_path)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    try:
        if not intact:
            with pytest.raises(ValueError, match="hash"):
                sn.datasets.download("bone_marrow")
            return
        folder = sn.datasets.download("bone_marrow")
    finally:
        server.shutdown()
        server.server_close()
    assert sn.datasets.bone_marrow(sn.datasets.download("bone_marrow")).n_obs == 24  # the server is gone
    assert folder.is_relative_to(tmp_path / "cache")
    (folder / "S2D1.h5ad").unlink()  # as where it was interrupted
    monkeypatch.delenv("SPARSENODE_DATA")
    assert sn.datasets.bone_marrow(sn.datasets.download("bone_marrow")).n_obs == 24


def test_registry_has_every_file_that_is_read():
    cache = pooch.create(path="unused", base_url="")
    cache.load_registry(files("sparsenode.datasets") / "registry.txt")
    cells = {f"{short}_{number}_norm.csv" for short in _LINEAGES.values() for number in _DONORS.values()}
    networks = {f"{name}.csv.gz" for names in _CELL_TYPES.values() for name in names} | {_BASE}
    wanted = {f"bone_marrow/{name}" for name in cells | networks} | {
        f"motion_capture/{name}" for name in _download._MOTION
    }
    assert set(cache.registry_files) == wanted
    assert set(cache.urls) == wanted


@pytest.mark.data
def test_checksums_are_those_of_the_local_copy(data_dir):
    cache = pooch.create(path="unused", base_url="")
    cache.load_registry(files("sparsenode.datasets") / "registry.txt")
    for name in _download._MOTION:
        digest = sha256((data_dir / "motion_capture" / name).read_bytes()).hexdigest()
        assert cache.registry[f"motion_capture/{name}"] == f"sha256:{digest}"


def test_local_copy_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPARSENODE_DATA", "~/data")
    (tmp_path / "data" / "motion_capture").mkdir(parents=True)
    for name in _download._MOTION:
        (tmp_path / "data" / "motion_capture" / name).touch()
    assert sn.datasets.download("motion_capture") == tmp_path / "data" / "motion_capture"


def test_tables_that_were_interrupted_are_written_anew(published, tmp_path, monkeypatch):
    """A file that is there is whole: it is moved to its place when all are written."""
    cache = tmp_path / "cache" / "bone_marrow"
    cache.mkdir(parents=True)
    registry = [f"bone_marrow/{path.name}" for path in published.iterdir()]
    for path in published.iterdir():
        (cache / path.name).write_bytes(path.read_bytes())
    store = SimpleNamespace(
        load_registry=lambda _: None, registry_files=registry, fetch=lambda name: str(tmp_path / "cache" / name)
    )
    monkeypatch.setattr(pooch, "create", lambda **_: store)
    monkeypatch.delenv("SPARSENODE_DATA", raising=False)
    to_csv = pd.DataFrame.to_csv

    def interrupted(self, path, **kwargs):
        to_csv(self, path, **kwargs)
        if "reference_monocyte" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sn.datasets.download("bone_marrow")
    assert {path.name for path in cache.iterdir()} == {path.name for path in published.iterdir()}
    sn.datasets.bone_marrow(sn.datasets.download("bone_marrow"), "S1D2")
