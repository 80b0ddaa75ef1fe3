#pragma once
/// A store: one directory with everything a server knows between two starts. The layout stands in store_directory.h.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "core/result.h"
#include "store/audit_log.h"
#include "store/batch_store.h"
#include "store/database.h"
#include "store/file_store.h"
#include "store/job_store.h"
#include "store/key_store.h"
#include "store/package_store.h"
#include "store/store_directory.h"
#include "store/token_days.h"

namespace tailor {

struct StoreOptions {
  bool must_exist = false;
  bool check_integrity = false;  // reads the whole database: for a server's start, not for every command
  UnixClock clock;               // empty: the system's
  std::int64_t max_file_bytes = std::int64_t{512} << 20;  // of an uploaded file
  int busy_timeout_ms = 5000;                             // for another process that writes
};

/// Threads: all parts may be used from any thread; each call is one transaction and waits for the one before it.
/// Processes: several may have a store open, see StoreDirectory.
/// Durability: what a call reported as done survives a crash and a power cut.
/// Opening removes what killed processes left half done.
class Store {
 public:
  static Result<std::unique_ptr<Store>> open(const std::filesystem::path& directory, const StoreOptions& options = {});
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  AuditLog& audit();
  BatchStore& batches();
  FileStore& files();
  JobStore& jobs();
  KeyStore& keys();
  PackageStore& packages();
  TokenDays& token_days();
  Database& database();
  const StoreDirectory& directory() const;

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
