"""What can be wrong with the stage's settings, told before there is a run."""

from __future__ import annotations

from sae_genomics.run import Run
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.published.sources import check_source
from sae_genomics.sae.section import SaeConfig

STABILITY_LEFT_OUT = "sae.stability is left out: it compares the features with those of a second SAE of the same training, and a published SAE has none"


def check(run: Run) -> None:
    """Raise UserError for settings that the architecture cannot work with, such as more active latents than there are.

    Of published SAEs (`sae.from`): where there is none for each of the run's layers.
    """
    settings = run.config.sae
    if settings.from_ is not None:
        check_source(run)
        return
    architecture_named(settings.architecture).check(settings, run.d_sae)


_OF_THE_SAE = ("architecture", "d_sae", "expansion", "k")


def unused_settings(run: Run) -> list[str]:
    """What `sae.from` makes of settings that the config gives: one sentence each.

    The others of training (`sae.steps`, `sae.lr`) still make the SAE of the untrained model, where that is a baseline.
    """
    settings, said = run.config.sae, []
    own = [name for name in type(settings).model_fields if name not in SaeConfig.model_fields]
    given = [f"sae.{name}" for name in (*_OF_THE_SAE, *own) if name in settings.model_fields_set]
    if given:
        said.append(f"{', '.join(given)} {'are' if given[1:] else 'is'} not used: sae.from says which SAEs these are")
    if settings.stability:
        said.append(STABILITY_LEFT_OUT)
    return said
