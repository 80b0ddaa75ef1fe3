#pragma once
/// Uploaded and produced files, as the OpenAI API knows them: a row and, below files/, the content.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"
#include "store/page.h"
#include "store/store_context.h"
#include "store/upload_room.h"

namespace tailor {

struct FileRecord {
  std::string id;        // "file-…"
  std::string owner;     // id of a key
  std::string purpose;   // "fine-tune", "batch", …; the API's caller decides which it takes
  std::string filename;  // as the user named it; never part of a path here
  std::int64_t bytes = 0;
  std::string sha256;
  std::int64_t created_at = 0;
  std::string status = "uploaded";  // "uploaded" | "processed" | "error"
  std::string status_details;
};

/// {"id", "object": "file", "bytes", "created_at", "filename", "purpose", "status", "status_details"}
Json file_object(const FileRecord& file);

/// A file that is coming in. Nothing is known of it before commit(); dropped, it leaves nothing.
/// Threads: one at a time.
class FileWriter {
 public:
  FileWriter(FileWriter&&) noexcept;
  FileWriter& operator=(FileWriter&&) = delete;
  ~FileWriter();
  /// Takes room on the disk before anything is written: kIo at once where there is not so much. What is not written of
  /// it is given back by commit(). A file system that cannot do that takes none. After an error the file is lost.
  Status reserve(std::int64_t bytes);
  /// kInvalidArgument beyond the store's limit, or out_of_room(); kIo where the disk is full. After an error the file
  /// is lost.
  Status write(std::string_view bytes);
  void set_purpose(std::string purpose);  // known late: a form may name it after the file
  Result<FileRecord> commit();
  bool out_of_room() const;  ///< write() or commit() failed, since its owner would have more than may be

 private:
  friend class FileStore;
  struct Impl;
  explicit FileWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Threads: any.
class FileStore {
 public:
  FileStore(StoreContext context, std::int64_t max_bytes) : context_(context), max_bytes_(max_bytes) {}

  /// `most_stored`: bytes of the owner's files together, this one included; 0: any number. What the server itself made
  /// (purposes batch_output and fine-tune-results) counts for nobody, and a file counts as 4096 bytes at least.
  Result<FileWriter> begin(const std::string& filename, const std::string& purpose, const std::string& owner,
                           std::int64_t most_stored = 0);
  /// For what the server itself made: of any size.
  Result<FileWriter> begin_own(const std::string& filename, const std::string& purpose, const std::string& owner);
  /// Before anything is read: kInvalidArgument where it is known that so many bytes have no room. Never waits; what is
  /// not known here is judged in FileWriter::commit().
  Status check_room(const std::string& owner, std::int64_t bytes, std::int64_t most_stored) const;
  /// begin(), write(), commit().
  Result<FileRecord> add(const std::string& filename, const std::string& purpose, const std::string& owner,
                         std::string_view bytes);
  Result<FileRecord> find(const std::string& id) const;
  /// At most 10,000 a page. An empty purpose: all.
  Result<Page<FileRecord>> list(const PageQuery& query, const std::string& purpose = {}) const;
  Status set_status(const std::string& id, const std::string& status, const std::string& details);
  /// Row and content. Who has the content open keeps it until he closes it.
  Status remove(const std::string& id);
  std::filesystem::path content(const FileRecord& file) const { return context_.directory.files() / file.id; }
  /// Reads the content: kCorruptData where it is not what was written.
  Status check_content(const FileRecord& file) const;

 private:
  Result<FileWriter> begin_record(FileRecord record, std::int64_t max_bytes, std::int64_t most_stored);

  StoreContext context_;
  std::int64_t max_bytes_;
  std::shared_ptr<UploadRoom> room_ = std::make_shared<UploadRoom>();
};

}  // namespace tailor
