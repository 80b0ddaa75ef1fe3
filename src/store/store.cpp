#include "store/store.h"

#include <chrono>
#include <utility>

#include "store/intents.h"
#include "store/schema.h"
#include "store/store_context.h"

namespace tailor {
namespace {

std::int64_t system_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Store::Impl {
  Impl(StoreDirectory d, Database b, const StoreOptions& options)
      : directory(std::move(d)),
        database(std::move(b)),
        clock(options.clock ? options.clock : system_seconds),
        context{database, directory, clock},
        audit(context),
        batches(context),
        files(context, options.max_file_bytes),
        jobs(context),
        keys(context),
        packages(context),
        token_days(context) {}

  StoreDirectory directory;
  Database database;
  UnixClock clock;
  StoreContext context;
  AuditLog audit;
  BatchStore batches;
  FileStore files;
  JobStore jobs;
  KeyStore keys;
  PackageStore packages;
  TokenDays token_days;
};

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& path, const StoreOptions& options) {
  TAILOR_TRY(StoreDirectory directory, StoreDirectory::open(path, options.must_exist));
  TAILOR_TRY(const Descriptor exclusive, directory.exclusive());
  TAILOR_TRY(Database database,
             Database::open(directory.database(), store_migrations(), {.busy_timeout_ms = options.busy_timeout_ms}));
  if (options.check_integrity) TAILOR_CHECK(database.check_integrity());
  TAILOR_CHECK(directory.begin_session());
  TAILOR_CHECK(sweep(database, directory));
  std::unique_ptr<Store> store(new Store(std::make_unique<Impl>(std::move(directory), std::move(database), options)));
  TAILOR_CHECK(store->keys().load());
  return store;
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

AuditLog& Store::audit() {
  return impl_->audit;
}
BatchStore& Store::batches() {
  return impl_->batches;
}
FileStore& Store::files() {
  return impl_->files;
}
JobStore& Store::jobs() {
  return impl_->jobs;
}
KeyStore& Store::keys() {
  return impl_->keys;
}
PackageStore& Store::packages() {
  return impl_->packages;
}
TokenDays& Store::token_days() {
  return impl_->token_days;
}
Database& Store::database() {
  return impl_->database;
}
const StoreDirectory& Store::directory() const {
  return impl_->directory;
}

}  // namespace tailor
