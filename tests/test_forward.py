"""Every forward kernel gives what the definition gives, and the definition gives what plain Python gives."""

import pytest

import tests.oracles_pointwise
from gpunet.dispatch import entries, ops
from tests.oracles import ORACLES
from tests.product import Proof, definition, is_forward, proof_of, proofs, run
from tests.tolerances import assert_within

assert tests.oracles_pointwise  # importing it registers half of the oracles


def check(proof: Proof) -> None:
    """Each of the proof's calls, against the definition or, for the definition itself, the oracle."""
    for number, call in enumerate(proof.calls):
        wanted = ORACLES[call.entry](*call.arrays, **call.params) if proof.is_definition else definition(call)
        assert_within(run(proof.kernel, call), wanted, call, f"{proof}, call {number}")


@pytest.mark.parametrize("parameter", proofs(is_forward))
def test_forward(parameter):
    check(proof_of(parameter))


@pytest.mark.parametrize("entry", [entry for op in ops() for entry in entries(op)])
def test_every_entry_has_an_oracle(entry):
    assert entry in ORACLES, f"write @oracle({entry!r}) in tests/oracles.py"


def test_no_oracle_is_left_without_its_entry():
    assert set(ORACLES) <= {entry for op in ops() for entry in entries(op)}
