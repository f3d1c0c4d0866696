"""One YAML file per run, read into typed sections; unknown keys are refused with the nearest known one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from sae_genomics.causal.section import CausalConfig
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.config_file import read_mapping
from sae_genomics.config_problems import first_problem, key_names
from sae_genomics.config_values import (
    BASELINES,
    MIN_SCORES,
    Baseline,
    Hook,
    StorageDtype,
    read_baselines,
    read_databases,
    read_layers,
    read_min_score,
)
from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.data.kind import DataSection
from sae_genomics.data.kinds import DEFAULT_KIND, KINDS, kind_named
from sae_genomics.errors import UserError
from sae_genomics.revisions import checked_revision
from sae_genomics.sae.architectures import ARCHITECTURES, architecture_named
from sae_genomics.sae.section import DEFAULT_ARCHITECTURE, SaeConfig
from sae_genomics.section import Section, also


class RunSection(Section):
    """What the run is called and where its randomness starts."""

    name: str = Field("", description="name of the run's folders; default: the config file's name")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice")

    @model_validator(mode="after")
    def _plain_name(self) -> RunSection:
        if self.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                "run.name takes letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
            )
        return self


class PathsConfig(Section):
    """Folders that a run writes to and reads from; relative paths start at the working directory."""

    checkpoints: Path = Field(Path("checkpoints"), description="folder of large files: activations, SAEs")
    results: Path = Field(Path("results"), description="folder of small files: tables, figures, reports")
    logs: Path = Field(Path("logs"), description="folder of the job list, task logs and heartbeats")
    cache: Path | None = Field(
        None, description="folder of downloaded models; default: HF_HOME, else ~/.cache/huggingface"
    )
    databases: Path = Field(Path("databases"), description="folder of downloaded gene-disease databases")


class ModelConfig(Section):
    """The foundation model, and where activations are read."""

    family: str = Field(
        "tx1", description="which code reads the model: tx1 | esm2 | geneformer | scgpt | huggingface | planted"
    )
    name: str | None = Field(
        None, description="demo, or the name of a published model such as tahoe-x1-70m; default: demo"
    )
    path: Path | None = Field(None, description="a local folder with the files of a release; used in place of name")
    revision: Annotated[str | None, BeforeValidator(checked_revision)] = Field(
        None, description="branch, tag or commit of a published model; default: that of the release, see docs/models.md"
    )
    backend: Literal["native", "reference"] = Field(
        "native", description="native: the code of this package; reference: the package of the model's authors"
    )
    layers: Annotated[Literal["all"] | list[Annotated[int, Field(ge=0)]], BeforeValidator(read_layers)] = Field(
        "all", description="a list of layers, counted from 0, or all"
    )
    hook: Hook = Field("resid_post", description="resid_post | mlp_out | attn_out")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | cuda | cuda:N | mps")
    compute_dtype: StorageDtype = Field("float32", description="dtype of the forward pass")
    compile: bool = Field(
        False, description="compile the layers with torch.compile: faster on CUDA, and a minute slower to start"
    )
    drug_key: str | None = Field(None, description="obs column of drugs, for models with a chemical encoder")
    hook_modules: dict[str, str] | None = Field(
        None,
        description="hook -> module path with {i} for the layer, for language models of other architectures; see docs/models.md",
    )

    @model_validator(mode="after")
    def _revision_is_of_a_published_model(self) -> ModelConfig:
        if self.revision is not None and (self.path is not None or self.name in (None, "demo")):
            files = f"the folder {self.path}" if self.path is not None else "the bundled demo"
            raise ValueError(
                f"model.revision is for a published model, not for {files}; leave it out, or pass --set model.revision=null"
            )
        return self

    @model_validator(mode="after")
    def _compiles_its_own(self) -> ModelConfig:
        if self.compile and self.backend != "native":
            raise ValueError(
                f"model.compile is for model.backend native, not {self.backend}; leave it out, or pass --set model.compile=false"
            )
        return self


class ActivationsConfig(Section):
    """How activations are computed and stored."""

    dtype: StorageDtype = Field("float32", description="dtype of stored activations")
    cells_per_shard: int = Field(
        2000,
        ge=1,
        validation_alias=also("cells_per_shard", "items_per_shard"),
        description="number of items (cells, proteins, documents) per shard; one array task extracts one shard",
    )
    batch_tokens: int = Field(16384, ge=1, description="tokens per batch of the forward pass, padding included")
    max_nonfinite_share: float = Field(
        0.0, ge=0.0, le=1.0, description="a shard fails when more than this share of its rows is NaN or infinite"
    )
    tokens_per_cell: int | None = Field(
        None,
        ge=1,
        validation_alias=also("tokens_per_cell", "tokens_per_item"),
        description="store at most this many tokens per item (cell, protein), a random sample; special tokens are not counted",
    )
    compression: Literal["none", "zstd", "lz4"] = Field(
        "none", description="lossless compression of stored activations"
    )


class AssociationsConfig(Section):
    """How features are compared with units (genes, amino acids), labels and spans."""

    top_genes: int = Field(100, ge=1, description="number of genes listed per feature, by score and by specificity")
    min_gene_tokens: int = Field(5, ge=1, description="a gene with fewer tokens than this has no specificity")
    max_auroc_cells: int = Field(
        50_000, ge=10, description="AUROC is computed on at most this many cells of each split; a random sample of more"
    )
    batch_tokens: int = Field(16384, ge=1, description="tokens per batch that the SAE encodes")
    top_examples: int = Field(
        10, ge=1, description="number of strongest items that are listed per feature; not for cells"
    )
    concept_f1: float = Field(
        0.3,
        ge=0,
        le=1,
        description="a concept counts as found when its held-out F1 per residue is at least this; only for proteins",
    )
    random_directions: int = Field(
        256, ge=1, description="number of random directions that features are compared with; only for proteins"
    )


class ValidationConfig(Section):
    """How features are compared with gene sets."""

    builtin: bool = Field(True, description="use the gene sets that come with the package")
    gmt: list[Path] = Field(default_factory=list, description="more gene-set files, in GMT format")
    sources: list[str] = Field(
        default_factory=list, description="further sources of gene sets, by name, from packages installed here"
    )
    databases: Annotated[Literal["all"] | list[str], BeforeValidator(read_databases)] = Field(
        "all", description="downloaded databases whose gene sets are tested, by name, or all in paths.databases"
    )
    top_genes: int = Field(30, ge=1, description="number of genes per feature that are tested")
    rank_by: Literal["specificity", "score"] = Field(
        "specificity", description="test the genes with the highest specificity, or score"
    )
    test: str = Field(
        "fisher", description="how a feature's genes are compared with a gene set; see docs/validation.md"
    )
    fdr: float = Field(0.05, gt=0, lt=1, description="a feature counts as annotated when its q-value is below this")
    min_set_size: int = Field(3, ge=1, description="gene sets with fewer listable genes are left out")
    max_set_size: int = Field(2000, ge=1, description="gene sets with more listable genes are left out")
    shuffles: int = Field(20, ge=1, description="number of repeats of each of the two nulls that shuffle gene names")
    baselines: Annotated[list[Baseline], BeforeValidator(read_baselines)] = Field(
        default_factory=lambda: list(BASELINES),
        description="baselines of the features: neurons | pca | ica | untrained; associate makes their tables",
    )
    untrained_cells: int = Field(
        1000,
        ge=1,
        description="number of items (cells, proteins) that the untrained model reads, evenly spread over the file",
    )
    network: Annotated[Literal["all"] | list[str], BeforeValidator(read_databases)] = Field(
        "all", description="downloaded networks that top genes are compared with, by name, or all in paths.databases"
    )
    network_draws: int = Field(
        10_000,
        ge=200,
        description="most draws of matched genes per feature: a small p-value needs many",
    )
    regulons: Annotated[Literal["all"] | list[str], BeforeValidator(read_databases)] = Field(
        "all",
        description="downloaded regulons of transcription factors that are tested, by name, or all in paths.databases",
    )
    rewirings: int = Field(
        200,
        ge=200,
        description="number of networks with swapped targets that the recovery of regulons is compared with",
    )
    background: Literal["source", "listable"] = Field(
        "source", description="genes that a set's source could have named, or all genes that can be listed"
    )
    min_score: Annotated[dict[str, float], BeforeValidator(read_min_score)] = Field(
        default_factory=lambda: dict(MIN_SCORES),
        description="per downloaded database, the score from which its statements count",
    )
    all_terms: bool = Field(
        False, description="also test terms of downloaded databases that say little, such as protein binding"
    )
    expression_evidence: bool = Field(
        False, description="also count statements of downloaded databases that rest on expression data"
    )


class ReportConfig(Section):
    """What the report shows."""

    top_features: int = Field(20, ge=1, description="number of features shown per layer in report.md")
    dashboard: bool = Field(True, description="write dashboard.html")
    dashboard_cells: int = Field(5000, ge=1, description="number of items (cells, proteins) shown in the dashboard")
    dashboard_genes: int = Field(10, ge=1, description="number of genes listed per feature in the dashboard")


class ClusterConfig(Section):
    """How tasks are submitted; a profile in configs/clusters has the settings of a site."""

    profile: str | None = Field(
        None, description="configs/clusters/NAME.yaml; default: $SAE_GENOMICS_CLUSTER, else default"
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="keys of the profile that are changed for this run only"
    )


def _section_of_its_kind(values: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """The section `data` as the kind that `data.kind` names has it."""
    if not isinstance(values, dict):
        return handler(values)
    try:
        section = kind_named(values.get("kind") or DEFAULT_KIND).section
    except UserError as error:
        raise ValueError(str(error)) from None
    return section.model_validate(values)


def _section_of_its_architecture(values: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """The section `sae` as the architecture that `sae.architecture` names has it."""
    if not isinstance(values, dict):
        return handler(values)
    try:
        section = architecture_named(values.get("architecture", DEFAULT_ARCHITECTURE)).section
    except UserError as error:
        raise ValueError(str(error)) from None
    return section.model_validate(values)


class RunConfig(Section):
    """Everything that decides a run."""

    run: RunSection = Field(default_factory=RunSection)
    paths: PathsConfig = Field(default_factory=PathsConfig)
    data: Annotated[SerializeAsAny[DataSection], WrapValidator(_section_of_its_kind)]
    model: ModelConfig = Field(default_factory=ModelConfig)
    activations: ActivationsConfig = Field(default_factory=ActivationsConfig)
    sae: Annotated[SerializeAsAny[SaeConfig], WrapValidator(_section_of_its_architecture)] = Field(
        default_factory=SaeConfig
    )
    associations: AssociationsConfig = Field(default_factory=AssociationsConfig)
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    concepts: ConceptsConfig = Field(default_factory=ConceptsConfig)
    causal: CausalConfig = Field(default_factory=CausalConfig)
    cross_layer: CrossLayerConfig = Field(default_factory=CrossLayerConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)

    @model_validator(mode="after")
    def _k_fits(self) -> RunConfig:
        uses_k = architecture_named(self.sae.architecture).uses_k
        if uses_k and self.sae.d_sae is not None and self.sae.k > self.sae.d_sae:
            raise ValueError(
                f"sae.k = {self.sae.k} is more than sae.d_sae = {self.sae.d_sae}; set sae.k to {self.sae.d_sae} or less"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML file.

    path: the file.
    overrides: `section.key=value` strings, as given to `--set`; values are read as YAML.

    Raises UserError naming the file and key for anything that is not a valid config.
    """
    path = Path(path)
    values = read_mapping(path)
    for override in overrides:
        apply_override(values, override)
    run = values.get("run")
    if run is None:
        run = values["run"] = {}
    if isinstance(run, dict) and not run.get("name"):
        run["name"] = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-") or "run"
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """Validate a nested mapping; `source` is named in errors. Raises UserError."""
    values = {key: ({} if value is None and key in RunConfig.model_fields else value) for key, value in values.items()}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        kind, architecture = _kind_of(values), _architecture_of(values)
        problem = first_problem(error, kind, architecture, _sections(kind, architecture))
        raise UserError(f"{source}: {problem}") from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one `a.b=c` in a nested mapping, in place. Raises UserError when it is not of that form."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise UserError(f"--set {override}: expected section.key=value, for example --set sae.k=64")
    try:
        value = yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        value = float(value)  # YAML 1.1 reads 1e-3 as text
    target = values
    for part in parts[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    for name in _names_of(parts[0], parts[-1]) if len(parts) == 2 else ():
        target.pop(name, None)  # the setting may stand in the file under another of its names
    target[parts[-1]] = value


def _names_of(section: str, key: str) -> list[str]:
    """All names of the setting that `section.key` names, over all kinds of data and all architectures."""
    models: list[type[Section]] = []
    if section == "sae":
        models += [architecture.section for architecture in ARCHITECTURES]
    for kind in KINDS if section == "data" else [DEFAULT_KIND]:
        with suppress(UserError):  # a kind that is not installed
            models += [model for name, model in _sections(kind).items() if name == section]
    return [name for model in models for names in model.names().values() if key in names for name in names]


def dump_config(config: RunConfig) -> str:
    """The whole config as YAML text that `load_config` reads back to the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys(kind: str = DEFAULT_KIND, architecture: str = DEFAULT_ARCHITECTURE) -> list[str]:
    """All `section.key` names of a run over that kind of data, with SAEs of that architecture."""
    return key_names(_sections(kind, architecture))


def _kind_of(values: dict[str, Any]) -> str:
    """The kind of data that a config asks for; the default where it asks for none that there is."""
    data = values.get("data")
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) and kind in KINDS else DEFAULT_KIND


def _architecture_of(values: dict[str, Any]) -> str:
    """The architecture that a config asks for; the default where it asks for none that there is."""
    sae = values.get("sae")
    name = sae.get("architecture") if isinstance(sae, dict) else None
    return str(name) if any(name == each.name for each in ARCHITECTURES) else DEFAULT_ARCHITECTURE


def _sections(kind: str, architecture: str = DEFAULT_ARCHITECTURE) -> dict[str, type[Section]]:
    sections: dict[str, type[Section]] = {}
    for name, field in RunConfig.model_fields.items():
        types = [field.annotation, *get_args(field.annotation)]
        sections[name] = next(each for each in types if isinstance(each, type) and issubclass(each, Section))
    return sections | {"data": kind_named(kind).section, "sae": architecture_named(architecture).section}
