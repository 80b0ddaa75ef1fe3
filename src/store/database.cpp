#include "store/database.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "store/durable.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kApplicationId = 0x546C7231;  // "Tlr1" in the file's header: SQLite files of others are refused

Error sqlite_error(sqlite3* db, int code, std::string_view what, const fs::path& file) {
  const int system_error = db != nullptr ? sqlite3_system_errno(db) : 0;
  std::string reason = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  if (system_error != 0 && (code & 0xFF) == SQLITE_IOERR) reason += fmt::format(": {}", std::strerror(system_error));
  const std::string message = fmt::format("{}: cannot {}: {}", file.string(), what, reason);
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return {ErrorCode::kIo, message, "free some disk space; nothing was changed"};
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return {ErrorCode::kIo, message, "check the disk and the permissions of the directory"};
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {ErrorCode::kCorruptData, message, "restore the file from a backup"};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {ErrorCode::kUnavailable, message, "another process holds the store; try again"};
    case SQLITE_NOMEM:
      return {ErrorCode::kOutOfMemory, message, ""};
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
      return {ErrorCode::kInvalidArgument, message, ""};
    default:
      return {ErrorCode::kInternal, message, ""};
  }
}

struct StatementCloser {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, StatementCloser>;

struct ConnectionCloser {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using Connection = std::unique_ptr<sqlite3, ConnectionCloser>;

/// Statements are kept; after use they hold neither locks nor borrowed values.
class InUse {
 public:
  explicit InUse(sqlite3_stmt* statement) : statement_(statement) {}
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  ~InUse() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }

 private:
  sqlite3_stmt* statement_;
};

int bind(sqlite3_stmt* statement, int index, const Param& param) {
  struct Visitor {
    sqlite3_stmt* statement;
    int index;
    int operator()(std::monostate) const { return sqlite3_bind_null(statement, index); }
    int operator()(std::int64_t value) const { return sqlite3_bind_int64(statement, index, value); }
    int operator()(double value) const { return sqlite3_bind_double(statement, index, value); }
    // A null pointer would be bound as NULL.
    int operator()(std::string_view text) const {
      return sqlite3_bind_text64(statement, index, text.empty() ? "" : text.data(), text.size(), SQLITE_STATIC,
                                 SQLITE_UTF8);
    }
    int operator()(Blob blob) const {
      return sqlite3_bind_blob64(statement, index, blob.bytes.empty() ? "" : blob.bytes.data(), blob.bytes.size(),
                                 SQLITE_STATIC);
    }
  };
  return std::visit(Visitor{statement, index}, param.value());
}

}  // namespace

bool Row::null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::int64_t Row::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::optional<std::int64_t> Row::optional_integer(int column) const {
  if (null(column)) return std::nullopt;
  return integer(column);
}

double Row::real(int column) const {
  return sqlite3_column_double(statement_, column);
}

std::string Row::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string()
                          : std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size));
}

struct Database::Impl {
  fs::path file;
  std::mutex mutex;
  Connection db;
  std::unordered_map<std::string, Statement> statements;  // after db: they are closed before it

  Error error(int code, std::string_view what) const { return sqlite_error(db.get(), code, what, file); }

