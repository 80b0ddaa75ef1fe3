#include "serve/batch_results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/files.h"
#include "store/durable.h"
#include "store/random_id.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

std::int64_t number_at(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

/// Adds what an answer's "usage" counts, under the names that batches have for it.
void add_usage(const Json& body, Json& usage) {
  const auto found = body.find("usage");
  if (found == body.end() || !found->is_object()) return;
  if (usage.empty())
    usage = {{"input_tokens", 0},
             {"input_tokens_details", {{"cached_tokens", 0}}},
             {"output_tokens", 0},
             {"output_tokens_details", {{"reasoning_tokens", 0}}},
             {"total_tokens", 0}};
  const auto add = [](Json& to, std::int64_t more) { to = to.get<std::int64_t>() + more; };
  add(usage["input_tokens"], number_at(*found, "prompt_tokens"));
  add(usage["output_tokens"], number_at(*found, "completion_tokens"));
  add(usage["total_tokens"], number_at(*found, "total_tokens"));
  if (const auto details = found->find("prompt_tokens_details"); details != found->end() && details->is_object())
    add(usage["input_tokens_details"]["cached_tokens"], number_at(*details, "cached_tokens"));
}

}  // namespace

Json batch_answer_object(const BatchAnswer& answer) {
  Json out{{"id", random_id("batch_req_", 24)}, {"custom_id", answer.custom_id}};
  if (answer.status == 0) {
    out["response"] = nullptr;
    out["error"] = {{"code", answer.code}, {"message", answer.message}};
    return out;
  }
  Json body = Json::parse(answer.body, nullptr, false);
  if (body.is_discarded()) body = answer.body;
  out["response"] = {{"status_code", answer.status}, {"request_id", answer.request_id}, {"body", std::move(body)}};
  out["error"] = nullptr;
  return out;
}

void BatchResults::count(const Json& line) {
  done_.insert(line.value("custom_id", ""));
  const Json& response = line["response"];
  if (response.is_object() && number_at(response, "status_code") == 200) {
    ++progress_.completed;
    if (response.contains("body") && response["body"].is_object()) add_usage(response["body"], progress_.usage);
    return;
  }
  const bool unasked = line["error"].is_object() && line["error"].value("code", "") != "request_timeout";
  if (!unasked) ++progress_.failed;
}

Status BatchResults::open_part(Part& part) {
  part.fd = Descriptor(::open(part.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (part.fd.get() < 0) return io_error("cannot open", part.path, errno);
  {
    TAILOR_TRY(const MappedFile file, MappedFile::open(part.path));
    const std::string_view text = file.bytes();
    while (part.bytes < text.size()) {
      const std::size_t end = text.find('\n', part.bytes);
      if (end == std::string_view::npos) break;
      const Json line = Json::parse(text.substr(part.bytes, end - part.bytes), nullptr, false);
      // Bytes that a power cut left unwritten: what comes from here on is asked again.
      if (!line.is_object() || !line.contains("response") || !line.contains("error")) break;
      count(line);
      part.bytes = end + 1;
    }
  }
  if (::ftruncate(part.fd.get(), static_cast<off_t>(part.bytes)) != 0) return io_error("cannot cut", part.path, errno);
  return {};
}

Result<BatchResults> BatchResults::open(const fs::path& directory) {
  TAILOR_CHECK(make_directories(directory.parent_path()));
  TAILOR_CHECK(make_private_directory(directory));
  BatchResults out;
  out.output_.path = directory / "output.jsonl";
  out.errors_.path = directory / "errors.jsonl";
  TAILOR_CHECK(out.open_part(out.output_));
  TAILOR_CHECK(out.open_part(out.errors_));
  TAILOR_CHECK(sync_directory(directory));
  TAILOR_CHECK(sync_directory(directory.parent_path()));
  return out;
}

Status BatchResults::append(Part& part, std::string_view bytes) {
  if (bytes.empty()) return {};
  Status written;
  const auto at = static_cast<off_t>(part.bytes);
  if (::ftruncate(part.fd.get(), at) != 0 || ::lseek(part.fd.get(), at, SEEK_SET) < 0)
    written = io_error("cannot write", part.path, errno);
  else
    written = write_bytes(part.fd.get(), bytes, part.path);
  if (written && ::fdatasync(part.fd.get()) != 0) written = io_error("cannot write", part.path, errno);
  return written;
}

Status BatchResults::add(std::span<const BatchAnswer> answers) {
  std::string output, errors;
  std::vector<Json> lines;
  for (const BatchAnswer& answer : answers) {
    lines.push_back(batch_answer_object(answer));
    (answer.status == 200 ? output : errors) += dump_json(lines.back()) + "\n";
  }
  Status written = append(output_, output);
  if (written) written = append(errors_, errors);
  if (!written) {
    // What could not be cut now is cut when they are opened or written again.
    std::ignore = ::ftruncate(output_.fd.get(), static_cast<off_t>(output_.bytes));
    std::ignore = ::ftruncate(errors_.fd.get(), static_cast<off_t>(errors_.bytes));
    return written;
  }
  output_.bytes += output.size();
  errors_.bytes += errors.size();
  for (const Json& line : lines) count(line);
  return {};
}

Result<std::string> BatchResults::publish_part(const Part& part, FileStore& files, const std::string& name,
                                               const std::string& owner) {
  if (part.bytes == 0) return std::string();
  constexpr const char* kPurpose = "batch_output";
  PageQuery query{.after = {}, .limit = 10'000, .newest_first = true, .owner = owner};
  for (bool more = true; more;) {
    TAILOR_TRY(const auto page, files.list(query, kPurpose));
    for (const FileRecord& file : page.data) {
      if (file.filename == name) return file.id;
    }
    more = page.has_more && !page.data.empty();
    if (more) query.after = page.data.back().id;
  }
  TAILOR_TRY(FileWriter writer, files.begin_own(name, kPurpose, owner));
  TAILOR_TRY(const MappedFile file, MappedFile::open(part.path));
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  constexpr std::int64_t kRoomForRow = std::int64_t{1} << 20;
  const std::string_view text = file.bytes().substr(0, part.bytes);
  // On a full disk a try costs nothing: that there is no room, also for the file's row, is known before it is copied.
  TAILOR_CHECK(writer.reserve(static_cast<std::int64_t>(text.size()) + kRoomForRow));
  for (std::size_t at = 0; at < text.size(); at += kPiece) TAILOR_CHECK(writer.write(text.substr(at, kPiece)));
  TAILOR_TRY(const FileRecord record, writer.commit());
  return record.id;
}

Result<BatchResults::Files> BatchResults::publish(FileStore& files, const std::string& batch,
                                                  const std::string& owner) const {
  Files out;
  TAILOR_TRY(out.output, publish_part(output_, files, batch + "_output.jsonl", owner));
  TAILOR_TRY(out.errors, publish_part(errors_, files, batch + "_errors.jsonl", owner));
  return out;
}

}  // namespace tailor
