"""The catalogue of bundles on MLflow: a registered model per fleet and kind, a run and a version per bundle.

Files of a bundle are plain artifacts; no flavour is ever written or loaded. What comes back from MLflow is believed for
nothing but which version an alias names: digests, signatures and verdicts decide
(`acclimate.registry.releases.acceptance`). The only module that imports mlflow.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from acclimate.adaptation.errors import ContractError
from acclimate.infra.errors import CatalogueError, NoSuchVersion
from acclimate.registry.bundles.any_bundle import AnyBundle, read_any_bundle
from acclimate.registry.bundles.member import KINDS, Kind
from acclimate.registry.folder import read_file

__all__ = ["ALIASES", "Alias", "Catalogue", "CatalogueVersion", "Stored", "model_name"]

Alias = Literal["candidate", "champion", "previous"]
ALIASES: tuple[Alias, ...] = ("candidate", "champion", "previous")

_FOLDER = "bundle"
_SERVED = "mlflow-artifacts:/"  # where a server keeps files; without one it is the folder beside the SQLite file
_FILE = re.compile(r"[a-z_]{1,40}\.(json|sig|safetensors|onnx)")
_SOURCE = re.compile(rf"runs:/([0-9a-f]{{32}})/{_FOLDER}")
_MAX_FILES = 16
_MAX_FILE_BYTES = 256 * 2**20
_TIMEOUT_S = 10
_RETRIES = 1


@dataclass(frozen=True, eq=False)
class Stored:
    """The content of a version: its files by name, and the bundle that was read from them."""

    files: Mapping[str, bytes]
    bundle: AnyBundle


@dataclass(frozen=True)
class CatalogueVersion:
    """One version of a registered model.

    Attributes:
        kind, name, version: The registered model and its version.
        created_ms: The time of registration, in milliseconds since 1970.
        aliases: The aliases that name it now.
        tags: Notes for people: ``bundle``, the digest that it had when it was registered, and ``gates``.
    """

    kind: Kind
    name: str
    version: int
    created_ms: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def model_name(fleet: str, kind: Kind) -> str:
    """Return the name of the registered model.

    >>> model_name("plant", "source")
    'plant.source'
    """
    return f"{fleet}.{kind}"


class Catalogue:
    """The bundles of one fleet in MLflow.

    Args:
        uri: ``http(s)://`` of a server, or ``sqlite:///FILE``; beside the file lies a folder with the artifacts.
        fleet: The fleet whose bundles these are.

    Raises:
        CatalogueError: MLflow does not answer.
    """

    def __init__(self, uri: str, fleet: str) -> None:
        self.uri, self.fleet = uri, fleet
        with self._mlflow():
            from mlflow import MlflowClient
            from mlflow import environment_variables as mlflow_settings

            # A controller must not hang in the default of 120 s and seven tries while MLflow is down.
            limits: dict[str, int | bool] = {
                "MLFLOW_HTTP_REQUEST_TIMEOUT": _TIMEOUT_S,
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": _RETRIES,
                "MLFLOW_ALLOW_HTTP_REDIRECTS": False,
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": False,
                "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": True,
            }
            for name, value in limits.items():
                variable: Any = getattr(mlflow_settings, name)
                variable.set(value)
            self._artifacts: Path | None = None
            if uri.startswith("sqlite:///"):
                folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
                folder.mkdir(parents=True, exist_ok=True)
                self._artifacts = folder / "artifacts"
            self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def register(
        self,
        kind: Kind,
        folder: Path,
        parameters: Mapping[str, object],
        metrics: Mapping[str, float],
        plots: Mapping[str, bytes],
        tags: Mapping[str, str],
    ) -> CatalogueVersion:
        """Make a run and a version for a bundle.

        Args:
            kind, folder: The bundle, complete with its signature.
            parameters, metrics: The parameters and metrics of its training.
            plots: Files by name, for MLflow's page.
            tags: The tags of the version.
        """
        with self._mlflow():
            from mlflow.entities import Metric, Param

            run = self._client.create_run(self._experiment(), run_name=kind).info.run_id
            try:
                given = [Param(_key(name), str(value)[:6000]) for name, value in parameters.items()]
                figures = [Metric(_key(name), float(value), 0, 0) for name, value in metrics.items()]
                for start in range(0, max(len(given), len(figures)), 100):  # MLflow's limit of one call
                    part = slice(start, start + 100)
                    self._client.log_batch(run, metrics=figures[part], params=given[part])
                files = self._files(run)
                files.log_artifacts(str(folder), _FOLDER)
                with tempfile.TemporaryDirectory() as scratch:
                    for name, content in plots.items():
                        path = Path(scratch) / Path(name).name
                        path.write_bytes(content)
                        files.log_artifact(str(path), "plots")
                name = self._model(kind)
                made = self._client.create_model_version(
                    name, f"runs:/{run}/{_FOLDER}", run_id=run, tags=dict(tags), await_creation_for=0
                )
                self._client.set_terminated(run)
            except BaseException:
                self._client.set_terminated(run, "FAILED")
                raise
        return CatalogueVersion(kind, name, int(made.version), int(made.creation_timestamp), (), dict(tags))

    def versions(self, kind: Kind) -> list[CatalogueVersion]:
        """Return all versions of a kind, newest first."""
        name = model_name(self.fleet, kind)
        with self._mlflow():
            model = self._registered(name)
            if model is None:
                return []
            named: dict[int, list[str]] = {}
            for alias, version in model.aliases.items():
                named.setdefault(int(version), []).append(alias)
            found = self._client.search_model_versions(f"name = '{name}'", max_results=1000)
            versions = [
                CatalogueVersion(
                    kind,
                    name,
                    int(each.version),
                    int(each.creation_timestamp),
                    tuple(sorted(named.get(int(each.version), ()))),
                    dict(each.tags),
                )
                for each in found
            ]
        return sorted(versions, key=lambda each: -each.version)

    def tags(self, kind: Kind, version: int) -> Mapping[str, str]:
        """Return the tags of a version.

        Raises:
            NoSuchVersion: MLflow has no such version.
        """
        with self._mlflow():
            return dict(self._version(model_name(self.fleet, kind), version).tags)

    def aliased(self, alias: Alias) -> dict[Kind, int]:
        """Return the version that an alias names, per kind that has one."""
        with self._mlflow():
            models = {kind: self._registered(model_name(self.fleet, kind)) for kind in KINDS}
        return {kind: int(m.aliases[alias]) for kind, m in models.items() if m is not None and alias in m.aliases}

    def set_alias(self, kind: Kind, alias: Alias, version: int) -> None:
        """Let an alias name a version. Last writer wins: it is a request, never a proof."""
        with self._mlflow():
            self._client.set_registered_model_alias(model_name(self.fleet, kind), alias, str(version))

    def set_tag(self, kind: Kind, version: int, key: str, value: str) -> None:
        """Tag a version, for people."""
        with self._mlflow():
            self._client.set_model_version_tag(model_name(self.fleet, kind), str(version), key, value[:5000])

    def download(self, kind: Kind, version: int) -> Stored:
        """Return what a version holds, read as a bundle of its kind.

        Raises:
            ContractError: The version is not one of ours, or does not hold a bundle.
            NoSuchVersion: MLflow has none.
            CatalogueError: MLflow does not answer.
        """
        name = model_name(self.fleet, kind)
        with self._mlflow(), tempfile.TemporaryDirectory() as scratch:
            source = str(self._version(name, version).source)
            match = _SOURCE.fullmatch(source)
            if match is None:
                raise ContractError(
                    f"{name} version {version}: expected a run's {_FOLDER}, found {source[:200]!r}; versions that can "
                    "be released come from `acclimate register`"
                )
            stored = self._files(match.group(1))
            listed = stored.list_artifacts(_FOLDER)
            names = [str(entry.path).removeprefix(f"{_FOLDER}/") for entry in listed]
            for file, entry in zip(names, listed, strict=True):
                if not _FILE.fullmatch(file) or entry.is_dir or not 0 < int(entry.file_size or 0) <= _MAX_FILE_BYTES:
                    raise ContractError(f"{name} version {version}: {file[:100]!r} is no file of a bundle")
            if not 2 <= len(names) <= _MAX_FILES:
                raise ContractError(f"{name} version {version}: expected the files of a bundle, found {len(names)}")
            folder = Path(scratch) / _FOLDER
            folder.mkdir()
            for file in names:
                Path(stored.download_artifacts(f"{_FOLDER}/{file}", scratch)).replace(folder / file)
            bundle = read_any_bundle(folder, kind)
            return Stored({file: read_file(folder, file, _MAX_FILE_BYTES) for file in names}, bundle)

    def _version(self, name: str, version: int) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise NoSuchVersion(
                    f"MLflow has no version {version} of {name}; `acclimate candidates` shows them. Is this the right "
                    "ACCLIMATE_MLFLOW?"
                ) from error
            raise

    def _experiment(self) -> str:
        name = f"acclimate/{self.fleet}"
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Without a server's help, files are named as a server names them: either finds what came the other way.
        location = None if self._artifacts is None else f"{_SERVED}fleet-{self.fleet}"
        return str(self._client.create_experiment(name, artifact_location=location))

    def _files(self, run: str) -> Any:
        """Return MLflow's access to the files of a run."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = str(self._client.get_run(run).info.artifact_uri)
        if self._artifacts is not None and uri.startswith(_SERVED):
            parts = PurePosixPath(uri.removeprefix(_SERVED).lstrip("/")).parts
            if ".." in parts:
                raise ContractError(f"run {run}: its files lie outside of the store, in {uri[:200]!r}")
            uri = self._artifacts.joinpath(*parts).as_uri()
        return get_artifact_repository(uri, tracking_uri=self.uri)

    def _model(self, kind: Kind) -> str:
        name = model_name(self.fleet, kind)
        if self._registered(name) is None:
            self._client.create_registered_model(name, description=f"Bundles of kind {kind} of fleet {self.fleet}")
        return name

    def _registered(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    @contextmanager
    def _mlflow(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, RequestException, OSError) as error:
            text = _without_password(str(error).splitlines()[0])[:300] if str(error) else type(error).__name__
            raise CatalogueError(
                f"MLflow at {_without_password(self.uri)} does not answer as expected: {text}. Check ACCLIMATE_MLFLOW"
            ) from error


def _key(name: str) -> str:
    """Return a name that MLflow takes as a parameter."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)
