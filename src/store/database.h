#pragma once
/// One SQLite database file: opened the safe way, migrated forward, spoken to in transactions only. SQLite's own header
/// stays in database.cpp, SQL stays in src/store.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "core/result.h"

struct sqlite3_stmt;

namespace tailor {

/// Bytes, where a string would be text. Borrowed for the call.
struct Blob {
  std::string_view bytes;
};

/// A value for a "?" of a statement. Texts are borrowed for the call.
class Param {
 public:
  using Value = std::variant<std::monostate, std::int64_t, double, std::string_view, Blob>;
  template <std::integral T>
  Param(T value) : value_(static_cast<std::int64_t>(value)) {}        // NOLINT(google-explicit-constructor)
  Param(double value) : value_(value) {}                              // NOLINT(google-explicit-constructor)
  Param(std::string_view text) : value_(text) {}                      // NOLINT(google-explicit-constructor)
  Param(const std::string& text) : value_(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  Param(const char* text) : value_(std::string_view(text)) {}         // NOLINT(google-explicit-constructor)
  Param(Blob blob) : value_(blob) {}                                  // NOLINT(google-explicit-constructor)
  Param(std::nullopt_t) {}                                            // NOLINT(google-explicit-constructor)
  Param(const std::optional<std::int64_t>& value) {
    if (value) value_ = *value;
  }  // NOLINT(google-explicit-constructor)
  const Value& value() const { return value_; }

 private:
  Value value_;
};

/// One row of an answer; lives as long as the call that shows it. Columns count from 0.
class Row {
 public:
  explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
  bool null(int column) const;
  std::int64_t integer(int column) const;                          // 0 where null
  std::optional<std::int64_t> optional_integer(int column) const;  // nothing where null
  double real(int column) const;
  std::string text(int column) const;  // text or blob, as bytes; empty where null

 private:
  sqlite3_stmt* statement_;
};

using RowSink = std::function<Status(const Row&)>;

struct DatabaseOptions {
  int busy_timeout_ms = 5000;  // how long to wait for another process that writes
  bool must_exist = false;     // else an absent file is made, mode 0600
};

/// Work on the database that happens whole or not at all. It holds the connection: other threads wait. Ends on the
/// thread that began it; what was not committed is rolled back at the end of life. A thread that begins another one
/// inside waits for itself forever.
class Transaction {
 public:
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  /// Runs a statement without rows; gives how many rows it changed.
  Result<std::int64_t> run(std::string_view sql, std::initializer_list<Param> params = {});
  /// Shows each row to `sink`, which must not use this transaction; its error ends the walk and is returned.
  Status each(std::string_view sql, std::initializer_list<Param> params, const RowSink& sink);
  /// The same of the first row alone; false where there is none.
  Result<bool> first(std::string_view sql, std::initializer_list<Param> params, const RowSink& sink);
  /// On success everything is on the disk. After an error nothing of it is visible. Refused after a failed statement.
  Status commit();

 private:
  friend class Database;
  struct Access;
  explicit Transaction(std::unique_ptr<Access> access);
  std::unique_ptr<Access> access_;
};

/// WAL journal, synchronous=FULL (a commit that returned survives a power cut), foreign keys on, statements kept
/// prepared (their number is that of the SQL texts in the code).
/// Threads: one connection behind a mutex; any thread may begin a transaction and waits for its turn.
/// Processes: several may have the file open; writers take turns and wait up to busy_timeout_ms.
/// Errors: kCorruptData (not a database, damaged pages), kIo (disk full, permissions), kUnavailable (busy for too long,
/// or written by a newer version).
class Database {
 public:
  /// Opens or makes the file and brings it to version migrations.size(): version n is what the first n scripts made.
  /// Scripts only ever get appended. A file of a higher version is refused and not touched.
  static Result<Database> open(const std::filesystem::path& file, std::span<const std::string_view> migrations,
                               const DatabaseOptions& options = {});
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  Result<Transaction> read() const;   // one consistent view; writing in it is an error
  Result<Transaction> write() const;  // holds the file's only place for a writer from the start

  /// Reads every page: kCorruptData names the first thing that is wrong.
  Status check_integrity() const;
  const std::filesystem::path& file() const;

 private:
  friend class Transaction;
  friend struct Transaction::Access;
  struct Impl;
  explicit Database(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
