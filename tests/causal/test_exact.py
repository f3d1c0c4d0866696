"""Exact effects against a plain loop: for each edit and item a full forward pass of that item alone, clean and edited."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_genomics.causal.edits import Edit, apply
from sae_genomics.causal.exact import Clean, Effects, exact_effects
from tests.causal.small import cells, dense, random_encoder, some_proteins

LAYER = 1


def often_active(clean: Clean, n: int) -> np.ndarray:
    """The features that are active at the most tokens."""
    return np.argsort(-np.diff(clean.encoded.feature_ptr), kind="stable")[:n]


def edits_of(clean: Clean) -> list[Edit]:
    direction = np.resize(np.arange(64, dtype=np.float32), clean.encoder.d_in)
    j = often_active(clean, 5)
    return [
        Edit("ablate", j[:1]),
        Edit("scale", j[1:4], 4.0),
        Edit("ablate", j[:1], turned=direction),
        Edit("ablate", j[4:], permuted=5),
        Edit("add", amount=0.3, direction=direction / 64, where="all"),
        Edit("scale", j[1:2], 1.0),
    ]


def collected(clean: Clean, edits, batch_tokens: int, **given) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Everything, by edit and sequence."""
    found: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def keep(effects: Effects) -> None:
        assert effects.ptr[-1] <= max(batch_tokens, np.diff(effects.ptr).max())
        for number, pair in enumerate(zip(effects.edit.tolist(), effects.sequence.tolist(), strict=True)):
            rows = slice(effects.ptr[number], effects.ptr[number + 1])
            values = {name: getattr(effects, name) for name in ("token", "divergence", "from_item")}
            first = clean.paused.batch.item_ptr[pair[1]]
            assert effects.row[rows].tolist() == list(range(first, first + rows.stop - rows.start))
            assert pair not in found
            found[pair] = {name: value[rows] for name, value in values.items() if value is not None}
            found[pair] |= {"embedding": effects.embedding[number], "norm": effects.norm[number]}
            found[pair] |= {f"layer {layer}": x[rows].numpy() for layer, x in effects.layers.items()}
            found[pair]["n_edited"] = effects.n_edited[number]

    exact_effects(clean, edits, keep, batch_tokens=batch_tokens, **given)
    return found


def near(found: np.ndarray, expected: np.ndarray, scale: float) -> None:
    assert np.abs(found - expected).max() <= 2e-5 * scale


@pytest.mark.parametrize("hook", ["resid_post", "mlp_out"])
@pytest.mark.parametrize("masked", [False, True])
def test_cells_one_at_a_time(hook: str, masked: bool) -> None:
    model, tokens = cells()
    encoder = random_encoder(model.info.d_model, units=20)
    hidden = ~tokens.special & (np.random.default_rng(1).random(len(tokens)) < 0.4) if masked else None
    clean = Clean.of(model, model.pause(tokens, LAYER, hook, hidden), encoder)
    edits = edits_of(clean)
    found = collected(clean, edits, batch_tokens=150)
    expected_pairs = set()
    for sequence in range(tokens.n_items):
        one = tokens.take([sequence])
        rows = slice(tokens.item_ptr[sequence], tokens.item_ptr[sequence + 1])
        own_hidden = None if hidden is None else hidden[rows]
        unedited = model.outputs(one, masked=own_hidden, hook=hook)
        for number, edit in enumerate(edits):
            if edit.permuted is not None:
                continue  # whose draw is that of the batch
            changed: dict[str, float] = {}

            def change(x: torch.Tensor, edit: Edit = edit, changed: dict[str, float] = changed) -> torch.Tensor:
                new = apply(encoder, x, one.token.astype(np.int64), edit, usual=~one.special)  # noqa: B023
                changed["norm"], changed["n"] = float((new - x).norm()), int((new != x).any(dim=1).sum())
                return new

            edited = model.outputs(one, masked=own_hidden, hook=hook, interventions={LAYER: change})
            if not changed["n"]:
                assert (number, sequence) not in found
                continue
            expected_pairs.add((number, sequence))
            got = found[number, sequence]
            near(got["token"], (edited.expr_preds - unedited.expr_preds).numpy(), float(edited.expr_preds.abs().max()))
            near(
                got["from_item"],
                (edited.mvc_output - unedited.mvc_output).numpy(),
                float(edited.mvc_output.abs().max()),
            )
            near(got["embedding"], (edited.cell_emb - unedited.cell_emb).numpy()[0], float(edited.cell_emb.abs().max()))
            assert got["norm"] == pytest.approx(changed["norm"], rel=1e-4)
            assert got["n_edited"] == changed["n"]
            assert np.abs(got["token"]).max() > 1e-4
    assert expected_pairs == {pair for pair in found if pair[0] != 3}
    assert not any(pair[0] == 5 for pair in found)  # an edit that changes nothing is not run
    assert len({pair for pair in found if pair[0] == 3})


