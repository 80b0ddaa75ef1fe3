// Fine-tuning jobs, as OpenAI's service had them.

#include <fmt/format.h>

#include "serve/api_handlers.h"
#include "serve/fine_tuning.h"

namespace tailor {
namespace {

ApiError no_job(const std::string& id) {
  return {404, "invalid_request_error", "", fmt::format("there is no fine-tuning job '{}'", id.substr(0, 128)),
          "fine_tuning_job_id"};
}

ApiResult<Job> own_job(const ApiServices& services, const ApiCall& call) {
  const std::string& id = call.path.at("id");
  auto job = services.tuning->jobs().find(id);
  if (!job.has_value()) return job.error().code == ErrorCode::kNotFound ? no_job(id) : api_error(job.error());
  if (!call.principal.key_id.empty() && job->owner != call.principal.key_id) return no_job(id);
  return *job;
}

/// A number, or "auto".
void check_hyper(FieldReader& in, const char* name, double least, double most, bool whole) {
  const Json* value = in.find(name);
  if (value == nullptr || (value->is_string() && value->get<std::string>() == "auto")) return;
  if (whole)
    (void)in.integer(name, 1, static_cast<std::int64_t>(least), static_cast<std::int64_t>(most));
  else
    (void)in.number(name, 1, least, most);
}

void check_hypers(FieldReader& in, const Json* hypers) {
  if (hypers == nullptr) return;
  FieldReader inner(*hypers, in.path_of("hyperparameters"));
  check_hyper(inner, "n_epochs", 1, 50, true);
  check_hyper(inner, "batch_size", 1, 256, true);
  check_hyper(inner, "learning_rate_multiplier", 1e-6, 1e4, false);
  if (inner.error()) in.fail(*inner.error());
  for (const std::string& name : inner.unread())
    in.fail(ApiError::invalid(name, fmt::format("'{}' is not known", name), "unknown_parameter"));
}

void check_file(FieldReader& in, const ApiServices& services, const Principal& principal, const char* field) {
  if (!in.has(field)) return;
  const std::string id = in.text(field, "", 128);
  if (in.error()) return;
  const auto found = find_own_file(services, principal, id);
  if (!found.has_value()) return in.fail(api_error(found.error()));
  const std::optional<FileRecord>& file = *found;
  if (!file) return in.fail(field, fmt::format("there is no file '{}'", id), "file_not_found");
  if (file->purpose != "fine-tune")
    in.fail(field, fmt::format("the file '{}' has the purpose '{}'; expected fine-tune", id, file->purpose));
}

ApiResult<Json> create(const ApiServices& services, ApiCall& call) {
  if (const Status ready = services.tuning->ready(); !ready)
    return ApiError{501, "not_supported_error", "training_not_available", to_string(ready.error()), ""};
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  if (!in.has("model")) in.fail("model", "is missing", "missing_required_parameter");
  if (!in.has("training_file")) in.fail("training_file", "is missing", "missing_required_parameter");
  if (in.error()) return *in.error();
  TAILOR_TRY(const ServedModelPtr model, named_model(services, call.principal, in));
  if (!model->text || !model->parent.empty())
    in.fail("model", fmt::format("'{}' cannot be tuned: expected a base model that answers with text", model->id),
            "model_not_available");
  check_file(in, services, call.principal, "training_file");
  check_file(in, services, call.principal, "validation_file");
  const std::string suffix = in.text("suffix", "", 64);
  for (const char c : suffix) {
    const bool plain =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
    if (!plain) in.fail("suffix", "expected letters, digits, '-', '_' and '.'");
  }
  (void)in.integer("seed", 1, 0, INT32_MAX);
  check_hypers(in, in.find("hyperparameters"));
  if (const Json* method = in.find("method")) {
    FieldReader inner(*method, "method");
    const std::string type = inner.required_text("type");
    if (!inner.error() && type != "supervised")
      inner.fail("type", fmt::format("'{}' is not built; this server tunes with supervised", type.substr(0, 64)),
                 "unsupported_parameter");
    if (const Json* supervised = inner.find("supervised")) {
      FieldReader deeper(*supervised, "method.supervised");
      check_hypers(deeper, deeper.find("hyperparameters"));
      inner.join(deeper);
    }
    in.join(inner);
  }
  if (const Json* integrations = in.find("integrations");
      integrations != nullptr && !(integrations->is_array() && integrations->empty()))
    in.fail("integrations", "this server reports to nobody else; the events and metrics are its own",
            "unsupported_parameter");
  check_metadata(in);
  if (in.error()) return *in.error();
  call.note_ignored(in);
  Json request = Json::object();
  for (const char* known :
       {"training_file", "validation_file", "suffix", "seed", "hyperparameters", "method", "metadata"}) {
    if (const Json* value = in.find(known)) request[known] = *value;
  }
  request["model"] = model->id;
  const std::int64_t most = services.limits.jobs;
  TAILOR_TRY(const std::optional<Job> job, services.tuning->create(call.principal.key_id, request, most));
  if (!job) return too_many_unfinished("fine-tuning jobs", most, "job_limit_exceeded");
  return job_object(*job);
}

ApiResult<Json> show(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const Job job, own_job(services, call));
  return job_object(job);
}

/// What changes a job's state; what its state does not allow is 400.
ApiResult<Json> change(const ApiServices& services, const ApiCall& call,
                       Result<Job> (FineTuning::*action)(const std::string&)) {
  TAILOR_TRY(const Job job, own_job(services, call));
  TAILOR_TRY(const Job changed, (services.tuning->*action)(job.id));
  return job_object(changed);
}

ApiResult<Json> list(const ApiServices& services, const ApiCall& call) {
  TAILOR_TRY(const PageQuery query, page_query(call, 100));
  TAILOR_TRY(const auto page, services.tuning->jobs().list(query));
  return page_object(page, job_object);
}

/// Of one job: what `read` gives page by page.
template <typename T>
ApiResult<Json> list_of_job(const ApiServices& services, const ApiCall& call, std::int64_t most,
                            Result<Page<T>> (JobStore::*read)(const std::string&, const PageQuery&) const,
                            Json (*object)(const T&)) {
  TAILOR_TRY(const Job job, own_job(services, call));
  TAILOR_TRY(PageQuery query, page_query(call, most));
  query.owner.clear();
  TAILOR_TRY(const auto page, (services.tuning->jobs().*read)(job.id, query));
  return page_object(page, object);
}

}  // namespace

