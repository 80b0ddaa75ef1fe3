#include "store/schema.h"

#include <array>

namespace tailor {
namespace {

// Times are seconds since 1970. The words of states are those of the API; a word that is given up keeps its meaning.
constexpr std::string_view kFirst = R"sql(
CREATE TABLE secrets(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO counters VALUES ('keys', 0);

-- A path below the store that a session is making or removing; once that session is dead it is rubbish.
CREATE TABLE intents(path TEXT PRIMARY KEY, session TEXT NOT NULL) STRICT;

CREATE TABLE packages(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version TEXT NOT NULL, path TEXT NOT NULL,
  created_at INTEGER NOT NULL, method TEXT NOT NULL, trial TEXT NOT NULL, data_sha256 TEXT NOT NULL,
  base_id TEXT NOT NULL, base_sha256 TEXT NOT NULL, manifest_sha256 TEXT NOT NULL, scores TEXT NOT NULL,
  UNIQUE(name, version)) STRICT;
-- The promoted version is the newest row with live = 1; a rollback puts that to 0.
CREATE TABLE promotions(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, stage TEXT NOT NULL, version TEXT NOT NULL,
  at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, live INTEGER NOT NULL) STRICT;
CREATE INDEX promotions_by_name ON promotions(name, stage, live, seq);

CREATE TABLE keys(
  id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, scopes TEXT NOT NULL,
  requests_per_minute INTEGER NOT NULL, tokens_per_minute INTEGER NOT NULL, tokens_per_day INTEGER NOT NULL,
  max_concurrent INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER,
  last_used_at INTEGER) STRICT;
CREATE TABLE token_days(
  key_id TEXT NOT NULL, day INTEGER NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY(key_id, day)) STRICT, WITHOUT ROWID;

CREATE TABLE audit(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL,
  details TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE files(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, purpose TEXT NOT NULL,
  filename TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, created_at INTEGER NOT NULL,
  status TEXT NOT NULL, status_details TEXT NOT NULL) STRICT;

CREATE TABLE jobs(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL,
  session TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL,
  started_at INTEGER, finished_at INTEGER, request TEXT NOT NULL, result TEXT NOT NULL DEFAULT '{}',
  error TEXT) STRICT;
CREATE INDEX jobs_by_status ON jobs(status, seq);
CREATE TRIGGER finished_jobs_stay BEFORE UPDATE ON jobs WHEN OLD.status IN ('succeeded', 'failed', 'cancelled')
  BEGIN SELECT RAISE(ABORT, 'a finished job is never changed'); END;
CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs BEGIN SELECT RAISE(ABORT, 'a job is never removed'); END;
CREATE TABLE job_events(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL REFERENCES jobs(id), created_at INTEGER NOT NULL,
  level TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL) STRICT;
CREATE INDEX job_events_by_job ON job_events(job, seq);
CREATE TABLE job_checkpoints(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL REFERENCES jobs(id),
  created_at INTEGER NOT NULL, step INTEGER NOT NULL, model TEXT NOT NULL, metrics TEXT NOT NULL,
  UNIQUE(job, step)) STRICT;

CREATE TABLE batches(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL,
  session TEXT NOT NULL DEFAULT '', endpoint TEXT NOT NULL, input_file TEXT NOT NULL, output_file TEXT NOT NULL DEFAULT '',
  error_file TEXT NOT NULL DEFAULT '', completion_window TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  times TEXT NOT NULL DEFAULT '{}', total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0, metadata TEXT NOT NULL, errors TEXT NOT NULL DEFAULT '[]') STRICT;
CREATE TRIGGER finished_batches_stay BEFORE UPDATE ON batches
  WHEN OLD.status IN ('completed', 'failed', 'expired', 'cancelled')
  BEGIN SELECT RAISE(ABORT, 'a finished batch is never changed'); END;
)sql";

// What a batch is about and what it used.
constexpr std::string_view kBatchUsage = R"sql(
ALTER TABLE batches ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN usage TEXT NOT NULL DEFAULT '{}';
)sql";

// Deleted models, whose jobs stay as they were; and the few batches that have not ended among those that have.
constexpr std::string_view kRemovedModels = R"sql(
CREATE TABLE removed_models(job TEXT PRIMARY KEY REFERENCES jobs(id), at INTEGER NOT NULL, actor TEXT NOT NULL) STRICT;
CREATE INDEX unfinished_batches ON batches(expires_at)
  WHERE status NOT IN ('completed', 'failed', 'expired', 'cancelled');
)sql";

// What an owner's files take together; and which sessions gave a batch back to others, since they have none of its
// models.
constexpr std::string_view kFilesByOwner = R"sql(
CREATE INDEX files_by_owner ON files(owner, purpose, bytes);
CREATE TABLE batches_given_back(
  batch TEXT NOT NULL, session TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(batch, session)) STRICT, WITHOUT ROWID;
)sql";

constexpr std::array<std::string_view, 4> kMigrations = {kFirst, kBatchUsage, kRemovedModels, kFilesByOwner};

}  // namespace

std::span<const std::string_view> store_migrations() {
  return kMigrations;
}

}  // namespace tailor