def test_proteins_one_at_a_time(tmp_path) -> None:
    model, tokens = some_proteins(tmp_path)
    encoder = random_encoder(model.info.d_model)
    hidden = ~tokens.special & (np.random.default_rng(1).random(len(tokens)) < 0.3)
    clean = Clean.of(model, model.pause(tokens, LAYER, "resid_post", hidden), encoder, layers=[2])
    j = often_active(clean, 3)
    edits = [Edit("ablate", j[:1]), Edit("scale", j[1:], 6.0)]
    found = collected(clean, edits, batch_tokens=100)
    assert {pair[0] for pair in found} == {0, 1}
    for (number, sequence), got in found.items():
        one = tokens.take([sequence])
        rows = slice(tokens.item_ptr[sequence], tokens.item_ptr[sequence + 1])
        x = model.pause(one, LAYER, "resid_post", hidden[rows])
        z = dense(encoder, x.activations, one.token)
        new = z.clone()
        new[:, edits[number].features] *= edits[number].amount
        delta = ((new - z) @ encoder.W_dec) * torch.from_numpy(~one.special)[:, None]
        before, after = model.resume(x, layers=[2]), model.resume(x, x.activations + delta, layers=[2])
        p, q = (each.token.double().log_softmax(dim=1) for each in (before, after))
        own = torch.from_numpy(one.token).long()[:, None]
        near(got["divergence"], (p.exp() * (p - q)).sum(1).numpy(), 1.0)
        near(got["token"], (q - p).gather(1, own)[:, 0].numpy(), float(p.abs().max()))
        near(got["embedding"], (after.embedding - before.embedding)[0].numpy(), float(after.embedding.abs().max()))
        near(got["layer 2"], (after.layers[2] - before.layers[2]).numpy(), float(after.layers[2].abs().max()))
        loss = model.masked_loss(one, hidden[rows], "resid_post", {LAYER: lambda x, delta=delta: x + delta})
        unedited = model.masked_loss(one, hidden[rows], "resid_post")
        near(got["token"][hidden[rows]], (unedited - loss)[hidden[rows]], float(unedited.max(initial=1)))
        assert got["divergence"].min() > -1e-5


def test_only_some_sequences_and_any_batch_size() -> None:
    model, tokens = cells()
    encoder = random_encoder(model.info.d_model)
    clean = Clean.of(model, model.pause(tokens, LAYER, "resid_post"), encoder)
    edits = [Edit("ablate", np.array([feature])) for feature in often_active(clean, 3)]
    every = collected(clean, edits, batch_tokens=1 << 20)
    alone = collected(clean, edits, batch_tokens=1)
    assert every.keys() == alone.keys()
    for pair, values in every.items():
        near(values["token"], alone[pair]["token"], 1.0)
    some = collected(clean, edits, batch_tokens=100, only=[[0], [], [2, 1]])
    assert some.keys() == every.keys() & {(0, 0), (2, 1), (2, 2)}
    assert len(some) > 1


def test_the_error_is_kept_and_yet_the_output_changes() -> None:
    """Ablating every active feature of a cell leaves what the SAE does not reconstruct, which is not nothing."""
    model, tokens = cells()
    encoder = random_encoder(model.info.d_model)
    clean = Clean.of(model, model.pause(tokens, LAYER, "resid_post"), encoder)
    everything = Edit("ablate", np.arange(encoder.d_sae))
    x = clean.paused.activations
    rest = apply(encoder, x, tokens.token.astype(np.int64), everything, usual=~tokens.special)
    z = dense(encoder, x, tokens.token)
    usual = torch.from_numpy(~tokens.special)
    error = x - (z @ encoder.W_dec + encoder.b_dec)
    assert torch.allclose(rest[usual], (error + encoder.b_dec)[usual], atol=1e-4)
    found = collected(clean, [everything], batch_tokens=1000)
    assert all(np.abs(values["token"]).max() > 1e-3 for values in found.values())
