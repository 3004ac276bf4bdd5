"""The catalogue on a real MLflow store: what was registered comes back, and nothing else is taken for a bundle."""

from pathlib import Path

import pytest

from adaptation.errors import ContractError
from infra.errors import CatalogueError
from registry.catalogue import Catalogue
from tests.registry.test_bundle import parts

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own

CARD = {"seed": 3, "data": "made up", "accuracy of group 1 %": 0.5}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
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
    assert catalogue.download("source", version) == parts()
    newest = catalogue.versions("source")[0]
    assert (newest.version, newest.name, newest.tags["bundle"]) == (version, "plant.source", "abc")
    assert catalogue.versions("mgg") == []


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
    assert [entry.path for entry in client.list_artifacts(run.info.run_id, "plots")] == ["plots/r.svg"]


def test_a_version_that_names_another_place_is_refused_unread(catalogue: Catalogue, folder: Path, tmp_path: Path):
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
    catalogue._client.log_artifact(run, str(tmp_path / name), "bundle")
    with pytest.raises(ContractError, match="no file of a bundle"):
        catalogue.download("source", version)


def test_files_that_were_changed_in_the_store_are_refused(catalogue: Catalogue, folder: Path, tmp_path: Path):
    version = register(catalogue, folder)
    run = catalogue._client.get_model_version("plant.source", str(version)).run_id
    (tmp_path / "source.onnx").write_bytes(b"something else")
    catalogue._client.log_artifact(run, str(tmp_path / "source.onnx"), "bundle")
    with pytest.raises(ContractError, match=r"source\.onnx"):
        catalogue.download("source", version)


def test_a_missing_version_and_an_absent_server_are_said_in_one_line(catalogue: Catalogue):
    with pytest.raises(CatalogueError, match="ACCLIMATE_MLFLOW"):
        catalogue.download("source", 9999)
    away = Catalogue("http://user:secret@127.0.0.1:9", "plant")
    with pytest.raises(CatalogueError) as refused:
        away.versions("source")
    assert "secret" not in str(refused.value)
