// Files that clients send and fetch.

#include <fmt/format.h>

#include "serve/api_handlers.h"
#include "serve/http_file.h"
#include "serve/key_visit.h"
#include "serve/upload.h"
#include "store/store.h"

namespace tailor {
namespace {

ApiError not_found(const std::string& id) {
  return {404, "invalid_request_error", "", fmt::format("there is no file '{}'", id.substr(0, 128)), "id"};
}

ApiResult<FileRecord> own_file(const ApiServices& services, const ApiCall& call) {
  const std::string& id = call.path.at("id");
  TAILOR_TRY(std::optional<FileRecord> file, find_own_file(services, call.principal, id));
  if (!file) return not_found(id);
  return std::move(*file);
}

/// Of a form with a file, by its Content-Length.
std::int64_t least_file_bytes(const HttpHead& head) {
  constexpr std::uint64_t kBeside = kFormParts * kPartHeaderBytes;
  const std::uint64_t body = head.content_length.value_or(0);
  return body > kBeside ? static_cast<std::int64_t>(body - kBeside) : 0;
}

ApiResult<Json> upload(ApiCall& call) {
  auto& form = static_cast<UploadSink&>(*call.request.sink);
  TAILOR_TRY(const FileRecord file, form.finish());
  for (const std::string& name : form.ignored()) call.ignored.push_back(name);
  return file_object(file);
}

ApiResult<Json> list(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const PageQuery query, page_query(call, 10'000));
  const auto purpose = query_parameter(call.request.head.query, "purpose").value_or("");
  TAILOR_TRY(const auto page, services.store->files().list(query, purpose));
  return page_object(page, file_object);
}

ApiResult<Json> show(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const FileRecord file, own_file(services, call));
  return file_object(file);
}

ApiResult<Json> remove(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const FileRecord file, own_file(services, call));
  TAILOR_CHECK(services.store->files().remove(file.id));
  return Json{{"id", file.id}, {"object", "file"}, {"deleted", true}};
}

}  // namespace

Result<std::optional<FileRecord>> find_own_file(const ApiServices& services, const Principal& principal,
                                                const std::string& id) {
  auto file = services.store->files().find(id);
  if (!file.has_value()) {
    const ErrorCode code = file.error().code;
    if (code == ErrorCode::kNotFound || code == ErrorCode::kInvalidArgument) return std::optional<FileRecord>();
    return file.error();
  }
  if (!principal.key_id.empty() && file->owner != principal.key_id) return std::optional<FileRecord>();
  return std::optional<FileRecord>(std::move(*file));
}

ApiResult<std::unique_ptr<HttpBodySink>> make_upload(const ApiServices& services, const HttpHead& head,
                                                     const Principal& principal) {
  const std::string* type = head.headers.find("Content-Type");
  const auto boundary = type == nullptr ? std::nullopt : multipart_boundary(*type);
  if (!boundary)
    return ApiError{415, "invalid_request_error", "unsupported_media_type",
                    "expected Content-Type: multipart/form-data", ""};
  FileStore& files = services.store->files();
  const std::int64_t most = services.limits.stored_bytes;
  if (const Status room = files.check_room(principal.key_id, least_file_bytes(head), most); !room.has_value())
    return storage_full(room.error());
  return std::unique_ptr<HttpBodySink>(std::make_unique<UploadSink>(files, principal.key_id, *boundary, most));
}

void handle_upload(const ApiServices& /*services*/, const ApiCallPtr& call) {
  call->answer(upload(*call));
}
void handle_files(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(list(services, *call));
}
void handle_file(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(show(services, *call));
}
void handle_delete_file(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(remove(services, *call));
}

void handle_file_content(const ApiServices& services, const ApiCallPtr& call) {
  ApiResult<FileRecord> file = own_file(services, *call);
  if (!file.has_value()) return call->answer(file.error());
  auto content = HttpFileBody::open(services.store->files().content(*file));
  if (!content.has_value()) return call->answer(api_error(Error{ErrorCode::kIo, content.error().message, ""}));
  if (call->principal.visit) call->principal.visit->settle_unused();
  call->responder->send(HttpResponse{200, call->headers("application/octet-stream"), "", std::move(*content)});
}

}  // namespace tailor
