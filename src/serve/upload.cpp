#include "serve/upload.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {
namespace {

constexpr std::size_t kPurposeBytes = 64;

/// A parameter of a header: name="value" or name=value.
std::optional<std::string> parameter(std::string_view header, std::string_view name) {
  for (std::size_t at = header.find(';'); at != std::string_view::npos;) {
    ++at;
    while (at < header.size() && (header[at] == ' ' || header[at] == '\t')) ++at;
    const std::size_t equals = header.find('=', at);
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view key = header.substr(at, equals - at);
    std::string value;
    std::size_t end = equals + 1;
    if (end < header.size() && header[end] == '"') {
      for (++end; end < header.size() && header[end] != '"'; ++end) {
        if (header[end] == '\\' && end + 1 < header.size()) ++end;
        value += header[end];
      }
      end = header.find(';', end);
    } else {
      const std::size_t stop = std::min(header.find(';', end), header.size());
      value = header.substr(end, stop - end);
      while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.pop_back();
      end = header.find(';', stop);
    }
    if (same_name(key, name)) return value;
    at = end;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> multipart_boundary(const std::string& content_type) {
  const std::string media = content_type.substr(0, content_type.find(';'));
  if (!same_name(media, "multipart/form-data")) return std::nullopt;
  auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70) return std::nullopt;
  return boundary;
}

ApiError storage_full(const Error& error) {
  return {413, "invalid_request_error", "storage_limit_exceeded",
          error.message + "; delete some that are not needed any more: GET /v1/files lists them, DELETE /v1/files/{id}",
          "file"};
}

UploadSink::UploadSink(FileStore& files, std::string owner, std::string boundary, std::int64_t most_stored)
    : files_(files),
      owner_(std::move(owner)),
      boundary_("\r\n--" + std::move(boundary)),
      most_stored_(most_stored),
      held_("\r\n") {}

Error UploadSink::refuse(std::string message) {
  status_ = 400;
  return {ErrorCode::kInvalidArgument, std::move(message), ""};
}

Status UploadSink::write(std::string_view piece) {
  held_ += piece;
  for (bool moved = true; moved;) {
    moved = false;
    TAILOR_CHECK(step(moved));
  }
  return {};
}

Status UploadSink::step(bool& moved) {
  switch (state_) {
    case State::kPreamble:
    case State::kContent: {
      const std::size_t at = held_.find(boundary_);
      // What may be the beginning of the boundary stays.
      const std::size_t safe =
          at != std::string::npos ? at : held_.size() - std::min(held_.size(), boundary_.size() - 1);
      if (state_ == State::kContent) TAILOR_CHECK(content(std::string_view(held_).substr(0, safe)));
      if (at == std::string::npos) {
        held_.erase(0, safe);
        return {};
      }
      if (state_ == State::kContent && field_ == "file") done_file_ = true;
      held_.erase(0, at + boundary_.size());
      state_ = State::kAfterBoundary;
      moved = true;
      return {};
    }
    case State::kAfterBoundary:
      if (held_.size() < 2) return {};
      if (held_.starts_with("--")) {
        state_ = State::kEnd;
      } else if (held_.starts_with("\r\n")) {
        if (++parts_ > kFormParts) return refuse(fmt::format("the form has more than {} fields", kFormParts));
        state_ = State::kHeaders;
      } else {
        return refuse("the form's boundary is followed by neither a field nor the end");
      }
      held_.erase(0, 2);
      moved = true;
      return {};
    case State::kHeaders: {
      const std::size_t end = held_.find("\r\n\r\n");
      if (end == std::string::npos) {
        if (held_.size() > kPartHeaderBytes) return refuse("the headers of a field are too long");
        return {};
      }
      TAILOR_CHECK(begin_part(std::string_view(held_).substr(0, end + 2)));
      held_.erase(0, end + 4);
      state_ = State::kContent;
      moved = true;
      return {};
    }
    case State::kEnd:
      held_.clear();
      return {};
  }
  return {};
}

Status UploadSink::begin_part(std::string_view headers) {
  field_.clear();
  for (std::size_t at = 0; at < headers.size();) {
    const std::size_t end = std::min(headers.find("\r\n", at), headers.size());
    const std::string_view line = headers.substr(at, end - at);
    at = end + 2;
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !same_name(line.substr(0, colon), "Content-Disposition")) continue;
    field_ = parameter(line, "name").value_or("");
    filename_ = parameter(line, "filename").value_or("");
  }
  if (field_.empty()) return refuse("a field of the form has no name");
  if (field_ != "file") {
    if (field_ != "purpose") ignored_.push_back(field_);
    return {};
  }
  if (writer_ || full_) return refuse("the form has more than one file");
  // A name is shown again, never used as a path.
  if (const std::size_t slash = filename_.find_last_of("/\\"); slash != std::string::npos)
    filename_.erase(0, slash + 1);
  if (filename_.empty()) filename_ = "upload";
  auto writer = files_.begin(filename_, purpose_.empty() ? "unknown" : purpose_, owner_, most_stored_);
  if (!writer.has_value()) {
    const ErrorCode code = writer.error().code;
    status_ = code == ErrorCode::kInvalidArgument ? 400 : code == ErrorCode::kIo ? 507 : 500;
    return writer.error();
  }
  writer_.emplace(std::move(*writer));
  return {};
}

Status UploadSink::content(std::string_view bytes) {
  if (field_ == "purpose") {
    purpose_ += bytes;
    if (purpose_.size() > kPurposeBytes) return refuse("'purpose' is too long");
  } else if (field_ == "file" && writer_ && !bytes.empty()) {
    const Status written = writer_->write(bytes);
    if (!written.has_value() && writer_->out_of_room()) {
      full_ = storage_full(written.error());
      writer_.reset();
    } else if (!written.has_value()) {
      status_ = written.error().code == ErrorCode::kInvalidArgument ? 413 : 507;
      return written.error();
    }
  }
  return {};
}

ApiResult<FileRecord> UploadSink::finish() {
  if (state_ != State::kEnd) return ApiError::invalid("file", "the upload stops before its end");
  if (full_) return *full_;
  if (!writer_ || !done_file_) return ApiError::invalid("file", "'file' is missing", "missing_required_parameter");
  if (purpose_.empty()) return ApiError::invalid("purpose", "'purpose' is missing", "missing_required_parameter");
  if (purpose_ != "fine-tune" && purpose_ != "batch" && purpose_ != "user_data" && purpose_ != "evals")
    return ApiError::invalid("purpose", fmt::format("'{}' is none of fine-tune, batch, user_data, evals", purpose_));
  writer_->set_purpose(purpose_);
  const Result<FileRecord> record = writer_->commit();
  if (record.has_value()) return *record;
  return writer_->out_of_room() ? storage_full(record.error()) : api_error(record.error());
}

}  // namespace tailor
