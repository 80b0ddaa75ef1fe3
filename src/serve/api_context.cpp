#include "serve/api_context.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/admission.h"
#include "serve/api_routes.h"
#include "serve/guard.h"
#include "serve/key_visit.h"
#include "serve/model_router.h"

namespace tailor {
namespace {

constexpr std::size_t kLongestName = 512;

/// A client's name of a field as a header may hold it, in a list with commas.
std::string plain(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  std::string out;
  for (const char c : name) {
    if (out.size() >= kLongest) return out + "...";
    if (c > ' ' && c < 127 && c != ',' && c != '%')
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

/// "..." stands for what has no room.
std::string ignored_names(const std::vector<std::string>& ignored) {
  constexpr std::size_t kMostBytes = 1000, kMostNames = FieldReader::kMostUnread;
  std::string out;
  std::size_t count = 0;
  for (const std::string& ignored_name : ignored) {
    const std::string name = plain(ignored_name);
    if (name.empty()) continue;
    const char* const comma = out.empty() ? "" : ", ";
    if (++count == kMostNames || out.size() + name.size() > kMostBytes) return out + comma + "...";
    out += comma + name;
  }
  return out;
}

}  // namespace

HttpHeaders ApiCall::headers(const char* content_type) const {
  HttpHeaders out{{"Content-Type", content_type}, {"X-Request-Id", id}, {"Cache-Control", "no-store"}};
  if (const std::string names = ignored_names(ignored); !names.empty()) out.add("X-Ignored-Params", names);
  if (principal.visit) principal.visit->add_headers(out);
  return out;
}

void ApiCall::answer(const Json& json, int status) const {
  answer_written(dump_json(json), status);
}

void ApiCall::answer_written(std::string json, int status) const {
  if (principal.visit) principal.visit->settle_unused();
  responder->send(HttpResponse{status, headers("application/json"), std::move(json)});
}

void ApiCall::log_cause(const ApiError& error) const {
  if (log != nullptr) tailor::log_cause(*log, *record, error);
}

void ApiCall::answer(const ApiError& error) const {
  log_cause(error);
  HttpResponse response = error_response(error);
  response.headers.add("X-Request-Id", id);
  if (principal.visit) {
    if (error.status >= 500)
      principal.visit->settle_refused();
    else
      principal.visit->settle_unused();
    if (error.headers.size() == 0) principal.visit->add_headers(response.headers);
  }
  responder->send(std::move(response));
}

void ApiCall::answer(ApiResult<Json> result) const {
  if (result.has_value())
    answer(*result);
  else
    answer(result.error());
}

void ApiCall::note_ignored(const FieldReader& in) {
  for (std::string& name : in.unread()) ignored.push_back(std::move(name));
}

void ApiCall::note_ignored_query(std::span<const std::string> read) {
  for (std::string& name : query_names(request.head.query)) {
    if (ignored.size() < FieldReader::kMostUnread && std::find(read.begin(), read.end(), name) == read.end())
      ignored.push_back("?" + std::move(name));
  }
}

std::optional<ApiError> ApiCall::reserve(std::int64_t answer_tokens) const {
  if (!principal.visit) return std::nullopt;
  return principal.visit->reserve(estimated_tokens(body_bytes) + answer_tokens);
}

void ApiCall::settle(std::int64_t tokens) const {
  if (principal.visit) principal.visit->settle(tokens);
}

void ApiCall::settle_estimated() const {
  if (principal.visit) principal.visit->settle_estimated();
}

void ApiCall::note(const ServedModel& model, std::size_t prompt_tokens) const {
  record->model = model.id;
  record->prompt_tokens = prompt_tokens;
}

ApiFailure refuse_late(const ApiServices& services, const ApiCall& call, const ExpectedWait& wait,
                       std::chrono::milliseconds most_waiting, double work) {
  const auto seconds = [](auto span) { return std::chrono::duration<double>(span).count(); };
  auto refused = refuse_to_wait(
      wait, {.named = !call.principal.key_id.empty(),
             .tokens = work,
             .seconds_left = seconds(call.arrived + services.limits.request_timeout - std::chrono::steady_clock::now()),
             .most_waiting_s = seconds(most_waiting)});
  if (refused) call.record->refused_for = refused->status == 429 ? WaitRefusal::kKey : WaitRefusal::kServer;
  return refused;
}

Json prompt_usage(std::size_t tokens) {
  return {{"prompt_tokens", tokens}, {"total_tokens", tokens}};
}

std::vector<std::string> input_texts(FieldReader& in, const ApiLimits& limits) {
  if (!in.has("input")) in.fail("input", "is missing", "missing_required_parameter");
  std::vector<std::string> texts = in.texts("input", limits.texts, limits.body_bytes);
  if (!in.error() && texts.empty()) in.fail("input", "expected at least one text");
  return texts;
}

void check_metadata(FieldReader& in) {
  const Json* metadata = in.find("metadata");
  if (metadata == nullptr) return;
  const char* const expected = "expected an object of at most 16 texts, names of 64 bytes and values of 512 at most";
  if (!metadata->is_object() || metadata->size() > 16) return in.fail("metadata", expected);
  for (const auto& [name, value] : metadata->items()) {
    if (name.size() > 64 || !value.is_string() || value.get_ref<const std::string&>().size() > 512)
      return in.fail("metadata", expected);
  }
}

ApiError too_many_unfinished(std::string_view what, std::int64_t most, std::string code) {
  ApiError error{429, "requests", std::move(code),
                 fmt::format("{} {} have not ended, which is as many as may be: wait for one or cancel it", most, what),
                 ""};
  // They take minutes to hours to end: clients that ask again by themselves within seconds need not.
  error.headers.add("x-should-retry", "false");
  return error;
}

void log_cause(Logger& log, const RequestRecord& record, const ApiError& error) {
  if (error.cause.empty()) return;
  log.warning(fmt::format("{} {} {}: {}", record.id, record.method, record.route == nullptr ? "" : record.route->path,
                          error.cause));
}

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

ApiResult<ServedModelPtr> named_model(const ApiServices& services, const Principal& who, FieldReader& in) {
  const std::string name = in.text("model", "", kLongestName);
  if (in.error()) return *in.error();
  return model_of_name(*services.models, viewer_of(who), name);
}

void answer_by_model(const ApiServices& services, const ApiCallPtr& call, AskModel ask) {
  const auto answer = [&]() -> ApiFailure {
    TAILOR_TRY(Json body, parse_body(call->request.body));
    call->request.body = {};
    call->request.held.reset();
    FieldReader named(body);
    const std::string name = named.text("model", "", kLongestName);
    if (named.error()) return named.error();
    TAILOR_TRY(const ServedModelPtr model, services.router->choose({name, body, *call}));
    call->note(*model);
    if (services.guard != nullptr) {
      if (auto refused = services.guard->check(*call, *model, body)) return refused;
    }
    if (model->provider) return model->provider->answer(call, model, body);
    FieldReader in(body);
    in.accept("model");
    return ask(services, call, model, in);
  };
  if (const ApiFailure failure = answer()) call->answer(*failure);
}

}  // namespace tailor
