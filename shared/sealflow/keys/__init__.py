"""Keys: signers found by URI, public keys and certificates that verify.

Signing keys are named by URI and opened late: ``file:`` PEM files, keys in AWS (``awskms:``), Google Cloud
(``gcpkms:``), Azure (``azurekms:``) and Vault (``hv:``), ``pkcs11:`` tokens. Others register their scheme in
:data:`~sealflow.keys.signer.SIGNERS` or through the entry point group ``sealflow.signers``.
"""

from sealflow.keys.public import PublicKey, load_public_key
from sealflow.keys.signer import SIGNERS, KeySigner, PassphraseCallback, load_signer, register_signer

__all__ = [
    "SIGNERS",
    "KeySigner",
    "PassphraseCallback",
    "PublicKey",
    "load_public_key",
    "load_signer",
    "register_signer",
]
