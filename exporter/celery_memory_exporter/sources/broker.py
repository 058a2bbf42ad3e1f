"""Connections to a broker: over TLS where it is asked for, bounded in time, and with words for what
goes wrong.

* Where TLS is spoken, the server's certificate and its name are verified unless
  ``broker.tls.verify`` says otherwise. kombu alone verifies neither for ``rediss://``, and py-amqp
  no name.
* No call waits for ever: a broker that accepts and then says nothing is an error.
* No message has a password in it.
"""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu import Connection

from celery_memory_exporter.common.urls import safe_url, without_passwords
from celery_memory_exporter.config.settings import Broker, Tls

CONNECT_SECONDS = 5.0
#: An answer takes no longer, or the connection is given up.
ANSWER_SECONDS = 10.0
TIMEOUTS = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": ANSWER_SECONDS}

REDIS = ("redis", "rediss", "sentinel")
AMQP = ("amqp", "amqps", "pyamqp")
TLS_SCHEMES = ("rediss", "amqps")
LOCAL_HOST = "localhost"  # kombu's default


class TlsError(ValueError):
    """A setting of ``broker.tls`` cannot be used. Says which, and why."""


def connect(settings: Broker, url: str, *, heartbeat: float = 0.0) -> Connection:
    """A connection that stands. Raises whatever the transport raises; ``explain`` makes a line of
    it.

    Of several URLs (``;``) the first that answers is taken. ``heartbeat`` in seconds, for AMQP, is
    for whoever calls ``heartbeat_check``.
    """
    *others, last = [url] if scheme_of(url) == "sentinel" else url.split(";")
    for each in others:
        try:
            return _connect(settings, each, heartbeat)
        except Exception:  # noqa: S112  # what the last one raises is told
            continue
    return _connect(settings, last, heartbeat)


def _connect(settings: Broker, url: str, heartbeat: float) -> Connection:
    tls = tls_options(settings.tls, url)
    connection = Connection(
        url,
        ssl=tls or False,
        connect_timeout=CONNECT_SECONDS,
        heartbeat=heartbeat,
        transport_options=_transport_options(settings, url, tls),
    )
    if tls and isinstance(connection.ssl, dict):
        # kombu takes the URL's own ssl_… options instead of ours, where there are any.
        connection.ssl = {**tls, **connection.ssl}
    try:
        connection.connect()
        _bound_answers(connection)
    except Exception:
        connection.release()
        raise
    return connection


def _transport_options(settings: Broker, url: str, tls: dict[str, Any]) -> dict[str, Any]:
    options = {**TIMEOUTS, **settings.transport_options}
    if scheme_of(url) == "sentinel":
        options["sentinel_kwargs"] = {
            **_sentinel_options(tls),
            **(options.get("sentinel_kwargs") or {}),
        }
    return options


def _sentinel_options(tls: dict[str, Any]) -> dict[str, Any]:
    """What redis-py speaks to the sentinels themselves with; it takes nothing from the server's
    options when there are any."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # One that is down is not tried for seconds: there are others.
    return {**TIMEOUTS, "retry": Retry(NoBackoff(), 0), **({"ssl": True, **tls} if tls else {})}


def _bound_answers(connection: Connection) -> None:
    """py-amqp reads without a timeout, and its ``read_timeout`` makes it read again."""
    if connection.transport.driver_name == "py-amqp":
        connection.connection.sock.settimeout(ANSWER_SECONDS)


# --- TLS ----------------------------------------------------------------------------------------


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def tls_options(tls: Tls, url: str) -> dict[str, Any]:
    """kombu's ``ssl`` for this URL, empty where no TLS is asked for. Raises ``TlsError``."""
    scheme = scheme_of(url)
    if not tls.enabled and scheme not in TLS_SCHEMES:
        return {}
    if scheme in REDIS:
        check_files(tls)
        return _redis_options(tls)
    if scheme in AMQP:
        check_files(tls)
        return _amqp_options(tls, urlsplit(url).hostname)
    raise TlsError(
        f"broker.tls.enabled does nothing for {scheme}://; it is for {', '.join((*REDIS, *AMQP))}"
    )


def _redis_options(tls: Tls) -> dict[str, Any]:
    files = {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
    }
    return {
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.verify,  # off by default in redis-py before 6
        **{name: path for name, path in files.items() if path},
    }


