#include "store/file_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "core/files.h"
#include "core/hash.h"
#include "store/descriptor.h"
#include "store/durable.h"
#include "store/intents.h"
#include "store/names.h"
#include "store/paging.h"
#include "store/random_id.h"

namespace tailor {
namespace {

constexpr std::string_view kSelect =
    "SELECT seq, id, owner, purpose, filename, bytes, sha256, created_at, status, status_details FROM files";

FileRecord file_of(const Row& row) {
  return {.id = row.text(1),
          .owner = row.text(2),
          .purpose = row.text(3),
          .filename = row.text(4),
          .bytes = row.integer(5),
          .sha256 = row.text(6),
          .created_at = row.integer(7),
          .status = row.text(8),
          .status_details = row.text(9)};
}

Error unknown(const std::string& id) {
  return {ErrorCode::kNotFound, fmt::format("there is no file {}", id), ""};
}

Error no_room(std::int64_t there, std::int64_t more, std::int64_t most) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("the uploaded files have {} bytes, and with {} more they would have more than the {} that may be",
                      there, more, most),
          ""};
}

/// Bytes of an owner's uploads.
Result<std::int64_t> stored_bytes(Transaction& transaction, const std::string& owner) {
  std::int64_t bytes = 0;
  TAILOR_CHECK(
      transaction.first("SELECT coalesce(sum(max(bytes, ?)), 0) FROM files WHERE owner = ? "
                        "AND purpose NOT IN ('batch_output', 'fine-tune-results')",
                        {kLeastFileBytes, owner}, [&](const Row& row) -> Status {
                          bytes = row.integer(0);
                          return {};
                        }));
  return bytes;
}

}  // namespace

Json file_object(const FileRecord& file) {
  return {{"id", file.id},
          {"object", "file"},
          {"bytes", file.bytes},
          {"created_at", file.created_at},
          {"filename", file.filename},
          {"purpose", file.purpose},
          {"status", file.status},
          {"status_details", file.status_details.empty() ? Json() : Json(file.status_details)}};
}

struct FileWriter::Impl {
  explicit Impl(StoreContext c) : context(c) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (!staged.empty()) ::unlink(staged.c_str());
    give_back();
  }
  void give_back() {
    if (taken > 0) room->give_back(record.owner, std::exchange(taken, 0));
  }
  /// As the last thing before its row is written: nobody else writes meanwhile.
  Status check_room(Transaction& transaction) {
    if (most_stored == 0) return {};
    TAILOR_TRY(const std::int64_t there, stored_bytes(transaction, record.owner));
    const std::int64_t more = std::max(record.bytes, kLeastFileBytes);
    full = more > most_stored - there;
    stored = there + (full ? 0 : more);
    if (full) return no_room(there, more, most_stored);
    return {};
  }

  StoreContext context;
  FileRecord record;
  std::int64_t max_bytes = 0, most_stored = 0;
  std::shared_ptr<UploadRoom> room;
  std::int64_t taken = 0;              // of `room`
  std::optional<std::int64_t> stored;  // of its owner, seen at the commit
  bool full = false;
  std::filesystem::path staged;  // empty once it has moved
  Descriptor fd;
  Sha256 hash;
  bool failed = false;
  bool reserved = false;  // the file may be longer than what was written
};

FileWriter::FileWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileWriter::FileWriter(FileWriter&&) noexcept = default;
FileWriter::~FileWriter() = default;

Status FileWriter::reserve(std::int64_t bytes) {
  int failed = 0;
  do {
    failed = ::fallocate(impl_->fd.get(), 0, 0, bytes) != 0 ? errno : 0;
  } while (failed == EINTR);
  impl_->reserved = failed == 0;
  if (failed == 0 || failed == EOPNOTSUPP || failed == ENOSYS) return {};
  impl_->failed = true;
  return io_error(fmt::format("cannot take room for {} bytes in", bytes), impl_->staged, failed);
}

Status FileWriter::write(std::string_view bytes) {
  FileRecord& record = impl_->record;
  const auto size = static_cast<std::int64_t>(bytes.size());
  if (size > impl_->max_bytes - record.bytes) {
    impl_->failed = true;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("file {} is larger than the limit of {} bytes", record.filename, impl_->max_bytes), ""};
  }
  if (const std::int64_t most = impl_->most_stored; most > 0) {
    const std::int64_t now = impl_->context.clock();
    if (!impl_->room->take(record.owner, size, most, now)) {
      impl_->failed = impl_->full = true;
      return no_room(impl_->room->taken(record.owner, now), size, most);
    }
    impl_->taken += size;
  }
  const Status written = write_bytes(impl_->fd.get(), bytes, impl_->staged);
  impl_->failed = impl_->failed || !written;
  record.bytes += size;
  impl_->hash.add(bytes);
  return written;
}

bool FileWriter::out_of_room() const {
  return impl_->full;
}

void FileWriter::set_purpose(std::string purpose) {
  impl_->record.purpose = std::move(purpose);
}

