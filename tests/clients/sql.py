"""The usual ways of using a SQL database, by one of its clients, round after round, while the test changes masters.

Every row has a name of its own. A write whose outcome is not known is tried again under the same names: the server's
word that they are there says that it had been done.

Arguments: the client (psycopg, psycopg2, psql, pymysql or mariadb), host, port.
"""

import importlib
import subprocess
import sys
import threading
import time

from tale import Counts, Orders, Patience, expect

CLIENT, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
# Longer than a proxy holds a connection, in seconds.
TIMEOUT = 30
TABLE = "CREATE TABLE IF NOT EXISTS tale (name varchar(100) PRIMARY KEY, number bigint NOT NULL)"
INSERT = "INSERT INTO tale VALUES (%s, %s)"


class Library:
    """What the libraries have in common: Python's DB-API."""

    def run(self, client, sql, values=()):
        cursor = client.cursor()
        cursor.execute(sql, values)
        found = cursor.fetchall() if cursor.description else []
        cursor.close()
        return list(found)

    def single(self, client, rows):
        for row in rows[:1]:
            self.run(client, INSERT, row)
            expect(self.run(client, "SELECT number FROM tale WHERE name = %s", row[:1]), [row[1:]], "a row just written")

    def transaction(self, client, rows):
        self.run(client, "BEGIN")
        for row in rows:
            self.run(client, INSERT, row)
        self.run(client, "COMMIT")

    def rolled_back(self, client, rows):
        self.run(client, "BEGIN")
        self.run(client, INSERT, (f"{rows[0][0]}:never", 0))
        self.run(client, "ROLLBACK")

    def cancelled(self, client, _rows):
        """A query that runs for ever, until it is cancelled over a connection of the request's own."""
        ended = threading.Event()

        def insist():
            # Once is enough, if the query runs by then.
            pause = 0.05
            while not ended.wait(pause):
                pause = 1
                try:
                    self.cancel(client)
                except self.library.Error:
                    pass

        insisting = threading.Thread(target=insist)
        insisting.start()
        try:
            self.run(client, self.SLEEP)
        except self.library.Error as error:
            if not self.is_cancelled(error):
                raise
        finally:
            ended.set()
            insisting.join()

    def ways(self):
        return [(self.single, 1), (self.transaction, 3), (self.prepared, 1), (self.rolled_back, 0), (self.cancelled, 0)]

    def all_rows(self, client, mine):
        return self.run(client, "SELECT name, number FROM tale WHERE name LIKE %s", (mine + "%",))


