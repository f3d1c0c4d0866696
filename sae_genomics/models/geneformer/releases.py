"""The published Geneformer models. One repository holds them all, and the dictionaries of each series in a folder beside them."""

from __future__ import annotations

from sae_genomics.models.releases import KnownRelease

REPOSITORY = "ctheodoris/Geneformer"
_PLACE = {"V1": ("/geneformer/gene_dictionaries_30m", "gc30M"), "V2": ("/geneformer", "gc104M")}


def _release(name: str, n_layers: int, d_model: int, n_heads: int, max_length: int, n_parameters: int) -> KnownRelease:
    place, corpus = _PLACE[name.split("-")[1]]
    stems = ("token_dictionary", "gene_median_dictionary", "gene_name_id_dict", "ensembl_mapping_dict")
    files = ("config.json", *(f"{place}/{stem}_{corpus}.pkl" for stem in stems))
    return KnownRelease(
        "geneformer", REPOSITORY, name, files, n_layers, d_model, n_heads, max_length, n_parameters,
        saved_from="BertForMaskedLM",
    )  # fmt: skip


_SIZES = {  # layers, d_model, heads, tokens of the longest sequence, parameters
    "Geneformer-V1-10M": (6, 256, 4, 2048, 10_000_000),
    "Geneformer-V2-104M": (12, 768, 12, 4096, 104_000_000),
    "Geneformer-V2-316M": (18, 1152, 18, 4096, 316_000_000),
}
RELEASES = {name: _release(name, *shape) for name, shape in _SIZES.items()}
ALIASES = {name.lower(): name for name in RELEASES}