Result<FileRecord> FileWriter::commit() {
  Impl& impl = *impl_;
  FileRecord& record = impl.record;
  if (impl.failed || impl.staged.empty())
    return Error{ErrorCode::kInternal, "a file was committed twice or after a failed write", ""};
  impl.failed = true;  // until all is done; there is no second try
  if (impl.reserved && ::ftruncate(impl.fd.get(), record.bytes) != 0) return io_error("cannot cut", impl.staged, errno);
  if (::fsync(impl.fd.get()) != 0) return io_error("cannot write", impl.staged, errno);
  record.sha256 = impl.hash.hex();
  record.created_at = impl.context.clock();
  const std::string intent = "files/" + record.id;
  {
    TAILOR_TRY(Transaction transaction, impl.context.database.write());
    TAILOR_CHECK(declare_intent(transaction, impl.context.directory, intent));
    TAILOR_CHECK(transaction.commit());
  }
  const auto place = [&]() -> Status {
    TAILOR_CHECK(publish(impl.staged, impl.context.directory.files() / record.id));
    impl.staged.clear();
    TAILOR_TRY(Transaction transaction, impl.context.database.write());
    TAILOR_CHECK(impl.check_room(transaction));
    TAILOR_CHECK(transaction.run(
        "INSERT INTO files(id, owner, purpose, filename, bytes, sha256, created_at, status, status_details) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        {record.id, record.owner, record.purpose, record.filename, record.bytes, record.sha256, record.created_at,
         record.status, record.status_details}));
    TAILOR_CHECK(settle_intent(transaction, intent));
    return transaction.commit();
  };
  const Status placed = place();
  impl.give_back();
  if (impl.stored && (placed || impl.full)) impl.room->set_stored(record.owner, *impl.stored, impl.context.clock());
  if (!placed) {
    abandon_intent(impl.context.database, impl.context.directory, intent);
    return placed.error();
  }
  return record;
}

Result<FileWriter> FileStore::begin(const std::string& filename, const std::string& purpose, const std::string& owner,
                                    std::int64_t most_stored) {
  return begin_record({.owner = owner, .purpose = purpose, .filename = filename}, max_bytes_, most_stored);
}

Result<FileWriter> FileStore::begin_own(const std::string& filename, const std::string& purpose,
                                        const std::string& owner) {
  return begin_record({.owner = owner, .purpose = purpose, .filename = filename},
                      std::numeric_limits<std::int64_t>::max(), 0);
}

Status FileStore::check_room(const std::string& owner, std::int64_t bytes, std::int64_t most_stored) const {
  const std::int64_t there = room_->taken(owner, context_.clock()), more = std::max(bytes, kLeastFileBytes);
  if (most_stored == 0 || more <= most_stored - there) return {};
  return no_room(there, more, most_stored);
}

Result<FileWriter> FileStore::begin_record(FileRecord record, std::int64_t max_bytes, std::int64_t most_stored) {
  TAILOR_CHECK(check_label(record.filename, "file name", 255));
  TAILOR_CHECK(check_name(record.purpose, "purpose"));
  auto impl = std::make_unique<FileWriter::Impl>(context_);
  impl->record = std::move(record);
  impl->record.id = random_id("file-", 24);
  impl->max_bytes = max_bytes;
  impl->most_stored = most_stored;
  impl->room = room_;
  const std::filesystem::path staged = context_.directory.staging();
  impl->fd = Descriptor(::open(staged.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (impl->fd.get() < 0) return io_error("cannot write", staged, errno);
  impl->staged = staged;
  return FileWriter(std::move(impl));
}

Result<FileRecord> FileStore::add(const std::string& filename, const std::string& purpose, const std::string& owner,
                                  std::string_view bytes) {
  TAILOR_TRY(FileWriter writer, begin(filename, purpose, owner));
  TAILOR_CHECK(writer.write(bytes));
  return writer.commit();
}

Result<FileRecord> FileStore::find(const std::string& id) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  FileRecord record;
  TAILOR_TRY(const bool found,
             transaction.first(fmt::format("{} WHERE id = ?", kSelect), {id}, [&](const Row& row) -> Status {
               record = file_of(row);
               return {};
             }));
  if (!found) return unknown(id);
  return record;
}

Result<Page<FileRecord>> FileStore::list(const PageQuery& query, const std::string& purpose) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return read_page<FileRecord>(
      transaction, {.select = kSelect, .table = "files", .filter = "purpose", .value = purpose, .most = 10'000}, query,
      [](const Row& row) -> Result<FileRecord> { return file_of(row); });
}

Status FileStore::set_status(const std::string& id, const std::string& status, const std::string& details) {
  if (status != "uploaded" && status != "processed" && status != "error") {
    return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not the status of a file", status),
                 "one of uploaded, processed, error"};
  }
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(const std::int64_t changed,
             transaction.run("UPDATE files SET status = ?, status_details = ? WHERE id = ?", {status, details, id}));
  if (changed == 0) return unknown(id);
  return transaction.commit();
}

Status FileStore::remove(const std::string& id) {
  TAILOR_TRY(const FileRecord record, find(id));
  const std::string intent = "files/" + record.id;
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const std::int64_t changed, transaction.run("DELETE FROM files WHERE id = ?", {record.id}));
    if (changed == 0) return unknown(id);
    TAILOR_CHECK(declare_intent(transaction, context_.directory, intent));
    TAILOR_CHECK(transaction.commit());
  }
  room_->forget_stored(record.owner);
  TAILOR_CHECK(remove_tree(content(record)));
  TAILOR_CHECK(sync_directory(context_.directory.files()));
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(settle_intent(transaction, intent));
  return transaction.commit();
}

Status FileStore::check_content(const FileRecord& file) const {
  TAILOR_TRY(const std::string found, sha256_file(content(file)));
  if (found == file.sha256) return {};
  return Error{ErrorCode::kCorruptData,
               fmt::format("content of {} has SHA-256 {}; when it was written it had {}", file.id, found, file.sha256),
               "upload the file again"};
}

}  // namespace tailor