  Result<sqlite3_stmt*> prepared(std::string_view sql) {
    std::string key(sql);
    if (const auto found = statements.find(key); found != statements.end()) return found->second.get();
    sqlite3_stmt* raw = nullptr;
    const int code = sqlite3_prepare_v3(db.get(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                        &raw, nullptr);
    if (code != SQLITE_OK) return error(code, fmt::format("run \"{}\"", sql));
    statements.emplace(std::move(key), Statement(raw));
    return raw;
  }

  /// Shows at most `most` rows (0: all); gives how many there were.
  Result<std::int64_t> step(std::string_view sql, std::span<const Param> params, std::int64_t most, const RowSink& sink,
                            bool may_write = true) {
    TAILOR_TRY(sqlite3_stmt* const statement, prepared(sql));
    if (!may_write && sqlite3_stmt_readonly(statement) == 0)
      return Error{ErrorCode::kInternal, fmt::format("\"{}\" would write in a transaction for reading", sql), ""};
    const InUse in_use(statement);
    for (std::size_t i = 0; i < params.size(); ++i) {
      const int code = bind(statement, static_cast<int>(i) + 1, params[i]);
      if (code != SQLITE_OK) return error(code, fmt::format("bind value {} of \"{}\"", i + 1, sql));
    }
    for (std::int64_t rows = 0;; ++rows) {
      if (most > 0 && rows == most) return rows;
      const int code = sqlite3_step(statement);
      if (code == SQLITE_DONE) return rows;
      if (code != SQLITE_ROW) return error(code, fmt::format("run \"{}\"", sql));
      if (sink) TAILOR_CHECK(sink(Row(statement)));
    }
  }

  Status script(std::string_view sql) {
    const int code = sqlite3_exec(db.get(), std::string(sql).c_str(), nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return error(code, "run a script");
    return {};
  }

  Result<std::int64_t> pragma(const char* name) {
    std::int64_t value = 0;
    const std::string sql = fmt::format("PRAGMA {}", name);
    TAILOR_CHECK(step(sql, {}, 1, [&](const Row& row) -> Status {
      value = row.integer(0);
      return {};
    }));
    return value;
  }

  Status migrate(std::span<const std::string_view> migrations);
};

struct Transaction::Access {
  Database::Impl& database;
  std::unique_lock<std::mutex> lock;
  bool writes;
  bool open = false;
  bool failed = false;  // a statement did; what came before it must not be kept alone

  /// Opens the transaction; the lock is held from here on.
  static Result<Transaction> begin(Database::Impl& database, bool writes) {
    auto access = std::make_unique<Access>(database, writes);
    TAILOR_CHECK(database.step(writes ? "BEGIN IMMEDIATE" : "BEGIN DEFERRED", {}, 0, {}));
    access->open = true;
    return Transaction(std::move(access));
  }
  Result<std::int64_t> step(std::string_view sql, std::initializer_list<Param> params, std::int64_t most,
                            const RowSink& sink) {
    auto rows = database.step(sql, {params.begin(), params.size()}, most, sink, writes);
    failed = failed || !rows;
    return rows;
  }
  Access(Database::Impl& d, bool w) : database(d), lock(d.mutex), writes(w) {}
};

Transaction::Transaction(std::unique_ptr<Access> access) : access_(std::move(access)) {}
Transaction::Transaction(Transaction&& other) noexcept = default;

Transaction::~Transaction() {
  if (!access_ || !access_->open) return;
  // SQLite ends some failed transactions itself; another ROLLBACK would be an error of its own.
  if (sqlite3_get_autocommit(access_->database.db.get()) == 0)
    sqlite3_exec(access_->database.db.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<std::int64_t> Transaction::run(std::string_view sql, std::initializer_list<Param> params) {
  TAILOR_CHECK(access_->step(sql, params, 0, {}));
  return static_cast<std::int64_t>(sqlite3_changes(access_->database.db.get()));
}

Status Transaction::each(std::string_view sql, std::initializer_list<Param> params, const RowSink& sink) {
  TAILOR_CHECK(access_->step(sql, params, 0, sink));
  return {};
}

Result<bool> Transaction::first(std::string_view sql, std::initializer_list<Param> params, const RowSink& sink) {
  TAILOR_TRY(const std::int64_t rows, access_->step(sql, params, 1, sink));
  return rows > 0;
}

Status Transaction::commit() {
  if (access_->failed)
    return Error{ErrorCode::kInternal, "a transaction was to be committed after one of its statements failed", ""};
  TAILOR_CHECK(access_->database.step("COMMIT", {}, 0, {}));
  access_->open = false;
  access_->lock.unlock();
  return {};
}

Status Database::Impl::migrate(std::span<const std::string_view> migrations) {
  const auto newest = static_cast<std::int64_t>(migrations.size());
  TAILOR_TRY(const std::int64_t application, pragma("application_id"));
  TAILOR_TRY(const std::int64_t tables, pragma("schema_version"));
  TAILOR_TRY(const std::int64_t version, pragma("user_version"));
  if (application != kApplicationId && (application != 0 || tables != 0)) {
    return Error{ErrorCode::kCorruptData, fmt::format("{} is a database of another program", file.string()),
                 "name another directory for the store"};
  }
  if (version > newest) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("{} was written by a newer version of Tailor: its layout is {}, this version knows {}",
                             file.string(), version, newest),
                 "use that newer version; this one changes nothing in it"};
  }
  if (version == newest) return {};
  TAILOR_CHECK(script("BEGIN IMMEDIATE"));
  const auto steps = [&]() -> Status {
    TAILOR_TRY(const std::int64_t now, pragma("user_version"));  // another process may have been first
    for (std::int64_t i = now; i < newest; ++i) TAILOR_CHECK(script(migrations[static_cast<std::size_t>(i)]));
    TAILOR_CHECK(script(fmt::format("PRAGMA application_id = {}", kApplicationId)));
    TAILOR_CHECK(script(fmt::format("PRAGMA user_version = {}", std::max(now, newest))));
    return script("COMMIT");
  };
  const Status done = steps();
  if (!done && sqlite3_get_autocommit(db.get()) == 0) sqlite3_exec(db.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  return done;
}

Result<Database> Database::open(const fs::path& file, std::span<const std::string_view> migrations,
                                const DatabaseOptions& options) {
  if (options.must_exist) {
    TAILOR_CHECK(keep_private(file));
  } else {
    TAILOR_CHECK(make_private_file(file));  // before SQLite sees it; its WAL and index take over the mode
  }
  TAILOR_CHECK(sync_directory(file.parent_path()));

  auto impl = std::make_unique<Impl>();
  impl->file = file;
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(file.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  impl->db.reset(raw);
  if (code != SQLITE_OK) return impl->error(code, "open");
  sqlite3_busy_timeout(raw, options.busy_timeout_ms);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  // secure_delete: what was removed is overwritten, as far as the file system lets us.
  TAILOR_CHECK(impl->script(
      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;"
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  TAILOR_CHECK(impl->migrate(migrations));
  return Database(std::move(impl));
}

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Result<Transaction> Database::read() const {
  return Transaction::Access::begin(*impl_, false);
}
Result<Transaction> Database::write() const {
  return Transaction::Access::begin(*impl_, true);
}
const fs::path& Database::file() const {
  return impl_->file;
}

Status Database::check_integrity() const {
  TAILOR_TRY(Transaction transaction, read());
  std::string finding;
  TAILOR_CHECK(transaction.each("PRAGMA integrity_check(1)", {}, [&](const Row& row) -> Status {
    finding = row.text(0);
    return {};
  }));
  if (finding != "ok") {
    return Error{ErrorCode::kCorruptData, fmt::format("{} is damaged: {}", file().string(), finding),
                 "restore the file from a backup"};
  }
  return {};
}

}  // namespace tailor
