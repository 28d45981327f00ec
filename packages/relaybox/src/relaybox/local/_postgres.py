"""A real PostgreSQL of one's own: made on first start, kept in a directory, reached over 127.0.0.1."""

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
from relaybox.local._directory import DirectoryLock, disk_full_or, require_free_space
from relaybox.local._errors import DataDirectoryNotUsable, DataDirectoryOfAnotherVersion, ServerDidNotStart
from relaybox.local._ports import LOOPBACK, free_port, require_free_port
from relaybox.local._postgres_programs import programs
from relaybox.local._process import ServerProcess, end_orphans, processes_in

_ROLES = Path(__file__).with_name("roles.psql")
_STATUS_LINE = 7
_BUILTIN_LOCALE_SINCE = 17
_START_S = 60.0
_STOP_S = 8.0
_READY_PAUSE_S = 0.02
_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_LOG_BYTES_MAX = 32 * 2**20
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
#: Not synchronous_commit: without fsync it costs next to nothing, and off, a killed server forgets commits.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Passwords(BaseModel, frozen=True):
    """Random passwords of one cluster, made with it and kept beside it (mode 0600)."""

    superuser: str
    owner: str
    service: str


class LocalPostgres:
    """One PostgreSQL server on a data directory.

    The first start makes the cluster, the database *database*, the role ``relaybox_owner`` that owns
    it and may create databases, and the role ``relaybox`` that owns nothing. Both log in by password
    (scram) over TCP on 127.0.0.1; nothing else is listened on.

    As root the server runs under an existing unprivileged account; where that account cannot enter
    *data_dir*, the data is in :attr:`place`, which the log names.
    """

    host: str = LOOPBACK
    owner_user: str = "relaybox_owner"
    service_user: str = "relaybox"
    superuser: str = "postgres"

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
        """Describe the server; nothing happens before :meth:`start`.

        *port* None takes a free one at the first start and keeps it as long as this object lives.
        *durable* False is for tests: nothing waits for the disk, so that a machine's crash may cost the data;
        a crash of the server alone costs nothing.
        *bin_dir* has programs of another build than the packaged one, which knows no TLS; *options* are
        further settings of the server.
        """
        self.data_dir = data_dir.resolve()
        self.database = database
        self.version = version
        self.durable = durable
        self.port = port or 0
        self._port_is_given = port is not None
        self._bin_dir = bin_dir
        self._server_options = options
        self._place = self.data_dir
        self._lock: DirectoryLock | None = None
        self._process: ServerProcess | None = None
        self._passwords: Passwords | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<LocalPostgres {self.version} on {self.host}:{self.port} [{state} | {self.place}]>"

    async def start(self) -> None:
        """Start the server and return when it answers; one a killed starter left behind is stopped first.

        Raises:
            DataDirectoryOfAnotherVersion: the directory holds another major version's cluster.
            DataDirectoryInUse: another living process runs a server on it.
            DataDirectoryNotUsable: it cannot be made or written.
            DiskFull: its disk has no room.
            PortTaken: *port* was given and somebody listens there.
            ServerNotAvailable: the programs are not installed.
            ServerDidNotStart: anything else, with the last lines of the server's log.
        """
        account = server_account()
        self._place = resolve_data_dir(self.data_dir, account)
        lock = DirectoryLock(self.place)
        lock.acquire()
        try:
            await self._start(account)
        except BaseException:
            if self._process is not None:
                self._process.kill()
                self._process = None
            lock.release()
            raise
        self._lock = lock

    async def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; ``immediate`` leaves recovery to the next start. SIGKILL after 8 s."""
        if self._process is not None:
            await self._process.stop(_STOP_SIGNALS[mode], stop_s=_STOP_S)
        self._forget()

    def kill(self) -> None:
        """SIGKILL every process of the server at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
        self._forget()

    def pause(self) -> None:
        """Freeze every process of the server (SIGSTOP): connections stay open and nothing answers."""
        self._running().signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._running().signal_tree(signal.SIGCONT)

    async def wait(self) -> int:
        """Return the server's exit code once it has ended by itself."""
        return await self._running().wait()

    async def make_standby(self, data_dir: Path) -> "LocalPostgres":
        """Copy this running server into *data_dir* as a streaming standby of it, which is not started yet.

        Raises:
            ServerDidNotStart: the copy failed, with the last lines of its log.
        """
        account = server_account()
        standby = LocalPostgres(
            data_dir,
            database=self.database,
            version=self.version,
            durable=self.durable,
            bin_dir=self._bin_dir,
            options=self._server_options,
        )
        standby._place = resolve_data_dir(standby.data_dir, account)
        make_directory(standby.place, mode=0o755)
        make_directory(standby._cluster, mode=0o700)
        if account is not None:
            os.chown(standby._cluster, account.uid, account.gid)
        _write_secret(standby.place / "passwords.json", self._known_passwords().model_dump_json())
        copying = standby._launch(
            [
                str((self._bin_dir or programs(self.version, account)) / "pg_basebackup"),
                *("--pgdata", str(standby._cluster), "--write-recovery-conf", "--checkpoint=fast"),
                *("--host", self.host, "--port", str(self.port), "--username", self.superuser),
                *([] if self.durable else ["--no-sync"]),
            ],
            account,
            PGPASSWORD=self.superuser_password,
        )
        await copying.finish("pg_basebackup", within_s=_START_S)
        return standby

    async def promote(self) -> None:
        """Make a running standby a primary and return when it takes writes, within 60 s."""
        account = server_account()
        program = str((self._bin_dir or programs(self.version, account)) / "pg_ctl")
        promoting = self._launch([program, "promote", "--wait", "--pgdata", str(self._cluster)], account)
        await promoting.finish("pg_ctl", within_s=_START_S)

    def remove(self) -> None:
        """Delete the data for good, also where it lies outside *data_dir*; the server must be stopped."""
        assert self._process is None, "the server runs"
        for directory in {resolve_data_dir(self.data_dir, server_account()), self.data_dir}:
            shutil.rmtree(directory)

    @property
    def place(self) -> Path:
        """Where the files are; another directory than *data_dir* only for root, see the class."""
        return self._place

    @property
    def log(self) -> Path:
        """The server's log file; it starts anew past 32 MiB."""
        return self.place / "postgres.log"

    @property
    def owner_password(self) -> str:
        """Password of :attr:`owner_user`; known once the server was started."""
        return self._known_passwords().owner

    @property
    def service_password(self) -> str:
        """Password of :attr:`service_user`; known once the server was started."""
        return self._known_passwords().service

    @property
    def superuser_password(self) -> str:
        """Password of :attr:`superuser`, which the product never is; known once the server was started."""
        return self._known_passwords().superuser

    def settings(self) -> dict[str, str]:
        """Return the environment that points the product at this server (contract, section 7)."""
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
        return self.place / "cluster"

    def _running(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    def _known_passwords(self) -> Passwords:
        assert self._passwords is not None, "the server was not started"
        return self._passwords

    def _forget(self) -> None:
        self._process = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _start(self, account: Account | None) -> None:
        bin_dir = self._bin_dir or programs(self.version, account)
        self._require_version()
        await self._end_left_over()
        if self._port_is_given:
            require_free_port(self.port, setting="POSTGRES_PORT")
        self.port = self.port or free_port()
        require_free_space(self.place)
        self._shorten_log()
        try:
            await self._make_cluster(bin_dir, account)
            self._passwords = self._read_passwords()
            self._process = self._launch([str(bin_dir / "postgres"), *self._options()], account)
            await self._process.until_ready(
                "PostgreSQL", self._is_ready, start_s=_START_S, pause_s=_READY_PAUSE_S
            )
            if not (self._cluster / "standby.signal").exists():
                await self._ensure_database(bin_dir)
        except ServerDidNotStart as error:
            raise disk_full_or(error, self.place) from None

    def _require_version(self) -> None:
        marker = self._cluster / "PG_VERSION"
        found = marker.read_text().strip() if marker.exists() else str(self.version)
        if found != str(self.version):
            raise DataDirectoryOfAnotherVersion(
                server="PostgreSQL",
                path=self._cluster,
                found=found,
                needed=str(self.version),
                remedy=f"carry the data over with pg_upgrade or pg_dump from PostgreSQL {found}, "
                "or set POSTGRES_HOST to a server of your own",
            )

    async def _end_left_over(self) -> None:
        """We hold the lock, so whatever still runs in the cluster's directory has lost its starter."""
        try:
            await end_orphans(processes_in(self._cluster, "postgres"), signal.SIGINT, stop_s=_STOP_S)
        except PermissionError as error:
            reason = "a server of another user still runs on it"
            raise DataDirectoryNotUsable(path=self.place, reason=reason) from error
        # Its pid may belong to some other process by now, and PostgreSQL would take that for a server.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _shorten_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.unlink()

    async def _make_cluster(self, bin_dir: Path, account: Account | None) -> None:
        if self._cluster.exists():
            return
        building = self.place / "cluster.new"  # renamed when complete: an interrupted start is just repeated
        shutil.rmtree(building, ignore_errors=True)
        make_directory(building, mode=0o700)
        passwords = Passwords(**{name: secrets.token_urlsafe(24) for name in Passwords.model_fields})
        _write_secret(self.place / "passwords.json", passwords.model_dump_json())
        password_file = building.with_suffix(".password")
        _write_secret(password_file, passwords.superuser)
        if account is not None:
            os.chown(building, account.uid, account.gid)
            os.chown(password_file, account.uid, account.gid)
        try:
            options = _initdb_options(building, self.version, durable=self.durable)
            await self._launch([str(bin_dir / "initdb"), *options], account).finish(
                "initdb", within_s=_START_S
            )
        finally:
            password_file.unlink()
        building.rename(self._cluster)

    def _launch(self, argv: list[str], account: Account | None, **environment: str) -> ServerProcess:
        return ServerProcess(
            argv,
            log=self.log,
            env={**_ENVIRONMENT, **environment},
            cwd=Path("/"),
            parent_death=signal.SIGINT,
            account=account,
        )

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
        path = self.place / "passwords.json"
        try:
            return Passwords.model_validate(from_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            reason = f"{path.name} is missing or unreadable, so nobody can log in"
            raise DataDirectoryNotUsable(path=self.place, reason=reason) from error

    async def _is_ready(self) -> bool:
        """Look where ``pg_ctl --wait`` looks: line 8 of the pid file says "ready" or "standby"."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() in ("ready", "standby")

    async def _ensure_database(self, bin_dir: Path) -> None:
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
            [str(bin_dir / "psql"), "--quiet", "--no-psqlrc", "--file", str(_ROLES)],
            log=self.log,
            env=environment,
            cwd=Path("/"),
            parent_death=signal.SIGKILL,
        )
        await psql.finish("PostgreSQL", within_s=_START_S)


def _initdb_options(cluster: Path, version: int, *, durable: bool) -> list[str]:
    # The builtin provider sorts by code point and still knows letters beyond ASCII, on every machine alike.
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
        *([] if durable else ["--no-sync"]),
    ]


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
