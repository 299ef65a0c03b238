package store

import "github.com/ccrun/ccrun/attest-server/store/database"

// noDelete is off while archived entries are cut, in their transaction alone.
const noDelete = `CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;`

const appendOnly = `
	CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
	` + noDelete

const appendOnlyPostgres = `
	CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN RAISE EXCEPTION ''audit is append-only''; END';
	CREATE TRIGGER audit_update BEFORE UPDATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
	CREATE TRIGGER audit_delete BEFORE DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();`

// The tenant of an entry is a function of its object, so that nobody can say
// of an entry, whose hash covers the object, that it is another's: see
// kbs.TenantOf. A test compares both.
const (
	tenantOfObject         = `GENERATED ALWAYS AS (substr(object, 1, instr(replace(object, '/', '.') || '.', '.') - 1)) VIRTUAL`
	tenantOfObjectPostgres = `GENERATED ALWAYS AS (split_part(replace(object, '/', '.'), '.', 1)) STORED`
)

// schema is every table of the store, as it came to be.
var schema = database.Schema{
	Postgres: []string{appendOnly, appendOnlyPostgres, tenantOfObject, tenantOfObjectPostgres},
	Steps:    migrations,
}

// migrations are the schema's steps. Released ones are never edited, only
// followed.
var migrations = []string{
	`CREATE TABLE meta(
		name TEXT PRIMARY KEY,
		value BLOB NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE workloads(
		id TEXT PRIMARY KEY,
		tee TEXT NOT NULL,
		image TEXT NOT NULL,
		registration BLOB NOT NULL,     -- RFC 8785
		disk_key BLOB NOT NULL,         -- sealed
		registered_at INTEGER NOT NULL, -- all times: Unix milliseconds
		registered_by TEXT NOT NULL,
		revoked_at INTEGER,
		releases INTEGER NOT NULL DEFAULT 0,
		denials INTEGER NOT NULL DEFAULT 0,
		last_release INTEGER
	) STRICT, WITHOUT ROWID;

	CREATE TABLE measurements(
		launch_digest BLOB PRIMARY KEY,
		workload TEXT NOT NULL REFERENCES workloads(id) ON DELETE CASCADE
	) STRICT, WITHOUT ROWID;
	CREATE INDEX measurements_workload ON measurements(workload);

	CREATE TABLE tokens(
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL,
		role TEXT NOT NULL,
		name TEXT NOT NULL,
		created_at INTEGER NOT NULL,
		expires_at INTEGER,
		revoked_at INTEGER
	) STRICT, WITHOUT ROWID;

	CREATE TABLE sessions(
		authentic INTEGER NOT NULL,     -- was its Evidence?
		seq INTEGER NOT NULL,           -- counts within authentic
		number TEXT NOT NULL UNIQUE,
		workload TEXT NOT NULL,
		at INTEGER NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		record BLOB NOT NULL,
		PRIMARY KEY(authentic, seq)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE audit(
		seq INTEGER PRIMARY KEY,
		at INTEGER NOT NULL,
		actor TEXT NOT NULL,
		action TEXT NOT NULL,
		object TEXT NOT NULL,
		detail TEXT NOT NULL,
		prev BLOB NOT NULL,
		hash BLOB NOT NULL
	) STRICT;` + appendOnly,

	`CREATE TABLE denials(
		hour INTEGER NOT NULL,          -- Unix time / 3600
		rule TEXT NOT NULL,
		count INTEGER NOT NULL,
		PRIMARY KEY(hour, rule)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX sessions_at ON sessions(at, number);`,

	// A workload has at most one staged DiskKey. rotation is the one committed
	// last, so that a commit whose answer was lost can be repeated.
	`ALTER TABLE workloads ADD COLUMN staged_key BLOB;      -- sealed
	ALTER TABLE workloads ADD COLUMN staged_rotation TEXT;
	ALTER TABLE workloads ADD COLUMN staged_at INTEGER;
	ALTER TABLE workloads ADD COLUMN rotation TEXT;
	ALTER TABLE workloads ADD COLUMN rotated_at INTEGER;
	ALTER TABLE workloads ADD COLUMN released INTEGER NOT NULL DEFAULT 0;     -- sessions, not fetches
	ALTER TABLE workloads ADD COLUMN day INTEGER NOT NULL DEFAULT 0;          -- Unix time / 86400
	ALTER TABLE workloads ADD COLUMN released_on_day INTEGER NOT NULL DEFAULT 0;
	UPDATE workloads SET released = releases;`,

	`CREATE TABLE tenants(
		name TEXT PRIMARY KEY,
		max_workloads INTEGER NOT NULL,
		max_resources INTEGER NOT NULL,
		created_at INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	ALTER TABLE tokens ADD COLUMN tenant TEXT NOT NULL DEFAULT '';`,

	`CREATE TABLE resources(
		repo TEXT NOT NULL,
		type TEXT NOT NULL,
		tag TEXT NOT NULL,
		version INTEGER NOT NULL,
		value BLOB NOT NULL,            -- sealed
		size INTEGER NOT NULL,
		policy BLOB NOT NULL,           -- RFC 8785
		created_at INTEGER NOT NULL,
		created_by TEXT NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		last_release INTEGER,
		PRIMARY KEY(repo, type, tag, version)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE approvals(
		tenant TEXT NOT NULL,
		name TEXT NOT NULL,
		workload TEXT NOT NULL,
		registration BLOB NOT NULL,
		at INTEGER NOT NULL,
		by TEXT NOT NULL,
		PRIMARY KEY(tenant, name, workload, registration)
	) STRICT, WITHOUT ROWID;`,

	`CREATE TABLE session_marks(
		id TEXT PRIMARY KEY,
		expires INTEGER NOT NULL,
		granted BLOB,                   -- sealed; NULL: denied, or not yet judged
		releases INTEGER NOT NULL DEFAULT 0,
		resources INTEGER NOT NULL DEFAULT 0
	) STRICT, WITHOUT ROWID;
	CREATE INDEX session_marks_expires ON session_marks(expires);

	CREATE TABLE session_purge(
		one INTEGER PRIMARY KEY CHECK (one = 1),
		until INTEGER NOT NULL          -- marks that expired up to then may be gone
	) STRICT, WITHOUT ROWID;
	INSERT INTO session_purge(one, until) VALUES(1, 0);`,

	`ALTER TABLE tenants ADD COLUMN policy BLOB; -- RFC 8785; NULL: none`,

	// Session records get row numbers. Without, SQLite reads whole records, of
	// several KiB each, wherever it compares the primary keys of two.
	`CREATE TABLE session_rows(
		authentic INTEGER NOT NULL,     -- was its Evidence?
		seq INTEGER NOT NULL,           -- counts within authentic
		number TEXT NOT NULL UNIQUE,
		workload TEXT NOT NULL,
		at INTEGER NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		record BLOB NOT NULL,
		PRIMARY KEY(authentic, seq)
	) STRICT;
	INSERT INTO session_rows(authentic, seq, number, workload, at, releases, record)
		SELECT authentic, seq, number, workload, at, releases, record FROM sessions;
	DROP TABLE sessions;
	ALTER TABLE session_rows RENAME TO sessions;
	CREATE INDEX sessions_at ON sessions(at, number);`,

	// REPORT_IDs whose VM has its disk open: none of them gets a DiskKey again.
	// They outlive their workload, which may be registered anew with the same
	// DiskKey. seq counts within a workload.
	`CREATE TABLE confirmations(
		workload TEXT NOT NULL,
		seq INTEGER NOT NULL,
		report_id BLOB NOT NULL UNIQUE,
		at INTEGER NOT NULL,
		session TEXT NOT NULL,
		PRIMARY KEY(workload, seq)
	) STRICT;
	ALTER TABLE sessions ADD COLUMN confirmed INTEGER;`,

	// Besides, the check value names the audit log's key from here on: programs
	// from before do not know it.
	`ALTER TABLE tokens ADD COLUMN principal TEXT NOT NULL DEFAULT ''; -- empty: the token stands for itself`,

	// A tenant reads its own part of the audit log, from when it was made: an
	// earlier one of the same name ended with its removal.
	`ALTER TABLE audit ADD COLUMN tenant TEXT ` + tenantOfObject + `;
	CREATE INDEX audit_tenant ON audit(tenant, seq);
	ALTER TABLE tenants ADD COLUMN audit_after INTEGER NOT NULL DEFAULT 0;
	UPDATE tenants SET audit_after = coalesce((SELECT max(seq) FROM audit WHERE audit.tenant = tenants.name AND action = 'tenant.remove'), 0);`,

	// Several workloads may share a launch digest. fixed is tuple.Fixed, NULL for
	// what was registered when they could not.
	`CREATE TABLE identities(
		launch_digest BLOB NOT NULL,
		fixed BLOB,
		workload TEXT NOT NULL REFERENCES workloads(id) ON DELETE CASCADE,
		PRIMARY KEY(launch_digest, workload)
	) STRICT, WITHOUT ROWID;
	INSERT INTO identities(launch_digest, workload) SELECT launch_digest, workload FROM measurements;
	DROP TABLE measurements;
	CREATE INDEX identities_workload ON identities(workload);
	CREATE INDEX identities_fixed ON identities(launch_digest, fixed);`,

	// The audit tree's hashes: level 1 is of 256 entries each, level 2 of 256 of
	// level 1. Those of level 0 follow from the entries.
	`CREATE TABLE audit_tree(
		level INTEGER NOT NULL,
		n INTEGER NOT NULL,
		hash BLOB NOT NULL,
		PRIMARY KEY(level, n)
	) STRICT, WITHOUT ROWID;`,

	// Refusals of guests by the hour; count is how many of a kind, began and ended
	// are of those without an audit entry of their own.
	`CREATE TABLE refusals(
		hour INTEGER NOT NULL,          -- Unix time / 3600
		action TEXT NOT NULL,
		workload TEXT NOT NULL,
		why TEXT NOT NULL,
		count INTEGER NOT NULL,
		began INTEGER NOT NULL,
		ended INTEGER NOT NULL,
		PRIMARY KEY(hour, action, workload, why)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE refused_resources(
		session TEXT NOT NULL,
		name TEXT NOT NULL,
		at INTEGER NOT NULL,
		PRIMARY KEY(session, name)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX refused_resources_at ON refused_resources(at);`,

	// Machines whose Evidence was authentic, what they were granted last, and
	// which session was whose. Grants outlive machine, session and workload.
	`CREATE TABLE machines(
		id TEXT PRIMARY KEY,            -- CHIP_ID or PPID, hex
		seen INTEGER NOT NULL,
		denied INTEGER,                 -- by an incident
		machine BLOB NOT NULL           -- JSON of kbs.Machine
	) STRICT, WITHOUT ROWID;
	CREATE INDEX machines_seen ON machines(seen);
	CREATE TABLE machine_grants(
		machine TEXT NOT NULL,
		workload TEXT NOT NULL,
		at INTEGER NOT NULL,
		session TEXT NOT NULL,
		PRIMARY KEY(machine, workload)
	) STRICT, WITHOUT ROWID;
	ALTER TABLE sessions ADD COLUMN machine TEXT NOT NULL DEFAULT '';`,

	// What workloads boot besides firmware, and the agents' segments of it: once
	// for each tenant that has it.
	`CREATE TABLE agents(
		tenant TEXT NOT NULL,
		digest BLOB NOT NULL,
		at INTEGER NOT NULL,
		segment BLOB NOT NULL,
		PRIMARY KEY(tenant, digest)
	) STRICT;
	CREATE TABLE boots(
		workload TEXT PRIMARY KEY REFERENCES workloads(id) ON DELETE CASCADE,
		identity BLOB NOT NULL,
		agent BLOB NOT NULL,
		initrd BLOB NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX boots_agent ON boots(agent);`,

	// The audit log may begin behind entries that were archived, at a signed base:
	// programs from before would take such a store for one that was cut.
	`-- nothing of the tables changes`,

	// A workload's versions: the newest under its id, those before under ID@N.
	`ALTER TABLE workloads ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
	ALTER TABLE workloads ADD COLUMN ends_at INTEGER;        -- a later version is there`,

	// When the DiskKey in use was drawn, if a rotation drew it: what was granted
	// before then is of another key.
	`ALTER TABLE workloads ADD COLUMN drawn_at INTEGER`,

	// What owners give their workloads' processes, and what guests say of why
	// they do not take it.
	`CREATE TABLE configs(
		workload TEXT NOT NULL REFERENCES workloads(id) ON DELETE CASCADE,
		version INTEGER NOT NULL,
		value BLOB NOT NULL,            -- sealed; kbs.WorkloadConfig, RFC 8785
		created_at INTEGER NOT NULL,
		created_by TEXT NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		last_release INTEGER,
		PRIMARY KEY(workload, version)
	) STRICT;
	ALTER TABLE sessions ADD COLUMN refused TEXT;`,

	// What denied guests showed; seq counts within authentic.
	`CREATE TABLE evidence(
		authentic INTEGER NOT NULL,
		seq INTEGER NOT NULL,
		session TEXT NOT NULL UNIQUE,
		workload TEXT NOT NULL,
		evidence BLOB NOT NULL,
		PRIMARY KEY(authentic, seq)
	) STRICT;
	CREATE INDEX evidence_workload ON evidence(authentic, workload, seq);`,

	// Volumes of workloads. staged is 0, or what the volume may have besides
	// generation; token is the SHA-256 of what the last guest that opened it has.
	`CREATE TABLE volumes(
		workload TEXT NOT NULL,         -- of all its versions; never removed before its volumes
		name TEXT NOT NULL,
		sealed BLOB NOT NULL,           -- its key
		generation INTEGER NOT NULL,
		staged INTEGER NOT NULL,
		created_at INTEGER NOT NULL,
		opened_at INTEGER,
		closed_at INTEGER,
		session TEXT NOT NULL DEFAULT '',
		token BLOB,
		accepts TEXT NOT NULL DEFAULT '',
		refused TEXT NOT NULL DEFAULT '',
		PRIMARY KEY(workload, name)
	) STRICT, WITHOUT ROWID;`,

	// Which registration of its id a workload goes back to: see incarnation.
	`ALTER TABLE workloads ADD COLUMN incarnation BLOB`, // sealed; NULL: of before

	// 1: the owner asks for a new key. sealed then holds the key, and behind it the
	// one of the guest that opened the volume last, if it was asked to change it.
	`ALTER TABLE volumes ADD COLUMN rekey INTEGER NOT NULL DEFAULT 0`,
}