class Postgres(Library):
    """psycopg, and its predecessor psycopg2."""

    SLEEP = "SELECT pg_sleep(600)"

    def __init__(self):
        self.library = importlib.import_module(CLIENT)
        errors = importlib.import_module(CLIENT + ".errors")
        self._duplicate, self._cancelled = errors.UniqueViolation, errors.QueryCanceled

    def connect(self):
        # As it comes: encryption is asked for, and done without.
        client = self.library.connect(
            host=HOST, port=PORT, user="postgres", dbname="postgres", connect_timeout=TIMEOUT
        )
        client.autocommit = True
        return client

    def cancel(self, client):
        client.cancel()

    def is_duplicate(self, error):
        return isinstance(error, self._duplicate)

    def is_cancelled(self, error):
        return isinstance(error, self._cancelled)

    def prepared(self, client, rows):
        self.run(client, "PREPARE way (text, bigint) AS INSERT INTO tale VALUES ($1, $2)")
        # A statement of this kind takes no values from outside.
        self.run(client, f"EXECUTE way ('{rows[0][0]}', {rows[0][1]})")
        self.run(client, "DEALLOCATE way")

    def prepared_by_itself(self, client, rows):
        client.execute(INSERT, rows[0], prepare=True)

    def pipeline(self, client, rows):
        with client.pipeline(), client.transaction():
            for row in rows:
                client.execute(INSERT, row)

    def bulk(self, client, rows):
        with client.cursor().copy("COPY tale FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def ways(self):
        modern = [(self.prepared_by_itself, 1), (self.pipeline, 5), (self.bulk, 20)]
        return super().ways() + (modern if CLIENT == "psycopg" else [])


class Mariadb(Library):
    """PyMySQL."""

    SLEEP = "SELECT SLEEP(600)"

    def __init__(self):
        self.library = importlib.import_module("pymysql")

    def connect(self):
        client = self.library.connect(host=HOST, port=PORT, user="root", autocommit=True, connect_timeout=TIMEOUT)
        self.run(client, "CREATE DATABASE IF NOT EXISTS test")
        client.select_db("test")
        return client

    def cancel(self, client):
        other = self.connect()
        self.run(other, f"KILL QUERY {client.thread_id()}")
        other.close()

    def is_duplicate(self, error):
        return error.args[:1] == (1062,)

    def is_cancelled(self, error):
        return error.args[:1] == (1317,)

    def prepared(self, client, rows):
        self.run(client, "PREPARE way FROM 'INSERT INTO tale VALUES (?, ?)'")
        self.run(client, "SET @name = %s, @number = %s", rows[0])
        self.run(client, "EXECUTE way USING @name, @number")
        self.run(client, "DEALLOCATE PREPARE way")


class ProgramError(Exception):
    """What a program said when it failed."""


class Program:
    """A command-line client: a process, and a connection, for each use."""

    COMMANDS = {
        "psql": ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", HOST]
        + ["-p", str(PORT), "-d", "postgres", "-c"],
        "mariadb": ["mariadb", "--no-defaults", "-N", "-B", "-u", "root", "-h", HOST, "-P", str(PORT), "-e"],
    }

    class library:
        """What stands for a library's errors."""

        Error = ProgramError

    def connect(self):
        return None

    def run(self, _client, sql):
        if CLIENT == "mariadb":
            sql = "CREATE DATABASE IF NOT EXISTS test; USE test; " + sql
        done = subprocess.run(
            self.COMMANDS[CLIENT] + [sql], capture_output=True, text=True, timeout=2 * TIMEOUT, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise ProgramError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def is_duplicate(self, error):
        return "duplicate key value" in str(error) or "ERROR 1062" in str(error)

    def single(self, client, rows):
        self.run(client, f"INSERT INTO tale VALUES ('{rows[0][0]}', {rows[0][1]})")

    def transaction(self, client, rows):
        inserts = "; ".join(f"INSERT INTO tale VALUES ('{name}', {number})" for name, number in rows)
        self.run(client, f"BEGIN; {inserts}; COMMIT")

    def ways(self):
        return [(self.single, 1), (self.transaction, 3)]

    def all_rows(self, client, mine):
        found = self.run(client, f"SELECT name, number FROM tale WHERE name LIKE '{mine}%'")
        return [(name, int(number)) for name, number in found]


class Tale:
    """The rounds of one client."""

    def __init__(self, driver):
        self.driver, self.counts, self.patience = driver, Counts(), Patience()
        self.client, self.ready = None, False
        # Two of one kind may be at work at a time, one at each listener.
        self.mine = f"{CLIENT}:{PORT}:"

    def failed(self, error):
        self.counts.errors.append(repr(error))
        self.patience.failed(error)
        # The connection is of no more use; a library closes it.
        self.client, self.ready = None, False
        time.sleep(0.01)

    def make_table(self):
        """Several make it at once: PostgreSQL then tells all but one that a key of its own is there already."""
        try:
            self.driver.run(self.client, TABLE)
        except self.driver.library.Error as error:
            if not self.driver.is_duplicate(error):
                raise
            self.client = self.driver.connect()

    def carry_out(self, way, rows):
        """Through with one write, however often the connection has to be made anew."""
        tried = False
        while True:
            try:
                if not self.ready:
                    self.client = self.driver.connect()
                    self.make_table()
                    self.ready = True
                way(self.client, rows)
            except self.driver.library.Error as error:
                if not self.driver.is_duplicate(error):
                    # Only one whose outcome is not known is there already.
                    tried = True
                    self.failed(error)
                    continue
                if not tried:
                    raise
                self.client, self.ready = None, False
            self.counts.acknowledged += rows
            self.patience.worked()
            return

    def round(self, number):
        for way, count in self.driver.ways():
            name = f"{self.mine}{number}:{way.__name__}"
            rows = [(f"{name}:{i}", number) for i in range(max(count, 1))]
            kept = len(self.counts.acknowledged)
            self.carry_out(way, rows)
            del self.counts.acknowledged[kept + count :]
        self.counts.rounds += 1

    def lost(self):
        """Acknowledged rows that are not there, and rows that should not be."""
        while True:
            try:
                found = self.driver.all_rows(self.driver.connect(), self.mine)
                break
            except self.driver.library.Error as error:
                self.failed(error)
        there, wanted = dict(found), dict(self.counts.acknowledged)
        missing = [name for name, number in wanted.items() if there.get(name) != number]
        return missing + [f"{name}: nobody was told" for name in there if name not in wanted]


def main():
    driver = {"psycopg": Postgres, "psycopg2": Postgres, "pymysql": Mariadb}.get(CLIENT, Program)()
    tale, orders, number = Tale(driver), Orders(), 0
    while True:
        number += 1
        tale.round(number)
        word = orders.take()
        if word == "report":
            tale.counts.report()
        elif word == "stop":
            break
    tale.counts.report(written=len(tale.counts.acknowledged), lost=tale.lost())


main()
