"""How a broker is reached, and what is said when it cannot be."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from celery_memory_exporter.config.settings import Broker, Tls
from celery_memory_exporter.sources.broker import (
    TlsError,
    check_files,
    connect,
    explain,
    tls_options,
)
from tests.conftest import IN_CI


@pytest.mark.parametrize(
    "url", ["redis://h", "amqp://h", "pyamqp://h", "sentinel://h", "memory://", "sqs://"]
)
def test_no_tls_where_none_is_asked_for(url: str) -> None:
    assert tls_options(Tls(), url) == {}


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("rediss://h", Tls()),
        ("REDISS://h", Tls()),
        ("redis://h", Tls(enabled=True)),
        ("sentinel://h:26379;sentinel://i:26379", Tls(enabled=True)),
    ],
)
def test_redis_verifies_certificate_and_name(url: str, tls: Tls) -> None:
    assert tls_options(tls, url) == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    "url", ["amqps://u:p@broker.example.com:5671//", "amqps://broker.example.com"]
)
def test_amqp_verifies_certificate_and_name(url: str) -> None:
    assert tls_options(Tls(), url) == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "broker.example.com",
    }


def test_amqp_without_a_host_is_the_local_one() -> None:
    assert tls_options(Tls(enabled=True), "amqp://")["server_hostname"] == "localhost"


def test_verification_is_turned_off_as_a_whole() -> None:
    assert tls_options(Tls(verify=False), "rediss://h") == {
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
    }
    assert tls_options(Tls(verify=False), "amqps://h") == {"cert_reqs": ssl.CERT_NONE}


def test_tls_that_a_transport_does_not_know_is_refused() -> None:
    with pytest.raises(TlsError, match=r"broker\.tls\.enabled does nothing for mongodb://"):
        tls_options(Tls(enabled=True), "mongodb://h")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=test",
        "-keyout",
        key,
        "-out",
        cert,
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        if IN_CI:
            raise
        pytest.skip("openssl is not installed")
    return cert, key


def test_files_are_handed_on(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    tls = Tls(ca_file=cert, cert_file=cert, key_file=key)
    assert (
        tls_options(tls, "rediss://h").items()
        >= {"ssl_ca_certs": cert, "ssl_certfile": cert, "ssl_keyfile": key}.items()
    )
    assert (
        tls_options(tls, "amqps://h").items()
        >= {"ca_certs": cert, "certfile": cert, "keyfile": key}.items()
    )


def test_each_file_that_cannot_be_used_is_named_with_its_key(
    certificate: tuple[str, str], tmp_path: Path
) -> None:
    cert, key = certificate
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = str(tmp_path / "locked.pem")
    lock = ["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    for tls, message in [
        (
            Tls(ca_file="/none.pem"),
            "broker.tls.ca_file: /none.pem cannot be read: No such file or directory",
        ),
        (
            Tls(cert_file="/none.pem"),
            "broker.tls.cert_file: /none.pem cannot be read: No such file or directory",
        ),
        (
            Tls(cert_file=cert, key_file="/none.pem"),
            "broker.tls.key_file: /none.pem cannot be read: No such file or directory",
        ),
        (Tls(key_file=key), "broker.tls.key_file is given without broker.tls.cert_file"),
        (Tls(ca_file=str(text)), f"broker.tls.ca_file: {text} holds no certificates (PEM)"),
        (Tls(ca_file=str(tmp_path)), f"broker.tls.ca_file: {tmp_path} holds no certificates (PEM)"),
        (
            Tls(cert_file=cert),
            f"broker.tls.cert_file and key_file: {cert} and the same are no certificate with its "
            "key (PEM, without a password)",
        ),
        (
            Tls(cert_file=cert, key_file=locked),
            f"broker.tls.cert_file and key_file: {cert} and {locked} are no certificate with its "
            "key (PEM, without a password)",
        ),
    ]:
        with pytest.raises(TlsError) as found:
            check_files(tls)
        assert str(found.value) == message
        assert explain(found.value, "rediss://:secret@h") == f"broker rediss://:**@h: {message}"


def test_a_broker_with_a_file_that_is_not_there_is_not_even_asked() -> None:
    with pytest.raises(TlsError, match=r"broker\.tls\.ca_file"):
        connect(Broker(tls=Tls(ca_file="/none.pem")), "amqps://127.0.0.1:1")


def test_the_first_broker_of_several_that_answers_is_taken() -> None:
    with connect(Broker(), "unheard-of://;memory://") as connection:
        assert connection.connected


def test_of_several_that_do_not_answer_the_last_one_is_told() -> None:
    with pytest.raises(KeyError, match="never"):
        connect(Broker(), "unheard-of://;never://")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "'master_name' transport option must be specified.",
            "set broker.transport_options.master_name",
        ),
        (
            "No master found for 'x' : ConnectionError('Connection refused')",
            "broker.transport_options.master_name and",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate "
            "in chain",
            "broker.tls.ca_file",
        ),
        (
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'h'",
            "another name",
        ),
        (
            "certificate verify failed: IP address mismatch, certificate is not valid for "
            "'127.0.0.1'",
            "another name",
        ),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS there"),
        ("[SSL] record layer failure", "does not speak TLS there"),
        ("EOF occurred in violation of protocol", "broker.tls.cert_file"),
        (
            "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required",
            "broker.tls.cert_file",
        ),
        ("Connection closed by server.", "rediss:// or amqps://"),
        ("Server unexpectedly closed connection", "rediss:// or amqps://"),
        ("WRONGPASS invalid username-password pair", "check user and password"),
        ("Timeout connecting to server", "a Redis without TLS says nothing"),
        ("Connection refused", "check that the broker runs there"),
        ("Name or service not known", "check the host name"),
        ("what nobody has thought of", "; check broker.url"),
    ],
)
def test_what_is_wrong_comes_with_what_to_do(text: str, hint: str) -> None:
    assert hint in explain(OSError(text), "redis://h")


@pytest.mark.parametrize("secret", ["s3cr3t", "p%40ss%2Fword", "p@ss/word"])
def test_no_password_in_any_words(secret: str) -> None:
    error: Any = OSError(f"cannot log in with {secret}")
    assert secret not in explain(error, "amqp://user:s3cr3t@h;amqp://user:p%40ss%2Fword@i")


def test_a_password_that_cannot_be_found_in_the_url_is_not_shown_either() -> None:
    error = ValueError("Port could not be cast to integer value as 's3'")
    assert "s3" not in explain(error, "redis://:s3/cret@h/0")
    told = explain(OSError("cannot log in with hunter2: WRONGPASS"), "amqp://me:hunter2@h//")
    assert "hunter2" not in told
    assert "check user and password" in told


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "check that the broker runs there"),
        (OSError("[Errno -2] Name or service not known"), "check the host name"),
        (ImportError("No module named boto3"), "install the transport's library"),
        (KeyError("nosuch"), "install the transport's library"),
        (RuntimeError("a\nb"), "check broker.url"),
    ],
)
def test_each_failure_says_what_to_do_in_one_line(error: BaseException, hint: str) -> None:
    shown = explain(error, "redis://h")
    assert hint in shown
    assert "\n" not in shown
