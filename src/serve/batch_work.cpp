#include "serve/batch_work.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {
namespace {

bool tells_of_models_alone(const Json& errors) {
  return std::all_of(errors.begin(), errors.end(), [](const Json& error) {
    const std::string code = error.value("code", "");
    return code == "model_not_found" || code == "more_errors";
  });
}

}  // namespace

std::filesystem::path batch_directory(const Store& store, const std::string& id) {
  return store.directory().root() / "runs" / id;
}

Json batch_error(const std::string& code, const std::string& message) {
  return Json::array({{{"code", code}, {"line", nullptr}, {"message", message}, {"param", nullptr}}});
}

std::unique_ptr<BatchWork> BatchWork::open(const Batch& batch, Store& store, const HasModel& has_model,
                                           const BatchInputLimits& limits, Logger& log) {
  auto out = std::make_unique<BatchWork>();
  out->batch = batch;
  if (batch.status == BatchStatus::kCancelling) out->ending = BatchStatus::kCancelled;
  out->read_again(store, has_model, limits, log);
  return out;
}

void BatchWork::read_again(Store& store, const HasModel& has_model, const BatchInputLimits& limits, Logger& log) {
  unread.reset();
  const bool fresh = batch.status == BatchStatus::kValidating || batch.total == 0;
  if (fresh && ending == BatchStatus::kCancelled) return;  // nothing of it was begun
  Json wrong = read(fresh, store, has_model, limits, log);
  if (wrong.empty() || ending) return;
  ending = BatchStatus::kFailed;
  errors = std::move(wrong);
}

/// What is wrong, as the API tells it.
Json BatchWork::read(bool fresh, Store& store, const HasModel& has_model, const BatchInputLimits& limits, Logger& log) {
  const auto storage = [&](const Error& error, const char* what) {
    log.warning(fmt::format("{}: {}", batch.id, to_string(error)));
    return batch_error("storage_error", fmt::format("{}; the server's log has the reason", what));
  };
  // Whether there is a place for answers, with those so far. On a full disk there is one later.
  const auto open_results = [&](const char* what) {
    auto opened = BatchResults::open(batch_directory(store, batch.id));
    if (opened.has_value())
      results.emplace(std::move(*opened));
    else if (opened.error().code == ErrorCode::kIo)
      unread = opened.error();
    else
      return storage(opened.error(), what);
    return Json::array();
  };
  if (!fresh) {
    Json wrong = open_results("the answers so far cannot be read");
    if (!results) return wrong;
  }
  route = find_route("POST", batch.endpoint).route;
  if (route == nullptr || !is_batch_endpoint(batch.endpoint))
    return batch_error("invalid_endpoint", fmt::format("{} is not served in batches", batch.endpoint));
  const auto file = store.files().find(batch.input_file);
  if (!file.has_value())
    return batch_error("file_not_found", fmt::format("there is no file {} any more", batch.input_file));
  // Of one that had begun the models may have changed; its requests tell so one by one.
  bool any_here = false;
  const auto known = [&](const std::string& name) {
    const bool here = !fresh || has_model(name);
    any_here = any_here || here;
    return here;
  };
  auto lines = BatchInput::read(store.files().content(*file), batch.endpoint, limits, known);
  if (!lines.has_value()) return storage(lines.error(), "the input file cannot be read");
  if (!lines->errors().empty()) {
    elsewhere = !any_here && tells_of_models_alone(lines->errors());
    return lines->errors();
  }
  if (fresh) {
    Json wrong = open_results("there is no place for answers");
    if (!results) return wrong;
    start.emplace();
    start->total = static_cast<std::int64_t>(lines->lines().size());
    start->model = lines->model();
  }
  input.emplace(std::move(*lines));
  return Json::array();
}

bool BatchWork::has_line() {
  if (!input || !again.empty()) return !again.empty();
  while (next < input->lines().size() && results->has(input->lines()[next].custom_id)) ++next;
  return next < input->lines().size();
}

bool BatchWork::is_over() {
  return !unread && asked.empty() && unsaved.empty() && (ending || !has_line());
}

Status BatchWork::finish(Store& store, Logger& log) {
  BatchStatus to = ending.value_or(BatchStatus::kCompleted);
  // Cancelled at the last moment, perhaps by another process.
  TAILOR_TRY(const Batch now, store.batches().find(batch.id));
  if (is_final(now.status)) return {};
  if (now.status == BatchStatus::kCancelling && to != BatchStatus::kFailed) to = BatchStatus::kCancelled;
  BatchChange change;
  if (!errors.empty()) change.errors = errors;
  if (start) {  // it never was in_progress
    change.total = start->total;
    change.model = start->model;
  }
  if (results) {
    std::vector<BatchAnswer> unasked;
    const bool expired = to == BatchStatus::kExpired, told = input && to != BatchStatus::kFailed;
    for (std::size_t i = 0; told && i < input->lines().size(); ++i) {
      const std::string& id = input->lines()[i].custom_id;
      if (results->has(id)) continue;
      BatchAnswer& answer = unasked.emplace_back();
      answer.custom_id = id;
      answer.code = expired ? "batch_expired" : "batch_cancelled";
      answer.message = expired ? "This request could not be executed before the completion window expired."
                               : "The batch was cancelled before this request was executed.";
    }
    TAILOR_CHECK(results->add(unasked));
    TAILOR_CHECK(store.batches().set_progress(batch.id, results->progress()));
    if (to == BatchStatus::kCompleted && now.status == BatchStatus::kInProgress)
      TAILOR_CHECK(store.batches().move(batch.id, BatchStatus::kFinalizing));
    TAILOR_TRY(const BatchResults::Files files, results->publish(store.files(), batch.id, batch.owner));
    change.output_file = files.output;
    change.error_file = files.errors;
  }
  TAILOR_TRY(const Batch ended, store.batches().move(batch.id, to, change));
  log.info(fmt::format("{}: {}, {} of {} requests answered, {} with errors", batch.id, to_string(ended.status),
                       ended.completed + ended.failed, ended.total, ended.failed));
  std::error_code ignored;
  std::filesystem::remove_all(batch_directory(store, batch.id), ignored);
  return {};
}

Status BatchWork::give_up(Store& store) {
  BatchChange change;
  change.errors = batch_error("storage_error", "its answers cannot be put in place; the server's log has the reason");
  if (start) {
    change.total = start->total;
    change.model = start->model;
  }
  TAILOR_CHECK(store.batches().move(batch.id, BatchStatus::kFailed, change));
  return {};
}

}  // namespace tailor
