"""A certificate authority of our own: keys and certificates as PEM bytes in, PEM bytes out.

Pure but for randomness; the clock is handed in. EC P-256 throughout (a key and its certificate cost
0.4 ms). Must not know where anything is stored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podvisor_common.errors import Terminal

# Clocks of nodes differ, and jump by an hour where somebody mixed up a time zone: certificates are valid from earlier on.
CLOCK_SKEW = timedelta(hours=2)


class BadCertificate(Terminal):
    """PEM data that should hold a certificate or a key does not."""

    reason = "BadCertificate"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key, both PEM. The key is never printed."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(…)"


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """Signs leaves with `pair`. Two authorities may share a name: clients tell them apart by key."""

    pair: KeyPair

    @classmethod
    def create(
        cls, common_name: str, *, now: datetime, valid_for: timedelta
    ) -> "CertificateAuthority":
        """A new self-signed authority. `now` must be aware."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        usage = _key_usage(signs_certificates=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), now, now + valid_for)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pair(certificate, key))

    @property
    def certificate(self) -> bytes:
        return self.pair.certificate

    def issue(
        self,
        common_name: str,
        names: Sequence[str],
        *,
        now: datetime,
        valid_for: timedelta,
        for_clients: bool = True,
    ) -> KeyPair:
        """A leaf for server use, and for client use unless told otherwise, valid for DNS names and IP addresses in `names`.

        It never outlives the authority. Raises BadCertificate when the authority itself is damaged.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        if for_clients:
            usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        certificate = self._sign(common_name, names, key.public_key(), usages, now, valid_for)
        return _pair(certificate, key)

    def issue_for_client(
        self, common_name: str, names: Sequence[str], *, now: datetime, valid_for: timedelta
    ) -> KeyPair:
        """As issue(), for client use and nothing else."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = self._sign(common_name, names, key.public_key(), usages, now, valid_for)
        return _pair(certificate, key)

    def sign_for_server(
        self,
        request: bytes,
        common_name: str,
        names: Sequence[str],
        *,
        now: datetime,
        valid_for: timedelta,
    ) -> bytes:
        """A certificate, PEM, for server use and nothing else, for the key of a certificate request (PEM).

        Nothing but the key is taken from the request: who asks, and for which names, the caller knows from elsewhere. Raises
        BadCertificate where the request does not prove that whoever made it has the key, or the key is not of EC P-256.
        """
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        key = _key_of_request(request)
        certificate = self._sign(common_name, names, key, usages, now, valid_for)
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(
        self,
        common_name: str,
        names: Sequence[str],
        key: ec.EllipticCurvePublicKey,
        usages: Sequence[x509.ObjectIdentifier],
        now: datetime,
        valid_for: timedelta,
    ) -> x509.Certificate:
        authority = parse_certificate(self.pair.certificate)
        signer = _load_key(self.pair.key)
        until = min(now + valid_for, authority.not_valid_after_utc)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        return (
            _builder(_name(common_name), authority.subject, key, now, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(issuer_key, critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A key of one's own and, to be sent to an authority, the request for a certificate of it; both PEM. The key is never printed."""

    request: bytes
    key: bytes

    @classmethod
    def create(cls, common_name: str) -> "CertificateRequest":
        """A new key, of EC P-256, and its request. The name is for people: an authority of ours does not look at it."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(_name(common_name))
            .sign(key, hashes.SHA256())
        )
        return cls(request.public_bytes(serialization.Encoding.PEM), _key_pem(key))

    def __repr__(self) -> str:
        return "CertificateRequest(…)"

    def answered(self, certificate: bytes) -> KeyPair:
        """The pair of the certificate that was given for this request. Raises BadCertificate when it is for another key."""
        pair = KeyPair(certificate, self.key)
        check_key_pair(pair)
        return pair


def parse_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate in `pem`; BadCertificate when there is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadCertificate("no PEM certificate") from error


def split_bundle(pem: bytes) -> list[bytes]:
    """The certificates of a bundle, each normalised to PEM; empty for an empty bundle."""
    if not pem.strip():
        return []
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise BadCertificate("no PEM bundle") from error
    return [certificate.public_bytes(serialization.Encoding.PEM) for certificate in found]


def make_bundle(certificates: Iterable[bytes], *, now: datetime) -> bytes:
    """One PEM bundle of `certificates`, first ones first, without duplicates and expired ones."""
    kept: dict[bytes, None] = {}
    for pem in certificates:
        for one in split_bundle(pem):
            if expires_at(one) > now:
                kept.setdefault(one)
    return b"".join(kept)


def expires_at(pem: bytes) -> datetime:
    """When the first certificate in `pem` ends, in UTC."""
    return parse_certificate(pem).not_valid_after_utc


def remaining_share(pem: bytes, *, now: datetime) -> float:
    """How much of the certificate's life is left: 1 when new, 0 or less when expired."""
    return (expires_at(pem) - now) / life_of(pem)


def life_of(pem: bytes) -> timedelta:
    """For how long the first certificate in `pem` was made, which began to be valid a little earlier for the sake of wrong clocks."""
    certificate = parse_certificate(pem)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc - CLOCK_SKEW
    return max(life, timedelta(seconds=1))


def is_signed_by(leaf: bytes, authority: bytes) -> bool:
    """Whether `leaf` carries a signature of `authority` (name and key)."""
    signed, signer = parse_certificate(leaf), parse_certificate(authority)
    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def check_key_pair(pair: KeyPair) -> None:
    """Raise BadCertificate unless key and certificate belong together."""
    certificate = parse_certificate(pair.certificate)
    if _load_key(pair.key).public_key() != certificate.public_key():
        raise BadCertificate("certificate and key do not belong together")


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # The cause may quote key material: it is not chained.
        raise BadCertificate("no PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("not an elliptic-curve key")
    return key


def _key_of_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate("no PEM certificate request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadCertificate("the key of the certificate request is not of the curve P-256")
    if not request.is_signature_valid:
        raise BadCertificate("the certificate request is not signed with its own key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until)
    )


def _name(common_name: str) -> x509.Name:
    # X.509 bounds a common name at 64 characters; the names that count are the alternative ones.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
