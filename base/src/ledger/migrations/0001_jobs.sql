-- What the base must not forget: transitions, never progress.
-- Every row carries a checksum over its key and body, since SQLite keeps none of its own:
-- a damaged row is named and not used. Columns beside the bodies are for look-up only.

CREATE TABLE meta (
    seq   INTEGER PRIMARY KEY,
    key   TEXT    NOT NULL UNIQUE,
    value BIGINT  NOT NULL,
    sum   BLOB    NOT NULL
);

CREATE TABLE nodes (
    seq  INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE,
    body BLOB    NOT NULL,
    sum  BLOB    NOT NULL
);

-- The hash is the checksum.
CREATE TABLE lists (
    seq   INTEGER PRIMARY KEY,
    hash  BLOB    NOT NULL UNIQUE,
    names BLOB    NOT NULL
);

CREATE TABLE jobs (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    client     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    servers    BLOB    NOT NULL,
    head       BLOB    NOT NULL,
    head_sum   BLOB    NOT NULL,
    state      TEXT    NOT NULL,
    closed_us  BIGINT  NOT NULL,
    status     BLOB    NOT NULL,
    status_sum BLOB    NOT NULL
);
CREATE INDEX jobs_by_name ON jobs (name, closed_us);
CREATE INDEX jobs_by_servers ON jobs (servers);

CREATE TABLE lines (
    seq  INTEGER PRIMARY KEY,
    job  BLOB    NOT NULL,
    node TEXT    NOT NULL,
    body BLOB    NOT NULL,
    sum  BLOB    NOT NULL,
    UNIQUE (job, node)
);
