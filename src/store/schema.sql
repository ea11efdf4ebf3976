-- Everything that must not be lost, of all owners in this file. Portable SQL: SQLite today, PostgreSQL for standby.
-- The first statement that changes this layout raises the number in `layout` and gets a file of its own.

CREATE TABLE IF NOT EXISTS layout (
    version BIGINT NOT NULL
);

-- Number of commits of each owner; every commit raises it by one.
CREATE TABLE IF NOT EXISTS sequence (
    owner TEXT NOT NULL PRIMARY KEY,
    n BIGINT NOT NULL
);

-- Rows of each owner; values are JSON.
CREATE TABLE IF NOT EXISTS row (
    owner TEXT NOT NULL,
    tbl TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (owner, tbl, key)
);
