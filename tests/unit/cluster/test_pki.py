from __future__ import annotations

import base64
import ssl
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tools.cluster.pki import Authority, Pair, kubeconfig, new_key, write_private

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("authority", NOW)


def certificate(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_user_and_group_are_in_a_clients_certificate(authority: Authority) -> None:
    subject = certificate(authority.client("system:node:node1", "system:nodes")).subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:node1"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"


def test_a_user_without_a_group_is_in_none(authority: Authority) -> None:
    subject = certificate(authority.client("scheduler")).subject
    assert not subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)


def test_a_client_cannot_pose_as_a_server(authority: Authority) -> None:
    usages = {
        name: list(
            certificate(pair).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
        for name, pair in {
            "client": authority.client("somebody"),
            "server": authority.server("api", ["api"], []),
        }.items()
    }
    assert usages == {
        "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
        "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    }


def test_a_servers_names_and_addresses_are_in_its_certificate(authority: Authority) -> None:
    pair = authority.server("api", ["kubernetes", "localhost"], [IPv4Address("10.96.0.1")])
    names = certificate(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("10.96.0.1")]


def test_what_is_signed_verifies_against_its_authority_alone(authority: Authority) -> None:
    leaf = certificate(authority.client("somebody"))
    leaf.verify_directly_issued_by(certificate(authority.pair))
    with pytest.raises(ValueError, match="issuer"):
        leaf.verify_directly_issued_by(certificate(Authority("another").pair))


def test_only_the_authority_may_sign(authority: Authority) -> None:
    leaf, own = certificate(authority.client("somebody")), certificate(authority.pair)
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_certificates_are_valid_from_a_little_before(authority: Authority) -> None:
    leaf = certificate(authority.client("somebody"))
    assert leaf.not_valid_before_utc < NOW < leaf.not_valid_after_utc
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=31)


def test_a_pair_is_written_with_its_key_for_the_owner_alone(
    tmp_path: Path, authority: Authority
) -> None:
    pair = authority.client("somebody")
    pair.write(tmp_path, "somebody")
    assert stat.S_IMODE((tmp_path / "somebody.key").stat().st_mode) == 0o600
    # It refuses a key that is not the certificate's.
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
        tmp_path / "somebody.crt", tmp_path / "somebody.key"
    )


def test_a_private_file_that_others_could_read_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_differ() -> None:
    first, second = new_key(), new_key()
    assert first != second
    load_pem_private_key(first, None)


def test_an_access_file_holds_server_authority_and_user(authority: Authority) -> None:
    pair = authority.client("admin", "system:masters")
    document = yaml.safe_load(kubeconfig("https://10.89.0.1:6443", b"authority", pair))
    cluster = document["clusters"][0]["cluster"]
    assert cluster["server"] == "https://10.89.0.1:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"authority"
    user = document["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == pair.certificate
    assert base64.b64decode(user["client-key-data"]) == pair.key
    context = document["contexts"][0]
    assert document["current-context"] == context["name"]
    assert context["context"]["cluster"] == document["clusters"][0]["name"]
    assert context["context"]["user"] == document["users"][0]["name"]
