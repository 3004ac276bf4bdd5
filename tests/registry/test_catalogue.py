"""The catalogue on a real MLflow, with and without a server: what was registered comes back, and nothing else does."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.infra.errors import CatalogueError
from acclimate.registry.catalogue import Catalogue
from tests.registry.bundles.test_source_bundle import parts
from tests.support.mlflow_store import store_in

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]  # warnings are mlflow's own

CARD = {"seed": 3, "data": "made up", "accuracy of group 1 %": 0.5}


@pytest.fixture(
    scope="module",
    params=["file", pytest.param("server", marks=pytest.mark.mlflow)],
)
def catalogue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    if request.param == "server":
        return Catalogue(request.getfixturevalue("mlflow_server").address, "plant")
    return Catalogue(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db", "plant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in parts().items():
        (folder / name).write_bytes(content)
    return folder


def register(catalogue: Catalogue, folder: Path) -> int:
    made = catalogue.register("source", folder, CARD, {"accuracy": 0.9}, {"r.svg": b"<svg/>"}, {"bundle": "abc"})
    return made.version


def test_a_bundle_comes_back_as_it_was(catalogue: Catalogue, folder: Path):
    version = register(catalogue, folder)
    assert catalogue.download("source", version).files == parts()
    newest = catalogue.versions("source")[0]
    assert (newest.version, newest.name, newest.tags["bundle"]) == (version, "plant.source", "abc")
    assert catalogue.versions("mgg") == []


def test_registering_prints_nothing(catalogue: Catalogue, folder: Path, capsys: pytest.CaptureFixture[str]):
    register(catalogue, folder)
    assert capsys.readouterr().out == ""


def test_an_alias_moves_and_says_who_it_names(catalogue: Catalogue, folder: Path):
    first, second = register(catalogue, folder), register(catalogue, folder)
    catalogue.set_alias("source", "champion", first)
    assert catalogue.aliased("champion") == {"source": first}
    catalogue.set_alias("source", "champion", second)
    catalogue.set_alias("source", "previous", first)
    assert catalogue.aliased("champion") == {"source": second}
    assert {v.version: v.aliases for v in catalogue.versions("source")[:2]} == {
        second: ("champion",),
        first: ("previous",),
    }
    catalogue.set_tag("source", first, "gates", "passed")
    assert next(v for v in catalogue.versions("source") if v.version == first).tags["gates"] == "passed"


def test_the_run_has_what_its_training_was(catalogue: Catalogue, folder: Path):
    version = register(catalogue, folder)
    client = catalogue._client
    run = client.get_run(client.get_model_version("plant.source", str(version)).run_id)
    assert run.data.params["seed"] == "3"
    assert run.data.metrics == {"accuracy": 0.9}
    assert run.info.status == "FINISHED"
    assert [entry.path for entry in catalogue._files(run.info.run_id).list_artifacts("plots")] == ["plots/r.svg"]


def test_a_version_that_names_another_place_is_refused_unread(folder: Path, tmp_path: Path):
    catalogue = Catalogue(store_in(tmp_path), "plant")  # a server refuses to note such a version
    register(catalogue, folder)
    client = catalogue._client
    for source in (str(tmp_path), f"file://{tmp_path}", "runs:/" + "0" * 32 + "/../secrets"):
        made = client.create_model_version("plant.source", source, await_creation_for=0)
        with pytest.raises(ContractError, match="expected a run's bundle"):
            catalogue.download("source", int(made.version))


@pytest.mark.parametrize("name", ["extra.pkl", "MLmodel", ".hidden.json"])
def test_a_version_with_other_files_is_refused_unread(catalogue: Catalogue, folder: Path, tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    version = register(catalogue, folder)
    run = catalogue._client.get_model_version("plant.source", str(version)).run_id
    catalogue._files(run).log_artifact(str(tmp_path / name), "bundle")
    with pytest.raises(ContractError, match="no file of a bundle"):
        catalogue.download("source", version)


def test_files_that_were_changed_in_the_store_are_refused(catalogue: Catalogue, folder: Path, tmp_path: Path):
    version = register(catalogue, folder)
    run = catalogue._client.get_model_version("plant.source", str(version)).run_id
    (tmp_path / "source.onnx").write_bytes(b"something else")
    catalogue._files(run).log_artifact(str(tmp_path / "source.onnx"), "bundle")
    with pytest.raises(ContractError, match=r"source\.onnx"):
        catalogue.download("source", version)


def test_a_missing_version_and_an_absent_server_are_said_in_one_line(catalogue: Catalogue):
    with pytest.raises(CatalogueError, match="ACCLIMATE_MLFLOW"):
        catalogue.download("source", 9999)
    away = Catalogue("http://user:secret@127.0.0.1:9", "plant")
    with pytest.raises(CatalogueError) as refused:
        away.versions("source")
    assert "secret" not in str(refused.value)


@pytest.mark.mlflow
@pytest.mark.long
def test_what_was_registered_without_a_server_is_there_with_one_and_the_other_way_round(
    mlflow_server: Any, folder: Path
):
    without = Catalogue(f"sqlite:///{mlflow_server.folder}/mlflow.db", "both-ways")
    through = Catalogue(mlflow_server.address, "both-ways")
    first = register(without, folder)
    assert through.download("source", first).files == parts()
    second = register(through, folder)
    assert without.download("source", second).files == parts()
    through.set_alias("source", "champion", second)
    assert without.aliased("champion") == {"source": second}


@pytest.mark.mlflow
def test_files_of_a_fleet_that_a_server_has_made_are_found_without_it(mlflow_server: Any, folder: Path):
    version = register(Catalogue(mlflow_server.address, "server-first"), folder)
    without = Catalogue(f"sqlite:///{mlflow_server.folder}/mlflow.db", "server-first")
    assert without.download("source", version).files == parts()
    assert register(without, folder) == version + 1


def test_a_store_that_has_moved_still_has_its_files(folder: Path, tmp_path: Path):
    (tmp_path / "here").mkdir()
    version = register(Catalogue(store_in(tmp_path / "here"), "plant"), folder)
    (tmp_path / "here").rename(tmp_path / "there")
    assert Catalogue(f"sqlite:///{tmp_path}/there/mlflow.db", "plant").download("source", version).files == parts()


def test_a_run_whose_files_lie_outside_of_the_store_is_refused(folder: Path, tmp_path: Path):
    catalogue = Catalogue(store_in(tmp_path), "plant")
    version = register(catalogue, folder)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("UPDATE runs SET artifact_uri = 'mlflow-artifacts:/../../etc'")
    store.close()
    with pytest.raises(ContractError, match="outside of the store"):
        catalogue.download("source", version)