ApiResult<PageQuery> page_query(const ApiCall& call, std::int64_t most) {
  PageQuery out;
  out.owner = call.principal.key_id;
  const std::string& query = call.request.head.query;
  out.after = query_parameter(query, "after").value_or("");
  if (out.after.size() > 128) return ApiError::invalid("after", "'after': expected an id");
  if (const auto limit = query_parameter(query, "limit")) {
    char* end = nullptr;
    out.limit = std::strtoll(limit->c_str(), &end, 10);
    if (limit->empty() || *end != 0 || out.limit < 1 || out.limit > most)
      return ApiError::invalid("limit", fmt::format("'limit': expected an integer from 1 to {}", most));
  }
  if (const auto order = query_parameter(query, "order")) {
    if (*order != "asc" && *order != "desc") return ApiError::invalid("order", "'order': expected asc or desc");
    out.newest_first = *order == "desc";
  }
  return out;
}

void handle_create_job(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(create(services, *call));
}
void handle_job(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(show(services, *call));
}
void handle_cancel_job(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(change(services, *call, &FineTuning::cancel));
}
void handle_pause_job(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(change(services, *call, &FineTuning::pause));
}
void handle_resume_job(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(change(services, *call, &FineTuning::resume));
}
void handle_jobs(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(list(services, *call));
}
void handle_job_events(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(list_of_job(services, *call, 1000, &JobStore::events, job_event_object));
}
void handle_job_checkpoints(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(list_of_job(services, *call, 100, &JobStore::checkpoints, job_checkpoint_object));
}

}  // namespace tailor