def _amqp_options(tls: Tls, hostname: str | None) -> dict[str, Any]:
    files = {"ca_certs": tls.ca_file, "certfile": tls.cert_file, "keyfile": tls.key_file}
    # py-amqp verifies the name only when it is told the name, and cannot be told one without
    # verifying.
    verified = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": unquote(hostname or LOCAL_HOST)}
    return {
        **(verified if tls.verify else {"cert_reqs": ssl.CERT_NONE}),
        **{name: path for name, path in files.items() if path},
    }


def check_files(tls: Tls) -> None:
    """Raises ``TlsError`` for a file that cannot be used: from the transports it comes without its
    name."""
    for key in ("ca_file", "cert_file", "key_file"):
        path = getattr(tls, key)
        if path:
            try:
                os.close(os.open(path, os.O_RDONLY))
            except OSError as error:
                raise TlsError(
                    f"broker.tls.{key}: {path} cannot be read: {error.strerror}"
                ) from error
    if tls.key_file and not tls.cert_file:
        raise TlsError("broker.tls.key_file is given without broker.tls.cert_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file:
        try:
            context.load_verify_locations(tls.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(
                f"broker.tls.ca_file: {tls.ca_file} holds no certificates (PEM)"
            ) from error
    if tls.cert_file:
        try:
            # An empty password, or OpenSSL asks for one on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise TlsError(
                f"broker.tls.cert_file and key_file: {tls.cert_file} and "
                f"{tls.key_file or 'the same'} are no certificate with its "
                "key (PEM, without a password)"
            ) from error


# --- what went wrong ----------------------------------------------------------------------------

#: What is found in the text of an error (in lower case), and what to do about it. The first that
#: fits holds.
HINTS = (
    (
        ("master_name",),
        "set broker.transport_options.master_name, which the sentinels know the server by",
    ),
    (
        ("no master found",),
        "check broker.url, broker.transport_options.master_name and, for sentinels that speak TLS "
        "otherwise than the server, broker.transport_options.sentinel_kwargs",
    ),
    (
        ("hostname mismatch", "ip address mismatch", "is not valid for"),
        "the broker's certificate is for another name than the one in broker.url",
    ),
    (
        ("certificate verify failed", "certificate_verify_failed"),
        "check that broker.tls.ca_file is the authority that signed the broker's certificate",
    ),
    (
        (
            "alert certificate required",
            "alert handshake failure",
            "alert unknown ca",
            "alert bad certificate",
        ),
        "the broker wants a client's certificate that it trusts: set broker.tls.cert_file and "
        "broker.tls.key_file",
    ),
    (
        ("wrong version number", "wrong_version_number", "record layer failure", "packet length"),
        "the broker does not speak TLS there: check the port, or use redis:// or amqp:// without "
        "broker.tls.enabled",
    ),
    (
        ("no permissions", "noperm"),
        "the user in broker.url may not do this; of a queue's oldest message (LINDEX) "
        "queues.oldest_task: false does without",
    ),
    (("auth", "password", "access_refused", "wrongpass"), "check user and password in broker.url"),
    (
        (
            "closed by server",
            "connection reset",
            "broken pipe",
            "closed connection",
            "socket closed",
            "eof occurred",
        ),
        "the broker hung up: where it speaks TLS, use rediss:// or amqps://, and where it wants a "
        "client's certificate, broker.tls.cert_file and broker.tls.key_file",
    ),
    (
        ("timed out", "timeout"),
        "check host and port in broker.url and the way there; a Redis without TLS says nothing "
        "when it is spoken to with TLS",
    ),
    (("refused",), "check that the broker runs there, and host and port in broker.url"),
    (
        ("name or service", "resolve", "getaddrinfo", "temporary failure"),
        "check the host name in broker.url",
    ),
)


def explain(error: BaseException, url: str) -> str:
    """What went wrong with the broker and what to do, in one line without secrets."""
    try:
        text = without_passwords(str(error), url) or type(error).__name__
    except ValueError:
        return "broker.url cannot be understood; a / or # in its password has to be percent-encoded"
    if isinstance(error, TlsError):
        return f"broker {safe_url(url)}: {error}"
    return f"broker {safe_url(url)}: {text[:300]}; {_hint(error, text.lower())}"


def _hint(error: BaseException, text: str) -> str:
    if isinstance(error, (ImportError, KeyError)):
        return (
            "install the transport's library (celery[redis], celery[sqs], …) or check the URL's "
            "scheme"
        )
    return next(
        (hint for words, hint in HINTS if any(word in text for word in words)), "check broker.url"
    )
