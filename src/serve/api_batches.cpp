// Batches: files of requests that are answered in the background.

#include <fmt/format.h>

#include <charconv>

#include "serve/api_handlers.h"
#include "serve/batch_runner.h"

namespace tailor {
namespace {

constexpr std::int64_t kMostHours = 168;

ApiError no_batch(const std::string& id) {
  return {404, "invalid_request_error", "", fmt::format("there is no batch '{}'", id.substr(0, 128)), "batch_id"};
}

ApiFailure not_kept(const ApiServices& services) {
  if (services.batches != nullptr) return std::nullopt;
  return ApiError{501, "not_supported_error", "no_store", "this server works off no batches", ""};
}

ApiResult<Batch> own_batch(const ApiServices& services, const ApiCall& call) {
  const std::string& id = call.path.at("id");
  auto batch = services.store->batches().find(id);
  if (!batch.has_value()) return batch.error().code == ErrorCode::kNotFound ? no_batch(id) : api_error(batch.error());
  if (!call.principal.key_id.empty() && batch->owner != call.principal.key_id) return no_batch(id);
  return *batch;
}

/// "24h"; 0: it is none.
std::int64_t hours_of(const std::string& window) {
  std::int64_t hours = 0;
  const auto [end, code] = std::from_chars(window.data(), window.data() + window.size(), hours);
  const bool whole = code == std::errc() && end + 1 == window.data() + window.size() && *end == 'h';
  return whole && hours >= 1 && hours <= kMostHours ? hours : 0;
}

ApiResult<Json> create(const ApiServices& services, ApiCall& call) {
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  const std::string file_id = in.required_text("input_file_id"), endpoint = in.required_text("endpoint");
  const std::string window = in.required_text("completion_window");
  if (!in.error() && !is_batch_endpoint(endpoint))
    in.fail("endpoint",
            fmt::format("'{}' is none of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/classify",
                        endpoint.substr(0, 64)));
  const std::int64_t hours = hours_of(window);
  if (!in.error() && hours == 0)
    in.fail("completion_window", fmt::format("expected hours from 1h to {}h, such as 24h", kMostHours));
  check_metadata(in);
  if (in.error()) return *in.error();
  TAILOR_TRY(const std::optional<FileRecord> file, find_own_file(services, call.principal, file_id));
  if (!file)
    in.fail("input_file_id", fmt::format("there is no file '{}'", file_id.substr(0, 128)), "file_not_found");
  else if (file->purpose != "batch")
    in.fail("input_file_id", fmt::format("the file has the purpose '{}'; expected batch", file->purpose));
  if (in.error()) return *in.error();
  call.note_ignored(in);
  const Json* metadata = in.find("metadata");
  const NewBatch wanted{.owner = call.principal.key_id,
                        .endpoint = endpoint,
                        .input_file = file_id,
                        .completion_window = window,
                        .expires_at = services.batches->now() + hours * 3600,
                        .metadata = metadata == nullptr ? Json::object() : *metadata,
                        .most_unfinished = services.limits.batches};
  TAILOR_TRY(const std::optional<Batch> batch, services.store->batches().create(wanted));
  if (!batch) return too_many_unfinished("batches", services.limits.batches, "batch_limit_exceeded");
  services.batches->wake();
  return batch_object(*batch);
}

ApiResult<Json> show(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const Batch batch, own_batch(services, call));
  return batch_object(batch);
}

ApiResult<Json> list(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const PageQuery query, page_query(call, 100));
  TAILOR_TRY(const auto page, services.store->batches().list(query));
  return page_object(page, batch_object);
}

ApiResult<Json> cancel(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const Batch batch, own_batch(services, call));
  TAILOR_TRY(const Batch changed, services.batches->cancel(batch.id));
  return batch_object(changed);
}

}  // namespace

void handle_create_batch(const ApiServices& services, const ApiCallPtr& call) {
  if (const auto refused = not_kept(services)) return call->answer(*refused);
  call->answer(create(services, *call));
}
void handle_batches(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(list(services, *call));
}
void handle_batch(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(show(services, *call));
}
void handle_cancel_batch(const ApiServices& services, const ApiCallPtr& call) {
  if (const auto refused = not_kept(services)) return call->answer(*refused);
  call->answer(cancel(services, *call));
}

}  // namespace tailor
