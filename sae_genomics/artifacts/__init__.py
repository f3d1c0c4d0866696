"""The columns of every table, once: the code that writes a table and the code that reads it both point here.

One file per stage that leaves tables, two more where a stage has other tables for other data; `table.py` says what a table is.
"""

from sae_genomics.artifacts.associate import (
    BASELINE_GENES,
    CELL_TYPE_BASELINES,
    FEATURE_CELL_TYPES,
    FEATURE_GENES,
    FEATURES,
    GENE_TOKENS,
    ICA_GENES,
    NEURON_GENES,
    OVER_CELLS,
    PCA_GENES,
    UNTRAINED_GENES,
)
from sae_genomics.artifacts.causal import (
    CAUSAL_CURVES,
    CAUSAL_DOSE,
    CAUSAL_FEATURES,
    CAUSAL_NULLS,
    CAUSAL_SCREEN,
    CAUSAL_SUMMARY,
    CAUSAL_TABLES,
)
from sae_genomics.artifacts.concepts import CONCEPT_CONFOUNDS, CONCEPT_NULLS, CONCEPT_VECTORS, OVER_CONCEPTS
from sae_genomics.artifacts.cross_layer import ATTRIBUTION, FATES, MATCHES, PERSISTENCE
from sae_genomics.artifacts.items import (
    CELL_LAYER_TABLES,
    FEATURE_LABELS,
    FEATURE_UNITS,
    ITEM_FEATURES,
    ITEM_LAYER_TABLES,
    ITEM_NAMES,
    LABEL_BASELINES,
    LayerTables,
)
from sae_genomics.artifacts.localisation import CONCEPT_FEATURES, CONCEPT_LOCALISATION, CONCEPT_TCAV, CONCEPT_WINDOWS
from sae_genomics.artifacts.names import ANNOTATIONS, FEATURE_NAMES
from sae_genomics.artifacts.network import FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS
from sae_genomics.artifacts.prepare import CELLS, GENES, UNITS
from sae_genomics.artifacts.rankings import RANKINGS
from sae_genomics.artifacts.regulons import FEATURE_REGULONS, REGULON_EDGES, REGULON_NULLS
from sae_genomics.artifacts.spans import (
    CONCEPT_BASELINES,
    CONCEPT_COUNTS,
    FEATURE_CONCEPTS,
    FEATURE_EXAMPLES,
    OVER_SPANS,
)
from sae_genomics.artifacts.table import FORMAT_VERSION, Column, Inference, Table
from sae_genomics.artifacts.train import RECONSTRUCTION
from sae_genomics.artifacts.validate import ANNOTATION_NULLS, FEATURE_TERMS

# of cells
LAYER_TABLES = (
    FEATURES, FEATURE_GENES, FEATURE_CELL_TYPES, *BASELINE_GENES.values(), GENE_TOKENS, CELL_TYPE_BASELINES, FEATURE_TERMS,
    ANNOTATION_NULLS, FEATURE_NAMES, FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS, FEATURE_REGULONS, REGULON_NULLS, REGULON_EDGES,
)  # fmt: skip

__all__ = [
    "ANNOTATIONS",
    "ANNOTATION_NULLS",
    "ATTRIBUTION",
    "BASELINE_GENES",
    "CAUSAL_CURVES",
    "CAUSAL_DOSE",
    "CAUSAL_FEATURES",
    "CAUSAL_NULLS",
    "CAUSAL_SCREEN",
    "CAUSAL_SUMMARY",
    "CAUSAL_TABLES",
    "CELLS",
    "CELL_LAYER_TABLES",
    "CELL_TYPE_BASELINES",
    "CONCEPT_BASELINES",
    "CONCEPT_CONFOUNDS",
    "CONCEPT_COUNTS",
    "CONCEPT_FEATURES",
    "CONCEPT_LOCALISATION",
    "CONCEPT_NULLS",
    "CONCEPT_TCAV",
    "CONCEPT_VECTORS",
    "CONCEPT_WINDOWS",
    "FATES",
    "FEATURES",
    "FEATURE_CELL_TYPES",
    "FEATURE_CONCEPTS",
    "FEATURE_EXAMPLES",
    "FEATURE_GENES",
    "FEATURE_LABELS",
    "FEATURE_NAMES",
    "FEATURE_NETWORK",
    "FEATURE_REGULONS",
    "FEATURE_TERMS",
    "FEATURE_UNITS",
    "FORMAT_VERSION",
    "GENES",
    "GENE_TOKENS",
    "ICA_GENES",
    "ITEM_FEATURES",
    "ITEM_LAYER_TABLES",
    "ITEM_NAMES",
    "LABEL_BASELINES",
    "LAYER_TABLES",
    "MATCHES",
    "NETWORK_EDGES",
    "NETWORK_NULLS",
    "NEURON_GENES",
    "OVER_CELLS",
    "OVER_CONCEPTS",
    "OVER_SPANS",
    "PCA_GENES",
    "PERSISTENCE",
    "RANKINGS",
    "RECONSTRUCTION",
    "REGULON_EDGES",
    "REGULON_NULLS",
    "UNITS",
    "UNTRAINED_GENES",
    "Column",
    "Inference",
    "LayerTables",
    "Table",
]  # fmt: skip
